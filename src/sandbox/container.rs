//! One container: its first process, its execs, its cgroup, and what each request does to them.
//!
//! One mutex per container (the slot), which nothing holds for longer than a few system calls. A create and a start work
//! without it, and an exit that comes meanwhile is kept until their event is queued: so no exit overtakes a start. A
//! pause and an update work without it too. Nothing else in the crate is locked while a slot is held, but the reaper's table for the moment of
//! a clone.

use super::freezer::Freezer;
use super::lifecycle::{never_ran, Asked, Life, Process};
use super::oom::KILLED;
use super::record;
use super::request::{Event, Options, ProcessKey, ProcessState, Status};
use super::undo::Undo;
use super::Exit;
use super::{exec, hooks, EventSink, Sandbox};
use crate::cgroup::{self, stats::Stats, Cgroup, Dying};
use crate::error::{Context, Error, Kind, Result};
use crate::launch::{ExitStatus, Leash};
use crate::spec::{self, resources::Resources, Spec};
use crate::stdio::{Stdio, Switchboard};
use crate::tasks::Looks;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// How long Delete waits for a process at its gate to die of SIGKILL, and a failed Start for the exit: containerd
/// deletes right after it.
pub(super) const DEATH: Duration = Duration::from_secs(10);

/// The same after a time limit.
const KEPT: Duration = Duration::from_secs(1);

/// How long an update waits for the one before it: systemd has half of this for one.
const UPDATE: Duration = Duration::from_secs(60);

pub(super) struct Container {
    pub id: String,
    pub bundle: PathBuf,
    pub spec: Spec,
    pub options: Options,
    pub cgroup: Box<dyn Cgroup>,
    pub records: Records,
    pub events: Arc<EventSink>,
    pub streams: Switchboard,
    pub slot: Mutex<Slot>,
}

/// The folder with the container's record: its bundle, or a folder of its own in its pod's.
pub(super) enum Records {
    Bundle(PathBuf),
    /// The bundle has a link to it.
    Own {
        folder: PathBuf,
        bundle: PathBuf,
        /// The pod's cgroup.
        place: cgroup::Record,
    },
}

impl Records {
    pub fn folder(&self) -> &Path {
        match self {
            Records::Bundle(folder) | Records::Own { folder, .. } => folder,
        }
    }

    pub fn place(&self) -> Option<cgroup::Record> {
        match self {
            Records::Bundle(_) => None,
            Records::Own { place, .. } => Some(place.clone()),
        }
    }
}

impl Drop for Records {
    fn drop(&mut self) {
        if let Records::Own { folder, bundle, .. } = self {
            // Empty, or left for `delete` to find.
            if std::fs::remove_dir(folder).is_ok() {
                record::remove(bundle);
            }
        }
    }
}

pub(super) struct Slot {
    pub init: Process,
    pub execs: BTreeMap<String, Process>,
    /// Its pod is paused.
    pub frozen_with_pod: bool,
    /// And the event of that is out.
    pub told_frozen: bool,
    pub freezer: Freezer,
    /// The first process has ended, and its exit waits for those of its execs.
    pub ending: Option<ExitStatus>,
    /// The cgroup went, with news that may have been of an OOM kill.
    pub oom_suspected: bool,
    /// A Delete is at work.
    pub deleting: bool,
    /// An update is at work.
    pub updating: bool,
}

impl Slot {
    pub fn process(&mut self, container: &str, exec: Option<&str>) -> Result<&mut Process> {
        match exec {
            None => Ok(&mut self.init),
            Some(id) => self.execs.get_mut(id).ok_or_else(|| {
                Error::new(Kind::NotFound, format!("exec {id} of container {container} does not exist"))
            }),
        }
    }
}

impl Container {
    pub fn lock(&self) -> MutexGuard<'_, Slot> {
        self.slot.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn emit(&self, event: Event) {
        (self.events)(event);
    }

