//! The spec's mounts, in the spec's order, and the restrictions applied after them.

pub(super) mod cgroupfs;
mod whole;

use super::builder::{host_path, root_path, Builder};
use super::{CgroupMounts, Input, RootPath, Step};
use crate::error::{invalid, Error, Kind, Result};
use crate::spec::mount::{Attributes, FsOption, Mount, Propagation, Source};
use crate::spec::{Ns, Process, Spec, Sysctl};
use libc::MOUNT_ATTR_RDONLY;
use std::ffi::CStr;
use std::path::Path;

/// What may be mounted below /proc: the files that lxcfs and the like replace, and two that CRIU and FIPS hosts need
/// (runc's list). The spec is checked against it, and again what a path of it resolves to.
pub const BELOW_PROC: [&CStr; 11] = [
    c"proc/cpuinfo",
    c"proc/diskstats",
    c"proc/meminfo",
    c"proc/stat",
    c"proc/swaps",
    c"proc/uptime",
    c"proc/loadavg",
    c"proc/slabinfo",
    c"proc/net/dev",
    c"proc/sys/kernel/ns_last_pid",
    c"proc/sys/crypto/fips_enabled",
];

/// Filesystems with a single instance per namespace or host: an option set by one mount applies to all of them.
/// Otherwise an ordinary container of a pod could make /sys read-only for a privileged one, or a debugfs for the host.
const SHARED: [&CStr; 17] = [
    c"proc",
    c"sysfs",
    c"mqueue",
    c"cgroup",
    c"cgroup2",
    c"binfmt_misc",
    c"configfs",
    c"debugfs",
    c"devtmpfs",
    c"efivarfs",
    c"fusectl",
    c"nfsd",
    c"pstore",
    c"rpc_pipefs",
    c"securityfs",
    c"selinuxfs",
    c"tracefs",
];

/// A mount of the spec while it is lowered to steps.
pub(super) struct Place<'a> {
    pub field: String,
    pub mount: &'a Mount,
    pub target: RootPath,
}

pub(super) fn all(b: &mut Builder, input: &Input<'_>) -> Result<()> {
    for (i, mount) in input.spec.mounts.iter().enumerate() {
        let field = format!("mounts[{i}]");
        let target = root_path(&format!("{field}.destination"), &mount.destination)?;
        let place = Place { field, mount, target };
        check_target(&place)?;
        match &mount.source {
            Source::Bind { path, recursive } => {
                let path = input.bundle.join(path);
                bind(b, &place, &path, *recursive, binds_follow(input.spec))?;
            }
            Source::Remount => {
                let step = Step::Remount { target: place.target, attributes: mount.attributes };
                b.step(place.field, step);
            }
            Source::Filesystem { fstype, .. } if fstype.as_c_str() == c"cgroup" => {
                match &input.host.cgroups {
                    CgroupMounts::V1(hierarchies) => cgroupfs::v1(b, &place, hierarchies, input)?,
                    CgroupMounts::V2 => cgroupfs::v2(b, &place, input)?,
                }
            }
            Source::Filesystem { fstype, .. }
                if fstype.as_c_str() == c"sysfs" && shares_network(input.spec) =>
            {
                return Err(invalid(format!(
                    "{}: a sysfs shows the host's network, and is not for a user namespace; bind /sys instead",
                    place.field
                )));
            }
            Source::Filesystem { .. } => filesystem(b, &place, input)?,
        }
    }
    Ok(())
}

/// sysfs belongs to the network namespace: whoever mounts it must own that namespace (kobj_ns_current_may_mount).
fn shares_network(spec: &Spec) -> bool {
    spec.namespaces.user != Ns::Host && spec.namespaces.net == Ns::Host
}

/// Nothing may replace what the kernel shows in /proc: programs, and the shim when it writes there, would trust it.
fn check_target(place: &Place<'_>) -> Result<()> {
    let path = place.target.as_c_str().to_str().unwrap_or_default();
    let refuse = |what: String| Err(invalid(format!("{}.destination: {what}", place.field)));
    let remount = place.mount.source == Source::Remount;
    match path.split('/').next() {
        Some(".") if !remount => refuse("the root itself cannot be mounted over".into()),
        Some("proc") if path == "proc" => {
            let procfs = match &place.mount.source {
                Source::Filesystem { fstype, .. } => fstype.as_c_str() == c"proc",
                Source::Bind { path, .. } => path == Path::new("/proc"),
                Source::Remount => true,
            };
            if procfs {
                return Ok(());
            }
            refuse("only a procfs can be mounted on /proc".into())
        }
        Some("proc") if !remount && !BELOW_PROC.contains(&place.target.as_c_str()) => {
            refuse(format!("/{path} is inside /proc, where nothing can be mounted"))
        }
        _ => Ok(()),
    }
}

