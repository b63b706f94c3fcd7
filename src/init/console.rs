//! The container's terminal and its standard streams.

use super::state::State;
use super::Lent;
use crate::sys::child::console::WindowSize;
use crate::sys::child::fd::{self, AsFd, BorrowedFd, OwnedFd};
use crate::sys::child::walk::Missing;
use crate::sys::child::{console, mount, root, Errno, Forked, Result};
use ::core::prelude::rust_2021::*;
use ::libc;

/// fchown(2) leaves the group as the devpts has set it.
const SAME_GROUP: u32 = u32::MAX;

/// Opens a terminal in the container's own devpts; returns the shim's side of it. Neither side is found by a name that
/// the container could have set up: the multiplexer is checked to be one, and the slave comes from it (CVE-2025-52565).
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

/// Makes the slave descriptors 0, 1 and 2.
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

/// Gives the streams to a user of the host, from outside a user namespace.
pub(super) fn give_all(lent: &Lent<'_>, uid: u32) -> Result<()> {
    lent.ends.into_iter().flatten().try_for_each(|end| give(end, uid))
}

/// Opens the container's own null device. The host's is one inode for everyone: root with a descriptor of it could
/// change its mode and owner.
fn null() -> Result<OwnedFd> {
    // Not O_RDONLY or O_WRONLY: the container may have put a FIFO there, and only opening both ends never blocks.
    let null = fd::open(c"/dev/null", libc::O_RDWR | libc::O_NOFOLLOW | libc::O_NOCTTY, 0)?;
    if !fd::stat(null.as_fd())?.is_character_device(1, 3) {
        return Err(Errno::ENODEV);
    }
    fd::above_standard(null)
}

/// Makes `uid` the owner: a program that has given up root must still be able to open /dev/stdout, which is a FIFO or
/// file that somebody else owns. Devices are left alone: everyone shares /dev/null.
fn give(end: BorrowedFd<'_>, uid: u32) -> Result<()> {
    let stat = fd::stat(end)?;
    if stat.uid == uid || !(stat.kind() == libc::S_IFIFO || stat.kind() == libc::S_IFREG) {
        return Ok(());
    }
    match fd::give(end, uid, stat.gid) {
        // A read-only filesystem, or an owner that we may not change: the program can still use 0, 1 and 2.
        Err(Errno::EINVAL | Errno::EPERM | Errno::EROFS) => Ok(()),
        answer => answer,
    }
}
