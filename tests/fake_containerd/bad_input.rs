//! Input that is wrong, refused or lost: the error says so, and afterwards everything is as before.
//!
//! All containers of a test belong to one pod, whose shim goes on: anything that a failure leaves in it would show.

use crate::{create, create_request, delete, kill, shut_down, start, wait};
use containerd_shim_protos::api::*;
use protobuf::well_known_types::any::Any;
use serde_json::{json, Value};
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::time::{Duration, Instant};
use testbed::fake::{ended, eventually, Containerd, Version};
use testbed::wire::{Refusal, Wire, TASK_V3};
use ttrpc::proto::Code;

struct Pod {
    containerd: Containerd,
    wire: Wire,
    shim: u32,
}

/// The current state in words: processes, cgroups, mounts, files (sockets too), and the shim's descriptors.
type Snapshot = BTreeSet<String>;

impl Pod {
    /// Runs the pod's first container.
    fn new() -> Self {
        let mut containerd = Containerd::new(Version::V2_3);
        // With the rest: a leftover socket is a leftover file.
        containerd.socket_dir = Some(containerd.dir.path().join("s"));
        containerd.prepare("first", &["/probe", "sleep"], json!({ "io.kubernetes.cri.sandbox-id": "first" }));
        let shim = containerd.start("first");
        let mut wire = containerd.connect(&shim);
        create(&containerd, &mut wire, TASK_V3, "first");
        start(&mut wire, TASK_V3, "first");
        let shim = crate::connect(&mut wire, TASK_V3, "first").shim_pid;
        Pod { containerd, wire, shim }
    }

    /// Prepares another container of the pod, without creating it.
    fn prepare(&self, id: &str, args: &[&str], change: impl FnOnce(&mut Value)) {
        self.containerd.prepare(id, args, json!({ "io.kubernetes.cri.sandbox-id": "first" }));
        // A mark that identifies its processes.
        let mark = format!("MARK={}", self.containerd.namespace);
        self.containerd.configure(id, |config| {
            config["process"]["env"].as_array_mut().unwrap().push(mark.into());
            change(config);
        });
        self.containerd.start(id);
    }

    fn create(&mut self, id: &str, change: impl FnOnce(&mut CreateTaskRequest)) -> Result<u32, Refusal> {
        let mut request = create_request(&self.containerd, id);
        change(&mut request);
        self.wire.task::<CreateTaskResponse>("Create", &request).map(|response| response.pid)
    }

    fn snapshot(&self) -> Snapshot {
        let mut all = Snapshot::new();
        let (mark, dir) = (self.containerd.namespace.as_str(), self.containerd.dir.path());
        for process in std::fs::read_dir("/proc").unwrap().flatten() {
            let text = |file: &str| {
                let bytes = std::fs::read(process.path().join(file)).unwrap_or_default();
                String::from_utf8_lossy(&bytes).replace('\0', " ")
            };
            let pid = process.file_name().to_string_lossy().into_owned();
            if pid.parse::<u32>().is_ok()
                && (text("cmdline").contains(mark) || text("environ").contains(mark))
            {
                all.insert(format!("process {pid} {}", text("cmdline")));
            }
        }
        all.extend(self.containerd.cgroups().iter().map(|path| format!("cgroup {}", path.display())));
        let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
        let ours = mounts.lines().filter(|line| line.contains(dir.to_str().unwrap()));
        all.extend(ours.map(|line| format!("mount {line}")));
        files(dir, &mut all);
        // Connections come and go with events; files, pidfds and pipes belong to a container.
        let descriptors = std::fs::read_dir(format!("/proc/{}/fd", self.shim)).unwrap().flatten();
        for descriptor in descriptors {
            let target = std::fs::read_link(descriptor.path()).unwrap_or_default().display().to_string();
            if !target.starts_with("socket:") && !target.is_empty() {
                all.insert(format!("descriptor {} {target}", descriptor.file_name().to_string_lossy()));
            }
        }
        all
    }

