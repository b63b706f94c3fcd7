//! The facts of the host that a plan depends on: read once, when the shim starts.

use crate::cgroup::{layout, Layout};
use crate::error::{Context, Error, Kind, Result};
use crate::mountinfo::{mounts, Mount};
use crate::plan::{AppArmor, CgroupMounts, Hierarchy, Host};
use crate::sys::fd::{self, AsFd};
use std::ffi::CString;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

impl Host {
    /// `root` is `/`; tests use a tree of their own with proc and sys below it.
    pub fn probe(root: &Path) -> Result<Host> {
        let mountinfo = mountinfo(root)?;
        Host::probe_with(root, &mountinfo, &Layout::probe_with(&root.join("proc"), &mountinfo)?)
    }

    /// Probes with a mountinfo that has been read already: on a host with many mounts that takes the kernel a while.
    pub(crate) fn probe_with(root: &Path, mountinfo: &[u8], layout: &Layout) -> Result<Host> {
        Ok(Host {
            cgroups: cgroups(mountinfo, layout),
            last_cap: last_cap(root)?,
            page_size: page_size(),
            apparmor: apparmor(root),
            selinux: root.join("sys/fs/selinux/enforce").exists(),
            kcore: root.join("proc/kcore").exists(),
            resctrl: resctrl(mountinfo).into_iter().find(|point| is_resctrl(point)),
        })
    }
}

impl Host {
    /// Where a whole procfs or sysfs is mounted, a lower mount first: see [`Step::Detach`](crate::plan::Step).
    pub fn revealing(root: &Path) -> Result<Vec<PathBuf>> {
        let mountinfo = mountinfo(root)?;
        let whole = mounts(&mountinfo).filter(|mount| {
            [&b"proc"[..], b"sysfs"].contains(&mount.fstype) && mount.root() == Path::new("/")
        });
        Ok(whole.map(|mount| mount.point()).collect())
    }
}

fn mountinfo(root: &Path) -> Result<Vec<u8>> {
    let path = root.join("proc/self/mountinfo");
    std::fs::read(&path).context(|| format!("read({path:?})"))
}

fn page_size() -> usize {
    // sysconf(3) cannot fail for this name.
    nix::unistd::sysconf(nix::unistd::SysconfVar::PAGE_SIZE)
        .ok()
        .flatten()
        .and_then(|size| usize::try_from(size).ok())
        .unwrap_or(4096)
}

fn last_cap(root: &Path) -> Result<u8> {
    let path = root.join("proc/sys/kernel/cap_last_cap");
    let text = std::fs::read_to_string(&path).context(|| format!("read({path:?})"))?;
    text.trim()
        .parse()
        .map_err(|e| Error::caused_by(Kind::System, format!("{path:?} has {:?}", text.trim()), e))
}

fn apparmor(root: &Path) -> AppArmor {
    let enabled = std::fs::read(root.join("sys/module/apparmor/parameters/enabled"));
    if !enabled.is_ok_and(|text| text.first() == Some(&b'Y')) {
        AppArmor::Off
    } else if root.join("proc/thread-self/attr/apparmor/exec").exists() {
        AppArmor::Own
    } else {
        AppArmor::Shared
    }
}

/// Where all of resctrl may be mounted, the usual place first: others may be a bind of a single group.
fn resctrl(mountinfo: &[u8]) -> Vec<PathBuf> {
    let whole = mounts(mountinfo)
        .filter(|mount| mount.fstype == b"resctrl" && mount.root() == Path::new("/"))
        .map(|mount| mount.point());
    let (usual, others): (Vec<_>, Vec<_>) = whole.partition(|point| point == Path::new("/sys/fs/resctrl"));
    [usual, others].concat()
}

/// Whether nothing else covers it.
fn is_resctrl(point: &Path) -> bool {
    /// RDTGROUP_SUPER_MAGIC in linux/magic.h.
    const MAGIC: i64 = 0x765_5821;
    let path = CString::new(point.as_os_str().as_bytes()).unwrap_or_default();
    let opened = fd::open(&path, libc::O_PATH | libc::O_DIRECTORY, 0);
    opened.and_then(|point| fd::filesystem(point.as_fd())) == Ok(MAGIC)
}

