//! A fifo of containerd's, kept alive by the shim while the container itself writes to it or reads from it.
//!
//! Opening a fifo(7) blocks until the other side is open, a writer without a reader gets SIGPIPE, and a reader without
//! a writer sees EOF. containerd's side comes and goes (it is restarted while containers run), so the shim holds both
//! ends of an output for as long as the container lives. It never reads or writes them.

use crate::sys::pipe::{self, Access};
use nix::poll::{poll, PollFd, PollFlags, PollTimeout};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

/// The pipe size: twice the kernel's default. If a program writes 64 KiB at once into a pipe of 64 KiB, writer and
/// reader alternately wait for each other, which takes four times as long on two processors. No larger, because all of
/// root's pipes share `pipe-user-pages-soft` (64 MiB, pipe(7)); beyond it, root's processes in containers get small
/// pipes.
const ROOM: i32 = 128 << 10;

/// The shim's ends of an output fifo.
#[derive(Debug)]
pub struct Output {
    /// Absent only briefly, or if the process has no free descriptor to reopen it.
    read: Option<OwnedFd>,
    write: OwnedFd,
}

impl Output {
    /// Takes both ends of a fifo.
    pub fn keep(read: OwnedFd, write: OwnedFd) -> Self {
        // Refused at the limit: the default size will do.
        let _ = pipe::grow(&write, ROOM);
        Output { read: Some(read), write }
    }

    /// Whether somebody else has the fifo open for reading. Until then, closing the shim's ends would lose the written
    /// data, and a later reader would wait for a writer forever.
    pub fn has_reader(&mut self) -> bool {
        // The kernel only tells a writer whether there is any reader, so close ours for a moment. If there is no other,
        // a process that outlives an exec and writes in these microseconds finds no reader: there is no other way to
        // find out.
        self.read = None;
        let there = pipe::has_reader(&self.write);
        self.read = pipe::reopen(&self.write, Access::Read, true).ok();
        // If this cannot be determined, do not delay the end.
        there.unwrap_or(true)
    }

    /// Lets readers see EOF.
    pub fn end(self) -> Option<Ended> {
        self.read.map(Ended)
    }
}

/// The read end of an output that has ended: processes that outlive an exec may still write, and what its reader has
/// not read yet can be counted.
#[derive(Debug)]
pub struct Ended(OwnedFd);

impl Ended {
    /// Whether everything has been read, and no process has it any more that could write, or keep it locked. Unlike the
    /// other questions, this one does not wait for the pipe's lock.
    pub fn is_over(&self) -> bool {
        let mut poll_fd = [PollFd::new(self.0.as_fd(), PollFlags::POLLIN)];
        poll(&mut poll_fd, PollTimeout::ZERO).is_ok()
            && poll_fd.iter().all(|fd| fd.revents() == Some(PollFlags::POLLHUP))
    }

    /// Returns how many bytes wait for a reader that is still there.
    pub fn unread(self) -> Option<(Self, u64)> {
        let bytes = pipe::unread(&self.0).ok().filter(|bytes| *bytes > 0)?;
        // See `has_reader`. With a writer, nothing is lost meanwhile.
        let write = pipe::reopen(&self.0, Access::Write, true).ok()?;
        drop(self);
        let there = pipe::has_reader(&write).ok()?;
        let read = pipe::reopen(&write, Access::Read, true).ok()?;
        there.then_some((Ended(read), bytes))
    }
}

/// The shim's write end, used if the shim copies into the fifo.
impl AsFd for Output {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.write.as_fd()
    }
}
