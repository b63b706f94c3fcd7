//! The pod: what a sandbox's containers share, made by the Sandbox service.

mod request;

pub use request::{Dns, PodConfig, PodCreate, PodPid, PodStarted, PodState, PodStatus, UserMappings};

use super::Sandbox;
use crate::cgroup::stats::Stats;
use crate::error::{Error, Kind, Result};
use crate::launch::ExitStatus;
use std::time::Duration;

fn soon() -> Error {
    Error::new(Kind::Unsupported, "pods are not implemented")
}

impl Sandbox {
    /// Makes the pod: namespaces, files, sysctls. A second one, or one with an id that a container has, is `Exists`;
    /// what a failure half-made is gone.
    pub fn create_pod(&self, _request: PodCreate) -> Result<()> {
        Err(soon())
    }

    /// `State` unless it is created and not yet started.
    pub fn start_pod(&self, _id: &str) -> Result<PodStarted> {
        Err(soon())
    }

    /// Kills what runs and releases every namespace; fine where that is done. `Deadline` where a process is left
    /// after `limit`. The pod's record stays until `shutdown_pod`.
    pub fn stop_pod(&self, _id: &str, _limit: Duration) -> Result<()> {
        Err(soon())
    }

    /// Stops it, deletes its containers and files. Afterwards no create succeeds and the shim is to end: the caller
    /// ends it once the answer is out.
    pub fn shutdown_pod(&self, _id: &str, _limit: Duration) -> Result<()> {
        Err(soon())
    }

    /// All containers stop at the same moment: one write to the pod's cgroup.
    pub fn pause_pod(&self, _id: &str) -> Result<()> {
        Err(soon())
    }

    pub fn resume_pod(&self, _id: &str) -> Result<()> {
        Err(soon())
    }

    /// Fine while the pod is there and has not been stopped. Cheap.
    pub fn ping_pod(&self, _id: &str) -> Result<()> {
        Err(soon())
    }

    pub fn pod_status(&self, _id: &str) -> Result<PodStatus> {
        Err(soon())
    }

    /// Of the pod's cgroup.
    pub fn pod_stats(&self, _id: &str) -> Result<Stats> {
        Err(soon())
    }

    /// Calls `waiter` once the pod has ended: at once, on this thread, if it has. It must not block.
    pub fn on_pod_exit(&self, _id: &str, _waiter: Box<dyn FnOnce(ExitStatus) + Send>) -> Result<()> {
        Err(soon())
    }

    /// The id of the pod, from its create to its shutdown.
    pub fn pod_id(&self) -> Option<String> {
        None
    }
}
