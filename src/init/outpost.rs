//! Creates a procfs of a pid namespace that this process is not in, on kernels without the `pidns` option (before Linux
//! 6.17).
//!
//! There, fsopen(2) uses the caller's own pid namespace, so a process in it must make the call, and the container's
//! processes there can see, stop and take over that process. It therefore has nothing: the container's root, in a mount
//! namespace with nothing else, no descriptor but the socket for the answer, none of the shim's memory, one capability,
//! and a filter that leaves it five calls.

use super::state::State;
use super::{enter, Lent, Outpost};
use crate::sys::child::fd::{self, AsFd, BorrowedFd, OwnedFd};
use crate::sys::child::mount::Filesystem;
use crate::sys::child::{clone, exec, identity, namespace, poll, socket, wait, Errno, Forked, Key, Result};
use ::core::convert::Infallible;
use ::core::prelude::rust_2021::*;
use ::core::time::Duration;
use ::libc;
use ::std::time::Instant;

/// How long the answer may take: the container may have stopped the process.
const LIMIT: Duration = Duration::from_secs(5);
/// fsopen(2) requires it.
const CAP_SYS_ADMIN: u64 = 1 << 21;

/// Returns a procfs context that is not mounted yet. It may be another filesystem, from whoever has taken over the
/// process: the caller checks what it mounts.
pub(super) fn procfs(lent: &Lent<'_>, state: &mut State<'_>, pids: BorrowedFd<'_>) -> Result<Filesystem> {
    let outpost = lent.outpost.ok_or(Errno::EINVAL)?;
    let path = state.root_path.ok_or(Errno::EINVAL)?;
    let act = |forked| -> Infallible {
        let Err(errno) = go(forked, &outpost, path, pids);
        outpost.board.fail(0, errno as i32);
        exec::exit(forked, super::FAILED)
    };
    let parent = clone::clone(0, None, act)?;
    let ended = wait::reap(parent.pid)?;
    let Some(born) = outpost.board.born().filter(|_| ended.code == 0) else {
        return Err(refused(&outpost));
    };
    let answer = answer(&outpost);
    let _ = wait::open_pidfd(born).and_then(|pidfd| wait::signal(pidfd.as_fd(), libc::SIGKILL));
    // Not waited for: a tracer in the container can keep it. The shim reaps it once this process is gone.
    answer
}

fn answer(outpost: &Outpost<'_>) -> Result<Filesystem> {
    let deadline = Instant::now().checked_add(LIMIT).ok_or(Errno::ETIMEDOUT)?;
    if !poll::ready(outpost.answers, poll::Interest::READ, deadline)? {
        return Err(Errno::ETIMEDOUT);
    }
    match socket::receive(outpost.answers, &mut [0u8; 1])? {
        (_, Some(context)) => Ok(Filesystem::begun(context)),
        _ => Err(refused(outpost)),
    }
}

fn refused(outpost: &Outpost<'_>) -> Errno {
    outpost.board.failed().map_or(Errno::ECHILD, |(_, errno)| Errno::from_raw(errno))
}

/// Runs in a process that no other in the pid namespace sees: it gives up everything that the next one must not have.
fn go(
    forked: Forked,
    outpost: &Outpost<'_>,
    path: &::core::ffi::CStr,
    pids: BorrowedFd<'_>,
) -> Result<Infallible> {
    namespace::unshare(libc::CLONE_NEWNS as u64)?;
    let root: OwnedFd = fd::open(path, libc::O_PATH | libc::O_DIRECTORY, 0)?;
    enter::pivot(forked, root.as_fd())?;
    namespace::join(pids, libc::CLONE_NEWPID as u64)?;
    fd::close_standard(forked)?;
    identity::no_new_privs()?;
    identity::set_capabilities(forked, Key::default(), CAP_SYS_ADMIN, CAP_SYS_ADMIN, 0)?;
    identity::undumpable()?;
    outpost.last.enter(forked, None, None)
}
