//! A sandbox with the real launcher and the host's cgroups, and bundles as containerd makes them.

use serde_json::{json, Value};
use shoal::cgroup::{self, Cgroup, CgroupsPath, Layout, Parent};
use shoal::error::Result;
use shoal::launch::{CloneLauncher, ExitStatus, Reaper, Strangers};
use shoal::plan::Host;
use shoal::sandbox::{
    CgroupOrder, Config, Create, Event, Options, PodConfig, PodCreate, PodPlace, PodSettings, ProcessKey,
    Sandbox,
};
use shoal::spec::Ns;
use shoal::tasks::block_on;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc::{channel, Receiver};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

pub const PATIENCE: Duration = Duration::from_secs(60);

/// Scales a limit for what must be quick: `SHOAL_TEST_SLOW` multiplies it on an emulated machine.
pub fn limit(time: Duration) -> Duration {
    time * std::env::var("SHOAL_TEST_SLOW").ok().and_then(|factor| factor.parse().ok()).unwrap_or(1)
}

/// Lets one test run at a time: threads and descriptors are counted, and they belong to the process.
static ALONE: Mutex<()> = Mutex::new(());

pub struct World {
    pub dir: tempfile::TempDir,
    pub sandbox: Arc<Sandbox>,
    pub events: Arc<Mutex<Vec<Event>>>,
    pub namespace: String,
    before: Snapshot,
    _alone: MutexGuard<'static, ()>,
}

/// Returns a configuration with new namespaces, as CRI requests it.
pub fn config() -> PodConfig {
    PodConfig { net: Ns::New, ipc: Ns::New, uts: Ns::New, ..PodConfig::default() }
}

