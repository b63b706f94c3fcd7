//! Task.Create: from a bundle to a process that waits at its gate.
//!
//! The container is made first, and its slot is held until the process is at its gate and the event is queued:
//! an exit, however early, waits for the slot. A create that fails leaves nothing.

use super::container::{Container, Records, Slot};
use super::freezer::Freezer;
use super::lifecycle::{Asked, Life, Process};
use super::pod::member;
use super::record::{self, Record};
use super::request::{Create, Event, Options};
use super::watch::ExitOf;
use super::{CgroupOrder, Exit, Sandbox};
use crate::cgroup::oom::{Happened, Watch};
use crate::error::{Context, Error, Kind, Result};
use crate::launch::{Leash, Order};
use crate::plan::{self, Host};
use crate::seccomp::{Cache, Compiled};
use crate::spec::Spec;
use crate::stdio::{Labels, Whose};
use crate::tasks::Looks;
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// How long what is left of a failed create may take to die.
const DYING: Duration = Duration::from_secs(1);
/// The same where nobody waits for it any more.
const LATE: Duration = Duration::from_millis(100);

pub(super) async fn create(sandbox: &Sandbox, request: Create, leash: &Leash) -> Result<Arc<Container>> {
    let mut spec = read_spec(&request.bundle)?;
    let member = member::join(sandbox, &request, &mut spec)?;
    let records = match &member {
        Some(member) => Records::Own {
            folder: member.records.clone(),
            bundle: request.bundle.clone(),
            place: member.place.clone(),
        },
        None => Records::Bundle(request.bundle.clone()),
    };
    let (path, limits) = (spec.cgroups_path.as_deref(), &spec.resources);
    let order = CgroupOrder { path, limits, options: &request.options, id: &request.id };
    let cgroup = leash.bounds("its cgroup", (sandbox.config.cgroups)(order)).await?;
    let init = Process {
        name: format!("container {}", request.id),
        pid: 0,
        stdio: request.stdio.clone(),
        io: None,
        exit: Exit::default(),
        life: Life::Starting(None, leash.clone()),
        early: None,
        asked: Asked::default(),
    };
    let slot = Slot {
        init,
        execs: BTreeMap::new(),
        freezer: Freezer::Thawed,
        frozen_with_pod: false,
        told_frozen: false,
        ending: None,
        oom_suspected: false,
        deleting: false,
        updating: false,
    };
    let container = Arc::new(Container {
        id: request.id.clone(),
        bundle: request.bundle.clone(),
        spec,
        options: request.options.clone(),
        cgroup,
        records,
        events: Arc::clone(&sandbox.events),
        streams: sandbox.streams.of_container(),
        slot: Mutex::new(slot),
    });
    let launched = launch(sandbox, &container, &request, leash).await;
    if launched.is_err() {
        // The one may work where the other does not: an empty cgroup needs no kill.
        let (killed, removed) = (container.cgroup.kill(), remove(&container, leash).await);
        for e in [&killed, &removed].into_iter().filter_map(|left| left.as_ref().err()) {
            log::warn!(id = request.id.as_str(); "a failed create left its cgroup: {e}");
        }
        // What is left is for `delete`, which finds it by its record.
        if removed.is_ok() {
            container.forget();
        }
    }
    // What a member joins is opened by now.
    drop(member);
    launched.map(|()| container)
}

/// Its cgroup, once the processes that were killed are gone. One that hangs in the kernel is not waited for.
async fn remove(container: &Container, leash: &Leash) -> Result<()> {
    let limit = if leash.is_over() { LATE } else { DYING };
    let mut looks = Looks::each(Duration::from_millis(2));
    loop {
        let left = container.cgroup.pids().map_or(0, |pids| pids.len());
        if left == 0 {
            return container.cgroup.remove().await;
        }
        if looks.elapsed() > limit {
            return Err(Error::new(Kind::Deadline, format!("{left} processes are still in it")));
        }
        looks.again().await?;
    }
}

