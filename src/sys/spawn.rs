//! A program of the host as a child of the shim: clone3(2) and execve(2), with descriptors where it expects them.
//!
//! Not `std::process::Command`: it calls wait(2) for a program that cannot be executed, and the one reaper of the
//! process would have taken that exit already. The child has a copy of the shim's memory and makes system calls
//! only; what it needs is prepared before the clone.

use nix::errno::Errno;
use nix::fcntl::{fcntl, FcntlArg};
use nix::sys::signal::{SigSet, SigmaskHow};
use std::ffi::{CStr, CString};
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

/// A running program. Its exit is the reaper's; the pidfd stays valid after that, and polls readable.
#[derive(Debug)]
pub struct Spawned {
    pub pid: u32,
    pub pidfd: OwnedFd,
}

/// `struct clone_args` of linux/sched.h, first version (64 bytes).
#[repr(C, align(8))]
#[derive(Default)]
struct CloneArgs {
    flags: u64,
    pidfd: u64,
    child_tid: u64,
    parent_tid: u64,
    exit_signal: u64,
    stack: u64,
    stack_size: u64,
    tls: u64,
}

const CLONE_PIDFD: u64 = 0x1000;
/// The first descriptor after standard input, output and error.
const FIRST: RawFd = 3;

/// Runs `path`. `fds` become its descriptors 3, 4, …; 0, 1 and 2 are the null device; it gets nothing else.
/// What execve(2) refuses is this call's error.
pub fn spawn(
    path: &CStr,
    argv: &[CString],
    envp: &[CString],
    fds: &[BorrowedFd<'_>],
) -> nix::Result<Spawned> {
    let null = super::pipe::null()?;
    let (status, status_writer) = super::pipe::pipe()?;

    // Every source lies above every target, so that no dup2 overwrites a source that is still needed.
    let above = FIRST + fds.len() as RawFd + 1;
    let lift = |fd: BorrowedFd<'_>| -> nix::Result<OwnedFd> {
        let raw = fcntl(fd, FcntlArg::F_DUPFD_CLOEXEC(above))?;
        // SAFETY: fcntl has just made `raw`; nothing else knows it.
        Ok(unsafe { OwnedFd::from_raw_fd(raw) })
    };
    let null = lift(std::os::fd::AsFd::as_fd(&null))?;
    let report = lift(std::os::fd::AsFd::as_fd(&status_writer))?;
    drop(status_writer);
    let sources = fds.iter().map(|fd| lift(*fd)).collect::<nix::Result<Vec<_>>>()?;

    let argv: Vec<*const libc::c_char> =
        argv.iter().map(|s| s.as_ptr()).chain(std::iter::once(std::ptr::null())).collect();
    let envp: Vec<*const libc::c_char> =
        envp.iter().map(|s| s.as_ptr()).chain(std::iter::once(std::ptr::null())).collect();

    let mut pidfd: RawFd = -1;
    let mut args = CloneArgs {
        flags: CLONE_PIDFD,
        pidfd: &raw mut pidfd as u64,
        exit_signal: libc::SIGCHLD as u64,
        ..CloneArgs::default()
    };
    // No handler of the shim may run in the child, so nothing is delivered until it has reset them.
    let mut mask = SigSet::empty();
    nix::sys::signal::pthread_sigmask(SigmaskHow::SIG_SETMASK, Some(&SigSet::all()), Some(&mut mask))?;
    // SAFETY: `args` is a valid clone_args of the given size, and without CLONE_VM the child goes on in a copy of
    // this memory; it only makes system calls until it executes or exits.
    let pid = unsafe { libc::syscall(libc::SYS_clone3, &raw mut args, std::mem::size_of::<CloneArgs>()) };
    if pid == 0 {
        let child = Child {
            path: path.as_ptr(),
            argv: argv.as_ptr(),
            envp: envp.as_ptr(),
            null: null.as_raw_fd(),
            report: report.as_raw_fd(),
            sources: &sources,
        };
        // SAFETY: this is the child; the pointers are NUL-terminated strings and null-terminated arrays of such
        // in its copy of the memory, and the descriptors are open.
        unsafe { child.run() }
    }
    let cloned = Errno::result(pid);
    let restored = nix::sys::signal::pthread_sigmask(SigmaskHow::SIG_SETMASK, Some(&mask), None);
    let pid = cloned? as u32;
    // SAFETY: with CLONE_PIDFD a clone that succeeds has stored a new descriptor here.
    let pidfd = unsafe { OwnedFd::from_raw_fd(pidfd) };
    restored?;

    // Closed by execve (all our descriptors are close-on-exec), or written to when that fails.
    drop(report);
    let mut errno = [0u8; 4];
    match super::pipe::read(&status, &mut errno)? {
        0 => Ok(Spawned { pid, pidfd }),
        _ => Err(Errno::from_raw(i32::from_ne_bytes(errno))),
    }
}

/// SIGTERM or SIGKILL to the process behind a pidfd; one that has ended needs none.
pub fn signal(pidfd: BorrowedFd<'_>, signal: libc::c_int) -> nix::Result<()> {
    // SAFETY: the pidfd is open, and no siginfo is passed.
    let result = unsafe {
        libc::syscall(
            libc::SYS_pidfd_send_signal,
            pidfd.as_raw_fd(),
            signal,
            std::ptr::null::<libc::siginfo_t>(),
            0u32,
        )
    };
    match Errno::result(result) {
        Ok(_) | Err(Errno::ESRCH) => Ok(()),
        Err(errno) => Err(errno),
    }
}

struct Child<'a> {
    path: *const libc::c_char,
    argv: *const *const libc::c_char,
    envp: *const *const libc::c_char,
    null: RawFd,
    report: RawFd,
    sources: &'a [OwnedFd],
}

impl Child<'_> {
    /// # Safety
    /// Only in the child of a clone without CLONE_VM, with the pointers as execve(2) wants them.
    unsafe fn run(&self) -> ! {
        let mut target = 0;
        while target < FIRST {
            // SAFETY: plain system call on an open descriptor.
            unsafe { libc::dup2(self.null, target) };
            target += 1;
        }
        for source in self.sources {
            // SAFETY: as above; the target is below every source.
            unsafe { libc::dup2(source.as_raw_fd(), target) };
            target += 1;
        }
        // SAFETY: plain system call; CLOSE_RANGE_CLOEXEC (Linux 5.11) keeps `report` until execve.
        unsafe { libc::syscall(libc::SYS_close_range, target, u32::MAX, libc::CLOSE_RANGE_CLOEXEC) };
        // An ignored signal stays ignored over execve(2), and the Rust runtime ignores SIGPIPE.
        let mut number = 1;
        while number < 65 {
            // SAFETY: the default action; the kernel refuses the numbers that have no choice.
            unsafe { libc::signal(number, libc::SIG_DFL) };
            number += 1;
        }
        let none = SigSet::empty();
        // SAFETY: a valid, empty set of this thread's own.
        unsafe { libc::sigprocmask(libc::SIG_SETMASK, none.as_ref(), std::ptr::null_mut()) };
        // SAFETY: the caller's promise.
        unsafe { libc::execve(self.path, self.argv, self.envp) };
        let errno = Errno::last_raw().to_ne_bytes();
        // SAFETY: `errno` is four readable bytes.
        unsafe { libc::write(self.report, errno.as_ptr().cast(), errno.len()) };
        // SAFETY: ends the child at once, without any handler of the parent's copy.
        unsafe { libc::_exit(127) }
    }
}
