//! Task.Start of a container's first process.

use super::life::{Init, Input};
use super::process::Handle;
use super::{hooks, Container, Verb, DEATH};
use crate::error::{Context, Error, Kind, Result};
use crate::launch::{Leash, Waiting};
use crate::sandbox::undo::Undo;
use crate::sync::Mutex;
use std::os::fd::OwnedFd;
use std::time::Duration;

/// How long a start that has exceeded its time limit waits for the exit.
const KEPT: Duration = Duration::from_secs(1);

impl Container {
    /// Lets the first process run. On failure the process is ended, and the error names the step that failed.
    pub async fn start(&self, leash: &Leash) -> Result<u32> {
        let (waiting, pidfd, exit) = {
            let mut state = self.lock();
            let frozen = self.cgroup.frozen()?;
            let copy = |pidfd: &OwnedFd| pidfd.try_clone().context(|| "dup(pidfd)");
            let (handle, pidfd) = match &state.life.init {
                Init::Created(gate) => {
                    (Handle::Starting(copy(&gate.pidfd)?, leash.clone()), Some(copy(&gate.pidfd)?))
                }
                _ => (Handle::Launch(leash.clone()), None),
            };
            let input = Input::Start { handle, frozen };
            let given = self.act(&mut state, &mut Vec::new(), Verb::of("start"), None, input)?;
            (given.gate, Mutex::new(pidfd), state.life.facts.exit.clone())
        };
        // From then on a kill signals only the process, not a hook on its behalf.
        let over = |ran| {
            let pidfd = pidfd.lock().take();
            if let Some(pidfd) = pidfd {
                self.hear(Input::StartOver { handle: Handle::Process(pidfd), ran });
            }
        };
        let undo = Undo::new(|| over(false));
        let waiting = waiting.ok_or_else(|| Error::new(Kind::Bug, "a created process lost its gate"))?;
        let restoring = self.restoring.lock().take();
        let restored = restoring.is_some();
        let mut pid = waiting.pid;
        let started = match restoring {
            Some(restoring) => self.restore(waiting, restoring, leash).await.map(|(made, its)| {
                pid = made;
                self.lock().life.facts.pid = made;
                *pidfd.lock() = Some(its);
            }),
            None => self.run_program(waiting, leash).await,
        };
        leash.release();
        undo.done();
        // If the start failed, the process or its gate is gone: its exit has been or will be reported.
        over(started.is_ok());
        // A tracer may keep the exit of a process that was killed by the time limit from the reaper.
        let late = started.as_ref().is_err_and(|e| e.kind() == Kind::Deadline);
        let patience = if late { KEPT } else { DEATH };
        if started.is_err() && exit.within(patience).await.is_none() {
            log::warn!(container = self.id.as_str(); "the first process did not exit after a failed start");
        }
        started.context(|| format!("start {}", self.id))?;
        // What is restored was started when it was made.
        if restored {
            return Ok(pid);
        }
        if let Err(e) = hooks::poststart(self, leash, pid).await {
            self.give_up(&exit).await;
            return Err(e.context(format!("start {}", self.id)));
        }
        Ok(pid)
    }

    async fn run_program(&self, waiting: Waiting, leash: &Leash) -> Result<()> {
        let hooked = hooks::start_container(self, leash, &waiting).await;
        match hooked.and_then(|()| leash.check()) {
            Ok(()) => waiting.start_by(leash).await.map(drop),
            Err(e) => {
                // It ends now, and its exit is awaited by the caller.
                drop(waiting);
                Err(e)
            }
        }
    }
}
