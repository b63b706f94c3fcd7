//! `ctr run --rm` as a whole, as a user sees it. ctr and containerd are the same for all peers, and so are the waits
//! for containerd's database to reach the disk; a second containerd, with its root in memory, avoids these.

use std::process::Stdio;
use std::time::Instant;

use crate::host::Memory;
use crate::peer::Peer;
use crate::samples::{Rows, Target};
use crate::Run;
use testbed::{Containerd, Machine, Setting, Suite};

const GROUP: &str = "ctr";
const RUN: [&str; 2] = ["ctr run --rm", "ctr run --rm, containerd's files in memory"];
/// The part that is not the runtime's: a container and a snapshot are created and removed, and nothing is run.
const REST: [&str; 2] = [
    "ctr containers create, then delete: no task",
    "ctr containers create, then delete: no task, files in memory",
];

pub fn run(rows: &mut Rows, run: &Run) {
    let memory = Memory::mount();
    let machine = Machine::below(memory.path());
    let setting = Setting::plain(&machine);
    let places = [Containerd::start(Suite::Forky), Containerd::start_in(Suite::Forky, machine, setting)];
    for round in 0..=run.rounds {
        let mut warm_up = Rows::default();
        let rows = if round == 0 { &mut warm_up } else { &mut *rows };
        for (place, containerd) in places.iter().enumerate() {
            for peer in run.shims() {
                let began = Instant::now();
                once(containerd, peer, &format!("{}-{round}", peer.name()));
                rows.time(GROUP, RUN[place], peer, began.elapsed());
            }
            let began = Instant::now();
            containerd.ctr(["containers", "create", containerd.image(), "nothing"]).ok();
            containerd.ctr(["containers", "delete", "nothing"]).ok();
            let took = began.elapsed();
            run.shims().for_each(|peer| rows.time(GROUP, REST[place], peer, took));
        }
    }
    RUN.iter().for_each(|name| rows.target(GROUP, name, &[Target::Better(2.5)]));
}

fn once(containerd: &Containerd, peer: Peer, id: &str) {
    let mut flags = vec!["run".to_owned(), "--rm".into(), "--runtime".into(), peer.runtime().into()];
    if peer == Peer::Crun {
        flags.extend(["--runc-binary".to_owned(), Suite::Forky.program("crun").display().to_string()]);
    }
    flags.extend([containerd.image().to_owned(), id.to_owned(), "true".into()]);
    let status = containerd.ctr_command(&flags).stdin(Stdio::null()).status().expect("run ctr");
    assert!(status.success(), "ctr run by {}", peer.name());
}
