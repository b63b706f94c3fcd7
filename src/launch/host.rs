//! The facts of the host that a plan depends on: read once, when the shim starts.

use crate::error::{Context, Error, Kind, Result};
use crate::plan::{AppArmor, CgroupMounts, Hierarchy, Host};
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

impl Host {
    /// `root` is `/`; tests have a tree of their own with proc and sys below it.
    pub fn probe(root: &Path) -> Result<Host> {
        Host::probe_with(root, read(&root.join("proc/self/mountinfo"))?.as_bytes())
    }

    /// With a mountinfo that has been read: on a host with many mounts that takes the kernel a while.
    pub fn probe_with(root: &Path, mountinfo: &[u8]) -> Result<Host> {
        Ok(Host {
            cgroups: cgroups(root, &String::from_utf8_lossy(mountinfo)),
            last_cap: last_cap(root)?,
            page_size: page_size(),
            apparmor: apparmor(root),
            selinux: root.join("sys/fs/selinux/enforce").exists(),
            kcore: root.join("proc/kcore").exists(),
        })
    }
}

impl Host {
    /// Where a procfs or sysfs is mounted as a whole, a lower mount first: see [`Step::Detach`](crate::plan::Step).
    pub fn revealing(root: &Path) -> Result<Vec<PathBuf>> {
        let mountinfo = read(&root.join("proc/self/mountinfo"))?;
        let point = |line: &str| {
            let (mount, fs) = line.split_once(" - ")?;
            let (fstype, mut fields) = (fs.split(' ').next()?, mount.split(' '));
            let (inside, point) = (fields.nth(3)?, fields.next()?);
            (matches!(fstype, "proc" | "sysfs") && inside == "/").then(|| unescape(point))
        };
        Ok(mountinfo.lines().filter_map(point).collect())
    }
}

fn read(path: &Path) -> Result<String> {
    let bytes = std::fs::read(path).context(|| format!("read({path:?})"))?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
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
    let text = read(&path)?;
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

/// From /proc/self/mountinfo (proc(5)): a cgroup2 on /sys/fs/cgroup is a v2 host; else each v1 hierarchy counts
/// once, where it is mounted first.
fn cgroups(root: &Path, mountinfo: &str) -> CgroupMounts {
    let known = known_controllers(&read(&root.join("proc/cgroups")).unwrap_or_default());
    let mut hierarchies: Vec<Hierarchy> = Vec::new();
    for line in mountinfo.lines() {
        let Some((mount, fs)) = line.split_once(" - ") else { continue };
        let mut fs = fs.split(' ');
        let (Some(fstype), Some(options)) = (fs.next(), fs.nth(1)) else { continue };
        let Some(mountpoint) = mount.split(' ').nth(4).map(unescape) else { continue };
        match fstype {
            "cgroup2" if mountpoint == Path::new("/sys/fs/cgroup") => return CgroupMounts::V2,
            "cgroup" => {
                let controllers: Vec<String> = options
                    .split(',')
                    .filter(|word| word.starts_with("name=") || known.iter().any(|known| known == word))
                    .map(String::from)
                    .collect();
                if !controllers.is_empty() && hierarchies.iter().all(|h| h.controllers != controllers) {
                    hierarchies.push(Hierarchy { mountpoint, controllers });
                }
            }
            _ => {}
        }
    }
    CgroupMounts::V1(hierarchies)
}

/// First column of /proc/cgroups.
fn known_controllers(table: &str) -> Vec<String> {
    table
        .lines()
        .filter(|line| !line.starts_with('#'))
        .filter_map(|line| line.split_whitespace().next())
        .map(String::from)
        .collect()
}

/// mountinfo writes blanks and backslashes in octal, e.g. `\040`.
fn unescape(text: &str) -> PathBuf {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&byte, tail)) = rest.split_first() {
        let octal =
            tail.get(..3).filter(|_| byte == b'\\').and_then(|digits| std::str::from_utf8(digits).ok());
        match octal.and_then(|digits| u8::from_str_radix(digits, 8).ok()) {
            Some(escaped) => {
                bytes.push(escaped);
                rest = &tail[3..];
            }
            None => {
                bytes.push(byte);
                rest = tail;
            }
        }
    }
    PathBuf::from(std::ffi::OsString::from_vec(bytes))
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
        write(
            "proc/cgroups",
            "#subsys_name\thierarchy\tnum_cgroups\tenabled\ncpu\t2\t1\t1\ncpuacct\t2\t1\t1\n",
        );
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

    #[test]
    fn a_path_is_unescaped() {
        assert_eq!(unescape("/mnt/a\\040b\\134c\\"), Path::new("/mnt/a b\\c\\"));
    }
}
