//! What the Store costs a shim: nothing before it is used, and nothing after.

use crate::{connect, shut_down};
use serde_json::json;
use shoal::service::protos::sandbox::{StoreGetRequest, StoreGetResponse};
use std::time::Duration;
use testbed::fake::{eventually, Containerd, Version};
use testbed::fake::{Answer, FakeStore};
use testbed::wire::{decode, Wire, DE, STORE, TASK_V3};

#[derive(Debug)]
struct Cost {
    /// KiB.
    anonymous: u64,
    resident: u64,
    threads: u64,
}

fn cost(pid: u32) -> Cost {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let number = |name: &str| {
        let line = status.lines().find(|line| line.starts_with(name)).unwrap();
        line.split_whitespace().nth(1).unwrap().parse().unwrap()
    };
    Cost { anonymous: number("RssAnon:"), resident: number("VmRSS:"), threads: number("Threads:") }
}

fn get(wire: &mut Wire, id: &str) {
    let request = StoreGetRequest { sandbox_id: id.into(), ..Default::default() };
    wire.call::<StoreGetResponse>(STORE, "Get", &request).unwrap();
}

#[test]
fn the_store_costs_a_shim_nothing_before_and_after_its_use() {
    let containerd = Containerd::new(Version::V2_3);
    containerd.prepare("c1", &["/probe", "sleep"], json!({}));
    let shim = containerd.start("c1");
    let store = FakeStore::listen(containerd.address().as_ref(), |seen| {
        // Long enough to be observed.
        std::thread::sleep(Duration::from_millis(if seen.message.ends_with(b"slow") { 300 } else { 0 }));
        Answer::Good(Vec::new())
    });
    let mut wire = containerd.connect(&shim);
    let pid = connect(&mut wire, TASK_V3, "c1").shim_pid;
    // The shim comes to rest by itself: the worker that has answered ends after a moment.
    let at_rest = || eventually(|| cost(pid).threads == 3);
    assert!(at_rest(), "{:?}", cost(pid));
    let before = cost(pid);
    let mut slow = containerd.connect(&shim);
    let request = StoreGetRequest { sandbox_id: "slow".into(), ..Default::default() };
    slow.ask(STORE, "Get", &request, Duration::ZERO);
    std::thread::sleep(Duration::from_millis(150));
    let during = cost(pid);
    slow.next().unwrap();
    for _ in 0..50 {
        get(&mut wire, "s1");
    }
    assert!(at_rest(), "{:?}", cost(pid));
    let after = cost(pid);
    for (when, Cost { anonymous, resident, threads }) in
        [("before", &before), ("at", &during), ("after", &after)]
    {
        println!("{when} a call: RssAnon {anonymous} KiB, VmRSS {resident} KiB, {threads} threads");
    }
    assert_eq!(store.take().len(), 51);
    assert!(during.threads <= before.threads + 2, "a worker that is idle by then, and the thread that waits");
    assert!(after.anonymous < before.anonymous + 200, "{before:?}, {after:?}");
    shut_down(wire, "c1");
}

#[test]
fn calls_that_wait_for_containerd_have_no_thread() {
    let containerd = Containerd::new(Version::V2_3);
    containerd.prepare("c1", &["/probe", "sleep"], json!({}));
    let shim = containerd.start("c1");
    let store = FakeStore::listen(containerd.address().as_ref(), |_| Answer::Never);
    let mut wire = containerd.connect(&shim);
    let pid = connect(&mut wire, TASK_V3, "c1").shim_pid;
    let mut waiting: Vec<Wire> = (0..80).map(|_| containerd.connect(&shim)).collect();
    for wire in &mut waiting {
        let request = StoreGetRequest { sandbox_id: "s1".into(), ..Default::default() };
        wire.ask(STORE, "Get", &request, Duration::from_secs(6));
    }
    // The three threads of a shim at rest, the parked one, and a worker that has just answered.
    assert!(eventually(|| store.seen.lock().unwrap().len() == 80));
    assert!(eventually(|| cost(pid).threads <= 5), "{:?}", cost(pid));
    for wire in &mut waiting {
        assert_eq!(decode::<StoreGetResponse>(wire.next().unwrap().1).unwrap_err().0, DE);
    }
    shut_down(wire, "c1");
}
