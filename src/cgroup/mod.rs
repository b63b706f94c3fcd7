//! A container's cgroup, on v1, v2 and hybrid hosts, by files or through systemd.
//!
//! [`Cgroup`] hides everything that touches a cgroup tree; callers never ask for the version. Operations that wait for
//! systemd or for the container's processes are futures; the others ask the kernel, which answers at once. Mount points
//! come in through [`Layout`], and the host's other files through [`Host`], so that tests can use a temporary tree.

mod beside;
mod devices;
mod dir;
#[cfg(test)]
mod fake;
pub(crate) mod layout;
mod nowhere;
pub mod oom;
mod parent;
pub(crate) mod path;
mod read;
pub mod stats;
mod systemd;
mod tree;
mod v1;
mod v2;
mod walk;

use std::collections::BTreeMap;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::atomic::AtomicBool;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

pub use layout::Layout;
pub use parent::Parent;
pub use path::CgroupsPath;
pub use stats::Stats;

pub use self::systemd::PlaceHolder;
use self::systemd::Scope;
use crate::error::{Error, Kind, Result};
use crate::spec::resources::{Limit, Resources};
use crate::tasks::Answer;

/// How the child of a clone enters the cgroup. Keep it until the child is in, then drop it: with systemd it holds the
/// scope open.
#[derive(Debug, Default)]
pub struct Entry {
    /// v2 and hybrid: the directory in the unified hierarchy, for CLONE_INTO_CGROUP.
    pub into: Option<OwnedFd>,
    /// v1 and hybrid: a file of each hierarchy, open for writing, to each of which the child itself writes `0`. None of
    /// them has the number of a standard stream.
    pub procs: Vec<Arc<OwnedFd>>,
    /// Keeps a systemd scope alive while no other process is in it.
    pub hold: Option<PlaceHolder>,
}

/// The cgroup of a container or pod. Dropping it leaves the kernel's cgroup alone; `remove` removes that.
pub trait Cgroup: Send + Sync {
    /// `beside` is the container's first process, for an exec. If the container has delegated its controllers to child
    /// cgroups, no process may be in their parent (v2), and if it has left the cgroup, that may be gone; then the entry
    /// is the cgroup of `beside`.
    fn entry(&self, beside: Option<u32>) -> Result<Entry>;
    /// Whether it is one of the container's, and not that of the shim, for want of another.
    fn is_own(&self) -> bool {
        true
    }
    /// The directory below each hierarchy's mount point: `(mount point, path below it)`; one pair on v2.
    fn directories(&self) -> Vec<(PathBuf, PathBuf)>;
    /// All processes in it and below, as pids in the shim's pid namespace.
    fn pids(&self) -> Result<Vec<u32>>;
    /// Sets limits. One update at a time: it writes based on what it reads.
    fn update<'a>(&'a self, resources: &'a Resources) -> Answer<'a, Result<()>>;
    /// The current limits of which an update may name only one half.
    fn halves(&self) -> Result<Halves>;
    /// Freezes it; resolves once the kernel reports everything frozen, or thaws it and fails after a time limit.
    fn freeze(&self) -> Answer<'_, Result<()>>;
    /// Thaws it; Ok if it is gone.
    fn thaw(&self) -> Result<()>;
    /// Whether the kernel has frozen it, whoever asked for it, through it or a cgroup above it. One small read; false
    /// if it is gone.
    fn frozen(&self) -> Result<bool>;
    /// Called after a SIGKILL: makes sure that no freezer keeps its targets from dying.
    fn thaw_to_die(&self, who: Dying) -> Result<()>;
    /// Sends SIGKILL to everything in it and below, even if frozen. Ok if it is gone.
    fn kill(&self) -> Result<()>;
    /// Without numbers if it is gone, since systemd removes it with its last process: a container that has just ended
    /// still gets an answer.
    fn stats(&self) -> Result<Stats>;
    /// None if the host does not account memory.
    fn watch_oom(&self) -> Result<Option<oom::Watch>>;
    /// Removes it and everything below it; retries for a moment while dying processes are still in it. Ok if it is
    /// gone.
    fn remove(&self) -> Answer<'_, Result<()>>;
    /// What [`open`] needs to find and remove it again.
    fn record(&self) -> Record;
    /// Like `record`, but even if it is not ours to remove: for thawing it.
    fn pod_record(&self) -> Record {
        self.record()
    }
}

/// Limits that are one value to the kernel or systemd, and two to the spec. None: the value is unknown, or there is no
/// such file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Halves {
    pub quota: Option<Limit>,
    pub period: Option<u64>,
    pub memory: Option<Limit>,
    /// Includes memory.
    pub swap: Option<Limit>,
}

/// The target of a SIGKILL.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dying {
    /// Everything in the cgroup and below: it is thawed.
    All,
    /// One process; the others stay as they are.
    One(u32),
}

