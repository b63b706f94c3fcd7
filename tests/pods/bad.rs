//! Impossible requests: the right kind of error, a message that names the field, and nothing left.

use crate::world::{config, World};
use shoal::error::Kind;
use shoal::sandbox::{PodConfig, PodPid, ProcessKey};
use shoal::spec::Ns;
use shoal::tasks::block_on;
use std::path::Path;
use std::time::Duration;

#[track_caller]
fn refused(config: PodConfig, kind: Kind, words: &[&str]) {
    let world = World::new();
    let error = world.create(config).unwrap_err();
    assert_eq!(error.kind(), kind, "{error}");
    for word in words {
        assert!(error.to_string().contains(word), "{word:?} is not in: {error}");
    }
    assert_eq!(world.sandbox.pod_id(), None);
    world.nothing_is_left();
    // The next create is unaffected.
    world.create(crate::world::config()).unwrap();
    world.shut_down();
}

#[test]
fn a_netns_that_is_gone() {
    let world = World::new();
    let error = world.create_in(Path::new("/run/netns/no-such"), config()).unwrap_err();
    assert_eq!(error.kind(), Kind::System, "{error}");
    let text = "netns_path \"/run/netns/no-such\": no such file or directory";
    assert!(error.to_string().contains(text), "{error}");
    world.nothing_is_left();
    let error = world.create_in(Path::new("/etc/passwd"), config()).unwrap_err();
    assert!(error.kind() == Kind::Invalid && error.to_string().contains("not a namespace"), "{error}");
    let host = PodConfig { net: Ns::Host, ..config() };
    assert_eq!(world.create_in(Path::new("/proc/1/ns/net"), host).unwrap_err().kind(), Kind::Invalid);
    world.nothing_is_left();
}

#[test]
fn a_cgroup_parent_that_does_not_exist_is_made_and_goes_with_the_pod() {
    let world = World::new();
    let parent = format!("/{}/made/of/pods", world.namespace);
    let config = PodConfig { cgroup_parent: parent.clone(), ..config() };
    // Also if the create fails.
    let no_namespace = Path::new("/etc/passwd");
    world.create_in(no_namespace, config.clone()).unwrap_err();
    world.nothing_is_left();
    world.create(config).unwrap();
    world.sandbox.start_pod("p1").unwrap();
    world.member("c1", &["/probe", "sleep"], &["net"]);
    world.configure("c1", |config| config["linux"]["cgroupsPath"] = format!("{parent}/c1").into());
    world.run("c1");
    let cgroups = std::fs::read_to_string(format!("/proc/{}/cgroup", world.pid("c1"))).unwrap();
    assert!(cgroups.contains(&format!("{parent}/c1\n")), "{cgroups}");
    block_on(world.sandbox.pause_pod("p1")).unwrap();
    world.sandbox.resume_pod("p1").unwrap();
    world.shut_down();
}

#[test]
fn a_sysctl_that_is_not_namespaced() {
    for (key, value) in
        [("kernel.core_pattern", "|/x"), ("vm.swappiness", "1"), ("net/../kernel/core_pattern", "x")]
    {
        let sysctls = [(key.to_owned(), value.to_owned())].into();
        refused(PodConfig { sysctls, ..config() }, Kind::Invalid, &["sysctl", key]);
    }
    let sysctls = [("net.ipv4.ip_forward".to_owned(), "1".to_owned())].into();
    refused(
        PodConfig { sysctls, net: Ns::Host, ..config() },
        Kind::Invalid,
        &["net.ipv4.ip_forward", "network"],
    );
}

#[test]
fn a_sysctl_that_the_kernel_refuses() {
    let sysctls = [("net.ipv4.ip_forward".to_owned(), "many".to_owned())].into();
    refused(
        PodConfig { sysctls, pid: PodPid::Pod, ..config() },
        Kind::System,
        &["net.ipv4.ip_forward", "EINVAL"],
    );
}

#[test]
fn a_hostname_that_is_too_long() {
    refused(PodConfig { hostname: "x".repeat(65), ..config() }, Kind::Invalid, &["hostname", "64"]);
    let world = World::new();
    world.create(PodConfig { hostname: "x".repeat(64), ..config() }).unwrap();
    world.shut_down();
}

/// runc, too, refuses it for a pause container.
#[test]
fn a_hostname_for_the_uts_namespace_of_the_host() {
    let host = PodConfig { net: Ns::Host, uts: Ns::Host, ..config() };
    refused(
        PodConfig { hostname: "web-0".into(), ..host.clone() },
        Kind::Invalid,
        &["hostname: \"web-0\"", "uts namespace"],
    );
    // What a kubelet sends with the host's network.
    let world = World::new();
    world.create(host).unwrap();
    world.shut_down();
}

