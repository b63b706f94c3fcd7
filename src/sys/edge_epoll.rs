//! epoll(7), edge-triggered: reports a change of a descriptor's state once, not for as long as it lasts.
//!
//! One thread waits; others wake it. Edges suit descriptors that stay for hours in a state that poll(2) would report
//! again and again: the master of a terminal that nobody has open (EPOLLHUP), a FIFO without a reader.

use nix::errno::Errno;
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use nix::sys::eventfd::{EfdFlags, EventFd};
use std::os::fd::AsFd;
use std::time::Duration;

/// The wake-up's token; all others are the caller's.
const WAKE: u64 = 0;

/// A change of a descriptor. A hang-up or an error counts as both: the next call tells which it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Edge {
    pub token: u64,
    pub readable: bool,
    pub writable: bool,
}

pub struct EdgeEpoll {
    epoll: Epoll,
    wake: EventFd,
}

impl EdgeEpoll {
    pub fn new() -> nix::Result<Self> {
        let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
        let wake = EventFd::from_flags(EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK)?;
        epoll.add(&wake, EpollEvent::new(EpollFlags::EPOLLIN | EpollFlags::EPOLLET, WAKE))?;
        Ok(EdgeEpoll { epoll, wake })
    }

    /// Starts watching; `token` must not be 0. EPERM: a regular file, which is always ready.
    pub fn watch(&self, fd: impl AsFd, token: u64) -> nix::Result<()> {
        let flags = EpollFlags::EPOLLIN | EpollFlags::EPOLLOUT | EpollFlags::EPOLLET;
        self.epoll.add(fd, EpollEvent::new(flags, token))
    }

    /// Stops watching: necessary if a duplicate keeps the description alive, since closing does not end the watch then.
    pub fn forget(&self, fd: impl AsFd) {
        // A descriptor that is not watched needs no removal.
        let _ = self.epoll.delete(fd);
    }

    /// Makes the waiting thread return. May be called from any thread.
    pub fn wake(&self) {
        // Only a counter at its 64-bit limit refuses, and then the thread is already being woken.
        let _ = self.wake.write(1);
    }

    /// Waits for changes and adds them to `edges`.
    pub fn wait(&self, edges: &mut Vec<Edge>, limit: Option<Duration>) -> nix::Result<()> {
        let limit = match limit {
            // Rounded up: a wait that ends early makes its owner spin.
            Some(limit) => {
                let millis = limit.as_nanos().div_ceil(1_000_000).min(i32::MAX as u128);
                EpollTimeout::try_from(millis as i32).unwrap_or(EpollTimeout::ZERO)
            }
            None => EpollTimeout::NONE,
        };
        let mut events = [EpollEvent::empty(); 32];
        let count = match self.epoll.wait(&mut events, limit) {
            Ok(count) => count,
            Err(Errno::EINTR) => 0,
            Err(errno) => return Err(errno),
        };
        for event in events.iter().take(count) {
            if event.data() == WAKE {
                // Reset to 0, so that the next wake is an edge again.
                let _ = self.wake.read();
                continue;
            }
            let both = event.events().intersects(EpollFlags::EPOLLHUP | EpollFlags::EPOLLERR);
            edges.push(Edge {
                token: event.data(),
                readable: both || event.events().contains(EpollFlags::EPOLLIN),
                writable: both || event.events().contains(EpollFlags::EPOLLOUT),
            });
        }
        Ok(())
    }
}
