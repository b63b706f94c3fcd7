//! The files: what is installed, what is mapped, and what starting them alone costs.

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Instant;

use nix::sys::resource::UsageWho;

use crate::account::cpu;
use crate::peer::Peer;
use crate::samples::{Rows, Unit};
use crate::Run;
use testbed::{run as output, Suite};

const GROUP: &str = "Binary";

pub fn run(rows: &mut Rows, run: &Run) {
    for peer in run.shims() {
        let shim = peer.shim();
        let runtime = match peer {
            Peer::Shoal => None,
            Peer::Crun => Some(Suite::Forky.program("crun")),
            _ => Some(Suite::Forky.program("runc")),
        };
        let size = |file: &Path| file.metadata().expect("the file is there").len() as f64 / 1024.0;
        let mut add = |name: &str, unit, value: f64| rows.add(GROUP, name, unit, peer, value);
        add("shim", Unit::KiB, size(&shim));
        add("shim and runtime", Unit::KiB, size(&shim) + runtime.as_deref().map_or(0.0, size));
        let objects = objects(&shim) + runtime.as_deref().map_or(0.0, objects);
        add("shared objects of shim and runtime", Unit::Count, objects);
    }
    for round in 0..=run.rounds {
        for peer in run.shims() {
            let before = cpu(UsageWho::RUSAGE_CHILDREN);
            let began = Instant::now();
            let mut command = Command::new(peer.shim());
            let status = command.arg("-v").stdout(Stdio::null()).stderr(Stdio::null()).status();
            let took = began.elapsed();
            assert!(status.expect("run the shim").success(), "-v");
            if round > 0 {
                rows.time(GROUP, "-v", peer, took);
                rows.time(GROUP, "CPU of -v", peer, cpu(UsageWho::RUSAGE_CHILDREN) - before);
            }
        }
    }
}

/// The number of objects that the dynamic linker maps, itself included; 0 for a static program.
fn objects(file: &Path) -> f64 {
    let out = output(Command::new("ldd").arg(file));
    let found =
        out.stdout.lines().filter(|line| line.contains("=> /") || line.trim().starts_with('/')).count();
    assert!(
        found > 0
            || format!("{}{}", out.stdout, out.stderr).contains("not a dynamic")
            || out.stdout.contains("statically"),
        "ldd of {file:?}"
    );
    found as f64
}