/// The propagation of a bind that sets none itself: what it would be in a namespace that is a slave of the host's, or
/// the spec's rootfsPropagation. runc makes its binds in such a namespace; ours come from the host directly. None
/// leaves them peers of the host's mounts.
pub(super) fn binds_follow(spec: &Spec) -> Option<Propagation> {
    let flag = match spec.rootfs_propagation {
        None => libc::MS_SLAVE,
        // The option is meant for `/` alone: docker sets `shared` for a volume that is to be shared.
        Some(Propagation { flag: libc::MS_SHARED, recursive: false }) => return None,
        // An unbindable mount cannot be attached.
        Some(Propagation { flag: libc::MS_UNBINDABLE, .. }) => libc::MS_PRIVATE,
        // Recursive even without the `r`: runc would leave mounts below `/` peers of the host's.
        Some(Propagation { flag, .. }) => flag,
    };
    Some(Propagation { flag, recursive: true })
}

/// Combines both, in order: first what the mount would have been in such a namespace, then its own option.
fn propagations(default: Option<Propagation>, word: Option<Propagation>) -> Vec<Propagation> {
    let alone = |word: Propagation| {
        word.recursive && matches!(word.flag, libc::MS_PRIVATE | libc::MS_UNBINDABLE) || default == Some(word)
    };
    match word {
        Some(word) if alone(word) => vec![word],
        word => default.into_iter().chain(word).collect(),
    }
}

/// Whether a source belongs to the container (a file of its root, or of its process), so that it must be looked up
/// after the mounts before it in the spec.
fn is_own(path: &Path, root: &Path) -> bool {
    [root, Path::new("/proc/self"), Path::new("/proc/thread-self")].iter().any(|own| path.starts_with(own))
}

pub(super) fn bind(
    b: &mut Builder,
    place: &Place<'_>,
    path: &Path,
    recursive: bool,
    default: Option<Propagation>,
) -> Result<()> {
    let field = format!("{}.source", place.field);
    let (slot, text) = (b.slot(&field)?, host_path(&field, path)?);
    let own = is_own(path, &b.root);
    let mut steps = vec![(Step::OpenTree { slot, path: text, recursive, plain: own }, field)];
    if let Some(idmap) = &place.mount.idmap {
        let namespace = match (&idmap.mappings, b.user) {
            (Some(mappings), _) => b.user_namespace(format!("{}.uidMappings", place.field), mappings)?,
            (None, Some(user)) => user,
            (None, None) => return Err(Error::new(Kind::Bug, "an idmapped mount without a map")),
        };
        let step = Step::MapTree { slot, namespace, recursive: idmap.recursive };
        steps.push((step, place.field.clone()));
    }
    // Only root on the host may idmap.
    let alone = b.user.is_none() || steps.len() == 1;
    for (step, field) in steps {
        if alone && own {
            b.step(field, step);
        } else {
            b.source(field, step);
        }
    }
    let step = Step::Attach {
        slot,
        target: place.target.clone(),
        attributes: place.mount.attributes,
        propagation: propagations(default, place.mount.propagation),
    };
    b.step(place.field.clone(), step);
    Ok(())
}

/// The attributes of a new mount, which has none to clear.
pub(super) fn attributes(mount: &Mount) -> u64 {
    mount.attributes.set | mount.attributes.recursive_set
}

fn is_dev(mount: &Mount) -> bool {
    RootPath::new(&mount.destination).is_some_and(|path| path.as_c_str() == c"dev")
}

/// A tmpfs, and /dev, become read-only only after the last file has been created in them.
fn closes_late(mount: &Mount) -> bool {
    let Source::Filesystem { fstype, .. } = &mount.source else { return false };
    attributes(mount) & MOUNT_ATTR_RDONLY != 0 && (fstype.as_c_str() == c"tmpfs" || is_dev(mount))
}

