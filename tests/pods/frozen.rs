//! Containers and pods that somebody else has frozen. The kernel's state counts, not what the shim remembers.

use crate::world::{config, eventually, World, PATIENCE};
use shoal::error::{Error, Kind};
use shoal::sandbox::{PodConfig, PodPid, PodState, ProcessKey, Status};
use shoal::stdio::Stdio;
use shoal::tasks::block_on;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

const PROCESS: &[u8] = br#"{ "cwd": "/", "args": ["/probe", "sleep"], "user": { "uid": 0, "gid": 0 } }"#;
const KILL: u32 = libc::SIGKILL as u32;

/// Makes a pod with a container, which shares namespaces of these kinds.
fn pod(kinds: &[&str]) -> World {
    let world = World::new();
    let pid = if kinds.contains(&"pid") { PodPid::Node } else { PodPid::Container };
    world.create(PodConfig { pid, ..config() }).unwrap();
    world.sandbox.start_pod("p1").unwrap();
    world.member("c1", &["/probe", "sleep"], kinds);
    world.run("c1");
    world
}

/// Returns the freezer cgroup of a process.
fn freezer_of(pid: u32) -> PathBuf {
    let text = std::fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap();
    let v1 = text.lines().find_map(|line| line.split_once(":freezer:"));
    match v1 {
        Some((_, path)) => Path::new("/sys/fs/cgroup/freezer").join(path.trim_start_matches('/')),
        None => {
            let path = text.lines().find_map(|line| line.strip_prefix("0::/")).unwrap();
            Path::new("/sys/fs/cgroup").join(path)
        }
    }
}

fn set(dir: &Path, frozen: bool) {
    let v1 = dir.join("freezer.state");
    match (v1.exists(), frozen) {
        (true, true) => std::fs::write(v1, "FROZEN").unwrap(),
        (true, false) => std::fs::write(v1, "THAWED").unwrap(),
        (false, _) => std::fs::write(dir.join("cgroup.freeze"), u8::from(frozen).to_string()).unwrap(),
    }
    assert!(eventually(|| is_frozen(dir) == frozen));
}

fn is_frozen(dir: &Path) -> bool {
    let read = |file: &str| std::fs::read_to_string(dir.join(file)).unwrap_or_default();
    read("freezer.state").trim() == "FROZEN" || read("cgroup.events").contains("frozen 1")
}

fn status(world: &World) -> Status {
    world.sandbox.state(&ProcessKey::init("c1")).unwrap().status
}

fn exec(id: &str) -> ProcessKey {
    ProcessKey { container: "c1".into(), exec: Some(id.into()) }
}

/// Checks that an exec is refused at once, with the reason.
fn refuses_an_exec(world: &World) {
    let begin = Instant::now();
    let added = world.sandbox.exec(&exec("refused"), PROCESS, Stdio::default());
    let error: Error =
        added.and_then(|()| block_on(world.sandbox.start(&exec("refused"), None)).map(drop)).unwrap_err();
    assert!(begin.elapsed() < Duration::from_secs(5), "{:?}", begin.elapsed());
    assert_eq!(error.kind(), Kind::State, "{error}");
    assert!(error.to_string().contains("it is paused"), "{error}");
}

/// Checks that a Kill ends the container.
fn dies(world: &World) {
    block_on(world.sandbox.kill(&ProcessKey::init("c1"), KILL, false)).unwrap();
    assert_eq!(world.wait("c1").code, 137);
    block_on(world.sandbox.delete(&ProcessKey::init("c1"))).unwrap();
}

#[test]
fn a_container_that_others_have_frozen_is_paused_and_dies_of_a_kill() {
    for kinds in [&["net"] as &[&str], &["net", "pid"]] {
        let world = pod(kinds);
        let own = freezer_of(world.pid("c1"));
        set(&own, true);
        assert_eq!(status(&world), Status::Paused);
        refuses_an_exec(&world);
        let error = block_on(world.sandbox.pause("c1")).unwrap_err();
        assert!(error.to_string().contains("it is paused"), "{error}");
        dies(&world);
        world.shut_down();
    }
}

