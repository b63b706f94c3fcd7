//! poll(2), for one descriptor or several.

use super::fd::BorrowedFd;
use super::{Errno, Result};
use ::core::prelude::rust_2021::*;
use ::nix;
use ::nix::poll::{PollFd, PollFlags, PollTimeout};
use ::std::time::{Duration, Instant};

/// The events to wait for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Interest {
    pub read: bool,
    pub write: bool,
}

impl Interest {
    pub const READ: Interest = Interest { read: true, write: false };
}

/// Waits until one of `fds` is ready for `interest`, is at its end, or (a pidfd) has exited; returns which are. None
/// are if the deadline has passed.
pub fn any<const N: usize>(
    fds: [BorrowedFd<'_>; N],
    interest: Interest,
    deadline: Option<Instant>,
) -> Result<[bool; N]> {
    let mut flags = PollFlags::empty();
    flags.set(PollFlags::POLLIN, interest.read);
    flags.set(PollFlags::POLLOUT, interest.write);
    let mut polled = fds.map(|fd| PollFd::new(fd, flags));
    loop {
        let limit = match deadline {
            None => PollTimeout::NONE,
            Some(deadline) => {
                let left = deadline.saturating_duration_since(Instant::now());
                // Rounded up, or the last millisecond would be spent in a busy loop.
                let left =
                    if left.is_zero() { left } else { left.saturating_add(Duration::from_micros(999)) };
                PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX)
            }
        };
        match nix::poll::poll(&mut polled, limit) {
            Err(Errno::EINTR) => {}
            Err(errno) => return Err(errno),
            Ok(0) if deadline.is_none_or(|deadline| deadline > Instant::now()) => {}
            Ok(_) => return Ok(polled.map(|fd| fd.any().unwrap_or(false))),
        }
    }
}

/// Waits until `fd` is ready for `interest`, or its other side is closed; returns false if the deadline has passed.
pub fn ready(fd: BorrowedFd<'_>, interest: Interest, deadline: Instant) -> Result<bool> {
    any([fd], interest, Some(deadline)).map(|[ready]| ready)
}
