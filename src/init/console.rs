//! The container's terminal and its standard streams.

use super::state::State;
use super::Lent;
use crate::sys::child::console::WindowSize;
use crate::sys::child::fd::{self, AsFd, BorrowedFd, OwnedFd};
use crate::sys::child::walk::Missing;
use crate::sys::child::{console, mount, root, Errno, Forked, Result};
use ::core::prelude::rust_2021::*;
use ::libc;

/// fchown(2): the group that the devpts gives is left.
const SAME_GROUP: u32 = u32::MAX;

/// Makes a terminal in the container's own devpts; returns the shim's side of it. Neither side is found by a name that the container could have
/// set up: the multiplexer is checked to be one, and the slave comes from it (CVE-2025-52565).
pub(super) fn open(state: &mut State<'_>, size: WindowSize, uid: u32, bind: bool) -> Result<OwnedFd> {
    let flags = libc::O_RDWR | libc::O_NOCTTY;
    let master = root::open(state.root()?, c"dev/pts/ptmx", flags)?;
    if fd::filesystem(master.as_fd())? != console::DEVPTS_SUPER_MAGIC
        || !fd::stat(master.as_fd())?.is_character_device(5, 2)
    {
        return Err(Errno::ENODEV);
    }
    console::unlock(master.as_fd())?;
    let slave = console::slave(master.as_fd())?;
    if size.rows != 0 || size.columns != 0 {
        console::resize(master.as_fd(), size)?;
    }
    fd::give(slave.as_fd(), uid, SAME_GROUP)?;
    if bind {
        let target = root::open_or_create(state.root()?, c"dev/console", Missing::File(0o666))?;
        let device = mount::clone_tree_of(slave.as_fd(), false)?;
        mount::attach(device.as_fd(), target.as_fd())?;
    }
    state.terminal = Some(slave);
    Ok(master)
}

/// The slave becomes 0, 1 and 2.
pub(super) fn become_standard(state: &mut State<'_>) -> Result<()> {
    let slave = state.terminal.as_ref().ok_or(Errno::EBADF)?.as_fd();
    for number in 0..3 {
        fd::install(state.forked, slave, number)?;
    }
    Ok(())
}

pub(super) fn streams(forked: Forked, lent: &Lent<'_>, uid: u32) -> Result<()> {
    let ends = lent.ends.ok_or(Errno::EBADF)?;
    for (number, end) in (0..).zip(ends) {
        if fd::stat(end)?.is_character_device(1, 3) {
            fd::install(forked, null()?.as_fd(), number)?;
        } else {
            give(end, uid)?;
            fd::install(forked, end, number)?;
        }
    }
    Ok(())
}

/// To a user of the host, from outside of a user namespace.
pub(super) fn give_all(lent: &Lent<'_>, uid: u32) -> Result<()> {
    lent.ends.into_iter().flatten().try_for_each(|end| give(end, uid))
}

/// The container's own null device. The host's is one inode for everybody: whoever has a descriptor of it and is
/// root may change its mode and its owner.
fn null() -> Result<OwnedFd> {
    // Not O_RDONLY or O_WRONLY: the container may have put a fifo there, and only both ends never wait.
    let null = fd::open(c"/dev/null", libc::O_RDWR | libc::O_NOFOLLOW | libc::O_NOCTTY, 0)?;
    if !fd::stat(null.as_fd())?.is_character_device(1, 3) {
        return Err(Errno::ENODEV);
    }
    fd::above_standard(null)
}

/// A program that gave up root must still be able to open /dev/stdout, which is a fifo or a file of somebody
/// else's. Devices are left alone: /dev/null is everybody's.
fn give(end: BorrowedFd<'_>, uid: u32) -> Result<()> {
    let stat = fd::stat(end)?;
    if stat.uid == uid || !(stat.kind() == libc::S_IFIFO || stat.kind() == libc::S_IFREG) {
        return Ok(());
    }
    match fd::give(end, uid, stat.gid) {
        // A read-only filesystem, or an owner that is not ours to change: the program can still use 0, 1 and 2.
        Err(Errno::EINVAL | Errno::EPERM | Errno::EROFS) => Ok(()),
        answer => answer,
    }
}
