//! A container that freezes itself again as soon as it is thawed, through a v1 cgroup that it may write to.

use std::fs::{create_dir, write, File};
use std::io::{Seek, Write};
use std::time::{Duration, Instant};

/// Longer than any test takes.
const LONGEST: Duration = Duration::from_secs(20);

/// Freezes in a loop. `freezer` is where the container's cgroup of that hierarchy is mounted. The first process is in
/// a cgroup below it, and the process that freezes is not.
pub fn forever(freezer: &str) -> i32 {
    let below = format!("{freezer}/below");
    if create_dir(&below).is_err() {
        return 125;
    }
    // SAFETY: this program has one thread.
    if unsafe { libc::fork() } != 0 {
        write(format!("{below}/cgroup.procs"), "0").expect("enter it");
        loop {
            std::thread::park();
        }
    }
    while !std::fs::read_to_string(format!("{below}/cgroup.procs")).is_ok_and(|who| !who.is_empty()) {
        std::thread::sleep(Duration::from_millis(1));
    }
    let mut state = File::options().write(true).open(format!("{below}/freezer.state")).expect("the state");
    let begun = Instant::now();
    while begun.elapsed() < LONGEST {
        let _ = state.rewind().and_then(|()| state.write_all(b"FROZEN")); // it may be thawed at the next
    }
    0
}
