//! Signals as an event: by a handler, since every container would inherit a blocked mask.

use super::event::Event;
use nix::errno::Errno;
use std::sync::atomic::{AtomicI32, AtomicU64, Ordering};

static EVENT: AtomicI32 = AtomicI32::new(-1);
static CAUGHT: AtomicU64 = AtomicU64::new(0);

pub use libc::{SIGINT, SIGTERM, SIGUSR1};

extern "C" fn note(signal: libc::c_int) {
    CAUGHT.fetch_or(1 << signal, Ordering::SeqCst);
    let one: u64 = 1;
    // SAFETY: takes no arguments, and has no effect.
    let location = unsafe { libc::__errno_location() };
    // SAFETY: the location of errno is this thread's own and always valid.
    let errno = unsafe { *location };
    let event = EVENT.load(Ordering::SeqCst);
    // SAFETY: write(2) is async-signal-safe and reads the 8 bytes of `one`; the event is never closed.
    unsafe { libc::write(event, std::ptr::from_ref(&one).cast(), size_of::<u64>()) };
    // SAFETY: as above; the interrupted code must find its errno unchanged.
    unsafe { *location = errno };
}

/// Makes each of `signals` raise `event`; [`caught`] tells which one it was.
pub fn raise_on(event: &'static Event, signals: &[libc::c_int]) -> nix::Result<()> {
    EVENT.store(event.raw(), Ordering::SeqCst);
    for &signal in signals {
        install(signal, note as *const () as libc::sighandler_t)?;
    }
    Ok(())
}

/// Makes writes to a pipe or socket without a reader fail with EPIPE instead.
pub fn ignore_broken_pipes() -> nix::Result<()> {
    install(libc::SIGPIPE, libc::SIG_IGN)
}

fn install(signal: libc::c_int, handler: libc::sighandler_t) -> nix::Result<()> {
    // SAFETY: all zeros is a valid sigaction: an empty mask, no flags.
    let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
    action.sa_sigaction = handler;
    action.sa_flags = libc::SA_RESTART;
    // SAFETY: `action` is initialised, and its handler is async-signal-safe (see `note`) or SIG_IGN.
    Errno::result(unsafe { libc::sigaction(signal, &action, std::ptr::null_mut()) }).map(drop)
}

/// The signals caught since the last call.
pub fn caught() -> Vec<libc::c_int> {
    let bits = CAUGHT.swap(0, Ordering::SeqCst);
    (1..64).filter(|signal| bits & (1 << signal) != 0).collect()
}
