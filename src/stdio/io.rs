//! What the shim holds of a process's streams, from opening them to Delete.

use super::console::Terminal;
use super::copy_queue::{After, Command, CopyQueue, Line, Progress};
use super::fifo::{Ended, Output};
use super::logger::Logger;
use crate::error::{Context, Error, Kind, Result};
use crate::sync::{Mutex, MutexGuard};
use crate::sys::console::{self, WindowSize};
use crate::tasks::{Looks, News};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

/// How long Delete waits for a logging program to exit after the end of its streams; then it sends SIGTERM.
const LOGGER_GRACE: Duration = Duration::from_secs(1);
/// The interval between looks at what is unread, doubled from the first to the last value.
const FIRST_LOOK: Duration = Duration::from_millis(1);
const LAST_LOOK: Duration = Duration::from_millis(50);

/// The shim's side of a process's streams. Dropping it closes and ends everything without blocking.
pub struct Io {
    copy_queue: Arc<CopyQueue>,
    state: Arc<Mutex<State>>,
}

/// What the shim holds, depending on the kinds of the streams.
#[derive(Default)]
pub(super) struct State {
    /// The write end that keeps the input open until CloseIO.
    pub stdin: Option<OwnedFd>,
    /// Fifos that the container itself writes to.
    pub outputs: Vec<Output>,
    /// The terminal's streams, until its master arrives.
    pub terminal: Option<Terminal>,
    /// The master, owned by the copying thread.
    pub console: Option<Weak<OwnedFd>>,
    /// Numbers at the exchange: of copies, and of outputs that wait for a reader.
    pub numbers: Vec<u64>,
    /// The progress of each output copy: settled, and complete.
    pub copies: Vec<[Progress; 2]>,
    /// The fifos that have ended.
    pub after: After,
    pub logger: Option<Logger>,
    /// Set when the `Io` is dropped: from then on nothing waits for a reader.
    pub dropped: bool,
}

impl Io {
    pub(super) fn new(copy_queue: &Arc<CopyQueue>) -> Self {
        Io { copy_queue: Arc::clone(copy_queue), state: Arc::default() }
    }

    pub(super) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock()
    }

    /// Passes a line to the copying thread.
    pub(super) fn copy(
        &self,
        output: Option<super::copy::Copy>,
        input: Option<super::copy::Copy>,
    ) -> Result<()> {
        let number = self.copy_queue.number();
        let [settled, progress] = [Progress::default(), Progress::default()];
        let told = [settled.clone(), progress.clone()];
        let after = self.state().after.clone();
        let line = Line { output, input, settled, progress, after };
        self.copy_queue.send(Command::Add(number, line))?;
        let mut state = self.state();
        state.numbers.push(number);
        state.copies.push(told);
        Ok(())
    }

    /// Connects the master of the terminal that the child has created.
    pub fn attach_console(&self, master: OwnedFd) -> Result<()> {
        let Some(terminal) = self.state().terminal.take() else {
            return Err(Error::new(
                Kind::Bug,
                "a console for streams that have no terminal, or have one already",
            ));
        };
        let (output, input, master) = terminal.connect(master)?;
        self.copy(Some(output), input)?;
        self.state().console = Some(master);
        Ok(())
    }

    /// Sets the terminal size; does nothing without a terminal or after its end.
    pub(crate) fn resize(&self, columns: u16, rows: u16) -> Result<()> {
        let master = self.state().console.as_ref().and_then(Weak::upgrade);
        match master {
            Some(master) => console::resize(master.as_fd(), WindowSize { columns, rows })
                .context(|| format!("ioctl(TIOCSWINSZ, {columns}x{rows})")),
            None => Ok(()),
        }
    }

    /// CloseIO: the input ends once the client has closed it too, which hangs up a terminal.
    pub fn close_stdin(&self) {
        if let Some(stdin) = self.state().stdin.take() {
            apart(move || drop(stdin));
        }
    }

    /// Called when the process has exited, and with the container's first process everything in the container. Readers
    /// see EOF after the remaining data.
    pub fn ended(&self) {
        let (stdin, outputs) = {
            let mut state = self.state();
            for number in &state.numbers {
                // A thread that is not running has nothing to end.
                let _ = self.copy_queue.send(Command::End(*number));
            }
            (state.stdin.take(), std::mem::take(&mut state.outputs))
        };
        if stdin.is_none() && outputs.is_empty() {
            return;
        }
        let (copy_queue, state) = (Arc::clone(&self.copy_queue), Arc::clone(&self.state));
        let progress = Progress::default();
        state.lock().copies.push([progress.clone(), progress.clone()]);
        apart(move || {
            drop(stdin);
            for mut output in outputs {
                let after = state.lock().after.clone();
                if output.has_reader() {
                    // Before the lock, which a Delete takes: to end it closes a descriptor.
                    let ended = output.end().filter(|ended| !ended.is_over());
                    after.lock().extend(ended);
                } else {
                    let mut state = state.lock();
                    if state.dropped {
                        continue;
                    }
                    let number = copy_queue.number();
                    state.numbers.push(number);
                    // If the thread cannot be started, the output is closed now, and a later reader finds nothing.
                    let _ = copy_queue.send(Command::Close(number, output, after));
                }
            }
            progress.set(());
        });
    }

    /// Gives the last output a moment to reach the reader's fifo. Clients close their fifos when they hear of the exit
    /// (containerd's `cio` does) and then read only what is in the fifo.
    pub(crate) fn settle(&self, limit: Duration) {
        let copies = self.state().copies.clone();
        let until = Instant::now() + limit;
        for [settled, _] in copies {
            settled.wait(until.saturating_duration_since(Instant::now()));
        }
    }

    /// For Delete: waits until everything the process wrote has been read by its client, or has reached the log file or
    /// the logging program. Returns what is lost if that takes longer than `limit`.
    pub(crate) async fn drain(&self, limit: Duration) -> Result<(), Lost> {
        let until = Instant::now() + limit;
        let copies = std::mem::take(&mut self.state().copies);
        let left = || until.saturating_duration_since(Instant::now());
        let mut copied = true;
        for [_, progress] in &copies {
            copied = copied && progress.within(left()).await.is_some();
        }
        let logger = self.state().logger.take();
        if let Some(logger) = logger {
            logger.ended_within(left().min(LOGGER_GRACE)).await;
            self.state().logger = Some(logger);
        }
        if !copied {
            return Err(Lost::NotCopied);
        }
        let after = self.state().after.clone();
        let mut looks = Looks::new(FIRST_LOOK, LAST_LOOK);
        // Clients stop reading when they are told that the process is deleted.
        let mut lost = Lost::NotCopied;
        while let Some(counted) = count(&after) {
            match counted.within(left()).await {
                // What has been added meanwhile is counted next.
                Some(0) => continue,
                Some(bytes) => lost = Lost::Unread(bytes),
                None => return Err(lost),
            }
            if left().is_zero() || looks.again().await.is_err() {
                return Err(lost);
            }
        }
        Ok(())
    }
}

