//! A connection to a unix socket, whose making waits as everything else does.

use super::Looks;
use crate::sys::{stream, Errno};
use std::io;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

/// Between two attempts while the listener's queue is full: the kernel tells nobody when there is room.
const PAUSE: Duration = Duration::from_millis(5);

/// A non-blocking stream. `WouldBlock`: the listener has taken no connection until `deadline`.
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
