//! A process that does nothing: it keeps a place (a systemd scope must have a process) until another takes it.

use ::core::convert::Infallible;

use super::clone::{clone, Child};
use super::{fd, signal, Result};
use ::core::prelude::rust_2021::*;
use ::{core, libc};

/// Starts it. It ends with the calling thread, or by a signal; it keeps none of the caller's descriptors but 0 to 2.
pub fn idle() -> Result<Child> {
    let mask = signal::block_all()?;
    let child = clone(0, None, |forked| -> Infallible {
        // A failure of either is harmless: the caller ends this process anyway, after a moment.
        let _ = fd::close_all_but(forked, &[]);
        // SAFETY: takes integers only.
        unsafe { libc::syscall(libc::SYS_prctl, libc::PR_SET_PDEATHSIG, libc::SIGKILL, 0, 0, 0) };
        for_ever()
    });
    signal::restore(mask)?;
    child
}

/// Sleeps until a signal ends the process.
fn for_ever() -> ! {
    loop {
        let none = core::ptr::null_mut::<libc::c_void>();
        // SAFETY: with no descriptors and no time limit the call reads nothing, and sleeps.
        unsafe { libc::syscall(libc::SYS_ppoll, none, 0, none, none, 0) };
    }
}
