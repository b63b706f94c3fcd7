//! A paused pod stops as one.

use crate::world::{config, World};
use serde_json::Value;
use shoal::error::Kind;
use shoal::sandbox::{Event, PodState, ProcessKey, Status};
use shoal::stdio::Stdio;
use shoal::tasks::block_on;
use std::time::Duration;

const MEMBERS: [&str; 3] = ["c1", "c2", "c3"];
const PROCESS: &[u8] = br#"{ "cwd": "/", "args": ["/probe", "exit", "0"], "user": { "uid": 0, "gid": 0 } }"#;

fn three() -> World {
    let world = World::new();
    world.create(config()).unwrap();
    world.sandbox.start_pod("p1").unwrap();
    for id in MEMBERS {
        world.member(id, &["/probe", "tick", &format!("/dev/shm/{id}")], &["net", "ipc", "uts"]);
        world.run(id);
    }
    world
}

/// Returns each container's last tick, in nanoseconds.
fn ticks(world: &World) -> Vec<u64> {
    let shm = world.bundle("p1").join("shm");
    let read = |id: &&str| std::fs::read(shm.join(id)).ok()?.try_into().ok().map(u64::from_ne_bytes);
    MEMBERS.iter().filter_map(read).collect()
}

fn cpu(world: &World) -> Vec<u64> {
    let time = |id: &&str| {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", world.pid(id))).unwrap();
        let fields: Vec<&str> = stat.rsplit_once(") ").unwrap().1.split(' ').collect();
        fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap()
    };
    MEMBERS.iter().map(time).collect()
}

fn events(world: &World) -> Vec<String> {
    let word = |event: &Event| match event {
        Event::Paused { container } => Some(format!("paused {container}")),
        Event::Resumed { container } => Some(format!("resumed {container}")),
        _ => None,
    };
    world.events.lock().unwrap().iter().filter_map(word).collect()
}

#[test]
fn three_containers_stop_at_the_same_moment_and_go_on() {
    let world = three();
    assert!(crate::world::eventually(|| ticks(&world).len() == 3));
    let mut skews = Vec::new();
    for _ in 0..20 {
        std::thread::sleep(Duration::from_millis(20));
        block_on(world.sandbox.pause_pod("p1")).unwrap();
        let (last, used) = (ticks(&world), cpu(&world));
        std::thread::sleep(Duration::from_millis(30));
        assert_eq!((ticks(&world), cpu(&world)), (last.clone(), used), "frozen is frozen");
        skews.push(last.iter().max().unwrap() - last.iter().min().unwrap());
        world.sandbox.resume_pod("p1").unwrap();
        assert!(crate::world::eventually(|| ticks(&world).iter().zip(&last).all(|(now, then)| now > then)));
    }
    skews.sort_unstable();
    println!("skew of the last ticks: median {} us, largest {} us", skews[10] / 1000, skews[19] / 1000);
    let most = crate::world::limit(Duration::from_millis(2)).as_nanos() as u64;
    assert!(skews[10] < most, "{skews:?}");
    assert_eq!(
        events(&world)[..6],
        ["c1", "c2", "c3"]
            .map(|c| format!("paused {c}"))
            .into_iter()
            .chain(["c1", "c2", "c3"].map(|c| format!("resumed {c}")))
            .collect::<Vec<_>>()[..]
    );
    world.shut_down();
}

#[test]
fn what_is_asked_of_a_paused_pod_is_refused_with_a_sentence() {
    let world = three();
    let exec = ProcessKey { container: "c1".into(), exec: Some("e1".into()) };
    world.sandbox.exec(&exec, PROCESS, Stdio::default()).unwrap();
    world.member("c4", &["/probe", "sleep"], &["net"]);
    world.create_member("c4").unwrap();
    block_on(world.sandbox.pause_pod("p1")).unwrap();
    assert_eq!(world.sandbox.pod_status("p1").unwrap().state, PodState::Paused);
    for id in MEMBERS {
        assert_eq!(world.sandbox.state(&ProcessKey::init(id)).unwrap().status, Status::Paused);
    }
    let other = ProcessKey { exec: Some("e2".into()), ..exec.clone() };
    world.member("c5", &["/probe", "sleep"], &["net"]);
    for (what, error) in [
        ("exec", world.sandbox.exec(&other, PROCESS, Stdio::default()).unwrap_err()),
        ("start of an exec", block_on(world.sandbox.start(&exec, None)).unwrap_err()),
        ("start", block_on(world.sandbox.start(&ProcessKey::init("c4"), None)).unwrap_err()),
        ("create", world.create_member("c5").unwrap_err()),
        ("pause", block_on(world.sandbox.pause("c1")).unwrap_err()),
        ("resume", world.sandbox.resume("c1").unwrap_err()),
    ] {
        assert_eq!(error.kind(), Kind::State, "{what}: {error}");
        assert!(error.to_string().contains("paused"), "{what}: {error}");
    }
    world.sandbox.resume_pod("p1").unwrap();
    block_on(world.sandbox.start(&exec, None)).unwrap();
    block_on(world.sandbox.start(&ProcessKey::init("c4"), None)).unwrap();
    world.shut_down();
}

