//! Signal masks and dispositions in a clone's child.

use super::{check, Forked, Result};
use ::core::prelude::rust_2021::*;
use ::{core, libc};

/// The kernel's signal set: one bit for each of 64 signals.
#[derive(Clone, Copy, Debug)]
pub struct Mask(u64);

/// `struct sigaction` as the system call takes it; all zeros is SIG_DFL without flags or mask. It has a restorer field
/// on architectures with SA_RESTORER.
#[repr(C)]
struct Action {
    handler: usize,
    flags: libc::c_ulong,
    #[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
    restorer: usize,
    mask: u64,
}

impl Action {
    fn of(handler: usize) -> Self {
        Action {
            handler,
            flags: 0,
            #[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
            restorer: 0,
            mask: 0,
        }
    }
}

/// Blocks every signal in the calling thread, including those that glibc reserves for itself; returns the mask for
/// [`restore`].
pub fn block_all() -> Result<Mask> {
    let all = u64::MAX;
    let mut old = 0u64;
    // SAFETY: both sets are 8 bytes, as passed; the kernel reads the first and writes the second.
    let answer = unsafe {
        libc::syscall(
            libc::SYS_rt_sigprocmask,
            libc::SIG_SETMASK,
            core::ptr::from_ref(&all),
            core::ptr::from_mut(&mut old),
            size_of::<u64>(),
        )
    };
    check(answer).map(|_| Mask(old))
}

pub fn restore(mask: Mask) -> Result<()> {
    let none = core::ptr::null_mut::<u64>();
    // SAFETY: the kernel reads a set of 8 bytes and is given nowhere to write.
    let answer = unsafe {
        libc::syscall(
            libc::SYS_rt_sigprocmask,
            libc::SIG_SETMASK,
            core::ptr::from_ref(&mask.0),
            none,
            size_of::<u64>(),
        )
    };
    check(answer).map(drop)
}

/// The signals that a process ignores: SIGPIPE in a Rust program, and inherited ones (nohup(1)).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ignored(u64);

fn all() -> impl Iterator<Item = i32> {
    (1..=64).filter(|signal| *signal != libc::SIGKILL && *signal != libc::SIGSTOP)
}

fn bit(signal: i32) -> u64 {
    1u64.wrapping_shl((signal as u32).wrapping_sub(1))
}

/// The signals that this process ignores now.
pub fn ignored() -> Result<Ignored> {
    let mut set = 0;
    for signal in all() {
        if disposition(signal)? == libc::SIG_IGN {
            set |= bit(signal);
        }
    }
    Ok(Ignored(set))
}

/// Resets `ignored` signals to their default action, and empties the mask: the child of a [clone](super::clone) has no
/// handlers. An ignored signal would stay ignored across execve(2), and a blocked one blocked, so no signal may be
/// ignored that was not when `ignored` was queried.
pub fn reset(forked: Forked, ignored: Ignored) -> Result<()> {
    for signal in all() {
        if ignored.0 & bit(signal) != 0 {
            dispose(forked, signal, libc::SIG_DFL)?;
        }
    }
    restore(Mask(0))
}

/// Resets every signal to its default action.
pub(super) fn reset_all(forked: Forked) -> Result<()> {
    all().try_for_each(|signal| dispose(forked, signal, libc::SIG_DFL))
}

/// Lets the kernel reap children as soon as they end: it does so if SIGCHLD is ignored (wait(2), "Notes"), even for
/// orphans that a pid namespace's first process inherits.
pub fn leave_children_to_the_kernel(forked: Forked) -> Result<()> {
    dispose(forked, libc::SIGCHLD, libc::SIG_IGN)
}

fn disposition(signal: i32) -> Result<usize> {
    let mut action = Action::of(libc::SIG_DFL);
    let none = core::ptr::null::<Action>();
    // SAFETY: the kernel is given nothing to read, and writes one `Action` (its own layout) with a set of 8 bytes.
    let answer = unsafe {
        libc::syscall(
            libc::SYS_rt_sigaction,
            signal,
            none,
            core::ptr::from_mut(&mut action),
            size_of::<u64>(),
        )
    };
    check(answer).map(|_| action.handler)
}

/// `handler` is SIG_DFL or SIG_IGN.
fn dispose(_: Forked, signal: i32, handler: usize) -> Result<()> {
    let action = Action::of(handler);
    let none = core::ptr::null_mut::<Action>();
    // SAFETY: the kernel reads one `Action` (its own layout, not libc's) with a set of 8 bytes, and is given
    // nowhere to write. No handler is installed.
    let answer = unsafe {
        libc::syscall(libc::SYS_rt_sigaction, signal, core::ptr::from_ref(&action), none, size_of::<u64>())
    };
    check(answer).map(drop)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::disallowed_macros, clippy::unwrap_used)]
    use super::*;
    use ::std::{assert, assert_eq};

    #[test]
    fn a_rust_program_ignores_broken_pipes() {
        assert!(ignored().unwrap().0 & bit(libc::SIGPIPE) != 0);
        assert_eq!(disposition(libc::SIGTERM).unwrap(), libc::SIG_DFL);
    }
}
