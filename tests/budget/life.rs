//! A container in a shim of its own, made as `ctr run` of containerd 2.1 makes it: its default specification, an
//! overlay as rootfs, FIFOs as streams.

use containerd_shim_protos::api::*;
use containerd_shim_protos::types::mount::Mount;
use nix::sys::signal::{kill, Signal};
use nix::unistd::Pid;
use protobuf::well_known_types::any::Any;
use protobuf::Message;
use serde_json::{json, Value};
use std::fs::{File, OpenOptions};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use testbed::fake::{ended, eventually, Containerd, Version};
use testbed::wire::{Wire, TASK_V2};

pub const ID: &str = "c1";

pub struct Life {
    pub containerd: Containerd,
    pub wire: Wire,
    /// The pid of the shim's server.
    pub server: u32,
    pub socket: PathBuf,
    bundle: PathBuf,
    /// Kept open, as containerd does: no open of a FIFO waits for a reader.
    _streams: Vec<File>,
}

/// Configured as in production: no debug lines in the log.
pub fn containerd(version: Version, program: PathBuf) -> Containerd {
    let mut containerd = Containerd::new(version);
    containerd.program = program;
    containerd.debug = false;
    containerd
}

impl Life {
    pub fn begin(program: PathBuf) -> Life {
        let containerd = containerd(Version::V2_0, program);
        let bundle = containerd.prepare(ID, &[], json!({}));
        let namespace = containerd.namespace.clone();
        containerd.configure(ID, |config| {
            let text = include_str!("../golden/specs/ctr-2.1-default.json");
            *config = serde_json::from_str::<Value>(text).unwrap();
            config["process"]["args"] = json!(["/probe", "sleep"]);
            config["linux"]["cgroupsPath"] = json!(format!("/{namespace}/{ID}"));
        });
        // The prepared rootfs becomes the image; like a real image, it has a directory for each mount point.
        std::fs::rename(bundle.join("rootfs"), bundle.join("image")).unwrap();
        for folder in ["rootfs", "empty", "image/run"] {
            std::fs::create_dir(bundle.join(folder)).unwrap();
        }
        let streams = ["out", "err"].map(|name| {
            let path = bundle.join(name);
            nix::unistd::mkfifo(&path, nix::sys::stat::Mode::from_bits_truncate(0o700)).unwrap();
            let mut options = OpenOptions::new();
            options.read(true).write(true).custom_flags(libc::O_NONBLOCK).open(path).unwrap()
        });
        let shim = containerd.start(ID);
        let mut wire = containerd.connect(&shim);
        let request = ConnectRequest { id: ID.into(), ..Default::default() };
        let server = wire.call::<ConnectResponse>(TASK_V2, "Connect", &request).unwrap().shim_pid;
        let _streams = streams.into();
        Life { containerd, wire, server, socket: shim.path, bundle, _streams }
    }

    #[track_caller]
    pub fn call<R: Message>(&mut self, method: &str, request: &impl Message) -> R {
        self.wire.call(TASK_V2, method, request).unwrap_or_else(|error| panic!("{method}: {error:?}"))
    }

    pub fn create(&mut self) -> u32 {
        let at = |name: &str| self.bundle.join(name).to_str().unwrap().to_owned();
        let rootfs = Mount {
            type_: "overlay".into(),
            source: "overlay".into(),
            options: vec![format!("lowerdir={}:{}", at("image"), at("empty"))],
            ..Default::default()
        };
        let request = CreateTaskRequest {
            id: ID.into(),
            bundle: self.bundle.to_str().unwrap().into(),
            rootfs: vec![rootfs],
            stdout: at("out"),
            stderr: at("err"),
            ..Default::default()
        };
        self.call::<CreateTaskResponse>("Create", &request).pid
    }

    /// Starts the container, or an exec in it.
    pub fn start(&mut self, exec: &str) -> u32 {
        let request = StartRequest { id: ID.into(), exec_id: exec.into(), ..Default::default() };
        self.call::<StartResponse>("Start", &request).pid
    }

    pub fn exec(&mut self, exec: &str) {
        let process = json!({
            "args": ["/probe", "sleep"], "cwd": "/", "env": ["PATH=/"], "user": { "uid": 0, "gid": 0 },
        });
        let spec = Any {
            type_url: "types.containerd.io/opencontainers/runtime-spec/1/Process".into(),
            value: process.to_string().into_bytes(),
            ..Default::default()
        };
        let exec_id = exec.into();
        let request =
            ExecProcessRequest { id: ID.into(), exec_id, spec: Some(spec).into(), ..Default::default() };
        self.call::<Empty>("Exec", &request);
    }

    pub fn state(&mut self) {
        self.call::<StateResponse>("State", &StateRequest { id: ID.into(), ..Default::default() });
    }

    pub fn stats(&mut self) {
        self.call::<StatsResponse>("Stats", &StatsRequest { id: ID.into(), ..Default::default() });
    }

    /// Kills the container with all processes of its execs.
    pub fn kill(&mut self) {
        let signal = libc::SIGKILL as u32;
        let request = KillRequest { id: ID.into(), signal, ..Default::default() };
        self.call::<Empty>("Kill", &request);
    }

    pub fn wait(&mut self, exec: &str) {
        let request = WaitRequest { id: ID.into(), exec_id: exec.into(), ..Default::default() };
        self.call::<WaitResponse>("Wait", &request);
    }

    pub fn delete(&mut self, exec: &str) {
        let request = DeleteRequest { id: ID.into(), exec_id: exec.into(), ..Default::default() };
        self.call::<DeleteResponse>("Delete", &request);
    }

    /// Shuts the shim down after the last delete.
    pub fn end(mut self) {
        self.call::<Empty>("Shutdown", &ShutdownRequest { id: ID.into(), ..Default::default() });
        assert!(self.wire.next().is_none(), "the shim hangs up");
        assert!(eventually(|| ended(self.server)), "the shim ends");
        assert!(!self.socket.exists(), "the socket is left");
        self.containerd.delete(ID);
        self.containerd.remove_bundle(ID);
        assert_eq!(self.containerd.cgroups(), Vec::<&Path>::new());
    }
}

/// Leaves no process behind if a test fails.
impl Drop for Life {
    fn drop(&mut self) {
        if !ended(self.server) {
            give_up(&self.containerd, self.server, ID, &self.bundle);
        }
    }
}

/// Kills the shim, and then does what containerd does about a lost shim.
pub fn give_up(containerd: &Containerd, server: u32, id: &str, bundle: &Path) {
    // If this fails, the test's own error says more.
    let _ = kill(Pid::from_raw(server as i32), Signal::SIGKILL);
    containerd.verb(id, bundle, &["-bundle", bundle.to_str().unwrap(), "delete"]);
}
