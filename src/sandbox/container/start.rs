//! Task.Start of a container's first process.

use super::life::{Init, Input};
use super::process::Handle;
use super::{hooks, Container, Verb, DEATH};
use crate::error::{Context, Error, Kind, Result};
use crate::launch::Leash;
use crate::sandbox::undo::Undo;
use crate::sync::Mutex;
use std::os::fd::OwnedFd;
use std::time::Duration;

/// How long a failed start waits for the exit where its time is over.
const KEPT: Duration = Duration::from_secs(1);

impl Container {
    /// Lets the first process run. On failure it ends, and the step that failed is in the error.
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
        // From then on a kill is for the process alone, and for no hook beside it.
        let over = |ran| {
            let pidfd = pidfd.lock().take();
            if let Some(pidfd) = pidfd {
                self.hear(Input::StartOver { handle: Handle::Process(pidfd), ran });
            }
        };
        let undo = Undo::new(|| over(false));
        let waiting = waiting.ok_or_else(|| Error::new(Kind::Bug, "a created process lost its gate"))?;
        let pid = waiting.pid;
        let hooked = hooks::start_container(self, leash, &waiting).await;
        let started = match hooked.and_then(|()| leash.check()) {
            Ok(()) => waiting.start_by(leash).await,
            Err(e) => {
                // It ends now, and its exit is awaited below.
                drop(waiting);
                Err(e)
            }
        };
        leash.release();
        undo.done();
        // Where it failed, the process is gone too, or its gate is: its exit is here, or on its way.
        over(started.is_ok());
        // What a time limit ended may be kept from the reaper by whoever traces it.
        let late = started.as_ref().is_err_and(|e| e.kind() == Kind::Deadline);
        let patience = if late { KEPT } else { DEATH };
        if started.is_err() && exit.within(patience).await.is_none() {
            log::warn!(id = self.id.as_str(); "its first process did not end after a failed start");
        }
        started.context(|| format!("start {}", self.id))?;
        if let Err(e) = hooks::poststart(self, leash, pid).await {
            self.give_up(&exit).await;
            return Err(e.context(format!("start {}", self.id)));
        }
        Ok(pid)
    }
}
