//! State that survives the shim: a small JSON file in the bundle from which the `delete` verb, which runs without the
//! server, learns the cgroup and the real exit status.

use crate::cgroup;
use crate::error::{Context, Error, Kind, Result};
use crate::launch::ExitStatus;
use crate::paths;
use serde::{Deserialize, Serialize};
use std::fs;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

const NAME: &str = "shoal.json";

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Record {
    pub id: String,
    /// 0 until the process exists.
    pub pid: u32,
    /// Field 22 of /proc/PID/stat (proc_pid_stat(5)), which detects a reused pid.
    pub start_time: u64,
    /// The cgroup of the process; None for a pod without a first process.
    pub cgroup: Option<cgroup::Record>,
    /// For a pod: its cgroup, as far as it is ours to remove.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parent: Option<cgroup::Record>,
    /// The pod's cgroup, whoever created it; set for a pod and for each of its containers. Pausing the pod freezes it,
    /// and on v1 a frozen process cannot die.
    #[serde(default, alias = "place", skip_serializing_if = "Option::is_none")]
    pub pod_cgroup: Option<cgroup::Record>,
    /// Another directory that links to the record: [`Options::root`](super::Options::root).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub root: Option<PathBuf>,
    /// The resctrl groups that are its own, an outer one first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub resctrl: Vec<PathBuf>,
    /// A CRIU that writes the container's processes down.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub criu: Option<Worker>,
    pub exit: Option<RecordedExit>,
}

/// A process outside of the container that works on it.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct Worker {
    pub pid: u32,
    pub start_time: u64,
}

impl Record {
    pub(super) fn new(id: &str, cgroup: Option<cgroup::Record>) -> Self {
        Record {
            id: id.to_owned(),
            pid: 0,
            start_time: 0,
            cgroup,
            parent: None,
            pod_cgroup: None,
            root: None,
            resctrl: Vec::new(),
            criu: None,
            exit: None,
        }
    }
}

#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct RecordedExit {
    pub code: u32,
    pub seconds: u64,
    pub nanos: u32,
}

impl From<ExitStatus> for RecordedExit {
    fn from(status: ExitStatus) -> Self {
        let since = status.at.duration_since(UNIX_EPOCH).unwrap_or_default();
        RecordedExit { code: status.code, seconds: since.as_secs(), nanos: since.subsec_nanos() }
    }
}

impl RecordedExit {
    pub fn at(&self) -> SystemTime {
        UNIX_EPOCH + std::time::Duration::new(self.seconds, self.nanos)
    }
}

fn path(bundle: &Path) -> PathBuf {
    bundle.join(NAME)
}

/// Replaces the record atomically: a reader sees the old one or the new one.
pub(super) fn write(bundle: &Path, record: &Record) -> Result<()> {
    let path = path(bundle);
    let fresh = path.with_extension("json.new");
    let text = serde_json::to_vec(record)
        .map_err(|e| Error::caused_by(Kind::Bug, format!("record of {}", record.id), e))?;
    let mut file = fs::OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .custom_flags(libc::O_NOFOLLOW)
        .open(&fresh)
        .context(|| format!("open({fresh:?})"))?;
    let written = file.write_all(&text).context(|| format!("write({fresh:?})"));
    let written =
        written.and_then(|()| fs::rename(&fresh, &path).context(|| format!("rename({fresh:?}, {path:?})")));
    if written.is_err() {
        let _ = fs::remove_file(&fresh);
    }
    written
}

/// The link in `root`, the folder that runc would have for the container, and the record that it leads to: whoever looks
/// there (a monitor, containerd's own tests) finds it.
pub(super) fn shown(root: &Path, records: &Path) -> (PathBuf, PathBuf) {
    (path(root), path(records))
}

/// For a program that may wait. What else is in the folder is somebody else's, and stays.
pub fn hide(root: Option<&Path>) {
    if let Some(root) = root {
        paths::unlink(&path(root));
    }
}

/// Reads the record; None if the bundle has none: nothing was created, or everything has been removed.
pub fn read(bundle: &Path) -> Result<Option<Record>> {
    let path = path(bundle);
    match fs::read(&path) {
        Ok(text) => serde_json::from_slice(&text)
            .map(Some)
            .map_err(|e| Error::caused_by(Kind::Invalid, format!("{path:?}"), e)),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(e).context(|| format!("read({path:?})")),
    }
}

/// Makes the record reachable from `bundle`, too.
pub(super) fn link(bundle: &Path, records: &Path) -> Result<()> {
    let (at, to) = (path(bundle), path(records));
    // A failed create may have left one.
    let _ = fs::remove_file(&at);
    std::os::unix::fs::symlink(&to, &at).context(|| format!("symlink({to:?}, {at:?})"))
}

/// Records which CRIU is at work, for a `delete` after a crash.
pub(super) fn at_work(bundle: &Path, criu: Option<u32>) -> Result<()> {
    let worker = |pid| start_time(pid).map(|start_time| Worker { pid, start_time });
    match read(bundle)? {
        Some(record) => write(bundle, &Record { criu: criu.and_then(worker), ..record }),
        None => Ok(()),
    }
}

/// Records the exit for a `delete` after a crash. A failure is only logged: the shim can go on without it.
pub(super) fn exited(bundle: &Path, status: ExitStatus) {
    let written = read(bundle).and_then(|record| match record {
        Some(record) => write(bundle, &Record { exit: Some(status.into()), ..record }),
        None => Ok(()),
    });
    if let Err(e) = written {
        log::warn!("could not record the exit status: {e}");
    }
}

pub fn remove(bundle: &Path) {
    // The bundle belongs to containerd, which removes the directory right after.
    let _ = fs::remove_file(path(bundle));
}

/// The start time of the process in clock ticks since boot; None if there is no such process.
pub fn start_time(pid: u32) -> Option<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // comm may contain anything, including parentheses, so count from the last `)`.
    stat.rsplit_once(')')?.1.split_ascii_whitespace().nth(19)?.parse().ok()
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_own_process_has_a_start_time_and_pid_0_has_none() {
        assert!(super::start_time(std::process::id()).is_some_and(|t| t > 0));
        assert!(super::start_time(0).is_none());
    }
}
