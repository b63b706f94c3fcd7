//! The pod: what a sandbox's containers share, made by the Sandbox service.
//!
//! Its life is a pure function, see [`life`]:
//!
//! ```text
//!          create_pod            start_pod           stop_pod, or its first process ends       shutdown_pod
//!   (none) ──────────► Created ───────────► Ready ──────────────────────────────────► Stopped ─────────────► (none)
//!                         └───────────────────────────────────────────────────────────────┘
//! ```
//!
//! Nobody waits for anything under the lock of a pod's state.

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
    /// Of the pod's first process, where it has one.
    pub init_cgroup: Option<Box<dyn Cgroup>>,
    /// Where members' cgroups go that have no place of their own; None: the client says where.
    pub members_below: Option<PathBuf>,
    spec: Vec<u8>,
    exit: Exit,
    init_exit: Exit,
    state: Mutex<State>,
}

struct State {
    life: Life<Arc<Held>>,
    /// Known once the change of what is frozen is over that began last.
    changed: News<()>,
    /// The same of the last request to stop it, whatever came of it.
    stopped: News<()>,
    /// A shutdown is at work; this is known once it is over.
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

    /// What a member joins; an error unless the pod runs.
    pub fn for_member(&self) -> Result<Arc<Held>> {
        self.on("create a container in", Input::Join)?;
        let held = self.lock().life.held().map(Arc::clone);
        held.ok_or_else(|| self.cannot("create a container in", "being stopped"))
    }

    pub fn pid(&self) -> u32 {
        self.lock().life.held().map_or(0, |held| held.pid)
    }

    /// It is there, and nobody has started it.
    pub fn is_unstarted(&self) -> bool {
        self.lock().life.is_created()
    }

    /// Its first process has ended: by a stop, or else the pod has ended with it. Without one, it was the process that
    /// made the namespaces.
    fn init_ended(&self, status: ExitStatus) {
        if self.init_cgroup.is_none() {
            return;
        }
        self.init_exit.set(status);
        if !self.lock().life.is_stopping() {
            log::warn!(sandbox = self.id.as_str(), code = status.code; "the first process of a sandbox ended");
            self.ended(status);
        }
    }

    /// The first call counts. What is frozen stays so, for a kill or the stop that follows to thaw.
    fn ended(&self, status: ExitStatus) {
        // What it holds is dropped here, without the lock.
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
        pod.on("start", Input::Start)?;
        let pid = pod.pid();
        log::info!(sandbox = id, pid; "started a sandbox");
        Ok(PodStarted { pid, created_at: pod.created_at, spec: pod.spec.clone() })
    }

    /// Fine while the pod is there and has not been stopped. Cheap.
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
        // By somebody else, perhaps.
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

    /// Of the pod's cgroup.
    pub(crate) fn pod_stats(&self, id: &str) -> Result<Stats> {
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
