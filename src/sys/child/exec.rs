//! The end of a child that has failed, and the checks before its execve(2).

use super::{check, Errno, Forked, Key, Result};
use ::core::ffi::CStr;
use ::core::prelude::rust_2021::*;
use ::libc;

/// exit_group(2): no destructors or handlers run. Even if a filter forbids it, the process ends.
pub fn exit(forked: Forked, code: i32) -> ! {
    exit_with(forked, Key::default(), code)
}

/// The same under a filter that may know the key.
pub fn exit_with(_: Forked, key: Key, code: i32) -> ! {
    super::last::end(key.0 as usize, code as usize)
}

/// Whether the effective user may execute `path`: a regular file with an execute bit. The errors are those that the Go
/// runtime's LookPath makes of stat(2) and faccessat2(2), and so are the calls: a profile made for runc may be loaded
/// by then, and there may be no descriptor left (RLIMIT_NOFILE).
pub fn executable(key: Key, path: &CStr) -> Result<()> {
    let stat = super::fd::stat_at(key, path)?;
    if stat.is_directory() {
        return Err(Errno::EISDIR);
    }
    let (path, how) = (path.as_ptr(), libc::AT_EACCESS);
    // SAFETY: `path` is NUL-terminated and outlives the call; the kernel only reads it. The kernel ignores the other arguments.
    let answer =
        unsafe { libc::syscall(libc::SYS_faccessat2, libc::AT_FDCWD, path, libc::X_OK, how, 0u64, key.0) };
    match check(answer) {
        Ok(_) => Ok(()),
        // Missing before Linux 5.8, or unknown to a seccomp filter: the mode has to do, as in Go.
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

/// Returns the first byte of the working directory's path: `/`, or `(` if it is outside the root. (glibc's getcwd(3)
/// hides that case; the system call does not.)
pub fn cwd_starts_with(buffer: &mut [u8]) -> Result<u8> {
    // SAFETY: the kernel writes at most `len` bytes into `buffer`, which is exclusively ours.
    check(unsafe { libc::syscall(libc::SYS_getcwd, buffer.as_mut_ptr(), buffer.len()) })?;
    buffer.first().copied().ok_or(Errno::ERANGE)
}
