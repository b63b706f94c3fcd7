//! Pods, in the order of each containerd's calls.

use crate::{connect, create, delete, kill, kill_process, service_of, start};
use containerd_shim_protos::api::*;
use containerd_shim_protos::sandbox_api::*;
use protobuf::well_known_types::any::Any;
use serde_json::{json, Value};
use std::path::{Path, PathBuf};
use std::time::Duration;
use testbed::fake::{ended, eventually, Containerd, Shim, Version};
use testbed::wire::{code, decode, Wire, CONTROLLER, NF, OK, SANDBOX};

/// Returns the pod's configuration, and makes its cgroup as a kubelet does.
fn options(containerd: &Containerd) -> Any {
    for folder in containerd.pod_cgroups() {
        std::fs::create_dir_all(&folder).unwrap_or_else(|e| panic!("{folder:?}: {e}"));
    }
    containerd.pod_options()
}

/// Returns a message with the id as field 1, which is what most of these requests are.
fn about(id: &str) -> PingRequest {
    PingRequest { sandbox_id: id.into(), ..Default::default() }
}

fn status(wire: &mut Wire) -> SandboxStatusResponse {
    wire.call(SANDBOX, "SandboxStatus", &about("s1")).unwrap()
}

/// Makes CreateSandbox and StartSandbox; returns the pod's pid.
fn run_pod(wire: &mut Wire, bundle: &Path, options: Option<Any>) -> u32 {
    let request = CreateSandboxRequest {
        sandbox_id: "s1".into(),
        bundle_path: bundle.to_str().unwrap().into(),
        options: options.into(),
        ..Default::default()
    };
    wire.call::<CreateSandboxResponse>(SANDBOX, "CreateSandbox", &request).unwrap();
    let started: StartSandboxResponse = wire.call(SANDBOX, "StartSandbox", &about("s1")).unwrap();
    assert!(started.pid != 0 && started.created_at.seconds > 0);
    started.pid
}

/// Prepares a container's bundle as CRI has containerd make it.
fn prepare_member(containerd: &Containerd, id: &str, pod: u32) {
    let bundle = containerd.prepare(id, &["/probe", "sleep"], json!({}));
    std::fs::write(bundle.join("sandbox"), "s1").unwrap();
    let config = std::fs::read(bundle.join("config.json")).unwrap();
    let mut config: Value = serde_json::from_slice(&config).unwrap();
    config["annotations"] =
        json!({ "io.kubernetes.cri.sandbox-id": "s1", "io.kubernetes.cri.container-type": "container" });
    let namespaces = config["linux"]["namespaces"].as_array_mut().unwrap();
    for (kind, name) in [("network", "net"), ("ipc", "ipc"), ("uts", "uts")] {
        namespaces.push(json!({ "type": kind, "path": format!("/proc/{pod}/ns/{name}") }));
    }
    config["linux"]["cgroupsPath"] = format!("/{}/pod/{id}", containerd.namespace).into();
    std::fs::write(bundle.join("config.json"), config.to_string()).unwrap();
}

fn namespaces(pid: u32) -> [PathBuf; 3] {
    ["net", "ipc", "uts"].map(|name| std::fs::read_link(format!("/proc/{pid}/ns/{name}")).unwrap())
}

/// Runs one container, on a connection of its own.
fn run_member(containerd: &Containerd, shim: &Shim, id: &str, pod: u32) -> (Wire, u32) {
    let service = service_of(shim);
    let mut wire = containerd.connect(shim);
    if containerd.version == Version::V1_7 {
        // 1.7 loads the shim for the container first.
        assert_eq!(connect(&mut wire, service, id).task_pid, 0);
    }
    let pid = create(containerd, &mut wire, service, id);
    assert_eq!(connect(&mut wire, service, id).task_pid, pid);
    assert_eq!(start(&mut wire, service, id), pid);
    assert_eq!(namespaces(pid), namespaces(pod));
    (wire, pid)
}

