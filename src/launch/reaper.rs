//! Every process of the shim ends here: one thread waits for all of them.
//!
//! A process is cloned and entered into the table under the table's lock, and the thread takes that lock before it
//! reaps: so no exit can come before its entry, and no pid can be used again while the table has it. Nothing else
//! in the process may wait for a child. Children that the table does not have are orphans of containers (the shim
//! is a subreaper) or logging programs; they are reaped without a word.

use super::birth::Birth;
use super::ended::{Ended, GONE};
use super::executed::executed;
use super::{ExitStatus, OnExit};
use crate::error::{Context, Error, Kind, Result};
use crate::sync::{Condvar, Mutex};
use crate::sys::clone::Child;
use crate::sys::{wait, Errno};
use std::collections::HashMap;
use std::panic::{catch_unwind, AssertUnwindSafe};
use std::sync::atomic::Ordering;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

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
    /// How many processes may give birth to another one.
    expecting: usize,
    /// Ends of strangers while one is expected: it may have been that one.
    unclaimed: HashMap<u32, ExitStatus>,
}

struct Process {
    on_exit: OnExit,
    /// The launch has succeeded: somebody wants to hear of the exit.
    kept: bool,
    ended: Arc<Ended>,
    /// Who goes on in its stead, if anybody does: known once it has ended.
    heir: Option<Heir>,
}

struct Heir {
    birth: Arc<Birth>,
    on_exit: OnExit,
    ended: Arc<Ended>,
}

/// A process that the reaper knows. `on_exit` is called only if it was [kept](Kept::keep).
pub(crate) struct Kept {
    pub child: Child,
    pub ended: Arc<Ended>,
    reaper: Reaper,
}

impl Kept {
    /// From now on `on_exit` will be called; an error where the process has ended already.
    pub(crate) async fn keep(&self) -> Result<(), ExitStatus> {
        if self.is_there() {
            return Ok(());
        }
        // It is not in the table any more: its status is there, or is being written.
        let unknown = ExitStatus { code: 255, at: SystemTime::now() };
        Err(self.ended.within(GONE).await.unwrap_or(unknown))
    }

    /// The same for one that need not be there any more: `on_exit` is called now then.
    pub(crate) async fn keep_or_tell(&self) {
        if let Err(status) = self.keep().await {
            let untold = self.ended.take_untold();
            if let Some(on_exit) = untold {
                on_exit(status);
            }
        }
    }

    fn is_there(&self) -> bool {
        match self.reaper.shared.table.lock().processes.get_mut(&self.child.pid) {
            // Not another process, to which the kernel gave the pid since.
            Some(process) if Arc::ptr_eq(&process.ended, &self.ended) => {
                process.kept = true;
                true
            }
            _ => false,
        }
    }
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
        let shared = Arc::clone(&reaper.shared);
        crate::sys::spawn::tell(move || {
            shared.table.lock().entered += 1;
            shared.spawned.notify_one();
        });
        Ok(reaper)
    }

    /// Makes a process with `make`, which clones, and enters it.
    pub(crate) fn spawn(&self, make: impl FnOnce() -> Result<Child>, on_exit: OnExit) -> Result<Kept> {
        let ended = Arc::new(Ended::default());
        let mut table = self.shared.table.lock();
        let child = make()?;
        table.entered += 1;
        let process = Process { on_exit, kept: false, ended: Arc::clone(&ended), heir: None };
        table.processes.insert(child.pid, process);
        drop(table);
        self.shared.spawned.notify_one();
        Ok(Kept { child, ended, reaper: self.clone() })
    }

    /// The same for a process that may end with another one in its stead: `on_exit` is the other one's then, and
    /// [`Birth`] tells who it is.
    pub(super) fn spawn_parent(
        &self,
        make: impl FnOnce() -> Result<Child>,
        birth: &Arc<Birth>,
        on_exit: OnExit,
    ) -> Result<Kept> {
        let (ended, heirs) = (Arc::new(Ended::default()), Arc::new(Ended::default()));
        let mut table = self.shared.table.lock();
        let child = make()?;
        table.entered += 1;
        table.expecting += 1;
        let heir = Heir { birth: Arc::clone(birth), on_exit, ended: heirs };
        let on_exit: OnExit = Box::new(|_| {});
        let process = Process { on_exit, kept: false, ended: Arc::clone(&ended), heir: Some(heir) };
        table.processes.insert(child.pid, process);
        drop(table);
        self.shared.spawned.notify_one();
        Ok(Kept { child, ended, reaper: self.clone() })
    }

    pub(super) fn kept(&self, child: Child, ended: Arc<Ended>) -> Kept {
        Kept { child, ended, reaper: self.clone() }
    }
}

