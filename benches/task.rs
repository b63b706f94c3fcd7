//! A container's life over the Task API, step by step: what the shim costs without containerd.

use std::time::{Duration, Instant};

use crate::floor::Floor;
use crate::peer::Peer;
use crate::samples::{Rows, Target};
use crate::shim::{launch, Shim, Streams, World};
use crate::Run;

const GROUP: &str = "Task API";
/// Execs per container in each round.
const EXECS: usize = 5;

pub fn run(rows: &mut Rows, run: &Run) {
    let world = World::new();
    let mut floor = run.peers.contains(&Peer::Floor).then(|| Floor::start(&world));
    for round in 0..=run.rounds {
        for &peer in &run.peers {
            let mut warm_up = Rows::default();
            let rows = if round == 0 { &mut warm_up } else { &mut *rows };
            match &mut floor {
                Some(floor) if peer == Peer::Floor => {
                    floor.life(&world, EXECS, |name, took| rows.time(GROUP, name, peer, took));
                }
                _ => life(&world, rows, peer, round),
            }
        }
    }
    for (name, targets) in TARGETS {
        rows.target(GROUP, name, targets);
    }
}

const TARGETS: &[(&str, &[Target])] = &[
    ("shim launch + Create", &[Target::Better(8.0)]),
    ("Create + Start", &[Target::OfFloor(2.5)]),
    ("Start", &[Target::Better(12.0)]),
    ("exec of true, Start to exit", &[Target::Better(12.0)]),
    ("Delete", &[Target::Better(8.0)]),
];

fn life(world: &World, rows: &mut Rows, peer: Peer, round: usize) {
    let id = format!("{}-{round}", peer.name());
    let request = world.prepare(&id, |_| {});
    let _streams = Streams::open(&world.bundle(&id));
    let mut time = |name: &str, took: Duration| rows.time(GROUP, name, peer, took);

    let began = Instant::now();
    let answer = launch(world, peer, &id);
    let launched = began.elapsed();
    time("shim launch", launched);
    let mut shim = Shim::connect(world, peer, &id, &answer);
    let began = Instant::now();
    shim.create(&request);
    let created = began.elapsed();
    time("Create", created);
    time("shim launch + Create", launched + created);
    let began = Instant::now();
    shim.start(&id, "");
    let started = began.elapsed();
    time("Start", started);
    time("Create + Start", created + started);

    for n in 0..EXECS {
        let exec = format!("e{n}");
        let began = Instant::now();
        shim.exec(&id, &exec, &["true"]);
        time("Exec (registration)", began.elapsed());
        let began = Instant::now();
        shim.start(&id, &exec);
        assert_eq!(world.exit(&exec).exit_status, 0);
        time("exec of true, Start to exit", began.elapsed());
        let began = Instant::now();
        shim.delete(&id, &exec);
        time("Delete of the exec", began.elapsed());
    }

    let began = Instant::now();
    shim.kill(&id);
    assert_eq!(world.exit(&id).exit_status, 137);
    time("SIGKILL to exit event", began.elapsed());
    let began = Instant::now();
    shim.delete(&id, "");
    time("Delete", began.elapsed());
    let began = Instant::now();
    shim.end();
    time("Shutdown + delete verb", began.elapsed());
}
