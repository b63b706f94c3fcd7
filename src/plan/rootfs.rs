//! The root filesystem: mounted or bound, opened, and finally made `/`.

mod option;

use super::builder::{host_path, tidy, Builder};
use super::{Input, RootfsMount, Step};
use crate::error::{invalid, Error, Kind, Result};
use crate::spec::mount::Propagation;
use crate::spec::Ns;
use option::{LoopDevice, MountOptions};
use std::ffi::CString;
use std::path::{Path, PathBuf};

/// Where the rootfs mounts of the request go, as in the Go shim.
fn mountpoint(input: &Input<'_>) -> PathBuf {
    tidy(&input.bundle.join("rootfs"))
}

/// Mounts the rootfs of the request. These mounts exist only in the container's mount namespace, so they cannot outlive
/// it.
pub(super) fn mounts(b: &mut Builder, input: &Input<'_>) -> Result<()> {
    for (i, mount) in input.rootfs.iter().enumerate() {
        mount_rootfs(b, mount, i, &mountpoint(input), input.host.page_size)?;
    }
    Ok(())
}

/// Opens the root. In a user namespace it is always bound: earlier mounts are locked there (mount_namespaces(7)), and
/// pivot_root(2) refuses locked mounts.
pub(super) fn root(b: &mut Builder, input: &Input<'_>) -> Result<()> {
    let root = tidy(&input.bundle.join(&input.spec.root.path));
    let target = host_path("root.path", &root)?;
    b.root.clone_from(&root);
    if input.rootfs.is_empty() || root != mountpoint(input) || b.user.is_some() {
        b.step("root.path", Step::BindRoot { target: target.clone() });
    }
    b.step("root.path", Step::OpenRoot { target, private: true });
    Ok(())
}

/// Opens the root for an exec, which is in the container's mount namespace by then and changes nothing there.
pub(super) fn look_only(b: &mut Builder) {
    b.step("process.terminal", Step::OpenRoot { target: c"/".into(), private: false });
}

fn mount_rootfs(
    b: &mut Builder,
    mount: &RootfsMount,
    i: usize,
    target: &Path,
    page_size: usize,
) -> Result<()> {
    let at = |name: &str| format!("rootfs[{i}].{name}");
    let refuse = |name: &str, what: &str| Err(Error::new(Kind::Unsupported, format!("{}: {what}", at(name))));
    if !matches!(mount.target.as_str(), "" | "/" | ".") {
        return refuse("target", "a mount below the root is not supported");
    }
    if mount.fstype.starts_with("fuse.") || mount.fstype.starts_with("fuse3.") {
        return refuse("type", "mount helpers of FUSE are not supported");
    }
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
    if let Some(namespace) = namespace.filter(|_| mount.fstype != "overlay") {
        b.step(at("options"), Step::Idmap { namespace, path: target });
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
