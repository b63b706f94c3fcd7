//! Connects to a unix socket, waiting like everything else.

use super::Looks;
use crate::sys::{stream, Errno};
use std::io;
use std::os::fd::BorrowedFd;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

/// The interval between attempts while the listener's queue is full: the kernel does not report when there is room.
const PAUSE: Duration = Duration::from_millis(5);

/// Returns a non-blocking stream. `WouldBlock`: the listener accepted no connection until `deadline`.
pub async fn connect(path: &Path, deadline: Instant) -> io::Result<UnixStream> {
    attempt(|| stream::connect(path), deadline).await
}

/// The same with an abstract name.
pub async fn connect_abstract(name: &[u8], deadline: Instant) -> io::Result<UnixStream> {
    attempt(|| stream::connect_abstract(name), deadline).await
}

/// The same with an O_PATH descriptor of the socket.
pub async fn connect_to(socket: BorrowedFd<'_>, deadline: Instant) -> io::Result<UnixStream> {
    attempt(|| stream::connect_to(socket), deadline).await
}

async fn attempt(
    connect: impl Fn() -> Result<UnixStream, Errno>,
    deadline: Instant,
) -> io::Result<UnixStream> {
    let mut looks = Looks::each(PAUSE);
    loop {
        match connect() {
            Err(Errno::EAGAIN) if Instant::now() < deadline => {
                looks.again().await.map_err(io::Error::other)?
            }
            connected => return Ok(connected?),
        }
    }
}