/// The hierarchies in which containers' cgroups are created, in mountinfo order.
fn cgroups(mountinfo: &[u8], layout: &Layout) -> CgroupMounts {
    let Layout::V1(all) = layout else { return CgroupMounts::V2 };
    let points: Vec<PathBuf> =
        mounts(mountinfo).filter(Mount::is_cgroup).map(|mount| mount.point()).collect();
    let hierarchy =
        |h: &layout::Hierarchy| Hierarchy { mountpoint: h.mount.clone(), controllers: h.names.clone() };
    let mut v1: Vec<Hierarchy> = all.iter().filter(|h| !h.is_unified()).map(hierarchy).collect();
    v1.sort_by_key(|h| points.iter().position(|point| *point == h.mountpoint));
    CgroupMounts::V1(v1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn host(mountinfo: &str) -> tempfile::TempDir {
        let root = tempfile::tempdir().expect("a temporary directory");
        let write = |path: &str, text: &str| {
            let path = root.path().join(path);
            std::fs::create_dir_all(path.parent().expect("not the root")).expect("made");
            std::fs::write(path, text).expect("written");
        };
        write("proc/self/mountinfo", mountinfo);
        write("proc/self/cgroup", "2:name=systemd:/\n1:cpu,cpuacct:/\n0::/\n");
        write("proc/sys/kernel/cap_last_cap", "40\n");
        root
    }

    #[test]
    fn a_hybrid_host_is_v1() {
        let root = host(
            "33 32 0:30 / /sys/fs/cgroup/cpu,cpuacct rw shared:9 - cgroup cgroup rw,cpu,cpuacct\n\
             34 32 0:31 / /sys/fs/cgroup/systemd rw - cgroup cgroup rw,xattr,name=systemd\n\
             35 32 0:30 / /mnt/a\\040copy rw - cgroup cgroup rw,cpu,cpuacct\n\
             36 32 0:32 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n",
        );
        let CgroupMounts::V1(hierarchies) = Host::probe(root.path()).expect("readable").cgroups else {
            panic!("not v1");
        };
        let seen: Vec<_> = hierarchies.iter().map(|h| (h.name(), h.controllers.join(","))).collect();
        assert_eq!(seen, [("cpu,cpuacct", "cpu,cpuacct".into()), ("systemd", "name=systemd".into())]);
    }

    #[test]
    fn resctrl_is_where_all_of_it_is_mounted() {
        let mountinfo = "40 1 0:40 / /mnt/resctrl rw - resctrl resctrl rw\n\
                         41 1 0:40 /gold /mnt/gold rw - resctrl resctrl rw\n\
                         42 1 0:41 / /sys/fs/resctrl rw - tmpfs tmpfs rw\n\
                         43 1 0:40 / /sys/fs/resctrl rw - resctrl resctrl rw\n";
        let expected = ["/sys/fs/resctrl", "/mnt/resctrl"].map(PathBuf::from);
        assert_eq!(resctrl(mountinfo.as_bytes()), expected);
        assert!(!is_resctrl(Path::new("/sys")) && !is_resctrl(Path::new("/missing")));
    }

    #[test]
    fn a_unified_host_is_v2() {
        let root = host("30 23 0:26 / /sys/fs/cgroup rw,nosuid - cgroup2 cgroup2 rw,nsdelegate\n");
        let host = Host::probe(root.path()).expect("readable");
        assert_eq!((host.cgroups, host.last_cap), (CgroupMounts::V2, 40));
    }

    #[test]
    fn a_part_of_a_procfs_reveals_nothing() {
        let root = host(
            "20 1 0:5 / /proc rw shared:5 - proc proc rw\n\
             21 1 0:6 / /sys rw - sysfs none rw\n\
             22 20 0:5 /sys /proc/sys ro - proc proc rw\n\
             23 1 0:7 / /tmp rw - tmpfs proc rw\n\
             24 1 0:8 / /srv/a\\040root/proc rw - proc none rw\n",
        );
        let seen = Host::revealing(root.path()).expect("readable");
        assert_eq!(seen, ["/proc", "/sys", "/srv/a root/proc"].map(PathBuf::from));
    }
}