#[test]
fn a_container_that_was_paused_by_itself_stays_so() {
    let world = three();
    block_on(world.sandbox.pause("c2")).unwrap();
    block_on(world.sandbox.pause_pod("p1")).unwrap();
    world.sandbox.resume_pod("p1").unwrap();
    let status = |id| world.sandbox.state(&ProcessKey::init(id)).unwrap().status;
    assert_eq!([status("c1"), status("c2")], [Status::Running, Status::Paused]);
    assert_eq!(events(&world), ["paused c2", "paused c1", "paused c3", "resumed c1", "resumed c3"]);
    world.sandbox.resume("c2").unwrap();
    world.shut_down();
}

#[test]
fn a_container_of_a_paused_pod_can_be_killed_and_the_others_stay_frozen() {
    let world = three();
    assert!(crate::world::eventually(|| ticks(&world).len() == 3));
    block_on(world.sandbox.pause_pod("p1")).unwrap();
    let last = ticks(&world);
    block_on(world.sandbox.kill(&ProcessKey::init("c2"), libc::SIGKILL as u32, false)).unwrap();
    assert_eq!(world.wait("c2").code, 137);
    block_on(world.sandbox.delete(&ProcessKey::init("c2"))).unwrap();
    std::thread::sleep(Duration::from_millis(50));
    assert_eq!(ticks(&world), last, "the others did not run, not for a moment");
    world.sandbox.resume_pod("p1").unwrap();
    assert!(crate::world::eventually(|| ticks(&world)[0] > last[0] && ticks(&world)[2] > last[2]));
    world.shut_down();
}

#[test]
fn a_container_at_its_gate_can_be_deleted_from_a_paused_pod() {
    let world = three();
    world.member("c4", &["/probe", "sleep"], &["net"]);
    world.create_member("c4").unwrap();
    block_on(world.sandbox.pause_pod("p1")).unwrap();
    assert_eq!(block_on(world.sandbox.delete(&ProcessKey::init("c4"))).unwrap().exit.code, 137);
    let last = ticks(&world);
    std::thread::sleep(Duration::from_millis(50));
    assert_eq!(ticks(&world), last, "the others are frozen");
    world.shut_down();
}

#[test]
fn a_paused_pod_is_stopped_and_shut_down() {
    let world = three();
    block_on(world.sandbox.pause_pod("p1")).unwrap();
    world.stop();
    for id in MEMBERS {
        assert_eq!(world.wait(id).code, 137);
    }
    world.shut_down();
    let world = three();
    block_on(world.sandbox.pause_pod("p1")).unwrap();
    world.shut_down();
}

#[test]
fn where_others_are_in_the_pod_s_cgroup_they_are_left_alone() {
    let world = World::new();
    let parent = format!("{}/shared", world.namespace);
    // In a hierarchy to which a pause would write.
    let places = ["/sys/fs/cgroup/freezer", "/sys/fs/cgroup"].map(std::path::Path::new);
    let root = places.into_iter().find(|place| place.join("cgroup.procs").exists()).unwrap();
    let other = root.join(&parent).join("other");
    std::fs::create_dir_all(&other).unwrap();
    let mut stranger = std::process::Command::new("sleep").arg("1000").spawn().unwrap();
    std::fs::write(other.join("cgroup.procs"), stranger.id().to_string()).unwrap();
    let config = shoal::sandbox::PodConfig { cgroup_parent: format!("/{parent}"), ..config() };
    world.create(config).unwrap();
    world.sandbox.start_pod("p1").unwrap();
    world.member("c1", &["/probe", "tick", "/dev/shm/c1"], &["ipc"]);
    world.configure("c1", |config| config["linux"]["cgroupsPath"] = Value::from(format!("/{parent}/c1")));
    world.run("c1");
    block_on(world.sandbox.pause_pod("p1")).unwrap();
    let frozen = ["freezer.state", "cgroup.freeze"]
        .iter()
        .find_map(|file| std::fs::read_to_string(other.join(file)).ok());
    assert!(["THAWED", "0"].contains(&frozen.unwrap().trim()), "a stranger was frozen");
    world.sandbox.resume_pod("p1").unwrap();
    world.stop();
    assert_eq!(stranger.try_wait().unwrap(), None, "a stranger was killed");
    stranger.kill().unwrap();
    stranger.wait().unwrap();
    block_on(world.sandbox.shutdown_pod("p1", crate::world::PATIENCE)).unwrap();
    assert!(other.exists(), "the client's cgroup is the client's to remove");
    // In each hierarchy that has the directory: a v2 host has one, at the root.
    let roots = std::fs::read_dir("/sys/fs/cgroup").unwrap().flatten().map(|entry| entry.path());
    for hierarchy in roots.chain([root.to_owned()]) {
        for below in ["shared/other", "shared", ""] {
            let _ = std::fs::remove_dir(hierarchy.join(&world.namespace).join(below));
        }
    }
    world.nothing_is_left();
}
