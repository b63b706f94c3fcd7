//! cgroup v2 (the kernel's Documentation/admin-guide/cgroup-v2.rst).

mod freezer;
mod knobs;
mod stats;
#[cfg(test)]
mod tests;

pub(super) use knobs::{swap_alone, weight_of_block_io, weight_of_shares};

use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use super::devices::{filter, Policy};
use super::dir::Dir;
use super::layout::Hierarchy;
use super::path::CgroupsPath;
use super::tree::{self, Made};
use super::{beside, oom, unless_refused_to_user, Cgroup, Dying, Entry, Halves, Host, Member, Record, Stats};
use crate::error::{Context, Result};
use crate::spec::resources::{DeviceRule, Limit, Resources};
use crate::sync::Mutex;
use crate::sys::bpf;
use crate::tasks::Answer;

#[derive(Debug)]
pub(super) struct V2 {
    host: Host,
    at: Member,
    dir: Dir,
    /// The device program that this process has attached.
    program: Mutex<Option<OwnedFd>>,
    limits: Mutex<Limits>,
    hugepages: OnceLock<Vec<String>>,
}

/// As the spec counts. v2 has a file for swap alone, so a change of one needs the other.
#[derive(Clone, Copy, Debug, Default)]
struct Limits {
    memory: Option<Limit>,
    /// Includes memory.
    swap: Option<Limit>,
}

impl V2 {
    /// `adopted`: systemd has created it, and a process of ours is in it.
    pub(super) fn create(
        host: &Host,
        hierarchy: &Hierarchy,
        path: &CgroupsPath,
        resources: &Resources,
        adopted: bool,
    ) -> Result<V2> {
        let below = path.below(hierarchy);
        let mut made = Made::default();
        let (dir, fresh) = made.make(&hierarchy.mount, &below)?;
        if !fresh && !adopted {
            tree::refuse_busy(&dir)?;
        }
        // A new cgroup inherits the state of those above it.
        freezer::refuse_frozen(&dir)?;
        enable_controllers(&hierarchy.mount, &below, &dir)?;
        let at = Member { mount: hierarchy.mount.clone(), below, names: Vec::new() };
        let cgroup = V2::at(host, at, dir);
        cgroup.apply(resources, fresh, "linux.resources")?;
        let rules = resources.devices.as_deref().unwrap_or_default();
        unless_refused_to_user(host, cgroup.apply_devices(rules, "linux.resources.devices"))?;
        cgroup.apply_unified(resources, "linux.resources")?;
        made.keep();
        Ok(cgroup)
    }

    /// Returns None if it is gone.
    pub(super) fn open(host: &Host, member: &Member) -> Result<Option<V2>> {
        let dir = Dir::open_if(&member.mount.join(&member.below))?;
        Ok(dir.map(|dir| V2::at(host, member.clone(), dir)))
    }

    fn at(host: &Host, at: Member, dir: Dir) -> V2 {
        V2 {
            host: host.clone(),
            at,
            dir,
            program: Mutex::new(None),
            limits: Mutex::new(Limits::default()),
            hugepages: OnceLock::new(),
        }
    }

    fn set(&self, resources: &Resources) -> Result<()> {
        self.apply(resources, false, "resources")?;
        if let Some(rules) = &resources.devices {
            unless_refused_to_user(&self.host, self.apply_devices(rules, "resources.devices"))?;
        }
        self.apply_unified(resources, "resources")
    }

    /// Replaces the old program by a new one atomically: there is no moment without one.
    fn apply_devices(&self, rules: &[DeviceRule], field: &str) -> Result<()> {
        let policy = Policy::compile(rules);
        let cgroup = self.dir.as_fd();
        let named = |call: &str| format!("{field}: bpf({call}, {:?})", self.dir.path());
        let mut attached = self.program.lock();
        if policy.allows_all() {
            if let Some(old) = attached.take() {
                bpf::detach_device_program(cgroup, old.as_fd()).context(|| named("BPF_PROG_DETACH"))?;
            }
            return Ok(());
        }
        let program =
            bpf::load_device_program(&filter::program(&policy)).context(|| named("BPF_PROG_LOAD"))?;
        let old = attached.as_ref().map(|old| old.as_fd());
        bpf::attach_device_program(cgroup, program.as_fd(), old).context(|| named("BPF_PROG_ATTACH"))?;
        *attached = Some(program);
        Ok(())
    }

    /// Whether it exists, and its controllers are not enabled for cgroups below it.
    fn takes_processes(&self) -> Result<bool> {
        Ok(self.dir.read_if("cgroup.subtree_control")?.is_some_and(|given| given.trim().is_empty()))
    }

    /// Opens the cgroup that `pid` is in, inside this one or outside.
    fn beside(&self, pid: u32) -> Result<OwnedFd> {
        match beside::of(&self.host.proc, pid, &self.at) {
            Ok(dir) if freezer::is_freezing(&dir)? => Err(tree::frozen_beside(&dir, pid)),
            Ok(dir) => dir.try_clone_fd(),
            // The path is too long for the kernel to report.
            Err(e) if e.errno() == Some(libc::ENAMETOOLONG) => tree::find(&self.dir, pid)?.ok_or(e),
            Err(e) => Err(e),
        }
    }
}

