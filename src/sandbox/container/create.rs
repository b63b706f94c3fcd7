//! Task.Create: from a bundle to a process that waits at its gate.
//!
//! The container is created first, so that its life cycle sees even an early exit. A failed create leaves nothing.

use super::life::{Input, Life};
use super::prepare::{filter, io_owner, read_spec, warn};
use super::process::{Facts, Handle};
use super::{agent, fuse, hooks, Container, Records, State, Verb};
use crate::cgroup::oom::{Happened, Watch};
use crate::cgroup::Entry;
use crate::error::{Context, Error, Kind, Result};
use crate::launch::{Launched, Leash, Order};
use crate::plan::{self, Host};
use crate::resctrl::Groups;
use crate::sandbox::record::{self, Record};
use crate::sandbox::request::Create;
use crate::sandbox::{CgroupOrder, World};
use crate::spec::mount::{Mount, Source};
use crate::spec::{Ns, Spec};
use crate::stdio::{Labels, Whose};
use crate::sync::Mutex;
use crate::tasks::Looks;
use std::path::Path;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

/// How long the processes of a failed create may take to die.
const DYING: Duration = Duration::from_secs(1);
/// The same if its time limit is over and nobody waits for it any more.
const LATE: Duration = Duration::from_millis(100);

/// The specification of the bundle.
pub async fn read(world: &World, request: &Create, leash: &Leash) -> Result<Spec> {
    let reading = async {
        world.paths.check_bundle(&request.bundle, leash.deadline).await?;
        read_spec(&world.paths, &request.bundle, leash.deadline).await
    };
    leash.unless_killed(reading).await
}

pub async fn create(
    world: &Arc<World>,
    request: Create,
    mut spec: Spec,
    records: Records,
    leash: &Leash,
) -> Result<Arc<Container>> {
    // CRIU lets the clocks go on where they were, in a namespace; execs are to be in it, too.
    let times = &mut spec.namespaces.time;
    if request.checkpoint.is_some() && *times == Ns::Host && Path::new("/proc/self/ns/time").exists() {
        *times = Ns::New;
    }
    let (path, limits) = (spec.cgroups_path.as_deref(), &spec.resources);
    let asked = AtomicBool::new(false);
    let (annotations, options, id) = (&spec.annotations, &request.options, &request.id);
    let order = CgroupOrder { path, limits, annotations, options, id, asked: &asked };
    let cgroup = leash.bounds("its cgroup", &asked, (world.cgroups)(order)).await?;
    if !cgroup.is_own() {
        // It must not end or freeze the shim and what is beside it.
        let is_cgroup = |mount: &&mut Mount| match &mount.source {
            Source::Filesystem { fstype, .. } => [c"cgroup", c"cgroup2"].contains(&fstype.as_c_str()),
            _ => false,
        };
        spec.mounts.iter_mut().filter(is_cgroup).for_each(|mount| {
            mount.attributes.set |= libc::MOUNT_ATTR_RDONLY;
        });
    }
    let life = Life::making(Handle::Launch(leash.clone()), Facts::of(request.stdio.clone()));
    let container = Arc::new(Container {
        id: request.id.clone(),
        bundle: request.bundle.clone(),
        spec,
        options: request.options.clone(),
        rootfs: request.rootfs.clone(),
        cgroup,
        resctrl: OnceLock::new(),
        records,
        world: Arc::clone(world),
        streams: world.streams.of_container(),
        restoring: Mutex::default(),
        dump: Mutex::default(),
        state: Mutex::new(State { life, updates: Default::default(), deletion: Default::default() }),
    });
    let launched = launch(&container, &request, leash).await;
    if launched.is_err() {
        // Do both: the removal may work even if the kill fails, because an empty cgroup needs no kill.
        let (killed, removed) = (container.cgroup.kill(), remove(&container, leash).await);
        for e in [&killed, &removed].into_iter().filter_map(|left| left.as_ref().err()) {
            log::warn!(container = request.id.as_str(); "could not remove the cgroup of a failed create: {e}");
        }
        // Keep the record if anything is left: `delete` finds it by the record.
        if container.leave_resctrl() && removed.is_ok() {
            container.forget(patience(leash)).await;
        }
    }
    launched.map(|()| container)
}

fn patience(leash: &Leash) -> Duration {
    if leash.is_over() {
        LATE
    } else {
        DYING
    }
}

/// Removes the cgroup once the killed processes are gone. Does not wait for a process that hangs in the kernel.
async fn remove(container: &Container, leash: &Leash) -> Result<()> {
    let limit = patience(leash);
    let mut looks = Looks::each(Duration::from_millis(2));
    loop {
        let left = container.cgroup.pids().map_or(0, |pids| pids.len());
        if left == 0 {
            let end = Leash::lasting(UNMAKING);
            return end.bounds("its removal", &AtomicBool::new(false), container.cgroup.remove()).await;
        }
        if looks.elapsed() > limit {
            return Err(Error::new(Kind::Deadline, format!("{left} processes are still in it")));
        }
        looks.again().await?;
    }
}

