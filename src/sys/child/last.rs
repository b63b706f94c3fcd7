//! The last acts of a child, in memory that contains nothing else.
//!
//! A child has a copy of the shim's memory. Before a container can see it, or a process that it creates, it unmaps all
//! of that except the program and one mapping made for this child: a stack, the program's arguments, and a list of
//! acts. The code that runs from then on has no thread-local storage, no data segment and no libc: it makes system
//! calls directly, and touches nothing but that mapping and the [board](super::board).
//!
//! By then a seccomp profile may be loaded that refuses these calls, or answers them itself. Each call carries the
//! launch's key as a sixth argument, which the kernel ignores and the launch's filter may recognise (`crate::seccomp`).

use super::board::{failure, PAGE};
use super::fd::{AsRawFd, BorrowedFd, IntoRawFd, OwnedFd};
use super::{Errno, Forked, Key, Result};
use ::core::ffi::{c_char, CStr};
use ::core::prelude::rust_2021::*;
use ::core::sync::atomic::{AtomicU64, Ordering};
use ::syscalls::raw::syscall6;
use ::syscalls::Sysno;
use ::{core, libc};

/// One of the last acts. Their order is the plan's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Act {
    /// Loads the filter. The shim takes its listener.
    Filter,
    /// clone(2) with CLONE_PARENT: the rest is for the new process; the old one ends.
    Birth,
    /// setsid(2).
    Session,
    /// Makes descriptor 0 the session's terminal.
    Terminal,
    /// Tells the shim that the gate has been reached, in eight bytes.
    Announce,
    /// Waits for one byte from the shim.
    Await,
    /// execve(2).
    Execute,
    /// Closes all descriptors, and sleeps until a signal ends it.
    Sleep,
    /// fsopen(2) of a procfs, for the caller's pid namespace; passes its descriptor through the gate.
    Procfs,
}

/// linux/mount.h.
const FSOPEN_CLOEXEC: usize = 1;
pub(in crate::sys) const ACTS: usize = 8;
pub(in crate::sys) const GAPS: usize = 12;
pub(in crate::sys) const STACK: usize = 4 * PAGE;
/// The longest `HOME=…` with its NUL.
pub const HOME: usize = 512;
/// The exit code of a child that did not become its program.
const FAILED: usize = 1;

/// Lies directly above the stack; all pointers lead into the same mapping, or to the board.
#[repr(C)]
pub(in crate::sys) struct Orders {
    pub acts: [(Act, u32); ACTS],
    pub act_count: usize,
    pub number: u32,
    pub gaps: [(usize, usize); GAPS],
    pub gap_count: usize,
    pub gate: usize,
    pub key: usize,
    pub filter: libc::sock_fprog,
    pub filter_flags: usize,
    pub filter_listens: bool,
    pub argv: *const *const c_char,
    pub envp: *const *const c_char,
    /// An entry of `envp` reserved for HOME.
    pub spare: *mut *const c_char,
    pub home: *mut u8,
    pub program: *mut u8,
    pub program_room: usize,
    pub board: usize,
    pub born: usize,
    pub outcome: *const AtomicU64,
}

/// The mapping. The shim drops it after the clone; the child has a copy.
#[derive(Debug)]
pub struct Prepared {
    base: *mut u8,
    length: usize,
}

impl Drop for Prepared {
    fn drop(&mut self) {
        // SAFETY: the mapping of `new`, which nothing borrows any more.
        unsafe { libc::munmap(self.base.cast(), self.length) };
    }
}

/// Copies a string with its NUL into `room` bytes of the mapping.
fn copy(text: &CStr, to: *mut u8, room: usize) -> Result<()> {
    let bytes = text.to_bytes_with_nul();
    if bytes.len() > room {
        return Err(Errno::ENAMETOOLONG);
    }
    // SAFETY: the room in the mapping is the caller's, and nothing else uses it.
    unsafe { core::ptr::copy_nonoverlapping(bytes.as_ptr(), to, bytes.len()) };
    Ok(())
}

impl Prepared {
    /// Takes a mapping with a stack at its lower end, and [`Orders`] after that.
    pub(in crate::sys) fn new(base: *mut u8, length: usize) -> Self {
        Prepared { base, length }
    }

