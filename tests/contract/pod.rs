//! The pod services over a real connection: every method in every state, and the contents of the answers.

use crate::pod_states::{about, controller, create_request, options, pod_in, sandbox, sharing_pids};
use crate::world::{kill_request, World, POD};
use containerd_shim_protos::api::*;
use containerd_shim_protos::cgroups_v2::metrics::Metrics;
use containerd_shim_protos::sandbox_api::*;
use containerd_shim_protos::types::mount::Mount;
use protobuf::{Message, MessageField};
use shoal::service::protos::sandbox::{
    ControllerStartRequest, ControllerStartResponse, ControllerStatusRequest, ControllerStatusResponse,
};
use shoal::service::protos::status::PodStatus;
use std::sync::atomic::Ordering;
use std::time::Duration;
use testbed::wire::{code, decode, Refusal, Wire, CONTROLLER, FP, NF, OK, SANDBOX, TASK_V2, TASK_V3};
use ttrpc::proto::Code;

fn status(world: &mut World, verbose: bool) -> SandboxStatusResponse {
    let request = SandboxStatusRequest { sandbox_id: POD.into(), verbose, ..Default::default() };
    world.wire.call(SANDBOX, "SandboxStatus", &request).unwrap()
}

fn extra(status: &SandboxStatusResponse) -> PodStatus {
    assert_eq!(status.extra.type_url, "io.containerd.shoal.v1.PodStatus");
    PodStatus::parse_from_bytes(&status.extra.value).unwrap()
}

fn shutdown(world: &mut World, id: &str) -> Code {
    let request = ShutdownRequest { id: id.into(), ..Default::default() };
    code(world.wire.task::<Empty>("Shutdown", &request))
}

#[test]
fn a_pod_tells_what_containerd_needs_of_it() {
    let mut world = World::new();
    pod_in(&mut world, "created");
    assert_eq!(status(&mut world, false).state, "SANDBOX_NOTREADY");
    let request = StartSandboxRequest { sandbox_id: POD.into(), ..Default::default() };
    let started: StartSandboxResponse = world.wire.call(SANDBOX, "StartSandbox", &request).unwrap();
    assert!(started.created_at.seconds > 1_000_000_000);
    assert_eq!(started.spec.type_url, "types.containerd.io/opencontainers/runtime-spec/1/Spec");
    let spec: serde_json::Value = serde_json::from_slice(&started.spec.value).unwrap();
    assert!(spec["linux"]["namespaces"].is_array(), "{spec}");

    let brief = status(&mut world, false);
    assert_eq!((brief.sandbox_id.as_str(), brief.state.as_str()), (POD, "SANDBOX_READY"));
    assert_eq!((brief.pid, &brief.created_at), (started.pid, &started.created_at));
    assert!(brief.info.is_empty() && brief.exited_at.is_none());
    let info: serde_json::Value = serde_json::from_str(&status(&mut world, true).info["info"]).unwrap();
    assert_eq!((&info["pid"], &info["processStatus"]), (&started.pid.into(), &"running".into()));
    assert_eq!((&info["runtimeSpec"], &info["config"]["metadata"]["name"]), (&spec, &"web".into()));

    let connect = ConnectRequest { id: POD.into(), ..Default::default() };
    for service in [TASK_V2, TASK_V3] {
        let connected: ConnectResponse = world.wire.call(service, "Connect", &connect).unwrap();
        assert_eq!((connected.shim_pid, connected.task_pid), (std::process::id(), started.pid));
    }
    let platform = PlatformRequest { sandbox_id: POD.into(), ..Default::default() };
    let platform: PlatformResponse = world.wire.call(SANDBOX, "Platform", &platform).unwrap();
    let architecture = if cfg!(target_arch = "x86_64") { "amd64" } else { "arm64" };
    assert_eq!((&*platform.platform.os, &*platform.platform.architecture), ("linux", architecture));
    let metrics = SandboxMetricsRequest { sandbox_id: POD.into(), ..Default::default() };
    let response: SandboxMetricsResponse = world.wire.call(SANDBOX, "SandboxMetrics", &metrics).unwrap();
    let metric = response.metrics.unwrap();
    assert!(metric.id == POD && metric.timestamp.seconds > 1_000_000_000);
    assert_eq!(metric.data.type_url, "io.containerd.cgroups.v2.Metrics");
    Metrics::parse_from_bytes(&metric.data.value).unwrap();
}

