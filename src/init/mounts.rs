//! Filesystems, bind mounts and targets created in the root, all by descriptor: a mount is complete, including its
//! attributes, before it is attached to a target that was opened inside the root (CVE-2021-30465).

use super::state::State;
use super::{copy, outpost, Lent};
use crate::plan::step::{Attributes, FsOption, Propagation, RootPath, Whole};
use crate::plan::BELOW_PROC;
use crate::sys::child::fd::{self, AsFd, BorrowedFd, OwnedFd};
use crate::sys::child::mount::{self, Change, Filesystem};
use crate::sys::child::walk::Missing;
use crate::sys::child::{entry, root, Errno, Result};
use ::core::ffi::CStr;
use ::core::prelude::rust_2021::*;
use ::libc;

const DIRECTORY: Missing = Missing::Directory(0o755);

/// Opens a procfs of the pid namespace in `pids`, which this process is not in, or of its own.
fn procfs(lent: &Lent<'_>, state: &mut State<'_>, pids: Option<BorrowedFd<'_>>) -> Result<Filesystem> {
    let procfs = Filesystem::open(c"proc")?;
    let Some(pids) = pids else { return Ok(procfs) };
    match procfs.lend(c"pidns", pids) {
        // Before Linux 6.17.
        Err(Errno::EINVAL) => outpost::procfs(lent, state, pids),
        answer => answer.map(|()| procfs),
    }
}

/// Checks that it is a procfs: the process asked for it may have sent something else.
fn checked(procfs: OwnedFd) -> Result<OwnedFd> {
    match fd::filesystem(procfs.as_fd())? {
        mount::PROC_SUPER_MAGIC => Ok(procfs),
        _ => Err(Errno::EXDEV),
    }
}

/// Mounts a procfs that no path leads to, so that writes below it cannot be redirected (CVE-2025-52881).
pub(super) fn private_procfs(
    lent: &Lent<'_>,
    state: &mut State<'_>,
    pids: Option<BorrowedFd<'_>>,
) -> Result<OwnedFd> {
    let hardened = mount::ATTR_NOSUID | mount::ATTR_NODEV | mount::ATTR_NOEXEC;
    checked(procfs(lent, state, pids)?.mount(hardened)?)
}

pub(super) fn sysctl(state: &mut State<'_>, name: &CStr, value: &CStr) -> Result<()> {
    let procfs = state.procfs.as_ref().ok_or(Errno::EBADF)?;
    let sys = root::open_plainly(procfs.as_fd(), c"sys", libc::O_PATH | libc::O_DIRECTORY)?;
    let file = root::open_plainly(sys.as_fd(), name, libc::O_WRONLY)?;
    fd::write(file.as_fd(), value.to_bytes()).map(drop)
}

