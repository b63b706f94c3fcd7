//! Descriptors: opened close-on-exec, lent as `BorrowedFd`, owned as `OwnedFd`.

use super::{check, Forked, Key, Result};
use ::core::ffi::CStr;
use ::core::prelude::rust_2021::*;
pub use ::std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, IntoRawFd, OwnedFd, RawFd};
use ::{core, libc};

/// close_range(2): sets close-on-exec instead of closing (Linux 5.11).
const CLOSE_RANGE_CLOEXEC: u32 = 1 << 2;

/// Takes ownership of the descriptor that a system call has just created.
pub(in crate::sys) fn own(answer: libc::c_long) -> OwnedFd {
    // SAFETY: callers pass the result of a call that creates one new descriptor; nothing else has its number.
    unsafe { OwnedFd::from_raw_fd(answer as RawFd) }
}

/// openat(2) with O_CLOEXEC.
pub(crate) fn open_at(directory: BorrowedFd<'_>, path: &CStr, flags: i32, mode: u32) -> Result<OwnedFd> {
    let flags = flags | libc::O_CLOEXEC;
    // SAFETY: `path` is NUL-terminated and outlives the call; the kernel only reads it.
    let answer =
        unsafe { libc::syscall(libc::SYS_openat, directory.as_raw_fd(), path.as_ptr(), flags, mode) };
    check(answer).map(own)
}

/// open(2) with O_CLOEXEC, from the working directory.
pub fn open(path: &CStr, flags: i32, mode: u32) -> Result<OwnedFd> {
    let flags = flags | libc::O_CLOEXEC;
    // SAFETY: `path` is NUL-terminated and outlives the call; the kernel only reads it.
    let answer = unsafe { libc::syscall(libc::SYS_openat, libc::AT_FDCWD, path.as_ptr(), flags, mode) };
    check(answer).map(own)
}

/// read(2).
pub fn read(fd: BorrowedFd<'_>, buffer: &mut [u8]) -> Result<usize> {
    // SAFETY: the kernel writes at most `len` bytes into `buffer`, which is exclusively ours.
    let answer = unsafe { libc::syscall(libc::SYS_read, fd.as_raw_fd(), buffer.as_mut_ptr(), buffer.len()) };
    check(answer).map(|n| n as usize)
}

/// write(2), once: the files of /proc and cgroupfs take a value in one call or not at all.
pub fn write(fd: BorrowedFd<'_>, bytes: &[u8]) -> Result<usize> {
    // SAFETY: the kernel reads at most `len` bytes of `bytes`, which outlives the call.
    let answer = unsafe { libc::syscall(libc::SYS_write, fd.as_raw_fd(), bytes.as_ptr(), bytes.len()) };
    check(answer).map(|n| n as usize)
}

/// dup3(2) onto `number`, which stays open across execve(2).
pub fn install(_: Forked, fd: BorrowedFd<'_>, number: RawFd) -> Result<()> {
    let from = fd.as_raw_fd();
    let answer = if from == number {
        // dup3(2) refuses equal numbers; clearing the flag is what it would have done.
        // SAFETY: F_SETFD takes an integer and touches no memory.
        unsafe { libc::syscall(libc::SYS_fcntl, from, libc::F_SETFD, 0) }
    } else {
        // SAFETY: takes integers only. The child of a clone calls this for 0 to 2, which none of its own `OwnedFd`s
        // has: its first act closed all descriptors that it was not lent.
        unsafe { libc::syscall(libc::SYS_dup3, from, number, 0) }
    };
    check(answer).map(drop)
}

/// Duplicates a descriptor below 3 to one above: those lent to a child must not have its standard streams' numbers.
pub(crate) fn above_standard(fd: OwnedFd) -> Result<OwnedFd> {
    if fd.as_raw_fd() > 2 {
        return Ok(fd);
    }
    // SAFETY: F_DUPFD_CLOEXEC takes an integer and touches no memory.
    let answer = unsafe { libc::syscall(libc::SYS_fcntl, fd.as_raw_fd(), libc::F_DUPFD_CLOEXEC, 3) };
    check(answer).map(own)
}

/// Closes every descriptor above 2 that is not in `keep` (sorted, all above 2), and marks 0 to 2 close-on-exec: they
/// stay as placeholders, so that nothing opened meanwhile gets their numbers.
///
/// For the child's first act: it has not opened anything itself by then.
pub(crate) fn close_all_but(forked: Forked, keep: &[RawFd]) -> Result<()> {
    close_range(forked, 0, 2, CLOSE_RANGE_CLOEXEC)?;
    let mut first = 3;
    for kept in keep {
        let kept = *kept as u32;
        if kept > first {
            close_range(forked, first, kept.saturating_sub(1), 0)?;
        }
        first = kept.saturating_add(1);
    }
    close_range(forked, first, u32::MAX, 0)
}

