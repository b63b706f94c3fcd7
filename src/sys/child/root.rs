//! Paths below a container's root: opened and created so that nothing outside the root is ever touched, whatever
//! symlinks the image has, and whoever changes them meanwhile.
//!
//! openat2(2) with RESOLVE_IN_ROOT (Linux 5.6) does it in one call. If that is refused (by a seccomp profile that is
//! older than it), or something has to be created on the way, `walk` goes one component at a time.

use super::entry::make_directory;
use super::fd::{self, own, AsFd, BorrowedFd, OwnedFd};
use super::walk::{self, Missing, PathBuffer};
use super::{check, Errno, Result};
use ::core::ffi::CStr;
use ::core::prelude::rust_2021::*;
use ::std::os::fd::AsRawFd;
use ::{core, libc};

/// Symlinks are followed, and stay inside; the magic links of /proc are refused.
const IN_ROOT: u64 = libc::RESOLVE_IN_ROOT | libc::RESOLVE_NO_MAGICLINKS;

/// How often to try: openat2(2) fails with EAGAIN on a race with a rename.
const ATTEMPTS: u32 = 16;

/// Opens (O_PATH) an absolute path of the host; ELOOP if a magic link of /proc is on the way. (A walk takes these for
/// their text, which is a path or nothing.)
pub(crate) fn open_without_magic(path: &CStr) -> Result<OwnedFd> {
    match resolve(libc::AT_FDCWD, path, libc::O_PATH, libc::RESOLVE_NO_MAGICLINKS) {
        Err(Errno::ENOSYS | Errno::EPERM) => {
            let root = fd::open(c"/", libc::O_PATH | libc::O_DIRECTORY, 0)?;
            walk::open(root.as_fd(), path, libc::O_PATH, Missing::Fails)
        }
        answer => answer,
    }
}

/// Opens a path with O_PATH from the kernel's caches alone: EAGAIN if it would have to ask a filesystem. Linux 5.12;
/// EINVAL before.
pub(in crate::sys) fn open_cached(path: &CStr) -> Result<OwnedFd> {
    // EAGAIN is an answer here, and not only a race with a rename.
    resolve_once(libc::AT_FDCWD, path, libc::O_PATH, libc::RESOLVE_CACHED)
}

/// Opens an entry of a directory by O_PATH, unless another filesystem is mounted there. A link is not followed.
pub(in crate::sys) fn open_entry(directory: BorrowedFd<'_>, name: &CStr) -> Result<OwnedFd> {
    openat2(directory, name, libc::O_PATH | libc::O_NOFOLLOW, libc::RESOLVE_NO_XDEV)
}

/// The same below a directory, whose links lead to nowhere else.
pub(in crate::sys) fn open_cached_in(directory: BorrowedFd<'_>, path: &CStr) -> Result<OwnedFd> {
    let how = libc::RESOLVE_CACHED | libc::RESOLVE_IN_ROOT;
    resolve(directory.as_raw_fd(), path, libc::O_PATH, how)
}

fn openat2(directory: BorrowedFd<'_>, path: &CStr, flags: i32, how: u64) -> Result<OwnedFd> {
    resolve(directory.as_raw_fd(), path, flags, how)
}

fn resolve(directory: i32, path: &CStr, flags: i32, resolve: u64) -> Result<OwnedFd> {
    let mut left = ATTEMPTS;
    loop {
        match resolve_once(directory, path, flags, resolve) {
            Err(Errno::EAGAIN) if left > 0 => left = left.saturating_sub(1),
            answer => return answer,
        }
    }
}

fn resolve_once(directory: i32, path: &CStr, flags: i32, resolve: u64) -> Result<OwnedFd> {
    // SAFETY: an open_how is integers, for which all-zero bytes are valid.
    let mut how: libc::open_how = unsafe { core::mem::zeroed() };
    how.flags = (flags | libc::O_CLOEXEC) as u64;
    how.resolve = resolve;
    // SAFETY: `path` is NUL-terminated and outlives the call; the kernel reads `size` bytes of `how`.
    let answer = unsafe {
        libc::syscall(
            libc::SYS_openat2,
            directory,
            path.as_ptr(),
            core::ptr::from_ref(&how),
            size_of::<libc::open_how>(),
        )
    };
    check(answer).map(own)
}