/// Mounts a new filesystem; with `pids` it is a procfs.
pub(super) fn filesystem(
    lent: &Lent<'_>,
    state: &mut State<'_>,
    (fstype, pids): (&CStr, Option<BorrowedFd<'_>>),
    source: &CStr,
    options: &[FsOption],
    attributes: u64,
) -> Result<OwnedFd> {
    let filesystem = match pids {
        Some(_) => procfs(lent, state, pids)?,
        None => Filesystem::open(fstype)?,
    };
    if !source.is_empty() {
        filesystem.set(c"source", source)?;
    }
    for option in options {
        match option {
            FsOption::Flag(key) => filesystem.flag(key)?,
            FsOption::Value(key, value) => filesystem.set(key, value)?,
        }
    }
    let mounted = filesystem.mount(attributes)?;
    match pids {
        Some(_) => checked(mounted),
        None => Ok(mounted),
    }
}

/// Mounts a filesystem whose options fsconfig(2) does not take. The path is the root's, which no container chooses: it
/// is covered for a moment that no other process can observe.
pub(super) fn by_path(
    state: &State<'_>,
    fstype: &CStr,
    source: &CStr,
    whole: &Whole,
    attributes: u64,
) -> Result<OwnedFd> {
    let place = state.root_path.ok_or(Errno::EBADF)?;
    mount::mount(Some(source), place, Some(fstype), whole.flags, Some(&whole.data))?;
    let tree = mount::clone_tree(place, false);
    mount::unmount(place, libc::MNT_DETACH)?;
    let tree = tree?;
    // The atime modes are an enumeration.
    let clear = if attributes & libc::MOUNT_ATTR__ATIME != 0 { libc::MOUNT_ATTR__ATIME } else { 0 };
    let change = Change { set: attributes, clear, propagation: 0 };
    if !change.is_empty() {
        mount::change(tree.as_fd(), change, false)?;
    }
    Ok(tree)
}

/// The directories in which masked and read-only paths expect the kernel's own filesystems.
const MASKED: [&[u8]; 2] = [b"proc", b"sys"];

/// A procfs or sysfs must be mounted at the path given, not where a symlink of the image leads: it would escape the
/// masks there, which apply by path (CVE-2019-19921, CVE-2023-27561).
fn is_of_kernel(tree: BorrowedFd<'_>) -> Result<bool> {
    Ok(matches!(fd::filesystem(tree)?, mount::PROC_SUPER_MAGIC | mount::SYSFS_MAGIC))
}

/// What to take over from the directory that a new filesystem covers.
#[derive(Clone, Copy)]
pub(super) struct Covers {
    /// Its mode becomes that of the new filesystem's root.
    pub(super) inherit_mode: bool,
    /// Its contents are copied.
    pub(super) copy_up: bool,
}

pub(super) fn attach_filesystem(
    root: BorrowedFd<'_>,
    tree: OwnedFd,
    path: &RootPath,
    propagation: Option<Propagation>,
    covers: Covers,
) -> Result<()> {
    let existed =
        if covers.inherit_mode { root::open(root, path.as_c_str(), libc::O_PATH).ok() } else { None };
    let target = match existed {
        Some(target) => {
            let mode = fd::stat(target.as_fd())?.mode & 0o7777;
            entry::set_mode(tree.as_fd(), c".", mode)?;
            target
        }
        None if is_of_kernel(tree.as_fd())? => root::ordinary_directory(root, path.as_c_str())?,
        None => root::open_or_create(root, path.as_c_str(), DIRECTORY)?,
    };
    refuse_procfs(target.as_fd(), path)?;
    if covers.copy_up {
        copy::contents(target.as_fd(), tree.as_fd())?;
    }
    if let Some(propagation) = propagation {
        propagate(tree.as_fd(), propagation)?;
    }
    mount::attach(tree.as_fd(), target.as_fd())
}

pub(super) fn attach_tree(
    root: BorrowedFd<'_>,
    tree: BorrowedFd<'_>,
    path: &RootPath,
    attributes: Attributes,
    propagation: &[Propagation],
) -> Result<()> {
    apply(tree, attributes)?;
    for propagation in propagation {
        propagate(tree, *propagation)?;
    }
    let target = mount_point(root, tree, path)?;
    refuse_procfs(target.as_fd(), path)?;
    mount::attach(tree, target.as_fd())
}

/// What a tree is to be mounted on, made if it is missing.
pub(super) fn mount_point(root: BorrowedFd<'_>, tree: BorrowedFd<'_>, path: &RootPath) -> Result<OwnedFd> {
    if MASKED.contains(&path.as_c_str().to_bytes()) && is_of_kernel(tree)? {
        return root::ordinary_directory(root, path.as_c_str());
    }
    let missing = if fd::stat(tree)?.is_directory() { DIRECTORY } else { Missing::File(0o755) };
    root::open_or_create(root, path.as_c_str(), missing)
}

/// Refuses a target in procfs with EPERM, however its path was written: a mount that hides a file of /proc could
/// redirect a later write to it, e.g. of a label (CVE-2019-16884).
fn refuse_procfs(target: BorrowedFd<'_>, path: &RootPath) -> Result<()> {
    if fd::filesystem(target)? != mount::PROC_SUPER_MAGIC {
        return Ok(());
    }
    let path = path.as_c_str();
    // A procfs itself: a second one on top of the first.
    if path == c"proc" || BELOW_PROC.contains(&path) {
        Ok(())
    } else {
        Err(Errno::EPERM)
    }
}

/// Mounts a rootfs as containerd's Go code does: the mount, its propagation, and the remount that makes a bind
/// read-only.
pub(super) fn rootfs(fstype: &CStr, source: &CStr, target: &CStr, flags: u64, data: &CStr) -> Result<()> {
    const PROPAGATION: u64 = libc::MS_SHARED | libc::MS_PRIVATE | libc::MS_SLAVE | libc::MS_UNBINDABLE;
    const READONLY_BIND: u64 = libc::MS_BIND | libc::MS_RDONLY;
    let some = |text| Some(text).filter(|text: &&CStr| !text.is_empty());
    let first = flags & !PROPAGATION;
    mount::mount(some(source), target, some(fstype), first, some(data))?;
    if flags & PROPAGATION != 0 {
        mount::mount(None, target, None, flags & (PROPAGATION | libc::MS_REC | libc::MS_SILENT), None)?;
    }
    if first & READONLY_BIND == READONLY_BIND {
        mount::mount(None, target, None, first | libc::MS_REMOUNT, None)?;
    }
    Ok(())
}

/// Covers `path` with a copy that has other owners.
pub(super) fn map_ids(namespace: BorrowedFd<'_>, path: &CStr) -> Result<()> {
    let tree = mount::clone_tree(path, false)?;
    mount::map_ids(tree.as_fd(), namespace, false)?;
    let target = fd::open(path, libc::O_PATH, 0)?;
    mount::attach(tree.as_fd(), target.as_fd())
}

/// Moves what is mounted at `path` to the directory `below` in what it covers. A `namespace` maps its owners.
pub(super) fn move_below(path: &CStr, below: &RootPath, namespace: Option<BorrowedFd<'_>>) -> Result<()> {
    let tree = mount::clone_tree(path, namespace.is_none())?;
    if let Some(namespace) = namespace {
        mount::map_ids(tree.as_fd(), namespace, false)?;
    }
    mount::unmount(path, libc::MNT_DETACH)?;
    let root = fd::open(path, libc::O_PATH, 0)?;
    let target = root::open(root.as_fd(), below.as_c_str(), libc::O_PATH)?;
    mount::attach(tree.as_fd(), target.as_fd())
}

/// An OCI mount with `remount`: changes the attributes of the mount at `target`. EINVAL if there is none.
pub(super) fn remount(root: BorrowedFd<'_>, target: &RootPath, attributes: Attributes) -> Result<()> {
    let target = root::open(root, target.as_c_str(), libc::O_PATH)?;
    apply(target.as_fd(), attributes)
}

fn apply(mount: BorrowedFd<'_>, attributes: Attributes) -> Result<()> {
    let deep = Change { set: attributes.recursive_set, clear: attributes.recursive_clear, propagation: 0 };
    if !deep.is_empty() {
        mount::change(mount, deep, true)?;
    }
    let flat = Change { set: attributes.set, clear: attributes.clear, propagation: 0 };
    if !flat.is_empty() {
        mount::change(mount, flat, false)?;
    }
    Ok(())
}

fn propagate(mount: BorrowedFd<'_>, propagation: Propagation) -> Result<()> {
    let change = Change { propagation: propagation.flag, ..Default::default() };
    mount::change(mount, change, propagation.recursive)
}
