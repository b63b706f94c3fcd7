//! The real binary, driven as each version of containerd drives it. Needs root.

mod agents;
mod bad_input;
mod checkpoint;
#[allow(dead_code, reason = "not all that the other tests need of it")]
#[path = "../deaf/fuse.rs"]
mod deaf;
mod fuse;
mod images;
mod mounts;
mod neighbours;
mod options;
mod pods;
mod process;
mod store;
mod streams;

use containerd_shim_protos::api::*;
use containerd_shim_protos::shim::oci;
use containerd_shim_protos::types::introspection::RuntimeInfo;
use nix::fcntl::{openat, OFlag};
use nix::sys::stat::{mkdirat, Mode};
use protobuf::well_known_types::any::Any;
use protobuf::Message;
use serde_json::{json, Value};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;
use testbed::fake::{ended, eventually, Containerd, Shim, Version};
use testbed::wire::{decode, Wire, TASK_V2, TASK_V3};

/// The shim of this build.
const SHIM: &str = env!("CARGO_BIN_EXE_containerd-shim-shoal-v2");

fn create_request(containerd: &Containerd, id: &str) -> CreateTaskRequest {
    let bundle = containerd.bundle(id).to_str().unwrap().to_owned();
    CreateTaskRequest { id: id.into(), bundle, ..Default::default() }
}

fn create(containerd: &Containerd, wire: &mut Wire, service: &str, id: &str) -> u32 {
    let request = create_request(containerd, id);
    wire.call::<CreateTaskResponse>(service, "Create", &request).unwrap().pid
}

fn connect(wire: &mut Wire, service: &str, id: &str) -> ConnectResponse {
    wire.call(service, "Connect", &ConnectRequest { id: id.into(), ..Default::default() }).unwrap()
}

fn start(wire: &mut Wire, service: &str, id: &str) -> u32 {
    let request = StartRequest { id: id.into(), ..Default::default() };
    wire.call::<StartResponse>(service, "Start", &request).unwrap().pid
}

fn kill(wire: &mut Wire, service: &str, id: &str) {
    let signal = libc::SIGKILL as u32;
    let request = KillRequest { id: id.into(), signal, all: true, ..Default::default() };
    wire.call::<Empty>(service, "Kill", &request).unwrap();
}

fn delete(wire: &mut Wire, service: &str, id: &str) -> DeleteResponse {
    wire.call(service, "Delete", &DeleteRequest { id: id.into(), ..Default::default() }).unwrap()
}

fn wait(wire: &mut Wire, service: &str, id: &str) -> u32 {
    let request = WaitRequest { id: id.into(), ..Default::default() };
    wire.call::<WaitResponse>(service, "Wait", &request).unwrap().exit_status
}

fn service_of(shim: &Shim) -> &'static str {
    if shim.version == 2 {
        TASK_V2
    } else {
        TASK_V3
    }
}

/// Takes one container from `start` to the removal of its bundle, in the order of containerd's calls.
fn life(version: Version) {
    let containerd = Containerd::new(version);
    let bundle = containerd.prepare("c1", &["/probe", "sleep"], json!({}));
    let shim = containerd.start("c1");
    assert_eq!(shim.version, if version.modern() { 3 } else { 2 });
    let address = std::fs::read_to_string(bundle.join("address")).unwrap();
    assert_eq!(address, format!("unix://{}", shim.path.display()));
    let service = service_of(&shim);

    let mut wire = containerd.connect(&shim);
    let pid = create(&containerd, &mut wire, service, "c1");
    let connected = connect(&mut wire, service, "c1");
    assert_eq!(connected.task_pid, pid);
    let mut waiting = containerd.connect(&shim);
    waiting.ask(service, "Wait", &WaitRequest { id: "c1".into(), ..Default::default() }, Duration::ZERO);
    assert_eq!(start(&mut wire, service, "c1"), pid);
    let state: StateResponse =
        wire.call(service, "State", &StateRequest { id: "c1".into(), ..Default::default() }).unwrap();
    assert_eq!((state.pid, state.status.enum_value().unwrap()), (pid, Status::RUNNING));
    assert!(waiting.silent(Duration::from_millis(50)));
    kill(&mut wire, service, "c1");
    let exit: WaitResponse = decode(waiting.next().unwrap().1).unwrap();
    assert_eq!(exit.exit_status, 137);
    assert_eq!(delete(&mut wire, service, "c1").exit_status, 137);
    wire.call::<Empty>(service, "Shutdown", &ShutdownRequest { id: "c1".into(), ..Default::default() })
        .unwrap();
    assert!(wire.next().is_none(), "the shim hangs up");
    assert!(eventually(|| ended(connected.shim_pid)), "the shim ends");
    assert!(!shim.path.exists(), "the socket is removed");

    containerd.delete("c1");
    containerd.remove_bundle("c1");
    assert_eq!(containerd.cgroups(), Vec::<std::path::PathBuf>::new());
    let topics: Vec<String> = (0..4).map(|_| containerd.events.next().topic).collect();
    assert_eq!(topics, ["/tasks/create", "/tasks/start", "/tasks/exit", "/tasks/delete"]);
}