#[test]
fn the_end_of_a_pod_answers_all_who_wait() {
    let mut world = World::new();
    pod_in(&mut world, "ready");
    let (mut one, mut other) = (world.connect(), world.connect());
    let wait = WaitSandboxRequest { sandbox_id: POD.into(), ..Default::default() };
    one.ask(SANDBOX, "WaitSandbox", &wait, Duration::ZERO);
    other.ask(CONTROLLER, "Wait", &wait, Duration::ZERO);
    assert!(one.silent(Duration::from_millis(100)) && other.silent(Duration::from_millis(10)));
    // The same connection serves other calls meanwhile.
    one.call::<PingResponse>(SANDBOX, "PingSandbox", &wait).unwrap();
    assert_eq!(sandbox(&mut world, "StopSandbox", POD), OK);
    let first: WaitSandboxResponse = decode(one.next().unwrap().1).unwrap();
    let second: WaitSandboxResponse = decode(other.next().unwrap().1).unwrap();
    assert_eq!(first, second);
    let after = status(&mut world, true);
    assert_eq!(
        (after.state.as_str(), after.pid, &after.exited_at),
        ("SANDBOX_NOTREADY", 0, &first.exited_at)
    );
    assert!(first.exited_at.seconds > 1_000_000_000);
    let late: WaitSandboxResponse = world.wire.call(SANDBOX, "WaitSandbox", &wait).unwrap();
    assert_eq!(late, first);
    // A stopped pod stays until its shutdown.
    assert!(!world.has_ended());
    assert_eq!(sandbox(&mut world, "ShutdownSandbox", POD), OK);
    assert!(world.wire.next().is_none());
}

#[test]
fn the_controller_makes_and_starts_a_pod_at_once() {
    let mut world = World::new();
    world.pod_bundle();
    let request = ControllerStartRequest {
        sandbox_id: POD.into(),
        options: options(),
        rootfs: vec![Mount { type_: "overlay".into(), ..Default::default() }],
        ..Default::default()
    };
    let started: ControllerStartResponse = world.wire.call(CONTROLLER, "Start", &request).unwrap();
    assert_eq!(started.sandbox_id, POD);
    let told = |world: &mut World| -> ControllerStatusResponse {
        let request = ControllerStatusRequest { sandbox_id: POD.into(), ..Default::default() };
        world.wire.call(CONTROLLER, "Status", &request).unwrap()
    };
    let running = told(&mut world);
    assert_eq!((&*running.id, &*running.state, running.pid), (POD, "running", started.pid));
    assert!(running.exited_at.is_none());
    assert_eq!(controller(&mut world, "Pause", POD), OK);
    assert_eq!(told(&mut world).state, "paused");
    // CRI has no state for a paused pod.
    assert_eq!(status(&mut world, false).state, "SANDBOX_READY");
    assert_eq!(controller(&mut world, "Resume", POD), OK);
    assert_eq!(sandbox(&mut world, "StopSandbox", POD), OK);
    let stopped = told(&mut world);
    assert_eq!((&*stopped.state, stopped.pid, stopped.exit_status), ("stopped", 0, 0));
    assert!(stopped.exited_at.seconds > 1_000_000_000);
    assert_eq!(controller(&mut world, "Shutdown", POD), OK);
    assert!(world.wire.next().is_none() && world.has_ended());
}

#[test]
fn containers_live_and_end_within_their_pod() {
    let mut world = World::new();
    pod_in(&mut world, "created");
    let request = world.member("c1");
    let create = |world: &mut World, request: &CreateTaskRequest| {
        code(world.wire.task::<CreateTaskResponse>("Create", request))
    };
    assert_eq!(create(&mut world, &request), FP, "the pod is not started");
    assert_eq!(sandbox(&mut world, "StartSandbox", POD), OK);
    assert_eq!(create(&mut world, &request), OK);
    let of_the_pod = CreateTaskRequest { id: POD.into(), ..world.member("c2") };
    assert_eq!(create(&mut world, &of_the_pod), Code::ALREADY_EXISTS);
    let pid = world.start("c1", "");
    let extra_of = |world: &mut World| extra(&status(world, false));
    let [container] = &extra_of(&mut world).containers[..] else { panic!("one container") };
    assert_eq!((&*container.id, &*container.state, container.pid), ("c1", "running", pid));
    assert_eq!(sandbox(&mut world, "StopSandbox", POD), OK);
    assert_eq!(world.wait("c1", "").exit_status, 137);
    let [container] = &extra_of(&mut world).containers[..] else { panic!("one container") };
    assert_eq!((&*container.state, container.exit_status), ("stopped", 137));
    let late = world.member("c2");
    assert_eq!(create(&mut world, &late), FP, "the pod is stopped");
    assert_eq!(sandbox(&mut world, "ShutdownSandbox", POD), OK);
    assert!(world.wire.next().is_none());
    assert_eq!(world.events(4), ["create c1", "start c1", "exit c1 c1 137", "delete c1 137"]);
}

