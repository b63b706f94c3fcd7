//! Paths, followed only as far as the kernel has them in memory.

use super::child::{check, root};
use super::fd::{AsRawFd, OwnedFd};
use super::{Errno, Result};
use std::ffi::CStr;

/// What a path leads to, by O_PATH.
#[derive(Debug)]
pub struct Found {
    pub fd: OwnedFd,
    /// Type and permissions.
    pub mode: u32,
    /// Of the filesystem that it is on.
    pub device: u64,
    /// Of the device that it is.
    pub is: u64,
}

/// None where the kernel would have to ask the filesystem (RESOLVE_CACHED, Linux 5.12). Never waits for one.
pub fn cached(path: &CStr) -> Result<Option<Found>> {
    match root::open_cached(path) {
        Ok(fd) => about(fd).map(Some),
        // Before 5.12; or by a seccomp filter around the shim.
        Err(Errno::EAGAIN | Errno::EINVAL | Errno::ENOSYS | Errno::EPERM) => Ok(None),
        Err(errno) => Err(errno),
    }
}

/// What is known of it without asking its filesystem.
pub fn about(fd: OwnedFd) -> Result<Found> {
    // SAFETY: a statx is integers, for which all-zero bytes are valid.
    let mut stat: libc::statx = unsafe { core::mem::zeroed() };
    // SAFETY: the path is empty and NUL-terminated; the kernel writes one statx into `stat`.
    let answer = unsafe {
        libc::syscall(
            libc::SYS_statx,
            fd.as_raw_fd(),
            c"".as_ptr(),
            libc::AT_EMPTY_PATH | libc::AT_STATX_DONT_SYNC,
            libc::STATX_TYPE | libc::STATX_MODE,
            core::ptr::from_mut(&mut stat),
        )
    };
    check(answer)?;
    Ok(Found {
        fd,
        mode: stat.stx_mode.into(),
        device: libc::makedev(stat.stx_dev_major, stat.stx_dev_minor),
        is: libc::makedev(stat.stx_rdev_major, stat.stx_rdev_minor),
    })
}
