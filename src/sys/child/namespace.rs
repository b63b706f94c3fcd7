//! setns(2), unshare(2), and the properties of a namespace file.

use super::fd::{own, BorrowedFd, OwnedFd};
use super::{check, Result};
use ::core::prelude::rust_2021::*;
use ::libc;
use ::std::os::fd::AsRawFd;

/// The magic number of the filesystem of namespace files (linux/magic.h).
pub(crate) const NSFS_MAGIC: i64 = 0x6e73_6673;

/// linux/nsfs.h: `_IO(0xb7, 0x1)`.
const NS_GET_USERNS: libc::c_ulong = 0xb701;
/// `_IO(0xb7, 0x3)`.
const NS_GET_NSTYPE: libc::c_ulong = 0xb703;

/// Joins the namespace behind `fd` (of type `flags`), or those of the process behind a pidfd (Linux 5.8).
///
/// For CLONE_NEWPID the caller itself stays where it is, and its next children are created there.
pub fn join(fd: BorrowedFd<'_>, flags: u64) -> Result<()> {
    // SAFETY: takes integers only.
    check(unsafe { libc::syscall(libc::SYS_setns, fd.as_raw_fd(), flags as libc::c_int) }).map(drop)
}

/// unshare(2).
pub fn unshare(flags: u64) -> Result<()> {
    // SAFETY: takes an integer. CLONE_FILES and CLONE_FS give the thread copies of its own; no memory changes.
    check(unsafe { libc::syscall(libc::SYS_unshare, flags) }).map(drop)
}

/// Opens the user namespace that owns the namespace behind `fd`: ioctl_ns(2).
pub fn owner(fd: BorrowedFd<'_>) -> Result<OwnedFd> {
    // SAFETY: this ioctl takes no argument; it returns a new descriptor.
    check(unsafe { libc::syscall(libc::SYS_ioctl, fd.as_raw_fd(), NS_GET_USERNS) }).map(own)
}

/// Returns the CLONE_NEW* flag of a namespace file.
pub fn kind(fd: BorrowedFd<'_>) -> Result<u64> {
    // SAFETY: this ioctl takes no argument.
    check(unsafe { libc::syscall(libc::SYS_ioctl, fd.as_raw_fd(), NS_GET_NSTYPE) }).map(|kind| kind as u64)
}