/// Host paths outside the cgroup trees.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Host {
    /// `/proc`
    pub proc: PathBuf,
    /// `/run`
    pub run: PathBuf,
}

impl Default for Host {
    fn default() -> Self {
        Host { proc: "/proc".into(), run: "/run".into() }
    }
}

/// A cgroup's place in one hierarchy.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Member {
    pub mount: PathBuf,
    pub below: PathBuf,
    /// v1: controllers or `name=systemd`; empty for the unified hierarchy.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub names: Vec<String>,
}

/// A cgroup on disk, for the `delete` verb, which runs without the server.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    pub v2: bool,
    pub members: Vec<Member>,
    /// The systemd unit that owns it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unit: Option<String>,
    /// Directories that are removed only if they are empty; parents come first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub made: Vec<PathBuf>,
}

impl Record {
    /// Removes the directories created for a cgroup that is not ours, if they are empty.
    pub(crate) fn unmake(&self) {
        tree::remove_empty(&self.made);
    }
}

/// Creates the cgroup with its limits, a scope also with what annotations say of it. If that fails, or the future is dropped while `asked` is not set, what was
/// created is removed again.
pub async fn create(
    host: &Host,
    layout: &Layout,
    path: &CgroupsPath,
    resources: &Resources,
    annotations: &BTreeMap<String, String>,
    asked: &AtomicBool,
) -> Result<Box<dyn Cgroup>> {
    match path {
        CgroupsPath::Systemd(unit) => {
            Ok(Box::new(Scope::create(host, layout, unit, resources, annotations, asked).await?))
        }
        _ => by_files(host, layout, path, resources, false),
    }
}

/// Creates the cgroup of a container whose specification names none: in the namespace's, else beside or below the
/// shim's own, which an ordinary user may have been given, else nowhere.
pub fn create_unnamed(
    host: &Host,
    layout: &Layout,
    namespace: &str,
    id: &str,
    resources: &Resources,
) -> Result<Box<dyn Cgroup>> {
    let create = |path: &str| by_files(host, layout, &CgroupsPath::parse(path, false, id)?, resources, false);
    let refused = |error: &Error| nowhere::refused_to_user(host, error);
    let created = create(&format!("/{namespace}/{id}"));
    match created.or_else(|error| if refused(&error) { create(id) } else { Err(error) }) {
        Err(error) if refused(&error) => Ok(Box::new(nowhere::Nowhere::create(layout, resources, error)?)),
        created => created,
    }
}

/// Ignores, as runc does, that root of a user namespace cannot restrict devices: it cannot create any.
fn unless_refused_to_user(host: &Host, restricted: Result<()>) -> Result<()> {
    restricted.or_else(|error| if nowhere::refused_to_user(host, &error) { Ok(()) } else { Err(error) })
}

fn by_files(
    host: &Host,
    layout: &Layout,
    path: &CgroupsPath,
    resources: &Resources,
    adopted: bool,
) -> Result<Box<dyn Cgroup>> {
    Ok(match layout {
        Layout::V1(hierarchies) => Box::new(v1::V1::create(host, hierarchies, path, resources, adopted)?),
        Layout::V2(hierarchy) => Box::new(v2::V2::create(host, hierarchy, path, resources, adopted)?),
    })
}

/// Opens the cgroup of a record. If it is gone, that is not an error: there is nothing to kill or remove.
pub fn open(host: &Host, record: &Record) -> Result<Option<Box<dyn Cgroup>>> {
    if !record.made.is_empty() {
        return Ok(Some(Box::new(Parent::open(host, record))));
    }
    let files = open_files(host, record)?;
    Ok(match &record.unit {
        Some(unit) => Some(Box::new(Scope::open(host, unit, record.v2, files))),
        None => files,
    })
}

fn open_files(host: &Host, record: &Record) -> Result<Option<Box<dyn Cgroup>>> {
    Ok(match (record.v2, record.members.first()) {
        (true, Some(member)) => match v2::V2::open(host, member)? {
            Some(cgroup) => Some(Box::new(cgroup)),
            None => None,
        },
        (false, Some(_)) => Some(Box::new(v1::V1::open(host, &record.members)?)),
        (_, None) => None,
    })
}

/// `checkBeforeUpdate`: a limit below the current usage would only kill.
fn refuse_below_usage(limit: u64, usage: u64) -> Result<()> {
    if usage <= limit {
        return Ok(());
    }
    Err(Error::new(Kind::Invalid, format!("{limit} is below the {usage} bytes that are in use")))
}

/// Returns false for an EINVAL that a later write may fix.
fn accepted(result: Result<()>, later: bool) -> Result<bool> {
    match result {
        Ok(()) => Ok(true),
        Err(e) if later && e.errno() == Some(libc::EINVAL) => Ok(false),
        Err(e) => Err(e),
    }
}
