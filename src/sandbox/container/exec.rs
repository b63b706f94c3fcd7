//! Task.Exec, and Task.Start of an exec: another process in a running container.

use super::life::{Init, Input, Own};
use super::prepare::{filter, io_owner, warn};
use super::process::{exit_of_never_ran, Facts, Handle};
use super::{agent, hooks, Container, Verb};
use crate::cgroup::Dying;
use crate::error::{Context, Error, Kind, Result};
use crate::launch::{Leash, Order};
use crate::plan;
use crate::resctrl;
use crate::sandbox::undo::Undo;
use crate::sandbox::Exit;
use crate::spec;
use crate::stdio::{Io, Labels, Stdio, Whose};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

const ADD: Verb = Verb { own: "add", init: "exec in" };
const START: Verb = Verb { own: "start", init: "exec in" };

/// What an exec needs to start: it runs without the state lock.
struct Wanted {
    process: Box<spec::Process>,
    stdio: Stdio,
    exit: Exit,
    /// The container's first process.
    init: OwnedFd,
    init_pid: u32,
}

struct Started {
    pid: u32,
    pidfd: OwnedFd,
    io: Io,
}

impl Container {
    pub fn add_exec(&self, id: &str, process: spec::Process, stdio: Stdio) -> Result<()> {
        let (wanted, facts) = (Box::new(process), Facts::of(stdio));
        let mut state = self.lock();
        // What others have frozen is looked for at the start, which would hang.
        let frozen = state.life.freezer.own() == Own::Frozen && self.cgroup.frozen()?;
        let input = Input::Add { id: id.into(), wanted, facts, frozen };
        self.act(&mut state, &mut Vec::new(), ADD, Some(id), input).map(drop)
    }

    pub async fn start_exec(self: &Arc<Self>, id: &str, leash: &Leash) -> Result<u32> {
        let wanted = self.want(id, leash)?;
        let failed = || Input::ExecFailed { id: id.into(), exit: exit_of_never_ran() };
        let undo = Undo::new(|| self.hear(failed()));
        let started = match wanted {
            Some(wanted) => self.make(id, leash, &wanted).await,
            None => Err(Error::new(Kind::Bug, "an added exec lost its process")),
        };
        undo.done();
        // The killed process, if it still exists.
        let left = if started.is_err() { leash.pid() } else { None };
        leash.release();
        let Started { pid, pidfd, io } = match started {
            Ok(started) => started,
            Err(e) => {
                self.hear(failed());
                // The cgroup may have been frozen meanwhile.
                if let Some(Err(e)) = left.map(|pid| self.cgroup.thaw_to_die(Dying::One(pid))) {
                    log::warn!(container = self.id.as_str(), exec = id; "could not thaw a failed exec: {e}");
                }
                return Err(e.context(format!("exec {id} in {}", self.id)));
            }
        };
        let mut late = Vec::new();
        {
            let mut state = self.lock();
            let name = self.name(Some(id));
            if let Some(facts) = state.facts(Some(id)) {
                facts.connect(pid, io, &name);
            }
            let handle = Handle::Process(pidfd);
            let input = Input::ExecStarted { id: id.into(), handle };
            self.act(&mut state, &mut late, START, Some(id), input)?;
            // A kill arrived after the launch was complete but before its result was known: deliver it now.
            if leash.check().is_err() {
                let _ = self.signal(&state, Some(id), libc::SIGKILL);
                let _ = self.cgroup.thaw_to_die(Dying::One(pid));
            }
        }
        self.finish(late);
        Ok(pid)
    }

    fn want(&self, id: &str, leash: &Leash) -> Result<Option<Wanted>> {
        let mut state = self.lock();
        let frozen = self.cgroup.frozen()?;
        let init = match &state.life.init {
            Init::Running(Handle::Process(pidfd) | Handle::Starting(pidfd, _)) => {
                Some(pidfd.try_clone().context(|| "dup(pidfd)")?)
            }
            _ => None,
        };
        let init_pid = state.life.facts.pid;
        let input = Input::StartExec { id: id.into(), handle: Handle::Launch(leash.clone()), frozen };
        let given = self.act(&mut state, &mut Vec::new(), START, Some(id), input)?;
        let facts = state.facts(Some(id));
        Ok(given.wanted.zip(init).zip(facts).map(|((process, init), facts)| Wanted {
            process,
            stdio: facts.stdio.clone(),
            exit: facts.exit.clone(),
            init,
            init_pid,
        }))
    }

    async fn make(self: &Arc<Self>, id: &str, leash: &Leash, wanted: &Wanted) -> Result<Started> {
        let world = &*self.world;
        let host = world.host.resctrl.as_deref();
        if let Some(group) = resctrl::gone(host, self.spec.intel_rdt.as_ref(), &self.id) {
            log::warn!(container = self.id.as_str(), exec = id; "linux.intelRdt: {group:?} is gone, the exec runs without it");
        }
        let compiled = filter(&world.filters, &self.spec)?;
        let plan = plan::exec(&plan::ExecInput {
            spec: &self.spec,
            process: &wanted.process,
            host: &world.host,
            id: &self.id,
            filter: compiled.map(|compiled| compiled.filter),
            no_new_keyring: self.options.no_new_keyring,
        })?;
        warn(&self.id, &plan.warnings);
        let labels = Labels { container: id, namespace: &world.namespace };
        let (owner, by) = (io_owner(&self.options), leash.deadline);
        let opening = self.streams.open(&wanted.stdio, &labels, owner, Whose::Exec, by);
        let (ends, io) = leash.unless_killed(opening).await?;
        let order = Order {
            plan: &plan,
            ends,
            entry: self.cgroup.entry(Some(wanted.init_pid))?,
            init: Some(wanted.init.as_fd()),
            leash,
            on_exit: self.on_exit(Some(id.into()), wanted.exit.clone()),
        };
        let mut waiting = world.launcher.launch(order).await?.at_gate().await?;
        if let Some(master) = waiting.console.take() {
            io.attach_console(master)?;
        }
        let pid = waiting.pid;
        let state = || hooks::state((&**self).into(), "running", wanted.init_pid);
        agent::hand(self, leash, &mut waiting, state).await?;
        Ok(Started { pid, pidfd: waiting.start_by(leash).await?, io })
    }
}
