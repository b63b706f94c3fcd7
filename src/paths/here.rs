//! Opens a file, whoever waits for it: a thread of the shim that knows that it need not, or a process that may.

use super::{Opened, Purpose};
use crate::error::Error;
use crate::sys::path::mount_of;
use crate::sys::pipe::{self, Access, Kind};
use crate::sys::Errno;
use nix::fcntl::OFlag;
use nix::mount::{umount2, MntFlags};
use nix::sys::stat::{fstat, Mode, SFlag};
use std::io::Write;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::Path;

/// A refused call. It is told in the same words wherever it was made.
#[derive(Debug)]
pub struct Refused {
    pub call: String,
    pub errno: i32,
}

impl Refused {
    pub fn into_error(self) -> Error {
        Error::system(self.call, self.errno)
    }
}

pub fn refused(path: &Path, errno: Errno) -> Refused {
    Refused { call: format!("open({path:?})"), errno: errno as i32 }
}

/// Something found by O_PATH.
pub struct Found {
    fd: OwnedFd,
    kind: Kind,
    /// Type and permissions.
    mode: u32,
    mount: u64,
}

impl Found {
    /// Asks the filesystem.
    pub fn of(fd: OwnedFd, mount: u64, path: &Path) -> Result<Self, Refused> {
        let stat = fstat(&fd).map_err(|errno| refused(path, errno))?;
        Ok(Found { fd, kind: pipe::kind_of(&stat), mode: stat.st_mode, mount })
    }

    fn is_socket(&self) -> bool {
        self.mode & SFlag::S_IFMT.bits() == SFlag::S_IFSOCK.bits()
    }

    fn is_regular(&self) -> bool {
        self.mode & SFlag::S_IFMT.bits() == SFlag::S_IFREG.bits()
    }

    /// To open it asks nobody but its filesystem, as a device might.
    pub fn is_plain(&self) -> bool {
        self.is_regular() || matches!(self.kind, Kind::Fifo | Kind::Directory)
    }
}

/// Opens a file by its path.
pub fn open(path: &Path, purpose: Purpose) -> Result<Opened, Refused> {
    match purpose {
        Purpose::Log => return append(path),
        Purpose::Folder => make_folder(path)?,
        _ => {}
    }
    // O_PATH never blocks, except on the filesystem, and has no side effects on a device.
    let fd = nix::fcntl::open(path, OFlag::O_PATH | OFlag::O_CLOEXEC, Mode::empty());
    let fd = fd.map_err(|errno| refused(path, errno))?;
    let mount = mount_of(fd.as_fd()).map_err(|errno| refused(path, errno))?;
    let found = Found::of(fd, mount, path)?;
    of(&found, path, purpose)
}

fn make_folder(path: &Path) -> Result<(), Refused> {
    match std::fs::DirBuilder::new().mode(0o700).create(path) {
        Err(e) if e.kind() != std::io::ErrorKind::AlreadyExists => {
            Err(of_call(|| format!("mkdir({path:?})"))(e))
        }
        _ => Ok(()),
    }
}

/// Writes a file, which is made, for root alone, if it is missing. No link there is followed.
pub fn write(path: &Path, text: &[u8]) -> Result<(), Refused> {
    let call = || format!("write({path:?})");
    let mut options = std::fs::OpenOptions::new();
    let options = options.write(true).create(true).truncate(true).mode(0o600);
    let file = options.custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK).open(path);
    file.and_then(|mut file| file.write_all(text)).map_err(of_call(call))
}

fn append(path: &Path) -> Result<Opened, Refused> {
    if let Some(parent) = path.parent() {
        std::fs::create_dir_all(parent).map_err(of_call(|| format!("mkdir({parent:?})")))?;
    }
    let file = pipe::append_to(path);
    let call = || format!("open({path:?}, O_APPEND|O_CREAT)");
    let file = file.map_err(|errno| Refused { call: call(), errno: errno as i32 })?;
    Ok(Opened { kind: Kind::Other, mode: 0, mount: 0, fds: vec![file] })
}

