//! The systemd driver: the cgroup is a transient scope, so that systemd knows of it, leaves it alone (`Delegate=yes`)
//! and accounts it to a slice. Limits are set as properties first, then in files.
//!
//! A scope must be started with a process in it, and ends when it is empty. The container's process cannot be there
//! first: it is cloned into the cgroup. A process of ours that only sleeps starts the scope instead; it leaves when the
//! first [`Entry`] is dropped, which is when the container's process is in.

mod annotated;
mod basic;
mod bus;
mod properties;
mod wire;

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};

use nix::fcntl::OFlag;

use self::bus::{refused, Bus};
use self::wire::{Property, Reader, Value, Writer};
use super::dir::Dir;
use super::path::Unit;
use super::{by_files, oom, Cgroup, CgroupsPath, Dying, Entry, Halves, Host, Layout, Record, Stats};
use crate::error::{Context, Error, Kind, Result};
use crate::spec::resources::{Limit, Resources};
use crate::sync::Mutex;
use crate::sys::clone::Child;
use crate::sys::{idle, wait};
use crate::tasks::Answer;

/// The sleeping process; dropping this ends it.
#[derive(Debug)]
pub struct PlaceHolder {
    child: Child,
    /// `pids.max`, which is set to its real value, 1, when the place is free: a clone into the cgroup counts at once.
    only_one: Option<OwnedFd>,
}

impl PlaceHolder {
    fn start() -> Result<PlaceHolder> {
        let child = idle::idle().context(|| "clone3() of the scope's place-holder")?;
        Ok(PlaceHolder { child, only_one: None })
    }
}

impl Drop for PlaceHolder {
    fn drop(&mut self) {
        // The signal can fail only if it has ended already. The reaper does the rest.
        let _ = wait::signal(self.child.pidfd.as_fd(), libc::SIGKILL);
        if let Some(file) = &self.only_one {
            // The kernel accepts any number here, unless the cgroup is gone.
            let _ = nix::unistd::write(file, b"1");
        }
    }
}

/// A scope; `files` is its cgroup, None if it is gone.
pub(super) struct Scope {
    host: Host,
    unit: String,
    v2: bool,
    files: Option<Box<dyn Cgroup>>,
    place_holder: Mutex<Option<PlaceHolder>>,
}

