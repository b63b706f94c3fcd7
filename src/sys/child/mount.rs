//! Mounts: the descriptor-based calls (fsopen(2), open_tree(2), move_mount(2), mount_setattr(2): Linux 5.2 to 5.12),
//! and mount(2) for paths of the host.

use super::fd::{own, BorrowedFd, OwnedFd};
use super::{check, Errno, Forked, Result};
use ::core::ffi::CStr;
use ::core::prelude::rust_2021::*;
use ::std::os::fd::AsRawFd;
use ::{core, libc};

const FSOPEN_CLOEXEC: u32 = 1;
const FSMOUNT_CLOEXEC: u32 = 1;
const FSCONFIG_SET_FLAG: u32 = 0;
const FSCONFIG_SET_STRING: u32 = 1;
const FSCONFIG_SET_FD: u32 = 5;
const FSCONFIG_CMD_CREATE: u32 = 6;
const OPEN_TREE_CLONE: u32 = 1;
const MOVE_MOUNT_F_EMPTY_PATH: u32 = 0x04;
const MOVE_MOUNT_T_EMPTY_PATH: u32 = 0x40;
const AT_RECURSIVE: u32 = 0x8000;

/// linux/magic.h.
pub(crate) const PROC_SUPER_MAGIC: i64 = 0x9fa0;
pub(crate) const SYSFS_MAGIC: i64 = 0x6265_6572;

/// MOUNT_ATTR_* of linux/mount.h, as far as this crate names them itself.
pub const ATTR_RDONLY: u64 = 0x01;
pub const ATTR_NOSUID: u64 = 0x02;
pub const ATTR_NODEV: u64 = 0x04;
pub const ATTR_NOEXEC: u64 = 0x08;

const EMPTY: &CStr = c"";

fn pointer(text: Option<&CStr>) -> *const core::ffi::c_char {
    text.map_or(core::ptr::null(), CStr::as_ptr)
}

/// mount(2).
pub fn mount(
    source: Option<&CStr>,
    target: &CStr,
    fstype: Option<&CStr>,
    flags: u64,
    data: Option<&CStr>,
) -> Result<()> {
    let (source, fstype, data) = (pointer(source), pointer(fstype), pointer(data));
    // SAFETY: each pointer is null or NUL-terminated text that outlives the call; the kernel only reads them (it copies
    // up to a page of `data`, and stops where the memory ends).
    check(unsafe { libc::syscall(libc::SYS_mount, source, target.as_ptr(), fstype, flags, data) }).map(drop)
}

/// umount2(2).
pub fn unmount(target: &CStr, flags: i32) -> Result<()> {
    // SAFETY: `target` is NUL-terminated and outlives the call; the kernel only reads it.
    check(unsafe { libc::syscall(libc::SYS_umount2, target.as_ptr(), flags) }).map(drop)
}

/// pivot_root(".", "."): makes the working directory the root, with the old root on top of it.
pub(crate) fn pivot_here(_: Forked) -> Result<()> {
    let here = c".".as_ptr();
    // SAFETY: both are the same NUL-terminated constant.
    check(unsafe { libc::syscall(libc::SYS_pivot_root, here, here) }).map(drop)
}

/// chroot(2).
pub(crate) fn chroot(_: Forked, path: &CStr) -> Result<()> {
    // SAFETY: `path` is NUL-terminated and outlives the call; the kernel only reads it.
    check(unsafe { libc::syscall(libc::SYS_chroot, path.as_ptr()) }).map(drop)
}

/// A filesystem being configured: fsopen(2).
#[derive(Debug)]
pub(crate) struct Filesystem(OwnedFd);

impl Filesystem {
    pub fn open(fstype: &CStr) -> Result<Self> {
        // SAFETY: `fstype` is NUL-terminated and outlives the call; the kernel only reads it.
        check(unsafe { libc::syscall(libc::SYS_fsopen, fstype.as_ptr(), FSOPEN_CLOEXEC) })
            .map(|fd| Self(own(fd)))
    }

    /// Wraps a context that another process has opened.
    pub fn begun(context: OwnedFd) -> Self {
        Self(context)
    }

    /// Sets an option without a value.
    pub fn flag(&self, key: &CStr) -> Result<()> {
        self.configure(FSCONFIG_SET_FLAG, Some(key), None)
    }

    pub fn set(&self, key: &CStr, value: &CStr) -> Result<()> {
        self.configure(FSCONFIG_SET_STRING, Some(key), Some(value))
    }

    /// Sets an option whose value is a descriptor.
    pub fn lend(&self, key: &CStr, value: BorrowedFd<'_>) -> Result<()> {
        let (fd, none) = (self.0.as_raw_fd(), core::ptr::null::<u8>());
        // SAFETY: `key` is NUL-terminated and outlives the call; the command takes no value but the number.
        let answer = unsafe {
            libc::syscall(libc::SYS_fsconfig, fd, FSCONFIG_SET_FD, key.as_ptr(), none, value.as_raw_fd())
        };
        check(answer).map(drop)
    }

