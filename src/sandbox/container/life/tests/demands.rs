//! The effects that each step must have.

use super::super::*;
use super::{exec, exit_of, Nothing, Scene, EXEC, NEVER_RAN};

impl Scene {
    /// Checks the effects of a step, given the state before it.
    pub fn demand(&self, step: &str, effects: &[Effect<Nothing>]) {
        let Life { init, execs, .. } = &self.life;
        let state = execs.get(EXEC).map(|(exec, ())| exec);
        let alive = state.is_some_and(Exec::is_alive);
        let has = |wanted: &Effect<Nothing>| {
            assert!(effects.contains(wanted), "{step}: no {wanted:?} in {effects:?}")
        };
        let lets_die = |who: Who| {
            let found =
                |effect: &Effect<Nothing>| matches!(effect, Effect::LetDie { who: whom, .. } if *whom == who);
            assert!(effects.iter().any(found), "{step}: {who:?} cannot die");
        };
        let ending = matches!(init, Init::Ending { .. });
        let exit = exit_of(if step == "Again" { self.around.killed } else { step.ends_with("killed") });
        match step {
            "Exited" | "Exited, killed" | "Again" => match init {
                Init::Making { .. } | Init::Starting { .. } => {
                    assert!(effects.is_empty(), "{step}: {effects:?}")
                }
                Init::Created(()) | Init::Killed(()) | Init::Running(()) => {
                    has(&Effect::KillOthers);
                    assert_eq!(effects.contains(&Effect::Settle(None, exit)), !alive);
                }
                _ => {}
            },
            "ExecStarted" if ending => has(&Effect::KillOthers),
            "Delete" if matches!(init, Init::Created(())) => has(&Effect::KillAtGate),
            "Signal" => has(&Effect::Signal(None, libc::SIGTERM)),
            "Signal all" => has(&Effect::SignalAll(libc::SIGTERM)),
            // It has exited, which is about to be reported.
            "Kill" | "Kill all" if ending && !alive => assert!(effects.is_empty(), "{step}: {effects:?}"),
            "Kill" => {
                has(&Effect::Signal(None, libc::SIGKILL));
                lets_die(None);
            }
            "Kill all" => {
                has(&Effect::SignalAll(libc::SIGKILL));
                lets_die(None);
            }
            "Kill exec" if matches!(state, Some(Exec::Ending(_))) => assert!(effects.is_empty()),
            "Kill exec" => {
                has(&Effect::Signal(exec(), libc::SIGKILL));
                lets_die(exec());
            }
            "Signal exec" => has(&Effect::Signal(exec(), libc::SIGTERM)),
            "Settled" => {
                has(&Effect::Emit(News::Exit(None, exit_of(self.around.killed))));
                has(&Effect::Tell(None, exit_of(self.around.killed)));
            }
            "exec Settled" => {
                has(&Effect::Emit(News::Exit(exec(), exit_of(false))));
                has(&Effect::Tell(exec(), exit_of(false)));
            }
            "ExecFailed" => has(&Effect::Tell(exec(), NEVER_RAN)),
            _ => {}
        }
    }
}
