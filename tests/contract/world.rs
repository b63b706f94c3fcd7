//! A sandbox behind a real socket, with containers that need no root: their processes are `sleep`s of this test, and
//! their cgroup is a list of pids.

use containerd_shim_protos::api::*;
use protobuf::well_known_types::any::Any;
use shoal::cgroup::stats::{Stats, V2};
use shoal::cgroup::{self, oom, Cgroup, Entry};
use shoal::error::{Error, Kind, Result};
use shoal::launch::{ExitStatus, Launched, Launcher, Order, Waiting};
use shoal::plan::{Host, Plan, Step};
use shoal::sandbox::{Config, Event, PodSettings, Sandbox};
use shoal::service::router::{self, Router};
use shoal::service::server::{Admission, Server, Stopper};
use shoal::spec::resources::Resources;
use shoal::sys::board::Board;
use shoal::sys::{socket, wait};
use shoal::tasks::{self, Answer};
use std::os::fd::AsFd;
use std::os::unix::net::UnixListener;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant, SystemTime};
use testbed::wire::Wire;

/// The state that the fakes of a world share.
#[derive(Default)]
pub struct Stage {
    pids: Mutex<Vec<u32>>,
    pub events: Mutex<Vec<Event>>,
    /// Makes the next process die at its gate instead of running: the execve fails with this errno.
    pub refuse: Mutex<Option<i32>>,
    /// Holds launches while it is set.
    pub hold: AtomicBool,
    /// A launch is held.
    pub held: AtomicBool,
    /// Keeps a freeze, or an update, at work while it is set.
    pub stuck: AtomicBool,
    /// How many updates have begun.
    pub updates: AtomicU32,
    /// A freeze is at work.
    pub freezing: AtomicBool,
    pub frozen: AtomicBool,
    /// How often the cgroup was killed.
    pub kills: AtomicU32,
    /// Sets the operator's `ignore_binary_name`, for options that name a program as the runtime.
    pub ignore_binary_name: AtomicBool,
    /// The watch of the next container.
    pub oom: Mutex<Option<oom::Watch>>,
    /// The cgroup cannot be killed.
    pub immortal: AtomicBool,
    /// How often the cgroup was removed.
    pub removals: AtomicU32,
    /// The cgroup cannot be removed.
    pub busy: AtomicBool,
    /// Delays each exit on its way to the sandbox.
    pub late: Mutex<Duration>,
    /// Makes the next launch, freeze or removal panic.
    pub panic: AtomicBool,
    /// Keeps the server running after its end.
    pub stays: AtomicBool,
    /// Makes the held launch fail.
    pub fail: AtomicBool,
}

impl Stage {
    fn perhaps_panic(&self) {
        assert!(!self.panic.swap(false, Ordering::SeqCst), "a panic on purpose");
    }

    pub fn pids(&self) -> Vec<u32> {
        self.pids.lock().unwrap().clone()
    }
}

struct FakeLauncher(Arc<Stage>);

impl Launcher for FakeLauncher {
    fn launch<'a>(&'a self, order: Order<'a>) -> Answer<'a, Result<Launched<'a>>> {
        Box::pin(async { self.make(order).map(Launched::Waiting) })
    }
}

impl FakeLauncher {
    fn make(&self, order: Order<'_>) -> Result<Waiting> {
        self.0.perhaps_panic();
        while self.0.hold.load(Ordering::SeqCst) {
            self.0.held.store(true, Ordering::SeqCst);
            std::thread::sleep(Duration::from_millis(1));
        }
        if self.0.fail.swap(false, Ordering::SeqCst) {
            return Err(Error::new(Kind::System, "a failure on purpose"));
        }
        let mut child = Command::new("sleep").arg("1000").stdin(Stdio::null()).spawn().unwrap();
        let pid = child.id();
        let pidfd = wait::open_pidfd(pid).unwrap();
        let (ours, theirs) = socket::pair().unwrap();
        let board = Arc::new(Board::new().unwrap());
        let told = board.clone();
        self.0.pids.lock().unwrap().push(pid);
        let killer = pidfd.try_clone().unwrap();
        let stage = self.0.clone();
        std::thread::spawn(move || {
            let mut byte = [0];
            let go = matches!(socket::receive(theirs.as_fd(), &mut byte), Ok((1, _)));
            let refuse = stage.refuse.lock().unwrap().take();
            if let (true, Some(errno)) = (go, refuse) {
                told.fail(3, errno);
                let _ = wait::signal(killer.as_fd(), libc::SIGKILL);
            } else if !go {
                let _ = wait::signal(killer.as_fd(), libc::SIGKILL);
            }
        });
        let (stage, on_exit) = (self.0.clone(), order.on_exit);
        std::thread::spawn(move || {
            let status = child.wait().unwrap();
            stage.pids.lock().unwrap().retain(|&known| known != pid);
            std::thread::sleep(*stage.late.lock().unwrap());
            let code = status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or(0));
            on_exit(ExitStatus { code: code as u32, at: SystemTime::now() });
        });
        let mut waiting = Waiting::new(pid, pidfd, None, ours).with_board(board);
        // Stands for a listener; its other end is closed.
        waiting.listener = listens(order.plan).then(|| std::io::pipe().unwrap().0.into());
        Ok(waiting)
    }
}

