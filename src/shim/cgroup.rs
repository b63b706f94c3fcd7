//! The cgroup of the shim itself (option `ShimCgroup`).

use crate::error::{invalid, Context, Error, Kind, Result};
use crate::mountinfo::{mounts, Mount};
use std::path::{Component, Path, PathBuf};

/// Moves this process into `path` in every hierarchy that has it. Like for the Go shim, it must exist.
pub(super) fn join(path: &str) -> Result<()> {
    let mountinfo = std::fs::read("/proc/self/mountinfo").context(|| "read(\"/proc/self/mountinfo\")")?;
    join_below(&hierarchies(&mountinfo), path)
}

fn join_below(hierarchies: &[PathBuf], path: &str) -> Result<()> {
    let below = Path::new(path.trim_start_matches('/'));
    if below.as_os_str().is_empty() || below.components().any(|c| !matches!(c, Component::Normal(_))) {
        return Err(invalid(format!("options: ShimCgroup {path:?} is not the path of a cgroup")));
    }
    let mut joined = false;
    for hierarchy in hierarchies {
        let folder = hierarchy.join(below);
        if !folder.is_dir() {
            continue;
        }
        let procs = folder.join("cgroup.procs");
        // 0 means the writing process.
        std::fs::write(&procs, "0").context(|| format!("options: ShimCgroup: write({procs:?}, \"0\")"))?;
        joined = true;
    }
    if joined {
        Ok(())
    } else {
        Err(Error::new(Kind::NotFound, format!("options: ShimCgroup {path:?} does not exist")))
    }
}

/// The mount points of all cgroup hierarchies, v1 and v2.
fn hierarchies(mountinfo: &[u8]) -> Vec<PathBuf> {
    mounts(mountinfo).filter(Mount::is_cgroup).map(|mount| mount.point()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_hierarchy_that_has_the_cgroup_is_joined() {
        let tree = tempfile::tempdir().unwrap();
        let [cpu, memory, none] = ["cpu", "memory", "none"].map(|name| tree.path().join(name));
        std::fs::create_dir_all(cpu.join("a/b")).unwrap();
        std::fs::create_dir_all(memory.join("a/b")).unwrap();
        std::fs::create_dir_all(&none).unwrap();
        let all = [cpu.clone(), memory.clone(), none];
        join_below(&all, "/a/b").unwrap();
        for joined in [cpu, memory] {
            assert_eq!(std::fs::read_to_string(joined.join("a/b/cgroup.procs")).unwrap(), "0");
        }
        assert_eq!(join_below(&all, "/x").unwrap_err().kind(), Kind::NotFound);
        for bad in ["", "/", "/a/../b"] {
            assert_eq!(join_below(&all, bad).unwrap_err().kind(), Kind::Invalid, "{bad:?}");
        }
    }

    #[test]
    fn mount_points_of_both_versions_are_found() {
        let mountinfo = b"30 24 0:26 / /sys/fs/cgroup ro - tmpfs tmpfs ro\n\
            31 30 0:27 / /sys/fs/cgroup/unified rw shared:9 - cgroup2 cgroup2 rw\n\
            32 30 0:28 / /sys/fs/cgroup/cpu,cpuacct rw shared:10 - cgroup cgroup rw,cpu\n";
        let found = hierarchies(mountinfo);
        assert_eq!(found, ["/sys/fs/cgroup/unified", "/sys/fs/cgroup/cpu,cpuacct"].map(PathBuf::from));
    }
}