impl Table {
    /// Its parent has ended: whoever was born is entered before his own end can be seen here.
    /// What is returned is told once the table is free: it wakes others, for which a thread may have to be made.
    fn adopt(&mut self, heir: Heir) -> impl FnOnce() + use<> {
        let Heir { birth, on_exit, ended } = heir;
        let born = birth.board.born().map(|pid| {
            // The kernel gives a pid to nobody else before it has been reaped: one that is a child of ours is this one,
            // whatever ended under its number before.
            let pidfd = if wait::is_child(pid) { wait::open_pidfd(pid).ok() } else { None };
            if pidfd.is_some() {
                self.entered += 1;
                let process = Process { on_exit, kept: false, ended: Arc::clone(&ended), heir: None };
                self.processes.insert(pid, process);
            } else {
                let unknown = ExitStatus { code: 255, at: SystemTime::now() };
                ended.set_untold(self.unclaimed.remove(&pid).unwrap_or(unknown), on_exit);
            }
            (pid, pidfd, ended)
        });
        self.expecting = self.expecting.saturating_sub(1);
        if self.expecting == 0 {
            self.unclaimed.clear();
        }
        move || birth.settle(born)
    }
}

impl Shared {
    fn run(&self, strangers: Strangers) {
        loop {
            let entered = self.table.lock().entered;
            match wait::any() {
                Ok(pid) => self.reap(pid, strangers),
                // No child at all: one more entry is what can change that.
                Err(Errno::ECHILD) => {
                    let table = self.table.lock();
                    let same = |table: &mut Table| table.entered == entered;
                    drop(self.spawned.wait_while(table, same));
                }
                Err(errno) => {
                    log::error!("Could not wait for children: {errno}");
                    std::thread::sleep(Duration::from_millis(100));
                }
            }
        }
    }

    fn reap(&self, pid: u32, strangers: Strangers) {
        let mut table = self.table.lock();
        let process = table.processes.remove(&pid);
        if process.is_none() && strangers == Strangers::Leave {
            drop(table);
            std::thread::sleep(Duration::from_millis(1));
            return;
        }
        // Whoever may have an heir has no program, and nobody asks.
        let asked =
            |process: &&Process| process.heir.is_none() && !process.ended.started.load(Ordering::SeqCst);
        if let Some(process) = process.as_ref().filter(asked) {
            process.ended.bare.store(executed(pid) == Some(false), Ordering::SeqCst);
        }
        // A zombie, as `any` has just said, and nobody else reaps: this does not block.
        let ended = wait::reap(pid);
        let code = match ended {
            Ok(ended) => ended.code,
            Err(errno) => {
                log::error!(pid; "Lost the exit status of a process: {errno}");
                255
            }
        };
        let status = ExitStatus { code, at: SystemTime::now() };
        let Some(process) = process else {
            if table.expecting > 0 {
                table.unclaimed.insert(pid, status);
            }
            return;
        };
        let adopted = process.heir.map(|heir| table.adopt(heir));
        drop(table);
        if let Some(tell) = adopted {
            tell();
        }
        if !process.kept {
            return process.ended.set_untold(status, process.on_exit);
        }
        process.ended.set(status);
        if catch_unwind(AssertUnwindSafe(|| (process.on_exit)(status))).is_err() {
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