fn listens(plan: &Plan) -> bool {
    let one =
        |step: &Step| matches!(step, Step::Seccomp(filter) | Step::SeccompEarly(filter) if filter.listens());
    plan.steps.iter().any(|(step, _)| one(step))
}

struct FakeCgroup(Arc<Stage>);

impl FakeCgroup {
    async fn unless_stuck(&self) -> Result<()> {
        while self.0.stuck.load(Ordering::SeqCst) {
            tasks::sleep(Duration::from_millis(1)).await?;
        }
        Ok(())
    }
}

impl Cgroup for FakeCgroup {
    fn entry(&self, _beside: Option<u32>) -> Result<Entry> {
        Ok(Entry::default())
    }
    fn directories(&self) -> Vec<(PathBuf, PathBuf)> {
        vec![("/sys/fs/cgroup".into(), "/fake".into())]
    }
    fn pids(&self) -> Result<Vec<u32>> {
        Ok(self.0.pids.lock().unwrap().clone())
    }
    fn update<'a>(&'a self, _resources: &'a Resources) -> Answer<'a, Result<()>> {
        Box::pin(async {
            self.0.updates.fetch_add(1, Ordering::SeqCst);
            self.unless_stuck().await
        })
    }
    fn halves(&self) -> Result<cgroup::Halves> {
        Ok(cgroup::Halves::default())
    }
    fn freeze(&self) -> Answer<'_, Result<()>> {
        Box::pin(async {
            self.0.perhaps_panic();
            self.0.freezing.store(true, Ordering::SeqCst);
            self.unless_stuck().await?;
            self.0.frozen.store(true, Ordering::SeqCst);
            Ok(())
        })
    }
    fn thaw(&self) -> Result<()> {
        self.0.frozen.store(false, Ordering::SeqCst);
        Ok(())
    }
    fn frozen(&self) -> Result<bool> {
        Ok(self.0.frozen.load(Ordering::SeqCst))
    }
    fn thaw_to_die(&self, _who: cgroup::Dying) -> Result<()> {
        Ok(())
    }
    fn kill(&self) -> Result<()> {
        self.0.kills.fetch_add(1, Ordering::SeqCst);
        if self.0.immortal.load(Ordering::SeqCst) {
            return Err(Error::new(Kind::System, "the cgroup cannot be killed"));
        }
        for &pid in &*self.0.pids.lock().unwrap() {
            if let Ok(pidfd) = wait::open_pidfd(pid) {
                let _ = wait::signal(pidfd.as_fd(), libc::SIGKILL);
            }
        }
        Ok(())
    }
    fn stats(&self) -> Result<Stats> {
        Ok(Stats::V2(Box::<V2>::default()))
    }
    fn watch_oom(&self) -> Result<Option<oom::Watch>> {
        Ok(self.0.oom.lock().unwrap().take())
    }
    fn remove(&self) -> Answer<'_, Result<()>> {
        Box::pin(async {
            self.0.perhaps_panic();
            self.0.removals.fetch_add(1, Ordering::SeqCst);
            if self.0.busy.load(Ordering::SeqCst) {
                Err(Error::new(Kind::System, "the cgroup cannot be removed"))
            } else {
                Ok(())
            }
        })
    }
    fn record(&self) -> cgroup::Record {
        cgroup::Record { v2: true, members: vec![], unit: None, made: Vec::new() }
    }
}

/// The id of the shim, and thus of its pod.
pub const POD: &str = "pod1";

pub struct World {
    folder: tempfile::TempDir,
    pub stage: Arc<Stage>,
    pub wire: Wire,
    stopper: Stopper,
    thread: Option<std::thread::JoinHandle<()>>,
    pub ended: Arc<AtomicBool>,
}

