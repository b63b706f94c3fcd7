//! Limits what a shim keeps while its container sleeps, and the size of its binary.

use crate::life::Life;
use crate::pod::Pod;
use crate::{alone, any, optimised, Bill, SHIM, SIZE};
use containerd_shim_protos::api::WaitRequest;
use std::path::Path;
use std::time::Duration;
use testbed::shim;
use testbed::skip::missing;
use testbed::wire::TASK_V2;

/// By then the last request's worker (0.5 s) and the events thread (2 s) have ended.
const REST: Duration = Duration::from_secs(3);

/// How many shims run at the same time, of which the median counts: a single shim would have the program's pages as
/// private.
const SHIMS: usize = 3;

#[derive(Debug)]
struct Rest {
    /// KiB.
    private: u64,
    threads: u64,
    descriptors: u64,
}

impl Rest {
    fn of(pid: u32) -> Rest {
        let rollup = format!("/proc/{pid}/smaps_rollup");
        let count = |folder: &str| std::fs::read_dir(format!("/proc/{pid}/{folder}")).unwrap().count() as u64;
        // The shim holds a container's cgroup open in each hierarchy.
        let hierarchies = std::fs::read_to_string("/proc/self/cgroup").unwrap().lines().count() as u64;
        Rest {
            private: field(&rollup, "Private_Clean:") + field(&rollup, "Private_Dirty:"),
            threads: count("task"),
            descriptors: count("fd") - hierarchies,
        }
    }
}

fn field(file: &str, name: &str) -> u64 {
    let text = std::fs::read_to_string(file).unwrap_or_else(|error| panic!("{file}: {error}"));
    let line = text.lines().find(|line| line.starts_with(name)).unwrap_or_else(|| panic!("{file}: {name}"));
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

fn middle(servers: impl Iterator<Item = u32>) -> Rest {
    let mut all: Vec<Rest> = servers.map(Rest::of).collect();
    println!("{all:?}");
    all.sort_by_key(|rest| rest.private);
    all.remove(all.len() / 2)
}

#[test]
fn a_lone_container_s_shim_at_rest() {
    let Some(_alone) = alone() else { return };
    let mut lives: Vec<Life> = (0..SHIMS).map(|_| Life::begin(shim())).collect();
    for life in &mut lives {
        life.create();
        life.start("");
    }
    std::thread::sleep(REST);
    let rest = middle(lives.iter().map(|life| life.server));
    for mut life in lives {
        life.kill();
        life.wait("");
        life.delete("");
        life.end();
    }
    let mut bill = Bill::default();
    bill.add("KiB of a lone container's shim", rest.private, &crate::LONE_MEMORY);
    bill.add("threads of a lone container's shim", rest.threads, &crate::LONE_THREADS);
    bill.add("descriptors of a lone container's shim", rest.descriptors, &crate::LONE_DESCRIPTORS);
    bill.settle();
}

/// Models clients that come and go while a container runs for a year.
#[test]
fn waits_that_are_over_leave_nothing() {
    let Some(_alone) = alone() else { return };
    let mut life = Life::begin(shim());
    life.create();
    life.start("");
    let request = WaitRequest { id: crate::life::ID.into(), ..Default::default() };
    let mut private = Vec::new();
    // The first round also leaves what a busy moment allocates once.
    for _ in 0..ROUNDS {
        for _ in 0..WAITS {
            life.wire.ask(TASK_V2, "Wait", &request, Duration::from_millis(1));
        }
        (0..WAITS).for_each(|_| drop(life.wire.next().expect("an answer")));
        // Waits also end with the connection of their client.
        let mut gone = testbed::wire::Wire::connect(&life.socket);
        for _ in 0..WAITS {
            gone.ask(TASK_V2, "Wait", &request, Duration::ZERO);
        }
        drop(gone);
        std::thread::sleep(REST);
        private.push(Rest::of(life.server).private);
    }
    println!("{private:?}");
    life.kill();
    life.wait("");
    life.delete("");
    life.end();
    let mut bill = Bill::default();
    let more = private[ROUNDS - 1].saturating_sub(private[1]);
    bill.add("KiB that 20000 waits leave", more, &any(200));
    bill.settle();
}

const WAITS: usize = 10_000;
const ROUNDS: usize = 5;

#[test]
fn a_pod_with_one_container_at_rest() {
    let Some(_alone) = alone() else { return };
    let pods: Vec<Pod> = (0..SHIMS).map(|_| Pod::run(shim())).collect();
    std::thread::sleep(REST);
    let rest = middle(pods.iter().map(|pod| pod.server));
    pods.into_iter().for_each(Pod::end);
    let mut bill = Bill::default();
    bill.add("KiB of a pod", rest.private, &crate::POD_MEMORY);
    bill.add("threads of a pod", rest.threads, &crate::POD_THREADS);
    bill.add("descriptors of a pod", rest.descriptors, &crate::POD_DESCRIPTORS);
    bill.settle();
}

#[test]
fn the_binary_is_small() {
    // A debug build has no meaningful size.
    let file = if optimised() {
        shim()
    } else {
        Path::new(SHIM).parent().unwrap().with_file_name("release").join(Path::new(SHIM).file_name().unwrap())
    };
    if !file.exists() {
        return missing(&format!("a release build at {}: `make build`, or SHOAL_SHIM", file.display()));
    }
    println!("{}", file.display());
    let mut bill = Bill::default();
    bill.add("bytes of the binary", std::fs::metadata(file).unwrap().len(), &any(SIZE));
    bill.settle();
}
