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
use crate::spec::mount::Source;
use crate::spec::{self, Spec};
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
    root: Vec<u8>,
    null: Option<Part>,
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
        let point = |name: &str| resolve(pid, name).unwrap_or_else(|| name.into());
        let (null, given): (Vec<_>, Vec<_>) = sources.iter().partition(|(name, _)| name == NULL);
        let staged = read(&format!("/proc/{stand_in}/mountinfo"))?;
        let root = self.bundle.join(&self.spec.root.path);
        let below = |mount: &Mount<'_>| root.starts_with(mount.point());
        let root = mounts(&staged).filter(below).max_by_key(|mount| mount.point().as_os_str().len());
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
            root: root.map_or_else(Vec::new, |mount| mount.device.to_vec()),
            null: null.first().map(|(_, part)| part.clone()),
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
        let open = |point: &&PathBuf| missing(point) && exists(point);
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
            return part.device == self.root;
        }
        if self.binds.iter().any(|(known, source)| *known == point && *source == part) {
            return true;
        }
        let is_of = |(known, fstype): &(PathBuf, Vec<u8>)| match fstype.as_slice() {
            // v1 has a directory of hierarchies.
            b"cgroup" => {
                (*known == point && matches!(mount.fstype, b"tmpfs" | b"cgroup" | b"cgroup2"))
                    || (point.parent() == Some(known) && mount.fstype == b"cgroup")
            }
            fstype => *known == point && mount.fstype == fstype,
        };
        if self.filesystems.iter().any(is_of) {
            return true;
        }
        if self.masked.contains(&point) {
            return mount.fstype == b"tmpfs" && part.root == Path::new("/")
                || self.null.as_ref() == Some(&part);
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
        point == Path::new("/dev/console") && mount.fstype == b"devpts"
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
        8 1 0:3 /0 /dev/console rw - devpts devpts rw\n";

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
            ],
            masked: vec!["/proc/keys".into(), "/proc/none".into()],
            readonly: vec!["/proc/sys".into()],
            root: b"0:9".to_vec(),
            null: Some(part(b"0:6", "/null")),
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
        ] {
            let bad = GOOD.replace(from, to);
            assert_ne!(bad, GOOD);
            compare(&bad).expect_err(&bad);
        }
        compare(&format!("{GOOD}9 1 8:1 / /host rw - ext4 /dev/sda1 rw\n")).unwrap_err();
    }

    #[test]
    fn no_mount_of_the_specification_may_be_missing() {
        for number in 2..=7 {
            let left: Vec<&str> =
                GOOD.lines().filter(|line| !line.starts_with(&number.to_string())).collect();
            let left = left.join("\n");
            // The hierarchies of a cgroup directory are not said one by one.
            assert_eq!(compare(&left).is_ok(), number == 6, "{left}");
        }
    }
}
