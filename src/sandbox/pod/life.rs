//! The life cycle of a pod: a pure function of its inputs. No locks, no clock, no system calls.
//!
//! | phase | on | next |
//! | --- | --- | --- |
//! | Created | `Start` | Ready |
//! | Created, Ready | `Stop` | Stopping |
//! | Stopping | `Release` | Stopping, without its namespaces |
//! | Stopping | `StopFailed` | the previous phase; Stopped if its namespaces are released |
//! | any | `Ended` | Stopped |
//!
//! The freezer, while the pod is Ready:
//!
//! | frozen | on | next |
//! | --- | --- | --- |
//! | No | `Pause` | Changing |
//! | AsOne, EachByItself; No, if others have frozen it | `Resume` | Changing |
//! | AsOne, EachByItself | `LetDie` | Changing |
//! | Changing | `Settle`, by the owner of the change | as specified; No if the pod is not Ready any more |
//! | any | `Thaw`, by a stop | No |
//!
//! Each change has a number, so that an overtaken change cannot settle another. A refused input changes nothing.

/// How the pod is frozen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Frozen {
    /// By one write to the pod's cgroup.
    AsOne,
    /// Each container by its own cgroup.
    EachByItself,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Freezer {
    Thawed,
    /// A pause or a resume is in progress.
    Changing(Change),
    Frozen(Frozen),
}

/// One pause, resume, or thaw for a kill.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Change(u64);

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Phase<H> {
    Created(H),
    Ready(H),
    /// `held` is None once the namespaces are released.
    Stopping {
        held: Option<H>,
        ready: bool,
    },
    Stopped,
}

/// `H` is what a pod holds: its namespaces.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Life<H> {
    phase: Phase<H>,
    freezer: Freezer,
    changes: u64,
}

pub enum Input {
    Start,
    /// A container joins.
    Join,
    Pause,
    /// `by_others`: the kernel reports the cgroup as frozen.
    Resume {
        by_others: bool,
    },
    /// A process of the pod was killed.
    LetDie,
    /// A change has finished.
    Settle {
        change: Change,
        frozen: Option<Frozen>,
    },
    Stop,
    /// A stop thaws everything.
    Thaw,
    /// The thaw failed.
    NotThawed,
    Release,
    StopFailed,
    Ended,
}

/// What the caller has to do.
#[derive(Debug, PartialEq, Eq)]
pub enum Effect<H> {
    Nothing,
    /// A change begins; carries what was frozen so far.
    Begin(Change, Option<Frozen>),
    /// The change is settled as requested, or (`done` is false) the pod is being stopped or has ended, or another
    /// change has taken over. `thaw`: nothing may stay frozen.
    Settled {
        done: bool,
        thaw: bool,
    },
    /// Another request is in progress: retry once it has finished.
    Wait,
    /// What was frozen; None if a change was in progress.
    Thaw(Option<Frozen>),
    Drop(Option<H>),
}

/// A refused input, with the word for the pod's current state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refused(pub &'static str);

impl<H> Life<H> {
    pub fn created(held: H) -> Self {
        Life { phase: Phase::Created(held), freezer: Freezer::Thawed, changes: 0 }
    }

    pub fn held(&self) -> Option<&H> {
        match &self.phase {
            Phase::Created(held) | Phase::Ready(held) => Some(held),
            Phase::Stopping { held, .. } => held.as_ref(),
            Phase::Stopped => None,
        }
    }

