//! Checkpoint and restore at their worst, a CRIU that hangs or is missing; hooks and options.

use crate::{connect, create, create_request, delete, kill, shut_down, start, wait};
use containerd_shim_protos::api::*;
use containerd_shim_protos::shim::oci::{self, CheckpointOptions};
use protobuf::well_known_types::any::Any;
use protobuf::Message;
use serde_json::{json, Value};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use testbed::fake::{ended, eventually, Containerd, Version};
use testbed::wire::{decode, Refusal, Wire, DE, FP, IA, TASK_V3, UN};

pub struct World {
    pub containerd: Containerd,
    pub wire: Wire,
    shim: PathBuf,
    pid: u32,
    folder: tempfile::TempDir,
}

/// What the script counts in a file tells how far it is. The file has one size, since a restore that opens it checks that.
pub const COUNT: &str = "i=0; while :; do i=$((i+1)); printf %06d $i 1<>/count; sleep 0.05; done";

impl World {
    /// A shim for which `criu` does what this script says; the true one if it is None.
    pub fn new(script: Option<&str>) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mut containerd = Containerd::new(Version::V2_3);
        let programs = match script {
            Some(script) => {
                let path = folder.path().join("criu");
                std::fs::write(&path, format!("#!/bin/sh\n{script}\n")).unwrap();
                std::fs::set_permissions(&path, PermissionsExt::from_mode(0o755)).unwrap();
                folder.path().to_owned()
            }
            None => testbed::criu(),
        };
        let path = format!("{}:/usr/sbin:/usr/bin:/sbin:/bin", programs.display());
        containerd.environment = vec![("PATH", String::leak(path))];
        prepare(&containerd, "c1", COUNT, |_| {});
        let shim = containerd.start("c1");
        let mut wire = containerd.connect(&shim);
        let pid = connect(&mut wire, TASK_V3, "c1").shim_pid;
        World { containerd, wire, shim: shim.path, pid, folder }
    }

    pub fn images(&self) -> PathBuf {
        self.folder.path().join("images")
    }

    fn request(&self, options: CheckpointOptions) -> CheckpointTaskRequest {
        CheckpointTaskRequest {
            id: "c1".into(),
            path: self.images().to_str().unwrap().into(),
            options: Some(any(options)).into(),
            ..Default::default()
        }
    }

    pub fn checkpoint(&mut self, options: CheckpointOptions) -> Result<Empty, Refusal> {
        let request = self.request(options);
        self.wire.task("Checkpoint", &request)
    }

    /// `c1` runs.
    pub fn run(&mut self) -> u32 {
        create(&self.containerd, &mut self.wire, TASK_V3, "c1");
        let pid = start(&mut self.wire, TASK_V3, "c1");
        assert!(eventually(|| self.count("c1") > 1));
        pid
    }

    pub fn count(&self, id: &str) -> u32 {
        let path = self.containerd.bundle(id).join("rootfs/count");
        std::fs::read_to_string(path).ok().and_then(|count| count.trim().parse().ok()).unwrap_or(0)
    }

    /// Whether the container is not held up by anything.
    pub fn goes_on(&self, id: &str) -> bool {
        let at = self.count(id);
        eventually(|| self.count(id) > at)
    }

    pub fn end(&mut self, id: &str) {
        kill(&mut self.wire, TASK_V3, id);
        wait(&mut self.wire, TASK_V3, id);
        delete(&mut self.wire, TASK_V3, id);
    }

    /// Creates `c2` from the images of `c1`.
    pub fn restore(&mut self) -> Result<CreateTaskResponse, Refusal> {
        self.restore_as("c2", Default::default())
    }

    pub fn restore_as(&mut self, id: &str, options: oci::Options) -> Result<CreateTaskResponse, Refusal> {
        let checkpoint = self.images().to_str().unwrap().into();
        let value = options.write_to_bytes().unwrap();
        let type_url = "containerd.runc.v1.Options".into();
        let options = Some(Any { type_url, value, ..Default::default() }).into();
        let request = CreateTaskRequest { checkpoint, options, ..create_request(&self.containerd, id) };
        self.wire.task("Create", &request)
    }

    pub fn start(&mut self) -> Result<StartResponse, Refusal> {
        self.start_as("c2")
    }

    pub fn start_as(&mut self, id: &str) -> Result<StartResponse, Refusal> {
        self.wire.task("Start", &StartRequest { id: id.into(), ..Default::default() })
    }

    /// The program that stands for CRIU; not one that opens its images.
    fn is_at_work(&self) -> bool {
        !at_work(&self.folder.path().join("criu")).is_empty()
    }

    /// Nothing is left.
    pub fn finish(self) {
        let World { containerd, wire, pid, folder, .. } = self;
        shut_down(wire, "c1");
        assert!(eventually(|| ended(pid)));
        containerd.delete("c1");
        assert_eq!(at_work(folder.path()), [0; 0]);
        let own = [containerd.bundle("c1"), containerd.bundle("c2")];
        own.iter().filter(|bundle| bundle.exists()).for_each(|bundle| containerd.remove(bundle));
        assert!(containerd.cgroups().is_empty());
    }
}

