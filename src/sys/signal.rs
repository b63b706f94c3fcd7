//! Signal masks and dispositions of a clone's child.

use super::{check, Result};

/// The kernel's signal set: one bit for each of 64 signals.
#[derive(Clone, Copy, Debug)]
pub struct Mask(u64);

/// `struct sigaction` as the system call takes it; all zero is SIG_DFL without flags and mask.
#[repr(C)]
struct Action {
    handler: usize,
    flags: libc::c_ulong,
    #[cfg(target_arch = "x86_64")]
    restorer: usize,
    mask: u64,
}

/// Blocks every signal in the calling thread, also those that glibc keeps for itself; returns the mask to
/// [`restore`].
pub fn block_all() -> Result<Mask> {
    let all = u64::MAX;
    let mut old = 0u64;
    // SAFETY: both sets are 8 bytes as said; the kernel reads the first and writes the second.
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

/// Every signal to its default action, then an empty mask. execve(2) resets handlers, but an ignored signal
/// stays ignored (SIGPIPE is, in a Rust program) and a blocked one blocked.
pub fn reset() -> Result<()> {
    for signal in 1..=64 {
        if signal == libc::SIGKILL || signal == libc::SIGSTOP {
            continue;
        }
        dispose(signal, libc::SIG_DFL)?;
    }
    restore(Mask(0))
}

/// Children that end are gone at once: with SIGCHLD ignored the kernel reaps them (wait(2), "Notes"), also those that
/// a pid namespace's first process inherits.
pub fn leave_children_to_the_kernel() -> Result<()> {
    dispose(libc::SIGCHLD, libc::SIG_IGN)
}

/// `handler` is SIG_DFL or SIG_IGN.
fn dispose(signal: i32, handler: usize) -> Result<()> {
    let action = Action {
        handler,
        flags: 0,
        #[cfg(target_arch = "x86_64")]
        restorer: 0,
        mask: 0,
    };
    let none = core::ptr::null_mut::<Action>();
    // SAFETY: the kernel reads one `Action` (its own layout, not libc's) with a set of 8 bytes, and is given
    // nowhere to write. No handler is installed.
    let answer = unsafe {
        libc::syscall(libc::SYS_rt_sigaction, signal, core::ptr::from_ref(&action), none, size_of::<u64>())
    };
    check(answer).map(drop)
}