async fn launch(
    sandbox: &Sandbox,
    container: &Arc<Container>,
    request: &Create,
    leash: &Leash,
) -> Result<()> {
    let Container { id, bundle, records, spec, options, cgroup, .. } = &**container;
    let (place, root) = (records.place(), options.root.clone());
    let mut record = Record { place, root, ..Record::new(id, Some(cgroup.record())) };
    record::write(records.folder(), &record)?;

    let rootfs: Vec<_> = request.rootfs.iter().map(super::request::RootfsMount::to_plan).collect();
    let compiled = filter(&sandbox.filters, spec)?;
    if let Some(compiled) = &compiled {
        warn(id, &compiled.warnings);
    }
    let revealing = options.no_pivot_root.then(|| Host::revealing(Path::new("/"))).transpose()?;
    let plan = plan::create(&plan::Input {
        spec,
        host: &sandbox.config.host,
        id,
        bundle,
        rootfs: &rootfs,
        filter: compiled.map(|compiled| compiled.filter),
        cgroup_dirs: &cgroup.directories(),
        no_pivot_root: revealing.as_deref(),
        no_new_keyring: options.no_new_keyring,
    })?;
    warn(id, &plan.warnings);
    log::debug!(id = id.as_str(); "compiled {} steps", plan.steps.len());

    let labels = Labels { container: id, namespace: &sandbox.config.namespace };
    let (ends, io) = container
        .streams
        .open(&request.stdio, &labels, io_owner(options), Whose::Container, leash.deadline)
        .await?;
    let exit_of =
        ExitOf { container: Arc::downgrade(container), exec: None, exit: container.lock().init.exit.clone() };
    let queue = Arc::clone(sandbox.watch.queue());
    // Watched from before the process is born: a limit that is too low for it kills it on its way.
    let mut oom = cgroup.watch_oom().unwrap_or_else(|e| {
        log::warn!(id = id.as_str(); "no OOM events: {e}");
        None
    });
    let launched = sandbox.config.launcher.launch(Order {
        plan: &plan,
        ends,
        entry: cgroup.entry(None)?,
        init: None,
        hooks: Some(Box::new(move |pid, pidfd| {
            Box::pin(super::hooks::create(sandbox, container, leash, pid, pidfd))
        })),
        leash,
        on_exit: Box::new(move |status| queue.push(exit_of, status)),
    });
    let mut waiting = launched.await.map_err(|e| match oom.as_mut().map(Watch::take) {
        Some(Ok(Happened::Kills(1..))) => {
            e.context("killed by the kernel for memory: linux.resources.memory.limit is too low")
        }
        _ => e,
    })?;
    if let Some(master) = waiting.console.take() {
        io.attach_console(master)?;
    }
    record.pid = waiting.pid;
    record.start_time = record::start_time(waiting.pid).unwrap_or(0);
    record::write(records.folder(), &record)?;
    let mut slot = container.lock();
    slot.init.pid = waiting.pid;
    slot.init.connect(io);
    slot.init.life = Life::Created(waiting);
    (sandbox.events)(Event::Create {
        container: id.clone(),
        bundle: bundle.clone(),
        rootfs: request.rootfs.clone(),
        stdio: request.stdio.clone(),
        pid: slot.init.pid,
    });
    // Behind the event of the create.
    if let Some(watch) = oom {
        sandbox.watch.oom(Arc::downgrade(container), watch);
    }
    if let Some(status) = slot.init.early.take() {
        container.ended(&mut slot, None, status);
    }
    Ok(())
}

pub(super) fn read_spec(bundle: &Path) -> Result<Spec> {
    let path = bundle.join(crate::spec::CONFIG);
    let json = std::fs::read(&path).context(|| format!("read({path:?})"))?;
    Spec::parse(&json)
}

/// The spec's seccomp profile, compiled; what is worth a warning is logged with the container's create only.
pub(super) fn filter(filters: &Cache, spec: &Spec) -> Result<Option<Compiled>> {
    spec.seccomp.as_ref().map(|profile| filters.compile(profile)).transpose()
}

pub(super) fn io_owner(options: &Options) -> (u32, u32) {
    (options.io_uid, options.io_gid)
}

pub(super) fn warn(id: &str, warnings: &[String]) {
    for warning in warnings {
        log::warn!(id = id; "{warning}");
    }
}
