//! From a create to a running program, for the first process and for an exec.

use super::{Answer, Effect, Exec, Init, Life, News, Parts, Refused};
use crate::launch::ExitStatus;

impl<P: Parts> Life<P> {
    pub(super) fn made(&mut self, gate: P::Gate) -> Answer<P> {
        let mut effects = vec![Effect::Emit(News::Create)];
        match &self.init {
            Init::Making { early, .. } => effects.extend(early.map(|exit| Effect::Again(None, exit))),
            init => return Err(Refused::Is(init.word())),
        }
        self.init = Init::Created(gate);
        Ok(effects)
    }

    pub(super) fn start(&mut self, handle: P::Handle, frozen: bool) -> Answer<P> {
        self.thawed(frozen)?;
        match &self.init {
            Init::Created(_) => {}
            init if init.is_being_deleted() => return Err(Refused::BeingDeleted),
            init => return Err(Refused::Is(init.word())),
        }
        let mut effects = Vec::new();
        self.change(|init| {
            if let Init::Created(gate) = init {
                effects.push(Effect::Open(gate));
            }
            Init::Starting { handle, early: None }
        });
        Ok(effects)
    }

    pub(super) fn start_over(&mut self, handle: P::Handle, ran: bool) -> Answer<P> {
        let Init::Starting { early, .. } = &self.init else { return Err(Refused::Is(self.init.word())) };
        let again = early.map(|exit| Effect::Again(None, exit));
        self.init = Init::Running(handle);
        let started = ran.then_some(Effect::Emit(News::Start));
        Ok(started.into_iter().chain(again).collect())
    }

    pub(super) fn add(&mut self, id: String, wanted: P::Wanted, facts: P::Facts, frozen: bool) -> Answer<P> {
        if self.execs.contains_key(&id) {
            return Err(Refused::ExecExists);
        }
        if !matches!(self.init, Init::Running(_)) {
            return Err(Refused::InitIs(self.init.word()));
        }
        self.thawed(frozen)?;
        self.execs.insert(id.clone(), (Exec::Added(wanted), facts));
        Ok(vec![Effect::Emit(News::ExecAdded(id))])
    }

    pub(super) fn start_exec(&mut self, id: &str, handle: P::Handle, frozen: bool) -> Answer<P> {
        let thawed = self.thawed(frozen);
        let (exec, _) = self.execs.get_mut(id).ok_or(Refused::NoExec)?;
        if !matches!(self.init, Init::Running(_)) {
            return Err(Refused::InitNotRunning);
        }
        thawed?;
        match std::mem::replace(exec, Exec::Starting { handle, early: None }) {
            Exec::Added(wanted) => Ok(vec![Effect::Make(wanted)]),
            other => {
                let word = other.word();
                *exec = other;
                Err(Refused::Is(word))
            }
        }
    }

    pub(super) fn exec_started(&mut self, id: String, handle: P::Handle) -> Answer<P> {
        let (exec, _) = self.execs.get_mut(&id).ok_or(Refused::NoExec)?;
        let Exec::Starting { early, .. } = exec else { return Err(Refused::Is(exec.word())) };
        let again = early.map(|exit| Effect::Again(Some(id.clone()), exit));
        *exec = Exec::Running(handle);
        let mut effects = vec![Effect::Emit(News::ExecStarted(id))];
        // The processes left by the first process were killed before this one existed.
        if matches!(self.init, Init::Ending { .. }) {
            effects.push(Effect::KillOthers);
        }
        effects.extend(again);
        Ok(effects)
    }

    /// Only the caller is notified.
    pub(super) fn exec_failed(&mut self, id: String, exit: ExitStatus) -> Answer<P> {
        let (exec, _) = self.execs.get_mut(&id).ok_or(Refused::NoExec)?;
        if !matches!(exec, Exec::Starting { .. }) {
            return Err(Refused::Is(exec.word()));
        }
        *exec = Exec::Stopped(exit);
        let mut effects = vec![Effect::Tell(Some(id), exit)];
        self.last_exit(&mut effects);
        Ok(effects)
    }
}
