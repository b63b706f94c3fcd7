//! A cgroup and everything below it: creating, listing, signalling, removing.

use std::collections::BTreeSet;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::signal::{kill, Signal};
use nix::unistd::Pid;

use super::dir::{is_absent, Dir};
use super::walk;
use crate::error::{Context, Error, Kind, Result};
use crate::tasks::Looks;

/// The file that lists processes, and takes new ones.
pub(super) const PROCS: &str = "cgroup.procs";

/// The directories that a create has made; dropping it before `keep` removes them again.
#[derive(Debug, Default)]
pub(super) struct Made(Vec<PathBuf>);

impl Made {
    /// Creates the directory `below` `mount`, with its parents; returns whether it is new.
    pub(super) fn make(&mut self, mount: &Path, below: &Path) -> Result<(Dir, bool)> {
        let path = mount.join(below);
        // The removal of another container may take a parent away between two steps: retry a few times.
        for _ in 0..16 {
            let fresh = match std::fs::create_dir(&path) {
                Ok(()) => {
                    self.0.push(path.clone());
                    true
                }
                Err(e) if e.kind() == std::io::ErrorKind::AlreadyExists => false,
                Err(e) if e.kind() == std::io::ErrorKind::NotFound => {
                    self.parents(mount, below)?;
                    continue;
                }
                Err(e) => return Err(e).context(|| format!("mkdir({path:?})")),
            };
            return Ok((Dir::open(&path)?, fresh));
        }
        Err(Error::system(format!("mkdir({path:?})"), libc::ENOENT))
    }

    fn parents(&mut self, mount: &Path, below: &Path) -> Result<()> {
        let mut path = mount.to_owned();
        for part in below.parent().into_iter().flatten() {
            path.push(part);
            match std::fs::create_dir(&path) {
                Ok(()) => self.0.push(path.clone()),
                Err(e) if e.kind() == std::io::ErrorKind::AlreadyExists => {}
                // The parent has gone in the meantime: retry.
                Err(e) if e.kind() == std::io::ErrorKind::NotFound && mount.is_dir() => return Ok(()),
                Err(e) => return Err(e).context(|| format!("mkdir({path:?})")),
            }
        }
        Ok(())
    }

    /// Keeps the directories, and returns them, parents first.
    pub(super) fn keep(mut self) -> Vec<PathBuf> {
        std::mem::take(&mut self.0)
    }
}

impl Drop for Made {
    fn drop(&mut self) {
        remove_empty(&self.0);
    }
}

/// Removes directories, last one first. One that has got another cgroup or a process in the meantime stays; one that is
/// gone is skipped.
pub(super) fn remove_empty(made: &[PathBuf]) {
    for path in made.iter().rev() {
        let _ = std::fs::remove_dir(path);
    }
}

/// Refuses an existing cgroup with processes; an empty one may be used.
pub(super) fn refuse_busy(dir: &Dir) -> Result<()> {
    let processes = processes(dir)?;
    match processes.len() {
        0 => Ok(()),
        n => Err(Error::new(
            Kind::State,
            format!("linux.cgroupsPath: the cgroup {:?} is in use: {n} processes are in it", dir.path()),
        )),
    }
}

/// Lists all processes in `dir` and below, each once. Those of a foreign pid namespace (0) are left out.
pub(super) fn processes(dir: &Dir) -> Result<Vec<u32>> {
    let mut all = Vec::new();
    walk::each(dir, |dir| {
        // A threaded cgroup refuses (EOPNOTSUPP): the domain above it lists its processes.
        if let Some(text) = dir.read_if(PROCS)? {
            all.extend(text.lines().filter_map(|line| line.parse().ok()).filter(|pid: &u32| *pid != 0));
        }
        Ok(())
    })?;
    all.sort_unstable();
    all.dedup();
    Ok(all)
}

/// Finds the cgroup of `pid`: `dir` or one below it.
pub(super) fn find(dir: &Dir, pid: u32) -> Result<Option<OwnedFd>> {
    let mut found = None;
    walk::each(dir, |dir| {
        let text = dir.read_if(PROCS)?.unwrap_or_default();
        if text.lines().any(|line| line.parse() == Ok(pid)) {
            found = Some(dir.try_clone_fd()?);
        }
        Ok(())
    })?;
    Ok(found)
}

