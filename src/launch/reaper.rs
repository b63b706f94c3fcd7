//! Reaps every process of the shim: one thread waits for all of them.
//!
//! A process is cloned and entered into the table under the table's lock, and the thread takes that lock before it
//! reaps: no exit can precede its entry, and no pid can be reused while it is in the table. Nothing else in the process
//! may wait for a child. Children that are not in the table are orphans of containers (the shim is a subreaper) or
//! logging programs; they are reaped silently.

use super::birth::Birth;
use super::ended::{Ended, GONE};
use super::executed::executed;
use super::{ExitStatus, OnExit};
use crate::error::{Context, Error, Kind, Result};
use crate::sync::{Condvar, Mutex};
use crate::sys::clone::Child;
use crate::sys::memory::unforked_stack;
use crate::sys::{wait, Errno};
use std::collections::HashMap;
use std::panic::{catch_unwind, AssertUnwindSafe};
use std::sync::atomic::Ordering;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

/// What happens to children that this reaper does not know.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Strangers {
    /// Reap them: the shim's mode.
    Reap,
    /// Leave them to whoever created them: for a process in which others have children too, such as a test.
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
    /// How many processes were ever entered: tells whether one was since the kernel reported that there is none.
    entered: u64,
    processes: HashMap<u32, Process>,
    /// How many processes may have another one continue in their place.
    expecting: usize,
    /// Exits of unknown children while such a process is expected: one of them may have been it.
    unclaimed: HashMap<u32, ExitStatus>,
}

struct Process {
    on_exit: OnExit,
    /// The launch has succeeded: somebody wants to hear of the exit.
    kept: bool,
    ended: Arc<Ended>,
    /// The process that may continue in its place: known once it has ended.
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
    /// Makes sure that `on_exit` will be called; fails if the process has already ended.
    pub(crate) async fn keep(&self) -> Result<(), ExitStatus> {
        if self.is_there() {
            return Ok(());
        }
        // It is no longer in the table: its status is set, or about to be.
        let unknown = ExitStatus { code: 255, at: SystemTime::now() };
        Err(self.ended.within(GONE).await.unwrap_or(unknown))
    }

    /// The same for a process that may have ended already: then `on_exit` is called now.
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
            // Not another process that has since been given the same pid.
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

    /// Creates a process with `make`, which clones, and enters it.
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

    /// The same for a process that may be replaced by another one: `on_exit` is then the other one's, and [`Birth`]
    /// reports which process it is.
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
    /// Enters the process that was born before its own exit can be seen here; its parent has ended. The caller runs the
    /// returned function once the table is unlocked: it wakes others, for which a thread may have to be created.
    /// `kept` is the exit of a parent that somebody wants to hear of: if nobody was born, it is the process itself.
    fn adopt(&mut self, heir: Heir, kept: Option<ExitStatus>) -> impl FnOnce() + use<> {
        let Heir { birth, on_exit, ended } = heir;
        let (mut on_exit, mut told) = (Some(on_exit), kept);
        let born = birth.born().map(|pid| {
            // The kernel reuses no pid before it is reaped: a child of ours with this pid is this process, whatever
            // ended under that number before.
            let pidfd = if wait::is_child(pid) { wait::open_pidfd(pid).ok() } else { None };
            let unknown = ExitStatus { code: 255, at: SystemTime::now() };
            let status = self.unclaimed.remove(&pid).unwrap_or(unknown);
            match (&pidfd, kept) {
                (None, Some(_)) => told = Some(status),
                (None, None) => {
                    on_exit.take().into_iter().for_each(|on_exit| ended.set_untold(status, on_exit));
                }
                (Some(_), _) => {
                    self.entered += 1;
                    let enter = |on_exit| {
                        let ended = Arc::clone(&ended);
                        self.processes
                            .insert(pid, Process { on_exit, kept: kept.is_some(), ended, heir: None });
                    };
                    on_exit.take().into_iter().for_each(enter);
                }
            }
            (pid, pidfd, ended)
        });
        let told = told.zip(on_exit);
        self.expecting = self.expecting.saturating_sub(1);
        if self.expecting == 0 {
            self.unclaimed.clear();
        }
        move || {
            birth.settle(born);
            if let Some((status, on_exit)) = told {
                on_exit(status);
            }
        }
    }
}

impl Shared {
    fn run(&self, strangers: Strangers) {
        let _own = unforked_stack();
        loop {
            let entered = self.table.lock().entered;
            match wait::any() {
                Ok(pid) => self.reap(pid, strangers),
                // No child at all: only a new entry can change that.
                Err(Errno::ECHILD) => {
                    let table = self.table.lock();
                    let same = |table: &mut Table| table.entered == entered;
                    drop(self.spawned.wait_while(table, same));
                }
                Err(errno) => {
                    log::error!("could not wait for children: {errno}");
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
        // A process that may have an heir has no program, so nobody asks whether it ran.
        let asked =
            |process: &&Process| process.heir.is_none() && !process.ended.started.load(Ordering::SeqCst);
        if let Some(process) = process.as_ref().filter(asked) {
            process.ended.bare.store(executed(pid) == Some(false), Ordering::SeqCst);
        }
        // `any` has just reported a zombie, and nobody else reaps: this does not block.
        let ended = wait::reap(pid);
        let code = match ended {
            Ok(ended) => ended.code,
            Err(errno) => {
                log::error!(pid; "lost the exit status of a process: {errno}");
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
        let kept = process.kept.then_some(status);
        let adopted = process.heir.map(|heir| table.adopt(heir, kept));
        drop(table);
        if let Some(tell) = adopted {
            tell();
        }
        if !process.kept {
            return process.ended.set_untold(status, process.on_exit);
        }
        process.ended.set(status);
        if catch_unwind(AssertUnwindSafe(|| (process.on_exit)(status))).is_err() {
            log::error!(pid; "bug: an exit handler panicked");
        }
    }
}

/// Describes the end of a process that should still be waiting.
pub(super) fn died(what: &str, status: ExitStatus) -> Error {
    let how = match status.code {
        code @ 129..=192 => format!("killed by signal {}", code - 128),
        code => format!("exit code {code}"),
    };
    Error::new(Kind::System, format!("{what}: {how}"))
}
