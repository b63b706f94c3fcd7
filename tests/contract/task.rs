//! The Task service over a real connection: every method in every state, codes and the order of events.

use crate::states::{call, container_in};
use crate::world::{exec_request, kill_request, update_request, World};
use containerd_shim_protos::api::*;
use containerd_shim_protos::shim::oci::ProcessDetails;
use protobuf::{Enum, Message};
use std::sync::atomic::Ordering;
use std::time::Duration;
use testbed::wire::{code, decode, FP, NF, OK, TASK_V2, TASK_V3, UN};
use ttrpc::proto::Code;

#[test]
fn an_exec_of_a_container_that_has_ended_cannot_start() {
    let mut world = World::new();
    container_in(&mut world, "running");
    world.add("c1", "e1");
    world.end("c1", "");
    assert_eq!(call(&mut world, "Start", "e1"), FP);
    assert_eq!(call(&mut world, "Delete", "e1"), OK);
}

#[test]
fn an_exec_that_is_born_after_the_containers_end_is_killed_too() {
    let mut world = World::new();
    // The exec is in the host's pid namespace: no kernel ends it with the first process.
    world.create_with("c1", r#", { "type": "pid" }"#, "");
    world.start("c1", "");
    world.add("c1", "e1");
    let mut other = world.connect();
    world.stage.hold.store(true, Ordering::SeqCst);
    let start = StartRequest { id: "c1".into(), exec_id: "e1".into(), ..Default::default() };
    other.ask(TASK_V3, "Start", &start, Duration::ZERO);
    world.until(|stage| stage.held.load(Ordering::SeqCst));
    world.wire.task::<Empty>("Kill", &kill_request("c1", "", libc::SIGTERM, false)).unwrap();
    world.until(|stage| stage.kills.load(Ordering::SeqCst) > 0);
    world.stage.hold.store(false, Ordering::SeqCst);
    let refused = decode::<StartResponse>(other.next().unwrap().1).unwrap_err();
    assert!(refused.1.contains("killed while it was made"), "{refused:?}");
    assert_eq!(world.wait("c1", "e1").exit_status, 255);
    assert_eq!(world.wait("c1", "").exit_status, 143);
    world.until(|stage| stage.pids().is_empty());
}

#[test]
fn a_kill_in_the_last_moment_of_a_create_is_not_lost() {
    let mut world = World::new();
    let (stage, mut other, request) = (world.stage.clone(), world.connect(), world.create_request("c1"));
    // Its process exists, and its event cannot be queued yet.
    let events = stage.events.lock().unwrap();
    other.ask(TASK_V3, "Create", &request, Duration::ZERO);
    world.until(|stage| !stage.pids().is_empty());
    std::thread::sleep(Duration::from_millis(50));
    world.wire.task::<Empty>("Kill", &kill_request("c1", "", libc::SIGKILL, false)).unwrap();
    drop(events);
    decode::<CreateTaskResponse>(other.next().unwrap().1).unwrap();
    assert_eq!(world.wait("c1", "").exit_status, 137);
}

#[test]
fn a_kill_in_the_last_moment_of_an_exec_s_start_is_not_lost() {
    let mut world = World::new();
    container_in(&mut world, "running");
    world.add("c1", "e1");
    let stage = world.stage.clone();
    let [mut starts, mut adds, mut kills] = [(); 3].map(|()| world.connect());
    stage.hold.store(true, Ordering::SeqCst);
    let start = StartRequest { id: "c1".into(), exec_id: "e1".into(), ..Default::default() };
    starts.ask(TASK_V3, "Start", &start, Duration::ZERO);
    world.until(|stage| stage.held.load(Ordering::SeqCst));
    // The Exec of e2 holds the container until its event is queued; the kill is next, and the start comes after it.
    let pause = || std::thread::sleep(Duration::from_millis(100));
    let events = stage.events.lock().unwrap();
    adds.ask(TASK_V3, "Exec", &exec_request("c1", "e2"), Duration::ZERO);
    pause();
    kills.ask(TASK_V3, "Kill", &kill_request("c1", "e1", libc::SIGKILL, false), Duration::ZERO);
    pause();
    stage.hold.store(false, Ordering::SeqCst);
    world.until(|stage| stage.pids().len() == 2);
    pause();
    drop(events);
    decode::<Empty>(kills.next().unwrap().1).unwrap();
    decode::<StartResponse>(starts.next().unwrap().1).unwrap();
    assert_eq!(world.wait("c1", "e1").exit_status, 137);
}

#[test]
fn the_events_of_a_life_come_in_order() {
    let mut world = World::new();
    world.create("c1");
    world.start("c1", "");
    world.add("c1", "e1");
    world.add("c1", "e2");
    world.start("c1", "e1");
    world.start("c1", "e2");
    world.end("c1", "e1");
    // The exec outlives the container's first process for a moment, and is still reported first.
    let mut other = world.connect();
    other.task::<Empty>("Kill", &kill_request("c1", "", libc::SIGTERM, false)).unwrap();
    std::thread::sleep(Duration::from_millis(50));
    assert_eq!(world.end("c1", "e2").exit_status, 137);
    assert_eq!(world.wait("c1", "").exit_status, 143);
    world.delete("c1", "e1");
    assert_eq!(world.delete("c1", "").exit_status, 143);
    let expected = [
        "create c1",
        "start c1",
        "exec-added c1 e1",
        "exec-added c1 e2",
        "exec-started c1 e1",
        "exec-started c1 e2",
        "exit c1 e1 137",
        "exit c1 e2 137",
        "exit c1 c1 143",
        "delete c1 143",
    ];
    assert_eq!(world.events(expected.len()), expected);
}

#[test]
fn both_versions_of_the_service_are_the_same_and_others_are_not_implemented() {
    let mut world = World::new();
    let pid = world.create("c1");
    let request = ConnectRequest { id: "c1".into(), ..Default::default() };
    for service in [TASK_V2, TASK_V3] {
        let response: ConnectResponse = world.wire.call(service, "Connect", &request).unwrap();
        assert_eq!((response.task_pid, response.shim_pid), (pid, std::process::id()));
    }
    for (service, method) in
        [(TASK_V3, "Nothing"), ("containerd.task.v1.Task", "Connect"), ("", ""), (TASK_V2, "")]
    {
        assert_eq!(code(world.wire.call::<Empty>(service, method, &request)), UN, "{service}/{method}");
    }
    assert_eq!(code(world.wire.task::<Empty>("Connect", &wrong_message())), Code::INVALID_ARGUMENT);
}

/// Returns a request whose field 1, a string in every Task request, is not valid UTF-8.
fn wrong_message() -> protobuf::well_known_types::wrappers::BytesValue {
    protobuf::well_known_types::wrappers::BytesValue { value: vec![0xff, 0xfe], ..Default::default() }
}

#[test]
fn a_panic_in_a_handler_is_internal_and_leaves_nothing() {
    let mut world = World::new();
    world.stage.panic.store(true, std::sync::atomic::Ordering::SeqCst);
    let request = world.create_request("c1");
    let (code, message) = world.wire.task::<CreateTaskResponse>("Create", &request).unwrap_err();
    assert_eq!(code, Code::INTERNAL);
    assert!(message.contains("Task.Create"), "{message}");
    world.create("c1");
    world.start("c1", "");
}

#[test]
fn requests_that_are_wrong_in_themselves_are_refused() {
    let mut world = World::new();
    let invalid = Code::INVALID_ARGUMENT;
    let good = world.create_request("c1");
    let with = |change: &dyn Fn(&mut CreateTaskRequest)| {
        let mut request = good.clone();
        change(&mut request);
        request
    };
    let any = |url: &str| protobuf::well_known_types::any::Any { type_url: url.into(), ..Default::default() };
    for (request, expected) in [
        (with(&|r| r.id = "".into()), invalid),
        (with(&|r| r.id = "../c1".into()), invalid),
        (with(&|r| r.bundle = "bundle".into()), invalid),
        (with(&|r| r.checkpoint = "/image".into()), UN),
        (with(&|r| r.options = Some(any("some.Type")).into()), invalid),
    ] {
        assert_eq!(code(world.wire.task::<CreateTaskResponse>("Create", &request)), expected, "{request:?}");
    }
    world.create("c1");
    world.start("c1", "");
    let mut exec = exec_request("c1", "");
    assert_eq!(code(world.wire.task::<Empty>("Exec", &exec)), invalid);
    exec.exec_id = "e1".into();
    exec.spec = Some(any("google.protobuf.Empty")).into();
    assert_eq!(code(world.wire.task::<Empty>("Exec", &exec)), invalid);
    exec.spec = None.into();
    assert_eq!(code(world.wire.task::<Empty>("Exec", &exec)), invalid);
    let mut update = update_request("c1");
    update.resources = None.into();
    assert_eq!(code(world.wire.task::<Empty>("Update", &update)), invalid);
    assert_eq!(code(world.wire.task::<Empty>("Kill", &kill_request("c1", "", 65, false))), invalid);
    let resize = ResizePtyRequest { id: "c1".into(), width: 70_000, ..Default::default() };
    assert_eq!(code(world.wire.task::<Empty>("ResizePty", &resize)), invalid);
    assert_eq!(world.events(2), ["create c1", "start c1"]);
}

#[test]
fn a_bundle_without_a_config_is_an_error_that_names_it() {
    let mut world = World::new();
    let request = world.create_request("c1");
    std::fs::remove_file(world.bundle("c1").join("config.json")).unwrap();
    let (_, message) = world.wire.task::<CreateTaskResponse>("Create", &request).unwrap_err();
    assert!(message.contains("config.json") && message.contains("no such file or directory"), "{message}");
    assert!(!world.bundle("c1").join("shoal.json").exists());
    let request = world.create_request("c1");
    world.wire.task::<CreateTaskResponse>("Create", &request).unwrap();
}

#[test]
fn a_start_that_fails_stops_the_container_and_says_why() {
    let mut world = World::new();
    world.create("c1");
    *world.stage.refuse.lock().unwrap() = Some(libc::ENOENT);
    let request = StartRequest { id: "c1".into(), ..Default::default() };
    let (code, message) = world.wire.task::<StartResponse>("Start", &request).unwrap_err();
    assert_eq!(code, Code::UNKNOWN);
    assert!(message.contains("no such file or directory"), "{message}");
    assert_eq!(call(&mut world, "Start", ""), FP);
    world.delete("c1", "");
    assert_eq!(call(&mut world, "State", ""), NF);
    // Its process existed and has ended; it never started.
    assert_eq!(world.events(3), ["create c1", "exit c1 c1 137", "delete c1 137"]);
}

#[test]
fn an_exec_that_nobody_has_started_ends_well_when_it_is_deleted() {
    let mut world = World::new();
    container_in(&mut world, "running");
    world.add("c1", "e1");
    let mut other = world.connect();
    let wait = WaitRequest { id: "c1".into(), exec_id: "e1".into(), ..Default::default() };
    other.ask(TASK_V3, "Wait", &wait, Duration::ZERO);
    assert!(other.silent(Duration::from_millis(50)));
    assert_eq!(world.delete("c1", "e1").exit_status, 0);
    assert_eq!(decode::<WaitResponse>(other.next().unwrap().1).unwrap().exit_status, 0);
}

#[test]
fn an_exec_whose_start_fails_was_never_there() {
    let mut world = World::new();
    container_in(&mut world, "running");
    world.add("c1", "e1");
    *world.stage.refuse.lock().unwrap() = Some(libc::EACCES);
    let request = StartRequest { id: "c1".into(), exec_id: "e1".into(), ..Default::default() };
    let (code, message) = world.wire.task::<StartResponse>("Start", &request).unwrap_err();
    assert_eq!(code, Code::UNKNOWN);
    assert!(message.contains("exec e1 in c1") && message.contains("permission denied"), "{message}");
    assert_eq!(world.wait("c1", "e1").exit_status, 255);
    assert_eq!(call(&mut world, "Start", "e1"), FP);
    assert_eq!(world.delete("c1", "e1").exit_status, 255);
    // The id is free again, and the container is unaffected.
    world.add("c1", "e1");
    world.start("c1", "e1");
    let expected = ["create c1", "start c1", "exec-added c1 e1", "exec-added c1 e1", "exec-started c1 e1"];
    assert_eq!(world.events(expected.len()), expected);
}

#[test]
fn an_exec_does_not_start_in_a_paused_container_and_can_after_it() {
    let mut world = World::new();
    container_in(&mut world, "running");
    world.add("c1", "e1");
    world.pause("c1");
    let request = StartRequest { id: "c1".into(), exec_id: "e1".into(), ..Default::default() };
    let (code, message) = world.wire.task::<StartResponse>("Start", &request).unwrap_err();
    assert_eq!(code, Code::FAILED_PRECONDITION);
    assert!(message.ends_with("cannot exec in container c1: it is paused"), "{message}");
    assert_eq!(call(&mut world, "Resume", ""), OK);
    world.start("c1", "e1");
    let expected =
        ["create c1", "start c1", "exec-added c1 e1", "paused c1", "resumed c1", "exec-started c1 e1"];
    assert_eq!(world.events(expected.len()), expected);
}

#[test]
fn a_container_whose_start_failed_can_be_deleted_at_once() {
    let hook = r#""hooks": { "startContainer": [{ "path": "/bin/hook" }] }, "root""#;
    for with in [r#""root""#, hook] {
        let mut world = World::new();
        *world.stage.late.lock().unwrap() = Duration::from_millis(200);
        world.create_with("c1", r#""root""#, with);
        // The errno of the hook's program, or of the container's.
        *world.stage.refuse.lock().unwrap() = Some(libc::ENOENT);
        assert_eq!(call(&mut world, "Start", ""), Code::UNKNOWN);
        assert_eq!(call(&mut world, "Delete", ""), OK, "{with}");
        assert_eq!(world.events(3), ["create c1", "exit c1 c1 137", "delete c1 137"]);
    }
}

#[test]
fn a_cgroup_that_cannot_be_killed_is_removed_all_the_same() {
    let mut world = World::new();
    world.stage.immortal.store(true, Ordering::SeqCst);
    let mut request = world.create_request("c1");
    request.stdout = "/nowhere/stdout".into();
    assert_ne!(code(world.wire.task::<CreateTaskResponse>("Create", &request)), OK);
    let tried = |world: &World| {
        (world.stage.kills.load(Ordering::SeqCst), world.stage.removals.load(Ordering::SeqCst))
    };
    assert_eq!(tried(&world), (1, 1));
    container_in(&mut world, "stopped");
    world.delete("c1", "");
    assert_eq!(tried(&world), (2, 2));
}

#[test]
fn the_state_tells_what_the_request_said() {
    let mut world = World::new();
    let request = world.create_request("c1");
    let pid = world.wire.task::<CreateTaskResponse>("Create", &request).unwrap().pid;
    let state = |world: &mut World, exec: &str| {
        let request = StateRequest { id: "c1".into(), exec_id: exec.into(), ..Default::default() };
        world.wire.task::<StateResponse>("State", &request).unwrap()
    };
    let status = |s: &StateResponse| s.status.enum_value().unwrap();
    let created = state(&mut world, "");
    assert_eq!(
        (created.id.as_str(), created.bundle.as_str(), created.pid),
        ("c1", request.bundle.as_str(), pid)
    );
    assert_eq!(status(&created), Status::CREATED);
    assert_eq!(created.exited_at.seconds, -62_135_596_800, "Go's zero time");
    world.start("c1", "");
    assert_eq!(status(&state(&mut world, "")), Status::RUNNING);
    world.add("c1", "e1");
    let added = state(&mut world, "e1");
    assert_eq!((added.id.as_str(), added.pid, status(&added)), ("e1", 0, Status::CREATED));
    let exec_pid = world.start("c1", "e1");
    let pids: PidsResponse =
        world.wire.task("Pids", &PidsRequest { id: "c1".into(), ..Default::default() }).unwrap();
    for process in &pids.processes {
        let details = process.info.as_ref().map(|info| {
            assert_eq!(info.type_url, "containerd.runc.v1.ProcessDetails");
            ProcessDetails::parse_from_bytes(&info.value).unwrap().exec_id
        });
        let expected = (process.pid == exec_pid).then(|| "e1".to_owned());
        assert_eq!(details, expected, "details of {}", process.pid);
    }
    assert_eq!(pids.processes.len(), 2);
    world.pause("c1");
    assert_eq!([status(&state(&mut world, "")), status(&state(&mut world, "e1"))], [Status::PAUSED; 2]);
    let resume = ResumeRequest { id: "c1".into(), ..Default::default() };
    world.wire.task::<Empty>("Resume", &resume).unwrap();
    world.end("c1", "e1");
    let ended = world.end("c1", "");
    let stopped = state(&mut world, "");
    assert_eq!((status(&stopped), stopped.exit_status), (Status::STOPPED, 137));
    assert_eq!(stopped.exited_at, ended.exited_at);
    assert!(stopped.exited_at.seconds > 1_000_000_000);
    assert_eq!(Status::STOPPED.value(), 3);
}

#[test]
fn a_hundred_waits_end_with_the_process() {
    let mut world = World::new();
    world.create("c1");
    world.start("c1", "");
    let request = WaitRequest { id: "c1".into(), ..Default::default() };
    let mut wires: Vec<_> = (0..100).map(|_| world.connect()).collect();
    for wire in &mut wires {
        wire.ask(TASK_V3, "Wait", &request, Duration::ZERO);
    }
    assert!(wires[0].silent(Duration::from_millis(100)));
    let ended = world.end("c1", "");
    for wire in &mut wires {
        let response: WaitResponse = decode(wire.next().unwrap().1).unwrap();
        assert_eq!((response.exit_status, &response.exited_at), (137, &ended.exited_at));
    }
}

#[test]
fn killing_all_of_a_container_that_has_ended_finds_nothing() {
    let mut world = World::new();
    container_in(&mut world, "stopped");
    let request = kill_request("c1", "", libc::SIGKILL, true);
    let (code, message) = world.wire.task::<Empty>("Kill", &request).unwrap_err();
    assert_eq!(code, NF);
    assert!(message.contains("process already finished"), "{message}");
}

#[test]
fn kill_all_reaches_the_execs() {
    let mut world = World::new();
    world.create("c1");
    world.start("c1", "");
    world.add("c1", "e1");
    world.start("c1", "e1");
    world.wire.task::<Empty>("Kill", &kill_request("c1", "", libc::SIGTERM, true)).unwrap();
    assert_eq!(world.wait("c1", "e1").exit_status, 143);
    assert_eq!(world.wait("c1", "").exit_status, 143);
}
