//! Pods with real processes, through the domain's own calls: namespaces, files, members, freezer, and the end. Needs
//! root.

mod bad;
mod freeze;
mod frozen;
mod members;
mod users;
mod world;

use shoal::sandbox::{PodConfig, PodPid, PodState};
use shoal::spec::Ns;
use world::{config, host, namespace, World};

#[test]
fn a_pod_is_a_thread_of_the_shim_in_namespaces_of_its_own() {
    let world = World::new();
    let threads = world::threads();
    world.create(PodConfig { hostname: "pod-1".into(), ..config() }).unwrap();
    let started = world.sandbox.start_pod("p1").unwrap();
    assert_eq!(world::threads(), threads + 1, "no process, one thread");
    for kind in ["net", "ipc", "uts"] {
        assert_ne!(namespace(started.pid, kind), host(kind), "{kind}");
    }
    for kind in ["pid", "mnt", "user", "cgroup"] {
        assert_eq!(namespace(started.pid, kind), host(kind), "{kind}");
    }
    let status = world.sandbox.pod_status("p1").unwrap();
    assert_eq!((status.state, status.pid), (PodState::Ready, started.pid));
    assert_eq!(status.created_at, started.created_at);
    let spec: serde_json::Value = serde_json::from_slice(&started.spec).unwrap();
    assert_eq!(spec["hostname"], "pod-1");
    assert_eq!(spec["linux"]["namespaces"][0]["path"], format!("/proc/{}/ns/net", started.pid));
    assert_eq!(spec["linux"]["sysctl"]["net.ipv4.ip_unprivileged_port_start"], "0");
    assert_eq!(spec["mounts"].as_array().unwrap().len(), 4);
    assert_eq!(std::fs::read_to_string(world.bundle("p1").join("hostname")).unwrap(), "pod-1\n");

    world.stop();
    assert_eq!(world.sandbox.pod_status("p1").unwrap().state, PodState::Stopped);
    assert!(world::eventually(|| !std::path::Path::new(&format!("/proc/{}", started.pid)).exists()));
    world.shut_down();
}

#[test]
fn a_pod_that_shares_its_pids_has_a_first_process_that_reaps_and_can_do_nothing_else() {
    let world = World::new();
    world.create(PodConfig { pid: PodPid::Pod, ..config() }).unwrap();
    let pid = world.sandbox.start_pod("p1").unwrap().pid;
    for kind in ["net", "ipc", "uts", "pid", "mnt"] {
        assert_ne!(namespace(pid, kind), host(kind), "{kind}");
    }
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let field = |name: &str| {
        let line = status.lines().find(|line| line.starts_with(name)).unwrap();
        line.split_whitespace().skip(1).collect::<Vec<_>>().join(" ")
    };
    assert_eq!(
        (field("NSpid:").as_str(), field("CapBnd:").as_str()),
        (format!("{pid} 1").as_str(), "0000000000000000")
    );
    assert_eq!((field("Uid:").as_str(), field("NoNewPrivs:").as_str()), ("65535 65535 65535 65535", "1"));
    assert_eq!(
        std::fs::read_dir(format!("/proc/{pid}/fd")).unwrap().count(),
        0,
        "no descriptor of the shim's"
    );
    assert_eq!(std::fs::read_dir(format!("/proc/{pid}/root")).unwrap().count(), 0, "an empty root");
    assert!(std::fs::create_dir(format!("/proc/{pid}/root/x")).is_err(), "a read-only root");

    // The member's child is orphaned, adopted by the first process, and reaped when it ends.
    world.member("c1", &["/probe", "orphan"], &["net", "ipc", "uts", "pid"]);
    world.run("c1");
    let report = world.report("c1");
    assert_eq!((report["parent"].as_u64(), report["zombies"].as_u64()), (Some(1), Some(0)), "{report}");

    world.stop();
    assert!(world::eventually(|| !std::path::Path::new(&format!("/proc/{pid}")).exists()));
    world.shut_down();
}

#[test]
fn a_first_process_that_is_killed_ends_its_pod() {
    let world = World::new();
    world.create(PodConfig { pid: PodPid::Pod, ..config() }).unwrap();
    let pid = world.sandbox.start_pod("p1").unwrap().pid;
    world.member("c1", &["/probe", "sleep"], &["pid"]);
    world.run("c1");
    let exit = world.exit_of_pod();
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid as i32), nix::sys::signal::SIGKILL).unwrap();
    assert_eq!(exit.recv_timeout(world::PATIENCE).unwrap().code, 137);
    assert_eq!(world.sandbox.pod_status("p1").unwrap().state, PodState::Stopped);
    assert_eq!(world.wait("c1").code, 137, "its containers end with it");
    world.shut_down();
}

