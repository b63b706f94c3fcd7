//! One container: its life cycle, processes and cgroup. Each verb is a file beside this one that uses no other.
//!
//! Each container has one mutex, held for no longer than a few system calls. Every request and notification goes to the
//! life cycle ([`life::Life`]) under this lock, and so do the resulting events, in order. Anything slower runs after
//! the lock is released: settling streams and notifying those that wait for an exit. The locks taken while holding it
//! are leaves, held only for a moment: those of leashes, of streams, of the event queue, and of the reaper's table.

mod agent;
mod checkpoint;
mod create;
mod delete;
mod exec;
mod fuse;
mod hooks;
mod kill;
pub(super) mod life;
mod news;
mod pause;
mod prepare;
mod process;
mod restore;
mod restored;
mod restored_mounts;
mod start;
mod update;
mod work;

pub(super) use create::{create, read};
pub use hooks::poststop_of;
pub(super) use kill::{number, REST};
pub(super) use process::exit_of_never_ran;

use self::life::{Effect, Freezer, Init, Input, Life, News, Own, Parts, Refused, Who};
use self::process::{already_finished, not_created, settle, Facts, Handle};
use super::record;
use super::request::{Event, Options, ProcessKey, ProcessState, Status};
use super::{Exit, World};
use crate::cgroup::{self, stats::Stats, Cgroup};
use crate::error::{Context, Error, Kind, Result};
use crate::launch::{ExitStatus, Leash, Waiting};
use crate::plan::RootfsMount;
use crate::spec::{self, Spec};
use crate::stdio::{Io, Streams};
use crate::sync::{Mutex, MutexGuard};
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

/// How long Delete waits for a process at its gate to die of SIGKILL, and a failed Start for the exit: containerd
/// deletes the container right after it.
const DEATH: Duration = Duration::from_secs(10);

pub(super) struct Container {
    pub id: String,
    pub bundle: PathBuf,
    pub spec: Spec,
    pub options: Options,
    /// For the Create event.
    rootfs: Vec<RootfsMount>,
    pub cgroup: Box<dyn Cgroup>,
    /// The resctrl groups that were made for it.
    resctrl: OnceLock<Vec<PathBuf>>,
    records: Records,
    world: Arc<World>,
    streams: Streams,
    /// From a create with a checkpoint to its start.
    restoring: Mutex<Option<restore::Restoring>>,
    /// While CRIU writes its processes down.
    dump: Mutex<Option<Leash>>,
    state: Mutex<State>,
}

pub(super) struct State {
    life: Life<ProcessParts>,
    updates: update::Updates,
    deletion: delete::Deletion,
}

/// The types that the states of a life cycle own in production.
pub(super) struct ProcessParts;

impl Parts for ProcessParts {
    type Facts = Facts;
    type Wanted = Box<spec::Process>;
    type Gate = Waiting;
    type Handle = Handle;
}

/// The directory of the container's record: its bundle, or a directory of its own in its pod's bundle.
pub(super) enum Records {
    Bundle(PathBuf),
    /// The bundle links to it.
    Own {
        folder: PathBuf,
        bundle: PathBuf,
        /// The pod's cgroup.
        pod_cgroup: cgroup::Record,
    },
}

impl Records {
    fn folder(&self) -> &Path {
        match self {
            Records::Bundle(folder) | Records::Own { folder, .. } => folder,
        }
    }

    fn pod_cgroup(&self) -> Option<cgroup::Record> {
        match self {
            Records::Bundle(_) => None,
            Records::Own { pod_cgroup, .. } => Some(pod_cgroup.clone()),
        }
    }
}

impl Drop for Records {
    fn drop(&mut self) {
        if let Records::Own { folder, bundle, .. } = self {
            // Succeeds only if empty; otherwise it is left for `delete` to find.
            if std::fs::remove_dir(folder).is_ok() {
                record::remove(bundle);
            }
        }
    }
}

