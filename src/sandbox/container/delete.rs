//! Task.Delete of an exec and of a container.

use super::kill::REST;
use super::life::Input;
use super::process::exit_of_not_started;
use super::{hooks, Container, Verb, DEATH};
use crate::error::{Context, Error, Kind, Result};
use crate::launch::{after, ExitStatus};
use crate::resctrl;
use crate::sandbox::record;
use crate::sandbox::request::Deleted;
use crate::sandbox::undo::Undo;
use crate::sandbox::Exit;
use crate::stdio::Io;
use crate::tasks::News;
use std::time::Duration;

/// How long Delete waits for the last output of a stream that the shim copies; the Go shim waits as long.
const DRAIN: Duration = Duration::from_secs(10);

/// How long Delete waits for the filesystem of `Root`.
const SHOWN: Duration = Duration::from_secs(1);

const DELETE: Verb = Verb::of("delete");

/// The outcome of the most recent request to delete a container: set once it has finished, true if it succeeded.
pub(in crate::sandbox) type Deletion = News<bool>;

impl Container {
    pub async fn delete_exec(&self, id: &str) -> Result<Deleted> {
        let given = self.on(DELETE, Some(id), Input::DeleteExec { id: id.into() })?;
        let gone = || Error::new(Kind::Bug, "an exec that was deleted is not given");
        let (facts, exit) = given.removed.ok_or_else(gone)?;
        let exit = exit.unwrap_or_else(exit_of_not_started);
        // Release the waiters of an exec that was never started.
        facts.exit.set(exit);
        if let Some(io) = &facts.io {
            self.drain(io).await;
        }
        Ok(Deleted { pid: facts.pid, exit })
    }

    /// The deletion in progress, or the one that has deleted the container.
    pub fn deletion(&self) -> Option<Deletion> {
        let state = self.lock();
        state.life.init.is_being_deleted().then(|| state.deletion.clone())
    }

    /// Removes what is left of a stopped (or not yet started) container: processes, cgroup, streams, records.
    pub async fn delete(&self, hooks: Duration) -> Result<Deleted> {
        let over = {
            let mut state = self.lock();
            self.act(&mut state, &mut Vec::new(), DELETE, None, Input::Delete)?;
            state.deletion = Deletion::default();
            state.deletion.clone()
        };
        let undo = Undo::new(|| {
            self.hear(Input::DeleteFailed);
            over.set(false);
        });
        let (pid, exit) = {
            let state = self.lock();
            (state.life.facts.pid, state.life.facts.exit.clone())
        };
        let exit = self.end(hooks, &exit).await.context(|| format!("delete {}", self.id))?;
        undo.done();
        self.hear(Input::Deleted);
        over.set(true);
        Ok(Deleted { pid, exit })
    }

    /// Removes the record and the links to it, so that `delete` finds nothing. Waits up to `limit` for the filesystem
    /// of `Root`.
    pub(super) async fn forget(&self, limit: Duration) {
        if let Some(root) = &self.options.root {
            let (at, _) = record::shown(root, self.records.folder());
            if let Err(e) = self.world.paths.unlink(&at, after(limit)).await {
                log::warn!(container = self.id.as_str(); "its folder of Root is left: {e}");
            }
        }
        record::remove(self.records.folder());
    }

    /// Removes its resctrl groups. What is left costs the host a class of service, but is no reason to keep a container.
    pub(super) fn leave_resctrl(&self) -> bool {
        let removed = self.resctrl.get().map_or(Ok(()), |made| resctrl::remove(made));
        if let Err(e) = &removed {
            log::warn!(container = self.id.as_str(); "a resctrl group is left: {e}");
        }
        removed.is_ok()
    }

    async fn drain(&self, io: &Io) {
        if let Err(lost) = io.drain(DRAIN).await {
            log::warn!(container = self.id.as_str(); "lost {lost}: not read within 10 s");
        }
    }

    async fn end(&self, hooks: Duration, exit: &Exit) -> Result<ExitStatus> {
        // An empty cgroup can be removed all the same.
        if let Err(e) = self.cgroup.kill() {
            log::warn!(container = self.id.as_str(); "could not kill the remaining processes: {e}");
        }
        let exit = exit.within(DEATH).await.ok_or_else(|| {
            Error::new(Kind::Deadline, "its first process did not die of SIGKILL within 10 s")
        })?;
        let io = self.lock().life.facts.io.take();
        if let Some(io) = io {
            self.drain(&io).await;
        }
        self.updates_are_over().await?;
        if !self.kill_rest(REST).await? {
            log::warn!(container = self.id.as_str(); "some processes did not die");
        }
        self.cgroup.remove().await?;
        self.leave_resctrl();
        hooks::poststop(self, hooks).await;
        self.forget(SHOWN).await;
        Ok(exit)
    }
}
