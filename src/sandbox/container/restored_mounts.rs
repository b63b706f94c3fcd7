//! What is mounted in a restored container: what its specification says, and nothing else.
//!
//! CRIU mounts what the images say, as root of the host: they could say another filesystem of the host's, or leave out a
//! mask. A container with CAP_SYS_ADMIN could have mounted anything, and is not looked at.

use super::checkpoint::{read, resolve, tidy};
use super::restored::mounts_nothing;
use super::Container;
use crate::error::{invalid, Context, Result};
use crate::mountinfo::{mounts, Mount};
use crate::paths::Purpose;
use crate::plan::CgroupMounts;
use crate::spec::mount::Source;
use crate::spec::{self, Namespaces, Ns, Spec};
use crate::sys::path::{cached, mount_of};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::Instant;

/// A part of a filesystem, by the fields of proc_pid_mountinfo(5).
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Part {
    device: Vec<u8>,
    root: PathBuf,
}

impl Part {
    fn of(mount: &Mount<'_>) -> Self {
        Part { device: mount.device.to_vec(), root: mount.root() }
    }

    /// Where a path leads: `mount` is the one that it is on.
    fn at(path: &Path, mount: &Mount<'_>) -> Self {
        let point = mount.point();
        let below = path.strip_prefix(&point).unwrap_or(Path::new(""));
        let root = mount.root();
        Part {
            device: mount.device.to_vec(),
            root: if below == Path::new("") { root } else { root.join(below) },
        }
    }
}

/// What may be mounted, and must be.
#[derive(Debug, Default)]
struct Expected {
    binds: Vec<(PathBuf, Part)>,
    /// Those that the specification names one by one.
    named: Vec<PathBuf>,
    filesystems: Vec<(PathBuf, Vec<u8>)>,
    masked: Vec<PathBuf>,
    readonly: Vec<PathBuf>,
    root: Option<Part>,
    null: Option<Part>,
    /// The container's own directories in the hierarchies of cgroups.
    cgroups: Vec<Part>,
    /// The filesystems that the host has mounted.
    hosts: Vec<Vec<u8>>,
    /// Filesystems of a namespace that the container shares with the host.
    shared: Vec<&'static [u8]>,
}

/// Those of which each mount is a filesystem of its own, or that of a namespace.
const NEW: [&[u8]; 6] = [b"tmpfs", b"devpts", b"ramfs", b"proc", b"sysfs", b"mqueue"];