#[test]
fn a_life_under_1_7() {
    life(Version::V1_7);
}

#[test]
fn a_life_under_2_0() {
    life(Version::V2_0);
}

#[test]
fn a_life_under_2_3() {
    life(Version::V2_3);
}

#[test]
fn the_sandbox_launch_of_2_0_is_answered_with_version_3_and_needs_no_config() {
    let containerd = Containerd::new(Version::V2_0);
    let folder = containerd.dir.path().join("io.containerd.sandbox.controller.v1.shim/k8s.io/s1");
    std::fs::create_dir_all(&folder).unwrap();
    let shim = containerd.try_start("s1", &folder, None).unwrap();
    assert_eq!(shim.version, 3);
    let mut wire = containerd.connect(&shim);
    let connected = connect(&mut wire, TASK_V3, "s1");
    assert_eq!(connected.task_pid, 0);
    wire.task::<Empty>("Shutdown", &ShutdownRequest { id: "s1".into(), ..Default::default() }).unwrap();
    assert!(eventually(|| ended(connected.shim_pid)));
}

#[test]
fn a_pod_has_one_server() {
    for annotation in ["io.containerd.runc.v2.group", "io.kubernetes.cri.sandbox-id"] {
        let containerd = Containerd::new(Version::V1_7);
        let mut group = serde_json::Map::new();
        group.insert(annotation.into(), "pod1".into());
        let ids = ["pod1", "c1", "c2"];
        let shims: Vec<Shim> = std::thread::scope(|scope| {
            let start = |id: &'static str, group: Value| {
                containerd.prepare(id, &["/probe", "sleep"], group);
                scope.spawn(|| containerd.start(id))
            };
            let all = ids.map(|id| start(id, group.clone().into()));
            all.into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        assert!(shims.iter().all(|shim| shim.path == shims[0].path), "{shims:?}");
        let mut wires: Vec<Wire> = shims.iter().map(|shim| containerd.connect(shim)).collect();
        let mut servers = Vec::new();
        for (wire, id) in wires.iter_mut().zip(ids) {
            create(&containerd, wire, TASK_V2, id);
            start(wire, TASK_V2, id);
            servers.push(connect(wire, TASK_V2, id).shim_pid);
        }
        assert!(servers.iter().all(|pid| *pid == servers[0]), "{servers:?}");
        for (wire, id) in wires.iter_mut().zip(ids).rev() {
            kill(wire, TASK_V2, id);
            wire.call::<WaitResponse>(TASK_V2, "Wait", &WaitRequest { id: id.into(), ..Default::default() })
                .unwrap();
            delete(wire, TASK_V2, id);
            if id == "pod1" {
                // The Shutdown of the others was remembered.
                assert!(wire.next().is_none());
            } else {
                let shutdown = ShutdownRequest { id: id.into(), ..Default::default() };
                wire.call::<Empty>(TASK_V2, "Shutdown", &shutdown).unwrap();
            }
            // While others exist, `delete` must not touch their server.
            containerd.delete(id);
            containerd.remove_bundle(id);
        }
        assert!(eventually(|| ended(servers[0])));
        assert!(containerd.cgroups().is_empty());
    }
}

#[test]
fn a_lost_shim_is_cleaned_up_and_its_socket_replaced() {
    let containerd = Containerd::new(Version::V2_3);
    containerd.prepare("c1", &["/probe", "sleep"], json!({}));
    let shim = containerd.start("c1");
    let mut wire = containerd.connect(&shim);
    let pid = create(&containerd, &mut wire, TASK_V3, "c1");
    start(&mut wire, TASK_V3, "c1");
    let server = connect(&mut wire, TASK_V3, "c1").shim_pid;
    kill_process(server);
    assert!(wire.next().is_none());
    assert!(shim.path.exists());

    // The next launch finds a socket without a server.
    let again = containerd.start("c1");
    assert_eq!(again.path, shim.path);
    let mut wire = containerd.connect(&again);
    let second = connect(&mut wire, TASK_V3, "c1").shim_pid;
    assert_ne!(second, server);
    kill_process(second);
    assert!(wire.next().is_none());

    let response = containerd.delete("c1");
    assert_eq!((response.pid, response.exit_status), (pid, 137));
    assert!(ended(pid), "the container's process is left");
    assert!(containerd.cgroups().is_empty(), "{:?}", containerd.cgroups());
    assert!(!shim.path.exists(), "the socket is left");
    // Again, when everything is gone.
    assert_eq!(containerd.delete("c1").pid, 0);
    containerd.remove_bundle("c1");
}

/// It may write to its cgroup, so it nests more than a path holds, and freezes itself.
#[test]
fn what_a_lost_shim_s_container_has_nested_and_frozen_goes_with_it() {
    let containerd = Containerd::new(Version::V2_3);
    containerd.prepare("c1", &["/probe", "sleep"], json!({}));
    let shim = containerd.start("c1");
    let mut wire = containerd.connect(&shim);
    let pid = create(&containerd, &mut wire, TASK_V3, "c1");
    start(&mut wire, TASK_V3, "c1");
    let own = freezer_of(pid);
    let (name, open) = ("n".repeat(200), OFlag::O_DIRECTORY | OFlag::O_CLOEXEC);
    let top: OwnedFd = std::fs::File::open(&own).unwrap().into();
    let deepest = (0..60).fold(top, |above, _| {
        mkdirat(&above, name.as_str(), Mode::S_IRWXU).unwrap();
        openat(&above, name.as_str(), open, Mode::empty()).unwrap()
    });
    let write = |file: &str, text: &str| {
        let file = openat(&deepest, file, OFlag::O_WRONLY | OFlag::O_CLOEXEC, Mode::empty());
        file.is_ok_and(|file| nix::unistd::write(&file, text.as_bytes()).is_ok())
    };
    assert!(write("cgroup.procs", &pid.to_string()));
    assert!(write("freezer.state", "FROZEN") || write("cgroup.freeze", "1"));
    kill_process(connect(&mut wire, TASK_V3, "c1").shim_pid);
    assert!(wire.next().is_none());
    let done = containerd.verb("c1", &containerd.bundle("c1"), &["delete"]);
    assert_eq!((done.code, done.stderr.as_str()), (Some(0), ""));
    assert!(ended(pid), "the container's process is left");
    assert!(containerd.cgroups().is_empty(), "{:?}", containerd.cgroups());
    containerd.remove_bundle("c1");
}

/// Returns the cgroup of a process in the hierarchy that freezes.
fn freezer_of(pid: u32) -> PathBuf {
    let text = std::fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap();
    let v1 = text.lines().find_map(|line| line.split_once(":freezer:/"));
    let (mount, path) = match v1 {
        Some((_, path)) => ("/sys/fs/cgroup/freezer", path),
        None => ("/sys/fs/cgroup", text.lines().find_map(|line| line.strip_prefix("0::/")).unwrap()),
    };
    Path::new(mount).join(path)
}

#[test]
fn a_lost_shim_s_container_that_had_ended_keeps_its_exit() {
    let containerd = Containerd::new(Version::V1_7);
    containerd.prepare("c1", &["/probe", "exit", "7"], json!({}));
    let shim = containerd.start("c1");
    let mut wire = containerd.connect(&shim);
    let pid = create(&containerd, &mut wire, TASK_V2, "c1");
    start(&mut wire, TASK_V2, "c1");
    let exit: WaitResponse =
        wire.call(TASK_V2, "Wait", &WaitRequest { id: "c1".into(), ..Default::default() }).unwrap();
    assert_eq!(exit.exit_status, 7);
    let server = connect(&mut wire, TASK_V2, "c1").shim_pid;
    // The record is written before the exit is reported.
    kill_process(server);
    assert!(wire.next().is_none());
    let response = containerd.delete("c1");
    assert_eq!((response.pid, response.exit_status), (pid, 7));
    assert_eq!(response.exited_at, exit.exited_at);
    containerd.remove_bundle("c1");
    assert!(containerd.cgroups().is_empty());
}

#[test]
fn the_poststop_hooks_of_a_lost_shim_are_run() {
    let containerd = Containerd::new(Version::V2_3);
    let bundle = containerd.prepare("c1", &["/probe", "sleep"], json!({ "a": "b" }));
    let config = bundle.join("config.json");
    let mut spec: Value = serde_json::from_slice(&std::fs::read(&config).unwrap()).unwrap();
    let hook = |script: &str| json!({ "path": "/bin/sh", "args": ["sh", "-c", script] });
    spec["hooks"]["poststop"] = json!([hook("cat >state"), hook("exec sleep 1000")]);
    std::fs::write(&config, spec.to_string()).unwrap();
    let shim = containerd.start("c1");
    let mut wire = containerd.connect(&shim);
    create(&containerd, &mut wire, TASK_V3, "c1");
    kill_process(connect(&mut wire, TASK_V3, "c1").shim_pid);
    assert!(wire.next().is_none());

    let begun = std::time::Instant::now();
    let done = containerd.verb("c1", &bundle, &["delete"]);
    assert_eq!(done.code, Some(0));
    assert!(done.stderr.contains("hooks.poststop[1] \"/bin/sh\": killed after 1s"), "{}", done.stderr);
    assert_eq!(DeleteResponse::parse_from_bytes(&done.stdout).unwrap().exit_status, 137);
    assert!(begun.elapsed() < Duration::from_secs(4), "containerd waits for five seconds");
    let state: Value = serde_json::from_slice(&std::fs::read(bundle.join("state")).unwrap()).unwrap();
    assert_eq!((&state["id"], &state["status"]), (&"c1".into(), &"stopped".into()));
    assert_eq!(state["annotations"]["a"], "b");
    // The hooks have run: the next call finds no record.
    std::fs::remove_file(bundle.join("state")).unwrap();
    containerd.delete("c1");
    assert!(!bundle.join("state").exists());
    containerd.remove_bundle("c1");
}

fn kill_process(pid: u32) {
    let pid = nix::unistd::Pid::from_raw(pid as i32);
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGKILL).unwrap();
    assert!(eventually(|| ended(pid.as_raw() as u32)));
}

