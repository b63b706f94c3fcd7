//! What each version of containerd does around a shim: how it calls the binary, what it passes, and how it handles
//! the answer. Follows containerd's runtime/v2 (1.7) and core/runtime/v2, pkg/shim (2.x).

use super::EventService;
use crate::wire::Wire;
use containerd_shim_protos::api::DeleteResponse;
use containerd_shim_protos::bootstrap_api::{BootstrapParams, Extension};
use protobuf::well_known_types::any::Any;
use protobuf::{Message, MessageField};
use serde_json::{json, Value};
use shoal::service::protos::pod::{
    LinuxPodSandboxConfig, LinuxSandboxSecurityContext, NamespaceMode, NamespaceOption, PodSandboxConfig,
};
use std::fs::{File, OpenOptions};
use std::io::{Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Version {
    /// An Any or nothing on the standard input; refuses protocol 3.
    V1_7,
    /// The same input; accepts protocol 3.
    V2_0,
    /// BootstrapParams.
    V2_3,
    /// The same, with Task.Shutdown after each task, even of a sandbox.
    V2_4,
}

impl Version {
    pub fn modern(self) -> bool {
        matches!(self, Version::V2_3 | Version::V2_4)
    }
}

pub struct Containerd {
    pub version: Version,
    pub namespace: String,
    pub dir: tempfile::TempDir,
    pub events: EventService,
    /// The shim's binary.
    pub program: PathBuf,
    /// Remove the binary once it runs.
    pub unlink: bool,
    /// Ask the shim to log debug lines.
    pub debug: bool,
    /// Variables of `start` and `delete`, besides containerd's own.
    pub environment: Vec<(&'static str, &'static str)>,
    /// The directory for sockets, in BootstrapParams.
    pub socket_dir: Option<PathBuf>,
    /// What the shims wrote to their logs.
    pub log: Arc<Mutex<Vec<u8>>>,
}

/// A shim as containerd knows it.
#[derive(Debug)]
pub struct Shim {
    pub version: u64,
    pub path: PathBuf,
}

/// The result of a verb.
#[derive(Debug)]
pub struct Done {
    pub code: Option<i32>,
    pub stdout: Vec<u8>,
    pub stderr: String,
}

impl Containerd {
    pub fn new(version: Version) -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let dir = tempfile::tempdir().unwrap();
        let events = EventService::listen(&dir.path().join("c.sock.ttrpc"), &[]);
        let namespace = format!("fake-{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::SeqCst));
        Containerd {
            version,
            namespace,
            dir,
            events,
            program: crate::built("containerd-shim-shoal-v2"),
            unlink: false,
            debug: true,
            environment: Vec::new(),
            socket_dir: None,
            log: Arc::default(),
        }
    }

    pub fn address(&self) -> String {
        self.dir.path().join("c.sock").to_str().unwrap().into()
    }

    pub fn bundle(&self, id: &str) -> PathBuf {
        self.dir.path().join("io.containerd.runtime.v2.task").join(&self.namespace).join(id)
    }

    /// Returns the bundle of a sandbox, which has a directory of its own kind since 2.0.
    pub fn pod_bundle(&self, id: &str) -> PathBuf {
        match self.version {
            Version::V1_7 => self.bundle(id),
            _ => {
                let folder = self.dir.path().join("io.containerd.sandbox.controller.v1.shim");
                folder.join(&self.namespace).join(id)
            }
        }
    }

    /// Returns the cgroups that a kubelet makes for a pod, and removes after it.
    pub fn pod_cgroups(&self) -> Vec<PathBuf> {
        let root = Path::new("/sys/fs/cgroup");
        let below = Path::new(&self.namespace).join("pod");
        if root.join("cgroup.controllers").exists() {
            vec![root.join(below)]
        } else {
            let hierarchies = std::fs::read_dir(root).unwrap().flatten().map(|entry| entry.path());
            hierarchies.filter(|path| !path.is_symlink()).map(|path| path.join(&below)).collect()
        }
    }

    /// Returns the kubelet's options for a pod that shares no pid namespace.
    pub fn pod_options(&self) -> Any {
        let options = NamespaceOption { pid: NamespaceMode::CONTAINER.into(), ..Default::default() };
        let security_context = LinuxSandboxSecurityContext {
            namespace_options: MessageField::some(options),
            ..Default::default()
        };
        let linux = LinuxPodSandboxConfig {
            security_context: MessageField::some(security_context),
            cgroup_parent: format!("/{}/pod", self.namespace),
            ..Default::default()
        };
        let config = PodSandboxConfig {
            hostname: "web-0".into(),
            linux: MessageField::some(linux),
            ..Default::default()
        };
        let value = config.write_to_bytes().unwrap();
        Any { type_url: "runtime.v1.PodSandboxConfig".into(), value, ..Default::default() }
    }

    /// Makes the bundle of a sandbox, with a config.json if the client is ctr.
    pub fn prepare_pod(&self, id: &str, config: Option<&Value>) -> PathBuf {
        let bundle = self.pod_bundle(id);
        std::fs::create_dir_all(bundle.join("rootfs")).unwrap();
        if let Some(config) = config {
            std::fs::write(bundle.join("config.json"), config.to_string()).unwrap();
        }
        nix::unistd::mkfifo(&bundle.join("log"), nix::sys::stat::Mode::from_bits_truncate(0o700)).unwrap();
        self.read_log(&bundle);
        bundle
    }

    /// Makes a bundle as containerd does, with the probe as the container's program.
    pub fn prepare(&self, id: &str, args: &[&str], annotations: Value) -> PathBuf {
        let bundle = self.bundle(id);
        let root = bundle.join("rootfs");
        for name in ["proc", "dev", "sys"] {
            std::fs::create_dir_all(root.join(name)).unwrap();
        }
        let probe = crate::built("probe");
        std::fs::hard_link(&probe, root.join("probe"))
            .or_else(|_| std::fs::copy(&probe, root.join("probe")).map(drop))
            .unwrap();
        let config = json!({
            "ociVersion": "1.1.0",
            "root": { "path": "rootfs" },
            "process": { "cwd": "/", "args": args, "env": ["PATH=/"], "user": { "uid": 0, "gid": 0 } },
            "mounts": [{ "destination": "/proc", "type": "proc", "source": "proc" }],
            "linux": { "namespaces": [{ "type": "mount" }, { "type": "pid" }] },
            "annotations": annotations,
        });
        std::fs::write(bundle.join("config.json"), config.to_string()).unwrap();
        nix::unistd::mkfifo(&bundle.join("log"), nix::sys::stat::Mode::from_bits_truncate(0o700)).unwrap();
        self.read_log(&bundle);
        bundle
    }

    pub fn configure(&self, id: &str, change: impl FnOnce(&mut Value)) {
        let path = self.bundle(id).join("config.json");
        let mut config = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
        change(&mut config);
        std::fs::write(path, config.to_string()).unwrap();
    }

    /// Copies the bundle's log until the file or this containerd is gone.
    pub fn read_log(&self, bundle: &Path) {
        let mut fifo = open_log(bundle);
        let log = Arc::downgrade(&self.log);
        std::thread::spawn(move || {
            let mut buffer = [0; 4096];
            while let Some(log) = log.upgrade() {
                match fifo.read(&mut buffer) {
                    Ok(0) => return,
                    Ok(got) => log.lock().unwrap().extend_from_slice(&buffer[..got]),
                    Err(_) => std::thread::sleep(Duration::from_millis(5)),
                }
            }
        });
    }

    pub fn logged(&self, part: &str) -> bool {
        let found = || String::from_utf8_lossy(&self.log.lock().unwrap()).contains(part);
        eventually(found)
    }

    fn command(&self, id: &str, cwd: &Path) -> Command {
        let mut command = Command::new(&self.program);
        command
            .args(["-namespace", &self.namespace, "-address", &self.address()])
            .args(["-publish-binary", "/usr/bin/containerd", "-id", id])
            .env("GOMAXPROCS", "2")
            .env("MAX_SHIM_VERSION", "2")
            .env("TTRPC_ADDRESS", format!("{}.ttrpc", self.address()))
            .env("GRPC_ADDRESS", self.address())
            .env("NAMESPACE", &self.namespace)
            .envs(self.environment.iter().copied())
            .current_dir(cwd);
        command
    }

    /// Returns the standard input of `start`.
    fn input(&self, id: &str, options: Option<&Any>) -> Vec<u8> {
        if !self.version.modern() {
            return options.map(|any| any.write_to_bytes().unwrap()).unwrap_or_default();
        }
        let extension = |any: &Any| Extension { value: Some(any.clone()).into(), ..Default::default() };
        let params = BootstrapParams {
            instance_id: id.into(),
            namespace: self.namespace.clone(),
            log_level: protobuf::EnumOrUnknown::from_i32(if self.debug { -4 } else { 0 }),
            containerd_version: "2.3.4".into(),
            containerd_ttrpc_address: format!("{}.ttrpc", self.address()),
            containerd_grpc_address: self.address(),
            containerd_binary: "/usr/bin/containerd".into(),
            socket_dir: self.socket_dir.as_ref().map(|dir| dir.to_str().unwrap().to_owned()),
            extensions: options.iter().map(|any| extension(any)).collect(),
            ..Default::default()
        };
        params.write_to_bytes().unwrap()
    }

    /// Runs `start` with both output streams combined, like Go's CombinedOutput. The error is the output.
    pub fn try_start(&self, id: &str, cwd: &Path, options: Option<&Any>) -> Result<Shim, String> {
        let (mut output, writer) = std::io::pipe().unwrap();
        let mut command = self.command(id, cwd);
        if self.debug && !self.version.modern() {
            command.arg("-debug");
        }
        command.arg("start").stdin(Stdio::piped());
        command.stdout(writer.try_clone().unwrap()).stderr(writer);
        let mut child = command.spawn().unwrap();
        // The command keeps write ends, which would keep the output open.
        drop(command);
        if self.unlink {
            // It runs by now, since spawn returns after the execve, and waits for its input.
            std::fs::remove_file(&self.program).unwrap();
        }
        child.stdin.take().unwrap().write_all(&self.input(id, options)).unwrap();
        let mut text = String::new();
        output.read_to_string(&mut text).unwrap();
        if child.wait().unwrap().success() {
            Ok(self.understand(&text))
        } else {
            Err(text)
        }
    }

    pub fn start(&self, id: &str) -> Shim {
        self.try_start(id, &self.bundle(id), None).unwrap_or_else(|e| panic!("start {id}: {e}"))
    }

    /// Parses the answer like containerd's parseStartResponse.
    fn understand(&self, text: &str) -> Shim {
        assert_eq!(text, text.trim(), "only JSON");
        let answer: Value = serde_json::from_str(text).unwrap_or_else(|e| panic!("{text:?}: {e}"));
        let version = answer["version"].as_u64().unwrap();
        let most = if self.version == Version::V1_7 { 2 } else { 3 };
        assert!((2..=most).contains(&version), "unsupported shim version ({version})");
        assert_eq!(answer["protocol"], "ttrpc");
        let address = answer["address"].as_str().unwrap();
        Shim { version, path: address.strip_prefix("unix://").unwrap().into() }
    }

    pub fn connect(&self, shim: &Shim) -> Wire {
        Wire::connect(&shim.path)
    }

    pub fn verb(&self, id: &str, cwd: &Path, words: &[&str]) -> Done {
        let output = self.command(id, cwd).args(words).stdin(Stdio::null()).output().unwrap();
        let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
        Done { code: output.status.code(), stdout: output.stdout, stderr }
    }

    /// Runs `delete`, as after a container or a lost shim, then removes the bundle as containerd does.
    pub fn delete(&self, id: &str) -> DeleteResponse {
        self.delete_in(id, &self.bundle(id))
    }

    pub fn delete_in(&self, id: &str, bundle: &Path) -> DeleteResponse {
        let done = self.verb(id, bundle, &["-bundle", bundle.to_str().unwrap(), "delete"]);
        assert_eq!((done.code, done.stderr.as_str()), (Some(0), ""), "delete {id}");
        DeleteResponse::parse_from_bytes(&done.stdout).unwrap()
    }

    pub fn remove_bundle(&self, id: &str) {
        self.remove(&self.bundle(id));
    }

    pub fn remove(&self, bundle: &Path) {
        let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
        assert!(!mounts.contains(bundle.to_str().unwrap()), "a mount is left in {bundle:?}");
        std::fs::remove_dir_all(bundle).unwrap();
    }

    /// Returns every cgroup that is left of this containerd's containers.
    pub fn cgroups(&self) -> Vec<PathBuf> {
        let hierarchies = std::fs::read_dir("/sys/fs/cgroup").unwrap().map(|entry| entry.unwrap().path());
        let roots = hierarchies.chain([PathBuf::from("/sys/fs/cgroup")]).map(|h| h.join(&self.namespace));
        let children = |root: PathBuf| std::fs::read_dir(root).into_iter().flatten();
        let entries = roots.flat_map(children).filter_map(|entry| entry.ok());
        entries.map(|entry| entry.path()).filter(|path| path.is_dir()).collect()
    }
}

impl Drop for Containerd {
    fn drop(&mut self) {
        // Nobody else removes the parents of the containers' cgroups.
        for entry in std::fs::read_dir("/sys/fs/cgroup").into_iter().flatten().flatten() {
            let _ = std::fs::remove_dir(entry.path().join(&self.namespace));
        }
        let _ = std::fs::remove_dir(Path::new("/sys/fs/cgroup").join(&self.namespace));
    }
}

/// Opens the log like containerd: for reading and writing, so that it never sees the end of file.
pub fn open_log(bundle: &Path) -> File {
    let mut options = OpenOptions::new();
    options.read(true).write(true).custom_flags(libc::O_NONBLOCK).open(bundle.join("log")).unwrap()
}

pub fn eventually(mut condition: impl FnMut() -> bool) -> bool {
    let end = Instant::now() + Duration::from_secs(10);
    loop {
        if condition() {
            return true;
        }
        if Instant::now() > end {
            return false;
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Returns whether a process is gone, or a zombie that its new parent has not reaped.
pub fn ended(pid: u32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    // The first thread may be a zombie while other threads still hold its descriptors.
    let threads = std::fs::read_dir(format!("/proc/{pid}/task")).map_or(0, Iterator::count);
    stat.rsplit_once(") ").is_none_or(|(_, rest)| rest.starts_with('Z') && threads <= 1)
}
