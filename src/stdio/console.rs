//! A terminal: the shim has the master and copies between it and containerd's fifos (or a logging program).

use super::copy::{Copy, Sink, Source};
use crate::error::{Context, Result};
use crate::sys::pipe;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Weak};

/// The streams of a terminal, opened before the child creates it.
pub struct Terminal {
    pub output: Sink,
    /// The non-blocking read end of the input.
    pub input: Option<OwnedFd>,
}

impl Terminal {
    /// Creates the copies of both directions. The master lives as long as the copy of the output: at the end of the
    /// input this copy ends too, and the container's terminal hangs up.
    pub fn connect(self, master: OwnedFd) -> Result<(Copy, Option<Copy>, Weak<OwnedFd>)> {
        pipe::set_nonblocking(&master).context(|| "fcntl(console, F_SETFL)")?;
        let master = Arc::new(master);
        let weak = Arc::downgrade(&master);
        let input =
            self.input.map(|input| Copy::new(Source::Pipe(input), Sink::Console(Arc::clone(&master))));
        Ok((Copy::new(Source::Console(master), self.output), input, weak))
    }
}