fn shut_down(mut wire: Wire, id: &str) {
    wire.task::<Empty>("Shutdown", &ShutdownRequest { id: id.into(), ..Default::default() }).unwrap();
    assert!(wire.next().is_none());
}

#[test]
fn a_launch_that_fails_says_why_and_leaves_nothing() {
    let containerd = Containerd::new(Version::V1_7);
    let bundle = containerd.prepare("c1", &["/probe", "sleep"], json!({}));
    let wrong = Any { type_url: "no.such.Options".into(), ..Default::default() };
    let error = containerd.try_start("c1", &bundle, Some(&wrong)).unwrap_err();
    assert!(error.contains("no.such.Options"), "{error}");
    let options = oci::Options { shim_cgroup: "/no/such/cgroup".into(), ..Default::default() };
    let error = containerd.try_start("c1", &bundle, Some(&runc(options))).unwrap_err();
    assert!(error.contains("ShimCgroup") && error.contains("/no/such/cgroup"), "{error}");
    std::fs::write(bundle.join("config.json"), "{ \"annotations\": 1 }").unwrap();
    let error = containerd.try_start("c1", &bundle, None).unwrap_err();
    assert!(
        error.starts_with("containerd-shim-shoal-v2: annotations: ") && !error.contains("line"),
        "{error}"
    );
    assert!(!bundle.join("address").exists());
    for (words, code, part) in [
        (&["start", "-what"][..], Some(1), "annotations: "),
        (&["-what", "start"], Some(2), "-what"),
        (&["stop"], Some(2), "stop"),
        (&[], Some(1), "descriptor 3"),
    ] {
        let done = containerd.verb("c1", &bundle, words);
        assert_eq!(done.code, code, "{words:?}: {}", done.stderr);
        assert!(done.stderr.contains(part), "{words:?}: {}", done.stderr);
    }
}