impl State {
    fn facts(&mut self, who: Option<&str>) -> Option<&mut Facts> {
        match who {
            None => Some(&mut self.life.facts),
            Some(id) => self.life.execs.get_mut(id).map(|(_, facts)| facts),
        }
    }

    fn pid(&self, who: Option<&str>) -> u32 {
        match who {
            None => self.life.facts.pid,
            Some(id) => self.life.execs.get(id).map_or(0, |(_, facts)| facts.pid),
        }
    }

    fn word(&self, who: Option<&str>) -> &'static str {
        match who.and_then(|id| self.life.execs.get(id)) {
            Some((exec, _)) => exec.word(),
            None => self.life.init.word(),
        }
    }
}

/// The wording of an input in errors: for its own process, and for the container's first process.
#[derive(Clone, Copy)]
struct Verb {
    own: &'static str,
    init: &'static str,
}

impl Verb {
    const fn of(verb: &'static str) -> Self {
        Verb { own: verb, init: verb }
    }
}

/// For inputs that are never refused.
const NEWS: Verb = Verb::of("go on with");

/// What an input returns to its caller.
#[derive(Default)]
struct Given {
    gate: Option<Waiting>,
    wanted: Option<Box<spec::Process>>,
    removed: Option<(Facts, Option<ExitStatus>)>,
}

/// Effects carried out after the lock is released.
enum Late {
    Tell(Exit, ExitStatus),
    Again(Who, ExitStatus),
    Settle(Who, Option<Arc<Io>>, ExitStatus),
}

