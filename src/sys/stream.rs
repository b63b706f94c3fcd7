//! A connection to a unix socket whose making has a time limit too.

use super::{Errno, Result};
use nix::sys::socket::{connect as ask, socket, AddressFamily, SockFlag, SockType, UnixAddr};
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

/// Between two attempts while the listener's queue is full: the kernel tells nobody when there is room.
const PAUSE: Duration = Duration::from_millis(5);

/// A non-blocking stream. EAGAIN: the listener has taken no connection until `deadline`.
pub fn connect(path: &Path, deadline: Instant) -> Result<UnixStream> {
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    let socket = socket(AddressFamily::Unix, SockType::Stream, flags, None)?;
    let address = UnixAddr::new(path)?;
    loop {
        match ask(socket.as_raw_fd(), &address) {
            Ok(()) => return Ok(UnixStream::from(socket)),
            Err(Errno::EINTR) => {}
            Err(Errno::EAGAIN) if Instant::now() < deadline => std::thread::sleep(PAUSE),
            Err(errno) => return Err(errno),
        }
    }
}
