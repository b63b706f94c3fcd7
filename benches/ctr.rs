//! `ctr run --rm`: the whole of it, as a user sees it. ctr and containerd are the same for all; what they need without
//! any runtime is measured beside it.

use std::time::Instant;

use crate::peer::Peer;
use crate::samples::{Rows, Target};
use crate::testbed::{Containerd, Suite};
use crate::Run;

const GROUP: &str = "ctr";

pub fn run(rows: &mut Rows, run: &Run) {
    let containerd = Containerd::start(Suite::Forky);
    for round in 0..=run.rounds {
        let mut warm_up = Rows::default();
        let rows = if round == 0 { &mut warm_up } else { &mut *rows };
        for peer in run.shims() {
            let id = format!("{}-{round}", peer.name());
            let mut flags = vec!["run".to_owned(), "--rm".into(), "--runtime".into(), peer.runtime().into()];
            if peer == Peer::Crun {
                flags
                    .extend(["--runc-binary".to_owned(), Suite::Forky.program("crun").display().to_string()]);
            }
            flags.extend([containerd.image().to_owned(), id, "true".into()]);
            let mut command = containerd.ctr_command(&flags);
            let began = Instant::now();
            let status = command.stdin(std::process::Stdio::null()).status().expect("run ctr");
            rows.time(GROUP, "ctr run --rm", peer, began.elapsed());
            assert!(status.success(), "ctr run by {}", peer.name());
        }
        // The same for each peer: a container and a snapshot are made and removed, and nothing is run.
        let began = Instant::now();
        containerd.ctr(["containers", "create", containerd.image(), "nothing"]).ok();
        containerd.ctr(["containers", "delete", "nothing"]).ok();
        for peer in run.shims() {
            rows.time(
                GROUP,
                "containers create + delete (two starts of ctr, no task)",
                peer,
                began.elapsed(),
            );
        }
    }
    rows.target(GROUP, "ctr run --rm", &[Target::Better(2.5)]);
}