fn any(options: CheckpointOptions) -> Any {
    let type_url = "containerd.runc.v1.CheckpointOptions".into();
    Any { type_url, value: options.write_to_bytes().unwrap(), ..Default::default() }
}

pub fn prepare(containerd: &Containerd, id: &str, script: &str, change: impl FnOnce(&mut Value)) {
    let bundle = containerd.prepare(id, &["/busybox", "sh", "-c", script], json!({}));
    std::fs::copy("/bin/busybox", bundle.join("rootfs/busybox")).unwrap();
    std::fs::create_dir(bundle.join("rootfs/extra")).unwrap();
    std::fs::write(bundle.join("rootfs/count"), "000000").unwrap();
    for name in ["sleep", "sh", "nc"] {
        std::os::unix::fs::symlink("busybox", bundle.join("rootfs").join(name)).unwrap();
    }
    containerd.configure(id, |config| {
        let kinds = ["mount", "pid", "ipc", "uts", "network"].map(|kind| json!({ "type": kind }));
        config["linux"]["namespaces"] = kinds.into();
        // Devices of the root filesystem itself would be no part of the images.
        let dev = json!({ "destination": "/dev", "type": "tmpfs", "source": "tmpfs" });
        config["mounts"].as_array_mut().unwrap().push(dev);
        change(config);
    });
}

/// The processes whose program is below the folder.
fn at_work(folder: &Path) -> Vec<u32> {
    let entries = std::fs::read_dir("/proc").unwrap().flatten();
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    let its = |pid: &u32| {
        let line = std::fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        line.split('\0').any(|word| Path::new(word).starts_with(folder))
    };
    pids.filter(its).collect()
}

const HANGS: &str = "while :; do sleep 0.1; done";

#[test]
fn without_criu_a_checkpoint_is_not_implemented_and_says_why() {
    let mut world = World::new(Some("exit"));
    std::fs::remove_file(world.folder.path().join("criu")).unwrap();
    world.run();
    let (code, words) = world.checkpoint(Default::default()).unwrap_err();
    assert!(code == UN && words.contains("need the program criu") && words.contains("$PATH"), "{words}");
    std::fs::create_dir(world.images()).unwrap();
    prepare(&world.containerd, "c2", COUNT, |_| {});
    assert_eq!(world.restore().unwrap_err().0, UN);
    world.end("c1");
    world.finish();
}

#[test]
fn a_checkpoint_that_hangs_ends_with_its_time_and_refuses_others_meanwhile() {
    let mut world = World::new(Some(HANGS));
    world.run();
    let request = world.request(Default::default());
    let begun = Instant::now();
    let asked = world.wire.ask(TASK_V3, "Checkpoint", &request, Duration::from_secs(2));
    assert!(eventually(|| world.is_at_work()));
    let mut other = Wire::connect(&world.shim);
    for method in ["Checkpoint", "Pause", "Resume"] {
        let (code, words) = match method {
            "Checkpoint" => other.task::<Empty>(method, &request).unwrap_err(),
            "Pause" => other
                .task::<Empty>(method, &PauseRequest { id: "c1".into(), ..Default::default() })
                .unwrap_err(),
            _ => other
                .task::<Empty>(method, &ResumeRequest { id: "c1".into(), ..Default::default() })
                .unwrap_err(),
        };
        assert!(code == FP && words.contains("under way"), "{method}: {words}");
    }
    let (answered, response) = world.wire.next().unwrap();
    assert_eq!(answered, asked);
    let (code, words) = decode::<Empty>(response).unwrap_err();
    assert!(code == DE && words.contains("criu"), "{words}");
    assert!(begun.elapsed() < Duration::from_secs(8));
    assert!(eventually(|| at_work(world.folder.path()).is_empty()));
    assert!(world.goes_on("c1"));
    world.end("c1");
    world.finish();
}

