//! A container that stops all of its processes again and again, even those that have only begun to join it.

use nix::sys::signal::{kill, Signal};
use nix::unistd::{fork, ForkResult, Pid};
use std::time::{Duration, Instant};

/// Longer than any test takes.
const LONGEST: Duration = Duration::from_secs(120);

/// Stops everything, from the first process of the pid namespace and the workers that it makes. A worker does not
/// stop itself, and the first process, which SIGSTOP cannot stop from inside, continues the workers.
pub fn everybody(workers: &str) -> i32 {
    if std::process::id() != 1 {
        eprintln!("probe: stop: it would stop the machine, since it is not the first process");
        return 125;
    }
    let begun = Instant::now();
    let mut others = Vec::new();
    for _ in 0..workers.parse().unwrap_or(0) {
        // SAFETY: this program has one thread.
        match unsafe { fork() }.expect("a worker") {
            ForkResult::Parent { child } => others.push(child),
            ForkResult::Child => {
                others.clear();
                break;
            }
        }
    }
    while begun.elapsed() < LONGEST {
        let _ = kill(Pid::from_raw(-1), Signal::SIGSTOP); // there may be nobody
        for worker in &others {
            let _ = kill(*worker, Signal::SIGCONT); // it has not been reaped, so it is there
        }
        // The shim, which is being measured, needs the processors too.
        std::thread::sleep(Duration::from_micros(20));
    }
    0
}