#[test]
fn a_task_s_shutdown_does_not_end_a_pod() {
    for state in ["created", "ready", "stopped"] {
        let mut world = World::new();
        pod_in(&mut world, state);
        if state == "ready" {
            let request = world.member("c1");
            world.wire.task::<CreateTaskResponse>("Create", &request).unwrap();
            assert_eq!(shutdown(&mut world, "c1"), OK);
            world.wire.task::<Empty>("Kill", &kill_request("c1", "", libc::SIGKILL, true)).unwrap();
            world.wait("c1", "");
            world.delete("c1", "");
        }
        assert_eq!(shutdown(&mut world, "c1"), OK);
        assert_eq!(sandbox(&mut world, "SandboxStatus", POD), OK);
        assert!(!world.has_ended());
        // containerd does so with a pod that it does not know.
        assert_eq!(shutdown(&mut world, POD), OK);
        assert!(world.wire.next().is_none() && world.has_ended(), "{state}");
    }
}

/// Starts a pause, lasting while the stage is stuck, of a pod with a running container.
fn being_paused() -> (World, u32, Wire) {
    let mut world = World::new();
    pod_in(&mut world, "ready");
    let request = world.member("c1");
    world.wire.task::<CreateTaskResponse>("Create", &request).unwrap();
    let pid = world.start("c1", "");
    world.stage.stuck.store(true, Ordering::SeqCst);
    let mut other = world.connect();
    other.ask(CONTROLLER, "Pause", &about(POD), Duration::ZERO);
    world.until(|stage| stage.freezing.load(Ordering::SeqCst));
    (world, pid, other)
}

#[test]
fn a_stop_that_overtakes_a_pause_leaves_nothing_frozen() {
    let (mut world, _, mut pause) = being_paused();
    assert_eq!(sandbox(&mut world, "StopSandbox", POD), OK);
    world.stage.stuck.store(false, Ordering::SeqCst);
    assert_eq!(code(decode::<Empty>(pause.next().unwrap().1)), FP);
    assert!(!world.stage.frozen.load(Ordering::SeqCst), "the pod's cgroup is left frozen");
    assert_eq!(world.events(3), ["create c1", "start c1", "exit c1 c1 137"]);
}

#[test]
fn a_container_that_is_killed_while_its_pod_is_being_paused_can_die() {
    let (world, _, mut pause) = being_paused();
    let mut killer = world.connect();
    killer.ask(TASK_V3, "Kill", &kill_request("c1", "", libc::SIGKILL, true), Duration::ZERO);
    std::thread::sleep(Duration::from_millis(50));
    world.stage.stuck.store(false, Ordering::SeqCst);
    assert_eq!(code(decode::<Empty>(pause.next().unwrap().1)), OK);
    assert_eq!(code(decode::<Empty>(killer.next().unwrap().1)), OK);
    assert!(!world.stage.frozen.load(Ordering::SeqCst), "it is frozen, and cannot die");
}

#[test]
fn a_container_that_ends_while_its_pod_is_being_paused_is_not_told_to_be_paused() {
    let (mut world, pid, mut pause) = being_paused();
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid as i32), nix::sys::signal::SIGKILL).unwrap();
    world.wait("c1", "");
    world.stage.stuck.store(false, Ordering::SeqCst);
    assert_eq!(code(decode::<Empty>(pause.next().unwrap().1)), OK);
    assert_eq!(controller(&mut world, "Resume", POD), OK);
    assert_eq!(world.events(3), ["create c1", "start c1", "exit c1 c1 137"]);
}

