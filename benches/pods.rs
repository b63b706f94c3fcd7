//! A pod's life over the CRI, step by step. The network plugin does nothing, and its cost is a row of its own.
//!
//! containerd writes each change of its database to the disk and waits for it, some 25 times before a pod has its first
//! container, whatever the runtime. There are therefore two groups: as on a real node, and with containerd's files in
//! memory, where that costs nothing and the runtimes' share remains.

use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::json;

use crate::host::{self, Host, Memory};
use crate::samples::{Rows, Target};
use crate::Run;
use testbed::cri::Pod;

const ON_DISK: &str = "Pods over the CRI";
const IN_MEMORY: &str = "Pods over the CRI, containerd's files in memory";
const SUM: &str = "RunPodSandbox + first container";

/// containerd cleans up after a pod some time after its removal: this keeps it out of the next peer's turn.
const AFTERWARDS: Duration = Duration::from_millis(400);

pub fn run(rows: &mut Rows, run: &Run) {
    lives(rows, run, ON_DISK, Path::new("/tmp"));
    let memory = Memory::mount();
    lives(rows, run, IN_MEMORY, memory.path());
}

fn lives(rows: &mut Rows, run: &Run, group: &'static str, folder: &Path) {
    let hosts: Vec<_> = host::peers(run).into_iter().map(|peer| Host::start(peer, folder)).collect();
    for round in 0..=run.rounds.div_ceil(2) {
        for host in &hosts {
            let mut warm_up = Rows::default();
            let rows = if round == 0 { &mut warm_up } else { &mut *rows };
            life(host, group, rows);
            std::thread::sleep(AFTERWARDS);
        }
    }
    hosts.into_iter().for_each(Host::end);
    rows.target(group, SUM, &[Target::Better(6.0)]);
}

fn life(host: &Host, group: &'static str, rows: &mut Rows) {
    let mut time = |name: &str, took: Duration| rows.time(group, name, host.peer, took);
    let config = host.config("life");
    Pod::make_cgroup(&config);

    let (pod, ran) = timed(|| host.run(config));
    time("RunPodSandbox", ran);
    let (one, created) = timed(|| pod.create("one", json!({})));
    time("first CreateContainer", created);
    let ((), started) = timed(|| one.start());
    time("first StartContainer", started);
    time(SUM, ran + created + started);
    let (_, second) = timed(|| pod.start("two", json!({})));
    time("second container, Create + Start", second);
    time("StopPodSandbox", timed(|| pod.stop()).1);
    time("RemovePodSandbox", timed(|| pod.forget()).1);
    pod.remove_cgroup();

    // Both are part of the sum, and the same for each peer.
    let client = host.node.client();
    time("a call that does nothing (Version)", timed(|| client.call("Version", &json!({}))).1);
    time("network plugin alone", timed(|| plugin(host)).1);
}

fn timed<T>(work: impl FnOnce() -> T) -> (T, Duration) {
    let began = Instant::now();
    let value = work();
    (value, began.elapsed())
}

/// Runs the plugin as containerd does for a pod.
fn plugin(host: &Host) {
    let mut child = Command::new(host.node.plugin())
        .env("CNI_COMMAND", "ADD")
        .env("CNI_CONTAINERID", "0123456789abcdef")
        .env("CNI_NETNS", "/var/run/netns/cni-0")
        .env("CNI_ARGS", "IgnoreUnknown=1;K8S_POD_NAMESPACE=bench;K8S_POD_NAME=life")
        .env("CNI_IFNAME", "eth0")
        .env("CNI_PATH", host.node.plugin().parent().expect("it is in a folder"))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("run the plugin");
    let config = json!({ "cniVersion": "1.0.0", "name": "none", "type": "nothing" }).to_string();
    child.stdin.take().expect("it is piped").write_all(config.as_bytes()).expect("write to the plugin");
    let out = child.wait_with_output().expect("wait for the plugin");
    assert!(out.status.success() && out.stdout.starts_with(b"{"), "{out:?}");
}
