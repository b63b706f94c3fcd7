//! Limits how many heap allocations the shim makes for each request. The allocator of debug builds counts them and
//! the state dump reports the count, so allocations of the test itself are not included.

use crate::life::Life;
use crate::{alone, any, Bill};
use nix::sys::signal::{kill, Signal};
use nix::unistd::Pid;
use std::time::Duration;
use testbed::fake::Containerd;

/// Long enough for events to be sent and an exit to be seen, yet shorter than an idle worker lives: a thread more or
/// less would add noise.
const SETTLE: Duration = Duration::from_millis(150);

/// Enough rounds that accidental extra allocations are absent from at least one of them.
const ROUNDS: usize = 3;

/// Returns how many allocations the shim has made so far.
fn count(containerd: &Containerd, server: u32) -> u64 {
    containerd.log.lock().unwrap().clear();
    kill(Pid::from_raw(server as i32), Signal::SIGUSR1).unwrap();
    assert!(containerd.logged("end of state dump"), "no answer to SIGUSR1");
    let log = String::from_utf8_lossy(&containerd.log.lock().unwrap()).into_owned();
    let (before, _) = log.split_once(" allocations so far").expect("a debug build counts");
    before.rsplit_once('"').unwrap().1.parse().unwrap()
}

struct Counter {
    life: Life,
    counts: Vec<(&'static str, u64)>,
}

impl Counter {
    fn step<R>(&mut self, name: &'static str, act: impl FnOnce(&mut Life) -> R) {
        let count = |life: &Life| count(&life.containerd, life.server);
        // Two dumps in a row measure what a dump itself allocates in this state.
        let first = count(&self.life);
        let before = count(&self.life);
        act(&mut self.life);
        std::thread::sleep(SETTLE);
        let sum = count(&self.life) - before;
        self.counts.push((name, sum - (before - first)));
    }
}

fn round() -> Vec<(&'static str, u64)> {
    let mut counter = Counter { life: Life::begin(crate::SHIM.into()), counts: Vec::new() };
    counter.step("Create", Life::create);
    counter.step("Start", |life| life.start(""));
    counter.step("Exec", |life| life.exec("e1"));
    counter.step("Start of an exec", |life| life.start("e1"));
    counter.step("State", Life::state);
    counter.step("Stats", Life::stats);
    // Includes the exits of both processes and their events.
    counter.step("Kill", Life::kill);
    counter.life.wait("");
    counter.life.wait("e1");
    counter.life.delete("e1");
    std::thread::sleep(SETTLE);
    counter.step("Delete", |life| life.delete(""));
    counter.life.end();
    counter.counts
}

#[test]
fn allocations_of_each_request() {
    let Some(_alone) = alone() else { return };
    if cfg!(not(debug_assertions)) {
        return testbed::skip::other_machine("a release build does not count its allocations");
    }
    let rounds: Vec<_> = (0..ROUNDS).map(|_| round()).collect();
    let least = |step: usize| rounds.iter().map(|round| round[step].1).min().unwrap();
    let all: Vec<_> = rounds[0].iter().enumerate().map(|(step, (name, _))| (*name, least(step))).collect();
    println!("{rounds:?}");
    assert_eq!(all.len(), crate::ALLOCATIONS.len());
    let mut bill = Bill::default();
    for ((name, count), (budgeted, most)) in all.iter().zip(crate::ALLOCATIONS) {
        assert_eq!(name, budgeted);
        bill.add(&format!("allocations of {name}"), *count, &any(*most));
    }
    bill.settle();
}
