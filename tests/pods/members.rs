//! What becomes of a container's specification in a pod.

use crate::world::{config, host, namespace, World};
use serde_json::json;
use shoal::error::Kind;
use shoal::sandbox::{Dns, PodConfig, PodCreate, PodPid, ProcessKey};
use shoal::spec::Ns;
use shoal::tasks::block_on;

#[test]
fn members_see_the_pod_s_files_and_share_memory() {
    let world = World::new();
    let dns = Dns { servers: vec!["10.1.2.3".into()], searches: vec!["a.b".into()], options: vec![] };
    world.create(PodConfig { hostname: "pod-1".into(), dns: Some(dns), ..config() }).unwrap();
    world.sandbox.start_pod("p1").unwrap();
    world.member("c1", &["/probe", "save", "/dev/shm/note"], &["net", "ipc", "uts"]);
    world.run("c1");
    assert_eq!(world.wait("c1").code, 0);
    world.member(
        "c2",
        &["/probe", "cat", "/etc/hostname", "/etc/resolv.conf", "/etc/hosts", "/dev/shm/note"],
        &["net", "ipc", "uts"],
    );
    world.run("c2");
    let seen = world.report("c2");
    assert_eq!(seen["/etc/hostname"], "pod-1\n");
    assert_eq!(seen["/etc/resolv.conf"], "search a.b\nnameserver 10.1.2.3\n");
    assert_eq!(seen["/etc/hosts"].as_str().unwrap(), std::fs::read_to_string("/etc/hosts").unwrap());
    assert!(seen["/dev/shm/note"].as_str().unwrap().contains("namespaces"), "{seen}");
    world.shut_down();
}

#[test]
fn the_folder_of_cri_1_7_is_replaced_and_the_client_s_own_mount_stays() {
    let world = World::new();
    world.create(PodConfig { hostname: "pod-1".into(), ..config() }).unwrap();
    world.sandbox.start_pod("p1").unwrap();
    let own = world.dir.path().join("own-hosts");
    std::fs::write(&own, "mine\n").unwrap();
    // CRI 1.7 makes directories of what is missing there.
    let cri = world.dir.path().join("sandboxes/p1/resolv.conf");
    std::fs::create_dir_all(&cri).unwrap();
    world.member("c1", &["/probe", "cat", "/etc/hosts", "/etc/resolv.conf"], &["net", "ipc", "uts"]);
    world.configure("c1", |config| {
        let bind = |at: &str, source: &std::path::Path| {
            json!({ "destination": at, "type": "bind", "source": source, "options": ["rbind", "rprivate", "ro"] })
        };
        let mounts = config["mounts"].as_array_mut().unwrap();
        mounts.push(bind("/etc/hosts", &own));
        mounts.push(bind("/etc/resolv.conf", &cri));
    });
    world.run("c1");
    let seen = world.report("c1");
    assert_eq!(seen["/etc/hosts"], "mine\n");
    assert_eq!(
        seen["/etc/resolv.conf"].as_str().unwrap(),
        std::fs::read_to_string("/etc/resolv.conf").unwrap_or_default()
    );
    world.shut_down();
}

#[test]
fn a_container_whose_specification_says_nothing_of_its_sandbox_joins_it() {
    for names_it in [true, false] {
        let world = World::new();
        world.create(config()).unwrap();
        let pod = world.sandbox.start_pod("p1").unwrap().pid;
        let new = ["network", "ipc", "uts", "pid", "mount"].map(|kind| json!({ "type": kind }));
        let bundle = world.bundle_of("c1", &["/probe", "sleep"], new.to_vec(), json!({}));
        if names_it {
            std::fs::write(bundle.join("sandbox"), "p1").unwrap();
        }
        world.run("c1");
        let pid = world.pid("c1");
        for kind in ["net", "ipc", "uts"] {
            assert_eq!(namespace(pid, kind), namespace(pod, kind), "{kind}");
        }
        assert_ne!(namespace(pid, "pid"), host("pid"));
        let cgroup = std::fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap();
        assert!(cgroup.contains(&format!("/{}/p1/c1", world.namespace)), "{cgroup}");
        world.shut_down();
    }
}

