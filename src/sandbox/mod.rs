//! The domain: a sandbox, its containers, their processes, and their life cycles.
//!
//! `service` translates requests to these calls and [`Event`]s to containerd's; nothing here knows protobuf.
//! Lock order: `Sandbox::containers` (look-up only) → one container's state → the reaper's table (clone and
//! insert only). The watch thread takes one state at a time.

mod container;
mod dump;
mod left;
mod pod;
pub(crate) mod record;
mod request;
mod undo;
mod watch;
mod world;

pub(crate) use container::poststop_of;
pub(crate) use left::Left;
pub(crate) use pod::member_records;
pub use pod::{Dns, PodConfig, PodCreate, PodPid, PodState, PodStatus};
pub(crate) use request::ProcessState;
pub use request::{Checkpoint, Connected, Create, Deleted, Event, Options, ProcessKey, Status};
use world::World;
pub use world::{CgroupOrder, Config, PodPlace, PodSettings};

use crate::cgroup::stats::Stats;
use crate::error::{Context, Error, Kind, Result};
use crate::launch::{ExitStatus, Leash};
use crate::paths::Paths;
use crate::spec::{self, resources::Resources};
use crate::stdio::Stdio;
use crate::sync::{Mutex, MutexGuard};
use crate::tasks::{News, Then};
use container::{Container, Records};
use pod::Pod;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How long an aborted create may take to finish after its process was killed.
const UNBORN: Duration = Duration::from_secs(10);

/// The exit of a process or of a pod.
type Exit = News<ExitStatus>;
/// Keeps a waiter registered until it is dropped.
pub type Waits = Option<Then<ExitStatus>>;

/// The sandbox of one shim, with its containers. All methods may be called from any thread.
pub struct Sandbox {
    world: Arc<World>,
    containers: Mutex<Containers>,
}

#[derive(Default)]
struct Containers {
    /// By container id.
    known: BTreeMap<String, Known>,
    pod: PodSlot,
    /// The shim has decided to exit.
    closed: bool,
}

/// A create in progress.
#[derive(Clone)]
struct Making {
    leash: Leash,
    /// Set once the create has finished, whatever its outcome.
    over: News<()>,
}

impl Making {
    fn new(leash: &Leash) -> Self {
        Making { leash: leash.clone(), over: News::default() }
    }

    /// Kills the process being launched and returns the notification that the create has finished.
    fn end(self) -> News<()> {
        self.leash.kill();
        self.over
    }
}

enum Known {
    /// The id is taken by a create in progress.
    Making(Making),
    Here(Arc<Container>),
}

impl Known {
    fn here(&self) -> Option<&Arc<Container>> {
        match self {
            Known::Making(_) => None,
            Known::Here(container) => Some(container),
        }
    }

    fn making(&self) -> Option<Making> {
        match self {
            Known::Making(making) => Some(making.clone()),
            Known::Here(_) => None,
        }
    }
}

/// The pod of this shim, if it has one.
#[derive(Default)]
enum PodSlot {
    #[default]
    None,
    /// A pod with this id is being created.
    Taken(String, Making),
    Here(Arc<Pod>),
}

/// Frees the pod slot if the create ends without a pod, by an error or by a panic.
struct PodCreateGuard<'a>(&'a Sandbox, News<()>);

impl PodCreateGuard<'_> {
    fn fill(self, pod: Arc<Pod>) {
        self.0.lock().pod = PodSlot::Here(pod);
    }
}

impl Drop for PodCreateGuard<'_> {
    fn drop(&mut self) {
        let mut containers = self.0.lock();
        if matches!(containers.pod, PodSlot::Taken(..)) {
            containers.pod = PodSlot::None;
        }
        drop(containers);
        self.1.set(());
    }
}

/// Frees the container id if the create ends without a container, by an error or by a panic.
struct CreateGuard<'a> {
    sandbox: &'a Sandbox,
    id: &'a str,
    over: News<()>,
}

impl Drop for CreateGuard<'_> {
    fn drop(&mut self) {
        let mut containers = self.sandbox.lock();
        if let Some(Known::Making(_)) = containers.known.get(self.id) {
            containers.known.remove(self.id);
        }
        drop(containers);
        self.over.set(());
    }
}