fn filesystem(b: &mut Builder, place: &Place<'_>, input: &Input<'_>) -> Result<()> {
    let (mount, spec) = (place.mount, input.spec);
    let Source::Filesystem { fstype, source, options } = &mount.source else { return Ok(()) };
    let mut options = options.clone();
    let mut attributes = attributes(mount);
    if closes_late(mount) {
        attributes &= !MOUNT_ATTR_RDONLY;
    }
    // mount(2) had one flag for both. A filesystem on a read-only device must know it before it is mounted; and none
    // can be made writable through its mount alone if the superblock is read-only too.
    if attributes & MOUNT_ATTR_RDONLY != 0 && !SHARED.contains(&fstype.as_c_str()) {
        options.push(FsOption::Flag(c"ro".into()));
    }
    // SELinux cannot label these.
    if let Some(label) =
        spec.mount_label.as_ref().filter(|_| ![c"proc", c"sysfs"].contains(&fstype.as_c_str()))
    {
        options.push(FsOption::Value(c"context".into(), label.clone()));
    }
    let has_mode = options.iter().any(|o| matches!(o, FsOption::Value(key, _) if key.as_c_str() == c"mode"));
    let pids = b.pids.map(|pids| pids.slot).filter(|_| fstype.as_c_str() == c"proc");
    let whole = match pids {
        // A procfs has no inode versions.
        Some(_) => {
            options.retain(|option| !whole::is_iversion(option));
            None
        }
        None => whole::whole(&place.field, source, &options, input.host.page_size)?,
    };
    let step = Step::MountFs {
        inherit_mode: fstype.as_c_str() == c"tmpfs" && !has_mode,
        fstype: fstype.clone(),
        source: source.clone(),
        options: if whole.is_some() { Vec::new() } else { options },
        whole,
        attributes,
        target: place.target.clone(),
        propagation: mount.propagation,
        copy_up: mount.copy_up,
        pids,
    };
    b.step(place.field.clone(), step);
    Ok(())
}

/// As in runc, hooks see all mounts and devices, and a root that is still writable.
pub(super) fn hooks(b: &mut Builder, spec: &Spec) {
    if spec.hooks.of_create() {
        b.step("hooks", Step::Hooks);
    }
}

/// Created now: the root may be read-only once it is entered.
pub(super) fn workdir(b: &mut Builder, process: &Process) -> Result<()> {
    let cwd = process.cwd.to_string_lossy();
    let mkdir = |b: &mut Builder, path: &str| {
        let path = root_path("process.cwd", path)?;
        if path.as_c_str() != c"." {
            b.step("process.cwd", Step::Mkdir { path, mode: 0o755 });
        }
        Ok(())
    };
    // `/a/../b` can only be entered if `/a` exists.
    for (at, _) in cwd.match_indices("/..") {
        mkdir(b, &cwd[..at])?;
    }
    mkdir(b, &cwd)?;
    Ok(())
}

pub(super) fn sysctls(b: &mut Builder, sysctls: &[Sysctl]) {
    if !sysctls.is_empty() {
        let pids = b.pids.map(|pids| pids.slot);
        b.step("linux.sysctl", Step::OpenProc { pids });
    }
    for sysctl in sysctls {
        let step = Step::Sysctl { name: sysctl.path.clone(), value: sysctl.value.clone() };
        b.step(format!("linux.sysctl[{:?}]", sysctl.key), step);
    }
}

pub(super) fn restrict(b: &mut Builder, spec: &Spec) -> Result<()> {
    for (i, path) in spec.readonly_paths.iter().enumerate() {
        let field = format!("linux.readonlyPaths[{i}]");
        let path = root_path(&field, path)?;
        b.step(field, Step::ReadonlyPath { path });
    }
    for (i, path) in spec.masked_paths.iter().enumerate() {
        let field = format!("linux.maskedPaths[{i}]");
        let path = root_path(&field, path)?;
        b.step(field, Step::Mask { path });
    }
    for (i, mount) in spec.mounts.iter().enumerate().filter(|(_, mount)| closes_late(mount)) {
        let field = format!("mounts[{i}]");
        let target = root_path(&field, &mount.destination)?;
        let attributes = Attributes { set: MOUNT_ATTR_RDONLY, ..Attributes::default() };
        b.step(field, Step::Remount { target, attributes });
    }
    if spec.root.readonly {
        b.step("root.readonly", Step::ReadonlyRoot);
    }
    Ok(())
}