    fn configure(&self, command: u32, key: Option<&CStr>, value: Option<&CStr>) -> Result<()> {
        let (fd, key, value) = (self.0.as_raw_fd(), pointer(key), pointer(value));
        // SAFETY: `key` and `value` are null if the command has none, else NUL-terminated text that outlives the call;
        // the kernel only reads them.
        check(unsafe { libc::syscall(libc::SYS_fsconfig, fd, command, key, value, 0) }).map(drop)
    }

    /// Creates the superblock and a detached mount of it: fsmount(2). `attributes` are MOUNT_ATTR_*.
    pub fn mount(self, attributes: u64) -> Result<OwnedFd> {
        self.configure(FSCONFIG_CMD_CREATE, None, None)?;
        let fd = self.0.as_raw_fd();
        // SAFETY: takes integers only.
        check(unsafe { libc::syscall(libc::SYS_fsmount, fd, FSMOUNT_CLOEXEC, attributes) }).map(own)
    }
}

/// Makes a detached copy of the mount at `path`: open_tree(2).
pub fn clone_tree(path: &CStr, recursive: bool) -> Result<OwnedFd> {
    open_tree(libc::AT_FDCWD, path, if recursive { AT_RECURSIVE } else { 0 })
}

/// Makes a detached copy of the mount at the open file `fd`. It must be in the caller's mount namespace (detached
/// mounts can only be copied since Linux 6.15).
pub(crate) fn clone_tree_of(fd: BorrowedFd<'_>, recursive: bool) -> Result<OwnedFd> {
    let recursive = if recursive { AT_RECURSIVE } else { 0 };
    open_tree(fd.as_raw_fd(), EMPTY, recursive | libc::AT_EMPTY_PATH as u32)
}

fn open_tree(directory: i32, path: &CStr, flags: u32) -> Result<OwnedFd> {
    let flags = flags | OPEN_TREE_CLONE | libc::O_CLOEXEC as u32;
    // SAFETY: `path` is NUL-terminated and outlives the call; the kernel only reads it.
    check(unsafe { libc::syscall(libc::SYS_open_tree, directory, path.as_ptr(), flags) }).map(own)
}

/// Attaches a detached mount at the open file `target`.
pub fn attach(tree: BorrowedFd<'_>, target: BorrowedFd<'_>) -> Result<()> {
    let (from, to, empty) = (tree.as_raw_fd(), target.as_raw_fd(), EMPTY.as_ptr());
    let flags = MOVE_MOUNT_F_EMPTY_PATH | MOVE_MOUNT_T_EMPTY_PATH;
    // SAFETY: both paths are the same NUL-terminated constant.
    check(unsafe { libc::syscall(libc::SYS_move_mount, from, empty, to, empty, flags) }).map(drop)
}

/// A change to a mount: mount_setattr(2). `propagation` is one of MS_SHARED, … or 0 for no change.
#[derive(Clone, Copy, Debug, Default)]
pub struct Change {
    pub set: u64,
    pub clear: u64,
    pub propagation: u64,
}

impl Change {
    pub fn is_empty(&self) -> bool {
        self.set == 0 && self.clear == 0 && self.propagation == 0
    }
}

pub fn change(mount: BorrowedFd<'_>, change: Change, recursive: bool) -> Result<()> {
    let attributes = libc::mount_attr {
        attr_set: change.set,
        attr_clr: change.clear,
        propagation: change.propagation,
        userns_fd: 0,
    };
    set_attributes(mount, &attributes, recursive)
}

/// Maps the owners of files on a detached mount by the maps of `namespace`, a user namespace.
pub(crate) fn map_ids(mount: BorrowedFd<'_>, namespace: BorrowedFd<'_>, recursive: bool) -> Result<()> {
    let attributes = libc::mount_attr {
        attr_set: libc::MOUNT_ATTR_IDMAP,
        attr_clr: 0,
        propagation: 0,
        userns_fd: namespace.as_raw_fd() as u64,
    };
    set_attributes(mount, &attributes, recursive)
}

fn set_attributes(mount: BorrowedFd<'_>, attributes: &libc::mount_attr, recursive: bool) -> Result<()> {
    let flags = libc::AT_EMPTY_PATH as u32 | if recursive { AT_RECURSIVE } else { 0 };
    // SAFETY: the path is a NUL-terminated constant; the kernel reads `size` bytes of `attributes`.
    let answer = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            mount.as_raw_fd(),
            EMPTY.as_ptr(),
            flags,
            core::ptr::from_ref(attributes),
            size_of::<libc::mount_attr>(),
        )
    };
    match check(answer) {
        // Before Linux 5.12: not returned as ENOSYS, which would be read as "no such step".
        Err(Errno::ENOSYS) => Err(Errno::EOPNOTSUPP),
        answer => answer.map(drop),
    }
}