#[test]
fn a_pod_that_ends_while_it_is_paused_is_thawed_by_its_stop() {
    let mut world = World::new();
    let request = create_request(&world, POD);
    let request = CreateSandboxRequest { options: sharing_pids(), ..request };
    world.wire.call::<CreateSandboxResponse>(SANDBOX, "CreateSandbox", &request).unwrap();
    assert_eq!(sandbox(&mut world, "StartSandbox", POD), OK);
    let pid = status(&mut world, false).pid;
    assert_eq!(controller(&mut world, "Pause", POD), OK);
    assert!(world.stage.frozen.load(Ordering::SeqCst));
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid as i32), nix::sys::signal::SIGKILL).unwrap();
    let exit: WaitSandboxResponse = world.wire.call(SANDBOX, "WaitSandbox", &about(POD)).unwrap();
    assert_eq!(exit.exit_status, 137);
    assert_eq!(sandbox(&mut world, "StopSandbox", POD), OK);
    assert!(!world.stage.frozen.load(Ordering::SeqCst), "the pod's cgroup is left frozen");
}

#[test]
fn a_container_that_is_being_made_is_in_the_way_of_a_pause() {
    let mut world = World::new();
    pod_in(&mut world, "ready");
    let request = world.member("c1");
    world.stage.hold.store(true, Ordering::SeqCst);
    let mut other = world.connect();
    other.ask(TASK_V3, "Create", &request, Duration::ZERO);
    world.until(|stage| stage.held.load(Ordering::SeqCst));
    assert_eq!(controller(&mut world, "Pause", POD), FP);
    world.stage.hold.store(false, Ordering::SeqCst);
    assert_eq!(code(decode::<CreateTaskResponse>(other.next().unwrap().1)), OK);
    assert_eq!(controller(&mut world, "Pause", POD), OK);
}

#[test]
fn a_shutdown_ends_the_pod_that_is_being_made() {
    let world = World::new();
    let request = create_request(&world, POD);
    let request = CreateSandboxRequest { options: sharing_pids(), ..request };
    // The shim's own end waits for its peers, so both answers arrive.
    world.stage.stays.store(true, Ordering::SeqCst);
    world.stage.hold.store(true, Ordering::SeqCst);
    let (mut one, mut other) = (world.connect(), world.connect());
    one.ask(SANDBOX, "CreateSandbox", &request, Duration::ZERO);
    world.until(|stage| stage.held.load(Ordering::SeqCst));
    other.ask(SANDBOX, "ShutdownSandbox", &about(POD), Duration::ZERO);
    assert!(other.silent(Duration::from_millis(50)));
    world.stage.hold.store(false, Ordering::SeqCst);
    assert_eq!(code(decode::<CreateSandboxResponse>(one.next().unwrap().1)), FP);
    assert_eq!(code(decode::<ShutdownSandboxResponse>(other.next().unwrap().1)), OK);
    world.until(|_| world.has_ended());
}

#[test]
fn what_is_asked_of_a_pod_is_checked() {
    let mut world = World::new();
    let good = create_request(&world, POD);
    let with = |change: &dyn Fn(&mut CreateSandboxRequest)| {
        let mut request = good.clone();
        change(&mut request);
        request
    };
    let ask = |world: &mut World, request: &CreateSandboxRequest| -> Refusal {
        world.wire.call::<CreateSandboxResponse>(SANDBOX, "CreateSandbox", request).unwrap_err()
    };
    for (request, part) in [
        (with(&|r| r.bundle_path = "pod".into()), "bundle_path"),
        (with(&|r| r.netns_path = "netns/x".into()), "netns_path"),
        (with(&|r| r.netns_path = "/run/netns/x".into()), "netns_path"),
        (with(&|r| r.options.mut_or_insert_default().type_url = "some.Type".into()), "some.Type"),
        (with(&|r| r.options.mut_or_insert_default().value = vec![0xff]), "PodSandboxConfig"),
        (with(&|r| r.sandbox_id = "".into()), "sandbox_id"),
    ] {
        let (code, message) = ask(&mut world, &request);
        assert_eq!(code, Code::INVALID_ARGUMENT, "{message}");
        assert!(message.contains(part), "{part}: {message}");
    }
    // Without a configuration the bundle's counts, and here there is none.
    let (_, message) = ask(&mut world, &with(&|r| r.options = MessageField::none()));
    assert!(message.contains("config.json"), "{message}");
    // None of these failures prevents a good create.
    world.wire.call::<CreateSandboxResponse>(SANDBOX, "CreateSandbox", &good).unwrap();
    assert_eq!(controller(&mut world, "Ping", "another"), NF);
}

