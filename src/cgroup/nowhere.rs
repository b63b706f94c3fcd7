//! No cgroup at all: what a container gets if the shim runs in a user namespace whose root may create none, and the
//! specification asks for nothing that needs one. As in runc, the container then stays in the shim's cgroup.

use super::layout::Hierarchy;
use super::{oom, Cgroup, Dying, Entry, Halves, Host, Layout, Record, Stats};
use crate::error::{Error, Kind, Result};
use crate::spec::resources::{BlockIo, Cpu, Memory, Network, Resources};
use crate::tasks::Answer;
use std::path::PathBuf;

#[derive(Debug)]
pub(super) struct Nowhere {
    v2: bool,
    /// The shim's own cgroup.
    own: Vec<(PathBuf, PathBuf)>,
}

impl Nowhere {
    /// `refused` is why there is no cgroup.
    pub(super) fn create(layout: &Layout, resources: &Resources, refused: Error) -> Result<Nowhere> {
        match limit(resources) {
            None => {
                log::info!("the container has no cgroup of its own: {refused}");
                let own = |hierarchy: &Hierarchy| (hierarchy.mount.clone(), hierarchy.own.clone().into());
                Ok(Nowhere { v2: layout.is_v2(), own: layout.hierarchies().iter().map(own).collect() })
            }
            Some(name) => {
                Err(refused.context(format!("linux.resources.{name}: the container has no cgroup")))
            }
        }
    }
}

/// Returns a limit that is asked for. Device rules are none: whoever is refused a cgroup can create no device either.
fn limit(resources: &Resources) -> Option<&'static str> {
    let asked = [
        ("memory", resources.memory != Memory::default()),
        ("cpu", resources.cpu != Cpu::default()),
        ("pids", resources.pids.is_some()),
        ("blockIO", resources.block_io != BlockIo::default()),
        ("hugepageLimits", !resources.hugepages.is_empty()),
        ("network", resources.network != Network::default()),
        ("rdma", !resources.rdma.is_empty()),
        ("unified", !resources.unified.is_empty()),
    ];
    asked.into_iter().find_map(|(name, asked)| asked.then_some(name))
}

/// Whether the kernel refused something only because this process is root of a user namespace, not of the host.
pub(super) fn refused_to_user(host: &Host, error: &Error) -> bool {
    matches!(error.errno(), Some(libc::EACCES | libc::EPERM | libc::EROFS)) && in_user_namespace(host)
}

/// The host's own namespace maps every id to itself (user_namespaces(7)).
pub(super) fn in_user_namespace(host: &Host) -> bool {
    let map = std::fs::read_to_string(host.proc.join("self/uid_map"));
    map.is_ok_and(|map| map.split_whitespace().ne(["0", "0", "4294967295"]))
}

fn none(what: &str) -> Error {
    Error::new(
        Kind::State,
        format!("{what}: the container has no cgroup, which a user namespace may not create"),
    )
}

impl Cgroup for Nowhere {
    fn entry(&self, _beside: Option<u32>) -> Result<Entry> {
        Ok(Entry::default())
    }

    fn is_own(&self) -> bool {
        false
    }

    fn directories(&self) -> Vec<(PathBuf, PathBuf)> {
        self.own.clone()
    }

    fn pids(&self) -> Result<Vec<u32>> {
        Ok(Vec::new())
    }

    fn update<'a>(&'a self, resources: &'a Resources) -> Answer<'a, Result<()>> {
        let updated = limit(resources).map_or(Ok(()), |name| Err(none(&format!("resources.{name}"))));
        Box::pin(std::future::ready(updated))
    }

    fn halves(&self) -> Result<Halves> {
        Ok(Halves::default())
    }

    fn freeze(&self) -> Answer<'_, Result<()>> {
        Box::pin(std::future::ready(Err(none("pause"))))
    }

    fn thaw(&self) -> Result<()> {
        Ok(())
    }

    fn frozen(&self) -> Result<bool> {
        Ok(false)
    }

    fn thaw_to_die(&self, _who: Dying) -> Result<()> {
        Ok(())
    }

    fn kill(&self) -> Result<()> {
        Ok(())
    }

    fn stats(&self) -> Result<Stats> {
        Ok(if self.v2 { Stats::V2(Box::default()) } else { Stats::V1(Box::default()) })
    }

    fn watch_oom(&self) -> Result<Option<oom::Watch>> {
        Ok(None)
    }

    fn remove(&self) -> Answer<'_, Result<()>> {
        Box::pin(std::future::ready(Ok(())))
    }

    fn record(&self) -> Record {
        Record { v2: self.v2, members: Vec::new(), unit: None, made: Vec::new() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spec::resources::Limit;

    fn refused() -> Error {
        Error::system("mkdir(\"/sys/fs/cgroup/c1\")", libc::EACCES)
    }

    fn host(uid_map: Option<&str>) -> (tempfile::TempDir, Host) {
        let proc = tempfile::tempdir().unwrap();
        std::fs::create_dir(proc.path().join("self")).unwrap();
        if let Some(map) = uid_map {
            std::fs::write(proc.path().join("self/uid_map"), map).unwrap();
        }
        let host = Host { proc: proc.path().to_owned(), ..Host::default() };
        (proc, host)
    }

    #[test]
    fn only_a_user_namespace_does_without() {
        for (map, nested) in [
            (Some("         0          0 4294967295\n"), false),
            (Some("         0       1000          1\n         1     100000      65536\n"), true),
            (Some("         0          0      65536\n"), true),
            (None, false),
        ] {
            let (_proc, host) = host(map);
            assert_eq!(refused_to_user(&host, &refused()), nested, "{map:?}");
            assert!(!refused_to_user(&host, &Error::system("mkdir", libc::ENOSPC)), "{map:?}");
        }
    }

    #[test]
    fn a_limit_without_a_cgroup_is_refused_by_its_name() {
        let own = Hierarchy { mount: "/m".into(), names: Vec::new(), own: "a/b".into() };
        let layout = Layout::V2(own);
        let without = Nowhere::create(&layout, &Resources::default(), refused()).unwrap();
        assert_eq!(without.directories(), [("/m".into(), "a/b".into())]);
        let resources = Resources { pids: Some(Limit::Value(7)), ..Resources::default() };
        let error = Nowhere::create(&layout, &resources, refused()).unwrap_err().to_string();
        assert!(error.starts_with("linux.resources.pids: ") && error.contains("EACCES"), "{error}");
    }
}
