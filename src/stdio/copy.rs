//! One direction of copying: from one descriptor to another, without blocking the thread on either.
//!
//! A copy is edge-triggered: it continues until one side returns EAGAIN and then waits for an edge of that side. Data
//! that the destination does not accept is kept, and nothing more is read until it is written: a slow reader slows the
//! container down, as a full pipe would, and costs no memory.

use super::fifo::Output;
use crate::sys::pipe;
use crate::sys::Errno;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

/// Iterations of one copy before the others get their turn.
const TURNS: usize = 16;
/// A larger buffer is freed once it has been written.
const KEEP: usize = 4096;

/// The source of a copy.
#[derive(Debug)]
pub enum Source {
    /// Ends when the last writer has closed it.
    Pipe(OwnedFd),
    /// The master of a terminal. EIO means that nobody has the terminal open, possibly only for a moment; so this ends
    /// when the process has exited and everything it wrote has been read.
    Console(Arc<OwnedFd>),
}

/// The destination of a copy.
#[derive(Debug)]
pub enum Sink {
    Fifo(Output),
    /// A file, the pipe of a logging program, …
    File(OwnedFd),
    /// The master of a terminal, which is watched as the source of the other direction; output waits while nobody has
    /// the terminal open.
    Console(Arc<OwnedFd>),
    /// There is no reader (any more). Output is discarded, so that the container does not block.
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

    /// The descriptor to watch for this sink.
    pub fn watched(&self) -> Option<BorrowedFd<'_>> {
        match self {
            Sink::Console(_) => None,
            _ => self.fd(),
        }
    }
}

/// The outcome of a turn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Nothing to do until the next edge.
    Waits,
    /// More to do after the others' turns.
    Hot,
    /// Everything from the source has reached the sink.
    Done,
}

#[derive(Debug)]
pub struct Copy {
    pub from: Source,
    pub to: Sink,
    /// Data that the sink has not accepted yet: `kept[at..]`.
    kept: Vec<u8>,
    at: usize,
    readable: bool,
    writable: bool,
    /// The process has exited: a terminal with nothing to read is at its end.
    ended: bool,
    /// The process has exited, and everything readable then has been read.
    rest: bool,
    at_end: bool,
}

impl Copy {
    pub fn new(from: Source, to: Sink) -> Self {
        // Assume that both sides are ready; the first call on each tells.
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

    /// Whether everything written before the end has reached the sink.
    pub fn is_settled(&self) -> bool {
        (self.rest || self.at_end) && self.at == self.kept.len()
    }

    /// Copies as far as both sides allow. `scratch` is the thread's buffer; its content is meaningless afterwards.
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
                    // read(2) has flushed data in flight inside the kernel, so there really is nothing left.
                    (Source::Console(_), Errno::EAGAIN | Errno::EIO) => self.ended,
                    (_, Errno::EAGAIN) => false,
                    _ => true,
                };
            }
        }
        0
    }
}

/// Returns how much of `bytes` is done with, written or discarded.
fn write(to: &mut Sink, writable: &mut bool, bytes: &[u8]) -> usize {
    let Some(fd) = to.fd() else { return bytes.len() };
    match pipe::write(fd, bytes) {
        Ok(count) => count,
        Err(errno) => match (&to, errno) {
            (_, Errno::EAGAIN) | (Sink::Console(_), Errno::EIO) => {
                *writable = false;
                0
            }
            // EPIPE: the logging program is gone. ENOSPC and others: a log that cannot be written loses lines, but the
            // container continues.
            (Sink::File(_), errno) if errno != Errno::EPIPE => bytes.len(),
            _ => {
                *to = Sink::Nobody;
                bytes.len()
            }
        },
    }
}