impl World {
    pub fn new() -> World {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
        let dir = tempfile::tempdir().unwrap();
        let namespace = format!("pods-{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        let events = Arc::new(Mutex::new(Vec::new()));
        let sandbox = Arc::new(sandbox(&namespace, Arc::clone(&events)));
        let before = Snapshot::take(dir.path(), &namespace);
        World { dir, sandbox, events, namespace, before, _alone: alone }
    }

    pub fn bundle(&self, id: &str) -> PathBuf {
        self.dir.path().join(id)
    }

    pub fn create(&self, config: PodConfig) -> Result<()> {
        self.create_with(PodCreate { config: Some(config), ..self.request() })
    }

    pub fn create_in(&self, netns: &Path, config: PodConfig) -> Result<()> {
        self.create_with(PodCreate { config: Some(config), netns: Some(netns.into()), ..self.request() })
    }

    pub fn create_with(&self, request: PodCreate) -> Result<()> {
        block_on(self.sandbox.create_pod(request))
    }

    /// Returns the request for `p1`, from the bundle's config.json.
    pub fn request(&self) -> PodCreate {
        let bundle = self.bundle("p1");
        std::fs::create_dir_all(bundle.join("rootfs")).unwrap();
        PodCreate { id: "p1".into(), bundle, ..PodCreate::default() }
    }

    pub fn stop(&self) {
        block_on(self.sandbox.stop_pod("p1", PATIENCE)).unwrap();
    }

    /// Shuts the pod down, and checks that nothing is left.
    pub fn shut_down(self) {
        block_on(self.sandbox.shutdown_pod("p1", PATIENCE)).unwrap();
        assert_eq!(self.sandbox.pod_id(), None);
        self.nothing_is_left();
    }

    pub fn nothing_is_left(&self) {
        let mut now = self.left();
        eventually(|| {
            now = self.left();
            now == self.before
        });
        assert_eq!(now, self.before);
    }

    fn left(&self) -> Snapshot {
        Snapshot::take(self.dir.path(), &self.namespace)
    }

    pub fn exit_of_pod(&self) -> Receiver<ExitStatus> {
        let (tell, told) = channel();
        // The test may not wait for it any more.
        let waiter = move |status| tell.send(status).unwrap_or_default();
        // Registered for as long as the test runs.
        std::mem::forget(self.sandbox.on_pod_exit("p1", Box::new(waiter)).unwrap());
        told
    }

    /// Writes a member's bundle as CRI does; the namespaces of `kinds` are the pod's.
    pub fn member(&self, id: &str, args: &[&str], kinds: &[&str]) -> PathBuf {
        let annotations =
            json!({ "io.kubernetes.cri.container-type": "container", "io.kubernetes.cri.sandbox-id": "p1" });
        let pid = self.sandbox.pod_status("p1").map_or(0, |status| status.pid);
        let path = |kind: &str| json!({ "type": word(kind), "path": format!("/proc/{pid}/ns/{kind}") });
        let mut namespaces: Vec<Value> = kinds.iter().map(|kind| path(kind)).collect();
        namespaces.push(json!({ "type": "mount" }));
        if !kinds.contains(&"pid") {
            namespaces.push(json!({ "type": "pid" }));
        }
        self.bundle_of(id, args, namespaces, annotations)
    }

    pub fn bundle_of(&self, id: &str, args: &[&str], namespaces: Vec<Value>, annotations: Value) -> PathBuf {
        let bundle = self.bundle(id);
        let root = bundle.join("rootfs");
        for name in ["proc", "dev", "sys", "tmp", "etc"] {
            std::fs::create_dir_all(root.join(name)).unwrap();
        }
        let probe = env!("CARGO_BIN_EXE_probe");
        // A copy onto the link of a bundle written before would empty the program.
        let _ = std::fs::remove_file(root.join("probe"));
        std::fs::hard_link(probe, root.join("probe"))
            .or_else(|_| std::fs::copy(probe, root.join("probe")).map(drop))
            .unwrap();
        self.configure(id, |config| {
            *config = json!({
                "ociVersion": "1.1.0",
                "root": { "path": "rootfs" },
                "process": { "cwd": "/", "args": args, "env": ["PATH=/"], "user": { "uid": 0, "gid": 0 } },
                "mounts": [
                    { "destination": "/proc", "type": "proc", "source": "proc" },
                    { "destination": "/dev", "type": "tmpfs", "source": "tmpfs" },
                    { "destination": "/dev/shm", "type": "tmpfs", "source": "shm", "options": ["mode=1777"] },
                ],
                "linux": { "namespaces": namespaces },
                "annotations": annotations,
            });
        });
        bundle
    }

    pub fn configure(&self, id: &str, change: impl FnOnce(&mut Value)) {
        let path = self.bundle(id).join("config.json");
        let mut config =
            std::fs::read(&path).map_or(Value::Null, |text| serde_json::from_slice(&text).unwrap());
        change(&mut config);
        std::fs::write(path, config.to_string()).unwrap();
    }

    pub fn create_member(&self, id: &str) -> Result<u32> {
        let stdio = shoal::stdio::Stdio {
            stdout: format!("file://{}", self.bundle(id).join("out").display()),
            ..Default::default()
        };
        let create = Create { id: id.into(), bundle: self.bundle(id), stdio, ..Create::default() };
        block_on(self.sandbox.create(create, |_| std::future::ready(Ok(Options::default()))))
    }

    pub fn run(&self, id: &str) {
        self.create_member(id).unwrap();
        block_on(self.sandbox.start(&ProcessKey::init(id), None)).unwrap();
    }

    pub fn wait(&self, id: &str) -> ExitStatus {
        let (tell, told) = channel();
        let _waits = self
            .sandbox
            .on_exit(&ProcessKey::init(id), Box::new(move |status| tell.send(status).unwrap_or_default()))
            .unwrap();
        told.recv_timeout(PATIENCE).unwrap_or_else(|e| panic!("{id} has not ended: {e}"))
    }

    /// Waits for the container's end, and returns what its program reported.
    pub fn report(&self, id: &str) -> Value {
        assert_eq!(self.wait(id).code, 0);
        block_on(self.sandbox.delete(&ProcessKey::init(id))).unwrap();
        let text = std::fs::read_to_string(self.bundle(id).join("out")).unwrap();
        serde_json::from_str(&text).unwrap_or_else(|e| panic!("{e}: {text}"))
    }

    pub fn pid(&self, id: &str) -> u32 {
        self.sandbox.state(&ProcessKey::init(id)).unwrap().pid
    }
}

/// Leaves no processes and mounts to other tests if this one has failed.
impl Drop for World {
    fn drop(&mut self) {
        let _ = block_on(self.sandbox.shutdown_pod("p1", Duration::from_secs(5)));
    }
}

fn word(kind: &str) -> &str {
    if kind == "net" {
        "network"
    } else {
        kind
    }
}

fn sandbox(namespace: &str, events: Arc<Mutex<Vec<Event>>>) -> Sandbox {
    let host = cgroup::Host::default();
    let layout = Layout::probe(&host.proc).unwrap();
    let (pods_host, pods_layout, ours) = (host.clone(), layout.clone(), namespace.to_owned());
    Sandbox::new(Config {
        namespace: namespace.into(),
        host: Host::probe(Path::new("/")).unwrap(),
        launcher: Box::new(CloneLauncher::new(Reaper::start(Strangers::Leave).unwrap()).unwrap()),
        cgroups: Box::new(move |CgroupOrder { path, limits, annotations, options, id, asked }| {
            let path = path.map_or_else(|| format!("/{ours}/{id}"), str::to_owned);
            let (host, layout) = (host.clone(), layout.clone());
            Box::pin(async move {
                let path = CgroupsPath::parse(&path, options.systemd_cgroup, id)?;
                cgroup::create(&host, &layout, &path, limits, annotations, asked).await
            })
        }),
        pod_cgroup: Box::new(move |place| {
            Ok(Box::new(match place {
                PodPlace::Client(text) => Parent::of_client(&pods_host, &pods_layout, text)?,
                PodPlace::Own(below) => Parent::own(&pods_host, &pods_layout, below),
            }) as Box<dyn Cgroup>)
        }),
        paths: Default::default(),
        pod_settings: Box::new(|| Ok(PodSettings::default())),
        events: Box::new(move |event| events.lock().unwrap().push(event)),
    })
    .unwrap()
}

/// What must be unchanged: descriptors, mounts and files of the bundles, processes and cgroups.
#[derive(Debug, PartialEq)]
struct Snapshot {
    descriptors: usize,
    threads: usize,
    mounts: Vec<String>,
    cgroups: Vec<PathBuf>,
    files: Vec<PathBuf>,
}

impl Snapshot {
    fn take(dir: &Path, namespace: &str) -> Snapshot {
        let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
        let mounts = mounts.lines().filter(|line| line.contains(&*dir.to_string_lossy()));
        let found = Command::new("find")
            .args(["/sys/fs/cgroup", "-type", "d", "-path", &format!("*/{namespace}/*")])
            .output()
            .unwrap();
        let cgroups = String::from_utf8_lossy(&found.stdout).lines().map(PathBuf::from).collect();
        let pod = std::fs::read_dir(dir.join("p1")).into_iter().flatten().flatten();
        let mut files: Vec<PathBuf> = pod.map(|entry| entry.path()).collect();
        files.retain(|path| !["rootfs", "config.json"].iter().any(|name| path.ends_with(name)));
        Snapshot {
            descriptors: std::fs::read_dir("/proc/self/fd").unwrap().count(),
            threads: threads(),
            mounts: mounts.map(str::to_owned).collect(),
            cgroups,
            files,
        }
    }
}

/// Counts the threads that hold a pod's namespaces.
pub fn threads() -> usize {
    let tasks = std::fs::read_dir("/proc/self/task").unwrap().flatten();
    tasks
        .filter(|task| std::fs::read_to_string(task.path().join("comm")).is_ok_and(|name| name == "pod\n"))
        .count()
}

pub fn eventually(mut is: impl FnMut() -> bool) -> bool {
    let end = Instant::now() + PATIENCE;
    while Instant::now() < end {
        if is() {
            return true;
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    is()
}

pub fn namespace(pid: u32, kind: &str) -> String {
    let link = std::fs::read_link(format!("/proc/{pid}/ns/{kind}")).unwrap();
    link.to_string_lossy().into_owned()
}

pub fn host(kind: &str) -> String {
    namespace(std::process::id(), kind)
}

/// Returns whether any thread is in the namespace of this link.
pub fn anybody_in(link: &str) -> bool {
    let kind = link.split(':').next().unwrap();
    let processes = std::fs::read_dir("/proc").unwrap().flatten();
    processes.flat_map(|p| std::fs::read_dir(p.path().join("task")).into_iter().flatten().flatten()).any(
        |task| {
            std::fs::read_link(task.path().join("ns").join(kind)).is_ok_and(|found| found == Path::new(link))
        },
    )
}

/// A network namespace bound to a file, as CNI's callers make it.
pub struct Netns {
    name: String,
    pub path: PathBuf,
}

impl Netns {
    pub fn new() -> Netns {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let name = format!("pods-{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        assert!(Command::new("ip").args(["netns", "add", &name]).status().unwrap().success());
        let path = Path::new("/run/netns").join(&name);
        Netns { name, path }
    }

    pub fn link(&self) -> String {
        use std::os::unix::fs::MetadataExt;
        format!("net:[{}]", std::fs::metadata(&self.path).unwrap().ino())
    }
}

impl Drop for Netns {
    fn drop(&mut self) {
        let _ = Command::new("ip").args(["netns", "delete", &self.name]).status();
    }
}
