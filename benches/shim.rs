//! A shim, called as containerd 2.1 does: the verb `start`, then the Task API over its socket.

use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use containerd_shim_protos::api::*;
use containerd_shim_protos::events::task::TaskExit;
use protobuf::well_known_types::any::Any;
use protobuf::{Message, MessageField};
use serde_json::{json, Value};

use crate::account::Account;
use crate::peer::Peer;
use testbed::fake::EventService;
use testbed::wire::{Refusal, Wire, TASK_V2, TASK_V3};
use testbed::{source, Suite};

/// The folder, the image's files and the event service that all shims of a run share.
pub struct World {
    pub dir: tempfile::TempDir,
    pub lower: PathBuf,
    pub events: EventService,
    /// The parent of all cgroups.
    pub cgroup: String,
}

impl World {
    pub fn new() -> World {
        let dir = tempfile::Builder::new().prefix("sb-bench-").tempdir_in("/tmp").expect("make a folder");
        // overlayfs accepts no directories of another overlayfs as its upper ones, and /tmp may be one.
        let status = Command::new("mount")
            .args(["-t", "tmpfs", "-o", "mode=755", "bench"])
            .arg(dir.path())
            .status()
            .expect("run mount");
        assert!(status.success(), "mount a tmpfs for the bundles");
        let lower = dir.path().join("image");
        unpack(&lower);
        let events = EventService::listen(&dir.path().join("c.sock.ttrpc"), &[]);
        let name = dir.path().file_name().expect("a name").to_string_lossy();
        World { lower, events, cgroup: format!("/{name}"), dir }
    }

    fn address(&self) -> PathBuf {
        self.dir.path().join("c.sock")
    }

    pub fn bundle(&self, id: &str) -> PathBuf {
        self.dir.path().join("bundles").join(id)
    }

    /// Prepares a bundle of `ctr run`'s spec with another command, and a rootfs to mount.
    pub fn prepare(&self, id: &str, change: impl FnOnce(&mut Value)) -> CreateTaskRequest {
        let bundle = self.bundle(id);
        for name in ["rootfs", "upper", "work"] {
            std::fs::create_dir_all(bundle.join(name)).expect("make the bundle");
        }
        let text = std::fs::read(source("tests/golden/specs/ctr-2.1-default.json")).expect("read the spec");
        let mut spec: Value = serde_json::from_slice(&text).expect("the spec is JSON");
        spec["process"]["args"] = json!(["sleep", "1000"]);
        spec["linux"]["cgroupsPath"] = json!(format!("{}/{id}", self.cgroup));
        change(&mut spec);
        std::fs::write(bundle.join("config.json"), spec.to_string()).expect("write config.json");
        for name in ["log", "out", "err"] {
            nix::unistd::mkfifo(&bundle.join(name), nix::sys::stat::Mode::from_bits_truncate(0o700))
                .expect("mkfifo");
        }
        let at = |name: &str| bundle.join(name).to_string_lossy().into_owned();
        let rootfs = containerd_shim_protos::types::mount::Mount {
            type_: "overlay".into(),
            source: "overlay".into(),
            options: vec![
                "index=off".into(),
                format!("workdir={}", at("work")),
                format!("upperdir={}", at("upper")),
                format!("lowerdir={}", self.lower.display()),
            ],
            ..Default::default()
        };
        CreateTaskRequest {
            id: id.into(),
            bundle: bundle.to_string_lossy().into_owned(),
            rootfs: vec![rootfs],
            stdout: at("out"),
            stderr: at("err"),
            ..Default::default()
        }
    }

    /// Returns the next exit of process `id` (a container's or an exec's).
    pub fn exit(&self, id: &str) -> TaskExit {
        loop {
            let exit = self.next_exit();
            if exit.id == id {
                return exit;
            }
        }
    }

    pub fn next_exit(&self) -> TaskExit {
        loop {
            let envelope = self.events.next();
            if envelope.topic == "/tasks/exit" {
                let any = envelope.event.unwrap_or_default();
                return TaskExit::parse_from_bytes(&any.value).expect("an exit's event");
            }
        }
    }
}

