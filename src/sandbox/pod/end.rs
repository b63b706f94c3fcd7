//! StopSandbox and ShutdownSandbox.

use super::life::{Effect, Frozen, Input};
use super::namespaces::ended_well;
use super::{files, Pod};
use crate::error::{Context, Error, Kind, Result};
use crate::sandbox::container::{Container, REST};
use crate::sandbox::undo::Undo;
use crate::sandbox::{record, Sandbox};
use crate::tasks::News;
use std::sync::Arc;
use std::time::{Duration, Instant};

impl Sandbox {
    /// Kills all processes and releases every namespace; succeeds if that is already done. Returns `Deadline` if a
    /// process is left after `limit`. The pod's record stays until `shutdown_pod`.
    pub async fn stop_pod(&self, id: &str, limit: Duration) -> Result<()> {
        let pod = self.pod_of(id)?;
        let deadline = Instant::now() + limit;
        let stopped = loop {
            let at_work = {
                let mut state = pod.lock();
                match state.life.on(Input::Stop) {
                    Ok(Effect::Wait) => state.stopped.clone(),
                    _ => {
                        state.stopped = News::default();
                        break state.stopped.clone();
                    }
                }
            };
            // Another request is stopping it. If that one fails, this one tries.
            let over = at_work.within(deadline.saturating_duration_since(Instant::now())).await;
            over.ok_or_else(|| late(id, "another request to stop it is still at work"))?;
        };
        let _over = Undo::new(|| stopped.set(()));
        let undo = Undo::new(|| _ = pod.lock().life.on(Input::StopFailed));
        match self.end_members(&pod, deadline).await.context(|| format!("stop sandbox {id}")) {
            Ok(()) => {
                undo.done();
                pod.ended(ended_well());
                log::info!(sandbox = id; "stopped the sandbox");
                Ok(())
            }
            Err(error) => Err(error),
        }
    }

    /// Ends every process of the pod.
    async fn end_members(&self, pod: &Pod, deadline: Instant) -> Result<()> {
        let left = || deadline.saturating_duration_since(Instant::now());
        loop {
            // Creates first: a container being created is then among the members, or found in the next round.
            let creates = self.end_creates();
            let members = self.all();
            for member in &members {
                member.kill_all().context(|| format!("kill container {}", member.id))?;
            }
            // Processes that were frozen with the pod die once it is thawed. A pause in progress finds out that it was
            // overtaken and thaws what it has frozen since.
            let thawed = pod.lock().life.on(Input::Thaw);
            if let Ok(Effect::Thaw(frozen @ (Some(Frozen::AsOne) | None))) = thawed {
                match pod.cgroup.thaw() {
                    Err(e) if !matches!(e.kind(), Kind::NotFound | Kind::Unsupported) => {
                        // A change in progress is for the other request to settle.
                        if frozen.is_some() {
                            let _ = pod.lock().life.on(Input::NotThawed); // never refused
                        }
                        return Err(e);
                    }
                    _ => {}
                }
            }
            for member in &members {
                member.pod_thaw_to_die();
                let exit = member.exit(None)?;
                exit.within(left())
                    .await
                    .ok_or_else(|| late(&pod.id, &format!("container {} has not ended", member.id)))?;
                if !member.kill_rest(left().min(REST)).await? {
                    log::warn!(sandbox = pod.id.as_str(), container = member.id.as_str(); "some processes did not die");
                }
            }
            if creates.is_empty() {
                break;
            }
            for over in creates {
                let over = over.within(left()).await;
                over.ok_or_else(|| late(&pod.id, "a container is still being created"))?;
            }
        }
        // This closes the descriptors too: a process in the network namespace no longer keeps it alive.
        let held = pod.lock().life.on(Input::Release);
        drop(held);
        if let Some(cgroup) = &pod.init_cgroup {
            cgroup.kill()?;
            let ended = pod.init_exit.within(left()).await;
            ended.ok_or_else(|| late(&pod.id, "its first process has not ended"))?;
            // The shutdown, and then `delete`, try again to remove what is left.
            if let Err(e) = cgroup.remove().await {
                log::warn!(sandbox = pod.id.as_str(); "could not remove the cgroup of the pod's first process: {e}");
            }
        }
        Ok(())
    }

    /// Stops the pod and deletes its containers and files. Afterwards every create fails and the shim must exit: the
    /// caller ends it once the response is sent. A shim without pod and containers exits too: containerd asks for it
    /// after a failed create.
    pub async fn shutdown_pod(&self, id: &str, limit: Duration) -> Result<()> {
        let deadline = Instant::now() + limit;
        let left = || deadline.saturating_duration_since(Instant::now());
        // The caller of the create has given up: nobody would own the pod.
        while let Some(over) = self.end_pod_create() {
            over.within(left()).await.ok_or_else(|| late(id, "it is still being created"))?;
        }
        if self.shutdown() {
            return Ok(());
        }
        let pod = self.pod_of(id)?;
        // One at a time: the shim exits with the response to the first.
        let over = loop {
            let at_work = match &mut pod.lock().shutdown {
                Some(at_work) => at_work.clone(),
                none => break none.insert(News::default()).clone(),
            };
            let over = at_work.within(left()).await;
            over.ok_or_else(|| late(id, "another request to shut it down is still at work"))?;
        };
        let _alone = Undo::new(|| {
            pod.lock().shutdown = None;
            over.set(());
        });
        if self.shutdown() {
            return Ok(());
        }
        self.stop_pod(id, left()).await?;
        let mut rest = false;
        let mut failed = |what: &str, result: Result<()>| {
            if let Err(e) = result {
                rest = true;
                log::warn!(sandbox = id; "shutdown could not remove {what}: {e}");
            }
        };
        for member in self.all() {
            failed("a container", self.delete_member(&member, deadline).await);
        }
        if let Some(cgroup) = &pod.init_cgroup {
            failed("the cgroup of its first process", cgroup.remove().await);
        }
        failed("files", files::remove(&pod.bundle));
        failed("the pod's cgroup", pod.cgroup.remove().await);
        // Keep the record if anything is left: the `delete` verb relies on it.
        if !rest {
            record::remove(&pod.bundle);
        }
        self.forget_pod();
        log::info!(sandbox = id; "shut down the sandbox");
        Ok(())
    }

    async fn delete_member(&self, member: &Arc<Container>, deadline: Instant) -> Result<()> {
        // A Task.Delete in progress may be running hooks that would not survive the shim.
        while let Some(deletion) = member.deletion() {
            match deletion.within(deadline.saturating_duration_since(Instant::now())).await {
                Some(true) => return Ok(()),
                // It failed: this one tries.
                Some(false) => {}
                None => return Err(late(&member.id, "another request to delete it is still at work")),
            }
        }
        member.delete(self.world.launch_limit()).await?;
        self.forget(&member.id);
        Ok(())
    }
}

fn late(id: &str, what: &str) -> Error {
    Error::new(Kind::Deadline, format!("stop sandbox {id}: {what} within the time limit"))
}
