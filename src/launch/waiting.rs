//! A process at its gate, and the socket that it waits on; or one that becomes its program without waiting.

use super::birth::Birth;
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
use std::future::{poll_fn, Future};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

/// How long the reaper may take to reap a process that has gone.
pub(super) const REAPED: Duration = Duration::from_millis(500);
/// The limit for a start that has none of its own.
const START: Duration = Duration::from_secs(60);

/// A process that exists and has not become its program. Dropping it kills the process: closing the gate would not be
/// enough for one that a container has stopped, or that waits for nothing.
#[derive(Debug)]
pub struct Waiting {
    pub pid: u32,
    pub pidfd: OwnedFd,
    /// The master of the terminal that the plan allocated.
    pub console: Option<OwnedFd>,
    /// The listener of its seccomp filter, for the filter's agent.
    pub listener: Option<OwnedFd>,
    gate: OwnedFd,
    /// It waits at a gate.
    gated: bool,
    /// Its program runs, or it has ended.
    over: bool,
    /// The sentences for the last steps; empty for a process that the real launcher did not create.
    later: Vec<Sentence>,
    board: Option<Arc<Board>>,
    ended: Option<Arc<Ended>>,
    /// Of one that stands in for another.
    birth: Option<Arc<Birth>>,
}

impl Waiting {
    /// Wraps a process that waits on the other end of `gate`, a SOCK_SEQPACKET pair. One byte starts it; its end closes
    /// when its program runs, or it has ended; `board` says why it failed. If `gate` is dropped instead, the process
    /// sees end of file and exits.
    pub fn new(pid: u32, pidfd: OwnedFd, console: Option<OwnedFd>, gate: OwnedFd) -> Self {
        Waiting {
            pid,
            pidfd,
            console,
            listener: None,
            gate,
            gated: true,
            over: false,
            later: Vec::new(),
            board: None,
            ended: None,
            birth: None,
        }
    }

    pub fn with_board(mut self, board: Arc<Board>) -> Self {
        self.board = Some(board);
        self
    }

    pub(super) fn with_listener(mut self, listener: Option<OwnedFd>) -> Self {
        self.listener = listener;
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

    pub(super) fn with_successor(mut self, birth: Arc<Birth>) -> Self {
        self.birth = Some(birth);
        self
    }

    /// Ends this stand-in in favour of `pid`, a child of the shim, whose exit is reported from now on. Returns that
    /// process's pidfd.
    pub(crate) async fn succeeded_by(mut self, pid: u32) -> Result<OwnedFd> {
        let Some(birth) = self.birth.take() else {
            return Err(Error::new(Kind::Bug, "a successor for a process that stands in for nobody"));
        };
        birth.name(pid);
        self.end(GONE).await;
        match birth.within(GONE).await {
            Some((_, Some(pidfd), _)) => Ok(pidfd),
            _ => Err(Error::new(Kind::System, "the restored process has ended")),
        }
    }

    /// Like [`Waiting::start_by`], with a limit of one minute, and on this thread.
    pub fn start(self) -> Result<OwnedFd> {
        block_on(self.start_by(&Leash::lasting(START)))
    }

    /// Opens the gate and waits for the execve(2): returns Ok when the program runs, otherwise the step that failed, or
    /// how the process ended on its way. After a failure the process is gone and its exit has been reported, unless it
    /// takes longer than `GONE` to go, or the deadline passed.
    pub async fn start_by(mut self, leash: &Leash) -> Result<OwnedFd> {
        let go = if self.gated { socket::send(self.gate.as_fd(), &[1], None) } else { Ok(()) };
        match go {
            Ok(()) => {}
            Err(Errno::EPIPE | Errno::ECONNRESET) => {
                return Err(Error::new(Kind::State, "the process ended before it was started"));
            }
            Err(errno) => return Err(errno).context(|| "send(gate)"),
        }
        // The execve(2), or its death, closes its own end: nothing more is sent.
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

    /// Returns the result of `future`, which observes the deadline itself, unless the launch is killed or the process ends
    /// first. After an error the process is gone, as after [`Waiting::start_by`].
    pub(crate) async fn meanwhile<T>(
        &mut self,
        leash: &Leash,
        future: impl Future<Output = Result<T>>,
    ) -> Result<T> {
        let never = after(Duration::MAX);
        let done = {
            let (mut future, mut gone) =
                (pin!(future), pin!(tasks::ready(self.pidfd.as_fd(), Interest::READ, never)));
            let first = poll_fn(|context| match future.as_mut().poll(context) {
                Poll::Pending => gone.as_mut().poll(context).map(|gone| {
                    gone.and(Err(Error::new(Kind::State, "the process ended before it could be started")))
                }),
                done => done,
            });
            leash.unless_killed(first).await
        };
        if done.is_err() {
            self.end(if leash.is_over() { LATE } else { GONE }).await;
        }
        done
    }

    /// Whether it ended without a program: the gate is closed and no failure was reported, but a process that is killed
    /// reports nothing.
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

/// Kills a process and waits for its end, by its pidfd: a tracer in the container can keep the zombie from the reaper.
pub(super) async fn end(pidfd: BorrowedFd<'_>, ended: Option<&Ended>, patience: Duration) {
    let _ = wait::signal(pidfd, libc::SIGKILL);
    // The limit is for one that hangs in a call, e.g. on a dead network filesystem.
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
