//! Exits, OOM kills and deletions.

use super::{Answer, Effect, Exec, Init, Life, News, Own, Parts, Refused};
use crate::launch::{ExitStatus, KILLED};

impl<P: Parts> Life<P> {
    pub(super) fn exited(&mut self, exit: ExitStatus) -> Vec<Effect<P>> {
        match &mut self.init {
            Init::Making { early, .. } | Init::Starting { early, .. } => {
                *early = Some(exit);
                return Vec::new();
            }
            Init::Created(_) | Init::Killed(_) | Init::Running(_) => {}
            // Already known.
            _ => return Vec::new(),
        }
        self.init = Init::Ending { exit, deleting: matches!(self.init, Init::Killed(_)) };
        let mut effects = vec![Effect::KillOthers];
        self.last_exit(&mut effects);
        effects
    }

    pub(super) fn exec_exited(&mut self, id: String, exit: ExitStatus) -> Vec<Effect<P>> {
        let Some((exec, _)) = self.execs.get_mut(&id) else { return Vec::new() };
        match exec {
            Exec::Starting { early, .. } => {
                *early = Some(exit);
                return Vec::new();
            }
            Exec::Running(_) => {}
            // It never ran, and its caller knows, or its exit is already known.
            Exec::Added(_) | Exec::Ending(_) | Exec::Stopped(_) => return Vec::new(),
        }
        *exec = Exec::Ending(exit);
        vec![Effect::Settle(Some(id), exit)]
    }

    pub(super) fn exec_settled(&mut self, id: String) -> Vec<Effect<P>> {
        let Some((exec, _)) = self.execs.get_mut(&id) else { return Vec::new() };
        let Exec::Ending(exit) = *exec else { return Vec::new() };
        *exec = Exec::Stopped(exit);
        let mut effects =
            vec![Effect::Emit(News::Exit(Some(id.clone()), exit)), Effect::Tell(Some(id), exit)];
        self.last_exit(&mut effects);
        effects
    }

    /// Reports the exit of the first process only after those of all execs.
    pub(super) fn last_exit(&mut self, effects: &mut Vec<Effect<P>>) {
        match self.init {
            Init::Ending { exit, .. } if !self.execs_are_alive() => effects.push(Effect::Settle(None, exit)),
            _ => {}
        }
    }

    pub(super) fn execs_are_alive(&self) -> bool {
        self.execs.values().any(|(exec, _)| exec.is_alive())
    }

    pub(super) fn settled(&mut self) -> Vec<Effect<P>> {
        let Init::Ending { exit, deleting } = self.init else { return Vec::new() };
        self.init = if deleting { Init::Deleting(exit) } else { Init::Stopped(exit) };
        let mut effects = Vec::new();
        if std::mem::take(&mut self.oom_suspected) && exit.code == KILLED {
            effects.push(Effect::Emit(News::Oom));
        }
        effects.extend([Effect::Emit(News::Exit(None, exit)), Effect::Tell(None, exit)]);
        effects
    }

    /// It was an OOM kill if the first process was killed: that may be known already, or become known next.
    pub(super) fn oom_gone(&mut self) -> Vec<Effect<P>> {
        match self.init.exited() {
            None => self.oom_suspected = true,
            Some(exit) if exit.code == KILLED => return self.oom(),
            Some(_) => {}
        }
        Vec::new()
    }

    /// No event follows a container's Delete.
    pub(super) fn oom(&self) -> Vec<Effect<P>> {
        match self.init {
            Init::Deleted(_) => Vec::new(),
            _ => vec![Effect::Emit(News::Oom)],
        }
    }

    pub(super) fn delete(&mut self) -> Answer<P> {
        match &self.init {
            Init::Stopped(exit) => {
                self.init = Init::Deleting(*exit);
                Ok(Vec::new())
            }
            // Whether the process still exists or has just exited, its exit is still to come.
            Init::Created(_) => {
                self.change(|init| match init {
                    Init::Created(gate) => Init::Killed(gate),
                    init => init,
                });
                Ok(vec![Effect::KillAtGate])
            }
            init if init.is_being_deleted() => Err(Refused::BeingDeleted),
            // It has exited, which is about to be reported.
            Init::Ending { exit, .. } if !self.execs_are_alive() => {
                self.init = Init::Ending { exit: *exit, deleting: true };
                Ok(Vec::new())
            }
            _ if self.freezer.own() == Own::Frozen => Err(Refused::InitIs("paused")),
            init => Err(Refused::InitIs(init.word())),
        }
    }

    pub(super) fn delete_exec(&mut self, id: &str) -> Answer<P> {
        let exit = match self.execs.get(id).ok_or(Refused::NoExec)? {
            (Exec::Stopped(exit), _) => Some(*exit),
            (Exec::Added(_), _) => None,
            (exec, _) => return Err(Refused::Is(exec.word())),
        };
        let removed = self.execs.remove(id);
        Ok(removed.map(|(_, facts)| Effect::Removed(facts, exit)).into_iter().collect())
    }
}