    pub fn word(&self) -> &'static str {
        match self.phase {
            Phase::Created(_) => "not started",
            Phase::Ready(_) => "running",
            Phase::Stopping { .. } => "being stopped",
            Phase::Stopped => "stopped",
        }
    }

    pub fn is_created(&self) -> bool {
        matches!(self.phase, Phase::Created(_))
    }

    pub fn is_over(&self) -> bool {
        matches!(self.phase, Phase::Stopping { .. } | Phase::Stopped)
    }

    fn is_ready(&self) -> bool {
        matches!(self.phase, Phase::Ready(_))
    }

    pub fn is_stopping(&self) -> bool {
        matches!(self.phase, Phase::Stopping { .. })
    }

    /// What is frozen; a change in progress does not count until it has finished.
    pub fn frozen(&self) -> Option<Frozen> {
        match self.freezer {
            Freezer::Frozen(frozen) => Some(frozen),
            Freezer::Thawed | Freezer::Changing(_) => None,
        }
    }

    pub fn is_changing(&self) -> bool {
        matches!(self.freezer, Freezer::Changing(_))
    }

    pub fn on(&mut self, input: Input) -> Result<Effect<H>, Refused> {
        match input {
            Input::Start if self.is_created() => {
                self.change_phase(|phase| match phase {
                    Phase::Created(held) => Phase::Ready(held),
                    phase => phase,
                });
                Ok(Effect::Nothing)
            }
            Input::Start => Err(Refused(self.word())),
            Input::Join if self.freezer != Freezer::Thawed => Err(Refused("paused")),
            Input::Join if self.is_ready() => Ok(Effect::Nothing),
            Input::Join => Err(Refused(self.word())),
            Input::Pause | Input::Resume { .. } if !self.is_ready() => Err(Refused(self.word())),
            Input::Pause | Input::Resume { .. } if self.is_changing() => {
                Err(Refused("being paused or resumed"))
            }
            Input::Pause => match self.freezer {
                Freezer::Thawed => Ok(self.begin(None)),
                _ => Err(Refused("paused")),
            },
            Input::Resume { by_others } => match self.frozen() {
                Some(frozen) => Ok(self.begin(Some(frozen))),
                None if by_others => Ok(self.begin(Some(Frozen::AsOne))),
                None => Err(Refused("not paused")),
            },
            Input::LetDie => Ok(match self.freezer {
                Freezer::Thawed => Effect::Nothing,
                Freezer::Changing(_) => Effect::Wait,
                Freezer::Frozen(frozen) => self.begin(Some(frozen)),
            }),
            Input::Settle { change, frozen } => {
                let mine = self.freezer == Freezer::Changing(change);
                let done = mine && self.is_ready();
                if mine {
                    let frozen = frozen.filter(|_| done);
                    self.freezer = frozen.map_or(Freezer::Thawed, Freezer::Frozen);
                }
                Ok(Effect::Settled { done, thaw: !done && self.freezer == Freezer::Thawed })
            }
            Input::Stop => Ok(self.stop()),
            Input::Thaw => match std::mem::replace(&mut self.freezer, Freezer::Thawed) {
                Freezer::Thawed => Ok(Effect::Nothing),
                // The change in progress finds out that it was overtaken and thaws what it has frozen since.
                Freezer::Changing(_) => Ok(Effect::Thaw(None)),
                Freezer::Frozen(frozen) => Ok(Effect::Thaw(Some(frozen))),
            },
            Input::NotThawed => {
                if self.freezer == Freezer::Thawed {
                    self.freezer = Freezer::Frozen(Frozen::AsOne);
                }
                Ok(Effect::Nothing)
            }
            Input::Release => Ok(Effect::Drop(match &mut self.phase {
                Phase::Stopping { held, .. } => held.take(),
                _ => None,
            })),
            Input::StopFailed => {
                self.change_phase(|phase| match phase {
                    Phase::Stopping { held: Some(held), ready: true } => Phase::Ready(held),
                    Phase::Stopping { held: Some(held), ready: false } => Phase::Created(held),
                    // Without its namespaces the pod is over; the next stop ends what is left.
                    Phase::Stopping { held: None, .. } => Phase::Stopped,
                    phase => phase,
                });
                Ok(Effect::Nothing)
            }
            Input::Ended => Ok(Effect::Drop(match std::mem::replace(&mut self.phase, Phase::Stopped) {
                Phase::Created(held) | Phase::Ready(held) => Some(held),
                Phase::Stopping { held, .. } => held,
                Phase::Stopped => None,
            })),
        }
    }

    fn begin(&mut self, frozen: Option<Frozen>) -> Effect<H> {
        self.changes += 1;
        let change = Change(self.changes);
        self.freezer = Freezer::Changing(change);
        Effect::Begin(change, frozen)
    }

    fn stop(&mut self) -> Effect<H> {
        if self.is_stopping() {
            return Effect::Wait;
        }
        let ready = self.is_ready();
        self.change_phase(|phase| match phase {
            Phase::Created(held) | Phase::Ready(held) => Phase::Stopping { held: Some(held), ready },
            phase => phase,
        });
        Effect::Nothing
    }

    fn change_phase(&mut self, next: impl FnOnce(Phase<H>) -> Phase<H>) {
        self.phase = next(std::mem::replace(&mut self.phase, Phase::Stopped));
    }
}

#[cfg(test)]
mod tests;