    /// Waits until everything is as it was `before`.
    #[track_caller]
    fn is_as(&self, before: &Snapshot) {
        let until = Instant::now() + Duration::from_secs(20);
        loop {
            let now = self.snapshot();
            let changed: Vec<_> = before.symmetric_difference(&now).collect();
            if changed.is_empty() {
                return;
            }
            assert!(Instant::now() < until, "left or lost: {changed:#?}");
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Makes a create that must fail and change nothing; returns the error.
    #[track_caller]
    fn refuses(&mut self, change: impl FnOnce(&mut Value)) -> Refusal {
        self.prepare("bad", &["/probe", "sleep"], change);
        let before = self.snapshot();
        let refusal = self.create("bad", |_| {}).expect_err("it was created");
        println!("{refusal:?}");
        self.is_as(&before);
        self.remove("bad");
        refusal
    }

    fn remove(&mut self, id: &str) {
        self.containerd.delete(id);
        self.containerd.remove_bundle(id);
    }

    /// Checks that the first container was not affected, and ends everything.
    fn end(mut self) {
        let request = StateRequest { id: "first".into(), ..Default::default() };
        let state = self.wire.task::<StateResponse>("State", &request).unwrap();
        assert_eq!(state.status.enum_value().unwrap(), Status::RUNNING);
        kill(&mut self.wire, TASK_V3, "first");
        assert_eq!(wait(&mut self.wire, TASK_V3, "first"), 137);
        delete(&mut self.wire, TASK_V3, "first");
        shut_down(self.wire, "first");
        self.containerd.delete("first");
        self.containerd.remove_bundle("first");
        assert_eq!(self.containerd.cgroups(), Vec::<PathBuf>::new());
    }
}

fn files(dir: &Path, all: &mut Snapshot) {
    for entry in std::fs::read_dir(dir).into_iter().flatten().flatten() {
        all.insert(format!("file {}", entry.path().display()));
        // What is in its root is the container's.
        if entry.file_name() != "rootfs" && entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            files(&entry.path(), all);
        }
    }
}

/// A cgroup with a process in it, in one hierarchy.
struct Busy(PathBuf, Child);

impl Busy {
    fn new(below: &str) -> Self {
        let places = ["/sys/fs/cgroup/pids", "/sys/fs/cgroup"].map(Path::new);
        let place = places.into_iter().find(|place| place.join("cgroup.procs").exists()).unwrap();
        let path = place.join(below);
        std::fs::create_dir_all(&path).unwrap();
        let child = Command::new("sleep").arg("1000").spawn().unwrap();
        std::fs::write(path.join("cgroup.procs"), child.id().to_string()).unwrap();
        Busy(path, child)
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        let _ = self.1.kill();
        let _ = self.1.wait();
        eventually(|| std::fs::remove_dir(&self.0).is_ok());
    }
}

#[test]
fn a_cgroup_that_is_in_use_is_refused_and_its_processes_are_left_alone() {
    let mut pod = Pod::new();
    let below = format!("{}/busy", pod.containerd.namespace);
    let mut busy = Busy::new(&below);
    let (code, message) = pod.refuses(|config| config["linux"]["cgroupsPath"] = format!("/{below}").into());
    assert_eq!(code, Code::FAILED_PRECONDITION, "{message}");
    assert!(message.contains("/busy\" is in use: 1 process"), "{message}");
    assert!(busy.1.try_wait().unwrap().is_none(), "the stranger was ended");
    drop(busy);
    pod.end();
}

#[test]
fn a_mount_option_that_the_kernel_refuses_is_named() {
    let mut pod = Pod::new();
    let (code, message) = pod.refuses(|config| {
        config["mounts"].as_array_mut().unwrap().push(json!({
            "destination": "/data", "type": "tmpfs", "source": "tmpfs", "options": ["nosuid", "size=nonsense"]
        }));
    });
    assert_eq!(code, Code::UNKNOWN, "{message}");
    // The README shows this error, for a container called web.
    let readme = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("README.md")).unwrap();
    let shown = message.replace("create bad:", "create web:");
    assert!(shown.ends_with("invalid argument (EINVAL)") && readme.contains(&shown), "{shown}");
    let (code, message) = pod.refuses(|config| {
        config["mounts"].as_array_mut().unwrap().push(json!({
            "destination": "/data", "type": "bind", "source": "/", "options": ["bind", "idmap"]
        }));
    });
    assert_eq!(code, Code::INVALID_ARGUMENT, "{message}");
    assert!(message.contains("mounts[1].options[1]: no mappings"), "{message}");
    pod.end();
}

