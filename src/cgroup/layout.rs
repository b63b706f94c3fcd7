//! Where the host's cgroup hierarchies are mounted, from /proc/self/mountinfo and /proc/self/cgroup
//! (proc_pid_mountinfo(5), cgroups(7)).

use std::path::{Path, PathBuf};

use crate::error::{Context, Error, Kind, Result};
use crate::mountinfo::{mounts, Mount};

/// One hierarchy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hierarchy {
    pub mount: PathBuf,
    /// v1: the controllers that share it, or `name=systemd`; empty for the unified hierarchy.
    pub names: Vec<String>,
    /// The shim's own cgroup below the mount point; relative paths of a spec start there.
    pub own: String,
}

impl Hierarchy {
    pub fn has(&self, name: &str) -> bool {
        self.names.iter().any(|n| n == name)
    }

    pub fn is_unified(&self) -> bool {
        self.names.is_empty()
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Layout {
    /// v1, or hybrid: then the unified hierarchy is included, without controllers.
    V1(Vec<Hierarchy>),
    V2(Hierarchy),
}

impl Layout {
    /// `proc` is `/proc`.
    pub fn probe(proc: &Path) -> Result<Layout> {
        let path = proc.join("self/mountinfo");
        let mountinfo = std::fs::read(&path).context(|| format!("read({path:?})"))?;
        Layout::probe_with(proc, &mountinfo)
    }

    /// Probes with a mountinfo that has been read already: on a host with many mounts that takes the kernel a while.
    pub(crate) fn probe_with(proc: &Path, mountinfo: &[u8]) -> Result<Layout> {
        let path = proc.join("self/cgroup");
        let cgroup = std::fs::read(&path).context(|| format!("read({path:?})"))?;
        Layout::parse(mountinfo, &String::from_utf8_lossy(&cgroup))
    }

    fn parse(mountinfo: &[u8], cgroup: &str) -> Result<Layout> {
        // Each line is `id:controllers:path`; the unified hierarchy's is `0::path`.
        let mine: Vec<(Vec<&str>, &str)> = cgroup
            .lines()
            .filter_map(|line| {
                let mut fields = line.splitn(3, ':');
                let (_, names, path) = (fields.next()?, fields.next()?, fields.next()?);
                Some((names.split(',').filter(|n| !n.is_empty()).collect(), path))
            })
            .collect();
        let mounts: Vec<Mount<'_>> = mounts(mountinfo).filter(Mount::is_cgroup).collect();
        let mut v1: Vec<Hierarchy> = Vec::new();
        let mut unified: Option<Hierarchy> = None;
        for (names, path) in &mine {
            let of_this = |m: &&Mount<'_>| {
                if names.is_empty() {
                    m.fstype == b"cgroup2"
                } else {
                    m.fstype == b"cgroup" && names.iter().all(|name| m.has(name))
                }
            };
            // A mount of a subtree (as in a container) counts only if there is no other.
            let whole = mounts.iter().find(|m| of_this(m) && m.root() == Path::new("/"));
            let Some(mount) = whole.or_else(|| mounts.iter().find(of_this)) else { continue };
            let hierarchy = Hierarchy {
                mount: mount.point(),
                names: names.iter().map(|n| (*n).to_owned()).collect(),
                own: below(path, &mount.root()),
            };
            if names.is_empty() {
                unified = Some(hierarchy);
            } else {
                v1.push(hierarchy);
            }
        }
        match unified {
            // A v1 controller may be mounted elsewhere on a v2 host.
            Some(unified) if v1.is_empty() || unified.mount == Path::new("/sys/fs/cgroup") => {
                Ok(Layout::V2(unified))
            }
            unified if !v1.is_empty() => {
                v1.extend(unified);
                Ok(Layout::V1(v1))
            }
            _ => Err(Error::new(Kind::Unsupported, "no cgroup hierarchy is mounted (/proc/self/mountinfo)")),
        }
    }

    pub fn is_v2(&self) -> bool {
        matches!(self, Layout::V2(_))
    }

    pub fn hierarchies(&self) -> &[Hierarchy] {
        match self {
            Layout::V1(hierarchies) => hierarchies,
            Layout::V2(hierarchy) => std::slice::from_ref(hierarchy),
        }
    }
}

/// Converts `path` to one below a mount of `root`.
fn below(path: &str, root: &Path) -> String {
    let relative = Path::new(path).strip_prefix(root).unwrap_or(Path::new(""));
    relative.to_string_lossy().into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    const HYBRID: &str = "\
31 23 0:28 / /sys/fs/cgroup rw,relatime - tmpfs tmpfs rw,mode=755
32 31 0:29 / /sys/fs/cgroup/cpu,cpuacct rw,relatime shared:5 - cgroup cgroup rw,cpu,cpuacct
33 31 0:30 /docker/x /mnt/in\\040a rw,relatime - cgroup cgroup rw,memory
35 31 0:30 / /sys/fs/cgroup/memory rw,relatime - cgroup cgroup rw,memory
40 31 0:37 / /sys/fs/cgroup/systemd rw - cgroup cgroup rw,xattr,release_agent=/x,name=systemd
41 31 0:38 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw";

    #[test]
    fn a_hybrid_host_is_v1_with_the_unified_hierarchy_at_the_end() {
        let cgroup = "9:name=systemd:/a\n4:memory:/b\n1:cpu,cpuacct:/\n2:pids:/\n0::/u";
        let layout = Layout::parse(HYBRID.as_bytes(), cgroup).unwrap();
        let Layout::V1(all) = layout else { panic!("{layout:?}") };
        let names: Vec<String> = all.iter().map(|h| h.names.join(",")).collect();
        assert_eq!(names, ["name=systemd", "memory", "cpu,cpuacct", ""]);
        assert_eq!(all[1].mount, Path::new("/sys/fs/cgroup/memory"));
        assert_eq!(all[1].own, "b");
        assert_eq!(all[3].mount, Path::new("/sys/fs/cgroup/unified"));
    }

    #[test]
    fn in_a_container_the_own_cgroup_is_below_the_mounted_one() {
        let mountinfo = b"33 31 0:30 /docker/x /mnt/in\\040a rw,relatime - cgroup cgroup rw,memory";
        let layout = Layout::parse(mountinfo, "4:memory:/docker/x/y").unwrap();
        assert_eq!(layout.hierarchies()[0].mount, Path::new("/mnt/in a"));
        assert_eq!(layout.hierarchies()[0].own, "y");
    }

    #[test]
    fn a_pure_v2_host() {
        let mountinfo = b"30 23 0:26 / /sys/fs/cgroup rw,nosuid - cgroup2 cgroup2 rw,nsdelegate\n\
            50 23 0:44 / /mnt/v1 rw - cgroup cgroup rw,misc";
        let layout = Layout::parse(mountinfo, "1:misc:/\n0::/system.slice/containerd.service\n").unwrap();
        assert!(layout.is_v2());
        assert_eq!(layout.hierarchies()[0].own, "system.slice/containerd.service");
    }

    #[test]
    fn a_host_without_cgroups_is_told_so() {
        let error = Layout::parse(b"1 1 0:1 / / rw - tmpfs tmpfs rw", "0::/").unwrap_err();
        assert_eq!(error.kind(), Kind::Unsupported);
    }
}