#[test]
fn a_kill_of_the_container_ends_a_checkpoint_that_hangs() {
    let mut world = World::new(Some(HANGS));
    world.run();
    let request = world.request(Default::default());
    world.wire.ask(TASK_V3, "Checkpoint", &request, Duration::ZERO);
    assert!(eventually(|| world.is_at_work()));
    let mut other = Wire::connect(&world.shim);
    kill(&mut other, TASK_V3, "c1");
    assert_eq!(wait(&mut other, TASK_V3, "c1"), 137);
    delete(&mut other, TASK_V3, "c1");
    let (code, words) = decode::<Empty>(world.wire.next().unwrap().1).unwrap_err();
    assert!(code == FP && words.contains("killed"), "{words}");
    world.finish();
}

#[test]
fn a_container_that_ends_by_itself_ends_a_checkpoint_that_hangs() {
    let mut world = World::new(Some(HANGS));
    let pid = world.run();
    let request = world.request(Default::default());
    world.wire.ask(TASK_V3, "Checkpoint", &request, Duration::ZERO);
    assert!(eventually(|| world.is_at_work()));
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid as i32), nix::sys::signal::Signal::SIGKILL)
        .unwrap();
    let (code, words) = decode::<Empty>(world.wire.next().unwrap().1).unwrap_err();
    assert!(code == FP && words.contains("has ended"), "{words}");
    delete(&mut world.wire, TASK_V3, "c1");
    world.finish();
}

#[test]
fn nothing_is_left_of_a_checkpoint_whose_shim_was_killed() {
    let mut world = World::new(Some(HANGS));
    let first = world.run();
    let request = world.request(Default::default());
    world.wire.ask(TASK_V3, "Checkpoint", &request, Duration::ZERO);
    assert!(eventually(|| world.is_at_work()));
    // Its record is written right after it was started.
    let record = world.containerd.bundle("c1").join("shoal.json");
    assert!(eventually(|| std::fs::read_to_string(&record).unwrap().contains("\"criu\"")));
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(world.pid as i32), nix::sys::signal::Signal::SIGKILL)
        .unwrap();
    assert!(eventually(|| ended(world.pid)));
    world.containerd.delete("c1");
    assert!(eventually(|| at_work(world.folder.path()).is_empty() && ended(first)));
    world.containerd.remove_bundle("c1");
    assert!(world.containerd.cgroups().is_empty());
}

#[test]
fn a_restore_that_hangs_ends_with_a_kill_and_leaves_nothing() {
    let mut world = World::new(Some(HANGS));
    std::fs::create_dir(world.images()).unwrap();
    std::fs::write(world.images().join("descriptors.json"), "[]").unwrap();
    for killed in [true, false] {
        prepare(&world.containerd, "c2", COUNT, |_| {});
        world.restore().unwrap();
        let request = StartRequest { id: "c2".into(), ..Default::default() };
        let limit = Duration::from_secs(if killed { 60 } else { 2 });
        world.wire.ask(TASK_V3, "Start", &request, limit);
        assert!(eventually(|| world.is_at_work()));
        let mut other = Wire::connect(&world.shim);
        if killed {
            kill(&mut other, TASK_V3, "c2");
        }
        let (code, words) = decode::<StartResponse>(world.wire.next().unwrap().1).unwrap_err();
        assert_eq!(code, if killed { FP } else { DE }, "{words}");
        assert_eq!(wait(&mut other, TASK_V3, "c2"), 137);
        delete(&mut other, TASK_V3, "c2");
        assert_eq!(at_work(world.folder.path()), [0; 0]);
        world.containerd.delete("c2");
        world.containerd.remove_bundle("c2");
    }
    world.finish();
}

