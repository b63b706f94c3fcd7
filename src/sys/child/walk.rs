//! Resolves a path below a root, one component at a time.
//!
//! Every component is opened with O_NOFOLLOW from the directory before it, and `..` is never passed to the kernel: the
//! part resolved so far is a list of real names, which `..` shortens, and which is then walked again from the root. A
//! rename or a new symlink during the walk can therefore make it fail, but not leave the root.

use super::entry::{make_directory, read_link};
use super::fd::{self, AsFd, BorrowedFd, OwnedFd};
use super::{Errno, Result};
use ::core::ffi::CStr;
use ::core::prelude::rust_2021::*;
use ::libc;

/// PATH_MAX, including the NUL.
const ROOM: usize = 4096;

/// As many symlinks as the kernel follows in one path.
const LINKS: u32 = 40;

/// What to create a missing path as; the mode is for the last component.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Missing {
    Fails,
    Directory(u32),
    File(u32),
}

/// A path in a fixed buffer, always NUL-terminated.
#[derive(Clone, Debug)]
pub struct PathBuffer {
    bytes: [u8; ROOM],
    length: usize,
}

impl PathBuffer {
    pub fn new(path: &[u8]) -> Result<Self> {
        let mut buffer = PathBuffer { bytes: [0; ROOM], length: 0 };
        buffer.append(path)?;
        Ok(buffer)
    }

    pub fn as_bytes(&self) -> &[u8] {
        self.bytes.get(..self.length).unwrap_or(&[])
    }

    pub fn as_c_str(&self) -> &CStr {
        CStr::from_bytes_until_nul(&self.bytes).unwrap_or(c"")
    }

    /// The whole buffer, as scratch space.
    pub fn room(&mut self) -> &mut [u8] {
        &mut self.bytes
    }

    fn append(&mut self, text: &[u8]) -> Result<()> {
        let end = self.length.checked_add(text.len()).ok_or(Errno::ENAMETOOLONG)?;
        // One byte is reserved for the NUL.
        if end >= ROOM || text.contains(&0) {
            return Err(Errno::ENAMETOOLONG);
        }
        self.bytes.get_mut(self.length..end).ok_or(Errno::ENAMETOOLONG)?.copy_from_slice(text);
        self.length = end;
        Ok(())
    }

    /// Adds a component.
    pub fn push(&mut self, name: &[u8]) -> Result<()> {
        if self.length > 0 {
            self.append(b"/")?;
        }
        self.append(name)
    }

    /// Removes the last component; `..` of the root is the root.
    fn pop(&mut self) {
        let keep = self.as_bytes().iter().rposition(|b| *b == b'/').unwrap_or(0);
        if let Some(gone) = self.bytes.get_mut(keep..self.length) {
            gone.fill(0);
        }
        self.length = keep;
    }
}

/// Returns the first component of a path, and the rest without leading slashes.
fn split(path: &[u8]) -> (&[u8], &[u8]) {
    let path = trim(path);
    let end = path.iter().position(|b| *b == b'/').unwrap_or(path.len());
    let (name, rest) = path.split_at_checked(end).unwrap_or((path, &[]));
    (name, trim(rest))
}

fn trim(mut path: &[u8]) -> &[u8] {
    while let Some(rest) = path.strip_prefix(b"/") {
        path = rest;
    }
    path
}

const HERE: i32 = libc::O_PATH | libc::O_NOFOLLOW;

/// Opens `path` below `root` with `flags`; symlinks are followed, and stay inside.
pub fn open(root: BorrowedFd<'_>, path: &CStr, flags: i32, missing: Missing) -> Result<OwnedFd> {
    let mut rest = PathBuffer::new(path.to_bytes())?;
    let mut done = PathBuffer::new(b"")?;
    let mut at = fd::open_at(root, c".", libc::O_PATH | libc::O_DIRECTORY, 0)?;
    let mut links = 0u32;
    loop {
        let (name, after) = split(rest.as_bytes());
        if name.is_empty() {
            break;
        }
        let (name, last) = (PathBuffer::new(name)?, after.is_empty());
        let after = PathBuffer::new(after)?;
        rest = after;
        match name.as_bytes() {
            b"." => continue,
            b".." => {
                done.pop();
                at = open_without_links(root, done.as_c_str(), libc::O_PATH | libc::O_DIRECTORY)?;
                continue;
            }
            _ => {}
        }
        let next = match fd::open_at(at.as_fd(), name.as_c_str(), HERE, 0) {
            Err(Errno::ENOENT) => create(at.as_fd(), name.as_c_str(), last, missing)?,
            next => next?,
        };
        match fd::stat(next.as_fd())?.kind() {
            libc::S_IFLNK => {
                links = links.saturating_add(1);
                if links > LINKS {
                    return Err(Errno::ELOOP);
                }
                let mut text = [0u8; ROOM];
                let length = read_link(next.as_fd(), c"", &mut text)?;
                let target = text.get(..length).ok_or(Errno::ENAMETOOLONG)?;
                if target.starts_with(b"/") {
                    done = PathBuffer::new(b"")?;
                    at = fd::open_at(root, c".", libc::O_PATH | libc::O_DIRECTORY, 0)?;
                }
                let mut whole = PathBuffer::new(target)?;
                whole.push(rest.as_bytes())?;
                rest = whole;
            }
            libc::S_IFDIR => {
                done.push(name.as_bytes())?;
                at = next;
            }
            _ if !trim(rest.as_bytes()).is_empty() => return Err(Errno::ENOTDIR),
            _ if flags & libc::O_PATH != 0 => return Ok(next),
            _ => return fd::open_at(at.as_fd(), name.as_c_str(), flags | libc::O_NOFOLLOW, 0),
        }
    }
    if flags & libc::O_PATH != 0 {
        return Ok(at);
    }
    fd::open_at(at.as_fd(), c".", flags, 0)
}

