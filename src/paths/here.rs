//! Opens a file, whoever waits for it: the thread of the shim that knows that it need not, or the process that may.

use super::{Opened, Purpose};
use crate::error::Error;
use crate::sys::path::{self, Found};
use crate::sys::pipe::{self, Access, Kind};
use crate::sys::Errno;
use nix::fcntl::OFlag;
use nix::sys::stat::{Mode, SFlag};
use std::os::fd::OwnedFd;
use std::path::Path;

/// A refused call: what is told of it is the same wherever it was made.
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

/// The null device: character device 1:3.
pub fn is_null(found: &Found) -> bool {
    kind(found) == Kind::Null
}

fn kind(found: &Found) -> Kind {
    match SFlag::from_bits_truncate(found.mode & SFlag::S_IFMT.bits()) {
        SFlag::S_IFIFO => Kind::Fifo,
        SFlag::S_IFDIR => Kind::Directory,
        SFlag::S_IFCHR if found.is == libc::makedev(1, 3) => Kind::Null,
        _ => Kind::Other,
    }
}

/// By its path.
pub fn open(path: &Path, purpose: Purpose) -> Result<Opened, Refused> {
    if purpose == Purpose::Log {
        if let Some(parent) = path.parent() {
            std::fs::create_dir_all(parent).map_err(|e| Refused {
                call: format!("mkdir({parent:?})"),
                errno: e.raw_os_error().unwrap_or(libc::EINVAL),
            })?;
        }
        let file = pipe::append_to(path);
        let call = || format!("open({path:?}, O_APPEND|O_CREAT)");
        let file = file.map_err(|errno| Refused { call: call(), errno: errno as i32 })?;
        return Ok(Opened { kind: Kind::Other, mode: 0, device: 0, fds: vec![file] });
    }
    // O_PATH never blocks, but for the filesystem, and has no side effect on a device.
    let fd = nix::fcntl::open(path, OFlag::O_PATH | OFlag::O_CLOEXEC, Mode::empty());
    let found = fd.and_then(path::about).map_err(|errno| refused(path, errno))?;
    of(found, path, purpose)
}

/// What was found at `path`, which is for the errors.
pub fn of(found: Found, path: &Path, purpose: Purpose) -> Result<Opened, Refused> {
    let kind = kind(&found);
    let regular = found.mode & SFlag::S_IFMT.bits() == SFlag::S_IFREG.bits();
    let reopen = |access, nonblocking| -> Result<OwnedFd, Refused> {
        let call = || format!("open({path:?}, {})", flag(access));
        pipe::reopen(&found.fd, access, nonblocking)
            .map_err(|errno| Refused { call: call(), errno: errno as i32 })
    };
    let fds = match (kind, purpose) {
        (_, Purpose::Look) => Vec::new(),
        (_, Purpose::Log) => vec![reopen(Access::Append, true)?],
        (_, Purpose::Contents { .. }) if regular => vec![reopen(Access::Read, true)?],
        (_, Purpose::Contents { .. }) | (Kind::Null | Kind::Directory, _) => Vec::new(),
        (Kind::Fifo, purpose) => {
            // Both ends at once need no peer, and are the peer for what is opened next.
            let both = reopen(Access::Both, true)?;
            let fds = match purpose {
                Purpose::Input { blocking } => {
                    vec![reopen(Access::Write, true)?, reopen(Access::Read, !blocking)?]
                }
                Purpose::Output { end: true } => vec![
                    reopen(Access::Read, true)?,
                    reopen(Access::Write, true)?,
                    reopen(Access::Write, false)?,
                ],
                _ => vec![reopen(Access::Read, true)?, reopen(Access::Write, true)?],
            };
            drop(both);
            fds
        }
        (Kind::Other, Purpose::Input { .. }) => vec![reopen(Access::Read, true)?],
        (Kind::Other, Purpose::Output { .. }) => vec![reopen(Access::Append, true)?],
    };
    let mode = found.mode & 0o7777;
    Ok(Opened { kind, mode, device: found.device, fds })
}

fn flag(access: Access) -> &'static str {
    match access {
        Access::Read => "O_RDONLY",
        Access::Write => "O_WRONLY",
        Access::Append => "O_APPEND",
        Access::Both => "O_RDWR",
    }
}
