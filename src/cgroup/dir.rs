//! A cgroup's directory: an open descriptor, and the path that errors name.
//! Every file is opened relative to the descriptor, so that a cgroup that is removed and recreated under the same name
//! is never mistaken for the one that was opened.
//! name is never taken for the one that was opened.

use std::ffi::{CStr, CString, OsStr};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{open, openat, OFlag};
use nix::sys::stat::{fstat, Mode};
use nix::unistd::{unlinkat, UnlinkatFlags};

use crate::error::{Context, Error, Result};

const DIRECTORY: OFlag = OFlag::O_RDONLY.union(OFlag::O_DIRECTORY).union(OFlag::O_CLOEXEC);

#[derive(Debug)]
pub(super) struct Dir {
    fd: OwnedFd,
    path: PathBuf,
}

impl Dir {
    pub(super) fn open(path: &Path) -> Result<Dir> {
        let fd = open(path, DIRECTORY | OFlag::O_NOFOLLOW, Mode::empty())
            .context(|| format!("open({path:?}, O_DIRECTORY)"))?;
        Ok(Dir { fd, path: path.to_owned() })
    }

    /// Returns None if there is no such directory.
    pub(super) fn open_if(path: &Path) -> Result<Option<Dir>> {
        match Dir::open(path) {
            Ok(dir) => Ok(Some(dir)),
            Err(e) if matches!(e.errno(), Some(libc::ENOENT | libc::ENODEV)) => Ok(None),
            Err(e) => Err(e),
        }
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    pub(super) fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }

    /// Duplicates the descriptor, e.g. for CLONE_INTO_CGROUP.
    pub(super) fn try_clone_fd(&self) -> Result<OwnedFd> {
        self.fd.try_clone().context(|| format!("dup({:?})", self.path))
    }

    pub(super) fn open_file(&self, file: &str, flags: OFlag) -> Result<OwnedFd> {
        openat(&self.fd, file, flags | OFlag::O_CLOEXEC | OFlag::O_NOFOLLOW, Mode::empty())
            .context(|| format!("open({:?})", self.path.join(file)))
    }

    pub(super) fn has(&self, file: &str) -> bool {
        nix::unistd::faccessat(&self.fd, file, nix::unistd::AccessFlags::F_OK, nix::fcntl::AtFlags::empty())
            .is_ok()
    }

    /// Writes in one write(2), as the kernel's files require; retries if a signal interrupts it (a memory limit
    /// reclaims first, and may be interrupted).
    pub(super) fn write(&self, file: &str, value: &str) -> Result<()> {
        self.write_each(file, [value])
    }

    /// Makes one write(2) for each value.
    pub(super) fn write_each<V: AsRef<str>>(
        &self,
        file: &str,
        values: impl IntoIterator<Item = V>,
    ) -> Result<()> {
        let mut open = None;
        for value in values {
            let value = value.as_ref();
            let frozen = || format!("write({:?}, {value:?})", self.path.join(file));
            let fd = match &open {
                Some(fd) => fd,
                None => {
                    let flags = OFlag::O_WRONLY | OFlag::O_CLOEXEC | OFlag::O_NOFOLLOW;
                    open.insert(openat(&self.fd, file, flags, Mode::empty()).context(frozen)?)
                }
            };
            loop {
                match nix::unistd::write(fd, value.as_bytes()) {
                    Ok(_) => break,
                    Err(Errno::EINTR) => continue,
                    Err(errno) => return Err(Error::system(frozen(), errno as i32)),
                }
            }
        }
        Ok(())
    }

    /// Returns false if the kernel has no such file.
    pub(super) fn write_if(&self, file: &str, value: &str) -> Result<bool> {
        match self.write(file, value) {
            Ok(()) => Ok(true),
            Err(e) if matches!(e.errno(), Some(libc::ENOENT | libc::EOPNOTSUPP)) => Ok(false),
            Err(e) => Err(e),
        }
    }

