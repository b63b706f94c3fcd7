//! poll(2), for those who wait for two things at most.

use super::epoll::Interest;
use super::fd::BorrowedFd;
use super::{Errno, Result};
use nix::poll::{PollFd, PollFlags, PollTimeout};
use std::time::{Duration, Instant};

/// Waits until one of the two can be read, is at its end, or (a pidfd) has ended; which are so. Neither: the time
/// is over.
pub fn either(fds: [BorrowedFd<'_>; 2], deadline: Option<Instant>) -> Result<[bool; 2]> {
    let mut polled = fds.map(|fd| PollFd::new(fd, PollFlags::POLLIN));
    loop {
        let limit = match deadline {
            None => PollTimeout::NONE,
            Some(deadline) => {
                // Rounded up, or the last millisecond would be spent in a loop.
                let left = deadline.saturating_duration_since(Instant::now()) + Duration::from_micros(999);
                PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX)
            }
        };
        match nix::poll::poll(&mut polled, limit) {
            Err(Errno::EINTR) => {}
            Err(errno) => return Err(errno),
            Ok(0) if deadline.is_some_and(|deadline| deadline > Instant::now()) => {}
            Ok(_) => return Ok(polled.map(|fd| fd.any().unwrap_or(false))),
        }
    }
}

/// Waits until one of what `interest` names can be done with `fd`, or nobody has its other side; false: the time is
/// over.
pub fn ready(fd: BorrowedFd<'_>, interest: Interest, deadline: Instant) -> Result<bool> {
    let mut flags = PollFlags::empty();
    flags.set(PollFlags::POLLIN, interest.read);
    flags.set(PollFlags::POLLOUT, interest.write);
    let mut polled = [PollFd::new(fd, flags)];
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Ok(false);
        }
        // Rounded up, or the last millisecond would be spent in a loop.
        let left = left + Duration::from_micros(999);
        match nix::poll::poll(&mut polled, PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX)) {
            Err(Errno::EINTR) | Ok(0) => {}
            Err(errno) => return Err(errno),
            Ok(_) => return Ok(true),
        }
    }
}