    /// Switches to the mapping for good and performs the remaining acts. `program` is one of the candidates. Returns
    /// only on an error before the switch.
    pub fn enter(
        &self,
        _: Forked,
        program: Option<&CStr>,
        home: Option<&CStr>,
    ) -> Result<core::convert::Infallible> {
        let orders = self.base.wrapping_add(STACK).cast::<Orders>();
        // SAFETY: `prepare` has written it there, and this process has its own copy.
        let filled = unsafe { &mut *orders };
        copy(program.unwrap_or(c""), filled.program, filled.program_room)?;
        if let Some(home) = home {
            copy(home, filled.home, HOME)?;
            // SAFETY: an entry of `envp` that was reserved for this.
            unsafe { filled.spare.write(filled.home.cast()) };
        }
        let top = self.base.wrapping_add(STACK);
        #[cfg(target_arch = "x86_64")]
        // SAFETY: the stack is ours, aligned and large enough for `run`, which never returns; nothing of the old stack
        // is used any more.
        unsafe {
            core::arch::asm!("mov rsp, {top}", "xor ebp, ebp", "call {run}", "ud2",
                top = in(reg) top, in("rdi") orders, run = sym run, options(noreturn))
        }
        #[cfg(target_arch = "aarch64")]
        // SAFETY: as above.
        unsafe {
            core::arch::asm!("mov sp, {top}", "mov x29, xzr", "bl {run}", "udf #0",
                top = in(reg) top, in("x0") orders, run = sym run, options(noreturn))
        }
    }
}

/// Makes a call with the launch's key. Returns the kernel's result: a negative value is an errno.
fn call(key: usize, number: Sysno, arguments: [usize; 5]) -> isize {
    let [a, b, c, d, e] = arguments;
    // SAFETY: the calls of this file take integers and pointers into the mapping or to the board, which stay mapped.
    unsafe { syscall6(number as usize, a, b, c, d, e, key) as isize }
}

/// exit_group(2), exit(2), and, if a filter forbids both, a fault. Never returns, never loops.
pub(super) fn end(key: usize, code: usize) -> ! {
    call(key, Sysno::exit_group, [code, 0, 0, 0, 0]);
    call(key, Sysno::exit, [code, 0, 0, 0, 0]);
    #[cfg(target_arch = "x86_64")]
    // SAFETY: an invalid instruction: the kernel kills the process, whatever signals it ignores or blocks.
    unsafe {
        core::arch::asm!("ud2", options(noreturn))
    }
    #[cfg(target_arch = "aarch64")]
    // SAFETY: as above.
    unsafe {
        core::arch::asm!("udf #0", options(noreturn))
    }
}

/// Runs on the mapping's stack.
unsafe extern "C" fn run(orders: *const Orders) -> ! {
    // SAFETY: `enter` passes the one that `prepare` wrote; the mapping is never unmapped.
    let orders = unsafe { &*orders };
    let mut number = orders.number;
    let mut answer = strip(orders);
    for (act, step) in orders.acts.iter().take(orders.act_count) {
        if answer < 0 {
            break;
        }
        number = *step;
        answer = perform(orders, *act, number);
    }
    // SAFETY: the board stays mapped.
    let outcome = unsafe { &*orders.outcome };
    // An agent may answer for execve(2) with any number.
    outcome.store(failure(number, answer.min(0).unsigned_abs() as u32), Ordering::Release);
    end(orders.key, FAILED)
}

/// Closes every descriptor but the streams and the gate, and unmaps all memory but what is needed here.
fn strip(orders: &Orders) -> isize {
    let close = |first: usize, last: usize| {
        if first > last {
            0
        } else {
            call(orders.key, Sysno::close_range, [first, last, 0, 0, 0])
        }
    };
    let mut answer = close(3, orders.gate.wrapping_sub(1));
    if answer >= 0 {
        answer = close(orders.gate.wrapping_add(1), u32::MAX as usize);
    }
    for (first, end) in orders.gaps.iter().take(orders.gap_count) {
        if answer < 0 {
            break;
        }
        answer = call(orders.key, Sysno::munmap, [*first, end.wrapping_sub(*first), 0, 0, 0]);
    }
    if answer < 0 {
        return answer;
    }
    // The page that reports births must not reach a process that the container can see.
    call(orders.key, Sysno::madvise, [orders.board, PAGE, libc::MADV_DONTFORK as usize, 0, 0])
}

/// Tells the shim the number of a filter's listener, waits until the shim has a copy, and closes it: after that no process
/// that the container can see has the listener.
///
/// A descriptor in a message would count against the container's user, whose other processes may leave room for none.
pub(crate) fn hand_over(
    _: Forked,
    key: Key,
    gate: BorrowedFd<'_>,
    number: u32,
    listener: OwnedFd,
) -> Result<()> {
    match part_with(key.0 as usize, gate.as_raw_fd() as usize, number, listener.into_raw_fd() as usize) {
        refused if refused < 0 => Err(Errno::from_raw(refused.unsigned_abs() as i32)),
        _ => Ok(()),
    }
}

