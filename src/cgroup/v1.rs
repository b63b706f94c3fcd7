//! cgroup v1, and hybrid: one directory in each hierarchy (the kernel's Documentation/admin-guide/cgroup-v1/).

mod freezer;
mod knobs;
mod stats;
#[cfg(test)]
mod tests;

use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::{Arc, OnceLock};

use nix::fcntl::OFlag;

use super::dir::{is_absent, Dir};
use super::layout::Hierarchy;
use super::path::CgroupsPath;
use super::tree::{self, Made};
use super::{beside, oom, unless_refused_to_user, Cgroup, Dying, Entry, Halves, Host, Member, Record, Stats};
use crate::error::{Context, Error, Kind, Result};
use crate::spec::resources::{DeviceRule, Limit, Resources};
use crate::sync::Mutex;
use crate::sys::fd::above_standard;
use crate::tasks::Answer;

/// The file through which a single thread enters.
const TASKS: &str = "tasks";

/// The cgroup in one hierarchy.
#[derive(Debug)]
struct Place {
    at: Member,
    dir: Dir,
}

#[derive(Debug)]
pub(super) struct V1 {
    host: Host,
    places: Vec<Place>,
    /// The default and the exceptions in the devices controller, if this process has set them.
    devices: Mutex<Option<(bool, Vec<DeviceRule>)>>,
    hugepages: OnceLock<Vec<String>>,
    /// The files through which further processes (execs, hooks) enter: kept open from the first one on.
    entries: OnceLock<Vec<Arc<OwnedFd>>>,
}

impl V1 {
    fn of(host: &Host, places: Vec<Place>) -> V1 {
        V1 {
            host: host.clone(),
            places,
            devices: Mutex::new(None),
            hugepages: OnceLock::new(),
            entries: OnceLock::new(),
        }
    }

    /// `adopted`: systemd has created (part of) it, and a process of ours is in it.
    pub(super) fn create(
        host: &Host,
        hierarchies: &[Hierarchy],
        path: &CgroupsPath,
        resources: &Resources,
        adopted: bool,
    ) -> Result<V1> {
        if !resources.unified.is_empty() {
            return Err(Error::new(Kind::Invalid, "linux.resources.unified: the host has cgroup v1"));
        }
        let mut made = Made::default();
        let mut places = Vec::with_capacity(hierarchies.len());
        let mut all_fresh = true;
        for hierarchy in hierarchies {
            let below = path.below(hierarchy);
            let (dir, fresh) = made.make(&hierarchy.mount, &below)?;
            if !fresh && !adopted {
                tree::refuse_busy(&dir)?;
            }
            // A new cgroup inherits the state of those above it.
            if hierarchy.has("freezer") {
                freezer::refuse_frozen(&dir)?;
            }
            all_fresh &= fresh;
            if hierarchy.has("cpuset") {
                knobs::inherit_cpuset(&dir, &hierarchy.mount, &below)?;
            }
            let at = Member { mount: hierarchy.mount.clone(), below, names: hierarchy.names.clone() };
            places.push(Place { at, dir });
        }
        let cgroup = V1::of(host, places);
        cgroup.apply(resources, all_fresh, "linux.resources")?;
        let rules = resources.devices.as_deref().unwrap_or_default();
        unless_refused_to_user(host, cgroup.apply_devices(rules, "linux.resources.devices"))?;
        made.keep();
        Ok(cgroup)
    }

    fn set(&self, resources: &Resources) -> Result<()> {
        if !resources.unified.is_empty() {
            return Err(Error::new(Kind::Invalid, "resources.unified: the host has cgroup v1"));
        }
        self.apply(resources, false, "resources")?;
        match &resources.devices {
            Some(rules) => unless_refused_to_user(&self.host, self.apply_devices(rules, "resources.devices")),
            None => Ok(()),
        }
    }

    /// Opens an existing cgroup, as far as it still exists.
    pub(super) fn open(host: &Host, members: &[Member]) -> Result<V1> {
        let mut places = Vec::with_capacity(members.len());
        for at in members {
            if let Some(dir) = Dir::open_if(&at.mount.join(&at.below))? {
                places.push(Place { at: at.clone(), dir });
            }
        }
        Ok(V1::of(host, places))
    }

    fn place(&self, controller: &str) -> Option<&Place> {
        self.places.iter().find(|p| p.at.names.iter().any(|n| n == controller))
    }

    fn dir(&self, controller: &str) -> Option<&Dir> {
        self.place(controller).map(|p| &p.dir)
    }

    /// Returns the directory of a controller that a requested limit needs.
    fn need(&self, controller: &str) -> Result<&Dir> {
        self.dir(controller).ok_or_else(|| {
            Error::new(
                Kind::Unsupported,
                format!("the host has no {controller} controller, which a limit needs"),
            )
        })
    }

    fn unified(&self) -> Option<&Dir> {
        self.places.iter().find(|p| p.at.names.is_empty()).map(|p| &p.dir)
    }

    /// Opens `tasks`, not `cgroup.procs`: when a single thread moves itself, the kernel then needs no system-wide lock
    /// with its grace period (Linux 5.16, "cgroup: Optimize single thread migration").
    fn open_entries(&self, beside: Option<u32>) -> Result<Vec<Arc<OwnedFd>>> {
        let open = |dir: &Dir| {
            let file = above_standard(dir.open_file(TASKS, OFlag::O_WRONLY)?);
            file.map(Arc::new).context(|| "fcntl(F_DUPFD_CLOEXEC)")
        };
        let hierarchies = self.places.iter().filter(|place| !place.at.names.is_empty());
        let opened = hierarchies.map(|place| match (open(&place.dir), beside) {
            (Err(e), Some(pid)) if is_absent(&e) => open(&self.beside(place, pid)?),
            (opened, _) => opened,
        });
        opened.collect()
    }

