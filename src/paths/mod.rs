//! Opens files named by requests without blocking a thread on their filesystem.
//!
//! A path can lead to a filesystem that never answers (of a network, or of FUSE), and a thread that waits for one cannot be
//! freed. So a thread of the shim follows a path only as far as the kernel has it in memory, and opens what is there only
//! on one mount: that of the shim's own bundle, without which the shim is lost anyway. All else is opened by a process that
//! hands the descriptors over, and that is killed when its time is over.

mod connect;
mod elsewhere;
mod here;

pub use elsewhere::{serve, VERB};
pub(crate) use here::unlink;

use crate::error::{invalid, Context, Result};
use crate::sys::path::{cached, is_missing, mount_of};
use crate::sys::pipe::{self, Kind};
use crate::sys::Errno;
use elsewhere::{Openers, Order};
use here::{Found, Refused};
use std::ffi::CString;
use std::fs::File;
use std::io::Read;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

/// The user and the group that a fifo is given to, unless they are root: they can open it again by /dev/stdout.
pub(crate) type Owner = (u32, u32);

/// The purpose of opening a file, which determines the descriptors.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Purpose {
    /// To know what is there: none.
    Look,
    /// A fifo: its read end, its write end, and `for_program` another write end, which blocks. A file: one for appending.
    Output { for_program: Option<Owner> },
    /// A fifo: its write end, its read end, which blocks `for_program`. A file: one descriptor, for reading.
    Input { for_program: Option<Owner> },
    /// A file to append to, made with its folders if it is missing.
    Log,
    /// Whatever is there: its place, by O_PATH.
    Place,
    /// A directory, or a file other than a stream: one descriptor, for reading.
    Handle,
    /// The same of a directory, which is made, for root alone, if it is missing.
    Folder,
    /// A regular file to read. From another process it is a copy of at most `limit` bytes and one more.
    Contents { limit: u64 },
    /// A unix socket: from this process its O_PATH descriptor, from another one a stream to it.
    Connect,
}

impl Purpose {
    /// Whether a missing file is made.
    fn makes(self) -> bool {
        matches!(self, Purpose::Log | Purpose::Folder)
    }
}

/// The file that a path led to.
#[derive(Debug)]
pub(crate) struct Opened {
    pub kind: Kind,
    /// The file's permissions.
    pub mode: u32,
    /// The mount that it is on.
    pub mount: u64,
    pub fds: Vec<OwnedFd>,
}

/// Opens paths. The default trusts every filesystem, for a program that may wait.
#[derive(Clone, Debug, Default)]
pub struct Paths {
    /// The mount that is trusted.
    own: Option<u64>,
    openers: Arc<Openers>,
}

impl Paths {
    /// For a shim with this bundle.
    pub fn new(bundle: &Path) -> Result<Self> {
        let what = || format!("open({bundle:?})");
        let folder = File::open(bundle).context(what)?;
        Ok(Paths { own: Some(mount_of(folder.as_fd()).context(what)?), openers: Arc::default() })
    }

    /// An error is as of open(2), or says that the time is over.
    pub(crate) async fn open(&self, path: &Path, purpose: Purpose, deadline: Instant) -> Result<Opened> {
        let Some(own) = self.own else { return here::open(path, purpose).map_err(Refused::into_error) };
        if path == Path::new("/dev/null") {
            let fds = match purpose {
                Purpose::Log => vec![pipe::null().context(|| "open(\"/dev/null\")")?],
                _ => Vec::new(),
            };
            return Ok(Opened { kind: Kind::Null, mode: 0o666, mount: 0, fds });
        }
        let c_path = c_path(path)?;
        match cached(&c_path) {
            Ok(Some(fd)) if mount_of(fd.as_fd()) == Ok(own) => {
                let found = Found::of(fd, own, path).map_err(Refused::into_error)?;
                if found.is_plain() {
                    return here::of(&found, path, purpose).map_err(Refused::into_error);
                }
            }
            // Missing, but to be created.
            Err(Errno::ENOENT) if purpose.makes() => {}
            Err(errno) => return Err(here::refused(path, errno).into_error()),
            Ok(_) => {}
        }
        refuse_own(path)?;
        self.openers.run(Order::Open(&c_path, purpose), path, deadline).await
    }

    /// The shim keeps its records in bundles: by threads that must not wait, and so on the trusted mount.
    pub(crate) async fn check_bundle(&self, bundle: &Path, deadline: Instant) -> Result<()> {
        let opened = self.open(bundle, Purpose::Look, deadline).await.context(|| "bundle")?;
        match self.own {
            Some(own) if own != opened.mount => {
                Err(invalid(format!("bundle: {bundle:?} is not on the mount of the shim's own bundle")))
            }
            _ => Ok(()),
        }
    }