/// Moves processes into `dir`; skips those that have ended.
pub(super) fn move_to(dir: &Dir, pids: &[u32]) -> Result<()> {
    for pid in pids {
        match dir.write(PROCS, &pid.to_string()) {
            Err(e) if e.errno() != Some(libc::ESRCH) => return Err(e),
            _ => {}
        }
    }
    Ok(())
}

/// Sends SIGKILL to each; a process may be gone already.
pub(super) fn kill_all(pids: &[u32]) -> Result<()> {
    for &pid in pids {
        match kill(Pid::from_raw(pid as i32), Signal::SIGKILL) {
            Ok(()) | Err(Errno::ESRCH) => {}
            Err(errno) => return Err(Error::system(format!("kill({pid}, SIGKILL)"), errno as i32)),
        }
    }
    Ok(())
}

/// How long dying processes may keep a cgroup busy.
const DYING: Duration = Duration::from_secs(1);

/// Sends SIGKILL to everything in `dir` and below, until a scan finds no new process: one that has the signal pending
/// cannot fork any more. But a child whose parent was forking at that moment may be listed only later: a caller that
/// must be sure scans again.
pub(super) fn kill_within(dir: &Dir) -> Result<()> {
    let mut killed = BTreeSet::new();
    for _ in 0..100 {
        let new: Vec<u32> = processes(dir)?.into_iter().filter(|pid| !killed.contains(pid)).collect();
        if new.is_empty() {
            break;
        }
        kill_all(&new)?;
        killed.extend(new);
    }
    Ok(())
}

/// Removes `path` and everything below it.
pub(super) async fn remove(path: &Path) -> Result<()> {
    let mut looks = Looks::new(Duration::from_millis(1), DYING);
    loop {
        let error = match remove_once(path) {
            Ok(()) => return Ok(()),
            Err(e) => e,
        };
        if error.errno() != Some(libc::EBUSY) {
            return Err(error);
        }
        if looks.elapsed() > DYING {
            let left = Dir::open_if(path)?.map(|dir| processes(&dir)).transpose()?.unwrap_or_default();
            return Err(error.context(format!("{} processes are still in it", left.len())));
        }
        looks.again().await?;
    }
}

fn remove_once(path: &Path) -> Result<()> {
    match std::fs::remove_dir(path) {
        // Perhaps because of cgroups below it; they go first.
        Err(e) if e.raw_os_error() == Some(libc::EBUSY) => {}
        removed => return gone(removed, path),
    }
    let Some(dir) = Dir::open_if(path)? else { return Ok(()) };
    walk::remove_below(&dir)?;
    gone(std::fs::remove_dir(path), path)
}

fn gone(removed: std::io::Result<()>, path: &Path) -> Result<()> {
    match removed {
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(()),
        removed => removed.context(|| format!("rmdir({path:?})")),
    }
}

/// The error for an exec whose cgroup would stop it.
pub(super) fn frozen_beside(dir: &Dir, pid: u32) -> Error {
    let what = format!("process {pid} is in the cgroup {:?}, which is frozen", dir.path());
    Error::new(Kind::State, what)
}

/// The error for a frozen cgroup: a process put into it would stop, and so would whoever waits for it.
pub(super) fn frozen_before(dir: &Dir) -> Error {
    let what = "is frozen, by itself or with one above it";
    Error::new(Kind::State, format!("linux.cgroupsPath: the cgroup {:?} {what}", dir.path()))
}

/// Returns the result of a freeze; thaws the cgroup again if it failed.
pub(super) fn frozen_or(frozen: Result<()>, thaw: impl FnOnce() -> Result<()>) -> Result<()> {
    frozen.map_err(|error| match thaw() {
        Ok(()) => error,
        Err(also) => error.context(format!("it could not be thawed either ({also})")),
    })
}

/// Returns Ok even if the file's cgroup is gone: there is nothing left to do to its processes.
pub(super) fn unless_absent(result: Result<()>) -> Result<()> {
    match result {
        Err(e) if is_absent(&e) => Ok(()),
        result => result,
    }
}
