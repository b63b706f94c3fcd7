//! Resolves paths only as far as the kernel has them in memory.

use super::child::root;
use super::fd::{self, AsFd, AsRawFd, BorrowedFd, OwnedFd};
use super::{Errno, Result};
use std::ffi::{CStr, CString};
use std::path::PathBuf;

/// Opens what a path leads to by O_PATH. None if the kernel would have to ask a filesystem (RESOLVE_CACHED, Linux 5.12).
/// Never waits for one.
pub fn cached(path: &CStr) -> Result<Option<OwnedFd>> {
    match root::open_cached(path) {
        Ok(fd) => Ok(Some(fd)),
        // Before 5.12; or by a seccomp filter around the shim.
        Err(Errno::EAGAIN | Errno::EINVAL | Errno::ENOSYS | Errno::EPERM) => Ok(None),
        Err(errno) => Err(errno),
    }
}

/// Where a path below the directory `root` leads to, as that mount namespace has it. None: the kernel would have to ask a
/// filesystem, or nothing is there.
pub fn cached_in(root: &CStr, path: &CStr) -> Option<PathBuf> {
    let root = root::open_cached(root).ok()?;
    let found = root::open_cached_in(root.as_fd(), path).ok()?;
    std::fs::read_link(format!("/proc/self/fd/{}", found.as_raw_fd())).ok()
}

/// The mount that a descriptor is on: proc_pid_fdinfo(5). Unlike stat(2), asks no filesystem.
pub fn mount_of(of: BorrowedFd<'_>) -> Result<u64> {
    let path = CString::new(format!("/proc/self/fdinfo/{}", of.as_raw_fd())).map_err(|_| Errno::EINVAL)?;
    let file = fd::open(&path, libc::O_RDONLY, 0)?;
    let mut room = [0; 512];
    let length = fd::read(file.as_fd(), &mut room)?;
    let text = std::str::from_utf8(room.get(..length).unwrap_or_default()).unwrap_or_default();
    let id = text.lines().find_map(|line| line.strip_prefix("mnt_id:"));
    id.and_then(|id| id.trim().parse().ok()).ok_or(Errno::ENODATA)
}

/// Whether a directory has no such entry: no file, link or mount. Asks the directory's own filesystem alone.
pub fn is_missing(directory: BorrowedFd<'_>, name: &CStr) -> bool {
    matches!(root::open_entry(directory, name), Err(Errno::ENOENT))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn descriptors_of_one_mount_have_one_number() {
        let open = |path: &CStr| cached(path).unwrap().unwrap();
        let [proc, status] = [open(c"/proc"), open(c"/proc")].map(|fd| mount_of(fd.as_fd()).unwrap());
        let root = mount_of(open(c"/").as_fd()).unwrap();
        assert_eq!(proc, status);
        assert_ne!(proc, root);
    }

    #[test]
    fn what_is_not_there_is_an_error_or_not_known() {
        let answer = cached(c"/no/such/path");
        assert!(matches!(answer, Err(Errno::ENOENT) | Ok(None)), "{answer:?}");
    }
}
