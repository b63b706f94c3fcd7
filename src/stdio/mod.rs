//! The container's standard streams: none, fifos, a terminal, `file://`, `binary://`, `binary-v2://`.
//!
//! A fifo is given to the container itself: nothing is copied, and the shim needs no thread. The shim copies where
//! it must: for a terminal, whose master it has, for an exec, whose client must see the end of a stream that a process
//! holds which the exec has left behind, and for files, because a descriptor of a host's file would let the
//! container truncate it, change its mode, and execute what it wrote there. All copies of a container are made by one
//! thread (`copier`), which is there while there are any.
//!
//! Nothing here waits for the other side of a fifo. Time limits: that of the request for what a path leads to, 10 s for a
//! logging program to be ready.

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

/// What the request says: paths of fifos or files, or URIs; all empty is /dev/null.
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

/// Whose streams they are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Whose {
    /// The container's own program, with which all that holds them ends.
    Container,
    /// An exec's: what it leaves behind may hold them for ever, and its client is not to wait for that.
    Exec,
}

/// What a logging program is told about the container.
#[derive(Clone, Copy, Debug)]
pub struct Labels<'a> {
    /// The container's id; for an exec the exec's, as containerd's own shim has it.
    pub container: &'a str,
    pub namespace: &'a str,
}

/// Opens the streams of a sandbox's processes. Dropping it stops the thread that copies.
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
    /// One for a container: what holds up its copies holds up no other's. Logging programs are still this one's.
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

    /// Opens what `request` names. The ends are for the child, and absent with a terminal: the child makes it, and
    /// its master comes through [`Io::attach_console`]. Fifos and pipes are given to `owner` (uid, gid), where that
    /// is not root. By `deadline` they are open, and a logging program is ready.
    pub async fn open(
        &self,
        request: &Stdio,
        labels: &Labels<'_>,
        owner: (u32, u32),
        whose: Whose,
        deadline: Instant,
    ) -> Result<(Option<StdioFds>, Io)> {
        let Streams { copy_queue, paths } = self;
        Opening { copy_queue, paths, whose, deadline }.open(request, labels, owner).await
    }

    /// Before the shim ends: waits for logging programs that were told to end, and kills what is left after `limit`.
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