/// Filesystems of namespaces: that of a new namespace is not the host's.
fn of_namespaces(ns: &Namespaces) -> [(&'static [u8], &Ns); 3] {
    [(b"proc", &ns.pid), (b"sysfs", &ns.net), (b"mqueue", &ns.ipc)]
}

impl Container {
    /// Which parts of the host's filesystems are mounted where.
    pub(super) async fn sources(&self, by: Instant) -> Result<Vec<(String, Part)>> {
        let mut all = Vec::new();
        for (name, source) in self.given() {
            let file = self.world.paths.one(&source, Purpose::Place, by).await;
            let of = |mount: &spec::mount::Mount| tidy(&mount.destination) == name;
            let field = || match self.spec.mounts.iter().position(of) {
                Some(i) => format!("mounts[{i}].source"),
                None => format!("checkpoint: the source of {name:?}"),
            };
            let part = part(&file.context(field)?)?;
            all.push((name, part));
        }
        if let Ok(Some(file)) = cached(c"/dev/null") {
            all.push((NULL.to_owned(), part(&file)?));
        }
        Ok(all)
    }

    /// `pid` is in the restored mount namespace, `stand_in` in that in which CRIU found the root.
    pub(super) fn check_mounts(&self, pid: u32, stand_in: u32, sources: &[(String, Part)]) -> Result<()> {
        if !mounts_nothing(&self.spec) {
            return Ok(());
        }
        // Below another root, paths would lead elsewhere, and masks be out of sight.
        let link = format!("/proc/{pid}/root");
        if std::fs::read_link(&link).context(|| format!("readlink({link:?})"))? != Path::new("/") {
            return Err(invalid("checkpoint: the image has a first process with another root directory"));
        }
        let point = |name: &str| resolve(pid, name).unwrap_or_else(|| name.into());
        let (null, given): (Vec<_>, Vec<_>) = sources.iter().partition(|(name, _)| name == NULL);
        let staged = read(&format!("/proc/{stand_in}/mountinfo"))?;
        let root = self.bundle.join(&self.spec.root.path);
        let ns = &self.spec.namespaces;
        let on = |path: &Path| {
            let below = |mount: &Mount<'_>| path.starts_with(mount.point());
            // The last one of several at one point is that which is seen.
            let mount = mounts(&staged).filter(below).max_by_key(|mount| mount.point().as_os_str().len())?;
            Some(Part::at(path, &mount))
        };
        let cgroups = self.cgroup.directories();
        let cgroups = cgroups.iter().map(|(hierarchy, below)| match &self.world.host.cgroups {
            // See the plan of such a mount.
            CgroupMounts::V2 if ns.cgroup == Ns::Host => on(hierarchy),
            _ => on(&hierarchy.join(below.strip_prefix("/").unwrap_or(below))),
        });
        let expected = Expected {
            binds: given.iter().map(|(name, part)| (point(name), part.clone())).collect(),
            named: self
                .spec
                .mounts
                .iter()
                .filter(|mount| matches!(mount.source, Source::Bind { .. }))
                .map(|mount| point(&tidy(&mount.destination)))
                .collect(),
            filesystems: filesystems(&self.spec).map(|(name, fstype)| (point(&name), fstype)).collect(),
            masked: self.spec.masked_paths.iter().map(|path| tidy(path).into()).collect(),
            readonly: self.spec.readonly_paths.iter().map(|path| tidy(path).into()).collect(),
            root: on(&root),
            null: null.first().map(|(_, part)| part.clone()),
            cgroups: cgroups.flatten().collect(),
            hosts: mounts(&staged).map(|mount| mount.device.to_vec()).collect(),
            shared: of_namespaces(ns).iter().filter(|(_, ns)| **ns == Ns::Host).map(|(of, _)| *of).collect(),
        };
        expected.compare(&read(&format!("/proc/{pid}/mountinfo"))?, |path| exists(pid, path))
    }
}

const NULL: &str = super::checkpoint::NULL;

/// Of the host's filesystems, that which `file` is.
fn part(file: &OwnedFd) -> Result<Part> {
    let link = format!("/proc/self/fd/{}", file.as_raw_fd());
    let path = std::fs::read_link(&link).context(|| format!("readlink({link:?})"))?;
    let id = mount_of(file.as_fd()).context(|| "read(/proc/self/fdinfo)")?;
    let mountinfo = read("/proc/self/mountinfo")?;
    let mount = mounts(&mountinfo).find(|mount| mount.has_id(id));
    let mount = mount.ok_or_else(|| invalid(format!("checkpoint: {path:?} is on no mount of the host")))?;
    Ok(Part::at(&path, &mount))
}

/// Where the specification mounts new filesystems, and which.
fn filesystems(spec: &Spec) -> impl Iterator<Item = (String, Vec<u8>)> {
    spec.mounts.iter().filter_map(|mount| match &mount.source {
        Source::Filesystem { fstype, .. } => Some((tidy(&mount.destination), fstype.to_bytes().to_vec())),
        _ => None,
    })
}

/// Whether the container may have such a file. Only procfs and sysfs are asked, which have the same ones everywhere.
fn exists(pid: u32, path: &Path) -> bool {
    if path.starts_with("/proc") || path.starts_with("/sys") {
        path.symlink_metadata().is_ok()
    } else {
        resolve(pid, &path.to_string_lossy()).is_some()
    }
}

impl Expected {
    fn compare(&self, mountinfo: &[u8], exists: impl Fn(&Path) -> bool) -> Result<()> {
        let all: Vec<Mount<'_>> = mounts(mountinfo).collect();
        for mount in &all {
            if !self.is_right(mount, &all) {
                let what = String::from_utf8_lossy(mount.fstype).into_owned();
                let point = mount.point();
                return Err(invalid(format!(
                    "checkpoint: the image has a {what} at {point:?} that is not in mounts"
                )));
            }
        }
        let missing = |point: &PathBuf| all.iter().all(|mount| mount.point() != *point);
        let mut points = self.named.iter().chain(self.filesystems.iter().map(|(point, _)| point));
        if let Some(point) = points.find(|point| missing(point)) {
            return Err(invalid(format!(
                "checkpoint: the image has no mount at {point:?}, and mounts has one"
            )));
        }
        let seen = |point: &PathBuf| all.iter().any(|mount| mount.point() == *point && mount.is_seen(&all));
        let open = |point: &&PathBuf| !seen(point) && exists(point);
        if let Some(point) = self.masked.iter().find(open) {
            return Err(invalid(format!(
                "checkpoint: the image lacks the mask of {point:?} in linux.maskedPaths"
            )));
        }
        if let Some(point) = self.readonly.iter().find(open) {
            return Err(invalid(format!(
                "checkpoint: {point:?} of linux.readonlyPaths is not so in the image"
            )));
        }
        Ok(())
    }

    fn is_right(&self, mount: &Mount<'_>, all: &[Mount<'_>]) -> bool {
        let (point, part) = (mount.point(), Part::of(mount));
        if point == Path::new("/") {
            return self.root.as_ref() == Some(&part);
        }
        if self.binds.iter().any(|(known, source)| *known == point && *source == part) {
            return true;
        }
        let is_of = |(known, fstype): &(PathBuf, Vec<u8>)| match fstype.as_slice() {
            // v1 has a directory of hierarchies.
            b"cgroup" | b"cgroup2" => match mount.fstype {
                b"tmpfs" => *known == point && self.is_new(mount),
                b"cgroup" | b"cgroup2" => {
                    (*known == point || point.parent() == Some(known)) && self.cgroups.contains(&part)
                }
                _ => false,
            },
            fstype => *known == point && mount.fstype == fstype && self.is_new(mount),
        };
        if self.filesystems.iter().any(is_of) {
            return true;
        }
        if self.masked.contains(&point) {
            return mount.fstype == b"tmpfs" && self.is_new(mount) || self.null.as_ref() == Some(&part);
        }
        // Another mount of what is there in any case.
        let whole = |device: &[u8]| {
            let mut same =
                all.iter().filter(|other| other.device == device && other.root() == Path::new("/"));
            same.find_map(|other| point.strip_prefix(other.point()).ok().map(Path::to_owned))
        };
        if self.readonly.contains(&point) {
            return whole(mount.device).is_some_and(|below| Path::new("/").join(below) == part.root);
        }
        let is_terminal =
            part.root.to_string_lossy().strip_prefix('/').is_some_and(|number| {
                !number.is_empty() && number.bytes().all(|digit| digit.is_ascii_digit())
            });
        let own = |other: &Mount<'_>| {
            let known = (other.point(), b"devpts".to_vec());
            other.device == mount.device && other.fstype == b"devpts" && self.filesystems.contains(&known)
        };
        point == Path::new("/dev/console")
            && mount.fstype == b"devpts"
            && is_terminal
            && all.iter().any(own)
            && self.is_not_the_hosts(mount)
    }

    /// All of a filesystem that is not the host's.
    fn is_new(&self, mount: &Mount<'_>) -> bool {
        // What else there is has a device or a server behind it, which nothing here compares.
        NEW.contains(&mount.fstype) && mount.root() == Path::new("/") && self.is_not_the_hosts(mount)
    }

    fn is_not_the_hosts(&self, mount: &Mount<'_>) -> bool {
        self.shared.contains(&mount.fstype) || self.hosts.iter().all(|device| device != mount.device)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = "1 0 0:9 / / rw - overlay overlay rw\n\
        2 1 0:5 / /proc rw - proc proc rw\n\
        3 2 0:5 /sys /proc/sys ro - proc proc rw\n\
        4 2 0:6 /null /proc/keys ro - devtmpfs udev rw\n\
        5 1 0:7 / /sys/fs/cgroup ro - tmpfs cgroup rw\n\
        6 5 0:8 /a/c1 /sys/fs/cgroup/cpu ro - cgroup cgroup rw,cpu\n\
        7 1 8:1 /srv/data /data rw - ext4 /dev/sda1 rw\n\
        8 1 0:3 /0 /dev/console rw - devpts devpts rw\n\
        9 1 0:3 / /dev/pts rw - devpts devpts rw\n\
        10 1 0:10 / /run rw - tmpfs tmpfs rw\n\
        11 1 0:11 / /dev/mqueue rw - mqueue mqueue rw\n\
        12 1 0:12 / /hidden ro - tmpfs tmpfs rw\n";
    /// What else the host has.
    const HOSTS: [&[u8]; 3] = [b"0:90", b"0:11", b"8:1"];

    fn compare(mountinfo: &str) -> Result<()> {
        let part = |device: &[u8], root: &str| Part { device: device.to_vec(), root: root.into() };
        let expected = Expected {
            binds: vec![
                ("/data".into(), part(b"8:1", "/srv/data")),
                ("/sys/fs/cgroup/pids".into(), part(b"0:4", "/")),
            ],
            named: vec!["/data".into()],
            filesystems: vec![
                ("/proc".into(), b"proc".to_vec()),
                ("/sys/fs/cgroup".into(), b"cgroup".to_vec()),
                ("/dev/pts".into(), b"devpts".to_vec()),
                ("/run".into(), b"tmpfs".to_vec()),
                ("/dev/mqueue".into(), b"mqueue".to_vec()),
            ],
            masked: vec!["/proc/keys".into(), "/proc/none".into(), "/hidden".into()],
            readonly: vec!["/proc/sys".into()],
            root: Some(part(b"0:9", "/")),
            null: Some(part(b"0:6", "/null")),
            cgroups: vec![part(b"0:8", "/a/c1")],
            hosts: HOSTS.map(<[u8]>::to_vec).into(),
            // It has the host's IPC namespace.
            shared: vec![b"mqueue"],
        };
        expected.compare(mountinfo.as_bytes(), |path| path != Path::new("/proc/none"))
    }

    #[test]
    fn only_the_mounts_of_the_specification_are_right() {
        compare(GOOD).unwrap();
        for (from, to) in [
            ("0:9 / /", "8:1 / /"),
            ("/srv/data /data", "/ /data"),
            ("8:1 /srv/data", "8:2 /srv/data"),
            ("/sys /proc/sys", "/ /proc/sys"),
            ("0:6 /null", "0:6 /sda"),
            ("- proc proc rw\n3", "- tmpfs proc rw\n3"),
            ("0:8 /a/c1 /sys/fs/cgroup/cpu", "0:8 /a/c1 /sys/fs/other"),
            ("/dev/console rw - devpts", "/dev/console rw - devtmpfs"),
            ("0:9 / /", "0:9 /etc /"),
            // Of the host's: its /run, its terminals, its processes, its cgroups.
            ("0:10 / /run", "0:90 / /run"),
            ("0:10 / /run", "0:10 /below /run"),
            ("0:10 / /run rw - tmpfs", "8:1 / /run rw - ext4"),
            ("0:3 / /dev/pts", "0:90 / /dev/pts"),
            ("0:3 /0 /dev/console", "0:90 /0 /dev/console"),
            ("0:3 /0 /dev/console", "0:3 /ptmx /dev/console"),
            ("0:3 /0 /dev/console", "0:3 / /dev/console"),
            ("0:5 / /proc rw", "0:90 / /proc rw"),
            ("0:8 /a/c1", "0:8 /"),
            ("0:8 /a/c1", "0:8 /a/c2"),
            ("0:7 / /sys/fs/cgroup", "0:90 / /sys/fs/cgroup"),
            ("0:12 / /hidden", "0:90 / /hidden"),
            // Above the masks.
            (
                "10 1 0:10 / /run rw - tmpfs",
                "10 1 0:10 / /run rw - tmpfs tmpfs rw\n13 1 0:5 / /proc rw - proc",
            ),
            (
                "10 1 0:10 / /run rw - tmpfs",
                "10 1 0:10 / /run rw - tmpfs tmpfs rw\n13 2 0:5 / /proc rw - proc",
            ),
        ] {
            let bad = GOOD.replace(from, to);
            assert_ne!(bad, GOOD);
            compare(&bad).expect_err(&bad);
        }
        compare(&format!("{GOOD}13 1 8:1 / /host rw - ext4 /dev/sda1 rw\n")).unwrap_err();
    }

    #[test]
    fn no_mount_of_the_specification_may_be_missing() {
        for number in 2..=12 {
            let first = format!("{number} ");
            let left: Vec<&str> = GOOD.lines().filter(|line| !line.starts_with(&first)).collect();
            let left = left.join("\n");
            // The hierarchies of a cgroup directory are not said one by one.
            // Nor is the console, where there is no terminal.
            assert_eq!(compare(&left).is_ok(), [6, 8].contains(&number), "{left}");
        }
    }
}
