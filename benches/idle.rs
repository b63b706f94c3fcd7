//! What an idle pod costs: one container, and all processes of the pod except the container's own.

use crate::footprint::{count_kernel_memory, kernel_memory, of_pods, settle};
use crate::host;
use crate::samples::{Rows, Target, Unit};
use crate::Run;

const GROUP: &str = "Idle pod";
const PODS: usize = 5;

pub fn run(rows: &mut Rows, run: &Run) {
    for host in host::all(run) {
        count_kernel_memory(&host);
        host.remove(&[host.pod("first")]); // what containerd needs only once
        let before = kernel_memory(&host);
        let pods: Vec<_> = (0..PODS).map(|n| host.pod(&format!("idle-{n}"))).collect();
        settle();
        let kernel = kernel_memory(&host);
        for pod in of_pods(&host, &pods) {
            let mut add = |name: &str, unit, value| rows.add(GROUP, name, unit, host.peer, value);
            add("private memory", Unit::KiB, pod.private);
            add("Pss", Unit::KiB, pod.pss);
            add("threads", Unit::Count, pod.threads);
            add("processes", Unit::Count, pod.processes);
            add("descriptors", Unit::Count, pod.descriptors);
        }
        if let (Some(before), Some(kernel)) = (before, kernel) {
            let each = (kernel - before) / PODS as f64;
            rows.add(GROUP, "kernel memory, the container's too", Unit::KiB, host.peer, each);
        }
        host.remove(&pods);
        host.end();
    }
    rows.target(GROUP, "private memory", &[Target::Better(12.0), Target::AtMost(400.0)]);
}
