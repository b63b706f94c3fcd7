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

/// In the mount namespace of processes that were made from an image: what of the host's is mounted has the attributes that
/// the spec says, and `masked` files those of a mask. CRIU loses them where two are of one file system.
pub fn seal(spec: &Spec, masked: &[&str]) -> Result<Plan> {
    let mut b = Builder::default();
    let slot = b.open("linux.namespaces", Open::Init)?;
    b.step("linux.namespaces", Step::SetNs { slot, flags: libc::CLONE_NEWNS as u64 });
    b.step("root.path", Step::OpenRoot { target: c"/".into(), private: false });
    for (i, mount) in spec.mounts.iter().enumerate() {
        if mount.attributes != Attributes::default() && matches!(mount.source, Source::Bind { .. }) {
            let field = format!("mounts[{i}]");
            let target = root_path(&field, &mount.destination)?;
            b.step(field, Step::Remount { target, attributes: mount.attributes });
        }
    }
    let set = libc::MOUNT_ATTR_RDONLY | libc::MOUNT_ATTR_NOSUID | libc::MOUNT_ATTR_NOEXEC;
    let attributes = Attributes { set, ..Attributes::default() };
    for path in masked {
        let field = "linux.maskedPaths";
        b.step(field, Step::Remount { target: root_path(field, path)?, attributes });
    }
    b.step("checkpoint", Step::Gate);
    Ok(b.plan)
}
