//! Pods with a user namespace (`hostUsers: false`): the one that owns the network that CRI has made.

use crate::world::{config, eventually, host, namespace, World};
use serde_json::json;
use shoal::error::Kind;
use shoal::sandbox::{PodConfig, PodPid};
use shoal::spec::{IdRange, Mappings, Ns};
use std::path::PathBuf;
use std::process::{Child, Command};

const OUTSIDE: u32 = 300_000;

fn mappings() -> Mappings {
    let range = IdRange { inside: 0, outside: OUTSIDE, count: 65536 };
    Mappings { uids: vec![range], gids: vec![range] }
}

/// A network namespace in a user namespace, kept alive by a process.
struct Owned(Child);

impl Owned {
    fn new() -> Owned {
        let child = Command::new("unshare").args(["--user", "--net", "sleep", "1000"]).spawn().unwrap();
        let owned = Owned(child);
        assert!(eventually(|| namespace(owned.0.id(), "net") != host("net")));
        for map in ["uid_map", "gid_map"] {
            let path = format!("/proc/{}/{map}", owned.0.id());
            std::fs::write(path, format!("0 {OUTSIDE} 65536")).unwrap();
        }
        owned
    }

    fn path(&self) -> PathBuf {
        format!("/proc/{}/ns/net", self.0.id()).into()
    }
}

impl Drop for Owned {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn with_users(world: &World, id: &str, args: &[&str]) {
    world.member(id, args, &["net", "ipc", "uts", "user"]);
    // Remaps the root, as a snapshotter does. The program is skipped: it is a link to that of all tests.
    let root = world.bundle(id).join("rootfs");
    for entry in std::fs::read_dir(&root).unwrap().flatten().filter(|entry| entry.path().is_dir()) {
        std::os::unix::fs::chown(entry.path(), Some(OUTSIDE), Some(OUTSIDE)).unwrap();
    }
    std::os::unix::fs::chown(&root, Some(OUTSIDE), Some(OUTSIDE)).unwrap();
    world.configure(id, |config| {
        let map = json!([{ "containerID": 0, "hostID": OUTSIDE, "size": 65536 }]);
        config["linux"]["uidMappings"] = map.clone();
        config["linux"]["gidMappings"] = map;
    });
}

#[test]
fn a_pod_lives_in_the_user_namespace_of_its_network() {
    let world = World::new();
    let network = Owned::new();
    let wanted = PodConfig { user: Some(mappings()), hostname: "mapped".into(), ..config() };
    world.create_in(&network.path(), wanted).unwrap();
    let pid = world.sandbox.start_pod("p1").unwrap().pid;
    assert_eq!(namespace(pid, "net"), namespace(network.0.id(), "net"));
    assert_eq!(namespace(pid, "user"), namespace(network.0.id(), "user"));
    for kind in ["ipc", "uts"] {
        assert_ne!(namespace(pid, kind), host(kind), "{kind}");
    }
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    assert!(status.contains("\nUid:\t300000\t300000\t300000\t300000\n"), "{status}");
    assert!(status.contains("\nCapBnd:\t0000000000000000\n"), "{status}");

    with_users(
        &world,
        "c1",
        &["/probe", "cat", "/proc/self/uid_map", "/proc/sys/kernel/hostname", "/etc/hostname"],
    );
    world.run("c1");
    let seen = world.report("c1");
    let map = seen["/proc/self/uid_map"].as_str().unwrap().split_whitespace().collect::<Vec<_>>().join(" ");
    assert_eq!(map, "0 300000 65536");
    assert_eq!(
        (&seen["/proc/sys/kernel/hostname"], &seen["/etc/hostname"]),
        (&json!("mapped\n"), &json!("mapped\n"))
    );

    with_users(&world, "c2", &["/probe", "sleep"]);
    world.run("c2");
    let member = world.pid("c2");
    for kind in ["user", "net", "ipc", "uts"] {
        assert_eq!(namespace(member, kind), namespace(pid, kind), "{kind}");
    }
    assert_ne!(namespace(member, "pid"), namespace(pid, "pid"), "the pod's process is not for them");
    world.shut_down();
}

#[test]
fn a_pod_with_a_user_namespace_can_share_its_pids_and_sysctls_are_its_own() {
    let world = World::new();
    let network = Owned::new();
    let sysctls = [("net.ipv4.ip_unprivileged_port_start".to_owned(), "80".to_owned())].into();
    let wanted = PodConfig { user: Some(mappings()), pid: PodPid::Pod, sysctls, ..config() };
    world.create_in(&network.path(), wanted).unwrap();
    let pid = world.sandbox.start_pod("p1").unwrap().pid;
    with_users(
        &world,
        "c1",
        &["/probe", "cat", "/proc/sys/net/ipv4/ip_unprivileged_port_start", "/proc/1/comm"],
    );
    world.configure("c1", |config| {
        let list = config["linux"]["namespaces"].as_array_mut().unwrap();
        list.retain(|ns| ns["type"] != "pid");
        list.push(json!({ "type": "pid", "path": format!("/proc/{pid}/ns/pid") }));
    });
    world.run("c1");
    assert_eq!(world.report("c1")["/proc/sys/net/ipv4/ip_unprivileged_port_start"], "80\n");
    world.shut_down();
}

#[test]
fn without_a_network_of_cni_the_user_namespace_is_new() {
    let world = World::new();
    world.create(PodConfig { user: Some(mappings()), ..config() }).unwrap();
    let pid = world.sandbox.start_pod("p1").unwrap().pid;
    let map = std::fs::read_to_string(format!("/proc/{pid}/uid_map")).unwrap();
    assert_eq!(map.split_whitespace().collect::<Vec<_>>(), ["0", "300000", "65536"]);
    with_users(&world, "c1", &["/probe", "sleep"]);
    world.run("c1");
    assert_eq!(namespace(world.pid("c1"), "user"), namespace(pid, "user"));
    world.shut_down();
}

#[test]
fn a_network_of_the_host_s_users_is_refused() {
    let world = World::new();
    let netns = crate::world::Netns::new();
    let error = world
        .create_in(&netns.path, PodConfig { user: Some(mappings()), net: Ns::New, ..config() })
        .unwrap_err();
    assert!(error.kind() == Kind::Invalid && error.to_string().contains("no user namespace"), "{error}");
    world.nothing_is_left();
}
