//! A container's cgroup, on v1, v2 and hybrid hosts, by files or through systemd.
//!
//! Everything that touches a cgroup tree is behind [`Cgroup`]; nobody above asks which version it is. What waits for
//! systemd, or for processes of the container, is a future; the rest asks the kernel, which answers at once. Mount
//! points come in through [`Layout`], and the host's other files through [`Host`], so that tests run on a
//! temporary tree.

mod beside;
mod devices;
mod dir;
#[cfg(test)]
mod fake;
pub(crate) mod layout;
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

use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::atomic::AtomicBool;

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

/// How the child of a clone gets into the cgroup. Keep it until the child is in (and then drop it): with
/// systemd it holds the scope open.
#[derive(Debug, Default)]
pub struct Entry {
    /// v2 and hybrid: the directory in the unified hierarchy, for CLONE_INTO_CGROUP.
    pub into: Option<OwnedFd>,
    /// v1 and hybrid: a file of each hierarchy, open for writing; the child writes `0` to each, itself.
    pub procs: Vec<OwnedFd>,
    /// What keeps a systemd scope alive while nobody else is in it.
    pub hold: Option<PlaceHolder>,
}

/// A container's (or a pod's) cgroup. Dropping it leaves the kernel's cgroup alone: `remove` ends it.
pub trait Cgroup: Send + Sync {
    /// `beside` is the container's first process, for an exec: where the container has given its controllers to
    /// cgroups of its own, no process may be in the one above them (v2), and where it has left the cgroup, that may be
    /// gone. Then the entry is where `beside` is.
    fn entry(&self, beside: Option<u32>) -> Result<Entry>;
    /// The directory below each hierarchy's mount point: `(mount point, path below it)`; one pair on v2.
    fn directories(&self) -> Vec<(PathBuf, PathBuf)>;
    /// All processes in it and below, in the shim's pid namespace.
    fn pids(&self) -> Result<Vec<u32>>;
    /// One at a time: what it reads, it writes.
    fn update<'a>(&'a self, resources: &'a Resources) -> Answer<'a, Result<()>>;
    /// What is set now of what an update may name a half of.
    fn halves(&self) -> Result<Halves>;
    /// Until the kernel says that all is frozen (or a time limit is over: an error, and it is thawed).
    fn freeze(&self) -> Answer<'_, Result<()>>;
    /// Ok where it is gone.
    fn thaw(&self) -> Result<()>;
    /// Whether the kernel has frozen it, by whomever and through whichever cgroup above it. One small read; false where it
    /// is gone.
    fn frozen(&self) -> Result<bool>;
    /// After a SIGKILL: nothing that is frozen keeps from dying whom it was for.
    fn thaw_to_die(&self, who: Dying) -> Result<()>;
    /// SIGKILL to everything in it and below, also when frozen. Ok where it is gone.
    fn kill(&self) -> Result<()>;
    /// Without a number where it is gone, as systemd removes it with its last process: who has just ended has an answer.
    fn stats(&self) -> Result<Stats>;
    /// None where the host does not count memory.
    fn watch_oom(&self) -> Result<Option<oom::Watch>>;
    /// Removes it with what is below it; retries for a moment while dying processes are still in it. Ok where
    /// it is gone.
    fn remove(&self) -> Answer<'_, Result<()>>;
    /// What [`open`] needs to find it again, and to remove it.
    fn record(&self) -> Record;
    /// The same also where it is not ours to remove: to thaw it.
    fn place(&self) -> Record {
        self.record()
    }
}

/// Limits that are one thing to the kernel or to systemd, and two to the spec. None: nothing is known, or there is no
/// such file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Halves {
    pub quota: Option<Limit>,
    pub period: Option<u64>,
    pub memory: Option<Limit>,
    /// With memory.
    pub swap: Option<Limit>,
}

/// Whom a SIGKILL was for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dying {
    /// Everything in the cgroup and below: it is thawed.
    All,
    /// A process; the others stay as they are.
    One(u32),
}

/// Where the host keeps what is not in a cgroup tree.
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
    /// The systemd unit that it belongs to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unit: Option<String>,
    /// Directories that go where they are empty, and only then; those above come first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub made: Vec<PathBuf>,
}

impl Record {
    /// Removes what was made on the way to a cgroup that is not ours, as far as it is empty.
    pub(crate) fn unmake(&self) {
        tree::remove_empty(&self.made);
    }
}

/// Makes the cgroup, with its limits. What an error leaves half-made is removed again, and so it is where this is dropped
/// while `asked` is not set.
pub async fn create(
    host: &Host,
    layout: &Layout,
    path: &CgroupsPath,
    resources: &Resources,
    asked: &AtomicBool,
) -> Result<Box<dyn Cgroup>> {
    match path {
        CgroupsPath::Systemd(unit) => {
            Ok(Box::new(Scope::create(host, layout, unit, resources, asked).await?))
        }
        _ => by_files(host, layout, path, resources, false),
    }
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

/// The cgroup of a record; one that is gone is fine, and then has nothing to kill or remove.
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

/// `checkBeforeUpdate`: a limit that is below what is used now would only kill.
fn refuse_below_usage(limit: u64, usage: u64) -> Result<()> {
    if usage <= limit {
        return Ok(());
    }
    Err(Error::new(Kind::Invalid, format!("{limit} is below the {usage} bytes that are in use")))
}

/// False for an EINVAL that a later write may cure.
fn accepted(result: Result<()>, later: bool) -> Result<bool> {
    match result {
        Ok(()) => Ok(true),
        Err(e) if later && e.errno() == Some(libc::EINVAL) => Ok(false),
        Err(e) => Err(e),
    }
}
