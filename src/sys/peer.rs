//! unix(7): a socket to which only its owner may connect, and the peer of one.

use nix::sys::socket::sockopt::PeerCredentials;
use nix::sys::socket::{bind, listen, socket, AddressFamily, Backlog, SockFlag, SockType, UnixAddr};
use nix::sys::stat::{fchmod, Mode};
use std::io;
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::net::UnixListener;
use std::path::Path;

/// SO_PEERCRED: the peer as it was at connect(2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Peer {
    /// 0 if the peer is in no pid namespace that we can see.
    pub pid: i32,
    pub uid: u32,
}

pub fn peer(socket: &impl AsFd) -> io::Result<Peer> {
    let credentials = nix::sys::socket::getsockopt(socket, PeerCredentials)?;
    Ok(Peer { pid: credentials.pid(), uid: credentials.uid() })
}

pub fn effective_uid() -> u32 {
    nix::unistd::geteuid().as_raw()
}

/// Listens at `path`, with mode 0600 from the beginning: bind(2) gives the file the mode of the socket's own inode, so
/// the process's umask does not have to change.
pub fn listen_privately(path: &Path) -> io::Result<UnixListener> {
    let socket = socket(AddressFamily::Unix, SockType::Stream, SockFlag::SOCK_CLOEXEC, None)?;
    fchmod(&socket, Mode::S_IRUSR | Mode::S_IWUSR)?;
    bind(socket.as_raw_fd(), &UnixAddr::new(path)?)?;
    listen(&socket, Backlog::MAXCONN)?;
    Ok(UnixListener::from(socket))
}
