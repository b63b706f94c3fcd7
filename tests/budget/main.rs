//! What the shim may cost. A test here fails where a change makes it dearer; a change that makes it cheaper lowers
//! the number, so that the gain stays. Needs root.
//!
//! Each number has beside it what was measured when it was set. Counts differ by a few from run to run, and from
//! kernel to kernel, so they have a sixth to a fifth of head-room; memory, which comes in pages, has a third.
//! `cargo test --test budget -- --nocapture` prints what is measured now.

mod allocations;
mod calls;
mod life;
mod pod;
mod rest;
mod strace;

use std::sync::{Mutex, MutexGuard, PoisonError};
use testbed::{shim, skip};

/// The shim of this build, in which allocations are counted. Everything else is measured of `testbed::shim`.
const SHIM: &str = env!("CARGO_BIN_EXE_containerd-shim-shoal-v2");

/// The most that is allowed, by how the shim was built.
pub struct Budget {
    pub release: u64,
    pub debug: u64,
}

/// Both builds do the same.
const fn any(most: u64) -> Budget {
    Budget { release: most, debug: most }
}

// Each shim at rest, 3 s after its last request: median of three that run at once.

/// KiB, Private_Clean and Private_Dirty of smaps_rollup. Measured: 152 to 160 (debug: 160 to 172).
const LONE_MEMORY: Budget = Budget { release: 204, debug: 220 };
/// Measured: 172 to 180 (debug: 180 to 188). What a pod may have at all is 400.
const POD_MEMORY: Budget = Budget { release: 232, debug: 248 };
/// First, reaper and watch. No head-room: each thread has a line in ARCHITECTURE.md.
const LONE_THREADS: Budget = any(3);
/// And the one that is in the pod's namespaces.
const POD_THREADS: Budget = any(4);
/// Besides one for each hierarchy of cgroups. Measured: 22, always, with one connection and two fifos. No head-room:
/// one more for each container is what a leak looks like.
const LONE_DESCRIPTORS: Budget = any(22);
/// Measured: 21, always, with two connections and no streams.
const POD_DESCRIPTORS: Budget = any(21);

/// Bytes of the release build. Measured: 5 091 960. The same compiler makes the same file, so 2 %: what a new
/// dependency brings is mostly more.
const SIZE: u64 = 5_190_000;

// System calls, least of three runs, with ten hierarchies of cgroup v1; fewer of them take fewer calls. In a debug
// build, the standard library asks for the flags of every descriptor that it closes.

/// Create and Start, by the shim's threads. Measured: 294 to 321 (debug: 366 to 378), more where threads meet at a lock.
const SHIM_CREATES: Budget = Budget { release: 340, debug: 395 };
/// From the clone to the execve. Measured: 282 (debug: 327), always the same on one kernel.
const CHILD_CREATES: Budget = Budget { release: 315, debug: 367 };
/// Exec and its Start. Measured: 109 (debug: 134).
const SHIM_EXECS: Budget = Budget { release: 127, debug: 156 };
/// Of both processes, from the clone of the first to the execve of the second. Measured: 95 (debug: 99), always the same on
/// one kernel.
const CHILD_EXECS: Budget = Budget { release: 99, debug: 104 };

/// Of a debug build, least of three runs; beside each what was measured. They differ by four at most, and grow with
/// the hierarchies of cgroups.
const ALLOCATIONS: &[(&str, u64)] = &[
    ("Create", 1410),          // 1225
    ("Start", 60),             // 52
    ("Exec", 82),              // 70
    ("Start of an exec", 132), // 115
    ("State", 23),             // 19
    ("Stats", 300),            // 257
    ("Kill", 172),             // 146 to 150, with the exits of the container and of its exec
    ("Delete", 68),            // 61, with a thread that closes the streams
];

/// Cargo puts each profile's files into a folder of its name.
pub fn optimised() -> bool {
    !shim().parent().is_some_and(|folder| folder.ends_with("debug"))
}

/// What was measured beside what is allowed. All of it is printed before any of it fails.
#[derive(Default)]
pub struct Bill(Vec<String>);

impl Bill {
    pub fn add(&mut self, what: &str, measured: u64, budget: &Budget) {
        let most = if optimised() { budget.release } else { budget.debug };
        println!("{what}: {measured} of {most}");
        if measured > most {
            self.0.push(format!("{what}: {measured}, and the budget is {most}"));
        }
    }

    #[track_caller]
    pub fn settle(self) {
        assert!(self.0.is_empty(), "over budget:\n  {}", self.0.join("\n  "));
    }
}

/// None where a test cannot run. One at a time: pages that two shims share are nobody's, and a busy machine
/// makes a thread end, or sleep, where it would not.
pub fn alone() -> Option<MutexGuard<'static, ()>> {
    static ALONE: Mutex<()> = Mutex::new(());
    if !nix::unistd::geteuid().is_root() {
        skip::missing("root");
        return None;
    }
    Some(ALONE.lock().unwrap_or_else(PoisonError::into_inner))
}