#[test]
fn what_is_no_checkpoint_fails_the_create() {
    let mut world = World::new(Some(HANGS));
    prepare(&world.containerd, "c2", COUNT, |_| {});
    let (_, words) = world.restore().unwrap_err();
    assert!(words.contains("checkpoint: open(") && words.contains("no such file"), "{words}");
    std::fs::create_dir(world.images()).unwrap();
    for (text, word) in [("x", "descriptors.json"), ("{}", "descriptors.json"), ("[1]", "descriptors.json")] {
        std::fs::write(world.images().join("descriptors.json"), text).unwrap();
        let (code, words) = world.restore().unwrap_err();
        assert!(code == IA && words.contains(word), "{words}");
    }
    std::fs::write(world.images().join("descriptors.json"), "[]").unwrap();
    world.containerd.configure("c2", |config| {
        config["annotations"] = json!({ "io.kubernetes.cri.container-type": "container" });
    });
    let (code, words) = world.restore().unwrap_err();
    assert!(code == UN && words.contains("CRI"), "{words}");
    world.containerd.configure("c2", |config| config["annotations"] = json!({}));
    let seccomp =
        |config: &mut Value| config["linux"]["seccomp"] = json!({ "defaultAction": "SCMP_ACT_ALLOW" });
    world.containerd.configure("c2", seccomp);
    std::fs::write(world.images().join("seccomp.img"), "garbage of a kind").unwrap();
    let (code, words) = world.restore().unwrap_err();
    assert!(code == IA && words.contains("seccomp.img"), "{words}");
    world.containerd.configure("c2", |config| {
        let rule = json!({ "names": ["mkdir"], "action": "SCMP_ACT_NOTIFY" });
        let profile =
            json!({ "defaultAction": "SCMP_ACT_ALLOW", "listenerPath": "/agent", "syscalls": [rule] });
        config["linux"]["seccomp"] = profile;
    });
    let (code, words) = world.restore().unwrap_err();
    assert!(code == UN && words.contains("linux.seccomp.listenerPath"), "{words}");
    world.containerd.configure("c2", |config| config["linux"]["seccomp"] = Value::Null);
    let file = world.folder.path().join("file");
    std::fs::write(&file, "").unwrap();
    // The shim is in the same ones.
    let own = |kind: &str| format!("/proc/{}/ns/{kind}", std::process::id());
    for (kind, path, reason) in [
        ("network", own("ipc"), "is no net namespace"),
        ("network", file.to_str().unwrap().to_owned(), "is no net namespace"),
        ("ipc", own("net"), "is no ipc namespace"),
        ("uts", own("uts"), "the host's, which hostname would change"),
    ] {
        world.containerd.configure("c2", |config| {
            config["hostname"] = if kind == "uts" { "c2".into() } else { Value::Null };
            config["linux"]["namespaces"] = json!([{ "type": "mount" }, { "type": kind, "path": path }]);
        });
        let (code, words) = world.restore().unwrap_err();
        let field = format!("linux.namespaces[{kind}]");
        assert!(code == IA && words.contains(&field) && words.contains(reason), "{path}: {words}");
    }
    world.finish();
}

/// A program of the host that appends what it is told to a file.
fn hook(kind: &str, file: &Path) -> Value {
    let script = format!("echo {kind} $(grep -o '\"status\":\"[a-z]*\"' | cut -d: -f2) >>{}", file.display());
    json!([{ "path": "/bin/sh", "args": ["sh", "-c", script] }])
}

