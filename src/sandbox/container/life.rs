//! The life cycle of a container and its processes: a pure function of its inputs. No locks, clock or system calls.
//!
//! The first process:
//!
//! | state | on | next | effects |
//! | --- | --- | --- | --- |
//! | Making | `Made` | Created | event Create |
//! | Created | `Start` | Starting | |
//! | Starting | `StartOver` | Running | event Start, if the program runs |
//! | Created, Running | `Exited` | Ending | the others are killed; its streams are settled once no exec is alive |
//! | Ending | `Settled` | Stopped | event Exit; waiters are notified |
//! | Created | `Delete` | Killed | SIGKILL |
//! | Killed | `Exited` | Ending, for the Delete | its streams are settled |
//! | Ending, for the Delete | `Settled` | Deleting | event Exit; waiters are notified |
//! | Stopped | `Delete` | Deleting | |
//! | Killed, Deleting | `DeleteFailed` | Created, Stopped | |
//! | Deleting | `Deleted` | Deleted | event Delete |
//!
//! An exec:
//!
//! | state | on | next | effects |
//! | --- | --- | --- | --- |
//! | (none) | `Add` | Added | event ExecAdded |
//! | Added | `StartExec` | Starting | |
//! | Starting | `ExecStarted` | Running | event ExecStarted; if the first process has exited, the others are killed |
//! | Starting | `ExecFailed` | Stopped | waiters are notified; no event |
//! | Running | `Exited` | Ending | its streams are settled |
//! | Ending | `Settled` | Stopped | event Exit; waiters are notified |
//! | Added, Stopped | `DeleteExec` | (none) | |
//!
//! An exit that arrives while a process is being created or started is kept and delivered again afterwards: no exit
//! overtakes its start. A refused input changes nothing.

mod end;
mod freeze;
mod start;

use crate::launch::ExitStatus;
use crate::sandbox::request::Status;
use std::collections::BTreeMap;
use std::time::UNIX_EPOCH;

/// The types that the states own.
pub trait Parts {
    /// What is known about a process in every state.
    type Facts;
    /// The specification of an exec.
    type Wanted;
    /// A process at its gate.
    type Gate;
    /// A handle to signal a process or abort its launch.
    type Handle;
}

#[cfg_attr(test, derive(Clone, Debug, PartialEq, Eq, Hash))]
pub enum Init<P: Parts> {
    Making {
        handle: P::Handle,
        early: Option<ExitStatus>,
    },
    Created(P::Gate),
    Starting {
        handle: P::Handle,
        early: Option<ExitStatus>,
    },
    Running(P::Handle),
    /// Exited; waits for the exits of the execs and for the last output in its streams.
    Ending {
        exit: ExitStatus,
        deleting: bool,
    },
    Stopped(ExitStatus),
    /// Killed at its gate by a Delete.
    Killed(P::Gate),
    Deleting(ExitStatus),
    Deleted(ExitStatus),
}

#[cfg_attr(test, derive(Clone, Debug, PartialEq, Eq, Hash))]
pub enum Exec<P: Parts> {
    Added(P::Wanted),
    Starting {
        handle: P::Handle,
        early: Option<ExitStatus>,
    },
    Running(P::Handle),
    /// Exited; waits for the last output in its streams.
    Ending(ExitStatus),
    Stopped(ExitStatus),
}

/// The container's own pause. Only the kernel knows whether the processes are really frozen: others, including the
/// container itself, may write to the cgroup.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Own {
    Thawed,
    /// A pause is in progress; a process in uninterruptible sleep can prolong it.
    Freezing,
    Frozen,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Freezer {
    Free(Own),
    /// The pod is paused or being paused. The container's own pause outlasts that.
    WithPod(Own),
    /// Like `WithPod`, and the Paused event has been emitted.
    Told,
}

pub struct Life<P: Parts> {
    pub init: Init<P>,
    pub facts: P::Facts,
    pub execs: BTreeMap<String, (Exec<P>, P::Facts)>,
    pub freezer: Freezer,
    /// The cgroup was removed and its last notification may have been an OOM kill.
    oom_suspected: bool,
}

/// A process: None is the first process, Some an exec.
pub type Who = Option<String>;