    /// Opens the cgroup of `pid` in a hierarchy in which the container's own cgroup is gone.
    fn beside(&self, place: &Place, pid: u32) -> Result<Dir> {
        let dir = beside::of(&self.host.proc, pid, &place.at)?;
        if place.at.names.iter().any(|name| name == "freezer") && freezer::is_frozen(&dir)? {
            Err(tree::frozen_beside(&dir, pid))
        } else {
            Ok(dir)
        }
    }

    /// Whether it still exists. Once it is empty, systemd removes it from the hierarchies that it manages: from its own
    /// as from the unified one.
    fn is_there(&self) -> bool {
        self.dir("name=systemd").or(self.census()).is_none_or(|dir| dir.has(TASKS))
    }

    /// The hierarchy by which to list the processes: one that no process leaves by itself.
    fn census(&self) -> Option<&Dir> {
        let of = |name| self.dir(name);
        of("freezer")
            .or_else(|| of("devices"))
            .or_else(|| of("memory"))
            .or(self.places.first().map(|p| &p.dir))
    }
}

impl Cgroup for V1 {
    fn entry(&self, beside: Option<u32>) -> Result<Entry> {
        let unified = self.places.iter().find(|place| place.at.names.is_empty());
        let gone = beside.filter(|_| !self.is_there());
        let into = unified.map(|place| match gone {
            Some(pid) if !place.dir.has(tree::PROCS) => self.beside(place, pid)?.try_clone_fd(),
            _ => place.dir.try_clone_fd(),
        });
        let into = into.transpose()?;
        let procs = match (beside, self.entries.get()) {
            (None, _) => self.open_entries(None)?,
            (Some(_), _) if gone.is_some() => self.open_entries(beside)?,
            (Some(_), Some(entries)) => entries.clone(),
            (Some(_), None) => {
                let entries = self.open_entries(beside)?;
                self.entries.get_or_init(|| entries).clone()
            }
        };
        Ok(Entry { into, procs, hold: None })
    }

    fn directories(&self) -> Vec<(PathBuf, PathBuf)> {
        self.places.iter().map(|p| (p.at.mount.clone(), p.at.below.clone())).collect()
    }

    fn pids(&self) -> Result<Vec<u32>> {
        self.census().map_or(Ok(Vec::new()), tree::processes)
    }

    fn update<'a>(&'a self, resources: &'a Resources) -> Answer<'a, Result<()>> {
        Box::pin(async { self.set(resources) })
    }

    fn halves(&self) -> Result<Halves> {
        let Some(dir) = self.dir("cpu") else { return Ok(Halves::default()) };
        // -1 means no limit.
        let quota = dir.read_if("cpu.cfs_quota_us")?;
        let quota = quota.map(|text| text.trim().parse().map_or(Limit::Max, Limit::Value));
        let period = dir.read_if("cpu.cfs_period_us")?.and_then(|text| text.trim().parse().ok());
        Ok(Halves { quota, period, ..Halves::default() })
    }

    fn freeze(&self) -> Answer<'_, Result<()>> {
        Box::pin(async { freezer::freeze(self.need("freezer")?).await })
    }

    fn thaw(&self) -> Result<()> {
        tree::unless_absent(freezer::thaw(self.need("freezer")?))
    }

    fn frozen(&self) -> Result<bool> {
        self.dir("freezer").map_or(Ok(false), freezer::is_frozen)
    }

    fn thaw_to_die(&self, who: Dying) -> Result<()> {
        match self.place("freezer") {
            Some(place) => freezer::thaw_to_die(&place.dir, &place.at.mount, who),
            None => Ok(()),
        }
    }

    fn kill(&self) -> Result<()> {
        if let Some(unified) = self.unified() {
            // Hybrid, Linux 5.14: the kernel does it, even for processes that are being forked.
            if unified.write_if("cgroup.kill", "1")? {
                // Frozen processes die once they are thawed.
                return self.thaw_to_die(Dying::All);
            }
        }
        let Some(census) = self.census() else { return Ok(()) };
        if let Some(dir) = self.dir("freezer") {
            // Only reduces the number of rounds.
            let _ = freezer::begin(dir);
        }
        let killed = tree::kill_within(census);
        self.thaw_to_die(Dying::All)?;
        killed
    }

    fn stats(&self) -> Result<Stats> {
        if !self.places.iter().any(|p| p.dir.has(tree::PROCS)) {
            return Ok(Stats::V1(Box::default()));
        }
        self.collect().map(|stats| Stats::V1(Box::new(stats)))
    }

    fn watch_oom(&self) -> Result<Option<oom::Watch>> {
        self.dir("memory").map(oom::Watch::v1).transpose()
    }

    fn remove(&self) -> Answer<'_, Result<()>> {
        Box::pin(async {
            let mut first_error = Ok(());
            for place in &self.places {
                let result = tree::remove(place.dir.path()).await;
                if first_error.is_ok() {
                    first_error = result;
                }
            }
            first_error
        })
    }

    fn record(&self) -> Record {
        Record {
            v2: false,
            members: self.places.iter().map(|p| p.at.clone()).collect(),
            unit: None,
            made: Vec::new(),
        }
    }
}
