//! A cgroup and what is below it: making, listing, signalling, removing.

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

/// The file that lists processes, and takes them in.
pub(super) const PROCS: &str = "cgroup.procs";

/// The directories that a create has made; dropped before `keep`, it removes them again.
#[derive(Debug, Default)]
pub(super) struct Made(Vec<PathBuf>);

impl Made {
    /// The directory `below` `mount`, with its parents; true where it was not there.
    pub(super) fn make(&mut self, mount: &Path, below: &Path) -> Result<(Dir, bool)> {
        let path = mount.join(below);
        // Another container's removal may take a parent away between two steps: a few rounds.
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
                // The one above has gone in the meantime: the next round.
                Err(e) if e.kind() == std::io::ErrorKind::NotFound && mount.is_dir() => return Ok(()),
                Err(e) => return Err(e).context(|| format!("mkdir({path:?})")),
            }
        }
        Ok(())
    }

    /// They stay; those above come first.
    pub(super) fn keep(mut self) -> Vec<PathBuf> {
        std::mem::take(&mut self.0)
    }
}

impl Drop for Made {
    fn drop(&mut self) {
        remove_empty(&self.0);
    }
}

/// The last one first. What has got another cgroup or a process in the meantime stays, and so what is gone already.
pub(super) fn remove_empty(made: &[PathBuf]) {
    for path in made.iter().rev() {
        let _ = std::fs::remove_dir(path);
    }
}

/// A cgroup that was there before may be used when it is empty.
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

/// All processes in `dir` and below, each once. Those of a foreign pid namespace (0) are left out.
pub(super) fn processes(dir: &Dir) -> Result<Vec<u32>> {
    let mut all = Vec::new();
    walk::each(dir, |dir| {
        // A threaded cgroup refuses (EOPNOTSUPP): its processes are listed by the domain above it.
        if let Some(text) = dir.read_if(PROCS)? {
            all.extend(text.lines().filter_map(|line| line.parse().ok()).filter(|pid: &u32| *pid != 0));
        }
        Ok(())
    })?;
    all.sort_unstable();
    all.dedup();
    Ok(all)
}

/// The cgroup in `dir` or below that `pid` is in.
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

/// Moves processes into `dir`; those that have ended are passed over.
pub(super) fn move_to(dir: &Dir, pids: &[u32]) -> Result<()> {
    for pid in pids {
        match dir.write(PROCS, &pid.to_string()) {
            Err(e) if e.errno() != Some(libc::ESRCH) => return Err(e),
            _ => {}
        }
    }
    Ok(())
}

/// SIGKILL; a process that is gone already is fine.
pub(super) fn kill_all(pids: &[u32]) -> Result<()> {
    for &pid in pids {
        match kill(Pid::from_raw(pid as i32), Signal::SIGKILL) {
            Ok(()) | Err(Errno::ESRCH) => {}
            Err(errno) => return Err(Error::system(format!("kill({pid}, SIGKILL)"), errno as i32)),
        }
    }
    Ok(())
}

/// Dying processes keep a cgroup busy for a moment.
const DYING: Duration = Duration::from_secs(1);

/// SIGKILL to all in `dir` and below. Who has one cannot fork any more: so until a look finds nobody new. But a child whose
/// parent was forking at that moment may come to be listed later: who must be sure looks again.
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

/// Removes `path` and what is below it.
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
        // Because of cgroups below it, perhaps; they go first.
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

/// What an exec is to be put into would stop it.
pub(super) fn frozen_beside(dir: &Dir, pid: u32) -> Error {
    let what = format!("process {pid} is in the cgroup {:?}, which is frozen", dir.path());
    Error::new(Kind::State, what)
}

/// What is put into it would stop, and whoever waits for it too.
pub(super) fn frozen_before(dir: &Dir) -> Error {
    let what = "is frozen, by itself or with one above it";
    Error::new(Kind::State, format!("linux.cgroupsPath: the cgroup {:?} {what}", dir.path()))
}

/// The cgroup is frozen, or it is thawed and there is an error.
pub(super) fn frozen_or(frozen: Result<()>, thaw: impl FnOnce() -> Result<()>) -> Result<()> {
    frozen.map_err(|error| match thaw() {
        Ok(()) => error,
        Err(also) => error.context(format!("it could not be thawed either ({also})")),
    })
}

/// Ok also where the file's cgroup is gone: what was to be done to its processes is done.
pub(super) fn unless_absent(result: Result<()>) -> Result<()> {
    match result {
        Err(e) if is_absent(&e) => Ok(()),
        result => result,
    }
}
