//! Requests about a process's streams before the process is started.

use crate::{create, delete, kill, shut_down, start, wait};
use containerd_shim_protos::api::*;
use protobuf::well_known_types::any::Any;
use serde_json::{json, Value};
use std::fs::{File, OpenOptions};
use std::io::Read;
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;
use std::time::Duration;
use testbed::fake::{Containerd, Shim, Version};
use testbed::wire::{Wire, TASK_V3};

struct World {
    containerd: Containerd,
    shim: Shim,
    wire: Wire,
}

impl World {
    fn new() -> World {
        let containerd = Containerd::new(Version::V2_3);
        containerd.prepare("c1", &["/probe", "sleep"], json!({}));
        containerd.configure("c1", |config| {
            let mounts = config["mounts"].as_array_mut().unwrap();
            mounts.push(json!({ "destination": "/dev", "type": "tmpfs", "source": "tmpfs" }));
            mounts.push(json!({
                "destination": "/dev/pts", "type": "devpts", "source": "devpts",
                "options": ["newinstance", "ptmxmode=0666", "mode=0620"],
            }));
        });
        let shim = containerd.start("c1");
        let mut wire = containerd.connect(&shim);
        create(&containerd, &mut wire, TASK_V3, "c1");
        start(&mut wire, TASK_V3, "c1");
        World { containerd, shim, wire }
    }

    fn fifo(&self, name: &str) -> PathBuf {
        let path = self.containerd.dir.path().join(name);
        nix::unistd::mkfifo(&path, nix::sys::stat::Mode::from_bits_truncate(0o600)).unwrap();
        path
    }

    fn add(&mut self, exec: &str, args: &[&str], change: impl FnOnce(&mut ExecProcessRequest)) {
        let process: Value = json!({ "cwd": "/", "args": args, "env": [], "user": { "uid": 0, "gid": 0 } });
        let spec = Any {
            type_url: "types.containerd.io/opencontainers/runtime-spec/1/Process".into(),
            value: process.to_string().into_bytes(),
            ..Default::default()
        };
        let (id, exec_id) = ("c1".into(), exec.into());
        let mut request = ExecProcessRequest { id, exec_id, spec: Some(spec).into(), ..Default::default() };
        change(&mut request);
        self.wire.task::<Empty>("Exec", &request).unwrap();
    }

    fn start(&mut self, exec: &str) {
        let request = StartRequest { id: "c1".into(), exec_id: exec.into(), ..Default::default() };
        self.wire.task::<StartResponse>("Start", &request).unwrap();
    }

    /// Returns the exit code of an exec that ends by itself, soon.
    fn ended(&mut self, exec: &str) -> u32 {
        let request = WaitRequest { id: "c1".into(), exec_id: exec.into(), ..Default::default() };
        let mut wire = self.containerd.connect(&self.shim);
        wire.ask(TASK_V3, "Wait", &request, Duration::from_secs(10));
        let answer = testbed::wire::decode::<WaitResponse>(wire.next().unwrap().1);
        answer.unwrap_or_else(|e| panic!("{exec} does not end: {e:?}")).exit_status
    }

    fn end(mut self) {
        kill(&mut self.wire, TASK_V3, "c1");
        wait(&mut self.wire, TASK_V3, "c1");
        delete(&mut self.wire, TASK_V3, "c1");
        shut_down(self.wire, "c1");
    }
}

fn text(path: &std::path::Path) -> String {
    path.to_str().unwrap().to_owned()
}

#[test]
fn an_input_that_is_closed_before_the_start_is_at_its_end() {
    let mut world = World::new();
    let stdin = world.fifo("in");
    world.add("e1", &["/probe", "drain"], |request| request.stdin = text(&stdin));
    // The client's own end stays open until the shim has the other.
    let writer =
        OpenOptions::new().read(true).write(true).custom_flags(libc::O_NONBLOCK).open(&stdin).unwrap();
    let close = CloseIORequest { id: "c1".into(), exec_id: "e1".into(), stdin: true, ..Default::default() };
    world.wire.task::<Empty>("CloseIO", &close).unwrap();
    world.start("e1");
    drop(writer);
    assert_eq!(world.ended("e1"), 0);
    world.end();
}

#[test]
fn a_terminal_has_the_size_that_was_asked_for_before_the_start() {
    let mut world = World::new();
    let stdout = world.fifo("out");
    world.add("e1", &["/probe", "window"], |request| {
        request.terminal = true;
        request.stdout = text(&stdout);
    });
    let mut reader: File =
        OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open(&stdout).unwrap();
    let size = ResizePtyRequest {
        id: "c1".into(),
        exec_id: "e1".into(),
        width: 101,
        height: 37,
        ..Default::default()
    };
    world.wire.task::<Empty>("ResizePty", &size).unwrap();
    world.start("e1");
    assert_eq!(world.ended("e1"), 0);
    let mut said = String::new();
    let _ = reader.read_to_string(&mut said); // its writer may be there still
    assert_eq!(said.trim_end(), "101x37");
    world.end();
}
