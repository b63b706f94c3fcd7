//! poll(2), for those who wait for one thing or two.

use super::fd::BorrowedFd;
use super::{Errno, Result};
use ::core::prelude::rust_2021::*;
use ::nix;
use ::nix::poll::{PollFd, PollFlags, PollTimeout};
use ::std::time::{Duration, Instant};

/// What to be told of.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Interest {
    pub read: bool,
    pub write: bool,
}

impl Interest {
    pub const READ: Interest = Interest { read: true, write: false };
}

/// Waits until what `interest` names can be done with one of them, or one is at its end, or (a pidfd) has ended; which are
/// so. None of them: the time is over.
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
                // Rounded up, or the last millisecond would be spent in a loop.
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

/// Waits until one of what `interest` names can be done with `fd`, or nobody has its other side; false: the time is
/// over.
pub fn ready(fd: BorrowedFd<'_>, interest: Interest, deadline: Instant) -> Result<bool> {
    any([fd], interest, Some(deadline)).map(|[ready]| ready)
}
