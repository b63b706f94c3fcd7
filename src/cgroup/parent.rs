//! A pod's cgroup: the parent of its containers' cgroups.
//!
//! It is usually the client's (`cgroup_parent`): the kubelet creates it, limits it and removes it. Containers come and
//! go in it, and so do directories (v1 hierarchies, a slice that systemd creates when it is needed), so each call looks
//! again.

use super::path::expand;
use super::tree::{self, Made};
use super::{oom, open_files, Cgroup, Dying, Entry, Halves, Host, Layout, Member, Record, Stats};
use crate::error::{invalid, Context, Error, Kind, Result};
use crate::spec::resources::Resources;
use crate::tasks::Answer;
use std::path::{Component, Path, PathBuf};

#[derive(Debug)]
pub struct Parent {
    host: Host,
    record: Record,
    /// We create it, and remove it.
    ours: bool,
    /// The directories of a client's cgroup that we have created, parents first.
    made: Vec<PathBuf>,
}

impl Parent {
    /// The client's cgroup: a path in every hierarchy, or a slice, which systemd creates with the first scope in it. A
    /// path that does not exist is created, as runc does for a pause container, and removed with the pod once it is
    /// empty.
    pub fn of_client(host: &Host, layout: &Layout, text: &str) -> Result<Parent> {
        let wrong = |what: &str| invalid(format!("linux.cgroup_parent: {text:?} {what}"));
        let slice = text.ends_with(".slice") && !text.contains('/');
        let below = if slice {
            expand(text).ok_or_else(|| wrong("is not the name of a slice"))?
        } else {
            plain(text).ok_or_else(|| wrong("is not the path of a cgroup"))?
        };
        let record = record(layout, &below);
        let mut made = Made::default();
        if !text.ends_with(".slice") {
            let there = record.members.iter().any(|m| m.mount.join(&m.below).is_dir());
            for Member { mount, below, .. } in &record.members {
                made.make(mount, below).context(|| "linux.cgroup_parent")?;
            }
            if !there {
                log::warn!("linux.cgroup_parent: cgroup {text:?} does not exist: creating it without limits");
            }
        }
        Ok(Parent { host: host.clone(), record, ours: false, made: made.keep() })
    }

    /// Our own cgroup, at `below` in each hierarchy: it comes into existence with the first cgroup in it.
    pub fn own(host: &Host, layout: &Layout, below: &Path) -> Parent {
        Parent { host: host.clone(), record: record(layout, below), ours: true, made: Vec::new() }
    }

    /// Reopens the cgroup of a record.
    pub(super) fn open(host: &Host, record: &Record) -> Parent {
        let made = record.made.clone();
        Parent {
            host: host.clone(),
            record: Record { made: Vec::new(), ..record.clone() },
            ours: false,
            made,
        }
    }

    fn files(&self) -> Result<Option<Box<dyn Cgroup>>> {
        open_files(&self.host, &self.record)
    }

    fn there(&self) -> Result<Box<dyn Cgroup>> {
        let gone = || Error::new(Kind::NotFound, "the pod's cgroup does not exist (yet)");
        self.files()?.filter(|files| !files.directories().is_empty()).ok_or_else(gone)
    }
}

fn record(layout: &Layout, below: &Path) -> Record {
    let member = |h: &super::layout::Hierarchy| Member {
        mount: h.mount.clone(),
        below: below.to_owned(),
        names: h.names.clone(),
    };
    let members = layout.hierarchies().iter().map(member).collect();
    Record { v2: layout.is_v2(), members, unit: None, made: Vec::new() }
}

/// Returns the path as a relative one; None if it has `..`, or is empty.
fn plain(text: &str) -> Option<PathBuf> {
    let parts = Path::new(text).components().filter(|c| !matches!(c, Component::RootDir | Component::CurDir));
    let path: Option<PathBuf> =
        parts.map(|c| matches!(c, Component::Normal(_)).then(|| c.as_os_str())).collect();
    path.filter(|path| !path.as_os_str().is_empty() && !text.contains('\0'))
}

impl Cgroup for Parent {
    fn entry(&self, _beside: Option<u32>) -> Result<Entry> {
        Err(Error::new(Kind::Bug, "no process is put into a pod's own cgroup"))
    }

    fn directories(&self) -> Vec<(PathBuf, PathBuf)> {
        self.record.members.iter().map(|m| (m.mount.clone(), m.below.clone())).collect()
    }

    fn pids(&self) -> Result<Vec<u32>> {
        self.files()?.map_or(Ok(Vec::new()), |files| files.pids())
    }

    fn update<'a>(&'a self, resources: &'a Resources) -> Answer<'a, Result<()>> {
        Box::pin(async { self.there()?.update(resources).await })
    }

    fn halves(&self) -> Result<Halves> {
        self.there()?.halves()
    }

