//! One direction of copying: bytes from one descriptor to another, neither of which may block the thread.
//!
//! A copy works on edges: it goes on until a side says EAGAIN and then waits to be told that this side has
//! changed. What the destination does not take is kept, and nothing more is read until it is gone: a slow reader
//! slows the container down, as a full pipe would, and costs no memory.

use super::fifo::Output;
use crate::sys::pipe;
use crate::sys::Errno;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

/// Turns of one copy before others get theirs.
const TURNS: usize = 16;
/// A kept buffer above this is given back when it has been written.
const KEEP: usize = 4096;

/// Where a copy reads.
#[derive(Debug)]
pub enum Source {
    /// Ends when the last writer has closed.
    Pipe(OwnedFd),
    /// The master of a terminal. That nobody has the terminal open (EIO) may be for a moment only, so this ends
    /// when the process has ended and all that it wrote has been read.
    Console(Arc<OwnedFd>),
}

/// Where a copy writes.
#[derive(Debug)]
pub enum Sink {
    Fifo(Output),
    /// A file, the pipe of a logging program, …
    File(OwnedFd),
    /// The master of a terminal, which is the source of the other direction, and is watched as that; what is written
    /// while nobody has it open waits.
    Console(Arc<OwnedFd>),
    /// Nobody reads (any more). What comes is thrown away, so that the container does not stop.
    Nobody,
}

impl AsFd for Source {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Source::Pipe(fd) => fd.as_fd(),
            Source::Console(fd) => fd.as_fd(),
        }
    }
}

impl Sink {
    pub fn fd(&self) -> Option<BorrowedFd<'_>> {
        match self {
            Sink::Fifo(output) => Some(output.as_fd()),
            Sink::File(fd) => Some(fd.as_fd()),
            Sink::Console(fd) => Some(fd.as_fd()),
            Sink::Nobody => None,
        }
    }

    /// What is to be watched for it.
    pub fn watched(&self) -> Option<BorrowedFd<'_>> {
        match self {
            Sink::Console(_) => None,
            _ => self.fd(),
        }
    }
}

/// What became of a turn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Nothing to do until an edge.
    Waits,
    /// More to do, when others have had their turn.
    Hot,
    /// All that came from the source is with the sink.
    Done,
}

#[derive(Debug)]
pub struct Copy {
    pub from: Source,
    pub to: Sink,
    /// What the sink did not take yet: `kept[at..]`.
    kept: Vec<u8>,
    at: usize,
    readable: bool,
    writable: bool,
    /// The process has ended: a terminal with nothing to read is at its end.
    ended: bool,
    /// And all that there was to read then has been read.
    rest: bool,
    at_end: bool,
}

impl Copy {
    pub fn new(from: Source, to: Sink) -> Self {
        // The first call of each tells whether it is so.
        Copy {
            from,
            to,
            kept: Vec::new(),
            at: 0,
            readable: true,
            writable: true,
            ended: false,
            rest: false,
            at_end: false,
        }
    }

    pub fn on_edge(&mut self, readable: bool, writable: bool) {
        self.readable |= readable;
        self.writable |= writable;
    }

    pub fn end(&mut self) {
        self.ended = true;
        self.readable = true;
    }

    /// What was written before the end is with the sink.
    pub fn is_settled(&self) -> bool {
        (self.rest || self.at_end) && self.at == self.kept.len()
    }

    /// Goes on as far as both sides allow. `scratch` is the thread's buffer; its content is of no meaning after.
    pub fn turn(&mut self, scratch: &mut [u8]) -> Outcome {
        for _ in 0..TURNS {
            if self.at < self.kept.len() {
                if !self.writable {
                    return Outcome::Waits;
                }
                let at = self.at;
                self.at += write(&mut self.to, &mut self.writable, &self.kept[at..]);
                if self.at == self.kept.len() {
                    self.at = 0;
                    self.kept.clear();
                    self.kept.shrink_to(KEEP);
                }
                continue;
            }
            if self.at_end {
                return Outcome::Done;
            }
            if !self.readable {
                return Outcome::Waits;
            }
            let count = self.read(scratch);
            let written = match count {
                0 => 0,
                _ if self.writable => write(&mut self.to, &mut self.writable, &scratch[..count]),
                _ => 0,
            };
            self.kept.extend_from_slice(&scratch[written..count]);
        }
        Outcome::Hot
    }

    fn read(&mut self, scratch: &mut [u8]) -> usize {
        match pipe::read(&self.from, scratch) {
            Ok(0) => self.at_end = true,
            Ok(count) => return count,
            Err(errno) => {
                self.readable = false;
                self.rest = self.ended;
                self.at_end = match (&self.from, errno) {
                    // read(2) has flushed what was under way inside the kernel, so "nothing" is the truth.
                    (Source::Console(_), Errno::EAGAIN | Errno::EIO) => self.ended,
                    (_, Errno::EAGAIN) => false,
                    _ => true,
                };
            }
        }
        0
    }
}

/// Returns how much of `bytes` is dealt with.
fn write(to: &mut Sink, writable: &mut bool, bytes: &[u8]) -> usize {
    let Some(fd) = to.fd() else { return bytes.len() };
    match pipe::write(fd, bytes) {
        Ok(count) => count,
        Err(errno) => match (&to, errno) {
            (_, Errno::EAGAIN) | (Sink::Console(_), Errno::EIO) => {
                *writable = false;
                0
            }
            // EPIPE: the logging program is gone. ENOSPC and others: a log that cannot be written loses lines, but
            // the container goes on.
            (Sink::File(_), errno) if errno != Errno::EPIPE => bytes.len(),
            _ => {
                *to = Sink::Nobody;
                bytes.len()
            }
        },
    }
}
