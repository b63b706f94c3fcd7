//! A namespace that a user namespace owns, for a process that stays root on the host.
//!
//! A process in that user namespace has to make it: copying a mount namespace into another user namespace locks the
//! mounts' flags, and root inside has rights only over a network that its user namespace owns. That process is gone
//! before this one continues, and only processes in the host's pid namespace could have seen it.

use crate::sys::child::fd::{self, AsFd, BorrowedFd, OwnedFd};
use crate::sys::child::{clone, exec, identity, namespace, socket, wait, Errno, Result};
use ::core::convert::Infallible;
use ::core::ffi::CStr;
use ::core::prelude::rust_2021::*;
use ::libc;

pub(super) fn mounts(user: BorrowedFd<'_>) -> Result<()> {
    enter(user, libc::CLONE_NEWNS as u64, c"/proc/self/ns/mnt")
}

pub(super) fn network(user: BorrowedFd<'_>) -> Result<()> {
    enter(user, libc::CLONE_NEWNET as u64, c"/proc/self/ns/net")
}

fn enter(user: BorrowedFd<'_>, kind: u64, file: &CStr) -> Result<()> {
    let (ours, theirs) = socket::pair()?;
    let act = |forked| -> Infallible {
        let made = make(user, kind, file);
        let sent = made.and_then(|made| socket::send(theirs.as_fd(), &[0], Some(made.as_fd())));
        exec::exit(forked, sent.map_or_else(|errno| errno as i32, |()| 0))
    };
    let child = clone::clone(0, None, act)?;
    let ended = wait::reap(child.pid)?;
    if ended.code != 0 {
        return Err(i32::try_from(ended.code).map_or(Errno::ECHILD, Errno::from_raw));
    }
    match socket::receive(ours.as_fd(), &mut [0])? {
        (_, Some(made)) => namespace::join(made.as_fd(), kind),
        _ => Err(Errno::ECHILD),
    }
}

fn make(user: BorrowedFd<'_>, kind: u64, file: &CStr) -> Result<OwnedFd> {
    namespace::join(user, libc::CLONE_NEWUSER as u64)?;
    // The change of capabilities sets this to fs.suid_dumpable.
    identity::undumpable()?;
    namespace::unshare(kind)?;
    fd::open(file, libc::O_RDONLY, 0)
}
