//! /dev: the default nodes, the spec's, the links, the console (config-linux.md, "Default Devices").

use super::builder::{host_path, root_path, Builder};
use super::mount::binds_follow;
use super::{Host, RootPath, Step};
use crate::error::Result;
use crate::spec::mount::{Attributes, Propagation, Source};
use crate::spec::{Process, Spec};
use std::collections::HashSet;
use std::path::Path;

/// Name, major and minor number.
const DEFAULT: [(&str, u32, u32); 6] = [
    ("/dev/null", 1, 3),
    ("/dev/random", 1, 8),
    ("/dev/full", 1, 7),
    ("/dev/tty", 5, 0),
    ("/dev/zero", 1, 5),
    ("/dev/urandom", 1, 9),
];

const LINKS: [(&str, &std::ffi::CStr); 5] = [
    ("/dev/ptmx", c"pts/ptmx"),
    ("/dev/fd", c"/proc/self/fd"),
    ("/dev/stdin", c"/proc/self/fd/0"),
    ("/dev/stdout", c"/proc/self/fd/1"),
    ("/dev/stderr", c"/proc/self/fd/2"),
];

pub(super) fn all(b: &mut Builder, spec: &Spec, host: &Host) -> Result<()> {
    if is_given(spec)? {
        return Ok(());
    }
    // Two spellings of one path are one node.
    let mut made: HashSet<RootPath> = HashSet::new();
    let mut own = Vec::new();
    for (i, device) in spec.devices.iter().enumerate() {
        let field = format!("linux.devices[{i}]");
        let path = root_path(&field, &device.path)?;
        // /dev/ptmx is the link to the container's own devpts.
        if path.as_c_str() != c"dev/ptmx" && made.insert(path.clone()) {
            let (mode, major, minor) = (device.mode, device.major, device.minor);
            let node = Step::Mknod { path, mode, major, minor, uid: device.uid, gid: device.gid };
            own.push((field, device.path.as_str(), node));
        }
    }
    let follow = binds_follow(spec);
    for (name, major, minor) in DEFAULT {
        let path = root_path("linux.devices", name)?;
        if !made.contains(&path) {
            let mode = libc::S_IFCHR | 0o666;
            let node = Step::Mknod { path, mode, major, minor, uid: 0, gid: 0 };
            make(b, "linux.devices".into(), name, node, follow)?;
        }
    }
    for (field, name, node) in own {
        make(b, field, name, node, follow)?;
    }
    for (path, target) in LINKS {
        b.step(
            "linux.devices",
            Step::Symlink { path: root_path("linux.devices", path)?, target: target.into() },
        );
    }
    if host.kcore {
        let path = root_path("linux.devices", "/dev/core")?;
        b.step("linux.devices", Step::Symlink { path, target: c"/proc/kcore".into() });
    }
    Ok(())
}

/// Adds a node; in a user namespace, where mknod(2) cannot create devices, binds the host's node of the same name, with
/// the owner and mode it has, as runc does.
fn make(b: &mut Builder, field: String, name: &str, node: Step, follow: Option<Propagation>) -> Result<()> {
    let step = match node {
        Step::Mknod { path, mode, major, minor, .. }
            if b.user.is_some() && mode & libc::S_IFMT != libc::S_IFIFO =>
        {
            let kind = mode & libc::S_IFMT;
            let slot = b.slot(&field)?;
            let device = host_path(&field, Path::new(name))?;
            b.source(field.clone(), Step::OpenDevice { slot, path: device, kind, major, minor });
            Step::Attach {
                slot,
                target: path,
                attributes: Attributes::default(),
                propagation: follow.into_iter().collect(),
            }
        }
        node => node,
    };
    b.step(field, step);
    Ok(())
}

/// A bind mount on /dev belongs to somebody else: nothing is created in it.
fn is_given(spec: &Spec) -> Result<bool> {
    for (i, mount) in spec.mounts.iter().enumerate() {
        let target = root_path(&format!("mounts[{i}].destination"), &mount.destination)?;
        if target.as_c_str() == c"dev" && matches!(mount.source, Source::Bind { .. }) {
            return Ok(true);
        }
    }
    Ok(false)
}

/// `bind` mounts it on /dev/console: only the first process's terminal is the container's console.
pub(super) fn console(b: &mut Builder, process: &Process, bind: bool) {
    if process.terminal {
        let step =
            Step::Console { rows: process.rows, columns: process.columns, uid: process.user.uid, bind };
        b.step("process.terminal", step);
    }
}
