//! Connects to a unix socket, waiting like everything else.

use super::Looks;
use crate::sys::{stream, Errno};
use std::io;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

/// The interval between attempts while the listener's queue is full: the kernel does not report when there is room.
const PAUSE: Duration = Duration::from_millis(5);

/// Returns a non-blocking stream. `WouldBlock`: the listener accepted no connection until `deadline`.
pub async fn connect(path: &Path, deadline: Instant) -> io::Result<UnixStream> {
    let mut looks = Looks::each(PAUSE);
    loop {
        match stream::connect(path) {
            Err(Errno::EAGAIN) if Instant::now() < deadline => {
                looks.again().await.map_err(io::Error::other)?
            }
            connected => return Ok(connected?),
        }
    }
}