/// A client that knows no pid of the pod writes that of whoever is the first process.
#[test]
fn paths_of_the_first_process_mean_the_pods_namespaces() {
    let own = nix::unistd::gethostname().unwrap();
    for shared in [PodPid::Pod, PodPid::Container] {
        let world = World::new();
        world.create(PodConfig { hostname: "pod-1".into(), pid: shared, ..config() }).unwrap();
        let pod = world.sandbox.start_pod("p1").unwrap().pid;
        let of_first = |kind: &str, name: &str| json!({ "type": kind, "path": format!("/proc/1/ns/{name}") });
        let mut list = vec![of_first("network", "net"), of_first("ipc", "ipc"), of_first("uts", "uts")];
        list.push(json!({ "type": "mount" }));
        let pids = [json!({ "type": "pid" }), of_first("pid", "pid")];
        let with = |pids: &serde_json::Value| list.iter().chain([pids]).cloned().collect();
        world.bundle_of("c1", &["/probe", "sleep"], with(&pids[0]), json!({}));
        world.configure("c1", |config| config["hostname"] = "of-c1".into());
        world.run("c1");
        for kind in ["net", "ipc", "uts"] {
            assert_eq!(namespace(world.pid("c1"), kind), namespace(pod, kind), "{kind}");
        }
        world.bundle_of("c2", &["/probe", "sleep"], with(&pids[1]), json!({}));
        match shared {
            PodPid::Pod => {
                world.run("c2");
                assert_eq!(namespace(world.pid("c2"), "pid"), namespace(pod, "pid"));
            }
            _ => {
                let error = world.create_member("c2").unwrap_err();
                assert!(error.kind() == Kind::Invalid && error.to_string().contains("share"), "{error}");
            }
        }
        assert_eq!(nix::unistd::gethostname().unwrap(), own);
        world.shut_down();
    }
}

#[test]
fn no_path_leads_a_container_to_the_host_unless_its_pod_is_there() {
    let world = World::new();
    world.create(config()).unwrap();
    world.sandbox.start_pod("p1").unwrap();
    let kinds = [("network", "net"), ("ipc", "ipc"), ("uts", "uts"), ("pid", "pid")];
    let with = |world: &World, kind: &str, path: &str| {
        let mut list = vec![json!({ "type": kind, "path": path }), json!({ "type": "mount" })];
        let others = kinds.iter().filter(|(other, _)| *other != kind);
        list.extend(others.map(|(other, _)| json!({ "type": other })));
        world.bundle_of("c1", &["/probe", "sleep"], list, json!({}));
    };
    let own = std::process::id();
    let link = world.dir.path().join("link");
    for (kind, name) in kinds {
        let direct = format!("/proc/{own}/ns/{name}");
        let _ = std::fs::remove_file(&link);
        std::os::unix::fs::symlink(&direct, &link).unwrap();
        for path in [direct.as_str(), link.to_str().unwrap(), &format!("/proc/01/../{own}/ns/{name}")] {
            with(&world, kind, path);
            let error = world.create_member("c1").unwrap_err().to_string();
            let refused = ["the host's", "(ENOENT)"].iter().any(|word| error.contains(word));
            assert!(refused, "{kind} by {path}: {error}");
        }
    }
    world.shut_down();

    let world = World::new();
    let uts_of_host = PodConfig { uts: Ns::Host, hostname: String::new(), ..config() };
    world.create(uts_of_host).unwrap();
    world.sandbox.start_pod("p1").unwrap();
    with(&world, "uts", &format!("/proc/{own}/ns/uts"));
    world.run("c1");
    assert_eq!(namespace(world.pid("c1"), "uts"), host("uts"));
    world.shut_down();
}

#[test]
fn the_pid_namespace_of_another_container_can_be_joined() {
    let world = World::new();
    world.create(config()).unwrap();
    world.sandbox.start_pod("p1").unwrap();
    world.member("c1", &["/probe", "sleep"], &["net", "ipc", "uts"]);
    world.run("c1");
    world.member("c2", &["/probe", "sleep"], &["net", "ipc", "uts"]);
    let target = world.pid("c1");
    world.configure("c2", |config| {
        let list = config["linux"]["namespaces"].as_array_mut().unwrap();
        list.retain(|ns| ns["type"] != "pid");
        list.push(json!({ "type": "pid", "path": format!("/proc/{target}/ns/pid") }));
    });
    world.run("c2");
    assert_eq!(namespace(world.pid("c2"), "pid"), namespace(target, "pid"));
    world.shut_down();
}

