//! A fifo of containerd's, kept alive by the shim while the container writes to it or reads from it itself.
//!
//! fifo(7) opens block until the other side is there, a writer without a reader gets SIGPIPE, and a reader without
//! a writer sees the end. containerd's side comes and goes (it is restarted while containers run), so the shim
//! holds both ends of an output for as long as the container lives. It never reads or writes them.

use crate::sys::pipe::{self, Access};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

/// Twice the kernel's default. A program that writes 64 KiB at once fills a pipe of 64 KiB, and then writer and reader wait
/// for each other in turn: on two processors that takes four times as long. Not more, since all pipes of root's share
/// `pipe-user-pages-soft` (64 MiB, pipe(7)), beyond which its processes in containers get small ones.
const ROOM: i32 = 128 << 10;

/// The shim's ends of an output fifo.
#[derive(Debug)]
pub struct Output {
    /// Absent only for moments, or where the process has no descriptor left to take it back.
    read: Option<OwnedFd>,
    write: OwnedFd,
}

impl Output {
    /// Both ends of one fifo.
    pub fn keep(read: OwnedFd, write: OwnedFd) -> Self {
        // Refused at the limit: the smaller one does.
        let _ = pipe::grow(&write, ROOM);
        Output { read: Some(read), write }
    }

    /// Whether somebody else has the fifo open for reading. Until then what was written would be lost with the
    /// shim's ends, and a reader that comes later would wait for a writer for ever.
    pub fn has_reader(&mut self) -> bool {
        // The kernel tells a writer only whether there is any reader, so ours steps aside. Where there is no other, a
        // process that outlives an exec and writes in these microseconds finds none: nothing else tells who reads.
        self.read = None;
        let there = pipe::has_reader(&self.write);
        self.read = pipe::reopen(&self.write, Access::Read, true).ok();
        // An unknown answer must not hold the end back.
        there.unwrap_or(true)
    }

    /// Lets readers see the end. The read end stays: processes that outlive an exec may still write.
    pub fn end(self) -> Option<OwnedFd> {
        self.read
    }
}

/// The shim's write end, for where the shim copies into the fifo.
impl AsFd for Output {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.write.as_fd()
    }
}