/// Closes 0 to 2, for a child that does not need them.
pub(crate) fn close_standard(forked: Forked) -> Result<()> {
    close_range(forked, 0, 2, 0)
}

fn close_range(_: Forked, first: u32, last: u32, flags: u32) -> Result<()> {
    // SAFETY: takes integers only. No descriptor in the range has an owner here: in the child of a clone, the owners
    // are in the parent.
    check(unsafe { libc::syscall(libc::SYS_close_range, first, last, flags) }).map(drop)
}

/// The fields of fstat(2) that this crate uses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stat {
    pub mode: u32,
    pub device: u64,
    pub inode: u64,
    pub uid: u32,
    pub gid: u32,
    pub size: i64,
}

impl Stat {
    pub fn kind(&self) -> u32 {
        self.mode & libc::S_IFMT
    }

    pub(crate) fn is_directory(&self) -> bool {
        self.kind() == libc::S_IFDIR
    }

    /// Whether it is the character device with these numbers.
    pub(crate) fn is_character_device(&self, major: u32, minor: u32) -> bool {
        self.kind() == libc::S_IFCHR && self.device == libc::makedev(major, minor)
    }
}

impl From<libc::stat> for Stat {
    fn from(stat: libc::stat) -> Self {
        Stat {
            mode: stat.st_mode,
            device: stat.st_rdev,
            inode: stat.st_ino,
            uid: stat.st_uid,
            gid: stat.st_gid,
            size: stat.st_size,
        }
    }
}

/// fstat(2); works on an O_PATH descriptor too.
pub fn stat(fd: BorrowedFd<'_>) -> Result<Stat> {
    let mut buffer = core::mem::MaybeUninit::<libc::stat>::zeroed();
    // SAFETY: `buffer` has room for one stat, which is all that the kernel writes.
    check(unsafe { libc::fstat(fd.as_raw_fd(), buffer.as_mut_ptr()) }.into())?;
    // SAFETY: all-zero bytes are a valid `stat` (integers only), and fstat has filled it.
    let stat = unsafe { buffer.assume_init() };
    Ok(Stat::from(stat))
}

/// stat(2): opens no descriptor.
pub(crate) fn stat_at(key: Key, path: &CStr) -> Result<Stat> {
    let mut buffer = core::mem::MaybeUninit::<libc::stat>::zeroed();
    // SAFETY: `path` is NUL-terminated and outlives the call, and `buffer` has room for one stat, which is all that the
    // kernel writes. It ignores the other arguments.
    let answer = unsafe {
        let (path, buffer) = (path.as_ptr(), buffer.as_mut_ptr());
        libc::syscall(libc::SYS_newfstatat, libc::AT_FDCWD, path, buffer, 0, 0u64, key.0)
    };
    check(answer)?;
    // SAFETY: all-zero bytes are a valid `stat` (integers only), and the kernel has filled it: on 64-bit machines its
    // structure is the C library's.
    Ok(Stat::from(unsafe { buffer.assume_init() }))
}

/// The magic number of the filesystem that an open file is on: fstatfs(2).
pub fn filesystem(fd: BorrowedFd<'_>) -> Result<i64> {
    let mut buffer = core::mem::MaybeUninit::<libc::statfs>::zeroed();
    // SAFETY: `buffer` has room for one statfs, which is all that the kernel writes.
    check(unsafe { libc::fstatfs(fd.as_raw_fd(), buffer.as_mut_ptr()) }.into())?;
    // SAFETY: all-zero bytes are a valid `statfs` (integers only), and fstatfs has filled it.
    Ok(unsafe { buffer.assume_init() }.f_type)
}

/// fchown(2).
pub fn give(fd: BorrowedFd<'_>, uid: u32, gid: u32) -> Result<()> {
    // SAFETY: takes integers only.
    check(unsafe { libc::syscall(libc::SYS_fchown, fd.as_raw_fd(), uid, gid) }).map(drop)
}

/// fchmod(2); not for O_PATH.
pub(crate) fn set_mode(fd: BorrowedFd<'_>, mode: u32) -> Result<()> {
    // SAFETY: takes integers only.
    check(unsafe { libc::syscall(libc::SYS_fchmod, fd.as_raw_fd(), mode) }).map(drop)
}