pub enum Input<P: Parts> {
    Made(P::Gate),
    /// `frozen`, here and below, is the state that the kernel reports.
    Start {
        handle: P::Handle,
        frozen: bool,
    },
    /// The first process runs its program (`ran`), or its start has failed.
    StartOver {
        handle: P::Handle,
        ran: bool,
    },
    Add {
        id: String,
        wanted: P::Wanted,
        facts: P::Facts,
        frozen: bool,
    },
    StartExec {
        id: String,
        handle: P::Handle,
        frozen: bool,
    },
    ExecStarted {
        id: String,
        handle: P::Handle,
    },
    /// `exit` is the status reported to waiters.
    ExecFailed {
        id: String,
        exit: ExitStatus,
    },
    Exited {
        who: Who,
        exit: ExitStatus,
    },
    Settled {
        who: Who,
    },
    /// `all` applies to the first process only.
    Signal {
        who: Who,
        signal: i32,
        all: bool,
    },
    /// The thaw for a SIGKILL failed: the container is still frozen.
    NotThawed,
    Pause {
        frozen: bool,
    },
    PauseOver {
        frozen: bool,
    },
    Resume {
        frozen: bool,
    },
    Thawed {
        frozen: bool,
    },
    /// The pod's pause begins; is complete; is over or undone; a process was thawed to die, which is not a resume.
    PodPauses,
    PodPaused,
    PodResumed,
    PodLetDie,
    OomKill,
    /// The cgroup is gone, and with it its last notification.
    OomGone,
    Delete,
    DeleteFailed,
    Deleted,
    DeleteExec {
        id: String,
    },
}

/// Actions for the caller, in order.
#[derive(Debug, PartialEq, Eq)]
pub enum Effect<P: Parts> {
    Emit(News),
    /// Notify the waiters of the process.
    Tell(Who, ExitStatus),
    /// The process had already exited: deliver the exit again.
    Again(Who, ExitStatus),
    /// End its streams, giving the last output a moment to reach the reader.
    Settle(Who, ExitStatus),
    Open(P::Gate),
    Make(P::Wanted),
    /// The exec is removed; Some holds the exit status if it has exited.
    Removed(P::Facts, Option<ExitStatus>),
    /// Kill everything but the first process, which has exited.
    KillOthers,
    Signal(Who, i32),
    SignalAll(i32),
    /// Kill the first process at its gate; it may already have exited.
    KillAtGate,
    /// Let a process that got a SIGKILL die: thaw the container's own pause (`thaw`), and what others have frozen,
    /// unless the pod takes care of that.
    LetDie {
        who: Who,
        thaw: bool,
        beyond: bool,
    },
    Thaw,
    /// The effects before this one undo what was done; this is the response.
    Fail(Refused),
}

/// An event, without the constant facts about the container.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum News {
    Create,
    Start,
    ExecAdded(String),
    ExecStarted(String),
    Exit(Who, ExitStatus),
    Paused,
    Resumed,
    Oom,
    Delete(ExitStatus),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Refused {
    /// The process is in the wrong state, described by this word.
    Is(&'static str),
    /// The first process is in the wrong state.
    InitIs(&'static str),
    InitNotRunning,
    NoExec,
    ExecExists,
    /// The process does not exist yet.
    Unborn,
    Gone,
    BeingDeleted,
    PodPaused,
    NotPaused,
    /// Killed while it was being paused.
    Killed,
    FrozenAbove,
}

type Answer<P> = Result<Vec<Effect<P>>, Refused>;

impl<P: Parts> Init<P> {
    pub fn word(&self) -> &'static str {
        match self {
            Init::Making { .. } => "being created",
            Init::Created(_) | Init::Killed(_) => "created",
            Init::Starting { .. } => "starting",
            Init::Running(_) => "running",
            Init::Ending { .. } => "ending",
            Init::Stopped(_) | Init::Deleting(_) | Init::Deleted(_) => "stopped",
        }
    }

    pub fn status(&self) -> Status {
        match self {
            Init::Making { .. } | Init::Created(_) | Init::Starting { .. } | Init::Killed(_) => {
                Status::Created
            }
            Init::Running(_) | Init::Ending { .. } => Status::Running,
            Init::Stopped(_) | Init::Deleting(_) | Init::Deleted(_) => Status::Stopped,
        }
    }

    pub fn is_being_deleted(&self) -> bool {
        matches!(
            self,
            Init::Killed(_) | Init::Ending { deleting: true, .. } | Init::Deleting(_) | Init::Deleted(_)
        )
    }

    /// The exit status, once it has been reported.
    pub fn exited(&self) -> Option<ExitStatus> {
        match self {
            Init::Stopped(exit) | Init::Deleting(exit) | Init::Deleted(exit) => Some(*exit),
            _ => None,
        }
    }
}

impl<P: Parts> Exec<P> {
    pub fn word(&self) -> &'static str {
        match self {
            Exec::Added(_) => "not started",
            Exec::Starting { .. } => "starting",
            Exec::Running(_) => "running",
            Exec::Ending(_) => "ending",
            Exec::Stopped(_) => "stopped",
        }
    }

    pub fn status(&self) -> Status {
        match self {
            Exec::Added(_) | Exec::Starting { .. } => Status::Created,
            Exec::Running(_) | Exec::Ending(_) => Status::Running,
            Exec::Stopped(_) => Status::Stopped,
        }
    }

    /// The exit status, once it has been reported.
    pub fn exited(&self) -> Option<ExitStatus> {
        match self {
            Exec::Stopped(exit) => Some(*exit),
            _ => None,
        }
    }

    /// Its exit has not been reported yet.
    fn is_alive(&self) -> bool {
        matches!(self, Exec::Starting { .. } | Exec::Running(_) | Exec::Ending(_))
    }
}

