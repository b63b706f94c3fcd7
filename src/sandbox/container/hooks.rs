//! When the spec's hooks run (runtime-spec, config.md, "POSIX-platform Hooks"), and what a failure means.
//!
//! A hook that fails before the program runs fails the create or the start. So does a poststart hook, although the
//! program already runs: it is killed. A failed poststop hook is only logged: the container is gone in any case.

use super::prepare::{filter, read_spec};
use super::{agent, Container};
use crate::cgroup::Entry;
use crate::error::{Context, Result};
use crate::launch::hooks::{self, Run};
use crate::launch::{after, AtHooks, Launcher, Leash, Waiting};
use crate::paths::Paths;
use crate::plan::{self, HookPlace};
use crate::spec::{Hook, Spec};
use serde_json::{json, Value};
use std::os::fd::{AsFd, BorrowedFd};
use std::path::Path;
use std::time::Duration;

/// The container that the hooks belong to.
#[derive(Clone, Copy)]
pub(super) struct Owner<'a> {
    id: &'a str,
    bundle: &'a Path,
    spec: &'a Spec,
}

impl<'a> From<&'a Container> for Owner<'a> {
    fn from(container: &'a Container) -> Self {
        Owner { id: &container.id, bundle: &container.bundle, spec: &container.spec }
    }
}

/// The container's state (runtime.md, "State"), for hooks, which read it from standard input, and for agents.
pub(super) fn state(owner: Owner<'_>, status: &str, pid: u32) -> Value {
    json!({
        "ociVersion": owner.spec.version,
        "id": owner.id,
        "status": status,
        "pid": pid,
        "bundle": owner.bundle,
        "annotations": owner.spec.annotations,
    })
}

/// A list of hooks, and the point in the container's life at which they run.
struct Moment<'a> {
    kind: &'static str,
    status: &'static str,
    pid: u32,
    place: Place<'a>,
}

/// Where hooks run: see [`HookPlace`].
#[derive(Clone, Copy)]
enum Place<'a> {
    Host,
    Namespaces(BorrowedFd<'a>),
    Container(&'a Container, &'a Waiting),
}

async fn run(
    launcher: &dyn Launcher,
    leash: &Leash,
    owner: Owner<'_>,
    list: &[Hook],
    moment: &Moment<'_>,
) -> Result<()> {
    if list.is_empty() {
        return Ok(());
    }
    let state = state(owner, moment.status, moment.pid);
    for (i, hook) in list.iter().enumerate() {
        let ran = run_one(launcher, leash, owner, hook, &state, moment.place).await;
        ran.context(|| format!("hooks.{}[{i}] {:?}", moment.kind, hook.path))?;
    }
    Ok(())
}

async fn run_one(
    launcher: &dyn Launcher,
    leash: &Leash,
    owner: Owner<'_>,
    hook: &Hook,
    state: &Value,
    place: Place<'_>,
) -> Result<()> {
    let Owner { id, bundle, spec } = owner;
    let (compiled_for, entry, init) = match place {
        Place::Host => (HookPlace::Host { bundle }, Entry::default(), None),
        Place::Namespaces(init) => {
            let namespaces = &spec.namespaces;
            (HookPlace::Namespaces { bundle, namespaces }, Entry::default(), Some(init))
        }
        Place::Container(Container { world, cgroup, .. }, waiting) => {
            let filter = filter(&world.filters, spec)?.map(|compiled| compiled.filter);
            let place = HookPlace::Container { spec, host: &world.host, id, filter };
            (place, cgroup.entry(Some(waiting.pid))?, Some(waiting.pidfd.as_fd()))
        }
    };
    let plan = plan::hook(hook, compiled_for)?;
    let text = state.to_string();
    let run = Run { plan: &plan, entry, init, timeout: hook.timeout, state: text.as_bytes() };
    let mut begun = hooks::begin(launcher, leash, run).await?;
    if let Place::Container(container, _) = place {
        agent::hand(container, &begun.leash, &mut begun.waiting, || state.clone()).await?;
    }
    begun.finish().await
}

/// Runs the hooks of the create. The process has its namespaces and mounts; its root is not yet the container's.
pub(super) async fn create(container: &Container, leash: &Leash, process: &AtHooks<'_>) -> Result<()> {
    let (hooks, launcher) = (&container.spec.hooks, &*container.world.launcher);
    let at = |kind, place| Moment { kind, status: "creating", pid: process.pid, place };
    run(launcher, leash, container.into(), &hooks.prestart, &at("prestart", Place::Host)).await?;
    run(launcher, leash, container.into(), &hooks.create_runtime, &at("createRuntime", Place::Host)).await?;
    let place = Place::Namespaces(process.pidfd.as_fd());
    run(launcher, leash, container.into(), &hooks.create_container, &at("createContainer", place)).await
}

/// Runs the hooks that set up a network, as runc does in a restore: the namespaces are there, the processes are not.
pub(super) async fn restore(container: &Container, leash: &Leash, pid: u32) -> Result<()> {
    let (hooks, launcher) = (&container.spec.hooks, &*container.world.launcher);
    let at = |kind| Moment { kind, status: "creating", pid, place: Place::Host };
    run(launcher, leash, container.into(), &hooks.prestart, &at("prestart")).await?;
    run(launcher, leash, container.into(), &hooks.create_runtime, &at("createRuntime")).await
}

pub(super) async fn start_container(container: &Container, leash: &Leash, waiting: &Waiting) -> Result<()> {
    let place = Place::Container(container, waiting);
    let moment = Moment { kind: "startContainer", status: "created", pid: waiting.pid, place };
    let hooks = &container.spec.hooks.start_container;
    run(&*container.world.launcher, leash, container.into(), hooks, &moment).await
}

pub(super) async fn poststart(container: &Container, leash: &Leash, pid: u32) -> Result<()> {
    let moment = Moment { kind: "poststart", status: "running", pid, place: Place::Host };
    run(&*container.world.launcher, leash, container.into(), &container.spec.hooks.poststart, &moment).await
}

pub(super) async fn poststop(container: &Container, limit: Duration) {
    let (leash, list) = (Leash::lasting(limit), &container.spec.hooks.poststop);
    warn(container, run(&*container.world.launcher, &leash, container.into(), list, &POSTSTOP).await);
}

const POSTSTOP: Moment<'_> = Moment { kind: "poststop", status: "stopped", pid: 0, place: Place::Host };

/// Runs the poststop hooks of a container whose shim is gone, and kills them after `limit`, whatever the spec allows.
/// Makes a launcher only if there are any.
pub async fn poststop_of<L: Launcher>(
    launcher: impl FnOnce() -> Result<L>,
    id: &str,
    bundle: &Path,
    limit: Duration,
) -> Result<()> {
    let spec = read_spec(&Paths::default(), bundle, after(limit)).await?;
    let mut hooks = spec.hooks.poststop.clone();
    if hooks.is_empty() {
        return Ok(());
    }
    // Each hook gets an equal share of the time.
    let part = limit / u32::try_from(hooks.len()).unwrap_or(u32::MAX);
    for hook in &mut hooks {
        hook.timeout = Some(hook.timeout.map_or(part, |own| own.min(part)));
    }
    // The hooks' own timeouts enforce the limit.
    let (leash, owner) = (Leash::lasting(limit * 2), Owner { id, bundle, spec: &spec });
    run(&launcher()?, &leash, owner, &hooks, &POSTSTOP).await
}

fn warn(container: &Container, ran: Result<()>) {
    if let Err(e) = ran {
        log::warn!(container = container.id.as_str(); "{e}");
    }
}
