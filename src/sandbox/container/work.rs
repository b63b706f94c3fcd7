//! The folder that CRIU works in: it is there as long as it works, and of a failure its log stays.

use crate::criu::explain;
use crate::error::{Context, Error, Kind, Result};
use crate::paths::{Paths, Purpose};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::Instant;

/// What is longer is not read for the words of an error.
const LOG_MAX: u64 = 32 << 20;

pub(super) struct Work {
    folder: PathBuf,
    fd: OwnedFd,
    log: &'static str,
    /// It is ours, in the bundle: the log goes there.
    kept: Option<PathBuf>,
}

impl Work {
    /// Where the client says, else in the bundle, which is on the trusted file system. `root` is by what a mount namespace
    /// is reached that CRIU works in: it mounts below the folder, and can do so in its own only.
    pub async fn open(
        paths: &Paths,
        bundle: &Path,
        named: Option<&Path>,
        root: Option<u32>,
        log: &'static str,
        by: Instant,
    ) -> Result<Self> {
        let own = bundle.join("criu-work");
        if named.is_none() {
            std::fs::create_dir(&own).map_err(|e| match e.kind() {
                std::io::ErrorKind::AlreadyExists => Error::new(Kind::State, "criu is at work already"),
                _ => Error::caused_by(Kind::System, format!("mkdir({own:?})"), e),
            })?;
        }
        let folder = named.unwrap_or(&own).to_owned();
        let reached = match root {
            Some(pid) => {
                PathBuf::from(format!("/proc/{pid}/root")).join(folder.strip_prefix("/").unwrap_or(&folder))
            }
            None => folder.clone(),
        };
        let opened = paths.one(&reached, Purpose::Folder, by).await;
        let kept = named.is_none().then(|| bundle.join(format!("criu-{log}")));
        let fd = opened.inspect_err(|_| kept.iter().for_each(|_| drop(std::fs::remove_dir(&own))))?;
        Ok(Work { folder, fd, log, kept })
    }

    pub fn fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }

    pub fn log(&self) -> &'static str {
        self.log
    }

    /// What CRIU's log says of a failure of CRIU's, and where that is.
    pub async fn explain(&self, paths: &Paths, error: Error, by: Instant) -> Error {
        let log = self.folder.join(self.log);
        let words = paths.read(&log, LOG_MAX, by).await.unwrap_or_default();
        if words.is_empty() || !error.to_string().starts_with("criu") {
            return error;
        }
        let kept = match &self.kept {
            Some(kept) => std::fs::rename(&log, kept).context(|| "rename").map(|()| kept.clone()),
            None => Ok(log),
        };
        match kept {
            Ok(place) => explain(error, &words).context(format!("see {place:?}")),
            Err(_) => explain(error, &words),
        }
    }
}

impl Drop for Work {
    fn drop(&mut self) {
        if self.kept.is_some()
            && let Err(e) = std::fs::remove_dir_all(&self.folder)
        {
            log::warn!("what criu has worked with is left: {e}");
        }
    }
}
