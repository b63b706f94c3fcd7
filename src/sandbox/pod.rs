//! The pod: what a sandbox's containers share, made by the Sandbox service.
//!
//! ```text
//!          create_pod            start_pod           stop_pod, or its first process ends       shutdown_pod
//!   (none) ──────────► Created ───────────► Ready ──────────────────────────────────► Stopped ─────────────► (none)
//!                         └───────────────────────────────────────────────────────────────┘
//! ```
//!
//! A frozen pod is a ready one with `frozen` set. Nobody waits for anything under the lock of a pod's life.

mod create;
mod document;
mod end;
mod files;
mod freeze;
pub(super) mod member;
mod namespaces;
mod request;

pub(super) use create::InitExit;
pub use member::records as member_records;
pub use request::{
    Dns, PodConfig, PodCreate, PodPid, PodPlace, PodSettings, PodStarted, PodState, PodStatus,
};

use super::Exit;
use super::{record, Sandbox, Waits};
use crate::cgroup::{stats::Stats, Cgroup};
use crate::error::{Context, Error, Kind, Result};
use crate::launch::ExitStatus;
use crate::tasks::News;
use files::Files;
use namespaces::Held;
use std::path::PathBuf;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

pub(super) struct Pod {
    pub id: String,
    pub bundle: PathBuf,
    pub config: PodConfig,
    pub created_at: SystemTime,
    pub files: Files,
    pub cgroup: Box<dyn Cgroup>,
    /// Of the pod's first process, where it has one.
    pub init_cgroup: Option<Box<dyn Cgroup>>,
    /// Where members' cgroups go that have no place of their own; None: the client says where.
    pub members_below: Option<PathBuf>,
    spec: Vec<u8>,
    exit: Exit,
    init_exit: Exit,
    life: Mutex<Life>,
    /// A shutdown is at work.
    ending: AtomicBool,
}

pub(in crate::sandbox) struct Life {
    pub phase: Phase,
    /// None once they are released.
    held: Option<Arc<Held>>,
    frozen: Option<Frozen>,
    /// Known once the change of what is frozen is over that began last.
    changed: News<()>,
    /// The same of the last request to stop it, whatever came of it.
    stopped: News<()>,
}

impl Life {
    /// What this returns is for `settle`.
    fn begin_change(&mut self) -> News<()> {
        self.frozen = Some(Frozen::Changing);
        self.changed = News::default();
        self.changed.clone()
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::sandbox) enum Phase {
    Created,
    Ready,
    Stopping,
    Stopped,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Frozen {
    /// A pause or a resume is at work.
    Changing,
    /// By one write to the pod's cgroup.
    AsOne,
    /// Each container by its own cgroup.
    EachByItself,
}

impl Pod {
    pub(in crate::sandbox) fn lock(&self) -> MutexGuard<'_, Life> {
        self.life.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn cannot(&self, verb: &str, is: &str) -> Error {
        Error::new(Kind::State, format!("cannot {verb} sandbox {}: it is {is}", self.id))
    }

    /// What a member joins; an error unless the pod runs.
    pub fn for_member(&self) -> Result<Arc<Held>> {
        let life = self.lock();
        if life.frozen.is_some() {
            return Err(self.cannot("create a container in", "paused"));
        }
        match (life.phase, &life.held) {
            (Phase::Ready, Some(held)) => Ok(Arc::clone(held)),
            (phase, _) => Err(self.cannot("create a container in", phase.word())),
        }
    }

    pub fn pid(&self) -> u32 {
        self.lock().held.as_ref().map_or(0, |held| held.pid)
    }

    /// Its first process has ended: by a stop, or else the pod has ended with it. Without one, it was the process that
    /// made the namespaces.
    fn init_ended(&self, status: ExitStatus) {
        if self.init_cgroup.is_none() {
            return;
        }
        self.init_exit.set(status);
        if self.lock().phase != Phase::Stopping {
            log::warn!(sandbox = self.id.as_str(), code = status.code; "the first process of a sandbox ended");
            self.ended(status);
        }
    }

    /// The first call counts. What is frozen stays so, for a kill or the stop that follows to thaw.
    fn ended(&self, status: ExitStatus) {
        let held = {
            let mut life = self.lock();
            life.phase = Phase::Stopped;
            life.held.take()
        };
        drop(held);
        if self.exit.get().is_none() {
            record::exited(&self.bundle, status);
            self.exit.set(status);
        }
    }
}

/// A cgroup's path below the mount point of its (first) hierarchy.
fn path_of(cgroup: &dyn Cgroup) -> String {
    let below = cgroup.directories().into_iter().next().map(|(_, below)| below);
    format!("/{}", below.unwrap_or_default().display())
}

impl Phase {
    fn word(self) -> &'static str {
        match self {
            Phase::Created => "not started",
            Phase::Ready => "running",
            Phase::Stopping => "being stopped",
            Phase::Stopped => "stopped",
        }
    }
}

impl Sandbox {
    /// The pod with this id; NotFound where there is none, or another one.
    fn pod_of(&self, id: &str) -> Result<Arc<Pod>> {
        match self.pod() {
            Some(pod) if pod.id == id => Ok(pod),
            _ => Err(Error::new(Kind::NotFound, format!("sandbox {id} does not exist"))),
        }
    }

