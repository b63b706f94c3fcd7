//! A copy of the mount namespace that a user namespace owns, for a process that stays root on the host.
//!
//! Copying a mount namespace into another user namespace locks the mounts' flags, so a process in that user namespace
//! has to make the copy. It is gone before this process continues, and only processes in the host's pid namespace could
//! have seen it.

use crate::sys::child::fd::{self, AsFd, BorrowedFd, OwnedFd};
use crate::sys::child::{clone, exec, identity, namespace, socket, wait, Errno, Result};
use ::core::convert::Infallible;
use ::core::prelude::rust_2021::*;
use ::libc;

pub(super) fn mounts(user: BorrowedFd<'_>) -> Result<()> {
    let (ours, theirs) = socket::pair()?;
    let act = |forked| -> Infallible {
        let sent = copy(user).and_then(|copy| socket::send(theirs.as_fd(), &[0], Some(copy.as_fd())));
        exec::exit(forked, sent.map_or_else(|errno| errno as i32, |()| 0))
    };
    let child = clone::clone(0, None, act)?;
    let ended = wait::reap(child.pid)?;
    if ended.code != 0 {
        return Err(i32::try_from(ended.code).map_or(Errno::ECHILD, Errno::from_raw));
    }
    match socket::receive(ours.as_fd(), &mut [0])? {
        (_, Some(copy)) => namespace::join(copy.as_fd(), libc::CLONE_NEWNS as u64),
        _ => Err(Errno::ECHILD),
    }
}

fn copy(user: BorrowedFd<'_>) -> Result<OwnedFd> {
    namespace::join(user, libc::CLONE_NEWUSER as u64)?;
    // The change of capabilities sets this to fs.suid_dumpable.
    identity::undumpable()?;
    namespace::unshare(libc::CLONE_NEWNS as u64)?;
    fd::open(c"/proc/self/ns/mnt", libc::O_RDONLY, 0)
}
