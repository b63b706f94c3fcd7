//! StopSandbox and ShutdownSandbox.

use super::namespaces::ended_well;
use super::{files, Frozen, Phase, Pod};
use crate::error::{Context, Error, Kind, Result};
use crate::sandbox::container::Container;
use crate::sandbox::{record, Sandbox};
use std::sync::Arc;
use std::time::{Duration, Instant};

impl Sandbox {
    /// Kills what runs and releases every namespace; fine where that is done. `Deadline` where a process is left
    /// after `limit`. The pod's record stays until `shutdown_pod`.
    pub fn stop_pod(&self, id: &str, limit: Duration) -> Result<()> {
        let pod = self.pod_of(id)?;
        let deadline = Instant::now() + limit;
        let before = {
            let mut life = pod.lock();
            match life.phase {
                // By another request: as long as that takes.
                Phase::Stopping => None,
                phase => {
                    life.phase = if phase == Phase::Stopped { phase } else { Phase::Stopping };
                    Some(phase)
                }
            }
        };
        let Some(before) = before else {
            let ended = pod.exit.wait_for(limit);
            return ended.map(drop).ok_or_else(|| late(id, "another request to stop it is still at work"));
        };
        match self.end_members(&pod, deadline).context(|| format!("stop sandbox {id}")) {
            Ok(()) => {
                pod.ended(ended_well());
                log::info!(sandbox = id; "stopped a sandbox");
                Ok(())
            }
            Err(error) => {
                let mut life = pod.lock();
                if life.phase == Phase::Stopping {
                    life.phase = before;
                }
                Err(error)
            }
        }
    }

    /// Every process of the pod is gone afterwards.
    fn end_members(&self, pod: &Pod, deadline: Instant) -> Result<()> {
        let left = || deadline.saturating_duration_since(Instant::now());
        loop {
            let members = self.all();
            for member in &members {
                member.cgroup.kill().context(|| format!("kill container {}", member.id))?;
            }
            // What was frozen as one dies, and what is just being created goes on to its end, once this is thawed.
            let frozen = pod.lock().frozen.take();
            if frozen == Some(Frozen::AsOne) {
                pod.cgroup.thaw()?;
            }
            for member in &members {
                member.set_frozen_with_pod(false);
                let exit = member.exit(None)?;
                exit.wait_for(left())
                    .ok_or_else(|| late(&pod.id, &format!("container {} has not ended", member.id)))?;
            }
            if !self.creates_are_at_work() {
                break;
            }
            if left().is_zero() {
                return Err(late(&pod.id, "a container is still being created"));
            }
            std::thread::sleep(Duration::from_millis(2));
        }
        // The descriptors too: what is in the network namespace no longer keeps it.
        let held = pod.lock().held.take();
        drop(held);
        if let Some(cgroup) = &pod.init_cgroup {
            cgroup.kill()?;
            pod.init_exit.wait_for(left()).ok_or_else(|| late(&pod.id, "its first process has not ended"))?;
            cgroup.remove()?;
        }
        Ok(())
    }

    /// Stops it, deletes its containers and files. Afterwards no create succeeds and the shim is to end: the caller
    /// ends it once the answer is out. A shim without pod and containers ends too: containerd asks for it after a
    /// create that has failed.
    pub fn shutdown_pod(&self, id: &str, limit: Duration) -> Result<()> {
        if self.shutdown() {
            return Ok(());
        }
        self.stop_pod(id, limit)?;
        let pod = self.pod_of(id)?;
        let mut left = false;
        let mut failed = |what: &str, result: Result<()>| {
            if let Err(e) = result {
                left = true;
                log::warn!(sandbox = id; "shutdown left {what}: {e}");
            }
        };
        for member in self.all() {
            failed("a container", self.delete_member(&member));
        }
        failed("files", files::remove(&pod.bundle));
        failed("the pod's cgroup", pod.cgroup.remove());
        // What is left is for the `delete` verb, which goes by the record.
        if !left {
            record::remove(&pod.bundle);
        }
        self.forget_pod();
        log::info!(sandbox = id; "shut a sandbox down");
        Ok(())
    }

    fn delete_member(&self, member: &Arc<Container>) -> Result<()> {
        member.delete(&*self.config.launcher)?;
        self.forget(&member.id);
        Ok(())
    }
}

fn late(id: &str, what: &str) -> Error {
    Error::new(Kind::Deadline, format!("stop sandbox {id}: {what} within the time limit"))
}
