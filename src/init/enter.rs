//! Entering the new root, and small actions around it.

use super::state::State;
use crate::plan::step::SchedAttr;
use crate::sys::child::fd::{self, AsFd, AsRawFd, BorrowedFd, OwnedFd};
use crate::sys::child::keyring::Search;
use crate::sys::child::limits::{self, Schedule};
use crate::sys::child::walk::PathBuffer;
use crate::sys::child::{self as sys, entry, exec, mount, root, Errno, Forked, Result};
use ::core::ffi::CStr;
use ::core::prelude::rust_2021::*;
use ::libc;

/// Moves the calling thread, which is all of the process.
pub(super) fn resctrl(tasks: &CStr) -> Result<()> {
    let tasks = fd::open(tasks, libc::O_WRONLY, 0)?;
    fd::write(tasks.as_fd(), b"0").map(drop)
}

/// The score stays if it cannot be lowered: only the host's root may do that, and root of the shim's own user namespace is
/// not.
pub(super) fn oom_score_adj(score: i32) -> Result<()> {
    let mut digits = [0u8; 12];
    let text = decimal(score, &mut digits);
    let file = host_proc(c"self/oom_score_adj")?;
    match fd::write(file.as_fd(), text) {
        Err(Errno::EACCES) => Ok(()),
        answer => answer.map(drop),
    }
}

/// Only possible while no process is in the time namespace.
pub(super) fn time_offsets(lines: &CStr) -> Result<()> {
    let file = host_proc(c"self/timens_offsets")?;
    fd::write(file.as_fd(), lines.to_bytes()).map(drop)
}

pub(super) fn time() -> Result<()> {
    let namespaces = host_proc_directory(c"self/ns")?;
    let namespace = fd::open_at(namespaces.as_fd(), c"time_for_children", libc::O_RDONLY, 0)?;
    sys::namespace::join(namespace.as_fd(), libc::CLONE_NEWTIME as u64)
}

pub(super) fn open_label(file: &CStr) -> Result<OwnedFd> {
    let attributes = host_proc_directory(c"thread-self/attr")?;
    root::open_plainly(attributes.as_fd(), file, libc::O_WRONLY)
}

/// None on a kernel whose keys have no labels.
pub(super) fn open_key_label() -> Result<Option<OwnedFd>> {
    match open_label(c"keycreate") {
        Err(Errno::ENOENT) => Ok(None),
        answer => answer.map(Some),
    }
}

/// Opens a file of the procfs at /proc: only before the process leaves the mount namespace, while /proc is the host's.
fn host_proc(path: &CStr) -> Result<OwnedFd> {
    let procfs = host_proc_directory(c".")?;
    let file = fd::open_at(procfs.as_fd(), path, libc::O_WRONLY, 0)?;
    if fd::filesystem(file.as_fd())? != mount::PROC_SUPER_MAGIC {
        return Err(Errno::EXDEV);
    }
    Ok(file)
}

pub(super) fn host_proc_directory(path: &CStr) -> Result<OwnedFd> {
    let procfs = fd::open(c"/proc", libc::O_PATH | libc::O_DIRECTORY, 0)?;
    let directory = fd::open_at(procfs.as_fd(), path, libc::O_PATH | libc::O_DIRECTORY, 0)?;
    if fd::filesystem(directory.as_fd())? != mount::PROC_SUPER_MAGIC {
        return Err(Errno::EXDEV);
    }
    Ok(directory)
}

/// Returns the name of an open device for mount(2), which takes no descriptor: /proc is still the host's.
pub(super) fn name_of<'a>(device: BorrowedFd<'_>, room: &'a mut [u8; 64]) -> Result<&'a CStr> {
    let mut link = [0; 16];
    let link = numbered(b"", device.as_raw_fd(), &mut link)?;
    let directory = host_proc_directory(c"self/fd")?;
    let length = entry::read_link(directory.as_fd(), link, room)?;
    // A name that fills the buffer is not terminated.
    *room.get_mut(length).ok_or(Errno::ENAMETOOLONG)? = 0;
    CStr::from_bytes_until_nul(room).map_err(|_| Errno::ENAMETOOLONG)
}

/// Returns `prefix` followed by a number.
pub(super) fn numbered<'a>(prefix: &[u8], number: i32, room: &'a mut [u8]) -> Result<&'a CStr> {
    let mut digits = [0; 12];
    let text = prefix.iter().chain(decimal(number, &mut digits)).chain(&[0]);
    for (place, byte) in room.iter_mut().zip(text) {
        *place = *byte;
    }
    CStr::from_bytes_until_nul(room).map_err(|_| Errno::ENAMETOOLONG)
}

/// Formats `number` in decimal, at the end of `room`.
fn decimal(number: i32, room: &mut [u8; 12]) -> &[u8] {
    let mut left = number.unsigned_abs();
    let mut first = room.len();
    for (at, place) in room.iter_mut().enumerate().rev() {
        if left == 0 && first < 12 {
            if number < 0 {
                *place = b'-';
                first = at;
            }
            break;
        }
        *place = b'0'.wrapping_add((left % 10) as u8);
        left /= 10;
        first = at;
    }
    room.get(first..).unwrap_or(&[])
}

/// The files that /sys/kernel/cgroup/delegate lists. Not every kernel has all of them.
const DELEGATED: [&CStr; 5] =
    [c"cgroup.procs", c"cgroup.threads", c"cgroup.subtree_control", c"memory.oom.group", c"memory.reclaim"];

