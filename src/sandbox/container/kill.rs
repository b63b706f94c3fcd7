//! Task.Kill: signals one process, or all processes of a container.

use super::life::{Exec, Init, Input};
use super::process::{already_finished, not_created, send, Handle};
use super::{Container, State, Verb, DEATH};
use crate::cgroup::Dying;
use crate::error::{Error, Kind, Result};
use crate::sandbox::Exit;
use crate::spec::Ns;
use crate::sys::{wait, Errno};
use crate::tasks::Looks;
use std::os::fd::AsFd;
use std::time::Duration;

/// How long the remaining processes of a container may take to die.
pub const REST: Duration = Duration::from_secs(1);

impl Container {
    /// Signals a process; `all` signals every process of the container and is ignored for an exec.
    pub fn kill(&self, exec: Option<&str>, signal: u32, all: bool) -> Result<()> {
        let (verb, known) = (Verb::of("signal"), number(signal));
        let input = |signal| Input::Signal { who: exec.map(Into::into), signal, all };
        match known {
            Ok(signal) => self.on(verb, exec, input(signal)).map(drop),
            Err(unknown) => {
                // "No such process" takes precedence over an unknown signal.
                let refused = self.lock().life.on(input(0)).err();
                Err(refused.map_or(unknown, |refused| self.refusal(refused, verb, exec)))
            }
        }
    }

    /// Sends SIGKILL to every process of the container, including those that have left its cgroup.
    pub fn kill_all(&self) -> Result<()> {
        self.kill_within(&self.lock())
    }

    fn kill_within(&self, state: &State) -> Result<()> {
        self.end_checkpoint();
        // Before its CRIU, which is in the cgroup, ends: a start that sees that is to know why.
        if let Init::Starting { handle: Handle::Starting(_, leash), .. } = &state.life.init {
            leash.kill();
        }
        let killed = self.cgroup.kill();
        let execs = state.life.execs.keys().map(|id| Some(id.as_str()));
        for who in execs.chain([None]) {
            // The kill of the cgroup may have ended it.
            let _ = self.signal(state, who, libc::SIGKILL);
        }
        killed
    }

    /// Sends SIGKILL until the cgroup is empty: without `cgroup.kill` (Linux 5.14) a child that is just being forked
    /// may be missed. Returns false if processes are left after `limit`.
    pub async fn kill_rest(&self, limit: Duration) -> Result<bool> {
        let mut looks = Looks::new(Duration::from_millis(1), Duration::from_millis(50));
        while !self.cgroup.pids()?.is_empty() {
            if looks.elapsed() > limit {
                return Ok(false);
            }
            self.cgroup.kill()?;
            looks.again().await?;
        }
        Ok(true)
    }

    /// Kills a process that runs although its start has failed; containerd deletes it next.
    pub(super) async fn give_up(&self, exit: &Exit) {
        match self.kill(None, libc::SIGKILL as u32, false) {
            Err(e) if e.kind() != Kind::NotFound => {
                log::warn!(container = self.id.as_str(); "could not kill the first process: {e}")
            }
            _ => {}
        }
        if exit.within(DEATH).await.is_none() {
            log::warn!(container = self.id.as_str(); "the first process did not exit after a failed start");
        }
    }

    pub(super) fn signal(&self, state: &State, who: Option<&str>, signal: i32) -> Result<()> {
        if who.is_none() && signal == libc::SIGKILL {
            self.end_checkpoint();
        }
        let name = self.name(who);
        let handle = match who {
            None => match &state.life.init {
                Init::Making { handle, .. } | Init::Starting { handle, .. } | Init::Running(handle) => handle,
                Init::Created(gate) | Init::Killed(gate) => return send(gate.pidfd.as_fd(), &name, signal),
                Init::Ending { .. } | Init::Stopped(_) | Init::Deleting(_) | Init::Deleted(_) => {
                    return Err(already_finished(&name))
                }
            },
            Some(id) => match state.life.execs.get(id) {
                Some((Exec::Starting { handle, .. } | Exec::Running(handle), _)) => handle,
                Some((Exec::Added(_), _)) => return Err(not_created(&name)),
                _ => return Err(already_finished(&name)),
            },
        };
        handle.signal(&name, signal)
    }

    pub(super) fn signal_all(&self, state: &State, signal: i32) -> Result<()> {
        if signal == libc::SIGKILL {
            return self.kill_within(state);
        }
        let mut pids = self.cgroup.pids()?;
        if pids.is_empty() {
            return self.signal(state, None, signal);
        }
        state.complete(&mut pids);
        for pid in pids {
            // A process that exits between the listing and the signal is fine.
            match wait::open_pidfd(pid).and_then(|pidfd| wait::signal(pidfd.as_fd(), signal)) {
                Ok(()) | Err(Errno::ESRCH) => {}
                Err(errno) => return Err(Error::system(format!("kill({pid}, {signal})"), errno as i32)),
            }
        }
        Ok(())
    }

    /// Kills everything but the first process. Without a pid namespace of its own nothing else ends the others.
    pub(super) fn kill_others(&self, state: &State) {
        // A starting exec is not in the pid namespace yet.
        for (exec, _) in state.life.execs.values() {
            if let Exec::Starting { handle: Handle::Launch(leash), .. } = exec {
                leash.kill();
            }
        }
        if self.spec.namespaces.pid != Ns::New
            && let Err(e) = self.kill_within(state)
        {
            log::warn!(container = self.id.as_str(); "could not kill the remaining processes: {e}");
        }
    }

    /// See [`super::life::Effect::LetDie`].
    pub(super) fn thaw_to_die(
        &self,
        state: &State,
        who: Option<&str>,
        thaw: bool,
        beyond: bool,
    ) -> Result<()> {
        if thaw {
            self.cgroup.thaw()?;
        }
        let dying = match (who, self.spec.namespaces.pid == Ns::New) {
            // Everything in a pid namespace ends with its first process.
            (None, true) => Dying::All,
            (None, false) => Dying::One(state.pid(None)),
            (Some(id), _) => match state.life.execs.get(id) {
                Some((Exec::Starting { handle: Handle::Launch(leash), .. }, _)) => match leash.pid() {
                    Some(pid) => Dying::One(pid),
                    None => return Ok(()),
                },
                _ => Dying::One(state.pid(who)),
            },
        };
        if beyond {
            self.cgroup.thaw_to_die(dying)
        } else {
            Ok(())
        }
    }
}

impl State {
    /// Kills the process at the gate; it may already have exited.
    pub(super) fn kill_at_gate(&self) {
        if let Init::Created(gate) | Init::Killed(gate) = &self.life.init {
            let _ = wait::signal(gate.pidfd.as_fd(), libc::SIGKILL);
        }
    }

    /// Adds the running processes that have left the container's cgroup.
    pub(super) fn complete(&self, pids: &mut Vec<u32>) {
        let execs = self.life.execs.iter().filter(|(_, (exec, _))| matches!(exec, Exec::Running(_)));
        let execs = execs.map(|(_, (_, facts))| facts.pid);
        let init = matches!(self.life.init, Init::Running(_)).then_some(self.life.facts.pid);
        for pid in execs.chain(init) {
            if !pids.contains(&pid) {
                pids.push(pid);
            }
        }
    }
}

/// Validates a signal: 0, which only checks that the process exists, to SIGRTMAX.
pub(in crate::sandbox) fn number(signal: u32) -> Result<i32> {
    let number = i32::try_from(signal).ok().filter(|number| (0..=64).contains(number));
    number.ok_or_else(|| Error::new(Kind::Invalid, format!("signal {signal} does not exist")))
}
