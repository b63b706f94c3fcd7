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
    /// Kills what runs and releases every namespace; fine where that is done. `Deadline` where a process is left
    /// after `limit`. The pod's record stays until `shutdown_pod`.
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
            // By another request. Where that fails, this one tries.
            let over = at_work.within(deadline.saturating_duration_since(Instant::now())).await;
            over.ok_or_else(|| late(id, "another request to stop it is still at work"))?;
        };
        let _over = Undo::new(|| stopped.set(()));
        let undo = Undo::new(|| _ = pod.lock().life.on(Input::StopFailed));
        match self.end_members(&pod, deadline).await.context(|| format!("stop sandbox {id}")) {
            Ok(()) => {
                undo.done();
                pod.ended(ended_well());
                log::info!(sandbox = id; "stopped a sandbox");
                Ok(())
            }
            Err(error) => Err(error),
        }
    }

    /// Every process of the pod is gone afterwards.
    async fn end_members(&self, pod: &Pod, deadline: Instant) -> Result<()> {
        let left = || deadline.saturating_duration_since(Instant::now());
        loop {
            // First this: what was being made is among the members then, or will be found the next time.
            let creates = self.end_creates();
            let members = self.all();
            for member in &members {
                member.kill_all().context(|| format!("kill container {}", member.id))?;
            }
            // What was frozen as one dies once this is thawed. A pause that is at work finds that it is over, and thaws
            // what it has frozen since.
            let thawed = pod.lock().life.on(Input::Thaw);
            if let Ok(Effect::Thaw(frozen @ (Some(Frozen::AsOne) | None))) = thawed {
                match pod.cgroup.thaw() {
                    Err(e) if !matches!(e.kind(), Kind::NotFound | Kind::Unsupported) => {
                        // What was changing is the other request's to settle.
                        if frozen.is_some() {
                            let _ = pod.lock().life.on(Input::NotThawed); // it is never refused
                        }
                        return Err(e);
                    }
                    _ => {}
                }
            }
            for member in &members {
                member.pod_let_die();
                let exit = member.exit(None)?;
                exit.within(left())
                    .await
                    .ok_or_else(|| late(&pod.id, &format!("container {} has not ended", member.id)))?;
                if !member.kill_rest(left().min(REST)).await? {
                    log::warn!(sandbox = pod.id.as_str(), container = member.id.as_str(); "processes are left that do not die");
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
        // The descriptors too: what is in the network namespace no longer keeps it.
        let held = pod.lock().life.on(Input::Release);
        drop(held);
        if let Some(cgroup) = &pod.init_cgroup {
            cgroup.kill()?;
            let ended = pod.init_exit.within(left()).await;
            ended.ok_or_else(|| late(&pod.id, "its first process has not ended"))?;
            // What is left has another chance in the shutdown, and then in `delete`.
            if let Err(e) = cgroup.remove().await {
                log::warn!(sandbox = pod.id.as_str(); "the cgroup of its first process is left: {e}");
            }
        }
        Ok(())
    }

    /// Stops it, deletes its containers and files. Afterwards no create succeeds and the shim is to end: the caller
    /// ends it once the answer is out. A shim without pod and containers ends too: containerd asks for it after a
    /// create that has failed.
    pub async fn shutdown_pod(&self, id: &str, limit: Duration) -> Result<()> {
        let deadline = Instant::now() + limit;
        let left = || deadline.saturating_duration_since(Instant::now());
        // Its caller has given it up: what it makes would be nobody's.
        while let Some(over) = self.end_pod_create() {
            over.within(left()).await.ok_or_else(|| late(id, "it is still being created"))?;
        }
        if self.shutdown() {
            return Ok(());
        }
        let pod = self.pod_of(id)?;
        // One after the other: the shim ends with the first one's answer.
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
                log::warn!(sandbox = id; "shutdown left {what}: {e}");
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
        // What is left is for the `delete` verb, which goes by the record.
        if !rest {
            record::remove(&pod.bundle);
        }
        self.forget_pod();
        log::info!(sandbox = id; "shut a sandbox down");
        Ok(())
    }

    async fn delete_member(&self, member: &Arc<Container>, deadline: Instant) -> Result<()> {
        // By a Task.Delete, which may be running hooks that would not survive the shim.
        while let Some(deletion) = member.deletion() {
            match deletion.within(deadline.saturating_duration_since(Instant::now())).await {
                Some(true) => return Ok(()),
                // It has failed: this one tries.
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