impl Container {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock()
    }

    fn name(&self, who: Option<&str>) -> String {
        match who {
            None => format!("container {}", self.id),
            Some(id) => format!("exec {id} of container {}", self.id),
        }
    }

    /// The uniform error for a request in the wrong state.
    fn refusal(&self, refused: Refused, verb: Verb, who: Option<&str>) -> Error {
        let (name, init) = (self.name(who), self.name(None));
        let state = |text: String| Error::new(Kind::State, text);
        match refused {
            Refused::Is(word) => state(format!("cannot {} {name}: it is {word}", verb.own)),
            Refused::InitIs(word) => state(format!("cannot {} {init}: it is {word}", verb.init)),
            Refused::PodPaused => state(format!("cannot {} {init}: its sandbox is paused", verb.init)),
            Refused::InitNotRunning => {
                let id = who.unwrap_or_default();
                state(format!("cannot start exec {id}: {init} init process is not running"))
            }
            Refused::NoExec => Error::new(Kind::NotFound, format!("{name} does not exist")),
            Refused::ExecExists => Error::new(Kind::Exists, format!("{name} exists")),
            Refused::Unborn => not_created(&name),
            Refused::Gone => already_finished(&name),
            Refused::BeingDeleted => state(format!("{init} is being deleted")),
            Refused::NotPaused => state(format!("cannot resume {init}: it is not paused")),
            Refused::Killed => state(format!("{init} was killed while it was paused")),
            Refused::FrozenAbove => state(format!("cannot resume {init}: a cgroup above its own is frozen")),
        }
    }

    /// Passes an input to the life cycle and carries out the effects.
    fn on(&self, verb: Verb, who: Option<&str>, input: Input<ProcessParts>) -> Result<Given> {
        let mut late = Vec::new();
        let given = self.act(&mut self.lock(), &mut late, verb, who, input);
        self.finish(late);
        given
    }

    /// Like [`Container::on`], for notifications, which are never refused.
    fn hear(&self, input: Input<ProcessParts>) {
        if let Err(e) = self.on(NEWS, None, input) {
            log::debug!(container = self.id.as_str(); "{e}");
        }
    }

    /// The part under the lock. `late` is for [`Container::finish`].
    fn act(
        &self,
        state: &mut State,
        late: &mut Vec<Late>,
        verb: Verb,
        who: Option<&str>,
        input: Input<ProcessParts>,
    ) -> Result<Given> {
        let was = state.life.freezer.own();
        let effects = state.life.on(input).map_err(|refused| self.refusal(refused, verb, who))?;
        let (mut given, mut done) = (Given::default(), Ok(()));
        for effect in effects {
            let result = match effect {
                Effect::Emit(news) => {
                    self.emit(state, news);
                    Ok(())
                }
                Effect::Tell(who, exit) => {
                    late.extend(
                        state.facts(who.as_deref()).map(|facts| Late::Tell(facts.exit.clone(), exit)),
                    );
                    Ok(())
                }
                Effect::Again(who, exit) => {
                    late.push(Late::Again(who, exit));
                    Ok(())
                }
                Effect::Settle(who, exit) => {
                    let io = state.facts(who.as_deref()).and_then(|facts| facts.io.clone());
                    late.push(Late::Settle(who, io, exit));
                    Ok(())
                }
                Effect::Open(gate) => {
                    given.gate = Some(gate);
                    Ok(())
                }
                Effect::Make(wanted) => {
                    given.wanted = Some(wanted);
                    Ok(())
                }
                Effect::Removed(facts, exit) => {
                    given.removed = Some((facts, exit));
                    Ok(())
                }
                Effect::KillOthers => {
                    self.kill_others(state);
                    Ok(())
                }
                Effect::KillAtGate => {
                    state.kill_at_gate();
                    Ok(())
                }
                Effect::Signal(who, signal) => self.signal(state, who.as_deref(), signal),
                Effect::SignalAll(signal) => self.signal_all(state, signal),
                // The signal failed: no process was killed.
                Effect::LetDie { who: Some(_), .. } if done.is_err() => Ok(()),
                Effect::LetDie { who, thaw, beyond } => {
                    let thawed = self.thaw_to_die(state, who.as_deref(), thaw, beyond);
                    if thawed.is_err() && was == Own::Frozen {
                        let _ = state.life.on(Input::NotThawed); // never refused
                    }
                    thawed
                }
                Effect::Thaw => self.cgroup.thaw().context(|| format!("{} {}", verb.own, self.id)),
                Effect::Fail(refused) => Err(self.refusal(refused, verb, who)),
            };
            // The first failure is the response.
            done = done.and(result);
        }
        done.map(|()| given)
    }

    /// Emits an event; the lock keeps the order.
    fn emit(&self, state: &State, news: News) {
        let container = self.id.clone();
        let event = match news {
            News::Create => Event::Create {
                container,
                bundle: self.bundle.clone(),
                rootfs: self.rootfs.clone(),
                stdio: state.life.facts.stdio.clone(),
                pid: state.life.facts.pid,
            },
            News::Start => Event::Start { container, pid: state.life.facts.pid },
            News::ExecAdded(exec) => Event::ExecAdded { container, exec },
            News::ExecStarted(exec) => Event::ExecStarted { container, pid: state.pid(Some(&exec)), exec },
            News::Exit(who, exit) => {
                if who.is_none() {
                    record::exited(self.records.folder(), exit);
                }
                let pid = state.pid(who.as_deref());
                Event::Exit { id: who.unwrap_or_else(|| container.clone()), container, pid, exit }
            }
            News::Paused => Event::Paused { container },
            News::Resumed => Event::Resumed { container },
            News::Oom => Event::Oom { container },
            News::Delete(exit) => Event::Delete { container, pid: state.life.facts.pid, exit },
        };
        (self.world.events)(event);
    }

    /// The part after the lock is released.
    fn finish(&self, late: Vec<Late>) {
        for late in late {
            match late {
                Late::Tell(to, exit) => to.set(exit),
                Late::Again(who, exit) => self.hear(Input::Exited { who, exit }),
                Late::Settle(who, io, exit) => {
                    if let Some(io) = io {
                        settle(&io, exit);
                    }
                    self.hear(Input::Settled { who });
                }
            }
        }
    }

    pub fn exit(&self, exec: Option<&str>) -> Result<Exit> {
        let exit = self.lock().facts(exec).map(|facts| facts.exit.clone());
        exit.ok_or_else(|| self.refusal(Refused::NoExec, NEWS, exec))
    }

    pub fn state(&self, exec: Option<&str>) -> Result<ProcessState> {
        let mut state = self.lock();
        let missing = || self.refusal(Refused::NoExec, NEWS, exec);
        let (mut status, exit) = match exec {
            None => (state.life.init.status(), state.life.init.exited()),
            Some(id) => {
                let (exec, _) = state.life.execs.get(id).ok_or_else(missing)?;
                (exec.status(), exec.exited())
            }
        };
        if status == Status::Running && self.stands_still(state.life.freezer) {
            status = Status::Paused;
        }
        let facts = state.facts(exec).ok_or_else(missing)?;
        Ok(ProcessState {
            key: ProcessKey { container: self.id.clone(), exec: exec.map(Into::into) },
            bundle: self.bundle.clone(),
            pid: facts.pid,
            status,
            stdio: facts.stdio.clone(),
            exit,
        })
    }

    /// Whether the container is frozen; a pause in progress does not count until it has finished.
    fn stands_still(&self, freezer: Freezer) -> bool {
        let by_us = freezer.own() == Own::Frozen || freezer.with_pod();
        freezer.own() != Own::Freezing && self.cgroup.frozen().unwrap_or(by_us)
    }

    pub fn stats(&self) -> Result<Stats> {
        self.cgroup.stats().context(|| format!("stats of {}", self.id))
    }

    /// The pids in the cgroup and those that have left it, with the exec id if it is the first process of an exec.
    pub fn pids(&self) -> Result<Vec<(u32, Option<String>)>> {
        let mut pids = self.cgroup.pids()?;
        let state = self.lock();
        // containerd may take a container without any process in its list for a lost one.
        state.complete(&mut pids);
        let exec = |pid| {
            let mut running =
                state.life.execs.iter().filter(|(_, (exec, _))| exec.status() == Status::Running);
            running.find(|(_, (_, facts))| facts.pid == pid).map(|(id, _)| id.clone())
        };
        Ok(pids.into_iter().map(|pid| (pid, exec(pid))).collect())
    }

    pub fn pid(&self) -> u32 {
        self.lock().life.facts.pid
    }

    pub fn resize(&self, exec: Option<&str>, columns: u16, rows: u16) -> Result<()> {
        let verb = Verb::of("resize the terminal of");
        if self.state(exec)?.exit.is_some() {
            let word = self.lock().word(exec);
            return Err(self.refusal(Refused::Is(word), verb, exec));
        }
        let mut state = self.lock();
        let facts = state.facts(exec).ok_or_else(|| self.refusal(Refused::NoExec, verb, exec))?;
        // Without a terminal there is nothing to resize, and runc's shim ignores that too.
        match &facts.io {
            Some(io) => io.resize(columns, rows),
            None => {
                facts.asked.size = Some((columns, rows));
                Ok(())
            }
        }
    }

    pub fn close_stdin(&self, exec: Option<&str>) -> Result<()> {
        let mut state = self.lock();
        let facts = state.facts(exec).ok_or_else(|| self.refusal(Refused::NoExec, NEWS, exec))?;
        match &facts.io {
            Some(io) => io.close_stdin(),
            None => facts.asked.close_stdin = true,
        }
        Ok(())
    }

    /// Whether the process waits at its gate.
    pub fn is_created(&self) -> bool {
        matches!(self.lock().life.init, Init::Created(_))
    }

    /// One human-readable line per process; None if the state is locked by a request.
    pub fn lines(&self) -> Option<Vec<String>> {
        let state = self.state.try_lock()?;
        let life = &state.life;
        let line =
            |who: Option<&str>| format!("{}: {}, pid {}", self.name(who), state.word(who), state.pid(who));
        let mut first = line(None);
        for (on, word) in [
            (life.freezer.own() == Own::Frozen, "paused"),
            (life.freezer.own() == Own::Freezing, "being paused"),
            (life.init.is_being_deleted(), "being deleted"),
        ] {
            if on {
                first = format!("{first}, {word}");
            }
        }
        Some([first].into_iter().chain(life.execs.keys().map(|id| line(Some(id)))).collect())
    }
}