/// Counts what is unread, and forgets the fifos of which everything has been read. None if there are none.
fn count(after: &After) -> Option<News<u64>> {
    let all = std::mem::take(&mut *after.lock());
    if all.is_empty() {
        return None;
    }
    let (counted, after) = (News::default(), After::clone(after));
    let news = counted.clone();
    apart(move || {
        let unread: Vec<_> = all.into_iter().filter_map(Ended::unread).collect();
        let bytes = unread.iter().map(|(_, bytes)| bytes).sum();
        after.lock().extend(unread.into_iter().map(|(ended, _)| ended));
        news.set(bytes);
    });
    Some(counted)
}

/// What a client does not get.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Lost {
    /// At least what is in the pipe that the shim copies from.
    NotCopied,
    /// This many bytes, which are in the client's fifos.
    Unread(u64),
}

impl std::fmt::Display for Lost {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Lost::NotCopied => f.write_str("output"),
            Lost::Unread(bytes) => write!(f, "{bytes} bytes of output"),
        }
    }
}

impl Drop for Io {
    fn drop(&mut self) {
        let State { stdin, outputs, after, numbers, terminal, mut logger, .. } =
            std::mem::replace(&mut *self.state(), State { dropped: true, ..State::default() });
        for number in numbers {
            // A thread that is not running holds nothing.
            let _ = self.copy_queue.send(Command::Drop(number));
        }
        if let Some(pidfd) = logger.take().and_then(Logger::into_pidfd) {
            // If the thread cannot be started, the program has at least had its SIGTERM and sees EOF.
            let _ = self.copy_queue.send(Command::Retire(pidfd));
        }
        // A terminal that was never attached may have a file, and to close that asks its filesystem.
        let after = std::mem::take(&mut *after.lock());
        if stdin.is_some() || terminal.is_some() || !outputs.is_empty() || !after.is_empty() {
            apart(move || drop((stdin, terminal, outputs, after)));
        }
    }
}

/// Runs on a separate thread what looks into, opens or closes an end of a pipe shared with a container: a process that
/// copies from or to memory whose page never arrives holds the pipe's lock, and close(2) waits for it like read(2), for
/// as long as the container likes. Neither the watch thread nor a request may block there; a thread is lost until that
/// process is gone.
fn apart(close: impl FnOnce() + Send + 'static) {
    let thread = std::thread::Builder::new().name("streams".into()).stack_size(STACK).spawn(close);
    if let Err(e) = thread {
        // The descriptors are closed by now, on this thread.
        log::warn!("could not start a thread to close streams: {e}");
    }
}

const STACK: usize = 64 << 10;