    /// Lets the first process run. On failure it ends, and the step that failed is in the error.
    pub async fn start(&self, sandbox: &Sandbox, leash: &Leash) -> Result<u32> {
        let waiting = {
            let mut slot = self.lock();
            self.thawed(&slot, "start")?;
            let signalled = match &slot.init.life {
                Life::Created(waiting) => waiting.pidfd.try_clone().context(|| "dup(pidfd)")?,
                _ => return Err(slot.init.cannot("start")),
            };
            let starting = Life::Starting(Some(signalled), leash.clone());
            match std::mem::replace(&mut slot.init.life, starting) {
                Life::Created(waiting) => waiting,
                _ => return Err(Error::new(Kind::Bug, "a created process lost its gate")),
            }
        };
        let undo = Undo::new(|| self.start_over(&mut self.lock()));
        let pid = waiting.pid;
        let hooked = hooks::start_container(sandbox, self, leash, &waiting).await;
        let started = match hooked.and_then(|()| leash.check()) {
            Ok(()) => waiting.start_by(leash).await,
            Err(e) => {
                // It ends now, and its exit is awaited below.
                drop(waiting);
                Err(e)
            }
        };
        leash.release();
        let exit = {
            undo.done();
            let mut slot = self.lock();
            if started.is_ok() {
                self.emit(Event::Start { container: self.id.clone(), pid });
            }
            self.start_over(&mut slot);
            slot.init.exit.clone()
        };
        // What a time limit ended may be kept from the reaper by whoever traces it.
        let late = started.as_ref().is_err_and(|e| e.kind() == Kind::Deadline);
        let patience = if late { KEPT } else { DEATH };
        if started.is_err() && exit.within(patience).await.is_none() {
            log::warn!(id = self.id.as_str(); "its first process did not end after a failed start");
        }
        started.context(|| format!("start {}", self.id))?;
        if let Err(e) = hooks::poststart(&*sandbox.config.launcher, self, leash, pid).await {
            self.give_up(&exit).await;
            return Err(e.context(format!("start {}", self.id)));
        }
        Ok(pid)
    }

    /// However the start has ended. Where it failed, the process is gone too, or its gate is: its exit is here, or on its
    /// way.
    fn start_over(&self, slot: &mut Slot) {
        if let Life::Starting(Some(pidfd), _) = slot.init.take_life() {
            slot.init.life = Life::Running(pidfd);
        }
        if let Some(status) = slot.init.early.take() {
            self.ended(slot, None, status);
        }
    }

    /// Its caller is told, and nobody else.
    fn exec_failed(&self, slot: &mut Slot, id: &str) {
        if let Some(process) = slot.execs.get_mut(id) {
            let status = never_ran();
            process.stop(status);
            process.exit.set(status);
        }
        self.last_exit(slot);
    }

    pub fn add_exec(&self, id: &str, process: spec::Process, stdio: Stdio) -> Result<()> {
        let mut slot = self.lock();
        if slot.execs.contains_key(id) {
            return Err(Error::new(Kind::Exists, format!("exec {id} of container {} exists", self.id)));
        }
        if !slot.init.is_running() {
            return Err(slot.init.cannot("exec in"));
        }
        self.thawed(&slot, "exec in")?;
        let process = Process {
            name: format!("exec {id} of container {}", self.id),
            pid: 0,
            stdio,
            io: None,
            exit: Exit::default(),
            life: Life::Added(Box::new(process)),
            early: None,
            asked: Asked::default(),
        };
        slot.execs.insert(id.into(), process);
        self.emit(Event::ExecAdded { container: self.id.clone(), exec: id.into() });
        Ok(())
    }

