//! What only a raw system call reveals.

use serde_json::{json, Value};
use std::io::Error;

const KEYCTL_GET_KEYRING_ID: i64 = 0;
const KEYCTL_DESCRIBE: i64 = 6;
const KEY_SPEC_SESSION_KEYRING: i64 = -3;

/// Returns the session keyring: name, owner and permissions. Its number only tells whether two are the same.
/// (/proc/keys, which would tell as well, is masked in most containers.)
pub fn keyring() -> Value {
    // SAFETY: takes integers only.
    let id =
        unsafe { libc::syscall(libc::SYS_keyctl, KEYCTL_GET_KEYRING_ID, KEY_SPEC_SESSION_KEYRING, 0i64) };
    if id < 0 {
        return json!({ "error": super::errno(Error::last_os_error()) });
    }
    let mut room = [0u8; 256];
    // SAFETY: the kernel writes at most `room.len()` bytes into `room`, which is ours alone.
    let length =
        unsafe { libc::syscall(libc::SYS_keyctl, KEYCTL_DESCRIBE, id, room.as_mut_ptr(), room.len()) };
    let Some(text) = usize::try_from(length).ok().and_then(|length| room.get(..length)) else {
        return json!({ "error": super::errno(Error::last_os_error()), "number": id });
    };
    let text = String::from_utf8_lossy(text).trim_end_matches('\0').to_owned();
    let fields: Vec<&str> = text.splitn(5, ';').collect();
    json!({
        "number": id, "owner": fields.get(1..3), "permissions": fields.get(3), "name": fields.get(4),
    })
}

/// Returns `struct sched_attr` of this thread, and what ioprio_get(2) says: class << 13 | level.
pub fn schedule() -> Value {
    let mut all = libc::sched_attr {
        size: 0,
        sched_policy: 0,
        sched_flags: 0,
        sched_nice: 0,
        sched_priority: 0,
        sched_runtime: 0,
        sched_deadline: 0,
        sched_period: 0,
    };
    // SAFETY: the kernel writes at most the given size into `all`, which is ours alone.
    let told = unsafe { libc::syscall(libc::SYS_sched_getattr, 0i64, &raw mut all, size_of_val(&all), 0i64) };
    if told < 0 {
        return json!({ "error": super::errno(Error::last_os_error()) });
    }
    // SAFETY: takes integers only: IOPRIO_WHO_PROCESS, this one.
    let io = unsafe { libc::syscall(libc::SYS_ioprio_get, 1i64, 0i64) };
    json!({
        "policy": all.sched_policy, "flags": all.sched_flags, "nice": all.sched_nice, "priority": all.sched_priority,
        "runtime": all.sched_runtime, "deadline": all.sched_deadline, "period": all.sched_period, "io": io,
    })
}

/// Makes each system call with zeros as arguments, and returns `ok` or an errno for each.
pub fn calls(numbers: &[&str]) -> Value {
    let each = |number: &&str| {
        let Ok(call) = number.parse::<i64>() else { return ((*number).to_owned(), "not a number".into()) };
        // SAFETY: no argument is a pointer that the kernel would follow; the caller chooses calls that do nothing then.
        let answer = unsafe { libc::syscall(call, 0i64, 0i64, 0i64, 0i64, 0i64, 0i64) };
        let told = if answer < 0 { super::errno(Error::last_os_error()) } else { "ok".to_owned() };
        ((*number).to_owned(), told.into())
    };
    Value::Object(numbers.iter().map(each).collect())
}

/// Makes one ptrace(2) request that takes no data.
fn ptrace(request: libc::c_uint, pid: i32) -> nix::Result<()> {
    // SAFETY: PTRACE_SEIZE, without options, and PTRACE_INTERRUPT take numbers only.
    let answer = unsafe { libc::ptrace(request, pid, 0usize, 0usize) };
    nix::errno::Errno::result(answer).map(drop)
}

pub fn seize(pid: i32) -> nix::Result<()> {
    ptrace(libc::PTRACE_SEIZE, pid)
}

pub fn interrupt(pid: i32) -> nix::Result<()> {
    ptrace(libc::PTRACE_INTERRUPT, pid)
}

/// Returns the columns and rows of the terminal on the standard input.
pub fn window() -> String {
    let mut size = libc::winsize { ws_row: 0, ws_col: 0, ws_xpixel: 0, ws_ypixel: 0 };
    // SAFETY: the kernel writes one winsize, which is ours alone.
    match unsafe { libc::ioctl(0, libc::TIOCGWINSZ, &mut size) } {
        0 => format!("{}x{}", size.ws_col, size.ws_row),
        _ => super::errno(Error::last_os_error()),
    }
}
