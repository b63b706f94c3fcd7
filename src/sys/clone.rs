//! clone3(2), in the form of fork(2): the child has its own copy of the memory and one thread.

use super::fd::{own, BorrowedFd, OwnedFd};
use super::{check, Errno, Result};
use core::convert::Infallible;
use std::os::fd::AsRawFd;

/// Namespaces that a clone may make. Flags that share memory, files or signal handlers are not among them: the
/// child would then run on our stack, or close our descriptors.
const NAMESPACES: u64 = (libc::CLONE_NEWNS
    | libc::CLONE_NEWCGROUP
    | libc::CLONE_NEWUTS
    | libc::CLONE_NEWIPC
    | libc::CLONE_NEWUSER
    | libc::CLONE_NEWPID
    | libc::CLONE_NEWNET) as u64
    | CLONE_NEWTIME;
const CLONE_NEWTIME: u64 = 0x80;
const CLONE_INTO_CGROUP: u64 = 0x2_0000_0000;
/// Linux 5.5: the child has no handlers, which would take a system call for each signal.
const CLONE_CLEAR_SIGHAND: u64 = 0x1_0000_0000;

/// A new process, not yet waited for.
#[derive(Debug)]
pub struct Child {
    pub pid: u32,
    pub pidfd: OwnedFd,
}

/// Makes a process that runs `child`, in `cgroup` (of cgroup v2) where one is given.
///
/// `child` must do system calls only: the copy of the memory was taken while other threads ran, so that any lock
/// (malloc's first) may be held for ever there. The type says that it never returns; a panic in it ends the process.
/// Signals should be blocked around this call; the child has none of this process's handlers, but may ignore what it
/// ignores.
///
/// A kernel or a seccomp profile without clone3(2) gives ENOSYS where `cgroup` is given, and a threaded cgroup gives
/// EOPNOTSUPP: nothing has run then, and the child of a call without `cgroup` may enter it by itself.
pub fn clone(
    flags: u64,
    cgroup: Option<BorrowedFd<'_>>,
    child: impl FnOnce() -> Infallible,
) -> Result<Child> {
    any(flags, Relation::Child, cgroup, child)
}

/// As [`clone`], but the new process is a child of the caller's parent: CLONE_PARENT. The caller is single-threaded, as
/// the child of a clone is.
pub fn sibling(flags: u64, child: impl FnOnce() -> Infallible) -> Result<Child> {
    any(flags, Relation::Sibling, None, child)
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Relation {
    Child,
    Sibling,
}

fn any(
    flags: u64,
    relation: Relation,
    cgroup: Option<BorrowedFd<'_>>,
    child: impl FnOnce() -> Infallible,
) -> Result<Child> {
    if flags & !NAMESPACES != 0 {
        return Err(Errno::EINVAL);
    }
    let mut pidfd: i32 = -1;
    let mut answer = clone3(flags, relation, cgroup, &mut pidfd);
    let legacy = answer == Err(Errno::ENOSYS) && cgroup.is_none() && flags & CLONE_NEWTIME == 0;
    if legacy {
        answer = clone_legacy(flags, relation, &mut pidfd);
    }
    match answer? {
        0 => {
            super::exec::mark_child();
            let _guard = Guard;
            if legacy && super::signal::reset_all().is_err() {
                super::exec::exit(78);
            }
            // rustc knows that the call does not return, and clippy that the match has no arm; the types need it.
            #[allow(unreachable_code)]
            match child() {}
        }
        pid => Ok(Child { pid: pid as u32, pidfd: own(pidfd.into()) }),
    }
}

/// Ends the child where a panic would otherwise unwind it into the parent's code.
struct Guard;

impl Drop for Guard {
    fn drop(&mut self) {
        super::exec::exit(78);
    }
}

impl Relation {
    /// The flag, and the signal that tells the parent of the end: that of a sibling is the caller's own.
    fn flag_and_signal(self) -> (u64, u64) {
        match self {
            Relation::Child => (0, libc::SIGCHLD as u64),
            Relation::Sibling => (libc::CLONE_PARENT as u64, 0),
        }
    }
}

fn clone3(
    flags: u64,
    relation: Relation,
    cgroup: Option<BorrowedFd<'_>>,
    pidfd: &mut i32,
) -> Result<libc::c_long> {
    let (flag, exit_signal) = relation.flag_and_signal();
    let arguments = libc::clone_args {
        flags: flags
            | flag
            | libc::CLONE_PIDFD as u64
            | CLONE_CLEAR_SIGHAND
            | cgroup.map_or(0, |_| CLONE_INTO_CGROUP),
        pidfd: core::ptr::from_mut(pidfd) as u64,
        child_tid: 0,
        parent_tid: 0,
        exit_signal,
        stack: 0,
        stack_size: 0,
        tls: 0,
        set_tid: 0,
        set_tid_size: 0,
        cgroup: cgroup.map_or(0, |fd| fd.as_raw_fd() as u64),
    };
    // SAFETY: `flags` share no memory (checked by `clone`), so that the child goes on with a copy of this stack
    // as after fork(2); `pidfd` is a live i32, the only memory that the kernel writes.
    let answer = unsafe {
        libc::syscall(libc::SYS_clone3, core::ptr::from_ref(&arguments), size_of::<libc::clone_args>())
    };
    check(answer)
}

fn clone_legacy(flags: u64, relation: Relation, pidfd: &mut i32) -> Result<libc::c_long> {
    let (flag, exit_signal) = relation.flag_and_signal();
    let flags = flags | flag | exit_signal | libc::CLONE_PIDFD as u64;
    // SAFETY: as in `clone3`; with CLONE_PIDFD the third argument is where the descriptor is stored, on every
    // architecture; the stack is the caller's (0), TLS and tid pointers are not used.
    let answer = unsafe { libc::syscall(libc::SYS_clone, flags, 0, core::ptr::from_mut(pidfd), 0, 0) };
    check(answer)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_that_share_memory_are_refused() {
        let never = || -> Infallible { super::super::exec::exit(3) };
        assert_eq!(clone(libc::CLONE_VM as u64, None, never).err(), Some(Errno::EINVAL));
    }
}
