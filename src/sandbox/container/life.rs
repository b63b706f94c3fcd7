//! The life of a container and of its processes: a pure function of what happens. No lock, no clock, no system call.
//!
//! The first process:
//!
//! | state | on | next | effects |
//! | --- | --- | --- | --- |
//! | Making | `Made` | Created | event Create |
//! | Created | `Start` | Starting | |
//! | Starting | `StartOver` | Running | event Start, if the program runs |
//! | Created, Running | `Exited` | Ending | the others are killed; its streams are settled once no exec runs any more |
//! | Ending | `Settled` | Stopped | event Exit, told to all who wait |
//! | Created | `Delete` | Killed | SIGKILL |
//! | Killed | `Exited` | Ending, for the Delete | its streams are settled |
//! | Ending, for the Delete | `Settled` | Deleting | event Exit, told to all who wait |
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
//! | Starting | `ExecStarted` | Running | event ExecStarted; where the first process has ended, the others are killed |
//! | Starting | `ExecFailed` | Stopped | told to all who wait, and no event |
//! | Running | `Exited` | Ending | its streams are settled |
//! | Ending | `Settled` | Stopped | event Exit, told to all who wait |
//! | Added, Stopped | `DeleteExec` | (none) | |
//!
//! An exit that comes while a process is made or started is kept, and comes again when that is over: no exit overtakes
//! its start. What is refused changes nothing.

mod end;
mod freeze;
mod start;

use crate::launch::ExitStatus;
use crate::sandbox::request::Status;
use std::collections::BTreeMap;
use std::time::UNIX_EPOCH;

/// What the states own.
pub trait Parts {
    /// What is known of a process in all its states.
    type Facts;
    /// What an exec is to be.
    type Wanted;
    /// A process at its gate.
    type Gate;
    /// What a process is signalled by, or its launch is ended by.
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
    /// It has ended, and its exit waits for those of its execs, and for the last words in its streams.
    Ending {
        exit: ExitStatus,
        deleting: bool,
    },
    Stopped(ExitStatus),
    /// By a Delete, at its gate.
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
    /// It has ended, and its exit waits for the last words in its streams.
    Ending(ExitStatus),
    Stopped(ExitStatus),
}

/// By a pause of the container's own. Whether its processes stand still is for the kernel to say: others may write to the
/// cgroup, the container among them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Own {
    Thawed,
    /// A pause is at work: a process in an uninterruptible sleep can make it long.
    Freezing,
    Frozen,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Freezer {
    Free(Own),
    /// Its pod is being paused, or is. A pause of its own outlasts that.
    WithPod(Own),
    /// And the event of that is out.
    Told,
}

pub struct Life<P: Parts> {
    pub init: Init<P>,
    pub facts: P::Facts,
    pub execs: BTreeMap<String, (Exec<P>, P::Facts)>,
    pub freezer: Freezer,
    /// The cgroup went, with news that may have been of an OOM kill.
    oom_suspected: bool,
}

/// A process: the first one, or an exec.
pub type Who = Option<String>;

pub enum Input<P: Parts> {
    Made(P::Gate),
    /// `frozen`, here and below: as the kernel has it.
    Start {
        handle: P::Handle,
        frozen: bool,
    },
    /// The first process runs its program (`ran`), or has ended on its way.
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
    /// `exit` is what it is told to have ended with.
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
    /// `all` is for the first process only.
    Signal {
        who: Who,
        signal: i32,
        all: bool,
    },
    /// What a SIGKILL was to thaw is frozen still.
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
    /// The pod's pause begins; is done; is over, or undone; and somebody was thawed to die, which is no resume.
    PodPauses,
    PodPaused,
    PodResumed,
    PodLetDie,
    OomKill,
    /// The cgroup is gone, and its last news with it.
    OomGone,
    Delete,
    DeleteFailed,
    Deleted,
    DeleteExec {
        id: String,
    },
}

/// In their order.
#[derive(Debug, PartialEq, Eq)]
pub enum Effect<P: Parts> {
    Emit(News),
    /// Whoever waits for the process is told.
    Tell(Who, ExitStatus),
    /// It had ended before this: the exit comes again.
    Again(Who, ExitStatus),
    /// Its streams end, and what was said last gets a moment to reach its reader.
    Settle(Who, ExitStatus),
    Open(P::Gate),
    Make(P::Wanted),
    /// An exec is gone; Some: it has ended with that.
    Removed(P::Facts, Option<ExitStatus>),
    /// Everybody but the first process, which has ended.
    KillOthers,
    Signal(Who, i32),
    SignalAll(i32),
    /// The first process, at its gate. It may have ended.
    KillAtGate,
    /// Whoever got a SIGKILL can die: what a pause of its own has frozen is thawed (`thaw`), and what others have, unless
    /// that is the pod's business.
    LetDie {
        who: Who,
        thaw: bool,
        beyond: bool,
    },
    Thaw,
    /// What was done is undone by the effects before, and this is the answer.
    Fail(Refused),
}

/// An event, without what is known of the container anyway.
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
    /// The process is in the wrong state, by this word.
    Is(&'static str),
    /// The first process is.
    InitIs(&'static str),
    InitNotRunning,
    NoExec,
    ExecExists,
    /// Nobody to signal yet.
    Unborn,
    Gone,
    BeingDeleted,
    PodPaused,
    NotPaused,
    /// While it was being paused.
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

    /// Once it is told.
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

    /// Once it is told.
    pub fn exited(&self) -> Option<ExitStatus> {
        match self {
            Exec::Stopped(exit) => Some(*exit),
            _ => None,
        }
    }

    /// Its exit is still to come.
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
    /// A container whose first process is being made.
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
