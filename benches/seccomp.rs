//! What containerd's default profile costs: the first time, in a second container of the same shim, and in an exec.

use std::time::Instant;

use serde_json::{json, Value};

use crate::peer::Peer;
use crate::samples::Rows;
use crate::shim::{forget, launch, Shim, Streams, World};
use crate::Run;
use testbed::source;

const GROUP: &str = "Seccomp";
/// Per round.
const EXECS: usize = 3;

pub fn run(rows: &mut Rows, run: &Run) {
    let text = std::fs::read(source("tests/golden/specs/ctr-seccomp.json")).expect("read the profile");
    let mut spec: Value = serde_json::from_slice(&text).expect("the spec is JSON");
    let profile = spec["linux"]["seccomp"].take();
    assert!(profile["syscalls"].as_array().is_some_and(|rules| rules.len() > 5), "a profile");
    let world = World::new();
    for round in 0..=run.rounds.div_ceil(3) {
        for peer in run.shims() {
            for profile in [None, Some(&profile)] {
                let mut warm_up = Rows::default();
                let rows = if round == 0 { &mut warm_up } else { &mut *rows };
                pair(&world, rows, peer, round, profile);
            }
        }
    }
}

/// Runs two containers in one shim.
fn pair(world: &World, rows: &mut Rows, peer: Peer, round: usize, profile: Option<&Value>) {
    let word = if profile.is_some() { "with" } else { "without" };
    let ids = [1, 2].map(|n| format!("{}-{word}-{round}-{n}", peer.name()));
    let mut time = |name: &str, began: Instant| {
        rows.time(GROUP, &name.replace("W", word), peer, began.elapsed());
    };
    let [(mut first, _kept), (mut second, _both)] = ids.each_ref().map(|id| {
        let request = world.prepare(id, |spec| {
            spec["annotations"] = json!({ "io.containerd.runc.v2.group": ids[0] });
            if let Some(profile) = profile {
                spec["linux"]["seccomp"] = profile.clone();
            }
        });
        let streams = Streams::open(&world.bundle(id));
        let answer = launch(world, peer, id);
        let mut shim = Shim::connect(world, peer, id, &answer);
        let name =
            if *id == ids[0] { "Create W seccomp, first" } else { "Create W seccomp, second container" };
        let began = Instant::now();
        shim.create(&request);
        time(name, began);
        shim.start(id, "");
        (shim, streams)
    });
    for n in 0..EXECS {
        let exec = format!("{}-{n}", ids[0]);
        first.exec(&ids[0], &exec, &["true"]);
        let began = Instant::now();
        first.start(&ids[0], &exec);
        assert_eq!(world.exit(&exec).exit_status, 0);
        time("exec of true W seccomp, Start to exit", began);
        first.delete(&ids[0], &exec);
    }
    assert_eq!(second.pid(), first.pid(), "one shim");
    for (shim, id) in [(&mut second, &ids[1]), (&mut first, &ids[0])] {
        shim.kill(id);
        assert_eq!(world.exit(id).exit_status, 137);
        shim.delete(id, "");
    }
    drop(second);
    forget(world, peer, &ids[1]);
    first.end();
}