/// What was found at `path`, which is for the errors.
pub fn of(found: &Found, path: &Path, purpose: Purpose) -> Result<Opened, Refused> {
    let reopen = |access, nonblocking| -> Result<OwnedFd, Refused> {
        let call = || format!("open({path:?}, {})", flag(access));
        pipe::reopen(&found.fd, access, nonblocking)
            .map_err(|errno| Refused { call: call(), errno: errno as i32 })
    };
    let fds = match (found.kind, purpose) {
        (_, Purpose::Look) => Vec::new(),
        (_, Purpose::Connect) if found.is_socket() => {
            vec![found.fd.try_clone().map_err(of_call(|| "dup()".into()))?]
        }
        (_, Purpose::Connect) => {
            return Err(Refused { call: format!("connect({path:?})"), errno: libc::ENOTSOCK })
        }
        (_, Purpose::Place) => vec![found.fd.try_clone().map_err(of_call(|| format!("dup({path:?})")))?],
        (Kind::Directory, Purpose::Folder) | (Kind::Directory | Kind::Other, Purpose::Handle) => {
            vec![reopen(Access::Read, true)?]
        }
        (_, Purpose::Handle | Purpose::Folder) => Vec::new(),
        (_, Purpose::Log) => vec![reopen(Access::Append, true)?],
        (_, Purpose::Contents { .. }) if found.is_regular() => vec![reopen(Access::Read, true)?],
        (_, Purpose::Contents { .. }) | (Kind::Null | Kind::Directory, _) => Vec::new(),
        (Kind::Fifo, purpose) => {
            // Opening both ends at once needs no peer, and serves as the peer for the opens below.
            let both = reopen(Access::Both, true)?;
            let (fds, owner) = match purpose {
                Purpose::Input { for_program } => {
                    let read = reopen(Access::Read, for_program.is_none())?;
                    (vec![reopen(Access::Write, true)?, read], for_program)
                }
                Purpose::Output { for_program: owner @ Some(_) } => {
                    let ends = [reopen(Access::Read, true)?, reopen(Access::Write, true)?];
                    (ends.into_iter().chain([reopen(Access::Write, false)?]).collect(), owner)
                }
                _ => (vec![reopen(Access::Read, true)?, reopen(Access::Write, true)?], None),
            };
            if let Some((uid, gid)) = owner.filter(|owner| *owner != (0, 0)) {
                let call = || format!("fchown({path:?}, {uid}, {gid})");
                pipe::give_to(&both, uid, gid)
                    .map_err(|errno| Refused { call: call(), errno: errno as i32 })?;
            }
            drop(both);
            fds
        }
        (Kind::Other, Purpose::Input { .. }) => vec![reopen(Access::Read, true)?],
        (Kind::Other, Purpose::Output { .. }) => vec![reopen(Access::Append, true)?],
    };
    Ok(Opened { kind: found.kind, mode: found.mode & 0o7777, mount: found.mount, fds })
}

fn flag(access: Access) -> &'static str {
    match access {
        Access::Read => "O_RDONLY",
        Access::Write => "O_WRONLY",
        Access::Append => "O_APPEND",
        Access::Both => "O_RDWR",
    }
}

fn of_call(call: impl FnOnce() -> String) -> impl FnOnce(std::io::Error) -> Refused {
    |e| Refused { call: call(), errno: e.raw_os_error().unwrap_or(libc::EIO) }
}

/// Makes `at` a symbolic link to `to`, in a folder that is made if it is missing.
pub fn link(at: &Path, to: &Path) -> Result<(), Refused> {
    if let Some(folder) = at.parent() {
        let mut builder = std::fs::DirBuilder::new();
        let made = builder.recursive(true).mode(0o711).create(folder);
        made.map_err(of_call(|| format!("mkdir({folder:?})")))?;
    }
    if std::fs::read_link(at).is_ok_and(|found| found == to) {
        return Ok(());
    }
    // One of a create that has failed.
    let _ = std::fs::remove_file(at);
    std::os::unix::fs::symlink(to, at).map_err(of_call(|| format!("symlink({to:?}, {at:?})")))
}

/// Unmounts what is mounted there, if anything.
pub fn unmount(at: &Path) -> Result<(), Refused> {
    match umount2(at, MntFlags::MNT_DETACH | MntFlags::UMOUNT_NOFOLLOW) {
        Ok(()) | Err(Errno::EINVAL | Errno::ENOENT) => Ok(()),
        Err(errno) => Err(Refused { call: format!("umount2({at:?}, MNT_DETACH)"), errno: errno as i32 }),
    }
}

/// Removes it, and its folder if nothing else is in it.
pub fn unlink(at: &Path) {
    let _ = std::fs::remove_file(at);
    if let Some(folder) = at.parent() {
        let _ = std::fs::remove_dir(folder);
    }
}