#[test]
fn neither_options_nor_config_json() {
    let world = World::new();
    let error = world.create_with(world.request()).unwrap_err();
    assert!(error.kind() == Kind::Invalid && error.to_string().contains("config.json"), "{error}");
    world.nothing_is_left();
}

#[test]
fn every_call_in_the_wrong_state() {
    let world = World::new();
    let pods = &world.sandbox;
    let second = Duration::from_secs(1);
    let kind = |result: shoal::error::Result<()>| result.unwrap_err().kind();
    // None.
    assert_eq!(kind(pods.start_pod("p1").map(drop)), Kind::NotFound);
    assert_eq!(kind(block_on(pods.stop_pod("p1", second))), Kind::NotFound);
    assert_eq!(kind(pods.pod_status("p1").map(drop)), Kind::NotFound);
    assert_eq!(kind(block_on(pods.pause_pod("p1"))), Kind::NotFound);
    assert_eq!(kind(pods.ping_pod("p1")), Kind::NotFound);
    // Created.
    world.create(config()).unwrap();
    assert_eq!(kind(world.create(config())), Kind::Exists);
    assert_eq!(kind(pods.start_pod("p2").map(drop)), Kind::NotFound);
    assert_eq!(kind(block_on(pods.pause_pod("p1"))), Kind::State);
    pods.ping_pod("p1").unwrap();
    // Started.
    pods.start_pod("p1").unwrap();
    assert_eq!(kind(pods.start_pod("p1").map(drop)), Kind::State);
    assert_eq!(kind(pods.resume_pod("p1")), Kind::State);
    assert!(!pods.shutdown(), "a pod without containers is no reason to end");
    // Paused, without a container in it.
    block_on(pods.pause_pod("p1")).unwrap();
    assert_eq!(kind(block_on(pods.pause_pod("p1"))), Kind::State);
    pods.resume_pod("p1").unwrap();
    block_on(pods.pause_pod("p1")).unwrap();
    // Stopped.
    world.stop();
    world.stop();
    assert_eq!(kind(pods.ping_pod("p1")), Kind::State);
    assert_eq!(kind(pods.start_pod("p1").map(drop)), Kind::State);
    assert_eq!(kind(pods.resume_pod("p1")), Kind::State);
    let sandbox = std::sync::Arc::clone(pods);
    world.shut_down();
    assert_eq!(kind(block_on(sandbox.stop_pod("p1", second))), Kind::NotFound);
}

#[test]
fn a_shim_whose_pod_was_never_made_ends_when_it_is_asked() {
    let world = World::new();
    assert!(world.create_in(Path::new("/run/netns/no-such"), config()).is_err());
    block_on(world.sandbox.shutdown_pod("p1", Duration::from_secs(1))).unwrap();
    assert_eq!(world.create(config()).unwrap_err().kind(), Kind::Unavailable);
    world.nothing_is_left();
}

#[test]
fn a_mount_that_a_killed_create_has_left_goes_with_the_pod() {
    let world = World::new();
    let shm = world.request().bundle.join("shm");
    std::fs::create_dir(&shm).unwrap();
    let mounted = std::process::Command::new("mount").args(["-t", "tmpfs", "shm"]).arg(&shm).status();
    assert!(mounted.unwrap().success());
    world.create(config()).unwrap();
    world.shut_down();
}

#[test]
fn a_link_in_the_place_of_a_file_is_not_followed() {
    let world = World::new();
    let (link, victim) = (world.request().bundle.join("hosts"), world.dir.path().join("victim"));
    std::fs::write(&victim, "mine").unwrap();
    std::os::unix::fs::symlink(&victim, &link).unwrap();
    let error = world.create(config()).unwrap_err();
    assert!(error.to_string().contains("hosts"), "{error}");
    assert_eq!(std::fs::read_to_string(&victim).unwrap(), "mine");
    world.nothing_is_left();
}

#[test]
fn a_shutdown_waits_for_a_delete_that_is_at_work() {
    let world = World::new();
    world.create(config()).unwrap();
    world.sandbox.start_pod("p1").unwrap();
    world.member("c1", &["/probe", "exit", "0"], &["net"]);
    let done = world.dir.path().join("done");
    world.configure("c1", |config| {
        let script = format!("sleep 0.5; echo > {}", done.display());
        config["hooks"] =
            serde_json::json!({ "poststop": [{ "path": "/bin/sh", "args": ["sh", "-c", script] }] });
    });
    world.run("c1");
    assert_eq!(world.wait("c1").code, 0);
    let sandbox = std::sync::Arc::clone(&world.sandbox);
    let delete = std::thread::spawn(move || block_on(sandbox.delete(&ProcessKey::init("c1"))).map(drop));
    std::thread::sleep(Duration::from_millis(150));
    block_on(world.sandbox.shutdown_pod("p1", Duration::from_secs(10))).unwrap();
    assert!(done.exists(), "the hook was cut short");
    delete.join().unwrap().unwrap();
    world.nothing_is_left();
}