/// Opens what `path` names inside of `root`: symbolic links are followed and stay inside, magic links are
/// refused.
pub fn open(root: BorrowedFd<'_>, path: &CStr, flags: i32) -> Result<OwnedFd> {
    match openat2(root, path, flags, IN_ROOT) {
        Err(Errno::ENOSYS | Errno::EPERM) => walk::open(root, path, flags, Missing::Fails),
        answer => answer,
    }
}

/// Opens `path` inside `root` with O_PATH, and creates it and its parents if they are missing. The descriptor serves as
/// a mount target, and for look-ups below it.
pub(crate) fn open_or_create(root: BorrowedFd<'_>, path: &CStr, missing: Missing) -> Result<OwnedFd> {
    match openat2(root, path, libc::O_PATH, IN_ROOT) {
        Err(Errno::ENOENT) => match create_last(root, path, missing) {
            Some(made) => Ok(made),
            None => walk::open(root, path, libc::O_PATH, missing),
        },
        Err(Errno::ENOSYS | Errno::EPERM) => walk::open(root, path, libc::O_PATH, missing),
        answer => answer,
    }
}

/// Handles the common case of a missing path, in which only its last component is missing. Returns None in every other
/// case, e.g. for a dangling symlink.
fn create_last(root: BorrowedFd<'_>, path: &CStr, missing: Missing) -> Option<OwnedFd> {
    let (above, name) = split(path)?;
    let above = PathBuffer::new(above).ok()?;
    let above = openat2(root, above.as_c_str(), libc::O_PATH | libc::O_DIRECTORY, IN_ROOT).ok()?;
    match missing {
        Missing::Fails => None,
        Missing::Directory(mode) => {
            make_directory(above.as_fd(), name, mode).ok()?;
            let flags = libc::O_PATH | libc::O_NOFOLLOW | libc::O_DIRECTORY;
            fd::open_at(above.as_fd(), name, flags, 0).ok()
        }
        Missing::File(mode) => {
            let flags = libc::O_CREAT | libc::O_EXCL | libc::O_NOFOLLOW | libc::O_RDONLY;
            fd::open_at(above.as_fd(), name, flags, mode).ok()
        }
    }
}

/// Splits a path into that of its parent directory (`.` for the root), and the last component.
pub fn split(path: &CStr) -> Option<(&[u8], &CStr)> {
    let bytes = path.to_bytes_with_nul();
    let (above, name) = match bytes.iter().rposition(|b| *b == b'/') {
        Some(at) => (bytes.get(..at)?, bytes.get(at.checked_add(1)?..)?),
        None => (&b"."[..], bytes),
    };
    let name = CStr::from_bytes_with_nul(name).ok()?;
    // These cannot be created, nor is their parent the directory that was split off.
    let real = !matches!(name.to_bytes(), b"" | b"." | b"..");
    real.then_some((if above.is_empty() { b"." } else { above }, name))
}

/// Opens a file on a filesystem that only the kernel controls, e.g. a detached procfs: no mounts, no links of any kind
/// and no `..` on the way.
pub(crate) fn open_plainly(directory: BorrowedFd<'_>, path: &CStr, flags: i32) -> Result<OwnedFd> {
    let resolve = libc::RESOLVE_BENEATH | libc::RESOLVE_NO_XDEV | libc::RESOLVE_NO_SYMLINKS;
    match openat2(directory, path, flags, resolve) {
        Err(Errno::ENOSYS | Errno::EPERM) => {
            // Nothing can be mounted on a detached procfs, so only links and `..` are left to refuse.
            let filesystem = fd::filesystem(directory)?;
            let file = walk::open_without_links(directory, path, flags)?;
            if fd::filesystem(file.as_fd())? == filesystem {
                Ok(file)
            } else {
                Err(Errno::EXDEV)
            }
        }
        answer => answer,
    }
}

/// Opens the directory at exactly `path` in `root`, with no symlink on the way; creates it if it is all that is
/// missing. ELOOP or ENOTDIR if the image has a symlink there.
pub(crate) fn ordinary_directory(root: BorrowedFd<'_>, path: &CStr) -> Result<OwnedFd> {
    let flags = libc::O_PATH | libc::O_DIRECTORY | libc::O_NOFOLLOW;
    let find = || match openat2(root, path, flags, IN_ROOT | libc::RESOLVE_NO_SYMLINKS) {
        Err(Errno::ENOSYS | Errno::EPERM) => walk::open_without_links(root, path, flags),
        answer => answer,
    };
    match find() {
        Err(Errno::ENOENT) => {
            drop(open_or_create(root, path, Missing::Directory(0o755))?);
            find()
        }
        answer => answer,
    }
}