/// Ends the container.
fn end_member(containerd: &Containerd, shim: &Shim, mut wire: Wire, id: &str) {
    let service = service_of(shim);
    let wait = WaitRequest { id: id.into(), ..Default::default() };
    let mut waiting = containerd.connect(shim);
    waiting.ask(service, "Wait", &wait, Duration::ZERO);
    kill(&mut wire, service, id);
    assert_eq!(decode::<WaitResponse>(waiting.next().unwrap().1).unwrap().exit_status, 137);
    assert_eq!(delete(&mut wire, service, id).exit_status, 137);
    if containerd.version == Version::V2_4 {
        let request = ShutdownRequest { id: id.into(), ..Default::default() };
        wire.call::<Empty>(service, "Shutdown", &request).unwrap();
    }
    // No `delete`, since there was no `start`.
    containerd.remove_bundle(id);
}

/// Makes ShutdownSandbox, and does what containerd does after it.
fn end_pod(containerd: &Containerd, shim: &Shim, mut wire: Wire, server: u32) {
    wire.call::<ShutdownSandboxResponse>(SANDBOX, "ShutdownSandbox", &about("s1")).unwrap();
    assert!(wire.next().is_none(), "the shim hangs up");
    assert!(eventually(|| ended(server)), "the shim ends");
    assert!(!shim.path.exists(), "the socket is removed");
    let bundle = containerd.pod_bundle("s1");
    containerd.delete_in("s1", &bundle);
    containerd.remove(&bundle);
    remove_cgroups(containerd);
}

/// Removes the kubelet's cgroups; nothing of a container's may be left in them.
fn remove_cgroups(containerd: &Containerd) {
    for folder in containerd.pod_cgroups().into_iter().filter(|folder| folder.exists()) {
        std::fs::remove_dir(&folder).unwrap_or_else(|e| panic!("{folder:?}: {e}"));
    }
    assert_eq!(containerd.cgroups(), Vec::<PathBuf>::new());
}

/// CRI with sandboxer "shim": one pod with two containers.
fn pod(version: Version) {
    let containerd = Containerd::new(version);
    let bundle = containerd.prepare_pod("s1", None);
    let shim = containerd.try_start("s1", &bundle, None).unwrap();
    assert_eq!(shim.version, if version == Version::V1_7 { 2 } else { 3 });
    let mut wire = containerd.connect(&shim);
    let server = connect(&mut wire, service_of(&shim), "s1").shim_pid;
    let pid = run_pod(&mut wire, &bundle, Some(options(&containerd)));
    assert_eq!(status(&mut wire).state, "SANDBOX_READY");
    let mut waiting = containerd.connect(&shim);
    waiting.ask(SANDBOX, "WaitSandbox", &about("s1"), Duration::ZERO);
    let mut members = Vec::new();
    for id in ["c1", "c2"] {
        let status = status(&mut wire);
        assert_eq!((&*status.sandbox_id, status.pid), ("s1", pid));
        let platform: PlatformResponse = wire.call(SANDBOX, "Platform", &about("s1")).unwrap();
        assert_eq!(platform.platform.os, "linux");
        prepare_member(&containerd, id, pid);
        members.push((id, run_member(&containerd, &shim, id, pid).0));
    }
    for (id, wire) in members {
        end_member(&containerd, &shim, wire, id);
    }
    assert!(waiting.silent(Duration::from_millis(50)), "the pod has not ended with its containers");
    wire.call::<StopSandboxResponse>(SANDBOX, "StopSandbox", &about("s1")).unwrap();
    let exit: WaitSandboxResponse = decode(waiting.next().unwrap().1).unwrap();
    assert_eq!(exit.exit_status, 0);
    // RemovePodSandbox stops it again if it is not sure.
    wire.call::<StopSandboxResponse>(SANDBOX, "StopSandbox", &about("s1")).unwrap();
    assert_eq!(status(&mut wire).state, "SANDBOX_NOTREADY");
    end_pod(&containerd, &shim, wire, server);
}

#[test]
fn a_pod_under_1_7() {
    pod(Version::V1_7);
}

#[test]
fn a_pod_under_2_0() {
    pod(Version::V2_0);
}

#[test]
fn a_pod_under_2_3() {
    pod(Version::V2_3);
}

#[test]
fn a_pod_under_2_4() {
    pod(Version::V2_4);
}