/// How long systemd and the kernel may take to remove the cgroup: Delete waits twice as long for the create to end.
const UNMAKING: Duration = Duration::from_secs(5);

async fn launch(container: &Arc<Container>, request: &Create, leash: &Leash) -> Result<()> {
    let Container { id, bundle, records, spec, options, cgroup, world, .. } = &**container;
    let (pod_cgroup, root) = (records.pod_cgroup(), options.root.clone());
    let rdt = spec.intel_rdt.as_ref();
    let groups = rdt.map(|rdt| Groups::check(world.host.resctrl.as_deref(), rdt, id)).transpose()?;
    let resctrl = groups.as_ref().map_or_else(Vec::new, Groups::own);
    let mut record = Record { pod_cgroup, root, resctrl, ..Record::new(id, Some(cgroup.record())) };
    record::write(records.folder(), &record)?;
    // Recorded first: `delete` removes them if the shim is lost.
    if let Some(groups) = groups {
        let mut made = Vec::new();
        let done = groups.make(&mut made);
        container.resctrl.get_or_init(|| made);
        done?;
    }
    if let Some(root) = &options.root {
        let (at, to) = record::shown(root, records.folder());
        let linking = world.paths.link(&at, &to, leash.deadline);
        leash.unless_killed(linking).await.context(|| "options: Root")?;
    }

    let compiled = filter(&world.filters, spec)?;
    if let Some(compiled) = &compiled {
        warn(id, &compiled.warnings);
    }
    let revealing = options.no_pivot_root.then(|| Host::revealing(Path::new("/"))).transpose()?;
    let restoring = match &request.checkpoint {
        Some(images) => Some(container.prepare_restore(images, leash).await?),
        None => None,
    };
    let compile = if restoring.is_some() { plan::stage } else { plan::create };
    let plan = compile(&plan::Input {
        spec,
        host: &world.host,
        id,
        bundle,
        rootfs: &request.rootfs,
        filter: compiled.map(|compiled| compiled.filter),
        cgroup_dirs: &cgroup.directories(),
        no_pivot_root: revealing.as_deref(),
        no_new_keyring: options.no_new_keyring,
    })?;
    warn(id, &plan.warnings);
    log::debug!(container = id.as_str(); "compiled a plan of {} steps", plan.steps.len());

    let labels = Labels { container: id, namespace: &world.namespace };
    let streams = &container.streams;
    let (owner, by) = (io_owner(options), leash.deadline);
    let opening = streams.open(&request.stdio, &labels, owner, Whose::Container, by);
    let (ends, io) = leash.unless_killed(opening).await?;
    // What is restored is given its streams, and its cgroup, when it is started.
    let (ends, entry, restoring) = match restoring {
        Some(restoring) => (None, Entry::default(), Some(restoring.with_ends(ends))),
        None => (ends, cgroup.entry(None)?, None),
    };
    let exit = container.exit(None)?;
    // Watched from before the process is born: a limit that is too low for it kills it on its way.
    let mut oom = cgroup.watch_oom().unwrap_or_else(|e| {
        log::warn!(container = id.as_str(); "could not watch for OOM kills: {e}");
        None
    });
    let order = Order { plan: &plan, ends, entry, init: None, leash, on_exit: container.on_exit(None, exit) };
    let launching = async {
        match world.launcher.launch(order).await? {
            Launched::AtHooks(process) => {
                let ran = hooks::create(container, leash, &process).await;
                process.go_on(ran).await
            }
            Launched::Waiting(waiting) => Ok(waiting),
        }
    };
    let launched = fuse::during(container, leash, launching).await;
    let mut waiting = launched.map_err(|e| match oom.as_mut().map(Watch::take) {
        Some(Ok(Happened::Kills(1..))) => {
            e.context("killed by the kernel for memory: linux.resources.memory.limit is too low")
        }
        _ => e,
    })?;
    if let Some(master) = waiting.console.take() {
        io.attach_console(master)?;
    }
    let pid = waiting.pid;
    let state = || hooks::state((&**container).into(), "creating", pid);
    agent::hand(container, leash, &mut waiting, state).await?;
    record.pid = waiting.pid;
    record.start_time = record::start_time(waiting.pid).unwrap_or(0);
    record::write(records.folder(), &record)?;
    let pid = if restoring.is_some() { 0 } else { waiting.pid };
    *container.restoring.lock() = restoring;
    let mut late = Vec::new();
    {
        let mut state = container.lock();
        state.life.facts.connect(pid, io, &container.name(None));
        container.act(&mut state, &mut late, Verb::of("create"), None, Input::Made(waiting))?;
    }
    // After the Create event, and before an exit that has already been reported.
    if let Some(watch) = oom {
        world.watch.oom(container, watch, Container::hear_oom);
    }
    container.finish(late);
    Ok(())
}
