//! waitid(2) and pidfds.

use super::fd::{own, BorrowedFd, OwnedFd};
use super::{check, Errno, Result};
use ::core::prelude::rust_2021::*;
use ::std::os::fd::AsRawFd;
use ::{core, libc};

/// How a process ended, as waitid(2) reports it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ended {
    pub pid: u32,
    /// The exit code, or 128 + the signal.
    pub code: u32,
}

/// Waits for any child to end, and leaves it a zombie: the caller first finds out whose it is.
pub fn any() -> Result<u32> {
    loop {
        match waitid(libc::P_ALL, 0, libc::WEXITED | libc::WNOWAIT) {
            Err(Errno::EINTR) => {}
            answer => return answer.map(|ended| ended.pid),
        }
    }
}

/// Reaps the child `pid`, which has ended.
pub fn reap(pid: u32) -> Result<Ended> {
    loop {
        match waitid(libc::P_PID, pid, libc::WEXITED) {
            Err(Errno::EINTR) => {}
            answer => return answer,
        }
    }
}

/// Whether `pid` is a child that has not been reaped.
pub(crate) fn is_child(pid: u32) -> bool {
    waitid(libc::P_PID, pid, libc::WEXITED | libc::WNOHANG | libc::WNOWAIT).is_ok()
}

/// The same by its pidfd: P_PIDFD, Linux 5.4.
pub(crate) fn is_child_of(pidfd: BorrowedFd<'_>) -> bool {
    let options = libc::WEXITED | libc::WNOHANG | libc::WNOWAIT;
    waitid(libc::P_PIDFD, pidfd.as_raw_fd() as u32, options).is_ok()
}

fn waitid(kind: libc::idtype_t, id: u32, options: i32) -> Result<Ended> {
    // SAFETY: a siginfo_t consists of integers and pointers, for which all-zero bytes are valid.
    let mut info: libc::siginfo_t = unsafe { core::mem::zeroed() };
    let none = core::ptr::null_mut::<libc::rusage>();
    let options = options | libc::__WALL;
    // SAFETY: the kernel writes one siginfo into `info`, and is given nowhere to write a rusage.
    let answer =
        unsafe { libc::syscall(libc::SYS_waitid, kind, id, core::ptr::from_mut(&mut info), options, none) };
    check(answer)?;
    // SAFETY: waitid has filled the fields of SIGCHLD, of which si_pid is one.
    let pid = unsafe { info.si_pid() } as u32;
    // SAFETY: as above, for si_status.
    let status = unsafe { info.si_status() } as u32;
    let code = if info.si_code == libc::CLD_EXITED { status } else { status.saturating_add(128) };
    Ok(Ended { pid, code })
}

/// pidfd_getfd(2): a copy of another process's descriptor.
pub(crate) fn descriptor_of(pidfd: BorrowedFd<'_>, number: i32) -> Result<OwnedFd> {
    // SAFETY: takes integers only.
    check(unsafe { libc::syscall(libc::SYS_pidfd_getfd, pidfd.as_raw_fd(), number, 0) }).map(own)
}

/// pidfd_open(2).
pub fn open_pidfd(pid: u32) -> Result<OwnedFd> {
    // SAFETY: takes integers only.
    check(unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) }).map(own)
}

/// pidfd_send_signal(2); ESRCH once the process has been reaped.
pub fn signal(pidfd: BorrowedFd<'_>, signal: i32) -> Result<()> {
    let none = core::ptr::null::<libc::siginfo_t>();
    // SAFETY: takes integers, and no siginfo.
    let answer = unsafe { libc::syscall(libc::SYS_pidfd_send_signal, pidfd.as_raw_fd(), signal, none, 0) };
    check(answer).map(drop)
}
