//! A connection to a unix socket: connecting does not block either.

use super::{Errno, Result};
use nix::sys::socket::{
    connect as ask, sendmsg, socket, AddressFamily, ControlMessage, MsgFlags, SockFlag, SockType, UnixAddr,
};
use std::io::IoSlice;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::path::Path;

/// Connects a non-blocking stream. EAGAIN: the listener's queue is full.
pub fn connect(path: &Path) -> Result<UnixStream> {
    reach(&UnixAddr::new(path)?)
}

/// The same with an abstract name.
pub fn connect_abstract(name: &[u8]) -> Result<UnixStream> {
    reach(&UnixAddr::new_abstract(name)?)
}

/// The same with an O_PATH descriptor of the socket, whose path may be longer than an address.
pub fn connect_to(socket: BorrowedFd<'_>) -> Result<UnixStream> {
    connect(Path::new(&format!("/proc/self/fd/{}", socket.as_raw_fd())))
}

fn reach(address: &UnixAddr) -> Result<UnixStream> {
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    let socket = socket(AddressFamily::Unix, SockType::Stream, flags, None)?;
    loop {
        match ask(socket.as_raw_fd(), address) {
            Ok(()) => return Ok(UnixStream::from(socket)),
            Err(Errno::EINTR) => {}
            Err(errno) => return Err(errno),
        }
    }
}

/// Sends as many of the bytes as there is room for, the descriptor with the first one: sendmsg(2). Raises no SIGPIPE.
pub fn send(stream: &UnixStream, bytes: &[u8], passed: Option<BorrowedFd<'_>>) -> Result<usize> {
    let numbers: Vec<_> = passed.iter().map(AsRawFd::as_raw_fd).collect();
    let rights = passed.map(|_| ControlMessage::ScmRights(&numbers));
    let flags = MsgFlags::MSG_NOSIGNAL | MsgFlags::MSG_DONTWAIT;
    let part = [IoSlice::new(bytes)];
    loop {
        match sendmsg::<()>(stream.as_raw_fd(), &part, rights.as_slice(), flags, None) {
            Err(Errno::EINTR) => {}
            sent => return sent,
        }
    }
}
