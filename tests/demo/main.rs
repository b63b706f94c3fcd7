//! `make demo`: shows a container's life with shoal, and with the Go shim and runc in the same run.
//!
//! Uses a private containerd 2.x. Every step runs a few times with each runtime in turn, and the table shows medians.
//! If a step fails, the demo ends with its reason and exit code 1; in any case, nothing that it started remains.

mod memory;
mod pods;
mod steps;
mod table;

use std::process::ExitCode;

use testbed::{Containerd, Runtime, Snapshot, Suite};

/// How often each step runs with each runtime.
const ROUNDS: usize = 5;

fn main() -> ExitCode {
    std::panic::set_hook(Box::new(|info| eprintln!("\ndemo: FAILED: {info}")));
    match std::panic::catch_unwind(demo) {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => ExitCode::FAILURE, // the hook has said why
    }
}

fn demo() {
    println!("Starting a private containerd and importing an image made of busybox ...");
    let containerd = Containerd::start(Suite::Forky);
    print!("{}", std::fs::read_to_string(Suite::Forky.dir().join("versions")).expect("fetch wrote it"));
    let before = Snapshot::take(&containerd.machine);

    let mut times = table::Times::new();
    for round in 0..ROUNDS {
        // Alternates the runtimes, so that a busy moment of the machine affects both.
        for runtime in [Runtime::Shoal, Runtime::Runc] {
            if round == 0 {
                println!("\n=== {} ===", runtime.name());
            }
            steps::all(&containerd, runtime, round == 0, &mut times);
        }
    }
    println!("\nStep by step, median of {ROUNDS} rounds each, as seen by the user of ctr:\n");
    print!("{}", times.table(&containerd));

    println!("\nMemory of the shim of one running container (median of 3, from smaps_rollup):\n");
    print!("{}", memory::table(&containerd));

    before.assert_nothing_left(&containerd.machine);
    println!("\nNothing is left of any container: no process, mount, cgroup, socket or file.");
    let mark = containerd.machine.mark.clone();
    drop(containerd);
    assert!(!std::path::Path::new("/tmp").join(&mark).exists(), "the testbed's folder is still there");
    println!("The private containerd is gone too.");
    pods::demo();
}