    /// The contents of a regular file of at most `limit` bytes.
    pub(crate) async fn read(&self, path: &Path, limit: u64, deadline: Instant) -> Result<Vec<u8>> {
        let mut opened = self.open(path, Purpose::Contents { limit }, deadline).await?;
        let file = opened.fds.pop();
        let file = file.ok_or_else(|| invalid(format!("read({path:?}): it is not a regular file")))?;
        let (file, what) = (File::from(file), || format!("read({path:?})"));
        let size = file.metadata().context(what)?.len().min(limit);
        let mut contents = Vec::with_capacity(size as usize + 1);
        file.take(limit + 1).read_to_end(&mut contents).context(what)?;
        if contents.len() as u64 > limit {
            return Err(invalid(format!("read({path:?}): it is larger than {limit} bytes")));
        }
        Ok(contents)
    }

    /// The descriptor of a [`Purpose`] that has one.
    pub(crate) async fn one(&self, path: &Path, purpose: Purpose, deadline: Instant) -> Result<OwnedFd> {
        let fd = self.open(path, purpose, deadline).await?.fds.pop();
        fd.ok_or_else(|| invalid(format!("open({path:?}): it is not what is expected there")))
    }

    /// Writes a short text into a file, which is made, for root alone, if it is missing; no link there is followed.
    pub(crate) async fn write(&self, path: &Path, text: &str, deadline: Instant) -> Result<()> {
        if self.own.is_none() {
            return here::write(path, text.as_bytes()).map_err(Refused::into_error);
        }
        let (c_path, text) = (c_path(path)?, CString::new(text).unwrap_or_default());
        self.openers.run(Order::Write(&c_path, &text), path, deadline).await.map(drop)
    }

    /// Makes `at` a symbolic link to `to`, in a folder that is made if it is missing.
    pub(crate) async fn link(&self, at: &Path, to: &Path, deadline: Instant) -> Result<()> {
        if self.trusts(at)? {
            return here::link(at, to).map_err(Refused::into_error);
        }
        let (c_at, c_to) = (c_path(at)?, c_path(to)?);
        self.openers.run(Order::Link(&c_at, &c_to), at, deadline).await.map(drop)
    }

    /// Removes it, and its folder if nothing else is in it.
    pub(crate) async fn unlink(&self, at: &Path, deadline: Instant) -> Result<()> {
        if self.trusts(at)? {
            here::unlink(at);
            return Ok(());
        }
        self.openers.run(Order::Unlink(&c_path(at)?), at, deadline).await.map(drop)
    }

    /// Unmounts a filesystem, which may not answer. Nothing to unmount is no error.
    pub(crate) async fn unmount(&self, at: &Path, deadline: Instant) -> Result<()> {
        if self.own.is_none() {
            return here::unmount(at).map_err(Refused::into_error);
        }
        self.openers.run(Order::Unmount(&c_path(at)?), at, deadline).await.map(drop)
    }

    /// Whether the folder of `path` is on the trusted mount, as far as it exists.
    fn trusts(&self, path: &Path) -> Result<bool> {
        let Some(own) = self.own else { return Ok(true) };
        let mut missing = None;
        for folder in path.ancestors().skip(1) {
            match cached(&c_path(folder)?) {
                Ok(Some(found)) if mount_of(found.as_fd()) == Ok(own) => {
                    // Only what really is missing will be made here. A link leads elsewhere, and so may a mount.
                    return Ok(match missing {
                        None => true,
                        Some(name) => is_missing(found.as_fd(), &c_path(Path::new(name))?),
                    });
                }
                Ok(None) | Err(Errno::ENOENT) => missing = folder.file_name(),
                Ok(Some(_)) | Err(_) => return Ok(false),
            }
        }
        Ok(false)
    }
}

fn c_path(path: &Path) -> Result<CString> {
    CString::new(path.as_os_str().as_bytes()).map_err(|e| invalid(format!("open({path:?}): {e}")))
}

/// A name that stands for a file of whoever opens it would be another one's.
fn refuse_own(path: &Path) -> Result<()> {
    let own = ["/proc/self", "/proc/thread-self", "/dev/fd", "/dev/stdin", "/dev/stdout", "/dev/stderr"];
    if own.iter().any(|own| path.starts_with(own)) {
        return Err(invalid(format!("open({path:?}): it is another file for each process")));
    }
    Ok(())
}
