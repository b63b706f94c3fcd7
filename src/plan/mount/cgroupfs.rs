//! A mount of type `cgroup`, which depends on the host's cgroup version.

use super::{attributes, bind, binds_follow, Place};
use crate::error::Result;
use crate::plan::builder::{root_path, Builder};
use crate::plan::{CgroupMounts, Hierarchy, Input, RootPath, Step};
use crate::spec::mount::{Attributes, FsOption, Mount, Propagation, Source};
use crate::spec::Ns;
use libc::{MOUNT_ATTR_NODEV, MOUNT_ATTR_NOEXEC, MOUNT_ATTR_NOSUID, MOUNT_ATTR_RDONLY};
use std::ffi::{CStr, CString};
use std::path::Path;

const SAFE: u64 = MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV | MOUNT_ATTR_NOEXEC;

/// Mounts one cgroup2, rooted at the cgroup namespace's root. In the host's namespace it is a bind: a new mount would
/// set the options of the host's own mount (`nsdelegate`, `memory_recursiveprot`) to those of this one.
pub(super) fn v2(b: &mut Builder, place: &Place<'_>, input: &Input<'_>) -> Result<()> {
    if input.spec.namespaces.cgroup == Ns::Host {
        return bind(b, place, Path::new("/sys/fs/cgroup"), false, binds_follow(input.spec));
    }
    let attributes = attributes(place.mount);
    let step = mount(c"cgroup2", c"cgroup", Vec::new(), attributes, place.target.clone());
    b.step(place.field.clone(), step);
    Ok(())
}

/// As in runc, delegates the cgroup to root of the user namespace if the container has a cgroup namespace and a
/// writable cgroup2.
pub(in crate::plan) fn give(b: &mut Builder, input: &Input<'_>) {
    let spec = input.spec;
    let private = spec.namespaces.user != Ns::Host && spec.namespaces.cgroup == Ns::New;
    if !private || input.host.cgroups != CgroupMounts::V2 {
        return;
    }
    let writable = |mount: &Mount| {
        let Source::Filesystem { fstype, .. } = &mount.source else { return false };
        let cgroup = [c"cgroup", c"cgroup2"].contains(&fstype.as_c_str());
        cgroup && attributes(mount) & MOUNT_ATTR_RDONLY == 0
    };
    let mount = spec.mounts.iter().position(writable);
    if let (Some(i), Some(uid)) = (mount, spec.mappings.uid_outside(0)) {
        b.step(format!("mounts[{i}]"), Step::GiveCgroup { uid });
    }
}

/// Mounts a tmpfs with a directory for each hierarchy of the host, and symlinks for co-mounted controllers. With a
/// cgroup namespace the container sees the hierarchy from its own cgroup down; without one it gets a bind of its
/// cgroup's directory. `ro` applies to these; the tmpfs itself stays writable, as in runc: a systemd in the container
/// creates directories in it.
pub(super) fn v1(
    b: &mut Builder,
    place: &Place<'_>,
    hierarchies: &[Hierarchy],
    input: &Input<'_>,
) -> Result<()> {
    let field = &place.field;
    let readonly = attributes(place.mount) & MOUNT_ATTR_RDONLY;
    let base = place.target.as_c_str().to_string_lossy().into_owned();
    let below = |name: &str| root_path(field, &format!("{base}/{name}"));

    let mode = FsOption::Value(c"mode".into(), c"755".into());
    b.step(field.clone(), mount(c"tmpfs", c"tmpfs", vec![mode], SAFE, place.target.clone()));
    for hierarchy in hierarchies {
        let target = below(hierarchy.name())?;
        if input.spec.namespaces.cgroup != Ns::Host {
            b.step(
                field.clone(),
                mount(c"cgroup", source(hierarchy), options(hierarchy), SAFE | readonly, target),
            );
            continue;
        }
        let own = input.cgroup_dirs.iter().find(|(mountpoint, _)| *mountpoint == hierarchy.mountpoint);
        let Some((mountpoint, path)) = own else {
            b.warn(format!("{field}: the container has no cgroup in {:?}, left out", hierarchy.mountpoint));
            continue;
        };
        let path = mountpoint.join(path.strip_prefix("/").unwrap_or(path));
        let own = Mount { attributes: bind_attributes(place.mount), ..place.mount.clone() };
        let place = Place { field: field.clone(), mount: &own, target };
        bind(b, &place, &path, true, Some(Propagation { flag: libc::MS_SLAVE, recursive: true }))?;
    }
    for hierarchy in hierarchies.iter().filter(|hierarchy| hierarchy.name().contains(',')) {
        for name in hierarchy.name().split(',') {
            let target = CString::new(hierarchy.name()).unwrap_or_default();
            b.step(field.clone(), Step::Symlink { path: below(name)?, target });
        }
    }
    Ok(())
}

fn bind_attributes(mount: &Mount) -> Attributes {
    Attributes { set: mount.attributes.set | SAFE, clear: mount.attributes.clear & !SAFE, ..mount.attributes }
}

/// The source that mountinfo shows: runc's names.
fn source(hierarchy: &Hierarchy) -> &'static CStr {
    if hierarchy.controllers.iter().any(|word| word == "name=systemd") {
        c"systemd"
    } else {
        c"cgroup"
    }
}

/// `cpu,cpuacct` are two flags; `name=systemd` is a value.
fn options(hierarchy: &Hierarchy) -> Vec<FsOption> {
    let text = |text: &str| CString::new(text).unwrap_or_default();
    hierarchy
        .controllers
        .iter()
        .map(|word| match word.split_once('=') {
            Some((key, value)) => FsOption::Value(text(key), text(value)),
            None => FsOption::Flag(text(word)),
        })
        .collect()
}

fn mount(fstype: &CStr, source: &CStr, options: Vec<FsOption>, attributes: u64, target: RootPath) -> Step {
    Step::MountFs {
        fstype: fstype.into(),
        source: source.into(),
        options,
        whole: None,
        attributes,
        target,
        propagation: None,
        inherit_mode: false,
        copy_up: false,
        pids: None,
    }
}
