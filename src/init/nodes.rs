//! Device nodes and symlinks in the root.

use super::state::State;
use super::{host_paths, mounts};
use crate::plan::step::{Attributes, RootPath};
use crate::sys::child::fd::{self, AsFd, BorrowedFd};
use crate::sys::child::walk::PathBuffer;
use crate::sys::child::{entry, Errno, Result};
use ::core::ffi::CStr;
use ::core::prelude::rust_2021::*;
use ::libc;

/// Creates a symlink; an existing file stays, as in runc.
pub(super) fn symlink<'a>(state: &mut State<'a>, path: &'a RootPath, target: &CStr) -> Result<()> {
    let (parent, name) = state.parent(path.as_c_str())?;
    match entry::make_symlink(target, parent, name) {
        Err(Errno::EEXIST) => Ok(()),
        answer => answer,
    }
}

pub(super) fn node<'a>(
    state: &mut State<'a>,
    path: &'a RootPath,
    mode: u32,
    (major, minor): (u32, u32),
    (uid, gid): (u32, u32),
) -> Result<()> {
    let (parent, name) = state.parent(path.as_c_str())?;
    match entry::make_node(parent, name, mode, major, minor) {
        Ok(()) => {}
        Err(Errno::EEXIST) => return same_node(parent, name, mode, (major, minor)),
        Err(Errno::EPERM) => return bind(state, path, mode & libc::S_IFMT, (major, minor)),
        Err(errno) => return Err(errno),
    }
    if (uid, gid) == (0, 0) {
        return Ok(());
    }
    entry::give(parent, name, uid, gid)
}

/// Binds the host's node of the same name, as runc does, with the owner and mode it has: root of the shim's own user
/// namespace cannot make devices. Read-only: root of the container must not change the host's node, and a device can be
/// written all the same. `/` is still the host's.
fn bind(state: &mut State<'_>, path: &RootPath, kind: u32, device: (u32, u32)) -> Result<()> {
    let mut host = PathBuffer::new(b"/")?;
    host.push(path.as_c_str().to_bytes())?;
    let node = match host_paths::device(host.as_c_str(), kind, device) {
        // The device that is wanted cannot be made.
        Err(host_paths::OTHER_DEVICE) => return Err(Errno::EPERM),
        node => node?,
    };
    let attributes = Attributes { set: libc::MOUNT_ATTR_RDONLY, ..Attributes::default() };
    mounts::attach_tree(state.root()?, node.as_fd(), path, attributes, &[])
}

/// Checks that an existing file of the image is the same device, and not e.g. a symlink to something else.
fn same_node(parent: BorrowedFd<'_>, name: &CStr, mode: u32, device: (u32, u32)) -> Result<()> {
    let there = fd::open_at(parent, name, libc::O_PATH | libc::O_NOFOLLOW, 0)?;
    let stat = fd::stat(there.as_fd())?;
    let kind = mode & libc::S_IFMT;
    let fits =
        stat.kind() == kind && (kind == libc::S_IFIFO || stat.device == libc::makedev(device.0, device.1));
    if fits {
        Ok(())
    } else {
        Err(Errno::EEXIST)
    }
}