impl Scope {
    pub(super) async fn create(
        host: &Host,
        layout: &Layout,
        unit: &Unit,
        resources: &Resources,
        annotations: &BTreeMap<String, String>,
        asked: &AtomicBool,
    ) -> Result<Scope> {
        let annotated = annotated::properties(annotations)?;
        let naming = || format!("scope {} in {}", unit.name, unit.slice);
        let mut bus = Bus::connect(host).await?;
        let mut place_holder = PlaceHolder::start()?;
        let own = [
            ("Description", Value::Text(format!("container {}", unit.name))),
            ("Slice", Value::Text(unit.slice.clone())),
            ("PIDs", Value::Pids(vec![place_holder.child.pid])),
            ("Delegate", Value::Flag(true)),
            ("DefaultDependencies", Value::Flag(false)),
            // Lets systemd collect the scope once it is empty, even if its container was OOM-killed.
            ("CollectMode", Value::Text("inactive-or-failed".into())),
            ("MemoryAccounting", Value::Flag(true)),
            ("CPUAccounting", Value::Flag(true)),
            (if layout.is_v2() { "IOAccounting" } else { "BlockIOAccounting" }, Value::Flag(true)),
            ("TasksAccounting", Value::Flag(true)),
        ];
        let named = |(name, value): Property| (Cow::Borrowed(name), value);
        let mut properties: Vec<(Cow<'_, str>, Value)> = own.map(named).into();
        properties.extend(annotated.into_iter().map(|(name, value)| (Cow::Owned(name), value)));
        let limits = limits(&mut bus, resources, &Halves::default(), layout.is_v2()).await?;
        properties.extend(limits.into_iter().map(named));
        if !layout.is_v2() {
            let rules = resources.devices.as_deref().unwrap_or_default();
            properties.extend(properties::of_devices(rules, &host.proc).into_iter().map(named));
        }
        // systemd takes the place-holder by its pid, which another process could have by the time it looks.
        asked.store(true, Ordering::SeqCst);
        start(&mut bus, &unit.name, &properties).await.context(naming)?;
        let path = CgroupsPath::Systemd(Unit { path: bus.root().await?.join(&unit.path), ..unit.clone() });
        let files = match resources.pids {
            Some(Limit::Value(1)) if layout.is_v2() => {
                let for_two = Resources { pids: Some(Limit::Value(2)), ..resources.clone() };
                by_files(host, layout, &path, &for_two, true).and_then(|files| {
                    let directory = files.directories().into_iter().map(|(mount, below)| mount.join(below));
                    for directory in directory {
                        place_holder.only_one =
                            Some(Dir::open(&directory)?.open_file("pids.max", OFlag::O_WRONLY)?);
                    }
                    Ok(files)
                })
            }
            _ => by_files(host, layout, &path, resources, true),
        };
        match files {
            Ok(files) => Ok(Scope {
                host: host.clone(),
                unit: unit.name.clone(),
                v2: layout.is_v2(),
                files: Some(files),
                place_holder: Mutex::new(Some(place_holder)),
            }),
            Err(error) => {
                drop(place_holder);
                Err(match stop(&mut bus, &unit.name).await {
                    Ok(()) => error.context(naming()),
                    Err(also) => error.context(format!("{} (which is left: {also})", naming())),
                })
            }
        }
    }

    pub(super) fn open(host: &Host, unit: &str, v2: bool, files: Option<Box<dyn Cgroup>>) -> Scope {
        Scope { host: host.clone(), unit: unit.to_owned(), v2, files, place_holder: Mutex::new(None) }
    }

    fn files(&self) -> Result<&dyn Cgroup> {
        let gone = || Error::new(Kind::NotFound, format!("the cgroup of {} is gone", self.unit));
        self.files.as_deref().ok_or_else(gone)
    }

    async fn set(&self, resources: &Resources) -> Result<()> {
        let mut bus = Bus::connect(&self.host).await?;
        let now = self.halves()?;
        let mut properties = limits(&mut bus, resources, &now, self.v2).await?;
        if let (Some(rules), false) = (&resources.devices, self.v2) {
            properties.extend(properties::of_devices(rules, &self.host.proc));
        }
        if !properties.is_empty() {
            let mut body = Writer::default();
            body.text(&self.unit);
            body.boolean(true);
            body.properties(&properties);
            let answer = bus.manager("SetUnitProperties", "sba(sv)", &body).await?;
            answer.map_err(|refusal| refused("SetUnitProperties", &refusal)).context(|| self.unit.clone())?;
        }
        self.files()?.update(&properties::restored(resources, &now)).await
    }

    /// Stops the unit, then removes what systemd left: directories in hierarchies that it does not manage.
    async fn end(&self) -> Result<()> {
        drop(self.place_holder.lock().take());
        let stopped = self.stop().await;
        if let Some(files) = &self.files {
            files.remove().await?;
        }
        match stopped {
            // Without its cgroup the scope ends by itself, once systemd gets to it.
            Err(error) if matches!(error.kind(), Kind::Unavailable | Kind::Deadline) => Ok(()),
            stopped => stopped.context(|| self.unit.clone()),
        }
    }

    async fn stop(&self) -> Result<()> {
        let mut bus = Bus::connect(&self.host).await?;
        stop(&mut bus, &self.unit).await
    }
}

async fn limits(bus: &mut Bus, resources: &Resources, now: &Halves, v2: bool) -> Result<Vec<Property>> {
    // Nothing else depends on the version.
    let version = if resources.cpu.idle == Some(true) { bus.version().await? } else { 0 };
    properties::of_limits(resources, now, v2, version)
}

/// Starts the scope, and waits until its process is in it.
async fn start(bus: &mut Bus, unit: &str, properties: &[(Cow<'_, str>, Value)]) -> Result<()> {
    let mut body = Writer::default();
    body.text(unit);
    body.text("fail");
    body.properties(properties);
    body.no_units();
    let member = "StartTransientUnit";
    let mut answer = bus.manager(member, "ssa(sv)a(sa(sv))", &body).await?;
    if answer.as_ref().is_err_and(|refusal| refusal.is("UnitExists")) {
        // It may be a failed unit that was kept; resetting does not affect one that runs.
        reset(bus, unit).await?;
        answer = bus.manager(member, "ssa(sv)a(sa(sv))", &body).await?;
    }
    let answer = answer.map_err(|refusal| refused(member, &refusal))?;
    let result = bus.wait(Reader::new(&answer).text()?).await?;
    if result != "done" {
        reset(bus, unit).await?;
        return Err(Error::new(Kind::System, format!("systemd's start job ended as {result:?}")));
    }
    Ok(())
}

/// Stops the unit, and waits until it is gone; it may be gone already.
async fn stop(bus: &mut Bus, unit: &str) -> Result<()> {
    let mut body = Writer::default();
    body.text(unit);
    body.text("replace");
    match bus.manager("StopUnit", "ss", &body).await? {
        Ok(answer) => {
            bus.wait(Reader::new(&answer).text()?).await?;
            reset(bus, unit).await
        }
        Err(refusal) if refusal.is("NoSuchUnit") => Ok(()),
        Err(refusal) => Err(refused("StopUnit", &refusal)),
    }
}

/// Frees a failed unit; it is not an error if the unit has not failed, or does not exist.
async fn reset(bus: &mut Bus, unit: &str) -> Result<()> {
    let mut body = Writer::default();
    body.text(unit);
    bus.manager("ResetFailedUnit", "s", &body).await.map(drop)
}

impl Cgroup for Scope {
    fn entry(&self, beside: Option<u32>) -> Result<Entry> {
        let mut entry = self.files()?.entry(beside)?;
        entry.hold = self.place_holder.lock().take();
        Ok(entry)
    }

    fn directories(&self) -> Vec<(PathBuf, PathBuf)> {
        self.files.as_ref().map_or_else(Vec::new, |files| files.directories())
    }

    fn pids(&self) -> Result<Vec<u32>> {
        let Some(files) = &self.files else { return Ok(Vec::new()) };
        let mut pids = files.pids()?;
        if let Some(PlaceHolder { child, .. }) = &*self.place_holder.lock() {
            pids.retain(|pid| *pid != child.pid);
        }
        Ok(pids)
    }

    fn update<'a>(&'a self, resources: &'a Resources) -> Answer<'a, Result<()>> {
        Box::pin(self.set(resources))
    }

    fn halves(&self) -> Result<Halves> {
        self.files()?.halves()
    }

    fn freeze(&self) -> Answer<'_, Result<()>> {
        Box::pin(async { self.files()?.freeze().await })
    }

    fn thaw(&self) -> Result<()> {
        self.files()?.thaw()
    }

    fn frozen(&self) -> Result<bool> {
        self.files.as_ref().map_or(Ok(false), |files| files.frozen())
    }

    fn thaw_to_die(&self, who: Dying) -> Result<()> {
        self.files.as_ref().map_or(Ok(()), |files| files.thaw_to_die(who))
    }

    fn kill(&self) -> Result<()> {
        self.files.as_ref().map_or(Ok(()), |files| files.kill())
    }

    fn stats(&self) -> Result<Stats> {
        self.files()?.stats()
    }

    fn watch_oom(&self) -> Result<Option<oom::Watch>> {
        self.files()?.watch_oom()
    }

    fn remove(&self) -> Answer<'_, Result<()>> {
        Box::pin(self.end())
    }

    fn record(&self) -> Record {
        let record = self.files.as_ref().map(|files| files.record());
        let record =
            record.unwrap_or(Record { v2: self.v2, members: Vec::new(), unit: None, made: Vec::new() });
        Record { unit: Some(self.unit.clone()), ..record }
    }
}
