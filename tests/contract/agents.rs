//! What the agent of a seccomp profile is told, and what happens if it is missing or slow.

use super::world::{exec_request, kill_request, World};
use containerd_shim_protos::api::*;
use serde_json::{json, Value};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use testbed::agent::{Agent, Answer};
use testbed::wire::decode;
use ttrpc::proto::Code;

/// A container whose mkdir(2) is left to the agent at `agent.sock` of its bundle.
fn request(world: &World, id: &str, annotations: Value) -> CreateTaskRequest {
    let request = world.create_request(id);
    change(&request, |spec| {
        spec["annotations"] = annotations;
        spec["linux"]["seccomp"] = json!({
            "defaultAction": "SCMP_ACT_ALLOW",
            "listenerPath": "agent.sock",
            "listenerMetadata": "a=b",
            "syscalls": [{ "names": ["mkdir"], "action": "SCMP_ACT_NOTIFY" }],
        });
    });
    request
}

fn change(request: &CreateTaskRequest, change: impl FnOnce(&mut Value)) {
    let config = Path::new(&request.bundle).join("config.json");
    let mut spec: Value = serde_json::from_slice(&std::fs::read(&config).unwrap()).unwrap();
    change(&mut spec);
    std::fs::write(config, spec.to_string()).unwrap();
}

fn socket(request: &CreateTaskRequest) -> PathBuf {
    Path::new(&request.bundle).join("agent.sock")
}

fn create(world: &mut World, request: &CreateTaskRequest, limit: Duration) -> Result<u32, (Code, String)> {
    let asked = world.wire.ask("containerd.task.v3.Task", "Create", request, limit);
    let (stream, response) = world.wire.next().unwrap();
    assert_eq!(stream, asked);
    decode::<CreateTaskResponse>(response).map(|made| made.pid)
}

const LONG: Duration = Duration::ZERO;

#[test]
fn an_agent_is_told_of_the_first_process_and_of_each_exec() {
    let mut world = World::new();
    let request = request(&world, "c1", json!({ "k": "v" }));
    let agent = Agent::listen(&socket(&request), |_| Answer::Continue);
    let pid = create(&mut world, &request, LONG).unwrap();
    let state = |status: &str| {
        json!({
            "ociVersion": "1.0.2", "id": "c1", "status": status, "pid": pid, "bundle": request.bundle,
            "annotations": { "k": "v" },
        })
    };
    let told = |of: u32, status: &str| {
        json!({
            "ociVersion": "1.0.2", "fds": ["seccompFd"], "pid": of, "metadata": "a=b", "state": state(status),
        })
    };
    assert_eq!(agent.state(), told(pid, "creating"));
    world.start("c1", "");
    world.wire.task::<Empty>("Exec", &exec_request("c1", "e1")).unwrap();
    assert_eq!(agent.next(), None, "before it is started");
    let exec = world.start("c1", "e1");
    assert_eq!(agent.state(), told(exec, "running"));
    world.end("c1", "e1");
    world.end("c1", "");
}

#[test]
fn without_an_agent_nothing_is_made() {
    let mut world = World::new();
    let request = request(&world, "c1", json!({}));
    let path = socket(&request);
    let refused = |world: &mut World, call: &str, why: &str| {
        let (code, message) = create(world, &request, LONG).unwrap_err();
        let path = socket(&request);
        assert_eq!(
            (code, &*message),
            (Code::UNKNOWN, &*format!("create c1: linux.seccomp.listenerPath: {call}({path:?}): {why}"))
        );
        world.until(|stage| stage.pids().is_empty());
    };
    refused(&mut world, "open", "no such file or directory (ENOENT)");
    drop(UnixListener::bind(&path).unwrap());
    refused(&mut world, "connect", "connection refused (ECONNREFUSED)");
    // An exec of a container whose agent has gone: it never runs.
    std::fs::remove_file(&path).unwrap();
    let agent = Agent::listen(&path, |_| Answer::Continue);
    create(&mut world, &request, LONG).unwrap();
    world.start("c1", "");
    drop(agent);
    world.wire.task::<Empty>("Exec", &exec_request("c1", "e1")).unwrap();
    let start = StartRequest { id: "c1".into(), exec_id: "e1".into(), ..Default::default() };
    let (_, message) = world.wire.task::<StartResponse>("Start", &start).unwrap_err();
    assert!(message.contains("linux.seccomp.listenerPath: open("), "{message}");
    world.until(|stage| stage.pids().len() == 1);
    world.end("c1", "");
}

