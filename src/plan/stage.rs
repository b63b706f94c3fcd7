//! Where a container's image of processes (a checkpoint) comes to life: a mount namespace of the host with the root
//! filesystem in it, held by a process that stands in for the container's first one until that is there.

use super::builder::{root_path, Builder};
use super::{isolate, rootfs, Input, Open, Plan, Step};
use crate::error::Result;
use crate::spec::mount::{Attributes, Source};
use crate::spec::Spec;

/// The root and, in it, all that the container's mounts are mounted on, as a create would make it: whoever restores the
/// processes mounts, and makes nothing.
pub fn stage(input: &Input<'_>) -> Result<Plan> {
    let mut b = Builder::default();
    b.plan.clone_flags = libc::CLONE_NEWNS as u64;
    b.sources_here();
    b.step(isolate::MOUNT, Step::MakeSlave);
    rootfs::mounts(&mut b, input)?;
    rootfs::root(&mut b, input)?;
    let mut mounted: Vec<String> = Vec::new();
    for (i, mount) in input.spec.mounts.iter().enumerate() {
        let field = format!("mounts[{i}].destination");
        let path = root_path(&field, &mount.destination)?;
        let name = path.as_c_str().to_string_lossy().into_owned();
        // Below another one it is in there already: with what was mounted, or in the image.
        let below =
            |other: &String| name.strip_prefix(other.as_str()).is_some_and(|rest| rest.starts_with('/'));
        if name != "." && !mounted.iter().any(below) {
            match &mount.source {
                Source::Filesystem { .. } => b.step(field, Step::Mkdir { path, mode: 0o755 }),
                Source::Bind { path: source, recursive } => {
                    let field = format!("mounts[{i}].source");
                    let (slot, own) = (b.slot(&field)?, b.root.clone());
                    let source = super::builder::host_path(&field, &input.bundle.join(source))?;
                    let plain = source.to_bytes().starts_with(own.as_os_str().as_encoded_bytes());
                    let tree = Step::OpenTree { slot, path: source, recursive: *recursive, plain };
                    b.step(field.clone(), tree);
                    b.step(field, Step::MountPoint { slot, path });
                }
                Source::Remount => {}
            }
        }
        mounted.push(name);
    }
    b.step("checkpoint", Step::StandIn);
    Ok(b.plan)
}

/// In the mount namespace of restored processes: gives every mount that `is_mounted` the attributes that the
/// specification says. CRIU loses them where two mounts are of one filesystem.
pub fn seal(spec: &Spec, is_mounted: &dyn Fn(&str) -> bool) -> Result<Plan> {
    let mut b = Builder::default();
    let slot = b.open("linux.namespaces", Open::Init)?;
    b.step("linux.namespaces", Step::SetNs { slot, flags: libc::CLONE_NEWNS as u64 });
    b.step("root.path", Step::OpenRoot { target: c"/".into(), private: false });
    let mut remount = |field: String, path: &str, attributes: Attributes| {
        if attributes != Attributes::default() && is_mounted(path) {
            let target = root_path(&field, path)?;
            b.step(field, Step::Remount { target, attributes });
        }
        Ok(())
    };
    let set = |set| Attributes { set, ..Attributes::default() };
    for (i, mount) in spec.mounts.iter().enumerate() {
        remount(format!("mounts[{i}]"), &mount.destination, mount.attributes)?;
    }
    for (i, path) in spec.readonly_paths.iter().enumerate() {
        remount(format!("linux.readonlyPaths[{i}]"), path, set(libc::MOUNT_ATTR_RDONLY))?;
    }
    let mask = libc::MOUNT_ATTR_RDONLY | libc::MOUNT_ATTR_NOSUID | libc::MOUNT_ATTR_NOEXEC;
    for (i, path) in spec.masked_paths.iter().enumerate() {
        remount(format!("linux.maskedPaths[{i}]"), path, set(mask))?;
    }
    if spec.root.readonly {
        b.step("root.readonly", Step::ReadonlyRoot);
    }
    b.step("checkpoint", Step::Gate);
    Ok(b.plan)
}
