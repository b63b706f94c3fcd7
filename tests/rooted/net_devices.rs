//! `linux.netDevices`: what the container's network namespace gets, and what the host's keeps. The host's is a network
//! namespace of the test's own thread. (runc has them since 1.4; the testbed has 1.3.)

use crate::bench::{eventually, rooted};
use crate::container::{Bundle, Running};
use serde_json::{json, Value};
use shoal::sys::namespace;
use std::process::Command;

/// Runs ip(8) with these words, and returns its output.
fn ip(words: &str) -> String {
    run(Command::new("ip").args(words.split(' ')))
}

fn run(command: &mut Command) -> String {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// A device `dev0`, up, with addresses of all kinds; its other end is `peer0`.
fn host() {
    namespace::unshare(libc::CLONE_NEWNET as u64).unwrap();
    ip("link add dev0 mtu 1400 type veth peer name peer0");
    ip("link set peer0 up");
    ip("link set dev0 up");
    for address in [
        "10.9.8.7/24 brd + dev dev0",
        "10.9.7.1/32 dev dev0",
        "fd00:9::7/64 dev dev0",
        "10.1.1.1/24 dev dev0 scope link",
        "10.2.2.2/24 dev dev0 valid_lft 1000 preferred_lft 1000",
        "fd00:a::7/64 dev dev0 valid_lft 1000 preferred_lft 1000",
    ] {
        ip(&format!("addr add {address}"));
    }
}

const GLOBAL: [&str; 3] = ["10.9.7.1/32", "10.9.8.7/24", "fd00:9::7/64"];

/// The devices in the namespace of `pid`: name, whether it is up, and its global addresses.
fn devices(pid: &str) -> Vec<(String, bool, Vec<String>)> {
    let file = format!("--net=/proc/{pid}/ns/net");
    let text = run(Command::new("nsenter").args([&file, "ip", "-json", "addr"]));
    let all: Vec<Value> = serde_json::from_str(&text).unwrap();
    let device = |one: &Value| {
        let addresses = one["addr_info"].as_array().unwrap().iter();
        let mut addresses: Vec<String> = addresses
            .filter(|address| address["scope"] == "global")
            .map(|address| format!("{}/{}", address["local"].as_str().unwrap(), address["prefixlen"]))
            .collect();
        addresses.sort();
        let up = one["flags"].as_array().unwrap().contains(&json!("UP"));
        (one["ifname"].as_str().unwrap().to_owned(), up, addresses)
    };
    let mut found: Vec<_> = all.iter().map(device).filter(|(name, ..)| name != "lo").collect();
    found.sort();
    found
}

fn with(mut bundle: Bundle, devices: Value) -> Bundle {
    bundle.spec["linux"]["netDevices"] = devices;
    bundle
}

fn devices_of(running: &Running) -> Vec<(String, bool, Vec<String>)> {
    devices(&running.waiting.pid.to_string())
}

fn global() -> Vec<String> {
    GLOBAL.map(String::from).to_vec()
}

#[test]
fn a_device_of_the_host_becomes_the_containers_with_its_addresses() {
    if !rooted("a_device_of_the_host_becomes_the_containers_with_its_addresses") {
        return;
    }
    for make in [Bundle::new, crate::users::bundle] {
        for (wanted, name) in [(json!({}), "dev0"), (json!({ "name": "net1" }), "net1")] {
            host();
            let bundle = with(make(&["/probe", "report"]), json!({ "dev0": wanted }));
            let running = bundle.create().unwrap();
            assert_eq!(devices_of(&running), [(name.to_owned(), true, global())]);
            let file = format!("--net=/proc/{}/ns/net", running.waiting.pid);
            let link = run(Command::new("nsenter").args([&file, "ip", "addr", "show", name]));
            assert!(link.contains("mtu 1400") && link.contains("brd 10.9.8.255"), "{link}");
            assert_eq!(devices("thread-self"), [("peer0".to_owned(), true, vec![])]);
            // Loopback, and the device.
            let report: Value = serde_json::from_str(&running.finish()).unwrap();
            assert_eq!(report["interfaces"], 2);
        }
    }
}

/// Another network namespace than the thread's, and a process in it.
struct Other(std::process::Child);

impl Other {
    fn new() -> Other {
        let child = Command::new("unshare").args(["--net", "sleep", "1000"]).spawn().unwrap();
        let own = std::fs::read_link("/proc/thread-self/ns/net").unwrap();
        let other = Other(child);
        eventually("the namespace", || std::fs::read_link(other.path()).unwrap() != own);
        other
    }

    fn path(&self) -> String {
        format!("/proc/{}/ns/net", self.0.id())
    }
}

impl Drop for Other {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn in_namespace(mut bundle: Bundle, path: &str) -> Bundle {
    let namespaces = bundle.spec["linux"]["namespaces"].as_array_mut().unwrap();
    namespaces.retain(|namespace| namespace["type"] != "network");
    namespaces.push(json!({ "type": "network", "path": path }));
    bundle
}

#[test]
fn a_device_comes_into_a_namespace_that_is_joined() {
    if !rooted("a_device_comes_into_a_namespace_that_is_joined") {
        return;
    }
    host();
    let other = Other::new();
    let joining = in_namespace(Bundle::new(&["/probe", "report"]), &other.path());
    let bundle = with(joining, json!({ "dev0": {} }));
    bundle.create().unwrap().finish();
    // The namespace is not the container's, and outlives it.
    assert_eq!(devices(&other.0.id().to_string()), [("dev0".to_owned(), true, global())]);
}

#[test]
fn a_device_that_cannot_be_moved_stays_as_it_is() {
    if !rooted("a_device_that_cannot_be_moved_stays_as_it_is") {
        return;
    }
    host();
    let before = devices("thread-self");
    let refusal = |bundle: &Bundle| bundle.create().err().expect("refused").to_string();
    let missing = with(Bundle::new(&["/probe", "report"]), json!({ "dev9": {} }));
    let error = refusal(&missing);
    assert!(error.starts_with("linux.netDevices.dev9: step "), "{error}");
    assert!(error.ends_with("the host has no such network device (ENODEV)"), "{error}");

    let other = Other::new();
    let path = other.path();
    run(Command::new("nsenter").args([
        &format!("--net={path}"),
        "ip",
        "link",
        "add",
        "net1",
        "type",
        "veth",
    ]));
    let wanted = json!({ "dev0": { "name": "net1" } });
    let error = refusal(&with(in_namespace(Bundle::new(&["/probe", "report"]), &path), wanted));
    assert!(error.ends_with("has a device of that name (EEXIST)"), "{error}");

    let path = format!("/proc/{}/task/{}/ns/net", std::process::id(), nix::unistd::gettid());
    let error =
        refusal(&with(in_namespace(Bundle::new(&["/probe", "report"]), &path), json!({ "dev0": {} })));
    assert!(error.ends_with("the host's, which linux.netDevices would change"), "{error}");
    assert_eq!(devices("thread-self"), before);

    // The first one stays too, if the second one cannot be moved.
    let wanted = json!({ "dev0": {}, "zzz9": {} });
    let error = refusal(&with(Bundle::new(&["/probe", "report"]), wanted));
    assert!(error.starts_with("linux.netDevices.zzz9: step "), "{error}");
    assert_eq!(devices("thread-self"), before);

    // A device that the kernel does not move keeps even the routes that it would lose by going down.
    for words in [
        "link add br0 type bridge",
        "link set br0 up",
        "addr add 10.5.5.5/24 dev br0",
        "addr add fd00:5::5/64 dev br0",
        "route add 10.6.0.0/16 via 10.5.5.1",
    ] {
        ip(words);
    }
    let found =
        || (ip("route show dev br0"), ip("-6 addr show dev br0 scope global"), ip("link show dev br0"));
    let before = found();
    let error = refusal(&with(Bundle::new(&["/probe", "report"]), json!({ "br0": { "name": "net1" } })));
    assert!(error.starts_with("linux.netDevices.br0: step "), "{error}");
    assert!(error.ends_with("the kernel moves no such device (EINVAL)"), "{error}");
    assert_eq!(found(), before);

    let many: Vec<String> = (0..257).map(|n| format!("10.7.{}.{}/32", n / 200, 1 + n % 200)).collect();
    for address in &many {
        ip(&format!("addr add {address} dev dev0"));
    }
    let before = devices("thread-self");
    let error = refusal(&with(Bundle::new(&["/probe", "report"]), json!({ "dev0": {} })));
    assert!(error.ends_with("it has more than 256 addresses (E2BIG)"), "{error}");
    assert_eq!(devices("thread-self"), before);
}

#[test]
fn a_namespace_without_ipv6_gets_a_device_without_it() {
    if !rooted("a_namespace_without_ipv6_gets_a_device_without_it") {
        return;
    }
    host();
    let other = Other::new();
    let off = "echo 1 > /proc/sys/net/ipv6/conf/default/disable_ipv6";
    run(Command::new("nsenter").args([&format!("--net={}", other.path()), "sh", "-c", off]));
    let joining = in_namespace(Bundle::new(&["/probe", "report"]), &other.path());
    with(joining, json!({ "dev0": {} })).create().unwrap().finish();
    let left = GLOBAL[..2].iter().map(|address| (*address).to_owned()).collect();
    assert_eq!(devices(&other.0.id().to_string()), [("dev0".to_owned(), true, left)]);
}