    pub async fn start_exec(&self, id: &str, start: &exec::Starter<'_>) -> Result<u32> {
        let wanted = {
            let mut slot = self.lock();
            if !slot.init.is_running() {
                slot.process(&self.id, Some(id))?;
                return Err(Error::new(
                    Kind::State,
                    format!("cannot start exec {id}: container {} init process is not running", self.id),
                ));
            }
            self.thawed(&slot, "exec in")?;
            let init = slot.init.pidfd().map(|pidfd| pidfd.try_clone_to_owned()).transpose();
            let (init, init_pid) = (init.context(|| "dup(pidfd)")?, slot.init.pid);
            let process = slot.process(&self.id, Some(id))?;
            if !matches!(process.life, Life::Added(_)) {
                return Err(process.cannot("start"));
            }
            let starting = Life::Starting(None, start.leash.clone());
            let life = std::mem::replace(&mut process.life, starting);
            let (Life::Added(wanted), Some(init)) = (life, init) else {
                return Err(Error::new(Kind::Bug, "an added exec lost its process"));
            };
            let (stdio, exit) = (process.stdio.clone(), process.exit.clone());
            exec::Wanted { process: wanted, stdio, exit, init, init_pid }
        };
        let undo = Undo::new(|| self.exec_failed(&mut self.lock(), id));
        let started = start.exec(self, id, &wanted).await;
        undo.done();
        // Killed, and still there.
        let left = if started.is_err() { start.leash.pid() } else { None };
        start.leash.release();
        let mut slot = self.lock();
        let process = slot.process(&self.id, Some(id))?;
        match started {
            Ok(exec::Started { pid, pidfd, io }) => {
                process.pid = pid;
                process.connect(io);
                process.life = Life::Running(pidfd);
                // By a kill that came when the launch was over, and this not yet known.
                if start.leash.check().is_err() {
                    let _ = process.signal(libc::SIGKILL as u32);
                }
                let early = process.early.take();
                self.emit(Event::ExecStarted { container: self.id.clone(), exec: id.into(), pid });
                // The first process has ended meanwhile, and what it left was killed before this one was born.
                if slot.ending.is_some() {
                    self.end_others(&slot);
                }
                if let Some(status) = early {
                    self.ended(&mut slot, Some(id), status);
                }
                Ok(pid)
            }
            Err(e) => {
                self.exec_failed(&mut slot, id);
                // The cgroup may have been frozen meanwhile.
                if let Some(Err(e)) = left.map(|pid| self.cgroup.let_die(Dying::One(pid))) {
                    log::warn!(id = self.id.as_str(); "exec {id}: {e}");
                }
                Err(e.context(format!("exec {id} in {}", self.id)))
            }
        }
    }

    /// The reaper's news, in its order. `whose` tells the process from a later one with the same id.
    pub fn exited(&self, exec: Option<&str>, whose: &Exit, status: ExitStatus) {
        let mut slot = self.lock();
        let Ok(process) = slot.process(&self.id, exec) else { return };
        if !process.exit.is(whose) {
            return;
        }
        if matches!(process.life, Life::Starting(..)) {
            process.early = Some(status);
            return;
        }
        self.ended(&mut slot, exec, status);
    }

    /// The exit of the first process is the last one of the container.
    pub fn ended(&self, slot: &mut Slot, exec: Option<&str>, status: ExitStatus) {
        if let Some(id) = exec {
            let Some(process) = slot.execs.get_mut(id) else { return };
            self.finish(process, exec, status);
        } else {
            self.end_others(slot);
            slot.ending = Some(status);
        }
        self.last_exit(slot);
    }

    /// Without a pid namespace of its own nothing else ends what the first process has left.
    fn end_others(&self, slot: &Slot) {
        // These are not in the pid namespace yet.
        for exec in slot.execs.values() {
            if let Life::Starting(_, leash) = &exec.life {
                leash.kill();
            }
        }
        if self.spec.namespaces.pid != spec::Ns::New {
            if let Err(e) = self.kill_all(slot) {
                log::warn!(id = self.id.as_str(); "could not kill what the first process left: {e}");
            }
        }
    }

    fn last_exit(&self, slot: &mut Slot) {
        if slot.execs.values().any(Process::is_alive) {
            return;
        }
        if let Some(status) = slot.ending.take() {
            if slot.oom_suspected && status.code == KILLED {
                self.oom_killed();
            }
            self.finish(&mut slot.init, None, status);
        }
    }