#[test]
fn a_pod_of_the_host_has_the_host_s_namespaces() {
    let world = World::new();
    let config = PodConfig { net: Ns::Host, ipc: Ns::Host, uts: Ns::Host, pid: PodPid::Node, ..config() };
    world.create(config).unwrap();
    let started = world.sandbox.start_pod("p1").unwrap();
    for kind in ["net", "ipc", "uts", "pid"] {
        assert_eq!(namespace(started.pid, kind), host(kind), "{kind}");
    }
    let spec: serde_json::Value = serde_json::from_slice(&started.spec).unwrap();
    assert_eq!(
        spec["linux"]["sysctl"],
        serde_json::json!({}),
        "CRI's defaults are not for the host's network"
    );
    world.member("c1", &["/probe", "report"], &["net", "ipc", "uts", "pid"]);
    world.run("c1");
    let report = world.report("c1");
    for kind in ["net", "ipc", "uts", "pid"] {
        assert_eq!(report["namespaces"][kind], host(kind).as_str(), "{kind}");
    }
    world.shut_down();
}

#[test]
fn the_network_of_cni_is_joined_and_let_go_by_stop() {
    let world = World::new();
    let netns = world::Netns::new();
    world.create_in(&netns.path, config()).unwrap();
    let pid = world.sandbox.start_pod("p1").unwrap().pid;
    assert_eq!(namespace(pid, "net"), netns.link());
    world.member("c1", &["/probe", "sleep"], &["net"]);
    world.run("c1");
    assert_eq!(namespace(world.pid("c1"), "net"), netns.link());
    world.stop();
    assert!(world::eventually(|| !world::anybody_in(&netns.link())), "somebody still holds the network");
    world.shut_down();
}

/// CRI's pod has this path, and CNI's plugins look for it until the network is torn down, which is after StopSandbox.
#[test]
fn a_namespace_that_was_joined_by_path_keeps_its_path() {
    let paths = |spec: &[u8]| {
        let spec: serde_json::Value = serde_json::from_slice(spec).unwrap();
        let list = spec["linux"]["namespaces"].as_array().unwrap().iter();
        list.map(|n| (n["type"].as_str().unwrap().into(), n["path"].as_str().unwrap().into()))
            .collect::<std::collections::BTreeMap<String, String>>()
    };
    let world = World::new();
    let netns = world::Netns::new();
    world.create_in(&netns.path, config()).unwrap();
    let started = world.sandbox.start_pod("p1").unwrap();
    let own = |pid: u32, kind: &str| format!("/proc/{pid}/ns/{kind}");
    let network = netns.path.to_str().unwrap();
    let told = paths(&started.spec);
    assert_eq!(told["network"], network);
    assert_eq!((&told["ipc"], &told["uts"]), (&own(started.pid, "ipc"), &own(started.pid, "uts")));
    world.stop();
    assert_eq!(paths(&world.sandbox.pod_status("p1").unwrap().spec)["network"], network);
    world.shut_down();

    // The other kinds, as a config.json may request them.
    let world = World::new();
    let mut other = std::process::Command::new("unshare").args(["-niu", "sleep", "1000"]).spawn().unwrap();
    let kinds = [("network", "net"), ("ipc", "ipc"), ("uts", "uts")];
    let theirs = |file| own(other.id(), file);
    assert!(world::eventually(|| kinds.iter().all(|(_, file)| namespace(other.id(), file) != host(file))));
    let joined = kinds.map(|(kind, file)| serde_json::json!({ "type": kind, "path": theirs(file) }));
    let request = world.request();
    let document = serde_json::json!({ "linux": { "namespaces": joined } });
    std::fs::write(request.bundle.join("config.json"), document.to_string()).unwrap();
    world.create_with(request).unwrap();
    let started = world.sandbox.start_pod("p1").unwrap();
    for (kind, file) in kinds {
        assert_eq!(paths(&started.spec)[kind], theirs(file));
        assert_eq!(namespace(started.pid, file), namespace(other.id(), file));
    }
    world.shut_down();
    other.kill().unwrap();
    other.wait().unwrap();
}

#[test]
fn many_wait_for_the_end_of_a_pod_and_get_the_same() {
    let world = World::new();
    world.create(config()).unwrap();
    world.sandbox.start_pod("p1").unwrap();
    let waiters: Vec<_> = (0..8).map(|_| world.exit_of_pod()).collect();
    assert!(waiters[0].try_recv().is_err());
    world.stop();
    world.stop();
    let all: Vec<_> = waiters.iter().map(|w| w.recv_timeout(world::PATIENCE).unwrap()).collect();
    assert!(all.iter().all(|exit| *exit == all[0] && exit.code == 0));
    assert_eq!(world.exit_of_pod().recv_timeout(world::PATIENCE).unwrap(), all[0], "also afterwards");
    world.shut_down();
}
