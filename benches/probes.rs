//! A container that is probed as a kubelet does, but far more often: what an exec costs in CPU.

use std::time::{Duration, Instant};

use crate::account::Running;
use crate::peer::Peer;
use crate::samples::{Rows, Target};
use crate::shim::World;
use crate::Run;

const GROUP: &str = "Exec probes";
const PACE: Duration = Duration::from_millis(50);
/// Per turn, which takes two seconds.
const PROBES: u32 = 40;

pub fn run(rows: &mut Rows, run: &Run) {
    // An event service for each: one takes only a single connection at a time.
    let worlds: Vec<(Peer, World)> = run.shims().map(|peer| (peer, World::new())).collect();
    let mut all: Vec<Running> =
        worlds.iter().map(|(peer, world)| Running::begin(world, *peer, |_| {})).collect();
    for turn in 0..=run.rounds.div_ceil(6) {
        for running in &mut all {
            let mut warm_up = Rows::default();
            let rows = if turn == 0 { &mut warm_up } else { &mut *rows };
            probe(running, rows, turn);
        }
    }
    all.into_iter().for_each(Running::end);
    rows.target(GROUP, "CPU per exec", &[Target::Better(15.0)]);
}

fn probe(running: &mut Running, rows: &mut Rows, turn: usize) {
    let (all, shim) = (running.account.all(), running.account.shim());
    let mut due = Instant::now();
    for n in 0..PROBES {
        let exec = format!("probe-{turn}-{n}");
        let began = Instant::now();
        running.shim.exec(&running.id, &exec, &["true"]);
        running.shim.start(&running.id, &exec);
        assert_eq!(running.world.exit(&exec).exit_status, 0);
        rows.time(GROUP, "Exec + Start to exit", running.peer, began.elapsed());
        running.shim.delete(&running.id, &exec);
        due += PACE;
        std::thread::sleep(due.saturating_duration_since(Instant::now()));
    }
    let mut cpu = |name: &str, took: Duration| rows.time(GROUP, name, running.peer, took / PROBES);
    cpu("CPU per exec", running.account.all() - all);
    cpu("CPU per exec, outside the container's cgroup", running.account.shim() - shim);
}
