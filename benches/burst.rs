//! Many pods at once, each requested by a thread of its own: what a node does that was drained, or is new.

use std::time::{Duration, Instant};

use crate::footprint::settle;
use crate::host::{self, Host};
use crate::samples::{Rows, Unit};
use crate::Run;
use testbed::cri::Pod;

const GROUP: &str = "50 pods at once";
const PODS: usize = 50;
const TURNS: usize = 3;

pub fn run(rows: &mut Rows, run: &Run) {
    let hosts = host::all(run);
    for host in &hosts {
        host.remove(&[host.pod("first")]);
    }
    for _ in 0..TURNS {
        for host in &hosts {
            let took = burst(host);
            settle(); // lets containerd clean up after the pods now, not in the next turn
            rows.time(GROUP, "all of them run", host.peer, took);
            rows.add(GROUP, "pods per second", Unit::PerSecond, host.peer, PODS as f64 / took.as_secs_f64());
        }
    }
    hosts.into_iter().for_each(Host::end);
}

/// The time until the last of them has started its container.
fn burst(host: &Host) -> Duration {
    let configs: Vec<_> = (0..PODS).map(|n| host.config(&format!("burst-{n}"))).collect();
    configs.iter().for_each(Pod::make_cgroup);
    let began = Instant::now();
    let pods: Vec<_> = std::thread::scope(|scope| {
        let threads: Vec<_> =
            configs.into_iter().map(|config| scope.spawn(|| host.run_with_container(config))).collect();
        threads.into_iter().map(|thread| thread.join().expect("a pod")).collect()
    });
    let took = began.elapsed();
    host.remove(&pods);
    took
}
