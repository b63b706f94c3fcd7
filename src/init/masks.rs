//! Masked and read-only paths.

use super::state::State;
use crate::plan::step::RootPath;
use crate::sys::child::fd::{self, AsFd, BorrowedFd, OwnedFd};
use crate::sys::child::mount::{self, Change, Filesystem};
use crate::sys::child::{root, Errno, Result};
use ::core::prelude::rust_2021::*;
use ::libc;

/// Opens the path to hide or protect; a missing one needs neither.
fn find(root: BorrowedFd<'_>, path: &RootPath) -> Result<Option<OwnedFd>> {
    match root::open(root, path.as_c_str(), libc::O_PATH) {
        Ok(found) => Ok(Some(found)),
        Err(Errno::ENOENT | Errno::ENOTDIR) => Ok(None),
        Err(errno) => Err(errno),
    }
}

pub(super) fn mask(state: &mut State<'_>, path: &RootPath) -> Result<()> {
    let Some(target) = find(state.root()?, path)? else { return Ok(()) };
    let directory = fd::stat(target.as_fd())?.is_directory();
    let covers = &mut state.covers;
    let register = if directory { &mut covers.directory } else { &mut covers.file };
    if let Some(first) = register {
        let cover = mount::clone_tree_of(first.as_fd(), false)?;
        return mount::attach(cover.as_fd(), target.as_fd());
    }
    // The first is attached before it is copied: detached mounts can only be copied since Linux 6.15.
    let first = if directory { empty_directory()? } else { null()? };
    mount::attach(first.as_fd(), target.as_fd())?;
    *register = Some(first);
    Ok(())
}

fn empty_directory() -> Result<OwnedFd> {
    let filesystem = Filesystem::open(c"tmpfs")?;
    filesystem.set(c"source", c"tmpfs")?;
    filesystem.set(c"nr_blocks", c"1")?;
    filesystem.set(c"nr_inodes", c"1")?;
    filesystem.flag(c"ro")?;
    filesystem.mount(mount::ATTR_RDONLY)
}

/// Opens the host's /dev/null, by its path in our own mount namespace: masks come before the pivot. The mount is
/// read-only, so that the device can still be read and written, but the container cannot change the mode or owner of
/// the host's node.
fn null() -> Result<OwnedFd> {
    let null = fd::open(c"/dev/null", libc::O_PATH | libc::O_NOFOLLOW, 0)?;
    if !fd::stat(null.as_fd())?.is_character_device(1, 3) {
        return Err(Errno::ENODEV);
    }
    let cover = mount::clone_tree_of(null.as_fd(), false)?;
    let set = mount::ATTR_RDONLY | mount::ATTR_NOSUID | mount::ATTR_NOEXEC;
    // Private: later events in the host's /dev do not concern the container.
    let propagation = libc::MS_PRIVATE;
    mount::change(cover.as_fd(), Change { set, propagation, ..Default::default() }, false)?;
    Ok(cover)
}

pub(super) fn readonly(root: BorrowedFd<'_>, path: &RootPath) -> Result<()> {
    let Some(target) = find(root, path)? else { return Ok(()) };
    let copy = mount::clone_tree_of(target.as_fd(), true)?;
    mount::change(copy.as_fd(), Change { set: mount::ATTR_RDONLY, ..Default::default() }, true)?;
    mount::attach(copy.as_fd(), target.as_fd())
}
