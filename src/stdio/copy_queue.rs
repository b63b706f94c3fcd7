//! The interface to the copying thread (`copier`): requests send [`Command`]s and never wait for the thread itself, only
//! for [`Progress`], with a time limit. The thread starts when it is first needed.

use super::copy::Copy;
use super::fifo::{Ended, Output};
use crate::error::{Context, Result};
use crate::sync::{Condvar, Mutex};
use crate::sys::edge_epoll::EdgeEpoll;
use crate::tasks::News;
use std::os::fd::OwnedFd;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

/// How long the thread waits for others.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// For a missing reader after the end of an output: enough to restart containerd.
    pub reader: Duration,
    /// Between SIGTERM and SIGKILL, as in containerd's own shim.
    pub logger: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Limits { reader: Duration::from_secs(10), logger: Duration::from_secs(12) }
    }
}

const STACK: usize = 128 * 1024;

/// A command to the thread.
pub enum Command {
    Add(u64, Line),
    /// The process of this line has exited.
    End(u64),
    /// Closes this output once it has had a reader.
    Close(u64, Output, After),
    /// Closes everything with this number now.
    Drop(u64),
    /// A logging program that was sent SIGTERM.
    Retire(OwnedFd),
    /// Kills the logging programs that are still running.
    KillLoggers,
    Stop,
}

/// The copies of one console or one log file.
pub struct Line {
    pub output: Option<Copy>,
    pub input: Option<Copy>,
    /// Where to leave the fifo once it has ended.
    pub after: After,
    /// Set once everything written before the process exited has been copied.
    pub settled: Progress,
    pub progress: Progress,
}

/// Fifos that have ended, until the Delete.
pub type After = Arc<Mutex<Vec<Ended>>>;

/// Set once all output has been copied.
pub type Progress = News<()>;

/// Copies what the commands say, until there is nothing left to copy.
type Run = fn(&Arc<CopyQueue>, &EdgeEpoll);

/// The exchange of a container: shared by its thread and all that send to it. Each has its own, since a process can hold a
/// pipe locked (by a copy from memory whose page does not come), and then holds up whoever reads, writes or closes it.
pub struct CopyQueue {
    /// Created with the first thread.
    edges: OnceLock<EdgeEpoll>,
    /// The thread's work.
    run: Run,
    pub limits: Limits,
    /// The exchange that takes over logging programs told to exit: they outlive their container.
    elder: Option<Arc<CopyQueue>>,
    queue: Mutex<Queue>,
    /// Signalled when a logging program has exited.
    logger_gone: Condvar,
}

#[derive(Default)]
struct Queue {
    commands: Vec<Command>,
    runs: bool,
    last_number: u64,
    loggers: usize,
}

impl CopyQueue {
    pub fn new(limits: Limits, run: Run, elder: Option<Arc<CopyQueue>>) -> Arc<Self> {
        let (edges, queue, logger_gone) = (OnceLock::new(), Mutex::default(), Condvar::default());
        Arc::new(CopyQueue { edges, run, limits, elder, queue, logger_gone })
    }

    /// Allocates a number that identifies what belongs together.
    pub fn number(&self) -> u64 {
        let mut queue = self.queue.lock();
        queue.last_number += 1;
        queue.last_number
    }

    /// Sends a command; starts the thread if the command gives it work.
    pub fn send(self: &Arc<Self>, command: Command) -> Result<()> {
        if let (Command::Retire(..), Some(elder)) = (&command, &self.elder) {
            return elder.send(command);
        }
        let mut queue = self.queue.lock();
        let begins = matches!(command, Command::Add(..) | Command::Close(..) | Command::Retire(..));
        if !queue.runs {
            if !begins {
                return Ok(());
            }
            if self.edges.get().is_none() {
                // The queue is locked, so nobody else sets it.
                let _ = self.edges.set(EdgeEpoll::new().context(|| "epoll_create1()")?);
            }
            let copy_queue = Arc::clone(self);
            std::thread::Builder::new()
                .name("stdio".into())
                .stack_size(STACK)
                .spawn(move || {
                    if let Some(edges) = copy_queue.edges.get() {
                        (copy_queue.run)(&copy_queue, edges);
                    }
                })
                .context(|| "start the stdio thread")?;
            queue.runs = true;
        }
        if matches!(command, Command::Retire(..)) {
            queue.loggers += 1;
        }
        queue.commands.push(command);
        drop(queue);
        if let Some(edges) = self.edges.get() {
            edges.wake();
        }
        Ok(())
    }

    /// Takes the commands queued since the last call.
    pub fn take(&self) -> Vec<Command> {
        std::mem::take(&mut self.queue.lock().commands)
    }

    /// Records that the thread exits; the next command that needs a thread starts a new one.
    pub fn thread_ends(&self) {
        self.queue.lock().runs = false;
    }

    /// Records that the thread exits and returns true, unless a command is queued.
    pub fn thread_rests(&self) -> bool {
        let mut queue = self.queue.lock();
        queue.runs = !queue.commands.is_empty();
        !queue.runs
    }

    /// Records that a logging program told to exit has done so.
    pub fn logger_ended(&self) {
        self.queue.lock().loggers -= 1;
        self.logger_gone.notify_all();
    }

    /// Waits for logging programs that were told to exit, and kills those still running after `limit`.
    pub fn wait_for_loggers(self: &Arc<Self>, limit: Duration) {
        let queue = self.queue.lock();
        let waited = self.logger_gone.wait_timeout_while(queue, limit, |queue| queue.loggers > 0);
        drop(waited);
        // Without a thread there is no logging program to kill.
        let _ = self.send(Command::KillLoggers);
    }
}
