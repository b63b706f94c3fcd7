//! A name in a directory: created, changed and read by one system call each, which follows no symlink.

use super::fd::BorrowedFd;
use super::{check, Result};
use ::core::ffi::CStr;
use ::core::prelude::rust_2021::*;
use ::libc;
use ::std::os::fd::AsRawFd;

/// mkdirat(2).
pub fn make_directory(parent: BorrowedFd<'_>, name: &CStr, mode: u32) -> Result<()> {
    // SAFETY: `name` is NUL-terminated and outlives the call; the kernel only reads it.
    check(unsafe { libc::syscall(libc::SYS_mkdirat, parent.as_raw_fd(), name.as_ptr(), mode) }).map(drop)
}

/// mknodat(2).
pub fn make_node(parent: BorrowedFd<'_>, name: &CStr, mode: u32, major: u32, minor: u32) -> Result<()> {
    let (parent, device) = (parent.as_raw_fd(), libc::makedev(major, minor));
    // SAFETY: `name` is NUL-terminated and outlives the call; the kernel only reads it.
    check(unsafe { libc::syscall(libc::SYS_mknodat, parent, name.as_ptr(), mode, device) }).map(drop)
}

/// symlinkat(2).
pub fn make_symlink(target: &CStr, parent: BorrowedFd<'_>, name: &CStr) -> Result<()> {
    let (target, name) = (target.as_ptr(), name.as_ptr());
    // SAFETY: both are NUL-terminated and outlive the call; the kernel only reads them.
    check(unsafe { libc::syscall(libc::SYS_symlinkat, target, parent.as_raw_fd(), name) }).map(drop)
}

/// fchownat(2) of the name itself, not of a symlink's target.
pub fn give(parent: BorrowedFd<'_>, name: &CStr, uid: u32, gid: u32) -> Result<()> {
    let (parent, flags) = (parent.as_raw_fd(), libc::AT_SYMLINK_NOFOLLOW);
    // SAFETY: `name` is NUL-terminated and outlives the call; the kernel only reads it.
    check(unsafe { libc::syscall(libc::SYS_fchownat, parent, name.as_ptr(), uid, gid, flags) }).map(drop)
}

/// fchmodat(2) of a name in a directory; `.` is the directory itself, even if it was opened with O_PATH.
pub fn set_mode(parent: BorrowedFd<'_>, name: &CStr, mode: u32) -> Result<()> {
    // SAFETY: `name` is NUL-terminated and outlives the call; the kernel only reads it.
    check(unsafe { libc::syscall(libc::SYS_fchmodat, parent.as_raw_fd(), name.as_ptr(), mode) }).map(drop)
}

/// readlinkat(2): reads a symlink, either a name in `at`, or (with an empty name) an O_PATH descriptor of the symlink
/// itself.
pub fn read_link(at: BorrowedFd<'_>, name: &CStr, buffer: &mut [u8]) -> Result<usize> {
    let (at, room, length) = (at.as_raw_fd(), buffer.as_mut_ptr(), buffer.len());
    // SAFETY: `name` is NUL-terminated; the kernel writes at most `length` bytes into `buffer`.
    check(unsafe { libc::syscall(libc::SYS_readlinkat, at, name.as_ptr(), room, length) }).map(|n| n as usize)
}
