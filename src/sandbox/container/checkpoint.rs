//! Task.Checkpoint: the container's processes, written into files by CRIU.
//!
//! What is not the container's own is named, so that a restore can give it again: streams, what is mounted of the host's,
//! namespaces that it has joined.

use super::life::Init;
use super::work::Work;
use super::{Container, Refused, Verb, DEATH};
use crate::criu::{self, Criu, Dump, Heard, Place, Talk};
use crate::error::{invalid, Context, Error, Kind, Result};
use crate::launch::Leash;
use crate::mountinfo::{mounts, Mount};
use crate::paths::Purpose;
use crate::plan::{CgroupMounts, RootPath};
use crate::sandbox::record;
use crate::sandbox::request::Checkpoint;
use crate::sandbox::undo::Undo;
use crate::spec::mount::Source;
use crate::spec::{Ns, Spec};
use crate::sys::epoll::Interest;
use crate::sys::{path, wait};
use crate::tasks;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::{Path, PathBuf};
use std::time::Instant;

/// The name that runc gives it, whose files these are, too: what the streams were when the container was made.
pub(super) const DESCRIPTORS: &str = "descriptors.json";
/// By what a joined namespace is known in the files: runc's names.
pub(super) const EXTERNAL: [(&str, &str); 2] = [("net", "extRootNetNS"), ("pid", "extRootPidNS")];

impl Container {
    pub async fn checkpoint(&self, request: &Checkpoint, leash: &Leash) -> Result<()> {
        let criu = self.criu(leash).await?;
        {
            let mut dump = self.dump.lock();
            if dump.is_some() {
                return Err(at_work());
            }
            *dump = Some(leash.clone());
        }
        let undo = Undo::new(|| *self.dump.lock() = None);
        let (pid, first) = {
            let state = self.lock();
            let init = &state.life.init;
            match init {
                Init::Running(_) => {
                    let pid = state.life.facts.pid;
                    // Not reaped, so the number is its own.
                    (pid, wait::open_pidfd(pid).context(|| format!("pidfd_open({pid})"))?)
                }
                _ => return Err(self.refusal(Refused::Is(init.word()), Verb::of("checkpoint"), None)),
            }
        };
        let done = self.dump(request, &criu, (pid, first.as_fd()), leash).await;
        drop(undo);
        done?;
        if request.exit {
            // CRIU has killed them; what a pause has frozen dies when it is thawed.
            let _ = self.kill(None, libc::SIGKILL as u32, true);
            if self.exit(None)?.within(DEATH).await.is_none() {
                log::warn!(container = self.id.as_str(); "the first process did not end after the checkpoint");
            }
        }
        Ok(())
    }

    /// Ends a checkpoint: its container is to die.
    pub(super) fn end_checkpoint(&self) {
        if let Some(leash) = self.dump.lock().as_ref() {
            leash.kill();
        }
    }

    /// CRIU freezes and thaws the container itself.
    pub(super) fn refuse_during_checkpoint(&self) -> Result<()> {
        if self.dump.lock().is_some() {
            return Err(at_work());
        }
        Ok(())
    }