#[test]
fn a_sandbox_of_ctr_is_what_its_config_says() {
    for version in [Version::V2_0, Version::V2_3] {
        let containerd = Containerd::new(version);
        let config = json!({
            "ociVersion": "1.1.0",
            "hostname": "web-0",
            "linux": {
                "namespaces": [{ "type": "network" }, { "type": "ipc" }, { "type": "uts" }],
                "cgroupsPath": format!("/{}/s1", containerd.namespace),
            },
            // Names another group: the pod has its own shim all the same.
            "annotations": { "io.containerd.runc.v2.group": "g1" },
        });
        let bundle = containerd.prepare_pod("s1", Some(&config));
        let none = Any { type_url: "google.protobuf.Empty".into(), ..Default::default() };
        let shim = containerd.try_start("s1", &bundle, Some(&none)).unwrap();
        let mut wire = containerd.connect(&shim);
        let server = connect(&mut wire, service_of(&shim), "s1").shim_pid;
        let pid = run_pod(&mut wire, &bundle, None);
        let host = namespaces(std::process::id());
        assert!(namespaces(pid).iter().zip(&host).all(|(pods, host)| pods != host));
        wire.call::<StopSandboxResponse>(SANDBOX, "StopSandbox", &about("s1")).unwrap();
        end_pod(&containerd, &shim, wire, server);
    }
}

#[test]
fn a_containerd_that_starts_again_finds_pod_and_containers() {
    for version in [Version::V1_7, Version::V2_3] {
        let containerd = Containerd::new(version);
        let bundle = containerd.prepare_pod("s1", None);
        let shim = containerd.try_start("s1", &bundle, None).unwrap();
        let service = service_of(&shim);
        let mut wire = containerd.connect(&shim);
        let pid = run_pod(&mut wire, &bundle, Some(options(&containerd)));
        prepare_member(&containerd, "c1", pid);
        let (member, task) = run_member(&containerd, &shim, "c1", pid);
        drop((wire, member));

        let pids = |wire: &mut Wire, id: &str| {
            let request = PidsRequest { id: id.into(), ..Default::default() };
            code(wire.call::<PidsResponse>(service, "Pids", &request))
        };
        let mut wire = containerd.connect(&shim);
        let connected = connect(&mut wire, service, "s1");
        assert_eq!(connected.task_pid, pid);
        assert_eq!(pids(&mut wire, "s1"), NF);
        let mut member = containerd.connect(&shim);
        assert_eq!(connect(&mut member, service, "c1").task_pid, task);
        assert_eq!(pids(&mut member, "c1"), OK);
        let found = status(&mut wire);
        assert_eq!((&*found.state, found.pid), ("SANDBOX_READY", pid));
        // Every connection to the shim has the same pod.
        let mut waiting = containerd.connect(&shim);
        waiting.ask(SANDBOX, "WaitSandbox", &about("s1"), Duration::ZERO);
        end_member(&containerd, &shim, member, "c1");
        // A containerd that has lost its records sees a leaked shim, and ends it by the pod's id.
        let request = ShutdownRequest { id: "s1".into(), ..Default::default() };
        wire.call::<Empty>(service, "Shutdown", &request).unwrap();
        decode::<WaitSandboxResponse>(waiting.next().unwrap().1).unwrap();
        assert!(wire.next().is_none());
        assert!(eventually(|| ended(connected.shim_pid)));
        containerd.delete_in("s1", &bundle);
        containerd.remove(&bundle);
        remove_cgroups(&containerd);
    }
}

/// How far a pod has come when its shim is killed.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Phase {
    Launched,
    Created,
    Started,
    MemberCreated,
    MemberRuns,
    Paused,
    MemberEnded,
    Stopped,
}

#[test]
fn a_lost_shim_s_pod_is_cleaned_up_in_every_phase() {
    use Phase::*;
    for phase in [Launched, Created, Started, MemberCreated, MemberRuns, Paused, MemberEnded, Stopped] {
        // containerd may remove what it knows of the container before, or after.
        for members_first in [false, true] {
            lose(phase, members_first);
        }
    }
}

