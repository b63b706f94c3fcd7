//! One container: its life, its processes, its cgroup. The verbs are files beside this one, and use no other.
//!
//! One mutex per container, which nothing holds for longer than a few system calls. Every request and all news goes to the
//! life ([`life::Life`]), under the lock, and so do the events that come of it, in their order. What takes longer comes
//! behind the lock: streams are settled, and whoever waits for an exit is told. Nothing else in the crate is locked while
//! it is held, but the reaper's table for the moment of a clone.

mod create;
mod delete;
mod exec;
mod hooks;
mod kill;
pub(super) mod life;
mod news;
mod pause;
mod prepare;
mod process;
mod start;
mod update;

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
use crate::launch::{ExitStatus, Waiting};
use crate::plan::RootfsMount;
use crate::spec::{self, Spec};
use crate::stdio::{Io, Streams};
use crate::sync::{Mutex, MutexGuard};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

/// How long Delete waits for a process at its gate to die of SIGKILL, and a failed Start for the exit: containerd
/// deletes right after it.
const DEATH: Duration = Duration::from_secs(10);

pub(super) struct Container {
    pub id: String,
    pub bundle: PathBuf,
    pub spec: Spec,
    pub options: Options,
    /// For the event of its create.
    rootfs: Vec<RootfsMount>,
    pub cgroup: Box<dyn Cgroup>,
    records: Records,
    world: Arc<World>,
    streams: Streams,
    state: Mutex<State>,
}

pub(super) struct State {
    life: Life<ProcessParts>,
    updates: update::Updates,
    deletion: delete::Deletion,
}

/// What the states of a life own here.
pub(super) struct ProcessParts;

impl Parts for ProcessParts {
    type Facts = Facts;
    type Wanted = Box<spec::Process>;
    type Gate = Waiting;
    type Handle = Handle;
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
    fn folder(&self) -> &Path {
        match self {
            Records::Bundle(folder) | Records::Own { folder, .. } => folder,
        }
    }

    fn place(&self) -> Option<cgroup::Record> {
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

/// What an input was for, in words: of its process, and of the first one.
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

/// What an input gives to whom it comes from.
#[derive(Default)]
struct Given {
    gate: Option<Waiting>,
    wanted: Option<Box<spec::Process>>,
    removed: Option<(Facts, Option<ExitStatus>)>,
}

/// What is done without the lock.
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

    /// The one answer to a request in the wrong state.
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

    /// Takes an input to the life, and does all that comes of it.
    fn on(&self, verb: Verb, who: Option<&str>, input: Input<ProcessParts>) -> Result<Given> {
        let mut late = Vec::new();
        let given = self.act(&mut self.lock(), &mut late, verb, who, input);
        self.finish(late);
        given
    }

    /// The same for news, which nothing refuses.
    fn hear(&self, input: Input<ProcessParts>) {
        if let Err(e) = self.on(NEWS, None, input) {
            log::debug!(id = self.id.as_str(); "{e}");
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
                // Nobody was killed.
                Effect::LetDie { who: Some(_), .. } if done.is_err() => Ok(()),
                Effect::LetDie { who, thaw, beyond } => {
                    let thawed = self.thaw_to_die(state, who.as_deref(), thaw, beyond);
                    if thawed.is_err() && was == Own::Frozen {
                        let _ = state.life.on(Input::NotThawed); // it is never refused
                    }
                    thawed
                }
                Effect::Thaw => self.cgroup.thaw().context(|| format!("{} {}", verb.own, self.id)),
                Effect::Fail(refused) => Err(self.refusal(refused, verb, who)),
            };
            // The first failure is the answer.
            done = done.and(result);
        }
        done.map(|()| given)
    }

    /// In the order of the life, which the lock keeps.
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

    /// The part behind the lock.
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

    /// A pause that is at work is not told before it is done.
    fn stands_still(&self, freezer: Freezer) -> bool {
        let by_us = freezer.own() == Own::Frozen || freezer.with_pod();
        freezer.own() != Own::Freezing && self.cgroup.frozen().unwrap_or(by_us)
    }

    pub fn stats(&self) -> Result<Stats> {
        self.cgroup.stats().context(|| format!("stats of {}", self.id))
    }

    /// Each pid of its cgroup, and of those that have left it, with the exec's id where it is one's first process.
    pub fn pids(&self) -> Result<Vec<(u32, Option<String>)>> {
        let mut pids = self.cgroup.pids()?;
        let state = self.lock();
        // Without a process in its list containerd may take the container for a lost one.
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
        // Without a terminal there is nothing to resize, and runc's shim says so to nobody.
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

    /// Its process waits at its gate.
    pub fn is_created(&self) -> bool {
        matches!(self.lock().life.init, Init::Created(_))
    }

    /// One line per process, for a person. None: a request is at work.
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