impl Freezer {
    pub fn own(self) -> Own {
        match self {
            Freezer::Free(own) | Freezer::WithPod(own) => own,
            Freezer::Told => Own::Thawed,
        }
    }

    pub fn with_pod(self) -> bool {
        !matches!(self, Freezer::Free(_))
    }

    fn set(&mut self, own: Own) {
        *self = match self {
            Freezer::Free(_) => Freezer::Free(own),
            Freezer::Told if own == Own::Thawed => Freezer::Told,
            Freezer::WithPod(_) | Freezer::Told => Freezer::WithPod(own),
        };
    }
}

impl<P: Parts> Life<P> {
    /// A container whose first process is being launched.
    pub fn making(handle: P::Handle, facts: P::Facts) -> Self {
        Life {
            init: Init::Making { handle, early: None },
            facts,
            execs: BTreeMap::new(),
            freezer: Freezer::Free(Own::Thawed),
            oom_suspected: false,
        }
    }

    pub fn on(&mut self, input: Input<P>) -> Answer<P> {
        match input {
            Input::Made(gate) => self.made(gate),
            Input::Start { handle, frozen } => self.start(handle, frozen),
            Input::StartOver { handle, ran } => self.start_over(handle, ran),
            Input::Add { id, wanted, facts, frozen } => self.add(id, wanted, facts, frozen),
            Input::StartExec { id, handle, frozen } => self.start_exec(&id, handle, frozen),
            Input::ExecStarted { id, handle } => self.exec_started(id, handle),
            Input::ExecFailed { id, exit } => self.exec_failed(id, exit),
            Input::Exited { who: None, exit } => Ok(self.exited(exit)),
            Input::Exited { who: Some(id), exit } => Ok(self.exec_exited(id, exit)),
            Input::Settled { who: None } => Ok(self.settled()),
            Input::Settled { who: Some(id) } => Ok(self.exec_settled(id)),
            Input::Signal { who, signal, all } => self.signal(who, signal, all),
            Input::NotThawed => {
                self.freezer.set(Own::Frozen);
                Ok(Vec::new())
            }
            Input::Pause { frozen } => self.pause(frozen),
            Input::PauseOver { frozen } => Ok(self.pause_over(frozen)),
            Input::Resume { frozen } => self.resume(frozen),
            Input::Thawed { frozen } => {
                self.freezer.set(Own::Thawed);
                Ok(vec![if frozen {
                    Effect::Fail(Refused::FrozenAbove)
                } else {
                    Effect::Emit(News::Resumed)
                }])
            }
            Input::PodPauses => {
                self.freezer = Freezer::WithPod(self.freezer.own());
                Ok(Vec::new())
            }
            Input::PodPaused => Ok(self.pod_paused()),
            Input::PodResumed => Ok(self.pod_resumed()),
            Input::PodLetDie => {
                self.freezer = Freezer::Free(self.freezer.own());
                Ok(Vec::new())
            }
            Input::OomKill => Ok(self.oom()),
            Input::OomGone => Ok(self.oom_gone()),
            Input::Delete => self.delete(),
            Input::DeleteFailed => {
                self.change(|init| match init {
                    Init::Killed(gate) => Init::Created(gate),
                    Init::Ending { exit, .. } => Init::Ending { exit, deleting: false },
                    Init::Deleting(exit) => Init::Stopped(exit),
                    init => init,
                });
                Ok(Vec::new())
            }
            Input::Deleted => match self.init {
                Init::Deleting(exit) => {
                    self.init = Init::Deleted(exit);
                    Ok(vec![Effect::Emit(News::Delete(exit))])
                }
                _ => Err(Refused::Is(self.init.word())),
            },
            Input::DeleteExec { id } => self.delete_exec(&id),
        }
    }

    fn change(&mut self, next: impl FnOnce(Init<P>) -> Init<P>) {
        let nothing = ExitStatus { code: 0, at: UNIX_EPOCH };
        self.init = next(std::mem::replace(&mut self.init, Init::Stopped(nothing)));
    }
}

#[cfg(test)]
mod tests;
