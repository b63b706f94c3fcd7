//! Signals as an event: a handler, not a blocked mask, since a mask would be inherited by every container.

use super::event::Event;
use nix::errno::Errno;
use std::sync::atomic::{AtomicI32, AtomicU64, Ordering};

static EVENT: AtomicI32 = AtomicI32::new(-1);
static CAUGHT: AtomicU64 = AtomicU64::new(0);

pub use libc::{SIGINT, SIGTERM, SIGUSR1};

extern "C" fn note(signal: libc::c_int) {
    CAUGHT.fetch_or(1 << signal, Ordering::SeqCst);
    let one: u64 = 1;
    // SAFETY: takes nothing, and has no effect.
    let location = unsafe { libc::__errno_location() };
    // SAFETY: the location of errno is this thread's own and always valid.
    let errno = unsafe { *location };
    let event = EVENT.load(Ordering::SeqCst);
    // SAFETY: write(2) is async-signal-safe and reads the 8 bytes of `one`; the event lives for ever.
    unsafe { libc::write(event, std::ptr::from_ref(&one).cast(), size_of::<u64>()) };
    // SAFETY: as above; the code that was interrupted must find its errno again.
    unsafe { *location = errno };
}

/// From now on each of `signals` raises `event`; [`caught`] says which it was.
pub fn raise_on(event: &'static Event, signals: &[libc::c_int]) -> nix::Result<()> {
    EVENT.store(event.raw(), Ordering::SeqCst);
    for &signal in signals {
        install(signal, note as *const () as libc::sighandler_t)?;
    }
    Ok(())
}

/// Writes to a pipe or socket that nobody reads fail with EPIPE instead.
pub fn ignore_broken_pipes() -> nix::Result<()> {
    install(libc::SIGPIPE, libc::SIG_IGN)
}

fn install(signal: libc::c_int, handler: libc::sighandler_t) -> nix::Result<()> {
    // SAFETY: all zeroes is a valid sigaction: an empty mask, no flags.
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