#[test]
fn what_others_have_frozen_is_resumed() {
    let world = pod(&["net"]);
    let own = freezer_of(world.pid("c1"));
    set(&own, true);
    world.sandbox.resume("c1").unwrap();
    assert_eq!((status(&world), is_frozen(&own)), (Status::Running, false));
    // What others have thawed is no longer paused.
    block_on(world.sandbox.pause("c1")).unwrap();
    set(&own, false);
    assert_eq!(status(&world), Status::Running);
    world.sandbox.exec(&exec("e1"), PROCESS, Stdio::default()).unwrap();
    block_on(world.sandbox.start(&exec("e1"), None)).unwrap();
    block_on(world.sandbox.pause("c1")).unwrap();
    assert_eq!(status(&world), Status::Paused);
    world.sandbox.resume("c1").unwrap();
    world.shut_down();
}

#[test]
fn a_container_that_froze_a_cgroup_of_its_own_with_itself_in_it_dies_of_a_kill() {
    let world = pod(&["net"]);
    let below = freezer_of(world.pid("c1")).join("below");
    std::fs::create_dir(&below).unwrap();
    std::fs::write(below.join("cgroup.procs"), world.pid("c1").to_string()).unwrap();
    set(&below, true);
    dies(&world);
    world.shut_down();
}

#[test]
fn an_exec_of_a_paused_container_dies_of_a_kill_and_the_container_stays_paused() {
    let world = pod(&["net"]);
    world.sandbox.exec(&exec("e1"), PROCESS, Stdio::default()).unwrap();
    block_on(world.sandbox.start(&exec("e1"), None)).unwrap();
    let own = freezer_of(world.pid("c1"));
    block_on(world.sandbox.pause("c1")).unwrap();
    block_on(world.sandbox.kill(&exec("e1"), KILL, false)).unwrap();
    let (tell, told) = std::sync::mpsc::channel();
    let waiter = Box::new(move |status| tell.send(status).unwrap_or_default());
    let _waits = world.sandbox.on_exit(&exec("e1"), waiter).unwrap();
    assert_eq!(told.recv_timeout(PATIENCE).expect("the exec does not die").code, 137);
    assert!(is_frozen(&own));
    assert_eq!(status(&world), Status::Paused);
    world.sandbox.resume("c1").unwrap();
    world.shut_down();
}

#[test]
fn a_pod_whose_cgroup_others_have_frozen_is_paused_and_resumed() {
    let world = pod(&["net"]);
    let above = freezer_of(world.pid("c1")).parent().unwrap().to_owned();
    world.member("c2", &["/probe", "sleep"], &["net"]);
    set(&above, true);
    assert_eq!(status(&world), Status::Paused);
    assert_eq!(world.sandbox.pod_status("p1").unwrap().state, PodState::Paused);
    refuses_an_exec(&world);
    let error = world.create_member("c2").unwrap_err();
    assert!(error.to_string().contains("is frozen"), "{error}");
    let error = world.sandbox.resume("c1").unwrap_err();
    assert!(error.to_string().contains("above"), "{error}");
    world.sandbox.resume_pod("p1").unwrap();
    assert_eq!((status(&world), is_frozen(&above)), (Status::Running, false));
    // Killing a container ends only that one: the others stay frozen.
    world.run("c2");
    set(&above, true);
    dies(&world);
    assert!(is_frozen(&above));
    world.shut_down();
}

#[test]
fn a_container_at_its_gate_that_others_have_frozen_is_deleted() {
    let world = pod(&["net"]);
    world.member("c2", &["/probe", "sleep"], &["net"]);
    world.create_member("c2").unwrap();
    set(&freezer_of(world.pid("c2")), true);
    let error = block_on(world.sandbox.start(&ProcessKey::init("c2"), None)).unwrap_err();
    assert!(error.kind() == Kind::State && error.to_string().contains("it is paused"), "{error}");
    assert_eq!(block_on(world.sandbox.delete(&ProcessKey::init("c2"))).unwrap().exit.code, 137);
    world.shut_down();
}