/// A listener whose queue is full.
fn full(path: &Path) -> (UnixListener, Vec<UnixStream>) {
    let listener = UnixListener::bind(path).unwrap();
    let connected = |_| {
        let stream = UnixStream::connect(path).unwrap();
        stream.set_nonblocking(true).unwrap();
        stream
    };
    // SAFETY: takes integers; it shortens the queue of a listening socket.
    let shorter = unsafe { libc::listen(std::os::fd::AsRawFd::as_raw_fd(&listener), 1) };
    assert_eq!(shorter, 0);
    (listener, (0..2).map(connected).collect())
}

#[test]
fn an_agent_that_takes_no_connection_is_waited_for_as_long_as_the_launch() {
    let mut world = World::new();
    let request = request(&world, "c1", json!({}));
    let _full = full(&socket(&request));
    let begun = Instant::now();
    let (code, message) = create(&mut world, &request, Duration::from_millis(400)).unwrap_err();
    assert_eq!(code, Code::DEADLINE_EXCEEDED, "{message}");
    assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
    world.until(|stage| stage.pids().is_empty());
}

#[test]
fn a_create_that_waits_for_an_agent_can_be_killed() {
    let mut world = World::new();
    let request = request(&world, "c1", json!({}));
    let _full = full(&socket(&request));
    let mut other = world.connect();
    let waits = other.ask("containerd.task.v3.Task", "Create", &request, LONG);
    world.until(|stage| stage.pids().len() == 1);
    world.wire.task::<Empty>("Kill", &kill_request("c1", "", libc::SIGKILL, false)).unwrap();
    let (stream, response) = other.next().unwrap();
    assert_eq!(stream, waits);
    let (_, message) = decode::<CreateTaskResponse>(response).unwrap_err();
    assert!(message.contains("it was killed while it was made"), "{message}");
    world.until(|stage| stage.pids().is_empty());
}

#[test]
fn an_agent_that_does_not_read_is_waited_for_as_long_as_the_launch() {
    let mut world = World::new();
    // More than a socket's buffer takes.
    let request = request(&world, "c1", json!({ "k": "v".repeat(3 << 20) }));
    let _never_reads = UnixListener::bind(socket(&request)).unwrap();
    let (code, message) = create(&mut world, &request, Duration::from_millis(400)).unwrap_err();
    assert_eq!(code, Code::DEADLINE_EXCEEDED, "{message}");
    world.until(|stage| stage.pids().is_empty());
    // One that does gets it all.
    std::fs::remove_file(socket(&request)).unwrap();
    let agent = Agent::listen(&socket(&request), |_| Answer::Continue);
    create(&mut world, &request, LONG).unwrap();
    assert_eq!(agent.state()["state"]["annotations"]["k"].as_str().map(str::len), Some(3 << 20));
}

#[test]
fn an_agent_that_talks_is_not_listened_to() {
    let mut world = World::new();
    let request = request(&world, "c1", json!({}));
    let _agent = Agent::garbage(&socket(&request));
    create(&mut world, &request, LONG).unwrap();
    world.start("c1", "");
    world.end("c1", "");
}