#[test]
fn a_pod_of_ctr_is_what_its_config_json_says() {
    let world = World::new();
    let request = world.request();
    let sandbox = json!({
        "ociVersion": "1.1.0", "hostname": "from-config", "process": { "args": ["/pause"] },
        "linux": {
            "namespaces": [{ "type": "network" }, { "type": "uts" }, { "type": "ipc" }],
            "sysctl": { "kernel.msgmax": "9000" },
            "cgroupsPath": format!("/{}/elsewhere", world.namespace),
        },
    });
    std::fs::write(world.bundle("p1").join("config.json"), sandbox.to_string()).unwrap();
    world
        .create_with(PodCreate { annotations: [("a".to_owned(), "b".to_owned())].into(), ..request })
        .unwrap();
    world.sandbox.start_pod("p1").unwrap();
    world.member(
        "c1",
        &["/probe", "cat", "/proc/sys/kernel/hostname", "/proc/sys/kernel/msgmax", "/proc/self/cgroup"],
        &["net", "ipc", "uts"],
    );
    world.run("c1");
    let seen = world.report("c1");
    assert_eq!(
        (&seen["/proc/sys/kernel/hostname"], &seen["/proc/sys/kernel/msgmax"]),
        (&json!("from-config\n"), &json!("9000\n"))
    );
    assert!(seen["/proc/self/cgroup"].as_str().unwrap().contains("/elsewhere/c1"), "{seen}");
    assert_eq!(world.sandbox.pod_status("p1").unwrap().config.annotations["a"], "b");
    world.shut_down();
}

#[test]
fn only_a_running_pod_takes_containers_and_only_its_own() {
    let world = World::new();
    world.create(PodConfig { pid: PodPid::Pod, ..config() }).unwrap();
    world.member("c1", &["/probe", "sleep"], &["net", "pid"]);
    assert_eq!(world.create_member("c1").unwrap_err().kind(), Kind::State, "not started");
    world.sandbox.start_pod("p1").unwrap();
    world.configure("c1", |config| config["annotations"]["io.kubernetes.cri.sandbox-id"] = "p2".into());
    let error = world.create_member("c1").unwrap_err();
    assert!(error.kind() == Kind::Invalid && error.to_string().contains("p2"), "{error}");
    std::fs::write(world.bundle("c1").join("sandbox"), "p1").unwrap();
    world.create_member("c1").unwrap();
    assert_eq!(world.create_member("p1").unwrap_err().kind(), Kind::Exists, "the id is the pod's");
    world.stop();
    assert_eq!(world.create_member("c2").unwrap_err().kind(), Kind::System, "no bundle");
    world.member("c2", &["/probe", "sleep"], &["net"]);
    assert_eq!(world.create_member("c2").unwrap_err().kind(), Kind::State, "stopped");
    // It was killed at its gate.
    assert_eq!(world.wait("c1").code, 137);
    assert_eq!(block_on(world.sandbox.start(&ProcessKey::init("c1"), None)).unwrap_err().kind(), Kind::State);
    world.shut_down();
}

/// A privileged container may leave its cgroup, and the host's administrator may move it.
#[test]
fn who_has_left_the_containers_cgroup_is_still_its_own() {
    for stop in [true, false] {
        let world = World::new();
        world.create(config()).unwrap();
        world.sandbox.start_pod("p1").unwrap();
        world.member("c1", &["/probe", "sleep"], &["net"]);
        world.run("c1");
        let pid = world.pid("c1");
        let exec = ProcessKey { container: "c1".into(), exec: Some("e1".into()) };
        let process = br#"{ "cwd": "/", "args": ["/probe", "sleep"], "user": { "uid": 0, "gid": 0 } }"#;
        for procs in roots() {
            std::fs::write(procs, pid.to_string()).unwrap();
        }
        assert_eq!(world.sandbox.pids("c1").unwrap(), [(pid, None)]);
        world.sandbox.exec(&exec, process, Default::default()).unwrap();
        block_on(world.sandbox.start(&exec, None)).unwrap();
        assert_eq!(world.sandbox.pids("c1").unwrap().len(), 2);
        if stop {
            world.stop();
        } else {
            block_on(world.sandbox.kill(&ProcessKey::init("c1"), libc::SIGKILL as u32, true)).unwrap();
        }
        assert_eq!(world.wait("c1").code, 137);
        world.shut_down();
    }
}

/// Returns the cgroup.procs of the root of each hierarchy.
fn roots() -> Vec<std::path::PathBuf> {
    let root = std::path::PathBuf::from("/sys/fs/cgroup");
    let below = std::fs::read_dir(&root).unwrap().flatten().map(|entry| entry.path());
    let procs = below.chain([root]).map(|hierarchy| hierarchy.join("cgroup.procs"));
    // A directory may be no hierarchy, or, on a v2 host, not the root.
    let v2 = std::path::Path::new("/sys/fs/cgroup/cgroup.procs").exists();
    procs.filter(|procs| procs.exists() && (!v2 || procs.parent().unwrap().ends_with("cgroup"))).collect()
}
