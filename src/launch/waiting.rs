//! A process at its gate, and the socket that it waits on; or one that needs no word to become its program.

use super::ended::{Ended, GONE, LATE};
use super::executed::executed;
use super::failure::{self, Sentence};
use super::leash::{after, Leash};
use super::reaper::died;
use crate::error::{Context, Error, Kind, Result};
use crate::sys::board::Board;
use crate::sys::epoll::Interest;
use crate::sys::{socket, wait, Errno};
use crate::tasks::{self, block_on};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

/// How long the reaper may take with one that is gone.
pub(super) const REAPED: Duration = Duration::from_millis(500);
/// For a start without a limit of its own.
const START: Duration = Duration::from_secs(60);

/// A process that was made and has not become its program. Dropped, it is killed: to close its gate would not be enough for
/// one that a container has stopped, or that waits for no word.
#[derive(Debug)]
pub struct Waiting {
    pub pid: u32,
    pub pidfd: OwnedFd,
    /// The master of the terminal that the plan allocated.
    pub console: Option<OwnedFd>,
    gate: OwnedFd,
    /// It waits for a word.
    gated: bool,
    /// Its program runs, or it has ended.
    over: bool,
    /// What the last steps are called; empty for a process that is not of the real launcher.
    later: Vec<Sentence>,
    board: Option<Arc<Board>>,
    ended: Option<Arc<Ended>>,
}

impl Waiting {
    /// A process that waits on the other end of `gate`, a SOCK_SEQPACKET pair. It is sent one byte to start, and its end
    /// closes when its program runs, or it has ended; why it failed is on `board`. Where `gate` is dropped instead, it
    /// sees the end of the file and ends.
    pub fn new(pid: u32, pidfd: OwnedFd, console: Option<OwnedFd>, gate: OwnedFd) -> Self {
        Waiting {
            pid,
            pidfd,
            console,
            gate,
            gated: true,
            over: false,
            later: Vec::new(),
            board: None,
            ended: None,
        }
    }

    pub fn with_board(mut self, board: Arc<Board>) -> Self {
        self.board = Some(board);
        self
    }

    pub(super) fn of_plan(
        mut self,
        later: Vec<Sentence>,
        ended: Arc<Ended>,
        board: Arc<Board>,
        gated: bool,
    ) -> Self {
        self.later = later;
        self.ended = Some(ended);
        self.gated = gated;
        self.with_board(board)
    }

    /// As [`Waiting::start_by`], with a minute, and on this thread.
    pub fn start(self) -> Result<OwnedFd> {
        block_on(self.start_by(&Leash::lasting(START)))
    }

    /// Opens the gate and waits for the execve(2): Ok when the program runs, else the step that failed, or how the
    /// process ended on its way. After a failure the process is gone and its exit has been told,
    /// unless it takes longer than `GONE` to go, or the time was over.
    pub async fn start_by(mut self, leash: &Leash) -> Result<OwnedFd> {
        let go = if self.gated { socket::send(self.gate.as_fd(), &[1], None) } else { Ok(()) };
        match go {
            Ok(()) => {}
            Err(Errno::EPIPE | Errno::ECONNRESET) => {
                return Err(Error::new(Kind::State, "the process ended before it was started"));
            }
            Err(errno) => return Err(errno).context(|| "send(gate)"),
        }
        // Its own end is closed by the execve(2), or by its death: nothing is sent any more.
        if !tasks::ready(self.gate.as_fd(), Interest::READ, leash.deadline).await? {
            self.end(LATE).await;
            return Err(failure::not_executed(&self.later));
        }
        let failed = self.board.as_ref().and_then(|board| board.failed());
        if let Some((step, errno)) = failed {
            self.end(GONE).await;
            let sentence = self.later.iter().find(|sentence| sentence.step == step);
            return Err(match sentence {
                Some(sentence) => sentence.error(errno),
                None => Error::system(format!("step {}", u64::from(step) + 1), errno),
            });
        }
        if let Err(killed) = leash.check() {
            self.end(GONE).await;
            return Err(killed);
        }
        if self.never_executed() {
            self.end(GONE).await;
            let what = "the process ended before its program ran";
            let status = self.ended.as_ref().and_then(|ended| ended.status());
            return Err(status.map_or_else(|| Error::new(Kind::System, what), |status| died(what, status)));
        }
        self.over = true;
        if let Some(ended) = &self.ended {
            ended.started();
        }
        self.pidfd.try_clone().context(|| "dup(pidfd)")
    }

    /// Its gate is closed, and nothing has failed that it could have told: but what kills it tells nothing.
    fn never_executed(&self) -> bool {
        // A pod's first process has no program.
        if failure::program_of(&self.later).is_none() {
            return false;
        }
        match executed(self.pid) {
            Some(executed) => !executed,
            // It has been reaped.
            None => self.ended.as_ref().is_some_and(|ended| ended.never_executed()),
        }
    }

    async fn end(&mut self, patience: Duration) {
        self.over = true;
        end(self.pidfd.as_fd(), self.ended.as_deref(), patience).await;
    }
}

/// Kills a process and waits for its end: by its pidfd, since a tracer in the container can keep the zombie from the reaper.
pub(super) async fn end(pidfd: BorrowedFd<'_>, ended: Option<&Ended>, patience: Duration) {
    let _ = wait::signal(pidfd, libc::SIGKILL);
    // For one that hangs in a call, e.g. on a dead network filesystem.
    let gone = tasks::ready(pidfd, Interest::READ, after(patience)).await.unwrap_or(false);
    if let Some(ended) = ended.filter(|_| gone) {
        ended.within(REAPED).await;
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        if !self.over {
            let _ = wait::signal(self.pidfd.as_fd(), libc::SIGKILL);
        }
    }
}
