//! Pods as Kubernetes makes them: by shoal without a pause container, and by runc and the Go shim with one.
//!
//! Each has the CRI of its own containerd, and they take turns. The network plugin does nothing, so that only the pod
//! is measured.

use std::time::Instant;

use serde_json::json;

use super::memory::memory_of;
use super::table::{line, median, Times};
use testbed::cri::{Mode, Node, Pod};
use testbed::Runtime;

const ROUNDS: usize = 10;
/// How many idle pods there are while memory is measured.
const IDLE: usize = 5;

pub fn demo() {
    println!("\nPods over the CRI: shoal with sandboxer = \"shim\", runc with a pause container ...");
    let nodes = [(Runtime::Shoal, Mode::Shim), (Runtime::Runc, Mode::Runc)];
    let nodes = nodes.map(|(runtime, mode)| (runtime, mode, Node::without_network(mode)));
    let mut times = Times::new();
    for round in 0..=ROUNDS {
        for (runtime, mode, node) in &nodes {
            let mut warm_up = Times::new();
            let times = if round == 0 { &mut warm_up } else { &mut times };
            life(node, *mode, *runtime, times);
        }
    }
    println!("\nA pod's life, median of {ROUNDS} rounds each, without the network's part:\n");
    print!("{}", times.lines());
    println!("\nMemory of an idle pod with one container, median of {IDLE} (all processes but the container's own):\n");
    let [shoal, runc] = nodes.map(|(_, mode, node)| idle(&node, mode));
    print!("{}", line("", "shoal", "runc", "ratio"));
    for (what, field) in [("private", 0), ("Pss", 1), ("threads", 2), ("processes", 3)] {
        let show = |value: u64| if field > 1 { value.to_string() } else { format!("{value} KiB") };
        let ratio = format!("{:.2}", shoal[field] as f64 / runc[field] as f64);
        print!("{}", line(what, &show(shoal[field]), &show(runc[field]), &ratio));
    }
}

fn run(node: &Node, mode: Mode, name: &str) -> Pod {
    Pod::run(node.client(), mode.handler(), node.plain_pod(name))
        .unwrap_or_else(|e| panic!("RunPodSandbox: {e:?}"))
}

fn life(node: &Node, mode: Mode, runtime: Runtime, times: &mut Times) {
    let mut step = |name: &'static str, began: Instant| times.add(name, runtime, began.elapsed());
    let began = Instant::now();
    let pod = run(node, mode, "life");
    step("RunPodSandbox", began);
    for (name, create, start) in [
        ("one", "first CreateContainer", "first StartContainer"),
        ("two", "second CreateContainer", "second StartContainer"),
    ] {
        let began = Instant::now();
        let container = pod.create(name, json!({}));
        step(create, began);
        let began = Instant::now();
        container.start();
        step(start, began);
    }
    let began = Instant::now();
    pod.stop();
    step("StopPodSandbox", began);
    let began = Instant::now();
    pod.remove_at_once();
    step("RemovePodSandbox", began);
}

/// Measures the private memory, Pss, threads and processes of one pod.
fn idle(node: &Node, mode: Mode) -> [u64; 4] {
    let pods: Vec<_> = (0..IDLE)
        .map(|n| {
            let pod = run(node, mode, &format!("idle-{n}"));
            pod.start("one", json!({}));
            pod
        })
        .collect();
    std::thread::sleep(std::time::Duration::from_secs(3)); // start-up is over
    let all: Vec<_> = pods.iter().map(|pod| of_pod(node, pod)).collect();
    pods.iter().for_each(Pod::remove);
    [0, 1, 2, 3].map(|field| median(&all.iter().map(|values| values[field]).collect::<Vec<_>>()))
}

/// Measures one pod: the shim, found by the pod's id, and its children except the container (`sleep`).
fn of_pod(node: &Node, pod: &Pod) -> [u64; 4] {
    let parent = |pid: u32| {
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
        let line = status.lines().find(|line| line.starts_with("PPid:")).unwrap_or_default().to_owned();
        line.split_whitespace().nth(1).and_then(|pid| pid.parse::<u32>().ok())
    };
    let all = node.machine().processes();
    let shim = all.iter().find(|p| p.words.contains("containerd-shim") && p.words.contains(&pod.id));
    let shim = shim.expect("the pod has a shim").pid;
    let own = all.iter().filter(|p| p.pid == shim || parent(p.pid) == Some(shim) && p.words != "sleep 1000");
    let mut sum = [0; 4];
    for process in own {
        let [private, pss, threads] = memory_of(process.pid);
        for (total, value) in sum.iter_mut().zip([private, pss, threads, 1]) {
            *total += value;
        }
    }
    sum
}