    fn freeze(&self) -> Answer<'_, Result<()>> {
        Box::pin(async { self.there()?.freeze().await })
    }

    fn thaw(&self) -> Result<()> {
        self.there()?.thaw()
    }

    fn frozen(&self) -> Result<bool> {
        // The freezer's hierarchy is enough.
        let freezes = |member: &&Member| self.record.v2 || member.names.iter().any(|name| name == "freezer");
        let members = self.record.members.iter().filter(freezes).cloned().collect();
        let files = open_files(&self.host, &Record { members, ..self.record.clone() })?;
        files.map_or(Ok(false), |files| files.frozen())
    }

    /// Only containers' cgroups in it have processes.
    fn thaw_to_die(&self, _who: Dying) -> Result<()> {
        Ok(())
    }

    /// In a client's cgroup we may not kill everything.
    fn kill(&self) -> Result<()> {
        if self.ours {
            self.files()?.map_or(Ok(()), |files| files.kill())
        } else {
            Ok(())
        }
    }

    fn stats(&self) -> Result<Stats> {
        self.there()?.stats()
    }

    fn watch_oom(&self) -> Result<Option<oom::Watch>> {
        Ok(None)
    }

    fn remove(&self) -> Answer<'_, Result<()>> {
        Box::pin(async {
            if !self.ours {
                tree::remove_empty(&self.made);
                return Ok(());
            }
            match self.files()? {
                Some(files) => files.remove().await,
                None => Ok(()),
            }
        })
    }

    /// For a client's cgroup only what we have created: `delete` must not touch more.
    fn record(&self) -> Record {
        if self.ours {
            self.record.clone()
        } else {
            Record { members: Vec::new(), made: self.made.clone(), ..self.record.clone() }
        }
    }

    fn pod_record(&self) -> Record {
        self.record.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cgroup::layout::Hierarchy;
    use crate::tasks::block_on;

    fn tree() -> (tempfile::TempDir, Layout) {
        let dir = tempfile::tempdir().unwrap();
        let mount = dir.path().to_owned();
        (dir, Layout::V2(Hierarchy { mount, names: Vec::new(), own: String::new() }))
    }

    #[test]
    fn what_is_made_of_a_parent_goes_once_it_is_empty() {
        let (dir, layout) = tree();
        let host = Host::default();
        std::fs::create_dir(dir.path().join("there")).unwrap();
        let parent = Parent::of_client(&host, &layout, "/there/new/pod1").unwrap();
        assert!(dir.path().join("there/new/pod1").is_dir());
        // A parent that already existed stays, and so does one that still has another child.
        let second = Parent::of_client(&host, &layout, "/there/new/pod2").unwrap();
        block_on(Parent::of_client(&host, &layout, "/there/new/pod1").unwrap().remove()).unwrap();
        assert!(dir.path().join("there/new/pod1").is_dir());
        block_on(parent.remove()).unwrap();
        assert!(!dir.path().join("there/new/pod1").exists());
        block_on(second.remove()).unwrap();
        assert!(dir.path().join("there/new").is_dir(), "the first one's, which has left it");
        // By its record, as `delete` does.
        let record = Parent::of_client(&host, &layout, "/own/pod3").unwrap().record();
        assert!(record.members.is_empty());
        let found = crate::cgroup::open(&host, &record).unwrap().unwrap();
        found.kill().unwrap();
        block_on(found.remove()).unwrap();
        assert!(!dir.path().join("own").exists());
        let slice = Parent::of_client(&host, &layout, "/a.slice/a-b.slice").unwrap();
        assert!(!dir.path().join("a.slice").exists(), "systemd makes it");
        block_on(slice.remove()).unwrap();
    }

    #[test]
    fn a_parent_of_the_client_stays() {
        let (dir, layout) = tree();
        let host = Host::default();
        std::fs::create_dir_all(dir.path().join("kubepods/pod1")).unwrap();
        let parent = Parent::of_client(&host, &layout, "/kubepods/pod1").unwrap();
        block_on(parent.remove()).unwrap();
        assert!(dir.path().join("kubepods/pod1").is_dir());
        assert!(parent.record().members.is_empty());
        for wrong in ["/", "", "../x", "/a/../b", "a--b.slice"] {
            assert_eq!(
                Parent::of_client(&host, &layout, wrong).unwrap_err().kind(),
                Kind::Invalid,
                "{wrong}"
            );
        }
    }

    #[test]
    fn a_slice_is_where_systemd_has_it_and_may_come_later() {
        let (dir, layout) = tree();
        let parent = Parent::of_client(&Host::default(), &layout, "kubepods-pod1.slice").unwrap();
        assert_eq!(
            parent.directories(),
            [(dir.path().to_owned(), "kubepods.slice/kubepods-pod1.slice".into())]
        );
        assert_eq!(block_on(parent.freeze()).unwrap_err().kind(), Kind::NotFound);
    }
}