fn lose(phase: Phase, members_first: bool) {
    println!("{phase:?}, containers first: {members_first}");
    let containerd = Containerd::new(Version::V2_3);
    let bundle = containerd.prepare_pod("s1", None);
    let shim = containerd.try_start("s1", &bundle, None).unwrap();
    let mut wire = containerd.connect(&shim);
    let service = service_of(&shim);
    let server = connect(&mut wire, service, "s1").shim_pid;
    let task = (phase != Phase::Launched).then(|| reach(phase, &containerd, &shim, &mut wire)).flatten();
    kill_process(server);
    let has_member = containerd.bundle("c1").exists();
    if members_first && has_member {
        containerd.remove_bundle("c1");
    }
    containerd.delete_in("s1", &bundle);
    if let Some(task) = task {
        assert!(eventually(|| ended(task)), "the container's process is left");
    }
    assert!(!shim.path.exists(), "the socket is left");
    // Again, and for the container: nothing more is found.
    containerd.delete_in("s1", &bundle);
    if !members_first && has_member {
        containerd.delete("c1");
        containerd.remove_bundle("c1");
    }
    containerd.remove(&bundle);
    remove_cgroups(&containerd);
}

/// Takes the pod to the phase; returns its container's process, if there is one by then.
fn reach(phase: Phase, containerd: &Containerd, shim: &Shim, wire: &mut Wire) -> Option<u32> {
    let bundle = containerd.pod_bundle("s1");
    let request = CreateSandboxRequest {
        sandbox_id: "s1".into(),
        bundle_path: bundle.to_str().unwrap().into(),
        options: Some(options(containerd)).into(),
        ..Default::default()
    };
    wire.call::<CreateSandboxResponse>(SANDBOX, "CreateSandbox", &request).unwrap();
    if phase == Phase::Created {
        return None;
    }
    let pod = wire.call::<StartSandboxResponse>(SANDBOX, "StartSandbox", &about("s1")).unwrap().pid;
    if phase == Phase::Started {
        return None;
    }
    prepare_member(containerd, "c1", pod);
    let service = service_of(shim);
    let pid = create(containerd, wire, service, "c1");
    if phase == Phase::MemberCreated {
        return Some(pid);
    }
    start(wire, service, "c1");
    match phase {
        Phase::Paused => {
            wire.call::<PingResponse>(CONTROLLER, "Pause", &about("s1")).unwrap();
        }
        Phase::MemberEnded => {
            kill(wire, service, "c1");
            let wait = WaitRequest { id: "c1".into(), ..Default::default() };
            wire.call::<WaitResponse>(service, "Wait", &wait).unwrap();
        }
        Phase::Stopped => {
            wire.call::<PingResponse>(SANDBOX, "StopSandbox", &about("s1")).unwrap();
        }
        _ => {}
    }
    Some(pid)
}

#[test]
fn a_lost_shim_s_paused_pod_is_cleaned_up_in_any_order() {
    for pod_first in [true, false] {
        let containerd = Containerd::new(Version::V2_3);
        let bundle = containerd.prepare_pod("s1", None);
        let shim = containerd.try_start("s1", &bundle, None).unwrap();
        let mut wire = containerd.connect(&shim);
        let server = connect(&mut wire, service_of(&shim), "s1").shim_pid;
        let pid = run_pod(&mut wire, &bundle, Some(options(&containerd)));
        let members = ["c1", "c2"].map(|id| {
            prepare_member(&containerd, id, pid);
            run_member(&containerd, &shim, id, pid).1
        });
        // Pauses by one write to the cgroup that the kubelet has made.
        wire.call::<PingResponse>(CONTROLLER, "Pause", &about("s1")).unwrap();
        kill_process(server);
        let pods = || containerd.delete_in("s1", &bundle).exit_status;
        for _ in 0..2 {
            if pod_first {
                assert_eq!(pods(), 137);
            }
            for id in ["c1", "c2"] {
                assert_eq!(containerd.delete(id).exit_status, 137);
            }
            assert_eq!(pods(), 137);
        }
        assert!(members.into_iter().all(|task| eventually(|| ended(task))), "a process is left");
        containerd.remove(&bundle);
        for id in ["c1", "c2"] {
            containerd.remove_bundle(id);
        }
        remove_cgroups(&containerd);
    }
}