#[test]
fn a_pod_that_is_not_made_forgets_its_cgroup_only_once_it_is_removed() {
    for busy in [false, true] {
        let mut world = World::new();
        let request = create_request(&world, POD);
        let request = CreateSandboxRequest { options: sharing_pids(), ..request };
        world.stage.busy.store(busy, Ordering::SeqCst);
        *world.stage.refuse.lock().unwrap() = Some(libc::EACCES);
        let refused = world.wire.call::<CreateSandboxResponse>(SANDBOX, "CreateSandbox", &request);
        assert_ne!(code(refused), OK);
        // The `delete` verb finds by the record what is left.
        assert_eq!(world.pod_bundle().join("shoal.json").exists(), busy);
    }
}

#[test]
fn a_container_of_a_pod_that_is_still_being_made_is_refused() {
    let mut world = World::new();
    let request = create_request(&world, POD);
    let request = CreateSandboxRequest { options: sharing_pids(), ..request };
    world.stage.hold.store(true, Ordering::SeqCst);
    let mut other = world.connect();
    other.ask(SANDBOX, "CreateSandbox", &request, Duration::ZERO);
    world.until(|stage| stage.held.load(Ordering::SeqCst));
    let member = world.member("c1");
    let (refused, words) = world.wire.task::<CreateTaskResponse>("Create", &member).unwrap_err();
    assert!(refused == FP && words.contains("still being created"), "{words}");
    world.stage.hold.store(false, Ordering::SeqCst);
    assert_eq!(code(decode::<CreateSandboxResponse>(other.next().unwrap().1)), OK);
    assert_eq!(sandbox(&mut world, "StartSandbox", POD), OK);
    assert_eq!(code(world.wire.task::<CreateTaskResponse>("Create", &member)), OK);
}

#[test]
fn a_stop_that_waits_for_another_one_takes_over_where_that_fails() {
    let mut world = World::new();
    pod_in(&mut world, "ready");
    let request = world.member("c1");
    world.wire.task::<CreateTaskResponse>("Create", &request).unwrap();
    world.start("c1", "");
    *world.stage.late.lock().unwrap() = Duration::from_secs(2);
    let (mut one, mut other) = (world.connect(), world.connect());
    let stop =
        |timeout_secs| StopSandboxRequest { sandbox_id: POD.into(), timeout_secs, ..Default::default() };
    let begun = std::time::Instant::now();
    one.ask(SANDBOX, "StopSandbox", &stop(1), Duration::ZERO);
    std::thread::sleep(Duration::from_millis(100));
    other.ask(SANDBOX, "StopSandbox", &stop(9), Duration::ZERO);
    assert_eq!(code(decode::<StopSandboxResponse>(one.next().unwrap().1)), Code::DEADLINE_EXCEEDED);
    assert_eq!(code(decode::<StopSandboxResponse>(other.next().unwrap().1)), OK);
    assert!(begun.elapsed() < Duration::from_secs(8), "{:?}", begun.elapsed());
}

#[test]
fn a_pause_that_a_failed_stop_has_overtaken_leaves_the_next_one_alone() {
    let (mut world, _, mut first) = being_paused();
    *world.stage.late.lock().unwrap() = Duration::from_secs(2);
    let stop = StopSandboxRequest { sandbox_id: POD.into(), timeout_secs: 1, ..Default::default() };
    let stopped = world.wire.call::<StopSandboxResponse>(SANDBOX, "StopSandbox", &stop);
    assert_eq!(code(stopped), Code::DEADLINE_EXCEEDED);
    let mut second = world.connect();
    world.stage.freezing.store(false, Ordering::SeqCst);
    second.ask(CONTROLLER, "Pause", &about(POD), Duration::ZERO);
    world.until(|stage| stage.freezing.load(Ordering::SeqCst));
    world.stage.stuck.store(false, Ordering::SeqCst);
    assert_eq!(code(decode::<Empty>(first.next().unwrap().1)), FP);
    assert_eq!(code(decode::<Empty>(second.next().unwrap().1)), OK);
    assert!(world.stage.frozen.load(Ordering::SeqCst), "the second one's freeze is undone");
    assert_eq!(controller(&mut world, "Resume", POD), OK);
}