impl Drop for World {
    fn drop(&mut self) {
        // Errors cannot be reported here; what remains mounted is in this process's mount namespace. After a failed
        // run, shims and containers are still alive. A shim's arguments contain this world's folder; grep's must not,
        // so it reads the name from its standard input.
        let script = r#"for round in 1 2 3 4 5; do
            pids=$(find /sys/fs/cgroup -path "*$CGROUP/*" -name cgroup.procs -exec cat {} + | sort -u
                echo "tmp$CGROUP/c.sock" | grep -lsaFf - /proc/[0-9]*/cmdline | cut -d / -f 3)
            test -z "$pids" && exit
            kill -9 $pids
            sleep 0.1
        done"#;
        let _ = Command::new("sh")
            .args(["-c", script])
            .env("CGROUP", &self.cgroup)
            .stderr(Stdio::null())
            .status();
        let _ = Command::new("umount").arg("-l").arg(self.dir.path()).status();
        let _ = Command::new("find")
            .args(["/sys/fs/cgroup", "-depth", "-type", "d", "-path", &format!("*{}*", self.cgroup)])
            .args(["-exec", "rmdir", "{}", "+"])
            .stderr(Stdio::null())
            .status();
    }
}

/// Unpacks the image's only layer.
fn unpack(to: &Path) {
    std::fs::create_dir_all(to).expect("make the image's folder");
    let script = r#"set -e
        layout=$(mktemp -d); trap 'rm -rf "$layout"' EXIT
        tar -C "$layout" -xf "$1"
        layer=$(sed 's/.*"Layers":\["\([^"]*\)".*/\1/' "$layout/manifest.json")
        tar -C "$2" -xf "$layout/$layer""#;
    let status = Command::new("bash")
        .args(["-c", script, "unpack"])
        .arg(testbed::image())
        .arg(to)
        .status()
        .expect("run tar");
    assert!(status.success(), "unpack the image");
}

/// A shim that has been launched.
pub struct Shim<'a> {
    world: &'a World,
    peer: Peer,
    id: String,
    service: &'static str,
    pub wire: Wire,
}

/// The verb `start`; returns the text of the answer.
pub fn launch(world: &World, peer: Peer, id: &str) -> String {
    launch_in(world, peer, id, None)
}

pub fn launch_in(world: &World, peer: Peer, id: &str, account: Option<&Account>) -> String {
    let mut command = verb(world, peer, id, &world.bundle(id), account);
    let out = command.arg("start").stdin(Stdio::null()).output().expect("run the shim");
    assert!(out.status.success(), "start: {}", String::from_utf8_lossy(&out.stderr));
    String::from_utf8(out.stdout).expect("the answer is text")
}

/// The verb `delete`; then removes the bundle.
pub fn forget(world: &World, peer: Peer, id: &str) {
    let bundle = world.bundle(id);
    let mut command = verb(world, peer, id, world.dir.path(), None);
    let out = command
        .arg("-bundle")
        .arg(&bundle)
        .arg("delete")
        .stdin(Stdio::null())
        .output()
        .expect("run the shim");
    assert!(out.status.success(), "delete: {}", String::from_utf8_lossy(&out.stderr));
    std::fs::remove_dir_all(&bundle).expect("remove the bundle");
}