#[test]
fn a_process_that_ends_meanwhile_is_noticed() {
    let mut world = World::new();
    let request = request(&world, "c1", json!({}));
    let _full = full(&socket(&request));
    let mut other = world.connect();
    other.ask("containerd.task.v3.Task", "Create", &request, LONG);
    world.until(|stage| stage.pids().len() == 1);
    let killed = nix::unistd::Pid::from_raw(world.stage.pids()[0] as i32);
    nix::sys::signal::kill(killed, nix::sys::signal::Signal::SIGKILL).unwrap();
    let (_, message) = decode::<CreateTaskResponse>(other.next().unwrap().1).unwrap_err();
    let why = "linux.seccomp.listenerPath: the process ended before it could be started";
    assert_eq!(message, format!("create c1: {why}"));
    world.until(|stage| stage.pids().is_empty());
    // Nothing is left of it: the id is free.
    std::fs::remove_file(socket(&request)).unwrap();
    let agent = Agent::listen(&socket(&request), |_| Answer::Continue);
    create(&mut world, &request, LONG).unwrap();
    agent.state();
    world.end("c1", "");
}

#[test]
fn an_agent_of_a_hook_has_the_time_of_the_hook() {
    let mut world = World::new();
    let request = request(&world, "c1", json!({}));
    change(&request, |spec| {
        spec["hooks"] = json!({ "startContainer": [{ "path": "/bin/hook", "timeout": 1 }] });
    });
    let agent = Agent::listen(&socket(&request), |_| Answer::Continue);
    create(&mut world, &request, LONG).unwrap();
    drop(agent);
    let _full = full(&socket(&request));
    let begun = Instant::now();
    let start = StartRequest { id: "c1".into(), ..Default::default() };
    let (code, message) = world.wire.task::<StartResponse>("Start", &start).unwrap_err();
    assert_eq!(code, Code::DEADLINE_EXCEEDED, "{message}");
    let field = "hooks.startContainer[0] \"/bin/hook\": linux.seccomp.listenerPath: connect(";
    assert!(message.contains(field), "{message}");
    assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
    world.until(|stage| stage.pids().is_empty());
}

#[test]
fn what_is_no_agents_socket_is_told_by_field_and_call() {
    let mut world = World::new();
    for (path, why) in [
        (".", "connect(BUNDLE/.): socket operation on non-socket (ENOTSOCK)"),
        ("config.json", "connect(BUNDLE/config.json): socket operation on non-socket (ENOTSOCK)"),
        ("missing/agent", "open(BUNDLE/missing/agent): no such file or directory (ENOENT)"),
        ("@shoal/nobody", "connect(@shoal/nobody): connection refused (ECONNREFUSED)"),
        ("a\0b", "nul byte"),
    ] {
        let request = request(&world, "c1", json!({}));
        change(&request, |spec| spec["linux"]["seccomp"]["listenerPath"] = path.into());
        let (_, message) = create(&mut world, &request, LONG).unwrap_err();
        let why = why.replace("BUNDLE", &request.bundle);
        assert!(message.starts_with("create c1: linux.seccomp.listenerPath: "), "{message}");
        assert!(message.replace('"', "").contains(&why), "{path}: {message}");
        world.until(|stage| stage.pids().is_empty());
    }
    let request = request(&world, "c1", json!({}));
    let _datagrams = std::os::unix::net::UnixDatagram::bind(socket(&request)).unwrap();
    let (_, message) = create(&mut world, &request, LONG).unwrap_err();
    assert!(message.contains("linux.seccomp.listenerPath: connect("), "{message}");
    assert!(message.contains("EPROTOTYPE"), "{message}");
}

#[test]
fn an_agent_may_have_an_abstract_name() {
    let mut world = World::new();
    let request = request(&world, "c1", json!({}));
    let name = format!("@shoal/agent/{}", std::process::id());
    change(&request, |spec| spec["linux"]["seccomp"]["listenerPath"] = name.as_str().into());
    let agent = Agent::listen(Path::new(&name), |_| Answer::Continue);
    let pid = create(&mut world, &request, LONG).unwrap();
    assert_eq!(agent.state()["pid"], pid);
    world.start("c1", "");
    world.end("c1", "");
}
