//! A cgroup's directory: an open descriptor, and the path that errors name.
//!
//! Every file is opened below the descriptor, so that a cgroup that is removed and made again under the same
//! name is never taken for the one that was opened.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{open, openat, OFlag};
use nix::sys::stat::Mode;

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

    /// None where there is no such directory.
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

    /// A second descriptor of the directory, e.g. for CLONE_INTO_CGROUP.
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

    /// One write(2), as the kernel's files want it; again where a signal came in between (a memory limit
    /// reclaims first, and may be interrupted).
    pub(super) fn write(&self, file: &str, value: &str) -> Result<()> {
        self.write_each(file, [value])
    }

    /// One write(2) for each value.
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

    /// False where the kernel has no such file.
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

    /// None where the file, the controller or the whole cgroup is not there.
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

    /// The cgroups right below.
    pub(super) fn children(&self) -> Result<Vec<PathBuf>> {
        let frozen = || format!("readdir({:?})", self.path);
        let entries = match std::fs::read_dir(&self.path) {
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
            entries => entries.context(frozen)?,
        };
        let mut children = Vec::new();
        for entry in entries {
            let entry = match entry {
                Err(e) if e.raw_os_error() == Some(libc::ENODEV) => break,
                entry => entry.context(frozen)?,
            };
            if entry.file_type().is_ok_and(|t| t.is_dir()) {
                children.push(entry.path());
            }
        }
        Ok(children)
    }
}

/// The errors of a file whose controller or cgroup is not (or no longer) there.
pub(super) fn is_absent(error: &Error) -> bool {
    matches!(error.errno(), Some(libc::ENOENT | libc::ENODEV | libc::EOPNOTSUPP))
}