/// Delegates the cgroup to `uid`; the group stays.
pub(super) fn give_cgroup(cgroup: BorrowedFd<'_>, uid: u32) -> Result<()> {
    entry::give(cgroup, c".", uid, u32::MAX)?;
    for name in DELEGATED {
        match entry::give(cgroup, name, uid, u32::MAX) {
            Err(Errno::ENOENT) => {}
            answer => answer?,
        }
    }
    Ok(())
}

/// Joins a user namespace. With `unless_own`, EINVAL means that the process is in it already (the kernel also returns it to
/// a multithreaded caller, which this is not).
pub(super) fn user(forked: Forked, namespace: BorrowedFd<'_>, unless_own: bool) -> Result<()> {
    match sys::namespace::join(namespace, libc::CLONE_NEWUSER as u64) {
        Err(Errno::EINVAL) if unless_own => return Ok(()),
        answer => answer?,
    }
    if unless_own {
        match sys::identity::set_groups(forked, &[]) {
            // The namespace forbids setgroups(2).
            Err(Errno::EPERM) => {}
            answer => answer?,
        }
    }
    // If the namespace has another owner, the change of capabilities sets this to fs.suid_dumpable.
    sys::identity::undumpable()
}

/// Calls pivot_root(2) with the old root on top of the new one, where it is then detached: it needs no directory.
pub(super) fn pivot(forked: Forked, root: BorrowedFd<'_>) -> Result<()> {
    let old = fd::open(c"/", libc::O_PATH | libc::O_DIRECTORY, 0)?;
    exec::fchdir(forked, root)?;
    mount::pivot_here(forked)?;
    // `.` is still the new root, below the old one, and its mounts would be the ones to become slaves. An unmount below
    // the old root must not propagate to the host, whatever propagation the plan sets.
    exec::fchdir(forked, old.as_fd())?;
    mount::mount(None, c".", None, libc::MS_REC | libc::MS_SLAVE, None)?;
    mount::unmount(c".", libc::MNT_DETACH)?;
    exec::chdir(forked, c"/")
}

/// Removes a mount of the host from our own mount namespace.
pub(super) fn detach(target: &CStr) -> Result<()> {
    // The host's own must stay, whatever propagation the plan sets.
    match mount::mount(None, target, None, libc::MS_REC | libc::MS_SLAVE, None) {
        // It was detached together with the mount that it was on.
        Err(Errno::ENOENT) => return Ok(()),
        answer => answer?,
    }
    match mount::unmount(target, libc::MNT_DETACH | libc::UMOUNT_NOFOLLOW) {
        // It is locked, as in a user namespace: cover it, which the kernel accepts as hidden.
        Err(Errno::EINVAL | Errno::EPERM) => mount::mount(Some(c"tmpfs"), target, Some(c"tmpfs"), 0, None),
        answer => answer,
    }
}

/// For an initramfs, which pivot_root(2) cannot replace: the old root stays mounted below.
pub(super) fn move_root(forked: Forked, root: BorrowedFd<'_>) -> Result<()> {
    exec::fchdir(forked, root)?;
    mount::mount(Some(c"."), c"/", None, libc::MS_MOVE, None)?;
    mount::chroot(forked, c".")?;
    exec::chdir(forked, c"/")
}

/// Gives the process a session keyring of its own. Keys that it makes later get SELinux's default label.
pub(super) fn keyring(
    state: &State<'_>,
    name: &CStr,
    search: Option<Search>,
    label: Option<&CStr>,
) -> Result<()> {
    let labelled = state.key_label.as_ref().zip(label);
    if let Some((file, label)) = labelled {
        fd::write(file.as_fd(), label.to_bytes())?;
    }
    match sys::keyring::join_session(name, search) {
        // A kernel without keyrings has none to protect.
        Ok(()) | Err(Errno::ENOSYS) => {}
        Err(errno) => return Err(errno),
    }
    if let Some((file, _)) = labelled {
        // As in runc, a policy may refuse it: later keys then have the container's label.
        let _ = fd::write(file.as_fd(), b"\n");
    }
    Ok(())
}

/// Enters the working directory, and verifies that it is below the root: a path such as /proc/self/fd/7 could lead
/// outside if a descriptor were left open (CVE-2024-21626; none is, but the check costs only one call).
pub(super) fn workdir(state: &mut State<'_>, path: &CStr, retry: bool) -> Result<()> {
    if state.in_workdir {
        return Ok(());
    }
    match exec::chdir(state.forked, path) {
        Err(Errno::EACCES) if retry => return Ok(()),
        answer => answer?,
    }
    let mut buffer = PathBuffer::new(b"")?;
    if exec::cwd_starts_with(buffer.room())? != b'/' {
        return Err(Errno::EXDEV);
    }
    state.in_workdir = true;
    Ok(())
}

pub(super) fn schedule(attributes: &SchedAttr) -> Result<()> {
    limits::set_schedule(Schedule {
        policy: attributes.policy,
        flags: attributes.flags,
        nice: attributes.nice,
        priority: attributes.priority,
        runtime: attributes.runtime,
        deadline: attributes.deadline,
        period: attributes.period,
        ..Default::default()
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use ::std::assert_eq;

    #[test]
    fn numbers_are_written_in_decimal() {
        let cases: [(i32, &[u8]); 6] = [
            (0, b"0"),
            (7, b"7"),
            (-1, b"-1"),
            (1000, b"1000"),
            (i32::MAX, b"2147483647"),
            (i32::MIN, b"-2147483648"),
        ];
        for (number, text) in cases {
            assert_eq!(decimal(number, &mut [0; 12]), text);
        }
    }
}
