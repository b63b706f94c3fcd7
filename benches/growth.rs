//! Pods beside many others: does the hundredth take longer than the tenth, and what does each cost?

use std::path::Path;
use std::time::Instant;

use crate::footprint::{
    charged_memory, count_kernel_memory, kernel_memory, of_machine, of_pods, settle, OF_MACHINE,
};
use crate::host::{self, Host};
use crate::peer::Peer;
use crate::samples::{Rows, Target, Unit};
use crate::Run;
use testbed::cri::Pod;

const GROUP: &str = "Many pods";
const FEW: usize = 10;

pub fn run(rows: &mut Rows, run: &Run) {
    // The full number takes minutes.
    let many = if run.rounds >= 20 { 200 } else { 20 };
    // One peer after the other: the pods of both would be twice as many.
    for peer in host::peers(run) {
        let host = Host::start(peer, Path::new("/tmp"));
        count_kernel_memory(&host);
        grow(&host, rows, many);
        host.end();
    }
    rows.target(GROUP, &format!("{many}th / {FEW}th"), &[Target::AtMost(1.3)]);
    rows.target(GROUP, &pss(many), &[Target::Better(8.0)]);
}

fn grow(host: &Host, rows: &mut Rows, many: usize) {
    let before = Before { machine: of_machine(), kernel: kernel_memory(host), charged: charged_memory(host) };
    let mut pods: Vec<Pod> = Vec::new();
    let mut times = Vec::new();
    while pods.len() < many {
        let config = host.config(&format!("pod-{}", pods.len()));
        Pod::make_cgroup(&config);
        let began = Instant::now();
        pods.push(host.run_with_container(config));
        times.push(began.elapsed().as_secs_f64() * 1e3);
        if pods.len() == FEW {
            memory(host, rows, &pods);
        }
    }
    memory(host, rows, &pods);
    of_kernel(host, rows, many, &before);
    host.remove(&pods);
    self::times(host.peer, rows, &times);
}

/// Adds rows of times: of the pods around the one that the row is named after.
fn times(peer: Peer, rows: &mut Rows, times: &[f64]) {
    let many = times.len();
    let mut of = |name: String, from: usize, to: usize| {
        times[from - 1..to].iter().for_each(|time| rows.add(GROUP, &name, Unit::Milliseconds, peer, *time));
        rows.row(GROUP, &name, Unit::Milliseconds).median(peer).expect("it has samples")
    };
    of("1st pod".to_owned(), 1, 1);
    let few = of(format!("{FEW}th pod"), 6, 15);
    if many >= 54 {
        of("50th pod".to_owned(), 45, 54);
    }
    let last = of(format!("{many}th pod"), many - 9, many);
    rows.add(GROUP, &format!("{many}th / {FEW}th"), Unit::Count, peer, last / few);
}

fn pss(pods: usize) -> String {
    format!("Pss per pod at {pods} pods")
}

fn memory(host: &Host, rows: &mut Rows, pods: &[Pod]) {
    settle();
    let many = pods.len();
    for pod in of_pods(host, pods) {
        let private = format!("private memory per pod at {many} pods");
        rows.add(GROUP, &private, Unit::KiB, host.peer, pod.private);
        rows.add(GROUP, &pss(many), Unit::KiB, host.peer, pod.pss);
    }
}

/// The memory before the first pod, in KiB.
struct Before {
    machine: [f64; 5],
    kernel: Option<f64>,
    charged: Option<f64>,
}

/// The kernel's share, and the whole machine's: the increase since there was no pod.
fn of_kernel(host: &Host, rows: &mut Rows, many: usize, before: &Before) {
    let each = |before: f64, now: f64| (now - before) / many as f64;
    let mut add = |name: &str, value| rows.add(GROUP, name, Unit::KiB, host.peer, value);
    if let (Some(before), Some(now)) = (before.kernel, kernel_memory(host)) {
        add("kernel memory per pod, container's and containerd's too (memory cgroup)", each(before, now));
    }
    if let (Some(before), Some(now)) = (before.charged, charged_memory(host)) {
        add("all memory per pod, container's and containerd's too (memory cgroup)", each(before, now));
    }
    for (n, now) in of_machine().into_iter().enumerate() {
        match OF_MACHINE[n] {
            "MemAvailable" => {
                add("memory per pod, all that it costs (MemAvailable)", each(now, before.machine[n]))
            }
            name => add(&format!("{name} per pod, whole machine"), each(before.machine[n], now)),
        }
    }
}
