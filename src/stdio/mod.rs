//! The container's standard streams: none, fifos, a terminal, `file://`, `binary://`, `binary-v2://`.
//!
//! A fifo is passed to the container itself: nothing is copied, and the shim needs no thread. The shim copies only if
//! it must: for a terminal, whose master it has; for an exec, whose client must see EOF even if a process left behind
//! by the exec still holds the stream; and for files, because a descriptor of a host's file would let the container
//! truncate it, change its mode, and execute what it wrote there. One thread (`copier`) makes all copies of a container;
//! it exists only while there are any.
//!
//! Nothing here waits for the other side of a fifo. Time limits: the request's for opening paths, 10 s for a logging
//! program to become ready.

mod console;
mod copier;
mod copy;
mod copy_queue;
mod fifo;
mod io;
mod logger;
mod open;
mod uri;

#[cfg(test)]
mod tests;

pub(crate) use io::Io;

use crate::error::Result;
use crate::paths::Paths;
use copy_queue::{Command, CopyQueue, Limits};
use open::Opening;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// The streams of a request: paths of fifos or files, or URIs; empty means /dev/null.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Stdio {
    pub stdin: String,
    pub stdout: String,
    pub stderr: String,
    pub terminal: bool,
}

/// The child's descriptors 0, 1 and 2. They are moved into the launch, so that the shim cannot keep them open.
#[derive(Debug)]
pub struct StdioFds {
    pub stdin: OwnedFd,
    pub stdout: OwnedFd,
    pub stderr: OwnedFd,
}

/// The owner of the streams.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Whose {
    /// The container's own program; everything that holds its streams ends with it.
    Container,
    /// An exec: processes it leaves behind may hold its streams forever, and its client must not wait for that.
    Exec,
}

/// What a logging program is told about the container.
#[derive(Clone, Copy, Debug)]
pub struct Labels<'a> {
    /// The container's id; for an exec the exec's id, as in containerd's own shim.
    pub container: &'a str,
    pub namespace: &'a str,
}

/// Opens the streams of a sandbox's processes. Dropping it stops the copying thread.
pub struct Streams {
    copy_queue: Arc<CopyQueue>,
    paths: Paths,
}

impl Default for Streams {
    fn default() -> Self {
        Self::new(Paths::default())
    }
}

impl Streams {
    /// A separate one for a container, so that its blocked copies delay no others. Logging programs stay with `self`.
    pub(crate) fn of_container(&self) -> Self {
        let elder = Some(Arc::clone(&self.copy_queue));
        Streams {
            copy_queue: CopyQueue::new(self.copy_queue.limits, copier::run, elder),
            paths: self.paths.clone(),
        }
    }

    pub fn new(paths: Paths) -> Self {
        Self::with(Limits::default(), paths)
    }

    fn with(limits: Limits, paths: Paths) -> Self {
        Streams { copy_queue: CopyQueue::new(limits, copier::run, None), paths }
    }

    /// Opens the streams of `request`. The ends are for the child, and None with a terminal: the child creates it, and
    /// the master arrives through [`Io::attach_console`]. Fifos and pipes are chowned to `owner` (uid, gid) if that is
    /// not root. All streams are open, and a logging program is ready, by `deadline`.
    pub async fn open(
        &self,
        request: &Stdio,
        labels: &Labels<'_>,
        owner: (u32, u32),
        whose: Whose,
        deadline: Instant,
    ) -> Result<(Option<StdioFds>, Io)> {
        let Streams { copy_queue, paths } = self;
        Opening { copy_queue, paths, whose, owner, deadline }.open(request, labels).await
    }

    /// Called before the shim exits: waits for logging programs that were told to exit, and kills those left after
    /// `limit`.
    pub(crate) fn finish(&self, limit: Duration) {
        self.copy_queue.wait_for_loggers(limit);
    }
}

impl Drop for Streams {
    fn drop(&mut self) {
        // Without a thread there is nothing to stop.
        let _ = self.copy_queue.send(Command::Stop);
    }
}
