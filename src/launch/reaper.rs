//! Every process of the shim ends here: one thread waits for all of them.
//!
//! A process is cloned and entered into the table under the table's lock, and the thread takes that lock before it
//! reaps: so no exit can come before its entry, and no pid can be used again while the table has it. Nothing else
//! in the process may wait for a child. Children that the table does not have are orphans of containers (the shim
//! is a subreaper) or logging programs; they are reaped without a word.

use super::{ExitStatus, OnExit};
use crate::error::{Context, Error, Kind, Result};
use crate::sys::clone::Child;
use crate::sys::{wait, Errno};
use std::collections::HashMap;
use std::panic::{catch_unwind, AssertUnwindSafe};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime};

/// What happens to children that are not of this reaper.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Strangers {
    /// They are reaped: the shim's way.
    Reap,
    /// They are left to whoever made them: for a process that has other users of children, as tests are.
    Leave,
}

#[derive(Clone)]
pub struct Reaper {
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    table: Mutex<Table>,
    spawned: Condvar,
}

#[derive(Default)]
struct Table {
    /// How many processes were ever entered: tells whether one was since the kernel said that there is none.
    entered: u64,
    processes: HashMap<u32, Process>,
}

struct Process {
    on_exit: OnExit,
    /// The launch has succeeded: somebody wants to hear of the exit.
    kept: bool,
    ended: Arc<Ended>,
}

/// The end of one process, for those who wait for it.
#[derive(Debug, Default)]
pub struct Ended {
    status: Mutex<Option<ExitStatus>>,
    set: Condvar,
}

impl Ended {
    fn set(&self, status: ExitStatus) {
        *lock(&self.status) = Some(status);
        self.set.notify_all();
    }

    /// Waits until the process has been reaped; None where that takes longer than `limit`.
    pub fn wait(&self, limit: Duration) -> Option<ExitStatus> {
        let deadline = Instant::now() + limit;
        let mut status = lock(&self.status);
        while status.is_none() {
            let left = deadline.checked_duration_since(Instant::now())?;
            status = self.set.wait_timeout(status, left).unwrap_or_else(PoisonError::into_inner).0;
        }
        *status
    }
}

/// A process that the reaper knows. `on_exit` is called only if it was [kept](Kept::keep).
pub struct Kept {
    pub child: Child,
    pub ended: Arc<Ended>,
    reaper: Reaper,
}

impl Kept {
    /// From now on `on_exit` will be called; an error where the process has ended already.
    pub fn keep(&self) -> Result<(), ExitStatus> {
        if let Some(process) = lock(&self.reaper.shared.table).processes.get_mut(&self.child.pid) {
            // Not another process, to which the kernel gave the pid since.
            if Arc::ptr_eq(&process.ended, &self.ended) {
                process.kept = true;
                return Ok(());
            }
        }
        // It is not in the table any more: its status is there, or is being written.
        let unknown = ExitStatus { code: 255, at: SystemTime::now() };
        Err(self.ended.wait(Duration::from_secs(60)).unwrap_or(unknown))
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Nothing that can panic runs under these locks; if something did, the table is still whole.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Reaper {
    /// Starts the thread, which lives as long as the process.
    pub fn start(strangers: Strangers) -> Result<Reaper> {
        let reaper = Reaper { shared: Arc::default() };
        let shared = Arc::clone(&reaper.shared);
        std::thread::Builder::new()
            .name("reaper".into())
            .stack_size(256 << 10)
            .spawn(move || shared.run(strangers))
            .context(|| "start the reaper's thread")?;
        Ok(reaper)
    }

    /// Makes a process with `make`, which clones, and enters it.
    pub fn spawn(&self, make: impl FnOnce() -> Result<Child>, on_exit: OnExit) -> Result<Kept> {
        let ended = Arc::new(Ended::default());
        let mut table = lock(&self.shared.table);
        let child = make()?;
        table.entered += 1;
        table.processes.insert(child.pid, Process { on_exit, kept: false, ended: Arc::clone(&ended) });
        drop(table);
        self.shared.spawned.notify_one();
        Ok(Kept { child, ended, reaper: self.clone() })
    }
}

impl Shared {
    fn run(&self, strangers: Strangers) {
        loop {
            let entered = lock(&self.table).entered;
            match wait::any() {
                Ok(pid) => self.reap(pid, strangers),
                // No child at all: one more entry is what can change that.
                Err(Errno::ECHILD) => {
                    let table = lock(&self.table);
                    let same = |table: &mut Table| table.entered == entered;
                    drop(self.spawned.wait_while(table, same).unwrap_or_else(PoisonError::into_inner));
                }
                Err(errno) => {
                    log::error!("Could not wait for children: {errno}");
                    std::thread::sleep(Duration::from_millis(100));
                }
            }
        }
    }

    fn reap(&self, pid: u32, strangers: Strangers) {
        let mut table = lock(&self.table);
        let process = table.processes.remove(&pid);
        if process.is_none() && strangers == Strangers::Leave {
            drop(table);
            std::thread::sleep(Duration::from_millis(1));
            return;
        }
        // A zombie, as `any` has just said, and nobody else reaps: this does not block.
        let ended = wait::reap(pid);
        drop(table);
        let Some(process) = process else { return };
        let code = match ended {
            Ok(ended) => ended.code,
            Err(errno) => {
                log::error!(pid; "Lost the exit status of a process: {errno}");
                255
            }
        };
        let status = ExitStatus { code, at: SystemTime::now() };
        process.ended.set(status);
        if process.kept && catch_unwind(AssertUnwindSafe(|| (process.on_exit)(status))).is_err() {
            log::error!(pid; "An exit handler panicked");
        }
    }
}

/// What became of a process that was to wait.
pub(super) fn died(what: &str, status: ExitStatus) -> Error {
    let how = match status.code {
        code @ 129..=192 => format!("killed by signal {}", code - 128),
        code => format!("exit code {code}"),
    };
    Error::new(Kind::System, format!("{what}: {how}"))
}
