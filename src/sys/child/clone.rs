//! clone3(2), in the form of fork(2): the child has its own copy of the memory and one thread.

use super::board::Board;
use super::fd::{own, BorrowedFd, OwnedFd};
use super::{check, Errno, Forked, Result};
use ::core::cell::Cell;
use ::core::convert::Infallible;
use ::core::prelude::rust_2021::*;
use ::std::os::fd::AsRawFd;
use ::{core, libc};

/// Namespaces that a clone may create. Flags that share memory, files or signal handlers are excluded: the child would
/// then run on our stack, or close our descriptors.
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
/// Linux 5.5: clears all signal handlers in the child, which would otherwise take a system call per signal.
const CLONE_CLEAR_SIGHAND: u64 = 0x1_0000_0000;

/// A new process, not yet waited for.
#[derive(Debug)]
pub struct Child {
    pub pid: u32,
    pub pidfd: OwnedFd,
}

/// Creates a process that runs `child`, in `cgroup` (of cgroup v2) if one is given.
///
/// `child` must make system calls only: the memory was copied while other threads ran, so any lock (malloc's first of
/// all) may be held for ever there. Its type says that it never returns; a panic in it ends the process. Block signals
/// around this call; the child has none of this process's handlers, but may ignore the signals that it ignores.
///
/// With `cgroup`, a kernel or seccomp profile without clone3(2) returns ENOSYS, and a threaded cgroup EOPNOTSUPP:
/// nothing has run then, and the child of a call without `cgroup` can enter the cgroup by itself.
pub fn clone(
    flags: u64,
    cgroup: Option<BorrowedFd<'_>>,
    child: impl FnOnce(Forked) -> Infallible,
) -> Result<Child> {
    if FORBIDDEN.get() {
        return Err(Errno::ENOTSUP);
    }
    let mut pidfd: i32 = -1;
    let pid = any(flags, Relation::Child { pidfd: &raw mut pidfd }, cgroup, child)?;
    Ok(Child { pid, pidfd: own(pidfd.into()) })
}

/// Like [`clone`], but the new process is a child of the caller's parent, which finds its pid on the `board`:
/// CLONE_PARENT.
pub fn sibling(_: Forked, flags: u64, board: &Board, child: impl FnOnce(Forked) -> Infallible) -> Result<()> {
    any(flags, Relation::Sibling { born: board.born_at() }, None, child).map(drop)
}

::std::thread_local! {
    static FORBIDDEN: Cell<bool> = const { Cell::new(false) };
}

/// Forbids the calling thread to clone, or allows it again: its child would have no stack.
pub(in crate::sys) fn forbid(forbidden: bool) {
    FORBIDDEN.set(forbidden);
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Relation {
    /// Where its pidfd is stored.
    Child { pidfd: *mut i32 },
    /// Where its pid is stored.
    Sibling { born: *mut u32 },
}

/// Returns the pid.
fn any(
    flags: u64,
    relation: Relation,
    cgroup: Option<BorrowedFd<'_>>,
    child: impl FnOnce(Forked) -> Infallible,
) -> Result<u32> {
    if flags & !NAMESPACES != 0 {
        return Err(Errno::EINVAL);
    }
    let mut answer = clone3(flags, relation, cgroup);
    let legacy = answer == Err(Errno::ENOSYS) && cgroup.is_none() && flags & CLONE_NEWTIME == 0;
    if legacy {
        answer = clone_legacy(flags, relation);
    }
    match answer? {
        0 => {
            let forked = Forked::after_clone();
            let _guard = Guard(forked);
            if legacy && super::signal::reset_all(forked).is_err() {
                super::exec::exit(forked, 78);
            }
            // rustc knows that the call does not return, and clippy that the match has no arms; the types need it.
            #[allow(unreachable_code)]
            match child(forked) {}
        }
        pid => Ok(pid as u32),
    }
}

/// Ends the child if a panic would otherwise unwind it into the parent's code.
struct Guard(Forked);

impl Drop for Guard {
    fn drop(&mut self) {
        super::exec::exit(self.0, 78);
    }
}

impl Relation {
    /// The flags, and the exit signal to the parent: a sibling inherits the caller's.
    fn flags_and_signal(self) -> (u64, u64) {
        match self {
            Relation::Child { .. } => (libc::CLONE_PIDFD as u64, libc::SIGCHLD as u64),
            Relation::Sibling { .. } => ((libc::CLONE_PARENT | libc::CLONE_PARENT_SETTID) as u64, 0),
        }
    }
}

fn clone3(flags: u64, relation: Relation, cgroup: Option<BorrowedFd<'_>>) -> Result<libc::c_long> {
    let (more, exit_signal) = relation.flags_and_signal();
    let (pidfd, parent_tid) = match relation {
        Relation::Child { pidfd } => (pidfd as u64, 0),
        Relation::Sibling { born } => (0, born as u64),
    };
    let arguments = libc::clone_args {
        flags: flags | more | CLONE_CLEAR_SIGHAND | cgroup.map_or(0, |_| CLONE_INTO_CGROUP),
        pidfd,
        child_tid: 0,
        parent_tid,
        exit_signal,
        stack: 0,
        stack_size: 0,
        tls: 0,
        set_tid: 0,
        set_tid_size: 0,
        cgroup: cgroup.map_or(0, |fd| fd.as_raw_fd() as u64),
    };
    // SAFETY: `flags` share no memory (checked by `any`), so the child continues with a copy of this stack, as after
    // fork(2); the kernel writes one number, to a live i32 of `clone` or to the board.
    let answer = unsafe {
        libc::syscall(libc::SYS_clone3, core::ptr::from_ref(&arguments), size_of::<libc::clone_args>())
    };
    check(answer)
}

fn clone_legacy(flags: u64, relation: Relation) -> Result<libc::c_long> {
    let (more, exit_signal) = relation.flags_and_signal();
    let flags = flags | more | exit_signal;
    let number = match relation {
        Relation::Child { pidfd } => pidfd as u64,
        Relation::Sibling { born } => born as u64,
    };
    // SAFETY: as in `clone3`; the third argument is where the pidfd or the pid is stored, on every architecture; the
    // stack is the caller's (0), and TLS and the child's tid are not used.
    let answer = unsafe { libc::syscall(libc::SYS_clone, flags, 0, number, 0, 0) };
    check(answer)
}

#[cfg(test)]
mod tests {
    use super::*;
    use ::std::assert_eq;

    #[test]
    fn flags_that_share_memory_are_refused() {
        let never = |forked| -> Infallible { super::super::exec::exit(forked, 3) };
        assert_eq!(clone(libc::CLONE_VM as u64, None, never).err(), Some(Errno::EINVAL));
    }
}
