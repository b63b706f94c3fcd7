//! Files that a request names by path, opened without a thread that waits for their filesystem.
//!
//! A path can lead to a filesystem that never answers (of a network, or of FUSE), and a thread that waits for one cannot be
//! freed. So a thread of the shim follows a path only as far as the kernel has it in memory, and opens what is there only
//! on one filesystem: that of the shim's own bundle, without which the shim is lost anyway. All else is opened by a process
//! that hands the descriptors over, and that is killed when its time is over.

mod elsewhere;
mod here;

pub use elsewhere::{serve, VERB};

use crate::error::{invalid, Context, Result};
use crate::sys::pipe::Kind;
use crate::sys::{path, Errno};
use here::Refused;
use std::ffi::CString;
use std::fs::File;
use std::io::Read;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::Instant;

/// What a file is opened for, and so which descriptors there are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// To know what is there: none.
    Look,
    /// A fifo: its read end, its write end, and with `end` another write end, which blocks. A file: one to append to.
    Output { end: bool },
    /// A fifo: its write end, its read end. A file: one to read.
    Input { blocking: bool },
    /// A file to append to, made with its folders where it is missing.
    Log,
    /// A regular file to read. From elsewhere it is a copy, of at most so many bytes and one more.
    Contents { limit: u64 },
}

/// What a path led to.
#[derive(Debug)]
pub struct Opened {
    pub kind: Kind,
    /// Its permissions.
    pub mode: u32,
    /// Of the filesystem.
    pub device: u64,
    pub fds: Vec<OwnedFd>,
}

/// Opens paths. The default trusts every filesystem, for a program that may wait.
#[derive(Clone, Copy, Debug, Default)]
pub struct Paths {
    /// The device of the filesystem that is trusted.
    own: Option<u64>,
}

impl Paths {
    /// Of a shim with this bundle.
    pub fn new(bundle: &Path) -> Result<Self> {
        let about = std::fs::metadata(bundle).context(|| format!("stat({bundle:?})"))?;
        Ok(Paths { own: Some(about.dev()) })
    }

    /// An error is as of open(2), or says that the time is over.
    pub async fn open(&self, path: &Path, purpose: Purpose, deadline: Instant) -> Result<Opened> {
        let Some(own) = self.own else { return here::open(path, purpose).map_err(Refused::into_error) };
        let c_path =
            CString::new(path.as_os_str().as_bytes()).map_err(|e| invalid(format!("open({path:?}): {e}")))?;
        match path::cached(&c_path) {
            Ok(Some(found)) if found.device == own || here::is_null(&found) => {
                return here::of(found, path, purpose).map_err(Refused::into_error)
            }
            // It is to be made.
            Err(Errno::ENOENT) if purpose == Purpose::Log => {}
            Err(errno) => return Err(here::refused(path, errno).into_error()),
            Ok(_) => {}
        }
        elsewhere::open(&c_path, path, purpose, deadline).await
    }

    /// The shim keeps its records in bundles: by threads that must not wait, and so on the trusted filesystem.
    pub async fn check_bundle(&self, bundle: &Path, deadline: Instant) -> Result<()> {
        let opened = self.open(bundle, Purpose::Look, deadline).await.context(|| "bundle")?;
        match self.own {
            Some(own) if own != opened.device => {
                Err(invalid(format!("bundle: {bundle:?} is not on the filesystem of the shim's own bundle")))
            }
            _ => Ok(()),
        }
    }

    /// The contents of a regular file of at most `limit` bytes.
    pub async fn read(&self, path: &Path, limit: u64, deadline: Instant) -> Result<Vec<u8>> {
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

    /// Whether there is something at `path`; an error where its filesystem does not say so in time.
    pub async fn is_there(&self, path: &Path, deadline: Instant) -> Result<bool> {
        match self.open(path, Purpose::Look, deadline).await {
            Ok(_) => Ok(true),
            Err(e) if matches!(e.errno(), Some(libc::ENOENT | libc::ENOTDIR)) => Ok(false),
            Err(e) => Err(e),
        }
    }
}