#[test]
fn hooks_that_set_a_network_up_run_in_a_restore_and_others_do_not() {
    let mut world = World::new(None);
    world.run();
    world.checkpoint(CheckpointOptions { exit: true, ..Default::default() }).unwrap();
    wait(&mut world.wire, TASK_V3, "c1");
    delete(&mut world.wire, TASK_V3, "c1");
    let said = world.folder.path().join("said");
    let kinds = ["prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop"];
    prepare(&world.containerd, "c2", COUNT, |config| {
        config["hooks"] =
            Value::Object(kinds.iter().map(|kind| ((*kind).to_owned(), hook(kind, &said))).collect());
    });
    world.restore().unwrap();
    assert!(!said.exists());
    world.start().unwrap();
    assert!(world.goes_on("c2"));
    world.end("c2");
    let said = std::fs::read_to_string(&said).unwrap();
    assert_eq!(said, "prestart \"creating\"\ncreateRuntime \"creating\"\npoststop \"stopped\"\n");
    // One that fails ends the restore.
    world.containerd.remove_bundle("c2");
    prepare(&world.containerd, "c2", COUNT, |config| {
        config["hooks"] = json!({ "createRuntime": [{ "path": "/bin/false" }] });
    });
    world.restore().unwrap();
    let (_, words) = world.start().unwrap_err();
    assert!(words.contains("hooks.createRuntime[0]"), "{words}");
    assert_eq!(wait(&mut world.wire, TASK_V3, "c2"), 137);
    delete(&mut world.wire, TASK_V3, "c2");
    world.finish();
}

#[test]
fn what_is_restored_has_a_session_keyring_of_its_own_unless_the_options_say_no() {
    let mut world = World::new(None);
    world.run();
    world.checkpoint(CheckpointOptions { exit: true, ..Default::default() }).unwrap();
    wait(&mut world.wire, TASK_V3, "c1");
    delete(&mut world.wire, TASK_V3, "c1");
    // There is one keyring of a name.
    for (id, no_new_keyring) in [("keyed", false), ("keyless", true)] {
        prepare(&world.containerd, id, COUNT, |_| {});
        let is_there = || std::fs::read_to_string("/proc/keys").unwrap().contains(&format!("_ses.{id}:"));
        assert!(!is_there());
        world.restore_as(id, oci::Options { no_new_keyring, ..Default::default() }).unwrap();
        world.start_as(id).unwrap();
        assert_eq!(is_there(), !no_new_keyring);
        world.end(id);
        world.containerd.remove_bundle(id);
    }
    world.finish();
}

/// Whether `c1`, which runs this script, can be written down with these options, and goes on afterwards and as `c2`.
fn with(script: &str, options: CheckpointOptions) -> Result<(), String> {
    let mut world = World::new(None);
    world.containerd.configure("c1", |config| config["process"]["args"][3] = script.into());
    world.run();
    let (work, mode) = (options.work_path.clone(), options.cgroups_mode.clone());
    let done = world.checkpoint(options);
    assert!(world.goes_on("c1"));
    world.end("c1");
    if done.is_ok() {
        if !work.is_empty() {
            assert!(Path::new(&work).join("dump.log").exists());
        }
        prepare(&world.containerd, "c2", script, |_| {});
        world.restore().unwrap();
        world.start().unwrap_or_else(|e| panic!("{mode}: {e:?}"));
        assert!(world.goes_on("c2"));
        world.end("c2");
    }
    world.finish();
    done.map(drop).map_err(|(_, words)| words)
}

#[test]
fn open_connections_are_written_down_if_the_options_say_so() {
    // The loopback device of a new network is down; a restored one is as empty, and the addresses are any.
    let connected = "busybox ip link set lo up; (sleep 1000 | nc -l -p 7000) & sleep 0.3; \
        (sleep 1000 | nc 127.0.0.1 7000) & sleep 0.3; ";
    let script = format!("{connected}{COUNT}").replace("busybox ip", "/busybox ip");
    let error = with(&script, Default::default()).unwrap_err();
    assert!(error.contains("--tcp-established"), "{error}");
}

#[test]
fn the_log_is_where_the_options_say_and_every_mode_of_cgroups_works() {
    let work = tempfile::tempdir().unwrap();
    let path = work.path().join("work").to_str().unwrap().to_owned();
    with(COUNT, CheckpointOptions { work_path: path, ..Default::default() }).unwrap();
    for mode in ["soft", "full", "strict"] {
        let empty_namespaces = vec!["network".into()];
        with(COUNT, CheckpointOptions { cgroups_mode: mode.into(), empty_namespaces, ..Default::default() })
            .unwrap();
    }
}
