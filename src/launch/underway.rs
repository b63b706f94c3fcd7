//! Follows a process from its clone to its gate.

use super::birth::Birth;
use super::ended::{GONE, LATE};
use super::leash::Leash;
use super::reaper::{died, Kept, Reaper};
use super::waiting::{end, Waiting, REAPED};
use super::{failure, Launched};
use crate::cgroup::PlaceHolder;
use crate::error::{Context, Error, Kind, Result};
use crate::init::Report;
use crate::plan::{Plan, Step};
use crate::sys::board::Board;
use crate::sys::clone::Child;
use crate::sys::epoll::Interest;
use crate::sys::fd::{AsFd, OwnedFd};
use crate::sys::{poll, socket, wait, Errno};
use crate::tasks;
use std::sync::Arc;
use std::time::Instant;

/// Whether another process continues in the first one's place.
pub(super) fn births(plan: &Plan) -> bool {
    plan.steps.iter().any(|(step, _)| matches!(step, Step::Sibling { .. } | Step::Birth))
}

/// Whether the process waits for its start.
fn opens_at_gate(plan: &Plan) -> bool {
    plan.steps.iter().any(|(step, _)| matches!(step, Step::Gate | Step::StandIn))
}

/// Whether it waits for another one to be there in its stead.
pub(super) fn stands_in(plan: &Plan) -> bool {
    plan.steps.iter().any(|(step, _)| matches!(step, Step::StandIn))
}

/// The field whose filter has a listener.
fn listening(plan: &Plan) -> Option<&str> {
    plan.steps.iter().find_map(|(step, field)| match step {
        Step::Seccomp(filter) | Step::SeccompEarly(filter) if filter.listens() => Some(&**field),
        _ => None,
    })
}

/// A process that waits at `Step::Hooks`. Dropping it kills the process.
pub struct AtHooks<'a> {
    pub pid: u32,
    pub pidfd: OwnedFd,
    /// None once it has continued.
    underway: Option<Underway<'a>>,
}

impl AtHooks<'_> {
    /// Lets the process continue to its gate if the hooks `ran` well; otherwise ends it, and returns their error.
    pub async fn go_on(mut self, ran: Result<()>) -> Result<Waiting> {
        let Some(mut underway) = self.underway.take() else {
            return Err(Error::new(Kind::Bug, "a process has left its hooks twice"));
        };
        let made = match ran {
            Ok(()) => underway.pass_hooks().await,
            failed => failed,
        };
        underway.settle(made).await
    }
}

impl Drop for AtHooks<'_> {
    fn drop(&mut self) {
        if self.underway.is_some() {
            let _ = wait::signal(self.pidfd.as_fd(), libc::SIGKILL);
        }
    }
}

/// Where a process waits for the shim.
enum Reached {
    /// With its pidfd.
    Hooks(OwnedFd),
    /// Its gate; or, if the plan has no gate, the process is the one that becomes the program.
    Gate,
}

/// A process being launched, as the shim follows it.
pub(super) struct Underway<'a> {
    pub(super) reaper: &'a Reaper,
    pub(super) plan: &'a Plan,
    pub(super) gate: OwnedFd,
    pub(super) board: Arc<Board>,
    pub(super) birth: Arc<Birth>,
    pub(super) leash: &'a Leash,
    pub(super) process: Kept,
    /// Another process is to continue in its place.
    pub(super) expected: bool,
    /// It has been at its hooks.
    pub(super) hooked: bool,
    /// The master of the terminal, once received.
    pub(super) console: Option<OwnedFd>,
    /// The listener of the filter, once taken.
    pub(super) listener: Option<OwnedFd>,
    /// Kept until the child is in its cgroup, which it is once it has reached the gate.
    pub(super) _hold: Option<PlaceHolder>,
}