    async fn dump(
        &self,
        request: &Checkpoint,
        criu: &Criu,
        (pid, first): (u32, BorrowedFd<'_>),
        leash: &Leash,
    ) -> Result<()> {
        let (paths, by) = (&self.world.paths, leash.deadline);
        let images = paths.one(&request.path, Purpose::Folder, by);
        let images = leash.unless_killed(images).await.context(|| "path")?;
        let work = Work::open(paths, &self.bundle, request.work.as_deref(), None, "dump.log", by);
        let work = leash.unless_killed(work).await.context(|| "work_path")?;

        let looked = look(pid, &self.spec);
        if looked.is_err() {
            // Of a process that has ended the kernel says other things.
            leash.check()?;
            unless_ended(first).await?;
        }
        let Looked { mountinfo, descriptors, external } = looked?;
        let text = serde_json::to_string(&descriptors)
            .map_err(|e| Error::caused_by(Kind::Bug, format!("encode {DESCRIPTORS}"), e))?;
        let file = request.path.join(DESCRIPTORS);
        leash.unless_killed(paths.write(&file, &text, by)).await.context(|| "path")?;

        let root = self.bundle.join(&self.spec.root.path);
        let dump = Dump {
            place: Place {
                images: images.as_fd(),
                work: work.fd(),
                log: work.log(),
                config: criu::config(&self.spec.annotations),
                root: &root.to_string_lossy(),
            },
            pid,
            leave_running: !request.exit,
            open_tcp: request.open_tcp,
            external_unix_sockets: request.external_unix_sockets,
            terminal: request.terminal,
            file_locks: request.file_locks,
            cgroups: request.cgroups,
            external,
            mounts: self.mounted(pid, &mountinfo),
            freezer: self.freezer(),
        };
        let frozen = self.cgroup.frozen()?;
        let mut talk = Talk::dump(criu, &dump, first, leash)?;
        let dumped = match self.record_criu(Some(talk.pid)) {
            Ok(()) => follow(&mut talk, first).await,
            Err(e) => Err(e),
        };
        talk.stop().await;
        if let Err(e) = self.record_criu(None) {
            log::warn!(container = self.id.as_str(); "the record still names a CRIU that has ended: {e}");
        }
        let Err(e) = dumped else { return Ok(()) };
        // A CRIU that was killed has left them as they were.
        let thawed = if frozen { Ok(()) } else { self.cgroup.thaw() };
        thawed.and(Err(work.explain(paths, e, crate::launch::after(DEATH)).await))
    }

    fn record_criu(&self, pid: Option<u32>) -> Result<()> {
        // The lock keeps the record's writers apart.
        let _state = self.lock();
        record::at_work(self.records.folder(), pid)
    }

    /// An error that says so where the program is missing, or this container is one that it cannot do.
    pub(super) async fn criu(&self, leash: &Leash) -> Result<Criu> {
        let settings = self.world.settings()?;
        let criu = Criu::find(&self.world.paths, settings.criu_path.as_deref(), leash.deadline).await?;
        let unsupported = |what: &str| {
            Err(Error::new(Kind::Unsupported, format!("checkpoint and restore of a container with {what}")))
        };
        match &self.spec.namespaces {
            ns if ns.user != Ns::Host => unsupported("a user namespace"),
            ns if ns.mount != Ns::New => unsupported("a mount namespace by path"),
            // CRIU makes the filters again, and no listener.
            _ if self.spec.seccomp.as_ref().is_some_and(|profile| profile.listener.is_some()) => {
                unsupported("linux.seccomp.listenerPath")
            }
            _ => Ok(criu),
        }
    }

    /// The names of `self.given` in the dump, by where they are mounted.
    fn mounted(&self, pid: u32, mountinfo: &[u8]) -> Vec<(String, String)> {
        let resolved = |(name, _): (String, PathBuf)| {
            let point = resolve(pid, &name).map(|point| point.to_string_lossy().into_owned());
            (point.unwrap_or_else(|| name.clone()), name)
        };
        let mut all: Vec<_> = self.given().into_iter().map(resolved).collect();
        all.extend(self.masked(mountinfo).map(|path| (path.to_owned(), NULL.to_owned())));
        all
    }

    /// Files that are hidden behind the null device.
    pub(super) fn masked<'a>(&'a self, mountinfo: &'a [u8]) -> impl Iterator<Item = &'a str> {
        let is_null = |path: &&String| {
            let mut here = mounts(mountinfo).filter(|mount| mount.point() == Path::new(path.as_str()));
            here.any(|mount: Mount<'_>| mount.root() == Path::new("/null"))
        };
        self.spec.masked_paths.iter().filter(is_null).map(String::as_str)
    }

    /// What of the host's is mounted in the container: the name in a dump, and where it is.
    pub(super) fn given(&self) -> Vec<(String, PathBuf)> {
        let mut all = Vec::new();
        for mount in &self.spec.mounts {
            let destination = tidy(&mount.destination);
            match &mount.source {
                Source::Bind { path, .. } => all.push((destination, self.bundle.join(path))),
                Source::Filesystem { fstype, .. }
                    if fstype.as_c_str() == c"cgroup" && self.spec.namespaces.cgroup != Ns::New =>
                {
                    if let CgroupMounts::V1(_) = self.world.host.cgroups {
                        for (hierarchy, below) in self.cgroup.directories() {
                            let name = hierarchy.file_name().unwrap_or_default().to_string_lossy();
                            let below = below.strip_prefix("/").unwrap_or(&below);
                            all.push((format!("{destination}/{name}"), hierarchy.join(below)));
                        }
                    }
                }
                _ => {}
            }
        }
        all
    }

    /// By which CRIU stops them all at once.
    fn freezer(&self) -> Option<String> {
        let members = self.cgroup.pod_record().members;
        let freezer = |member: &&crate::cgroup::Member| {
            member.names.iter().any(|name| name == "freezer") || members.len() == 1
        };
        let member = members.iter().find(freezer)?;
        let below = member.below.strip_prefix("/").unwrap_or(&member.below);
        Some(member.mount.join(below).to_string_lossy().into_owned())
    }
}

fn at_work() -> Error {
    Error::new(Kind::State, "a checkpoint of it is under way")
}

async fn follow(talk: &mut Talk<'_>, first: BorrowedFd<'_>) -> Result<()> {
    loop {
        match talk.next().await? {
            Heard::Done(_) => return Ok(()),
            // CRIU knows the process by its number, which may have become another one's before it had it.
            Heard::Seized => unless_ended(first).await?,
            _ => {}
        }
    }
}

pub(super) async fn unless_ended(first: BorrowedFd<'_>) -> Result<()> {
    if tasks::ready(first, Interest::READ, Instant::now()).await? {
        return Err(Error::new(Kind::State, "its first process has ended"));
    }
    Ok(())
}

/// What is seen of the first process before CRIU does anything.
struct Looked {
    mountinfo: Vec<u8>,
    /// The names of its streams.
    descriptors: Vec<String>,
    /// What of it CRIU does not find in the container.
    external: Vec<String>,
}

fn look(pid: u32, spec: &Spec) -> Result<Looked> {
    let mountinfo = read(&format!("/proc/{pid}/mountinfo"))?;
    let (descriptors, mut external) = streams(pid, &mountinfo)?;
    external.extend(namespaces(pid, spec)?);
    Ok(Looked { mountinfo, descriptors, external })
}

/// What stands for a masked file, in the files and on every host.
pub(super) const NULL: &str = "/dev/null";

/// As CRIU has them: absolute, without what means nothing.
pub(super) fn tidy(destination: &str) -> String {
    match RootPath::new(destination) {
        Some(path) if path.as_c_str() != c"." => format!("/{}", path.as_c_str().to_string_lossy()),
        _ => "/".into(),
    }
}

/// Where a path of the container leads to, as far as the kernel has it in memory: what is mounted there is.
pub(super) fn resolve(pid: u32, name: &str) -> Option<PathBuf> {
    let root = std::ffi::CString::new(format!("/proc/{pid}/root")).ok()?;
    let name = std::ffi::CString::new(name).ok()?;
    path::cached_in(&root, &name)
}

pub(super) fn read(path: &str) -> Result<Vec<u8>> {
    std::fs::read(path).context(|| format!("read({path:?})"))
}

/// What its first process has as 0, 1 and 2, and which of them CRIU does not find in the container. A pipe is known by
/// its number; a file of the host's, as a fifo is, by its mount and its inode.
fn streams(pid: u32, mountinfo: &[u8]) -> Result<(Vec<String>, Vec<String>)> {
    let (mut names, mut external) = (Vec::new(), Vec::new());
    for fd in 0..3 {
        let path = format!("/proc/{pid}/fd/{fd}");
        let link = match std::fs::read_link(&path) {
            Ok(link) => link.to_string_lossy().into_owned(),
            // The program has closed it.
            Err(e) if e.raw_os_error() == Some(libc::ENOENT) => String::new(),
            Err(e) => return Err(e).context(|| format!("readlink({path:?})")),
        };
        if link.starts_with('/') {
            let info = String::from_utf8_lossy(&read(&format!("/proc/{pid}/fdinfo/{fd}"))?).into_owned();
            let number = |name: &str| {
                let line = info.lines().find_map(|line| line.strip_prefix(name));
                line.and_then(|words| words.trim().parse::<u64>().ok())
            };
            let (Some(mount), Some(inode)) = (number("mnt_id:"), number("ino:")) else {
                return Err(Error::new(
                    Kind::Unsupported,
                    "checkpoint: this kernel does not tell a file's inode",
                ));
            };
            if !mounts(mountinfo).any(|known| known.has_id(mount)) {
                let name = format!("file[{mount:x}:{inode:x}]");
                if !external.contains(&name) {
                    external.push(name.clone());
                }
                names.push(name);
                continue;
            }
        }
        names.push(link);
    }
    Ok((names, external))
}

/// What it has joined stays as it is, and so it is looked at where it is: the path may have become another one's.
fn namespaces(pid: u32, spec: &Spec) -> Result<Vec<String>> {
    let mut all = Vec::new();
    for ((kind, key), ns) in EXTERNAL.iter().zip([&spec.namespaces.net, &spec.namespaces.pid]) {
        if let Ns::Join(_) = ns {
            let path = format!("/proc/{pid}/ns/{kind}");
            let link = std::fs::read_link(&path).context(|| format!("readlink({path:?})"))?;
            let link = link.to_string_lossy().into_owned();
            let number = link.split_once('[').and_then(|(_, rest)| rest.strip_suffix(']'));
            let number = number.ok_or_else(|| invalid(format!("{path:?} is {link:?}")))?;
            all.push(format!("{kind}[{number}]:{key}"));
        }
    }
    Ok(all)
}