    fn finish(&self, process: &mut Process, exec: Option<&str>, status: ExitStatus) {
        // An exec whose start failed has told its caller already: no event for what never ran.
        if process.exited().is_none() {
            process.stop(status);
            let (id, exit) = (exec.unwrap_or(&self.id).to_owned(), status);
            self.emit(Event::Exit { container: self.id.clone(), id, pid: process.pid, exit });
            if exec.is_none() {
                record::exited(self.records.folder(), status);
            }
        }
        process.exit.set(process.exited().unwrap_or(status));
    }

    pub fn exit(&self, exec: Option<&str>) -> Result<Exit> {
        Ok(self.lock().process(&self.id, exec)?.exit.clone())
    }

    pub fn state(&self, exec: Option<&str>) -> Result<ProcessState> {
        let mut slot = self.lock();
        let frozen = slot.process(&self.id, exec)?.is_running() && self.stands_still(&slot);
        let process = slot.process(&self.id, exec)?;
        let status = match process.life {
            Life::Stopped(_) => Status::Stopped,
            Life::Running(_) if frozen => Status::Paused,
            Life::Running(_) => Status::Running,
            Life::Added(_) | Life::Created(_) | Life::Starting(..) => Status::Created,
        };
        Ok(ProcessState {
            key: ProcessKey { container: self.id.clone(), exec: exec.map(Into::into) },
            bundle: self.bundle.clone(),
            pid: process.pid,
            status,
            stdio: process.stdio.clone(),
            exit: process.exited(),
        })
    }

    /// One after the other, and without the slot: systemd may take its time.
    pub async fn update(&self, resources: &Resources) -> Result<()> {
        let mut looks = Looks::new(Duration::from_millis(1), Duration::from_millis(20));
        loop {
            {
                let mut slot = self.lock();
                if slot.init.exited().is_some() {
                    return Err(slot.init.cannot("update"));
                }
                if !std::mem::replace(&mut slot.updating, true) {
                    break;
                }
            }
            if looks.elapsed() > UPDATE {
                let what = format!("update {}: another update is still at work", self.id);
                return Err(Error::new(Kind::Deadline, what));
            }
            looks.again().await?;
        }
        let _done = Undo::new(|| self.lock().updating = false);
        self.cgroup.update(resources).await.context(|| format!("update {}", self.id))
    }

    pub fn stats(&self) -> Result<Stats> {
        self.cgroup.stats().context(|| format!("stats of {}", self.id))
    }

    pub fn pids(&self) -> Result<Vec<(u32, Option<String>)>> {
        let mut pids = self.cgroup.pids()?;
        let slot = self.lock();
        // Without a process in its list containerd may take the container for a lost one.
        slot.complete(&mut pids);
        let exec =
            |pid| slot.execs.iter().find(|(_, p)| p.is_running() && p.pid == pid).map(|(id, _)| id.clone());
        Ok(pids.into_iter().map(|pid| (pid, exec(pid))).collect())
    }

    pub fn resize(&self, exec: Option<&str>, columns: u16, rows: u16) -> Result<()> {
        let mut slot = self.lock();
        let process = slot.process(&self.id, exec)?;
        if process.exited().is_some() {
            return Err(process.cannot("resize the terminal of"));
        }
        // Without a terminal there is nothing to resize, and runc's shim says so to nobody.
        match &process.io {
            Some(io) => io.resize(columns, rows),
            None => {
                process.asked.size = Some((columns, rows));
                Ok(())
            }
        }
    }

    pub fn close_stdin(&self, exec: Option<&str>) -> Result<()> {
        let mut slot = self.lock();
        let process = slot.process(&self.id, exec)?;
        match &process.io {
            Some(io) => io.close_stdin(),
            None => process.asked.close_stdin = true,
        }
        Ok(())
    }

    /// Its process waits at its gate.
    pub fn is_created(&self) -> bool {
        matches!(self.lock().init.life, Life::Created(_))
    }

    pub fn is_being_deleted(&self) -> bool {
        self.lock().deleting
    }

    /// Nothing is left that `delete` would have to find.
    pub fn forget(&self) {
        record::hide(self.options.root.as_deref());
        record::remove(self.records.folder());
    }
}
