//! Limits what the shim costs. A test fails if a change exceeds a budget; a change that makes the shim cheaper lowers
//! the number, so that the gain stays. Needs root.
//!
//! Each number has beside it the value measured when it was set. Counts vary by a few between runs and kernels, so
//! they have a sixth to a fifth of headroom; memory, which comes in pages, has a third.
//! `cargo test --test budget -- --nocapture` prints the current measurements.

mod allocations;
mod calls;
mod life;
mod pod;
mod rest;
mod strace;

use std::sync::{Mutex, MutexGuard, PoisonError};
use testbed::{shim, skip};

/// The shim of this build, which counts allocations. Everything else is measured on `testbed::shim`.
const SHIM: &str = env!("CARGO_BIN_EXE_containerd-shim-shoal-v2");

/// The allowed maximum for each build profile.
pub struct Budget {
    pub release: u64,
    pub debug: u64,
}

/// A budget that is the same for both profiles.
const fn any(most: u64) -> Budget {
    Budget { release: most, debug: most }
}

// Of each shim at rest, 3 s after its last request: the median of three that run at the same time.

/// KiB, Private_Clean and Private_Dirty of smaps_rollup. Measured: 152 to 160 (debug: 160 to 172).
const LONE_MEMORY: Budget = Budget { release: 204, debug: 220 };
/// Measured: 172 to 180 (debug: 180 to 188). A pod may have 400 at most.
const POD_MEMORY: Budget = Budget { release: 232, debug: 248 };
/// First, reaper and watch. No headroom: each thread has a line in ARCHITECTURE.md.
const LONE_THREADS: Budget = any(3);
/// Also the thread that holds the pod's namespaces.
const POD_THREADS: Budget = any(4);
/// Excludes one for each cgroup hierarchy. Measured: 22, always, with one connection and two FIFOs. No headroom: a
/// leak shows as one more for each container.
const LONE_DESCRIPTORS: Budget = any(22);
/// Measured: 21, always, with two connections and no streams.
const POD_DESCRIPTORS: Budget = any(21);

/// Bytes of the release build. Measured: 5 610 808. The same compiler makes the same file, so 2 % suffices; a new
/// dependency mostly adds more.
const SIZE: u64 = 5_720_000;

// System calls: the least of three runs, with ten hierarchies of cgroup v1 (fewer hierarchies take fewer calls). In a
// debug build, the standard library asks for the flags of every descriptor that it closes.

/// Create and Start, by the shim's threads. Measured: about 320 (debug: 352 to 391); more if threads contend for a
/// lock.
const SHIM_CREATES: Budget = Budget { release: 360, debug: 415 };
/// From the clone to the execve. Measured: 282 (debug: 327), constant on one kernel.
const CHILD_CREATES: Budget = Budget { release: 315, debug: 367 };
/// Exec and its Start. Measured: 109 (debug: 134).
const SHIM_EXECS: Budget = Budget { release: 127, debug: 156 };
/// Both processes, from the clone of the first to the execve of the second. Measured: 95 (debug: 99), constant on one
/// kernel.
const CHILD_EXECS: Budget = Budget { release: 99, debug: 104 };

/// Allocations of a debug build: the least of three runs, with the measured value beside each. They differ by four at
/// most, and grow with the number of cgroup hierarchies.
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

/// Returns whether the shim is a release build: Cargo puts the files of each profile into a directory of that name.
pub fn optimised() -> bool {
    !shim().parent().is_some_and(|folder| folder.ends_with("debug"))
}

/// Collects measurements beside their budgets, and prints all of them before any of them fails.
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

/// Lets one test run at a time; `None` if this machine cannot run it. Pages that two shims share would count for
/// neither, and on a busy machine a thread ends, or sleeps, when it otherwise would not.
pub fn alone() -> Option<MutexGuard<'static, ()>> {
    static ALONE: Mutex<()> = Mutex::new(());
    if !nix::unistd::geteuid().is_root() {
        skip::missing("root");
        return None;
    }
    Some(ALONE.lock().unwrap_or_else(PoisonError::into_inner))
}
