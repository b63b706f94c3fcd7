//! What a kubelet asks of every container every ten seconds.

use std::time::Instant;

use containerd_shim_protos::api::{StatsRequest, StatsResponse};

use crate::account::Running;
use crate::peer::Peer;
use crate::samples::Rows;
use crate::shim::World;
use crate::Run;

const GROUP: &str = "Stats";
/// Per turn; there are ten turns.
const CALLS: u32 = 50;

pub fn run(rows: &mut Rows, run: &Run) {
    let worlds: Vec<(Peer, World)> = run.shims().map(|peer| (peer, World::new())).collect();
    let mut all: Vec<Running> =
        worlds.iter().map(|(peer, world)| Running::begin(world, *peer, |_| {})).collect();
    for turn in 0..=run.rounds.div_ceil(3) {
        for running in &mut all {
            let mut warm_up = Rows::default();
            let rows = if turn == 0 { &mut warm_up } else { &mut *rows };
            ask(running, rows);
        }
    }
    all.into_iter().for_each(Running::end);
}

fn ask(running: &mut Running, rows: &mut Rows) {
    let request = StatsRequest { id: running.id.clone(), ..Default::default() };
    let cpu = running.account.shim();
    for _ in 0..CALLS {
        let began = Instant::now();
        let answer: StatsResponse = running.shim.call("Stats", &request).expect("Stats");
        rows.time(GROUP, "Stats", running.peer, began.elapsed());
        let stats = answer.stats.unwrap_or_default();
        assert!(stats.type_url.ends_with("Metrics") && stats.value.len() > 100, "{stats:?}");
    }
    rows.time(GROUP, "CPU of the shim per call", running.peer, (running.account.shim() - cpu) / CALLS);
}