    /// `State` unless it is created and not yet started.
    pub fn start_pod(&self, id: &str) -> Result<PodStarted> {
        let pod = self.pod_of(id)?;
        let mut life = pod.lock();
        match (life.phase, &life.held) {
            (Phase::Created, Some(held)) => {
                let pid = held.pid;
                life.phase = Phase::Ready;
                log::info!(sandbox = id, pid; "started a sandbox");
                Ok(PodStarted { pid, created_at: pod.created_at, spec: pod.spec.clone() })
            }
            (phase, _) => Err(pod.cannot("start", phase.word())),
        }
    }

    /// Fine while the pod is there and has not been stopped. Cheap.
    pub fn ping_pod(&self, id: &str) -> Result<()> {
        let pod = self.pod_of(id)?;
        let phase = pod.lock().phase;
        match phase {
            Phase::Created | Phase::Ready => Ok(()),
            phase => Err(pod.cannot("ping", phase.word())),
        }
    }

    pub fn pod_status(&self, id: &str) -> Result<PodStatus> {
        let pod = self.pod_of(id)?;
        let containers = self.all().iter().filter_map(|container| container.state(None).ok()).collect();
        // By somebody else, perhaps.
        let frozen = pod.cgroup.frozen().unwrap_or(false);
        let (state, pid) = {
            let life = pod.lock();
            let state = match (life.phase, life.frozen) {
                (Phase::Created, _) => PodState::Created,
                (Phase::Ready, Some(Frozen::AsOne | Frozen::EachByItself)) => PodState::Paused,
                (Phase::Ready, None) if frozen => PodState::Paused,
                (Phase::Ready, _) => PodState::Ready,
                (Phase::Stopping | Phase::Stopped, _) => PodState::Stopped,
            };
            (state, life.held.as_ref().map_or(0, |held| held.pid))
        };
        Ok(PodStatus {
            id: pod.id.clone(),
            pid,
            state,
            created_at: pod.created_at,
            exit: pod.exit.get(),
            containers,
            cgroup: path_of(&*pod.cgroup),
            spec: pod.spec.clone(),
            config: pod.config.clone(),
        })
    }

    /// Of the pod's cgroup.
    pub fn pod_stats(&self, id: &str) -> Result<Stats> {
        self.pod_of(id)?.cgroup.stats().context(|| format!("stats of sandbox {id}"))
    }

    /// Calls `waiter` once the pod has ended: at once, on this thread, if it has. It must not block. What is returned
    /// keeps it.
    pub fn on_pod_exit(&self, id: &str, waiter: Box<dyn FnOnce(ExitStatus) + Send>) -> Result<Waits> {
        Ok(self.pod_of(id)?.exit.then(waiter))
    }

    /// The id of the pod, from its create to its shutdown.
    pub fn pod_id(&self) -> Option<String> {
        self.pod().map(|pod| pod.id.clone())
    }
}