fn verb(world: &World, peer: Peer, id: &str, cwd: &Path, account: Option<&Account>) -> Command {
    let mut command = match account {
        None => Command::new(peer.shim()),
        Some(account) => {
            let mut command = Command::new("sh");
            command.args(["-ec", r#"echo 0 >"$0"; exec "$@""#]).arg(account.procs()).arg(peer.shim());
            command
        }
    };
    let address = world.address();
    command
        .args(["-namespace", "bench", "-address"])
        .arg(&address)
        .args(["-publish-binary", "/bin/false", "-id", id])
        .env("PATH", Suite::Forky.path())
        .env("GOMAXPROCS", "2")
        .env("MAX_SHIM_VERSION", "3")
        .env("TTRPC_ADDRESS", format!("{}.ttrpc", address.display()))
        .env("GRPC_ADDRESS", &address)
        .env("NAMESPACE", "bench")
        .process_group(0)
        .current_dir(cwd);
    command
}

impl<'a> Shim<'a> {
    /// Connects to a shim whose `start` answered `answer`.
    pub fn connect(world: &'a World, peer: Peer, id: &str, answer: &str) -> Shim<'a> {
        let json: Value = serde_json::from_str(answer).unwrap_or_default();
        let address = json["address"].as_str().unwrap_or(answer).trim();
        let service = if json["version"] == 3 { TASK_V3 } else { TASK_V2 };
        let path = address.strip_prefix("unix://").expect("an address of a socket");
        Shim { world, peer, id: id.to_owned(), service, wire: Wire::connect(Path::new(path)) }
    }

    pub fn call<R: Message>(&mut self, method: &str, message: &impl Message) -> Result<R, Refusal> {
        self.wire.call(self.service, method, message)
    }

    #[track_caller]
    fn must<R: Message>(&mut self, method: &str, message: &impl Message) -> R {
        self.call(method, message).unwrap_or_else(|e| panic!("{method} by {}: {e:?}", self.peer.name()))
    }

    #[track_caller]
    pub fn create(&mut self, request: &CreateTaskRequest) -> u32 {
        let request = CreateTaskRequest { options: self.peer.options().into(), ..request.clone() };
        self.must::<CreateTaskResponse>("Create", &request).pid
    }

    #[track_caller]
    pub fn start(&mut self, id: &str, exec: &str) -> u32 {
        let request = StartRequest { id: id.into(), exec_id: exec.into(), ..Default::default() };
        self.must::<StartResponse>("Start", &request).pid
    }

    /// Registers an exec of `args`.
    #[track_caller]
    pub fn exec(&mut self, id: &str, exec: &str, args: &[&str]) {
        self.exec_to(id, exec, args, ["", ""]);
    }

    /// Registers an exec with FIFOs for its standard output and error: the Go shim does not take one without the other.
    #[track_caller]
    pub fn exec_to(&mut self, id: &str, exec: &str, args: &[&str], fifos: [&str; 2]) {
        let process = json!({
            "args": args, "cwd": "/", "env": ["PATH=/bin"], "user": { "uid": 0, "gid": 0 },
        });
        let spec = Any {
            type_url: "types.containerd.io/opencontainers/runtime-spec/1/Process".into(),
            value: process.to_string().into_bytes(),
            ..Default::default()
        };
        let request = ExecProcessRequest {
            id: id.into(),
            exec_id: exec.into(),
            stdout: fifos[0].into(),
            stderr: fifos[1].into(),
            spec: MessageField::some(spec),
            ..Default::default()
        };
        self.must::<Empty>("Exec", &request);
    }

    #[track_caller]
    pub fn kill(&mut self, id: &str) {
        let request = KillRequest { id: id.into(), signal: libc::SIGKILL as u32, ..Default::default() };
        self.must::<Empty>("Kill", &request);
    }

    #[track_caller]
    pub fn delete(&mut self, id: &str, exec: &str) -> DeleteResponse {
        self.must("Delete", &DeleteRequest { id: id.into(), exec_id: exec.into(), ..Default::default() })
    }

    pub fn pid(&mut self) -> u32 {
        let id = self.id.clone();
        self.must::<ConnectResponse>("Connect", &ConnectRequest { id, ..Default::default() }).shim_pid
    }

    /// What containerd does after the last Delete: Shutdown, the verb `delete`, removing the bundle.
    pub fn end(mut self) {
        let request = ShutdownRequest { id: self.id.clone(), ..Default::default() };
        // The Go shim may be gone before it has answered. shoal waits for its peers to hang up.
        self.wire.ask(self.service, "Shutdown", &request, std::time::Duration::ZERO);
        let _ = self.wire.next();
        drop(self.wire);
        forget(self.world, self.peer, &self.id);
    }
}

/// The container's streams and the log, opened as containerd does, so that nothing waits for a reader.
pub struct Streams(#[allow(dead_code)] Vec<std::fs::File>);

impl Streams {
    pub fn open(bundle: &Path) -> Streams {
        let open = |name: &&str| {
            let mut options = std::fs::OpenOptions::new();
            let file = options.read(true).write(true).custom_flags(libc::O_NONBLOCK).open(bundle.join(name));
            file.unwrap_or_else(|e| panic!("open {name}: {e}"))
        };
        Streams(["log", "out", "err"].iter().map(open).collect())
    }
}
