//! The root filesystem: mounted or bound, opened, and finally made `/`.

mod option;

use super::builder::{host_path, root_path, tidy, Builder};
use super::{Input, RootPath, RootfsMount, Step};
use crate::error::{invalid, Error, Kind, Result};
use crate::spec::mount::Propagation;
use crate::spec::Ns;
pub(crate) use option::OF_MANAGER;
use option::{LoopDevice, MountOptions};
use std::ffi::CString;
use std::path::{Path, PathBuf};

/// Where the rootfs mounts of the request go, as in the Go shim.
pub(crate) fn mountpoint(bundle: &Path) -> PathBuf {
    tidy(&bundle.join("rootfs"))
}

/// A program that mounts a filesystem.
pub(crate) struct Helper<'a> {
    pub program: &'static str,
    /// Without the prefix that selects the program.
    pub fstype: &'a str,
}

fn helper(mount: &RootfsMount) -> Option<Helper<'_>> {
    let helpers = [("fuse.", "mount.fuse"), ("fuse3.", "mount.fuse3")];
    let of = |(prefix, program)| Some(Helper { program, fstype: mount.fstype.strip_prefix(prefix)? });
    helpers.into_iter().find_map(of)
}

/// The root, if a helper mounts it: on the host, before the launch.
pub(crate) fn by_helper(mounts: &[RootfsMount]) -> Option<(&RootfsMount, Helper<'_>)> {
    let first = mounts.first()?;
    RootPath::new(&first.target).filter(|target| target.as_c_str() == c".")?;
    Some((first, helper(first)?))
}

/// Mounts the rootfs of the request. These mounts exist only in the container's mount namespace, so they cannot outlive
/// it.
pub(super) fn mounts(b: &mut Builder, input: &Input<'_>) -> Result<()> {
    let mounted = usize::from(by_helper(input.rootfs).is_some());
    for (i, mount) in input.rootfs.iter().enumerate().skip(mounted) {
        let below = below(mount, i)?;
        if helper(mount).is_some() {
            let why = "a FUSE helper can only mount the root, before all other mounts";
            return Err(Error::new(Kind::Unsupported, format!("rootfs[{i}].type: {why}")));
        }
        mount_rootfs(b, mount, i, (&mountpoint(input.bundle), below), input.host.page_size)?;
    }
    Ok(())
}

/// Opens the root. In a user namespace it is always bound: earlier mounts are locked there (mount_namespaces(7)), and
/// pivot_root(2) refuses locked mounts.
pub(super) fn root(b: &mut Builder, input: &Input<'_>) -> Result<()> {
    let root = tidy(&input.bundle.join(&input.spec.root.path));
    let target = host_path("root.path", &root)?;
    b.root.clone_from(&root);
    let ours = !input.rootfs.is_empty() && by_helper(input.rootfs).is_none();
    if !ours || root != mountpoint(input.bundle) || b.user.is_some() {
        b.step("root.path", Step::BindRoot { target: target.clone() });
    }
    b.step("root.path", Step::OpenRoot { target, private: true });
    Ok(())
}

/// Opens the root for an exec, which is in the container's mount namespace by then and changes nothing there.
pub(super) fn look_only(b: &mut Builder) {
    b.step("process.terminal", Step::OpenRoot { target: c"/".into(), private: false });
}

/// None is the root itself.
fn below(mount: &RootfsMount, i: usize) -> Result<Option<RootPath>> {
    let below = root_path(&format!("rootfs[{i}].target"), &mount.target)?;
    Ok(Some(below).filter(|below| below.as_c_str() != c"."))
}

fn mount_rootfs(
    b: &mut Builder,
    mount: &RootfsMount,
    i: usize,
    (target, below): (&Path, Option<RootPath>),
    page_size: usize,
) -> Result<()> {
    let at = |name: &str| format!("rootfs[{i}].{name}");
    let options = MountOptions::parse(mount, i, page_size)?;
    let text = |name: &str, text: &str| {
        CString::new(text).map_err(|_| invalid(format!("{}: a NUL byte in {text:?}", at(name))))
    };
    let device = match options.loop_device {
        Some(LoopDevice { direct }) => {
            let readonly = options.flags & libc::MS_RDONLY != 0;
            let (slot, path) = (b.slot(&at("source"))?, text("source", &mount.source)?);
            b.step(at("source"), Step::OpenLoop { slot, path, readonly, direct });
            Some(slot)
        }
        None => None,
    };
    let namespace = match &options.idmap {
        Some(mappings) => Some(b.user_namespace(at("options"), mappings)?),
        None => None,
    };
    // An overlay's lower layers are mapped, but not its upper one: the snapshotter has already chowned that one.
    if let Some(namespace) = namespace.filter(|_| mount.fstype == "overlay") {
        for layer in option::lower(mount) {
            b.step(at("options"), Step::Idmap { namespace, path: text("options", layer)? });
        }
    }
    let target = host_path("bundle", target)?;
    let step = Step::MountRootfs {
        device,
        fstype: text("type", &mount.fstype)?,
        source: text("source", &mount.source)?,
        target: target.clone(),
        flags: options.flags,
        data: text("options", &options.data)?,
        chdir: options.chdir.map(|dir| text("options", &dir)).transpose()?,
    };
    b.step(format!("rootfs[{i}]"), step);
    let namespace = namespace.filter(|_| mount.fstype != "overlay");
    match (below, namespace) {
        (Some(below), namespace) => b.step(at("target"), Step::MoveBelow { target, below, namespace }),
        (None, Some(namespace)) => b.step(at("options"), Step::Idmap { namespace, path: target }),
        (None, None) => {}
    }
    Ok(())
}

/// Makes the root `/`.
pub(super) fn enter(b: &mut Builder, input: &Input<'_>) -> Result<()> {
    let spec = input.spec;
    if let Some(revealing) = input.no_pivot_root {
        if matches!(spec.rootfs_propagation, Some(Propagation { flag: libc::MS_PRIVATE, .. })) {
            // What the host mounts later would be hidden below the root, but still there.
            return Err(invalid("linux.rootfsPropagation: private is not safe without pivot_root"));
        }
        if matches!(spec.namespaces.mount, Ns::Join(_)) {
            // The mounts in that namespace are not known before the clone.
            return Err(invalid(
                "linux.namespaces: a mount namespace by path is not safe without pivot_root",
            ));
        }
        let root = tidy(&input.bundle.join(&spec.root.path));
        // Mounts on top of others go first.
        for target in revealing.iter().rev().filter(|target| !target.starts_with(&root)) {
            b.step("root.path", Step::Detach { target: host_path("root.path", target)? });
        }
        b.step("root.path", Step::MoveRoot);
    } else {
        b.step("root.path", Step::Pivot);
    }
    // The root has been private since it was opened, and so are its binds unless they set their own propagation, which
    // is not overridden (as in runc).
    if let Some(propagation) = spec.rootfs_propagation.filter(|p| p.flag != libc::MS_PRIVATE) {
        b.step("linux.rootfsPropagation", Step::RootPropagation(propagation));
    }
    if let Some(name) = &spec.hostname {
        b.step("hostname", Step::Hostname(name.clone()));
    }
    // runc writes the equivalent sysctl after the field.
    let overruled = spec.sysctls.iter().any(|sysctl| sysctl.path.as_c_str() == c"kernel/domainname");
    if let Some(name) = spec.domainname.as_ref().filter(|_| !overruled) {
        b.step("domainname", Step::Domainname(name.clone()));
    }
    Ok(())
}