fn runc(options: oci::Options) -> Any {
    let value = options.write_to_bytes().unwrap();
    Any { type_url: "containerd.runc.v1.Options".into(), value, ..Default::default() }
}

#[test]
fn what_the_binary_says_about_itself() {
    for flag in ["-v", "-version", "--version"] {
        let output = Command::new(SHIM).arg(flag).output().unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        assert!(
            text.starts_with("containerd-shim-shoal-v2:") && text.contains(env!("CARGO_PKG_VERSION")),
            "{text}"
        );
    }
    // Without a namespace, as containerd calls it.
    let output = Command::new(SHIM).arg("-info").output().unwrap();
    assert!(output.status.success() && output.stderr.is_empty());
    let info = RuntimeInfo::parse_from_bytes(&output.stdout).unwrap();
    assert_eq!(info.name, "io.containerd.shoal.v2");
    let features = info.features.unwrap();
    assert_eq!(features.type_url, "types.containerd.io/opencontainers/runtime-spec/1/features/Features");
    let features: Value = serde_json::from_slice(&features.value).unwrap();
    assert!(features["linux"]["mountExtensions"]["idmap"]["enabled"].is_boolean(), "containerd reads it");
    assert!(features["mountOptions"].as_array().unwrap().contains(&"rro".into()));
    let annotations = &features["annotations"];
    assert_eq!(annotations["io.containerd.shoal.version"], env!("CARGO_PKG_VERSION"));
    assert!(annotations["io.github.seccomp.libseccomp.version"].as_str().unwrap().starts_with("2."));
    // The same for whoever asks as runc is asked.
    let output = Command::new(SHIM).arg("features").output().unwrap();
    assert!(output.status.success() && output.stderr.is_empty());
    assert_eq!(serde_json::from_slice::<Value>(&output.stdout).unwrap(), features);
}
