//! execve(2) and exit_group(2), from prepared arrays.

use super::{check, Errno, Result};
use core::cell::Cell;
use core::ffi::{c_char, CStr};
use core::marker::PhantomData;
use core::sync::atomic::{AtomicBool, Ordering};
use std::ffi::CString;

/// True in the child of a clone (which has its own copy of it); never reset, the child ends in execve(2) or exit.
static IN_CHILD: AtomicBool = AtomicBool::new(false);

pub(super) fn mark_child() {
    IN_CHILD.store(true, Ordering::Relaxed);
}

#[cfg(debug_assertions)]
pub(super) fn in_child() -> bool {
    IN_CHILD.load(Ordering::Relaxed)
}

/// exit_group(2): no destructor and no handler runs.
pub fn exit(code: i32) -> ! {
    loop {
        // SAFETY: takes an integer, and does not return.
        unsafe { libc::syscall(libc::SYS_exit_group, code) };
    }
}

/// `argv` and `envp` as the kernel takes them: made before the clone, since they are allocated.
#[derive(Debug)]
pub struct Arguments<'a> {
    argv: Vec<*const c_char>,
    /// Ends in two null pointers: the first is room for a HOME that the child finds.
    envp: Vec<Cell<*const c_char>>,
    strings: PhantomData<&'a CString>,
}

impl<'a> Arguments<'a> {
    pub fn new(argv: &'a [CString], envp: &'a [CString]) -> Self {
        let end = [core::ptr::null()];
        Arguments {
            argv: argv.iter().map(|a| a.as_ptr()).chain(end).collect(),
            envp: envp.iter().map(|e| e.as_ptr()).chain(end).chain(end).map(Cell::new).collect(),
            strings: PhantomData,
        }
    }

    /// Becomes `program`; `home` (`HOME=…`) joins the environment. Returns only with an error.
    pub fn execve(&self, program: &CStr, home: Option<&CStr>) -> Errno {
        let spare = self.envp.len().checked_sub(2).and_then(|at| self.envp.get(at));
        if let (Some(spare), Some(home)) = (spare, home) {
            spare.set(home.as_ptr());
        }
        let (argv, envp) = (self.argv.as_ptr(), self.envp.as_ptr());
        // SAFETY: both arrays end in a null pointer (see `new`); their strings are borrowed for 'a, and `home`
        // for this call. `Cell` has the layout of what it holds.
        let answer = unsafe { libc::syscall(libc::SYS_execve, program.as_ptr(), argv, envp) };
        if let Some(spare) = spare {
            spare.set(core::ptr::null());
        }
        check(answer).err().unwrap_or(Errno::EINVAL)
    }
}

/// Whether the effective user may execute `path`: a regular file with a right bit. The errors are those that
/// the Go runtime's LookPath makes of stat(2) and faccessat2(2).
pub fn executable(path: &CStr) -> Result<()> {
    let file = super::fd::open(path, libc::O_PATH, 0)?;
    let stat = super::fd::stat(super::fd::AsFd::as_fd(&file))?;
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
pub fn chdir(path: &CStr) -> Result<()> {
    // SAFETY: `path` is NUL-terminated and outlives the call; the kernel only reads it.
    check(unsafe { libc::syscall(libc::SYS_chdir, path.as_ptr()) }).map(drop)
}

/// fchdir(2).
pub fn fchdir(directory: super::fd::BorrowedFd<'_>) -> Result<()> {
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