/// Enables all controllers of the root for the cgroup, in `cgroup.subtree_control` of each cgroup above it.
///
/// It is no error here if a cgroup above refuses one (it has processes of its own, or we may not change it): a limit
/// without a file then reports it.
fn enable_controllers(mount: &Path, below: &Path, leaf: &Dir) -> Result<()> {
    let mut all = None;
    // More than once: systemd may disable a controller in the root that none of its own units needs, just before the
    // first of ours takes hold of it.
    for _ in 0..4 {
        let have = leaf.read("cgroup.controllers")?;
        let all = match &all {
            Some(all) => all,
            None => all.insert(Dir::open(mount)?.read("cgroup.controllers")?),
        };
        let missing: Vec<String> = all
            .split_ascii_whitespace()
            .filter(|name| !have.split_ascii_whitespace().any(|h| h == *name))
            .map(|name| format!("+{name}"))
            .collect();
        if missing.is_empty() {
            return settle(mount, below, leaf, &have);
        }
        pass_down(mount, below, &missing)?;
    }
    Ok(())
}

/// A file of each controller, starting with the last one that the kernel creates.
const LAST: [(&str, &str); 6] = [
    ("misc", "misc.max"),
    ("rdma", "rdma.max"),
    ("pids", "pids.max"),
    ("memory", "memory.max"),
    ("cpu", "cpu.weight"),
    ("cpuset", "cpuset.cpus"),
];

/// Waits until the files exist. The kernel lists a controller before it has created its files: if somebody else is
/// enabling it right now (for a sibling that is created at the same time), a write of ours waits until that is done.
fn settle(mount: &Path, below: &Path, leaf: &Dir, have: &str) -> Result<()> {
    let has = |name: &str| have.split_ascii_whitespace().any(|h| h == name);
    let Some((controller, _)) = LAST.iter().find(|(name, _)| has(name)).filter(|(_, file)| !leaf.has(file))
    else {
        return Ok(());
    };
    let parent = mount.join(below.parent().unwrap_or(Path::new("")));
    Dir::open(&parent)?.write("cgroup.subtree_control", &format!("+{controller}"))
}

fn pass_down(mount: &Path, below: &Path, controllers: &[String]) -> Result<()> {
    let file = "cgroup.subtree_control";
    let mut path = mount.to_owned();
    for part in below {
        let above = Dir::open(&path)?;
        // All or nothing: if one of them fails, enable them one by one.
        if above.write(file, &controllers.join(" ")).is_err() {
            for controller in controllers {
                let _ = above.write(file, controller);
            }
        }
        path.push(part);
    }
    Ok(())
}

impl Cgroup for V2 {
    fn entry(&self, beside: Option<u32>) -> Result<Entry> {
        let into = match beside {
            Some(pid) if !self.takes_processes()? => self.beside(pid)?,
            _ => self.dir.try_clone_fd()?,
        };
        Ok(Entry { into: Some(into), ..Entry::default() })
    }

    fn directories(&self) -> Vec<(PathBuf, PathBuf)> {
        vec![(self.at.mount.clone(), self.at.below.clone())]
    }

    fn pids(&self) -> Result<Vec<u32>> {
        tree::processes(&self.dir)
    }

    fn update<'a>(&'a self, resources: &'a Resources) -> Answer<'a, Result<()>> {
        Box::pin(async { self.set(resources) })
    }

    fn halves(&self) -> Result<Halves> {
        let (quota, period) = knobs::quota_and_period(&self.dir)?;
        let known = *self.limits.lock();
        let memory = match known.memory {
            None => knobs::limit_if(&self.dir, "memory.max")?,
            memory => memory,
        };
        Ok(Halves { quota, period, memory, swap: known.swap })
    }

    fn freeze(&self) -> Answer<'_, Result<()>> {
        Box::pin(freezer::freeze(&self.dir))
    }

    fn thaw(&self) -> Result<()> {
        tree::unless_absent(freezer::thaw(&self.dir))
    }

    fn frozen(&self) -> Result<bool> {
        freezer::is_frozen(&self.dir)
    }

    /// A frozen process on v2 does die (Linux 5.2, "cgroup: cgroup v2 freezer").
    fn thaw_to_die(&self, _who: Dying) -> Result<()> {
        Ok(())
    }

    fn kill(&self) -> Result<()> {
        // Linux 5.14; even for frozen processes, and those that are being forked.
        if self.dir.write_if("cgroup.kill", "1")? || !self.dir.has(tree::PROCS) {
            return Ok(());
        }
        // Only reduces the number of rounds.
        let _ = freezer::begin(&self.dir);
        let killed = tree::kill_within(&self.dir);
        self.thaw()?;
        killed
    }

    fn stats(&self) -> Result<Stats> {
        if !self.dir.has(tree::PROCS) {
            return Ok(Stats::V2(Box::default()));
        }
        self.collect().map(|stats| Stats::V2(Box::new(stats)))
    }

    fn watch_oom(&self) -> Result<Option<oom::Watch>> {
        if self.dir.has("memory.events") {
            oom::Watch::v2(&self.dir).map(Some)
        } else {
            Ok(None)
        }
    }

    fn remove(&self) -> Answer<'_, Result<()>> {
        Box::pin(tree::remove(self.dir.path()))
    }

    fn record(&self) -> Record {
        Record { v2: true, members: vec![self.at.clone()], unit: None, made: Vec::new() }
    }
}
