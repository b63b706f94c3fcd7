//! The pod: what the containers of a sandbox share, created by the Sandbox service.
//!
//! Its life cycle is a pure function, see [`life`]:
//!
//! ```text
//!          create_pod            start_pod           stop_pod, or its first process ends       shutdown_pod
//!   (none) ──────────► Created ───────────► Ready ──────────────────────────────────► Stopped ─────────────► (none)
//!                         └───────────────────────────────────────────────────────────────┘
//! ```
//!
//! Nothing blocks while holding the lock of a pod's state.

mod create;
mod document;
mod end;
mod files;
mod freeze;
mod life;
mod member;
mod namespaces;
mod request;

pub use files::records as member_records;
pub(super) use member::join;
pub use request::{Dns, PodConfig, PodCreate, PodPid, PodStarted, PodState, PodStatus};

use super::Exit;
use super::{record, Sandbox, Waits};
use crate::cgroup::{stats::Stats, Cgroup};
use crate::error::{Context, Error, Kind, Result};
use crate::launch::ExitStatus;
use crate::sync::{Mutex, MutexGuard};
use crate::tasks::News;
use files::Files;
use life::{Effect, Input, Life, Refused};
use namespaces::Held;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::SystemTime;

pub(super) struct Pod {
    pub id: String,
    pub bundle: PathBuf,
    pub config: PodConfig,
    pub created_at: SystemTime,
    pub files: Files,
    pub cgroup: Box<dyn Cgroup>,
    /// The cgroup of the pod's first process, if it has one.
    pub init_cgroup: Option<Box<dyn Cgroup>>,
    /// The parent of members' cgroups that were given no path; None if the client specifies one.
    pub members_below: Option<PathBuf>,
    spec: Vec<u8>,
    exit: Exit,
    init_exit: Exit,
    state: Mutex<State>,
}

struct State {
    life: Life<Arc<Held>>,
    /// Set once the most recent freezer change has finished.
    changed: News<()>,
    /// Set once the most recent stop request has finished, whatever its outcome.
    stopped: News<()>,
    /// The shutdown in progress, if any; set once it has finished.
    shutdown: Option<News<()>>,
}

impl Pod {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock()
    }

    fn cannot(&self, verb: &str, is: &str) -> Error {
        Error::new(Kind::State, format!("cannot {verb} sandbox {}: it is {is}", self.id))
    }

    fn on(&self, verb: &str, input: Input) -> Result<Effect<Arc<Held>>> {
        self.lock().life.on(input).map_err(|Refused(word)| self.cannot(verb, word))
    }

    /// The namespaces that a member joins; an error unless the pod is running.
    pub fn for_member(&self) -> Result<Arc<Held>> {
        self.on("create a container in", Input::Join)?;
        let held = self.lock().life.held().map(Arc::clone);
        held.ok_or_else(|| self.cannot("create a container in", "being stopped"))
    }

    pub fn pid(&self) -> u32 {
        self.lock().life.held().map_or(0, |held| held.pid)
    }

    /// Created and not yet started.
    pub fn is_unstarted(&self) -> bool {
        self.lock().life.is_created()
    }

    /// Handles the exit of the pod's first process: unless a stop is in progress, the pod ends with it. In a pod
    /// without a first process, the exit is that of the process that created the namespaces.
    fn init_ended(&self, status: ExitStatus) {
        if self.init_cgroup.is_none() {
            return;
        }
        self.init_exit.set(status);
        if !self.lock().life.is_stopping() {
            log::warn!(sandbox = self.id.as_str(), code = status.code; "the sandbox's first process exited");
            self.ended(status);
        }
    }

    /// Ends the pod; only the first call records an exit. Frozen containers stay frozen until a kill or the next stop.
    fn ended(&self, status: ExitStatus) {
        // Drops what the pod holds outside the lock.
        let _held = self.lock().life.on(Input::Ended);
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

impl Sandbox {
    /// The pod with this id; NotFound if there is none or its id differs.
    fn pod_of(&self, id: &str) -> Result<Arc<Pod>> {
        match self.pod() {
            Some(pod) if pod.id == id => Ok(pod),
            _ => Err(Error::new(Kind::NotFound, format!("sandbox {id} does not exist"))),
        }
    }

    /// Starts the pod; `State` unless it is created and not yet started.
    pub fn start_pod(&self, id: &str) -> Result<PodStarted> {
        let pod = self.pod_of(id)?;
        pod.on("start", Input::Start)?;
        let pid = pod.pid();
        log::info!(sandbox = id, pid; "started the sandbox");
        Ok(PodStarted { pid, created_at: pod.created_at, spec: pod.spec.clone() })
    }

    /// Succeeds while the pod exists and has not been stopped. Cheap.
    pub fn ping_pod(&self, id: &str) -> Result<()> {
        let pod = self.pod_of(id)?;
        let state = pod.lock();
        if state.life.is_over() {
            Err(pod.cannot("ping", state.life.word()))
        } else {
            Ok(())
        }
    }

    pub fn pod_status(&self, id: &str) -> Result<PodStatus> {
        let pod = self.pod_of(id)?;
        let containers = self.all().iter().filter_map(|container| container.state(None).ok()).collect();
        // Somebody else may have frozen it.
        let frozen = pod.cgroup.frozen().unwrap_or(false);
        let (state, pid) = {
            let life = &pod.lock().life;
            let state = match life.frozen() {
                _ if life.is_over() => PodState::Stopped,
                _ if life.is_created() => PodState::Created,
                Some(_) => PodState::Paused,
                None if frozen && !life.is_changing() => PodState::Paused,
                None => PodState::Ready,
            };
            (state, life.held().map_or(0, |held| held.pid))
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

    /// The statistics of the pod's cgroup.
    pub(crate) fn pod_stats(&self, id: &str) -> Result<Stats> {
        self.pod_of(id)?.cgroup.stats().context(|| format!("stats of sandbox {id}"))
    }

    /// Calls `waiter` when the pod ends: immediately on this thread if it already has. It must not block, and stays
    /// registered until the returned value is dropped.
    pub fn on_pod_exit(&self, id: &str, waiter: Box<dyn FnOnce(ExitStatus) + Send>) -> Result<Waits> {
        Ok(self.pod_of(id)?.exit.then(waiter))
    }

    /// The id of the pod, from its creation to its shutdown.
    pub fn pod_id(&self) -> Option<String> {
        self.pod().map(|pod| pod.id.clone())
    }
}