fn part_with(key: usize, gate: usize, number: u32, listener: usize) -> isize {
    let answer = report(key, gate, [number, listener as u32]);
    if answer < 0 {
        return answer;
    }
    let answer = go_ahead(key, gate);
    if answer < 0 {
        return answer;
    }
    call(key, Sysno::close, [listener, 0, 0, 0, 0])
}

fn report(key: usize, gate: usize, words: [u32; 2]) -> isize {
    let bytes = core::ptr::from_ref(&words) as usize;
    call(key, Sysno::write, [gate, bytes, size_of_val(&words), 0, 0])
}

/// Waits for one byte from the shim; ends if the shim has given up the launch.
fn go_ahead(key: usize, gate: usize) -> isize {
    let mut go = 0u8;
    let byte = core::ptr::from_mut(&mut go) as usize;
    match call(key, Sysno::read, [gate, byte, 1, 0, 0]) {
        1 => 0,
        _ => end(key, FAILED),
    }
}

/// Sends a descriptor and one byte through the gate.
fn pass(orders: &Orders, descriptor: i32) -> isize {
    const LENGTH: usize = size_of::<libc::cmsghdr>() + size_of::<i32>();
    #[repr(C)]
    struct Control {
        header: libc::cmsghdr,
        descriptor: i32,
        _room: i32,
    }
    let control = Control {
        header: libc::cmsghdr { cmsg_len: LENGTH, cmsg_level: libc::SOL_SOCKET, cmsg_type: libc::SCM_RIGHTS },
        descriptor,
        _room: 0,
    };
    let part = libc::iovec { iov_base: core::ptr::from_ref(&control).cast_mut().cast(), iov_len: 1 };
    // `struct msghdr` of 64-bit architectures, as words: no address, one part, the control message.
    let (parts, about) = (core::ptr::from_ref(&part) as usize, core::ptr::from_ref(&control) as usize);
    let message = [0, 0, parts, 1, about, size_of::<Control>(), 0];
    let message = core::ptr::from_ref(&message) as usize;
    call(orders.key, Sysno::sendmsg, [orders.gate, message, libc::MSG_NOSIGNAL as usize, 0, 0])
}

fn perform(orders: &Orders, act: Act, number: u32) -> isize {
    let key = orders.key;
    match act {
        Act::Filter => {
            let filter = core::ptr::from_ref(&orders.filter) as usize;
            let mode = libc::SECCOMP_SET_MODE_FILTER as usize;
            let answer = call(key, Sysno::seccomp, [mode, orders.filter_flags, filter, 0, 0]);
            if answer < 0 || !orders.filter_listens {
                return answer;
            }
            part_with(key, orders.gate, number, answer as usize)
        }
        Act::Birth => {
            // Without a stack of its own, the new process continues here, on a copy.
            let flags = (libc::CLONE_PARENT | libc::CLONE_PARENT_SETTID) as usize;
            match call(key, Sysno::clone, [flags, 0, orders.born, 0, 0]) {
                0 => 0,
                refused if refused < 0 => refused,
                _ => end(key, 0),
            }
        }
        Act::Session => call(key, Sysno::setsid, [0; 5]),
        Act::Terminal => call(key, Sysno::ioctl, [0, libc::TIOCSCTTY as usize, 0, 0, 0]),
        Act::Announce => report(key, orders.gate, [number, 0]),
        Act::Await => go_ahead(key, orders.gate),
        Act::Execute => {
            let (argv, envp) = (orders.argv as usize, orders.envp as usize);
            let arguments = [orders.program as usize, argv, envp, 0, 0];
            // Returns only on an error, or if a filter has answered in the kernel's place.
            call(0, Sysno::execve, arguments)
        }
        Act::Procfs => {
            let name = c"proc".as_ptr() as usize;
            let context = call(key, Sysno::fsopen, [name, FSOPEN_CLOEXEC, 0, 0, 0]);
            if context < 0 {
                return context;
            }
            let sent = pass(orders, context as i32);
            if sent < 0 {
                return sent;
            }
            end(key, 0)
        }
        Act::Sleep => {
            call(key, Sysno::close_range, [0, u32::MAX as usize, 0, 0, 0]);
            loop {
                call(key, Sysno::ppoll, [0; 5]);
            }
        }
    }
}
