//! The end of a child that has failed, and what comes before its execve(2).

use super::{check, Errno, Forked, Result};
use ::core::ffi::CStr;
use ::core::prelude::rust_2021::*;
use ::libc;

/// exit_group(2): no destructor and no handler runs. Where a filter forbids it, the process ends all the same.
pub fn exit(_: Forked, code: i32) -> ! {
    super::last::end(code as usize)
}

/// Whether the effective user may execute `path`: a regular file with a right bit. The errors are those that
/// the Go runtime's LookPath makes of stat(2) and faccessat2(2), and the calls are these: a profile may be loaded by then
/// that was made for runc, and there may be no descriptor left (RLIMIT_NOFILE).
pub fn executable(path: &CStr) -> Result<()> {
    let stat = super::fd::stat_at(path)?;
    if stat.is_directory() {
        return Err(Errno::EISDIR);
    }
    // SAFETY: `path` is NUL-terminated and outlives the call; the kernel only reads it.
    let answer = unsafe {
        libc::syscall(libc::SYS_faccessat2, libc::AT_FDCWD, path.as_ptr(), libc::X_OK, libc::AT_EACCESS)
    };
    match check(answer) {
        Ok(_) => Ok(()),
        // Not there (5.8), or a seccomp filter that does not know it: the mode has to do, as with Go.
        Err(Errno::ENOSYS | Errno::EPERM) if stat.mode & 0o111 != 0 => Ok(()),
        Err(Errno::ENOSYS | Errno::EPERM) => Err(Errno::EACCES),
        Err(errno) => Err(errno),
    }
}

/// chdir(2).
pub fn chdir(_: Forked, path: &CStr) -> Result<()> {
    // SAFETY: `path` is NUL-terminated and outlives the call; the kernel only reads it.
    check(unsafe { libc::syscall(libc::SYS_chdir, path.as_ptr()) }).map(drop)
}

/// fchdir(2).
pub fn fchdir(_: Forked, directory: super::fd::BorrowedFd<'_>) -> Result<()> {
    // SAFETY: takes an integer.
    check(unsafe { libc::syscall(libc::SYS_fchdir, super::fd::AsRawFd::as_raw_fd(&directory)) }).map(drop)
}

/// The first byte of the working directory's path: `/`, or `(` where it is outside of the root. (glibc's
/// getcwd(3) hides that case; the system call does not.)
pub fn cwd_starts_with(buffer: &mut [u8]) -> Result<u8> {
    // SAFETY: the kernel writes at most `len` bytes into `buffer`, which is exclusively ours.
    check(unsafe { libc::syscall(libc::SYS_getcwd, buffer.as_mut_ptr(), buffer.len()) })?;
    buffer.first().copied().ok_or(Errno::ERANGE)
}
