//! What reaches the thread that copies (`copier`), and how: as [`Command`]s, so that no request waits for it but
//! for [`Progress`], with a time limit. The thread starts with the first thing it is needed for.

use super::copy::Copy;
use super::fifo::Output;
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
    /// For a reader that was not there at the end: enough for containerd to be restarted.
    pub reader: Duration,
    /// From SIGTERM to SIGKILL, as containerd's own shim.
    pub logger: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Limits { reader: Duration::from_secs(10), logger: Duration::from_secs(12) }
    }
}

const STACK: usize = 128 * 1024;

/// What the thread is told.
pub enum Command {
    Add(u64, Line),
    /// The process of this line has ended.
    End(u64),
    /// Closes this output when it has had a reader.
    Close(u64, Output),
    /// Everything of this number is closed now.
    Drop(u64),
    /// A logging program that was sent SIGTERM.
    Retire(OwnedFd),
    /// Loggers that are still there are killed.
    KillLoggers,
    Stop,
}

/// The copies of one console, or of one log file.
pub struct Line {
    pub output: Option<Copy>,
    pub input: Option<Copy>,
    /// All that had been written when the process ended has been copied.
    pub settled: Progress,
    pub progress: Progress,
}

/// All output has been copied.
pub type Progress = News<()>;

/// Copies what the commands say, until there is nothing left to copy.
type Run = fn(&Arc<CopyQueue>, &EdgeEpoll);

/// The exchange of a container: shared by its thread and all that send to it. Each has its own, since a process can hold a
/// pipe locked (by a copy from memory whose page does not come), and then holds up whoever reads, writes or closes it.
pub struct CopyQueue {
    /// Made with the first thread.
    edges: OnceLock<EdgeEpoll>,
    /// The thread's work.
    run: Run,
    pub limits: Limits,
    /// Who looks after logging programs that were told to end: they outlive their container.
    elder: Option<Arc<CopyQueue>>,
    queue: Mutex<Queue>,
    /// Signalled when a logger is gone.
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

    /// A number for what belongs together.
    pub fn number(&self) -> u64 {
        let mut queue = self.queue.lock();
        queue.last_number += 1;
        queue.last_number
    }

    /// Tells the thread, and starts it where this is something to begin with.
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
                // The queue is locked: nobody else does.
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

    /// The commands since the last call.
    pub fn take(&self) -> Vec<Command> {
        std::mem::take(&mut self.queue.lock().commands)
    }

    /// The thread ends; the next command that needs one starts another.
    pub fn thread_ends(&self) {
        self.queue.lock().runs = false;
    }

    /// The same, unless there is a command; whether it ends.
    pub fn thread_rests(&self) -> bool {
        let mut queue = self.queue.lock();
        queue.runs = !queue.commands.is_empty();
        !queue.runs
    }

    /// A logging program that was told to end has ended.
    pub fn logger_ended(&self) {
        self.queue.lock().loggers -= 1;
        self.logger_gone.notify_all();
    }

    /// Waits for logging programs that were told to end, and kills those that are there after `limit`.
    pub fn wait_for_loggers(self: &Arc<Self>, limit: Duration) {
        let queue = self.queue.lock();
        let waited = self.logger_gone.wait_timeout_while(queue, limit, |queue| queue.loggers > 0);
        drop(waited);
        // Without a thread there is no logger to kill.
        let _ = self.send(Command::KillLoggers);
    }
}