/// A quota of less than a millisecond, which the kernel refuses.
const REFUSED: &str = r#"{ "cpu": { "quota": 1, "period": 100000 } }"#;

#[test]
fn a_limit_that_the_kernel_refuses_is_named_at_a_create_and_at_an_update() {
    let mut pod = Pod::new();
    let limit: Value = serde_json::from_str(REFUSED).unwrap();
    let (code, message) = pod.refuses(|config| config["linux"]["resources"] = limit);
    assert_eq!(code, Code::UNKNOWN, "{message}");
    assert!(message.starts_with("create bad: ") && message.contains("cpu."), "{message}");
    assert!(message.ends_with("invalid argument (EINVAL)"), "{message}");

    let before = pod.snapshot();
    let url = "types.containerd.io/opencontainers/runtime-spec/1/LinuxResources";
    let resources = Any { type_url: url.into(), value: REFUSED.into(), ..Default::default() };
    let request =
        UpdateTaskRequest { id: "first".into(), resources: Some(resources).into(), ..Default::default() };
    let (_, message) = pod.wire.task::<Empty>("Update", &request).unwrap_err();
    assert!(message.contains("cpu.") && message.ends_with("invalid argument (EINVAL)"), "{message}");
    pod.is_as(&before);
    pod.end();
}

#[test]
fn a_container_that_is_killed_between_create_and_start_cannot_start_and_leaves_nothing() {
    let mut pod = Pod::new();
    pod.prepare("bad", &["/probe", "sleep"], |_| {});
    let before = pod.snapshot();
    let pid = pod.create("bad", |_| {}).unwrap();
    let raw = nix::unistd::Pid::from_raw(pid as i32);
    nix::sys::signal::kill(raw, nix::sys::signal::Signal::SIGKILL).unwrap();
    assert!(eventually(|| ended(pid)));
    let request = StartRequest { id: "bad".into(), ..Default::default() };
    let (code, message) = pod.wire.task::<StartResponse>("Start", &request).unwrap_err();
    assert_eq!(code, Code::FAILED_PRECONDITION, "{message}");
    assert_eq!(wait(&mut pod.wire, TASK_V3, "bad"), 137);
    assert_eq!(delete(&mut pod.wire, TASK_V3, "bad").exit_status, 137);
    pod.is_as(&before);
    pod.remove("bad");
    pod.end();
}

#[test]
fn a_reader_that_never_comes_holds_up_nothing() {
    let mut pod = Pod::new();
    pod.prepare("bad", &["/probe", "report"], |_| {});
    let fifos = ["in", "out", "err"].map(|name| pod.containerd.dir.path().join(name));
    for fifo in &fifos {
        nix::unistd::mkfifo(fifo, nix::sys::stat::Mode::from_bits_truncate(0o600)).unwrap();
    }
    let before = pod.snapshot();
    let [stdin, stdout, stderr] = fifos.map(|fifo| fifo.to_str().unwrap().to_owned());
    let begun = Instant::now();
    pod.create("bad", |r| (r.stdin, r.stdout, r.stderr) = (stdin, stdout, stderr)).unwrap();
    start(&mut pod.wire, TASK_V3, "bad");
    assert_eq!(wait(&mut pod.wire, TASK_V3, "bad"), 0);
    assert_eq!(delete(&mut pod.wire, TASK_V3, "bad").exit_status, 0);
    assert!(begun.elapsed() < Duration::from_secs(8), "{:?}", begun.elapsed());
    // A Delete ends the wait for a reader, and unread output is lost.
    pod.is_as(&before);
    pod.remove("bad");
    pod.end();
}
