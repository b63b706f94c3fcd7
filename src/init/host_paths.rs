//! Opens paths of the host: bind sources, namespaces, the files behind loop devices. Such a path can lead to a
//! filesystem that never answers; this process has a time limit, and can be killed.
//!
//! The file found may not be what the plan means. These errnos, which the calls that open it never return, say so: the
//! shim turns them into sentences.

use super::{enter, Lent};
use crate::plan::step::Slot;
use crate::sys::child::fd::{self, AsFd, BorrowedFd, OwnedFd};
use crate::sys::child::{loop_device, mount, namespace, Errno, Result};
use ::core::ffi::CStr;
use ::core::prelude::rust_2021::*;
use ::libc;

/// Not a namespace at all.
pub const NO_NAMESPACE: Errno = Errno::ENOTTY;
/// A namespace of another kind.
pub const OTHER_KIND: Errno = Errno::EPROTOTYPE;
/// The host's own.
pub const OF_THE_HOST: Errno = Errno::ENOTUNIQ;
/// Another device.
pub const OTHER_DEVICE: Errno = Errno::ENODEV;

/// Opens the user namespace that owns a namespace.
pub(super) fn owner(lent: &Lent<'_>, slot: Slot, of: BorrowedFd<'_>) -> Result<()> {
    lent.fill(slot, namespace::owner(of)?)?;
    refuse_own(lent.slot(slot)?, libc::CLONE_NEWUSER as u64)
}

/// Opens a namespace file; a lent one is only checked.
pub(super) fn namespace(lent: &Lent<'_>, slot: Slot, path: &CStr, kind: u64, private: bool) -> Result<()> {
    if let Slot::Opened(_) = slot {
        // Opening a FIFO would wait for a writer.
        lent.fill(slot, fd::open(path, libc::O_RDONLY | libc::O_NONBLOCK | libc::O_NOCTTY, 0)?)?;
    }
    let file = lent.slot(slot)?;
    if fd::filesystem(file)? != namespace::NSFS_MAGIC {
        return Err(NO_NAMESPACE);
    }
    if namespace::kind(file)? != kind {
        return Err(OTHER_KIND);
    }
    if private {
        refuse_own(file, kind)
    } else {
        Ok(())
    }
}

/// Refuses the shim's own namespace, and that of the host's first process: what the container does would be done to the
/// host. This process is still in the shim's namespace of every kind that is joined by path.
fn refuse_own(file: BorrowedFd<'_>, kind: u64) -> Result<()> {
    let [own, first] = match kind as i32 {
        libc::CLONE_NEWNS => [c"/proc/self/ns/mnt", c"/proc/1/ns/mnt"],
        libc::CLONE_NEWNET => [c"/proc/self/ns/net", c"/proc/1/ns/net"],
        libc::CLONE_NEWIPC => [c"/proc/self/ns/ipc", c"/proc/1/ns/ipc"],
        libc::CLONE_NEWPID => [c"/proc/self/ns/pid", c"/proc/1/ns/pid"],
        libc::CLONE_NEWUTS => [c"/proc/self/ns/uts", c"/proc/1/ns/uts"],
        libc::CLONE_NEWUSER => [c"/proc/self/ns/user", c"/proc/1/ns/user"],
        libc::CLONE_NEWCGROUP => [c"/proc/self/ns/cgroup", c"/proc/1/ns/cgroup"],
        _ => return Err(Errno::EINVAL),
    };
    let inode_of = |name| fd::open(name, libc::O_RDONLY, 0).and_then(|file| fd::stat(file.as_fd()));
    let found = fd::stat(file)?.inode;
    // The first process may be invisible; our own namespace must not be.
    if inode_of(own)?.inode == found || inode_of(first).is_ok_and(|first| first.inode == found) {
        return Err(OF_THE_HOST);
    }
    Ok(())
}

/// Opens a device's node as a detached mount.
pub(super) fn device(path: &CStr, kind: u32, (major, minor): (u32, u32)) -> Result<OwnedFd> {
    let node = mount::clone_tree(path, false)?;
    let stat = fd::stat(node.as_fd())?;
    if stat.kind() != kind || stat.device != libc::makedev(major, minor) {
        return Err(OTHER_DEVICE);
    }
    Ok(node)
}

/// Opens a loop device backed by the file at `path`.
pub(super) fn loop_device(path: &CStr, options: loop_device::Options) -> Result<OwnedFd> {
    let access = if options.readonly { libc::O_RDONLY } else { libc::O_RDWR };
    let device = |number| {
        let mut room = [0; 32];
        let number = i32::try_from(number).map_err(|_| Errno::EOVERFLOW)?;
        fd::open(enter::numbered(b"/dev/loop", number, &mut room)?, access, 0)
    };
    loop_device::open(path, options, device)
}
