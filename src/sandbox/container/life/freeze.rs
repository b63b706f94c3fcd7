//! Signals, and how a freezer affects them.

use super::{Answer, Effect, Exec, Freezer, Init, Life, News, Own, Parts, Refused, Who};

impl<P: Parts> Life<P> {
    /// Refuses a request that a frozen container could not carry out.
    pub(super) fn thawed(&self, frozen: bool) -> Result<(), Refused> {
        match self.freezer {
            Freezer::Free(Own::Freezing) | Freezer::WithPod(Own::Freezing) => {
                Err(Refused::InitIs("being paused"))
            }
            Freezer::WithPod(_) | Freezer::Told => Err(Refused::PodPaused),
            Freezer::Free(_) if frozen => Err(Refused::InitIs("paused")),
            Freezer::Free(_) => Ok(()),
        }
    }

    pub(super) fn signal(&mut self, who: Who, signal: i32, all: bool) -> Answer<P> {
        let kill = signal == libc::SIGKILL;
        if let Some(id) = &who {
            return match self.execs.get(id).ok_or(Refused::NoExec)? {
                (Exec::Added(_), _) => Err(Refused::Unborn),
                // Its exit is about to be reported, which is what the kill wants.
                (Exec::Ending(_), _) if kill => Ok(Vec::new()),
                (Exec::Ending(_) | Exec::Stopped(_), _) => Err(Refused::Gone),
                // The rest of the container stays frozen.
                _ if kill => {
                    let die = Effect::LetDie { who: who.clone(), thaw: false, beyond: true };
                    Ok(vec![Effect::Signal(who, signal), die])
                }
                _ => Ok(vec![Effect::Signal(who, signal)]),
            };
        }
        if self.init.exited().is_some() {
            return Err(Refused::Gone);
        }
        if kill && matches!(self.init, Init::Ending { .. }) && !self.execs_are_alive() {
            return Ok(Vec::new());
        }
        let mut effects = vec![if all { Effect::SignalAll(signal) } else { Effect::Signal(None, signal) }];
        if kill {
            let thaw = self.freezer.own() != Own::Thawed;
            // The other containers of a paused pod stay frozen: see `thaw_to_die` of a pod.
            effects.push(Effect::LetDie { who: None, thaw, beyond: !self.freezer.with_pod() });
            // A pause in progress fails.
            self.freezer.set(Own::Thawed);
        }
        Ok(effects)
    }

    pub(super) fn can_pause(&self) -> Result<(), Refused> {
        match self.init {
            Init::Running(_) => Ok(()),
            _ => Err(Refused::InitIs(self.init.word())),
        }
    }

    pub(super) fn pause(&mut self, frozen: bool) -> Answer<P> {
        self.thawed(frozen)?;
        self.can_pause()?;
        self.freezer.set(Own::Freezing);
        Ok(Vec::new())
    }

    pub(super) fn pause_over(&mut self, frozen: bool) -> Vec<Effect<P>> {
        let wanted = self.freezer.own() == Own::Freezing;
        let still = if wanted { self.can_pause() } else { Err(Refused::Killed) };
        self.freezer.set(Own::Thawed);
        match still {
            Ok(()) if frozen => {
                self.freezer.set(Own::Frozen);
                vec![Effect::Emit(News::Paused)]
            }
            Ok(()) => Vec::new(),
            // The kill thawed the container, maybe before it was frozen.
            Err(refused) => {
                frozen.then_some(Effect::Thaw).into_iter().chain([Effect::Fail(refused)]).collect()
            }
        }
    }

    pub(super) fn resume(&mut self, frozen: bool) -> Answer<P> {
        if self.freezer.with_pod() {
            return Err(Refused::PodPaused);
        }
        let held = match self.freezer.own() {
            Own::Frozen => true,
            Own::Freezing => false,
            // Frozen by somebody else.
            Own::Thawed => frozen,
        };
        match self.init {
            Init::Running(_) | Init::Ending { .. } if held => Ok(vec![Effect::Thaw]),
            Init::Running(_) | Init::Ending { .. } => Err(Refused::NotPaused),
            // It may have exited while it was paused.
            _ => Err(Refused::InitIs(self.init.word())),
        }
    }

    /// Marks the container as paused with its pod, unless it is paused by itself, is ending, or does not run yet.
    pub(super) fn pod_paused(&mut self) -> Vec<Effect<P>> {
        if self.freezer != Freezer::WithPod(Own::Thawed) || self.can_pause().is_err() {
            return Vec::new();
        }
        self.freezer = Freezer::Told;
        vec![Effect::Emit(News::Paused)]
    }

    pub(super) fn pod_resumed(&mut self) -> Vec<Effect<P>> {
        let told = self.freezer == Freezer::Told;
        self.freezer = Freezer::Free(self.freezer.own());
        if told && self.can_pause().is_ok() {
            vec![Effect::Emit(News::Resumed)]
        } else {
            Vec::new()
        }
    }
}