    pub(super) fn read(&self, file: &str) -> Result<String> {
        let frozen = || format!("read({:?})", self.path.join(file));
        let fd =
            openat(&self.fd, file, OFlag::O_RDONLY | OFlag::O_CLOEXEC | OFlag::O_NOFOLLOW, Mode::empty())
                .context(frozen)?;
        let mut text = vec![0; 4096];
        let mut length = 0;
        loop {
            if length == text.len() {
                text.resize(length * 2, 0);
            }
            match nix::unistd::read(&fd, &mut text[length..]) {
                Ok(0) => break,
                Ok(n) => length += n,
                Err(Errno::EINTR) => continue,
                Err(errno) => return Err(Error::system(frozen(), errno as i32)),
            }
        }
        text.truncate(length);
        Ok(String::from_utf8_lossy(&text).into_owned())
    }

    /// Returns None if the file, the controller or the whole cgroup is missing.
    pub(super) fn read_if(&self, file: &str) -> Result<Option<String>> {
        match self.read(file) {
            Ok(text) => Ok(Some(text)),
            Err(e) if is_absent(&e) => Ok(None),
            Err(e) => Err(e),
        }
    }

    pub(super) fn read_number(&self, file: &str) -> Result<u64> {
        let text = self.read(file)?;
        text.trim().parse().map_err(|e| {
            Error::caused_by(crate::error::Kind::System, format!("{:?}: {text:?}", self.path.join(file)), e)
        })
    }

    /// Returns false if the kernel says that there is no cgroup below: each subdirectory adds a link to its parent.
    pub(super) fn may_have_children(&self) -> bool {
        !fstat(&self.fd).is_ok_and(|stat| stat.st_nlink == 2)
    }

    /// The names of the direct child cgroups; none if the cgroup is gone.
    pub(super) fn children(&self) -> Result<Vec<CString>> {
        if !self.may_have_children() {
            return Ok(Vec::new());
        }
        let failed = |errno: Errno| Error::system(format!("readdir({:?})", self.path), errno as i32);
        let mut children = Vec::new();
        // A descriptor of its own, since the position in the listing belongs to it.
        let mut list = match nix::dir::Dir::openat(&self.fd, ".", DIRECTORY, Mode::empty()) {
            Err(Errno::ENOENT | Errno::ENODEV) => return Ok(children),
            list => list.map_err(failed)?,
        };
        for entry in list.iter() {
            let entry = match entry {
                Err(Errno::ENOENT | Errno::ENODEV) => break,
                entry => entry.map_err(failed)?,
            };
            let name = entry.file_name();
            if entry.file_type() == Some(nix::dir::Type::Directory) && name != c"." && name != c".." {
                children.push(name.to_owned());
            }
        }
        Ok(children)
    }

    /// Opens a direct child; None if it is gone. `path` is for errors only.
    pub(super) fn child(&self, name: &CStr, path: PathBuf) -> Result<Option<Dir>> {
        match openat(&self.fd, name, DIRECTORY | OFlag::O_NOFOLLOW, Mode::empty()) {
            Ok(fd) => Ok(Some(Dir { fd, path })),
            Err(Errno::ENOENT | Errno::ENODEV) => Ok(None),
            Err(errno) => Err(Error::system(format!("open({path:?}, O_DIRECTORY)"), errno as i32)),
        }
    }

    /// Opens the parent, even of a removed cgroup: cgroups do not move.
    pub(super) fn above(&self, path: PathBuf) -> Result<Dir> {
        let fd = openat(&self.fd, c"..", DIRECTORY, Mode::empty())
            .context(|| format!("open({:?})", self.path.join("..")))?;
        Ok(Dir { fd, path })
    }

    /// Removes a direct child, which may be gone already.
    pub(super) fn remove_child(&self, name: &CStr) -> Result<()> {
        match unlinkat(&self.fd, name, UnlinkatFlags::RemoveDir) {
            Ok(()) | Err(Errno::ENOENT) => Ok(()),
            Err(errno) => {
                let path = self.path.join(OsStr::from_bytes(name.to_bytes()));
                Err(Error::system(format!("rmdir({path:?})"), errno as i32))
            }
        }
    }
}

/// Whether a file's controller or cgroup does not exist (any more).
pub(super) fn is_absent(error: &Error) -> bool {
    matches!(error.errno(), Some(libc::ENOENT | libc::ENODEV | libc::EOPNOTSUPP))
}
