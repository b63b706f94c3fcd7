//! eventfd(2): a counter that threads and signal handlers may raise, and that poll(2) can watch.

use nix::sys::eventfd::{EfdFlags, EventFd};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};

pub struct Event(EventFd);

impl Event {
    pub fn new() -> io::Result<Self> {
        Ok(Event(EventFd::from_flags(EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK)?))
    }

    pub fn raise(&self) {
        // Fails only on an overflow of 2^64, and then it is already raised.
        let _ = self.0.write(1);
    }

    /// Resets the counter to 0.
    pub fn clear(&self) {
        // EAGAIN: it was 0.
        let _ = self.0.read();
    }

    pub(super) fn raw(&self) -> RawFd {
        self.0.as_fd().as_raw_fd()
    }
}

impl AsFd for Event {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}