/// Creates the component `name`, and opens it: ours, or what somebody else created first.
fn create(at: BorrowedFd<'_>, name: &CStr, last: bool, missing: Missing) -> Result<OwnedFd> {
    let made = match missing {
        Missing::Fails => return Err(Errno::ENOENT),
        Missing::File(mode) if last => {
            let flags = libc::O_CREAT | libc::O_EXCL | libc::O_NOFOLLOW | libc::O_RDONLY;
            fd::open_at(at, name, flags, mode).map(drop)
        }
        Missing::Directory(mode) if last => make_directory(at, name, mode),
        Missing::Directory(_) | Missing::File(_) => make_directory(at, name, 0o755),
    };
    match made {
        Ok(()) | Err(Errno::EEXIST) => fd::open_at(at, name, HERE, 0),
        Err(errno) => Err(errno),
    }
}

/// Opens `path` below `root` if no component is a symlink or `..`; an empty path is the root.
pub fn open_without_links(root: BorrowedFd<'_>, path: &CStr, flags: i32) -> Result<OwnedFd> {
    let (mut name, mut rest) = split(path.to_bytes());
    let mut at: Option<OwnedFd> = None;
    loop {
        let from = at.as_ref().map_or(root, |fd| fd.as_fd());
        match name {
            b"" => return fd::open_at(from, c".", flags, 0),
            b".." => return Err(Errno::EXDEV),
            _ => {}
        }
        let component = PathBuffer::new(name)?;
        if rest.is_empty() {
            return fd::open_at(from, component.as_c_str(), flags | libc::O_NOFOLLOW, 0);
        }
        at = Some(fd::open_at(from, component.as_c_str(), HERE | libc::O_DIRECTORY, 0)?);
        (name, rest) = split(rest);
    }
}

#[cfg(test)]
mod tests {
    #![allow(
        clippy::disallowed_macros,
        clippy::disallowed_methods,
        clippy::disallowed_types,
        clippy::unwrap_used
    )]
    use super::super::root;
    use super::*;
    use ::std::ffi::CString;
    use ::std::os::unix::fs::{symlink, MetadataExt};
    use ::std::path::Path;
    use ::std::{self, assert, assert_eq, format};
    use ::tempfile;

    fn root_of(directory: &Path) -> OwnedFd {
        std::fs::File::open(directory).unwrap().into()
    }

    fn inode(fd: &OwnedFd) -> u64 {
        std::fs::metadata(format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(fd))).unwrap().ino()
    }

    fn resolve(root: &OwnedFd, path: &str, missing: Missing) -> Result<OwnedFd> {
        open(root.as_fd(), &CString::new(path).unwrap(), libc::O_PATH, missing)
    }

    #[test]
    fn the_walk_agrees_with_openat2() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(dir.path().join("a/b/c")).unwrap();
        std::fs::create_dir_all(dir.path().join("etc")).unwrap();
        std::fs::write(dir.path().join("etc/passwd"), "inside").unwrap();
        symlink("/etc", dir.path().join("absolute")).unwrap();
        symlink("../../../../../../../etc", dir.path().join("a/b/up")).unwrap();
        symlink("a/b", dir.path().join("relative")).unwrap();
        symlink("loop", dir.path().join("loop")).unwrap();
        symlink("nowhere", dir.path().join("dangling")).unwrap();
        let root = root_of(dir.path());
        for path in [
            ".",
            "a",
            "a/b/../b/c",
            "absolute/passwd",
            "a/b/up/passwd",
            "relative/c",
            "relative/../../etc",
            "../../../etc/passwd",
            "loop",
            "dangling",
            "missing",
            "etc/passwd/x",
            "relative/up/passwd",
            "/a//b/",
        ] {
            let c_path = CString::new(path).unwrap();
            let kernel = root::open(root.as_fd(), &c_path, libc::O_PATH).map(|fd| inode(&fd));
            let walked = resolve(&root, path, Missing::Fails).map(|fd| inode(&fd));
            assert_eq!(kernel, walked, "{path}");
        }
    }

    #[test]
    fn what_is_missing_is_made_inside() {
        let dir = tempfile::tempdir().unwrap();
        let inside = dir.path().join("root");
        std::fs::create_dir_all(inside.join("etc")).unwrap();
        symlink("../../../run/resolve/stub.conf", inside.join("etc/resolv.conf")).unwrap();
        symlink("/../../outside", inside.join("evil")).unwrap();
        let root = root_of(&inside);
        resolve(&root, "etc/resolv.conf", Missing::File(0o644)).unwrap();
        assert!(inside.join("run/resolve/stub.conf").is_file());
        resolve(&root, "evil/deep/er", Missing::Directory(0o700)).unwrap();
        assert!(inside.join("outside/deep/er").is_dir());
        assert!(!dir.path().join("outside").exists());
        assert_eq!(
            resolve(&root, "etc/resolv.conf/x", Missing::Directory(0o755)).err(),
            Some(Errno::ENOTDIR)
        );
    }

    #[test]
    fn plain_paths_take_no_link_and_no_dots() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(dir.path().join("a/b")).unwrap();
        symlink("a", dir.path().join("link")).unwrap();
        let root = root_of(dir.path());
        let plain = |path: &CStr| open_without_links(root.as_fd(), path, libc::O_PATH).map(drop);
        assert_eq!(plain(c"a/b"), Ok(()));
        assert_eq!(plain(c"a/../a"), Err(Errno::EXDEV));
        assert!(plain(c"link/b").is_err());
        let opened = root::open_plainly(root.as_fd(), c"link/b", libc::O_PATH);
        assert_eq!(opened.err(), Some(Errno::ELOOP));
    }
}