impl<'a> Underway<'a> {
    /// Waits for its hooks, or for its gate if there are none.
    pub(super) async fn launched(mut self) -> Result<Launched<'a>> {
        match self.follow().await {
            Ok(Reached::Hooks(pidfd)) => {
                let pid = self.process.child.pid;
                Ok(Launched::AtHooks(AtHooks { pid, pidfd, underway: Some(self) }))
            }
            reached => self.settle(reached.map(drop)).await.map(Launched::Waiting),
        }
    }

    /// Returns the process at its gate, or ends what was created.
    async fn settle(self, made: Result<()>) -> Result<Waiting> {
        let Underway { plan, gate, board, birth, leash, process, console, listener, .. } = self;
        let made = made.and_then(|()| match listening(plan) {
            Some(field) if listener.is_none() => {
                Err(Error::new(Kind::Bug, format!("{field}: the filter's listener was not reported")))
            }
            _ => Ok(()),
        });
        match made {
            Ok(()) => {
                let gated = opens_at_gate(plan);
                if gated {
                    let kept = process.keep().await;
                    kept.map_err(|status| died("the process ended before it could be started", status))?;
                } else {
                    process.keep_or_tell().await;
                }
                let Kept { child, ended, .. } = process;
                let later = failure::behind_bare(plan);
                let waiting = Waiting::new(child.pid, child.pidfd, console, gate).with_listener(listener);
                let waiting = waiting.of_plan(later, ended, board, gated);
                Ok(if stands_in(plan) { waiting.with_successor(birth) } else { waiting })
            }
            Err(error) => {
                drop(gate);
                let patience = if leash.is_over() { LATE } else { GONE };
                end(process.child.pidfd.as_fd(), Some(&process.ended), patience).await;
                // A process that was born at the last moment before that has no owner.
                let heir = if births(plan) { birth.within(REAPED).await } else { None };
                if let Some((_, Some(heir), ended)) = heir {
                    end(heir.as_fd(), Some(&ended), patience).await;
                }
                Err(error)
            }
        }
    }

    /// Waits until the process reaches the hooks or the gate, whichever comes next.
    async fn follow(&mut self) -> Result<Reached> {
        // Again after the hooks, which held the leash.
        self.leash.hold(&self.process.child)?;
        let born_last = self.plan.steps.iter().any(|(step, _)| matches!(step, Step::Birth));
        loop {
            let (gate, deadline) = (self.gate.as_fd(), self.leash.deadline);
            let pidfd = self.process.child.pidfd.as_fd();
            let [said, ended] = match (self.expected, born_last) {
                (true, true) => tasks::either([gate, pidfd], deadline).await?,
                // What arrives is from the new process, and is read once that is known.
                (true, false) => [false, tasks::ready(pidfd, Interest::READ, deadline).await?],
                // The gate also reports its end.
                (false, _) => [tasks::ready(gate, Interest::READ, deadline).await?, false],
            };
            // The console may have arrived after the gate was polled and before the pidfd was.
            let late = ended && born_last && self.owes_console();
            let said = said || late && poll::ready(gate, Interest::READ, Instant::now()).unwrap_or(false);
            if said {
                let mut bytes = [0; Report::SIZE];
                let received = socket::receive(self.gate.as_fd(), &mut bytes).context(|| "recvmsg(gate)")?;
                match received {
                    (0, _) if self.expected => {}
                    (0, _) if !born_last && !opens_at_gate(self.plan) => {
                        // A host program that is not born into a namespace: it runs, or has reported why not.
                        return match self.board.failed() {
                            Some(_) => Err(self.silent().await),
                            None => Ok(Reached::Gate),
                        };
                    }
                    (0, _) => return Err(self.silent().await),
                    (Report::SIZE, passed) => {
                        let report = Report::from_bytes(bytes);
                        match self.plan.steps.get(report.step as usize) {
                            // Whoever is born last shares this socket, and may be made to send anything by the container
                            // that it is in. What the invisible process has to say comes first, and each of it once.
                            Some((Step::Gate | Step::StandIn, _)) if !self.expected => {
                                return Ok(Reached::Gate)
                            }
                            Some((Step::Console { .. }, _)) if self.console.is_none() && passed.is_some() => {
                                self.console = passed;
                            }
                            Some((Step::Seccomp(filter) | Step::SeccompEarly(filter), field))
                                if filter.listens() && self.listener.is_none() =>
                            {
                                self.take_listener(report.errno, field).await?;
                            }
                            Some((Step::Hooks, _)) if !self.hooked => {
                                self.hooked = true;
                                let pidfd = self.process.child.pidfd.try_clone();
                                return pidfd.map(Reached::Hooks).context(|| "dup(pidfd)");
                            }
                            _ => {
                                let what = format!("a report from step {}", report.step);
                                return Err(Error::new(Kind::Bug, what));
                            }
                        }
                        continue;
                    }
                    (length, _) => {
                        return Err(Error::new(Kind::Bug, format!("a report of {length} bytes")));
                    }
                }
            } else if !ended {
                return Err(failure::late(self.plan, self.board.step()));
            }
            if self.expected {
                self.expected = false;
                let Some((pid, pidfd, ended)) = self.birth.within(GONE).await else {
                    return Err(self.silent().await);
                };
                let pidfd = match pidfd {
                    Some(pidfd) => pidfd,
                    // Of a process that has ended: the parent's is as good as its own.
                    None => self.process.child.pidfd.try_clone().context(|| "dup(pidfd)")?,
                };
                self.process = self.reaper.kept(Child { pid, pidfd }, ended);
                self.leash.hold(&self.process.child)?;
                if born_last {
                    return Ok(Reached::Gate);
                }
            }
        }
    }

    /// Waits from the hooks to the gate.
    async fn pass_hooks(&mut self) -> Result<()> {
        loop {
            self.leash.check()?;
            socket::send(self.gate.as_fd(), &[1], None).context(|| "send(gate)")?;
            if let Reached::Gate = self.follow().await? {
                return Ok(());
            }
        }
    }

    fn owes_console(&self) -> bool {
        self.console.is_none() && self.plan.steps.iter().any(|(step, _)| matches!(step, Step::Console { .. }))
    }

    /// Copies the listener of the filter that the process has loaded, and lets the process continue.
    async fn take_listener(&mut self, number: i32, field: &str) -> Result<()> {
        let taken = wait::descriptor_of(self.process.child.pidfd.as_fd(), number);
        let told = taken.and_then(|listener| {
            self.listener = Some(listener);
            socket::send(self.gate.as_fd(), &[1], None)
        });
        match told {
            Err(Errno::ESRCH | Errno::EPIPE | Errno::ECONNRESET) => Err(self.silent().await),
            told => told.context(|| format!("{field}: pidfd_getfd({number})")),
        }
    }

    /// The error for a gate that closed too early: a step failed, or the process was killed, e.g. for lack of memory in
    /// its cgroup.
    async fn silent(&self) -> Error {
        if let Some((step, errno)) = self.board.failed() {
            return failure::error(self.plan, Report { step, errno });
        }
        if let Err(killed) = self.leash.check() {
            return killed;
        }
        match self.process.ended.within(GONE).await {
            Some(status) => died("the process ended while it was made", status),
            None => Error::new(Kind::Bug, "the process closed its gate"),
        }
    }
}