impl Sandbox {
    pub fn new(config: Config) -> Result<Self> {
        Ok(Sandbox { world: Arc::new(World::new(config)?), containers: Mutex::default() })
    }

    fn lock(&self) -> MutexGuard<'_, Containers> {
        self.containers.lock()
    }

    fn container(&self, id: &str) -> Result<Arc<Container>> {
        let containers = self.lock();
        match containers.known.get(id) {
            Some(Known::Here(container)) => Ok(Arc::clone(container)),
            _ => Err(Error::new(Kind::NotFound, format!("container {id} not created"))),
        }
    }

    fn all(&self) -> Vec<Arc<Container>> {
        self.lock().known.values().filter_map(Known::here).cloned().collect()
    }

    fn creates_are_at_work(&self) -> bool {
        self.lock().known.values().any(|known| known.here().is_none())
    }

    /// Aborts every create in progress; returns a notification for each that sets once it has finished.
    fn end_creates(&self) -> Vec<News<()>> {
        let making: Vec<Making> = self.lock().known.values().filter_map(Known::making).collect();
        making.into_iter().map(Making::end).collect()
    }

    /// The create in progress for this id, if any.
    fn making(&self, id: &str) -> Option<Making> {
        self.lock().known.get(id).and_then(Known::making)
    }

    pub fn namespace(&self) -> &str {
        &self.world.namespace
    }

    pub(crate) fn paths(&self) -> &Paths {
        &self.world.paths
    }

    /// Reads the operator's current settings.
    pub(crate) fn settings(&self) -> Result<PodSettings> {
        self.world.settings()
    }

    fn forget(&self, id: &str) {
        let known = self.lock().known.remove(id);
        if let Some(Known::Here(container)) = known {
            self.world.watch.forget(&container);
        }
    }

    fn pod(&self) -> Option<Arc<Pod>> {
        match &self.lock().pod {
            PodSlot::Here(pod) => Some(Arc::clone(pod)),
            _ => None,
        }
    }

    /// Aborts a pod create in progress, whose caller no longer waits; returns the notification that it has finished.
    fn end_pod_create(&self) -> Option<News<()>> {
        let making = match &self.lock().pod {
            PodSlot::Taken(_, making) => making.clone(),
            _ => return None,
        };
        Some(making.end())
    }

    fn take_pod(&self, id: &str, leash: &Leash) -> Result<PodCreateGuard<'_>> {
        let mut containers = self.lock();
        if containers.closed {
            return Err(Error::new(Kind::Unavailable, format!("create sandbox {id}: the shim is ending")));
        }
        let exists = |what: &str| Err(Error::new(Kind::Exists, format!("create sandbox {id}: {what}")));
        match &containers.pod {
            PodSlot::None if containers.known.is_empty() => {}
            PodSlot::None => return exists("this shim has containers without a sandbox"),
            PodSlot::Taken(taken, _) => return exists(&format!("sandbox {taken} is being created")),
            PodSlot::Here(pod) => return exists(&format!("sandbox {} exists", pod.id)),
        }
        let making = Making::new(leash);
        let over = making.over.clone();
        containers.pod = PodSlot::Taken(id.to_owned(), making);
        Ok(PodCreateGuard(self, over))
    }

    /// From now on every create fails.
    fn forget_pod(&self) {
        let mut containers = self.lock();
        containers.pod = PodSlot::None;
        containers.closed = true;
    }

    /// Makes a container whose process waits at its gate; returns its pid.
    /// Its options are read once its id is taken, and by the time that the launch has.
    pub async fn create<F: Future<Output = Result<Options>>>(
        &self,
        mut request: Create,
        options: impl FnOnce(Instant) -> F,
    ) -> Result<u32> {
        let id = request.id.clone();
        let leash = self.world.leash(request.deadline);
        let making = Making::new(&leash);
        {
            let mut containers = self.lock();
            if containers.closed {
                return Err(Error::new(Kind::Unavailable, format!("create {id}: the shim is ending")));
            }
            let pods = matches!(&containers.pod, PodSlot::Here(pod) if pod.id == id);
            if let PodSlot::Taken(pod, _) = &containers.pod {
                let what = format!("create {id}: sandbox {pod} is still being created");
                return Err(Error::new(Kind::State, what));
            }
            if pods || containers.known.contains_key(&id) {
                return Err(Error::new(Kind::Exists, format!("container {id} exists")));
            }
            containers.known.insert(id.clone(), Known::Making(making.clone()));
        }
        let _taken = CreateGuard { sandbox: self, id: &id, over: making.over };
        let options = leash.unless_killed(options(leash.deadline)).await;
        request.options = options.map_err(|e| match e.kind() {
            Kind::State => e.context(format!("create {id}")),
            _ => e,
        })?;
        let container = self.make(request, &leash).await.context(|| format!("create {id}"))?;
        let pid = container.pid();
        self.lock().known.insert(id.clone(), Known::Here(Arc::clone(&container)));
        leash.release();
        // A kill arrived after the launch was complete but before the container was registered: deliver it now.
        if leash.check().is_err() {
            let _ = container.kill(None, libc::SIGKILL as u32, false);
        }
        Ok(pid)
    }

    async fn make(&self, request: Create, leash: &Leash) -> Result<Arc<Container>> {
        let mut spec = container::read(&self.world, &request, leash).await?;
        let member = match self.pod() {
            Some(pod) => Some(pod::join(&pod, &self.world, &request, &mut spec, leash).await?),
            None => None,
        };
        let records = match &member {
            Some(member) => member.records(&request.bundle),
            None => Records::Bundle(request.bundle.clone()),
        };
        // What a member joins is held until it is opened.
        container::create(&self.world, request, spec, records, leash).await
    }

    /// The program runs by `deadline`, else within the operator's limit, or its process is gone.
    pub async fn start(&self, key: &ProcessKey, deadline: Option<Instant>) -> Result<u32> {
        let container = self.container(&key.container)?;
        let leash = self.world.leash(deadline);
        match &key.exec {
            None => container.start(&leash).await,
            Some(exec) => container.start_exec(exec, &leash).await,
        }
    }

    /// Registers an exec; nothing runs until `start`. `process` is the JSON of the OCI `Process`.
    pub fn exec(&self, key: &ProcessKey, process: &[u8], stdio: Stdio) -> Result<()> {
        let container = self.container(&key.container)?;
        let mut process =
            spec::Process::parse(process).context(|| format!("exec {} in {}", key.id(), key.container))?;
        // The request decides on the terminal, just as it does on the streams.
        process.terminal = stdio.terminal;
        container.add_exec(key.id(), process, stdio)
    }

    /// Signals a process; `all` signals every process of the container and is ignored for an exec.
    pub async fn kill(&self, key: &ProcessKey, signal: u32, all: bool) -> Result<()> {
        let kills = signal == libc::SIGKILL as u32;
        if let Some(Making { leash, .. }) = self.making(&key.container).filter(|_| key.exec.is_none()) {
            // Only SIGKILL is delivered: any other signal might reach a hook.
            container::number(signal)?;
            let sent = kills && leash.signal(libc::SIGKILL);
            // The create may have completed meanwhile: then the signal is for the container, unless already sent.
            match (self.container(&key.container), sent) {
                (Ok(_), false) => {}
                (Ok(container), true) => {
                    return match container.kill(None, signal, all) {
                        Err(e) if e.kind() == Kind::NotFound => Ok(()),
                        again => again,
                    };
                }
                (Err(_), true) => return Ok(()),
                (Err(_), false) => {
                    let what = format!("container {}: process not created", key.container);
                    return Err(Error::new(Kind::State, what));
                }
            }
        }
        let container = self.container(&key.container)?;
        container.kill(key.exec.as_deref(), signal, all)?;
        if kills && key.exec.is_none() {
            self.thaw_to_die(&container).await?;
        }
        Ok(())
    }

    pub async fn delete(&self, key: &ProcessKey) -> Result<Deleted> {
        if key.exec.is_none()
            && let Some(making) = self.making(&key.container)
        {
            // Abort the create; it leaves nothing behind.
            making.end().within(UNBORN).await.ok_or_else(|| {
                let what = format!("delete {}: it is still being created", key.container);
                Error::new(Kind::Deadline, what)
            })?;
            // The create may have completed just before.
            if self.container(&key.container).is_err() {
                return Ok(Deleted { pid: 0, exit: container::exit_of_never_ran() });
            }
        }
        let container = self.container(&key.container)?;
        if let Some(exec) = &key.exec {
            return container.delete_exec(exec).await;
        }
        // A process at its gate is killed now, and could not die in a paused pod.
        if container.is_created() {
            self.thaw_to_die(&container).await?;
        }
        let deleted = container.delete(self.world.launch_limit()).await?;
        self.forget(&key.container);
        Ok(deleted)
    }

    pub fn state(&self, key: &ProcessKey) -> Result<ProcessState> {
        self.container(&key.container)?.state(key.exec.as_deref())
    }

    /// Every pid of the container's cgroup, with the exec id if it is the first process of an exec.
    pub fn pids(&self, container: &str) -> Result<Vec<(u32, Option<String>)>> {
        self.container(container)?.pids()
    }

    pub async fn pause(&self, container: &str) -> Result<()> {
        self.container(container)?.pause().await
    }

    pub fn resume(&self, container: &str) -> Result<()> {
        self.container(container)?.resume()
    }

    /// `resources` is the JSON of the OCI `LinuxResources`.
    pub(crate) async fn update(
        &self,
        container: &str,
        resources: &[u8],
        deadline: Option<Instant>,
    ) -> Result<()> {
        let container = self.container(container)?;
        let resources = Resources::from_json(resources, "resources");
        container.update(&resources.context(|| format!("update {}", container.id))?, deadline).await
    }

    pub async fn checkpoint(
        &self,
        container: &str,
        request: &Checkpoint,
        deadline: Option<Instant>,
    ) -> Result<()> {
        let container = self.container(container)?;
        let leash = self.world.leash(deadline);
        container.checkpoint(request, &leash).await.context(|| format!("checkpoint {}", container.id))
    }

    /// Calls `waiter` when the process exits: immediately on this thread if it already has, otherwise on the watch
    /// thread, so it must not block. (A thread blocked per Task.Wait would account for most of the shim's memory.) The
    /// waiter stays registered until the returned value is dropped.
    pub fn on_exit(&self, key: &ProcessKey, waiter: Box<dyn FnOnce(ExitStatus) + Send>) -> Result<Waits> {
        Ok(self.container(&key.container)?.exit(key.exec.as_deref())?.then(waiter))
    }

    pub(crate) fn stats(&self, container: &str) -> Result<Stats> {
        self.container(container)?.stats()
    }

    pub(crate) fn resize(&self, key: &ProcessKey, columns: u16, rows: u16) -> Result<()> {
        self.container(&key.container)?.resize(key.exec.as_deref(), columns, rows)
    }

    pub(crate) fn close_stdin(&self, key: &ProcessKey) -> Result<()> {
        self.container(&key.container)?.close_stdin(key.exec.as_deref())
    }

    /// Never fails: containerd also asks about ids that this shim does not have.
    pub fn connect(&self, container: &str) -> Connected {
        let task_pid = match self.pod() {
            Some(pod) if pod.id == container => pod.pid(),
            _ => self.container(container).map_or(0, |c| c.pid()),
        };
        Connected { shim_pid: std::process::id(), task_pid }
    }

    /// Returns true if the shim has nothing left to serve and exits now; every later create fails. `service` remembers
    /// the request and calls this again after each delete.
    pub fn shutdown(&self) -> bool {
        let mut containers = self.lock();
        containers.closed |= containers.known.is_empty() && matches!(containers.pod, PodSlot::None);
        containers.closed
    }

    /// The shim has decided to exit.
    pub(crate) fn is_ending(&self) -> bool {
        self.lock().closed
    }

    /// Called before the shim exits: gives logging programs until `limit` to exit.
    pub(crate) fn finish(&self, limit: Duration) {
        self.world.streams.finish(limit);
    }
}
