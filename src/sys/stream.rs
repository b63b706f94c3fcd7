//! A connection to a unix socket: connecting does not block either.

use super::{Errno, Result};
use nix::sys::socket::{connect as ask, socket, AddressFamily, SockFlag, SockType, UnixAddr};
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;
use std::path::Path;

/// Connects a non-blocking stream. EAGAIN: the listener's queue is full.
pub fn connect(path: &Path) -> Result<UnixStream> {
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    let socket = socket(AddressFamily::Unix, SockType::Stream, flags, None)?;
    let address = UnixAddr::new(path)?;
    loop {
        match ask(socket.as_raw_fd(), &address) {
            Ok(()) => return Ok(UnixStream::from(socket)),
            Err(Errno::EINTR) => {}
            Err(errno) => return Err(errno),
        }
    }
}