const CONFIG: &str = r#"{
    "ociVersion": "1.0.2",
    "root": { "path": "rootfs" },
    "process": { "cwd": "/", "args": ["sh"], "env": ["PATH=/bin"], "user": { "uid": 0, "gid": 0 } },
    "linux": { "namespaces": [{ "type": "mount" }, { "type": "pid" }] }
}"#;
pub const PROCESS: &str = r#"{ "cwd": "/", "args": ["sh"], "user": { "uid": 0, "gid": 0 } }"#;

impl World {
    pub fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let stage = Arc::new(Stage::default());
        let (makes, pods, hears, says) = (stage.clone(), stage.clone(), stage.clone(), stage.clone());
        let sandbox = Sandbox::new(Config {
            namespace: "ns1".into(),
            host: Host {
                resctrl: Some(folder.path().join("resctrl")),
                ..Host::probe(Path::new("/")).unwrap()
            },
            launcher: Box::new(FakeLauncher(stage.clone())),
            cgroups: Box::new(move |_| {
                let made = Box::new(FakeCgroup(makes.clone())) as Box<dyn Cgroup>;
                Box::pin(async { Ok(made) })
            }),
            pod_cgroup: Box::new(move |_| Ok(Box::new(FakeCgroup(pods.clone())) as Box<dyn Cgroup>)),
            paths: Default::default(),
            pod_settings: Box::new(move || {
                let ignore_binary_name = says.ignore_binary_name.load(Ordering::SeqCst);
                Ok(PodSettings { ignore_binary_name, ..PodSettings::default() })
            }),
            events: Box::new(move |event| hears.events.lock().unwrap().push(event)),
        });
        let stopper = Stopper::new().unwrap();
        let ended = Arc::new(AtomicBool::new(false));
        let (stop, end, last) = (stopper.clone(), ended.clone(), stage.clone());
        let router = Router::new(router::Config {
            sandbox: Arc::new(sandbox.unwrap()),
            id: POD.into(),
            namespace: "ns1".into(),
            bundle: folder.path().join("pod"),
            address: folder.path().join("c.sock").to_str().unwrap().into(),
            end: Arc::new(move || {
                end.store(true, Ordering::SeqCst);
                if !last.stays.load(Ordering::SeqCst) {
                    stop.stop();
                }
            }),
        });
        let handler = Box::new(move |request, reply| router.route(request, reply));
        let path = folder.path().join("s");
        let listener = UnixListener::bind(&path).unwrap();
        let server = Arc::new(Server::new(listener, Admission::ours(), stopper.clone(), handler).unwrap());
        let thread = Some(std::thread::spawn(move || server.serve()));
        let wire = Wire::connect(&path);
        World { folder, stage, wire, stopper, thread, ended }
    }

    pub fn connect(&self) -> Wire {
        Wire::connect(&self.folder.path().join("s"))
    }

    /// Returns the directory that the shim was launched in.
    pub fn pod_bundle(&self) -> PathBuf {
        let bundle = self.folder.path().join("pod");
        std::fs::create_dir_all(&bundle).unwrap();
        bundle
    }

    /// Returns a create of a container of the pod, marked as containerd does.
    pub fn member(&self, id: &str) -> CreateTaskRequest {
        let request = self.create_request(id);
        std::fs::write(self.bundle(id).join("sandbox"), POD).unwrap();
        request
    }

    pub fn has_ended(&self) -> bool {
        self.ended.load(Ordering::SeqCst)
    }

    /// Returns where the host has resctrl.
    pub fn resctrl(&self) -> PathBuf {
        self.folder.path().join("resctrl")
    }

    /// Returns where containerd's gRPC socket would be.
    pub fn grpc(&self) -> PathBuf {
        self.folder.path().join("c.sock")
    }

    pub fn bundle(&self, id: &str) -> PathBuf {
        let bundle = self.folder.path().join(format!("bundle-{id}"));
        std::fs::create_dir_all(bundle.join("rootfs")).unwrap();
        std::fs::write(bundle.join("config.json"), CONFIG).unwrap();
        bundle
    }

    pub fn create_request(&self, id: &str) -> CreateTaskRequest {
        let bundle = self.bundle(id).to_str().unwrap().to_owned();
        CreateTaskRequest { id: id.into(), bundle, ..Default::default() }
    }

    /// Creates a container, with one part of its config replaced.
    pub fn create_with(&mut self, id: &str, text: &str, by: &str) -> CreateTaskRequest {
        let request = self.create_request(id);
        let config = Path::new(&request.bundle).join("config.json");
        assert!(CONFIG.contains(text));
        std::fs::write(config, CONFIG.replacen(text, by, 1)).unwrap();
        self.wire.task::<CreateTaskResponse>("Create", &request).unwrap();
        request
    }

    pub fn create(&mut self, id: &str) -> u32 {
        let request = self.create_request(id);
        self.wire.task::<CreateTaskResponse>("Create", &request).unwrap().pid
    }

    pub fn start(&mut self, id: &str, exec: &str) -> u32 {
        let request = StartRequest { id: id.into(), exec_id: exec.into(), ..Default::default() };
        self.wire.task::<StartResponse>("Start", &request).unwrap().pid
    }

    pub fn add(&mut self, id: &str, exec: &str) {
        self.wire.task::<Empty>("Exec", &exec_request(id, exec)).unwrap();
    }

    /// Kills the process and waits until it has ended.
    pub fn end(&mut self, id: &str, exec: &str) -> WaitResponse {
        self.wire.task::<Empty>("Kill", &kill_request(id, exec, libc::SIGKILL, false)).unwrap();
        self.wait(id, exec)
    }

    pub fn wait(&mut self, id: &str, exec: &str) -> WaitResponse {
        let request = WaitRequest { id: id.into(), exec_id: exec.into(), ..Default::default() };
        self.wire.task("Wait", &request).unwrap()
    }

    pub fn delete(&mut self, id: &str, exec: &str) -> DeleteResponse {
        let request = DeleteRequest { id: id.into(), exec_id: exec.into(), ..Default::default() };
        self.wire.task("Delete", &request).unwrap()
    }

    pub fn pause(&mut self, id: &str) {
        self.wire.task::<Empty>("Pause", &PauseRequest { id: id.into(), ..Default::default() }).unwrap();
    }

    /// Waits until the condition holds for the fakes.
    pub fn until(&self, what: impl Fn(&Stage) -> bool) {
        let end = Instant::now() + Duration::from_secs(10);
        while !what(&self.stage) {
            assert!(Instant::now() < end, "it does not come");
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    /// Returns the events so far as words, once there are `count` of them.
    pub fn events(&self, count: usize) -> Vec<String> {
        let end = Instant::now() + Duration::from_secs(10);
        loop {
            let events = self.stage.events.lock().unwrap();
            if events.len() >= count || Instant::now() > end {
                return events.iter().map(word).collect();
            }
            drop(events);
            std::thread::sleep(Duration::from_millis(2));
        }
    }
}

fn word(event: &Event) -> String {
    match event {
        Event::Create { container, .. } => format!("create {container}"),
        Event::Start { container, .. } => format!("start {container}"),
        Event::ExecAdded { container, exec } => format!("exec-added {container} {exec}"),
        Event::ExecStarted { container, exec, .. } => format!("exec-started {container} {exec}"),
        Event::Exit { container, id, exit, .. } => format!("exit {container} {id} {}", exit.code),
        Event::Delete { container, exit, .. } => format!("delete {container} {}", exit.code),
        Event::Paused { container } => format!("paused {container}"),
        Event::Resumed { container } => format!("resumed {container}"),
        Event::Oom { container } => format!("oom {container}"),
    }
}

impl Drop for World {
    fn drop(&mut self) {
        self.stage.immortal.store(false, Ordering::SeqCst);
        let _ = FakeCgroup(self.stage.clone()).kill();
        self.stopper.stop();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

pub fn exec_request(id: &str, exec: &str) -> ExecProcessRequest {
    let url = "types.containerd.io/opencontainers/runtime-spec/1/Process";
    let spec = Any { type_url: url.into(), value: PROCESS.into(), ..Default::default() };
    ExecProcessRequest { id: id.into(), exec_id: exec.into(), spec: Some(spec).into(), ..Default::default() }
}

pub fn kill_request(id: &str, exec: &str, signal: i32, all: bool) -> KillRequest {
    KillRequest { id: id.into(), exec_id: exec.into(), signal: signal as u32, all, ..Default::default() }
}

pub fn update_request(id: &str) -> UpdateTaskRequest {
    let url = "types.containerd.io/opencontainers/runtime-spec/1/LinuxResources";
    let resources =
        Any { type_url: url.into(), value: b"{\"pids\":{\"limit\":9}}".to_vec(), ..Default::default() };
    UpdateTaskRequest { id: id.into(), resources: Some(resources).into(), ..Default::default() }
}
