//! epoll(7): one set on which several threads wait.
//!
//! Every descriptor is registered one-shot (EPOLLONESHOT), so that only one thread at a time gets it, until it is armed
//! again.

use nix::sys::epoll::{EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use std::io;
use std::os::fd::BorrowedFd;
use std::time::Duration;

pub use super::poll::Interest;

impl Interest {
    fn flags(self) -> EpollFlags {
        let mut flags = EpollFlags::EPOLLONESHOT;
        flags.set(EpollFlags::EPOLLIN, self.read);
        flags.set(EpollFlags::EPOLLOUT, self.write);
        flags
    }
}

/// A descriptor that is ready, by the token it was registered with. A hang-up or an error counts as readable: the read
/// tells which it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ready {
    pub token: u64,
    pub read: bool,
    pub write: bool,
}

pub struct Epoll(nix::sys::epoll::Epoll);

impl Epoll {
    pub fn new() -> io::Result<Self> {
        Ok(Epoll(nix::sys::epoll::Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?))
    }

    pub fn add(&self, fd: BorrowedFd<'_>, token: u64, interest: Interest) -> io::Result<()> {
        Ok(self.0.add(fd, EpollEvent::new(interest.flags(), token))?)
    }

    pub fn arm(&self, fd: BorrowedFd<'_>, token: u64, interest: Interest) -> io::Result<()> {
        Ok(self.0.modify(fd, &mut EpollEvent::new(interest.flags(), token))?)
    }

    pub fn remove(&self, fd: BorrowedFd<'_>) -> io::Result<()> {
        Ok(self.0.delete(fd)?)
    }

    /// Returns None if `limit` has passed, or a signal arrived.
    pub fn wait(&self, limit: Option<Duration>) -> io::Result<Option<Ready>> {
        let limit = match limit {
            // Rounded up: a wait that ended early would make its owner spin.
            Some(limit) => {
                let millis = limit.as_nanos().div_ceil(1_000_000).min(i32::MAX as u128);
                EpollTimeout::try_from(millis as i32).unwrap_or(EpollTimeout::ZERO)
            }
            None => EpollTimeout::NONE,
        };
        let mut events = [EpollEvent::empty()];
        match self.0.wait(&mut events, limit) {
            Ok(0) | Err(nix::errno::Errno::EINTR) => Ok(None),
            Ok(_) => {
                let flags = events[0].events();
                Ok(Some(Ready {
                    token: events[0].data(),
                    read: flags.intersects(EpollFlags::EPOLLIN | EpollFlags::EPOLLHUP | EpollFlags::EPOLLERR),
                    write: flags.contains(EpollFlags::EPOLLOUT),
                }))
            }
            Err(errno) => Err(errno.into()),
        }
    }
}
