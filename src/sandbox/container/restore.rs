//! Task.Create with a checkpoint: the container's processes are made from files, by CRIU, when it is started.
//!
//! Until then a process stands in for its first one, in a mount namespace with the root file system; CRIU comes there,
//! into the container's cgroup, and ends when all is as it was. There is no pid before that, as with the Go shim.

use super::checkpoint::{read, DESCRIPTORS, EXTERNAL, NULL};
use super::work::Work;
use super::{hooks, Container};
use crate::cgroup::Entry;
use crate::criu::{self, Criu, Heard, Place, Restore, Talk};
use crate::error::{invalid, Context, Error, Kind, Result};
use crate::launch::{Leash, Order, Waiting};
use crate::paths::Purpose;
use crate::plan;
use crate::sandbox::record::{self, Record};
use crate::spec::Ns;
use crate::stdio::StdioFds;
use crate::sys::fd::{open_at, AsFd, AsRawFd, BorrowedFd, OwnedFd};
use crate::sys::{spawn, wait};
use std::path::{Path, PathBuf};

/// [`DESCRIPTORS`] is three short strings.
const DESCRIPTORS_MAX: u64 = 64 << 10;
/// CRIU's descriptors before ours: its streams and the socket.
const FIRST: i32 = 4;

/// What a create has opened for the start.
pub(super) struct Restoring {
    criu: Criu,
    images: OwnedFd,
    /// What the streams were known by.
    descriptors: Vec<String>,
    /// Those that are joined, by the names of /proc/PID/ns.
    namespaces: Vec<(&'static str, OwnedFd)>,
    ends: Option<StdioFds>,
    /// Keeps the cgroup, where nobody is in it yet.
    entry: Entry,
    record: Record,
}

impl Container {
    /// All that can be said before it is begun.
    pub(super) async fn prepare_restore(&self, images: &Path, leash: &Leash) -> Result<Restoring> {
        let criu = self.criu(leash).await?;
        let (paths, by) = (&self.world.paths, leash.deadline);
        let field = || "checkpoint";
        let opened = paths.one(images, Purpose::Handle, by).await.context(field)?;
        let text = paths.read(&images.join(DESCRIPTORS), DESCRIPTORS_MAX, by).await.context(field)?;
        let descriptors = serde_json::from_slice(&text)
            .map_err(|e| invalid(format!("checkpoint: {DESCRIPTORS}: {}", crate::error::words(&e))))?;
        let ns = &self.spec.namespaces;
        if let Ns::Join(_) = ns.cgroup {
            return Err(invalid("linux.namespaces[cgroup]: criu cannot join one"));
        }
        let mut namespaces = Vec::new();
        for (name, ns) in [("net", &ns.net), ("pid", &ns.pid), ("ipc", &ns.ipc), ("uts", &ns.uts)] {
            if let Ns::Join(path) = ns {
                let file = paths.one(path, Purpose::Handle, by).await;
                namespaces.push((name, file.context(|| format!("linux.namespaces[{name}]"))?));
            }
        }
        let record = Record::new(&self.id, Some(self.cgroup.record()));
        let entry = self.cgroup.entry(None)?;
        Ok(Restoring { criu, images: opened, descriptors, namespaces, ends: None, entry, record })
    }

    /// `stand_in` ends, and the container's first process is there.
    pub(super) async fn restore(
        &self,
        stand_in: Waiting,
        restoring: Restoring,
        leash: &Leash,
    ) -> Result<(u32, OwnedFd)> {
        let restored = self.try_restore(stand_in, restoring, leash).await;
        if restored.is_err() {
            // What CRIU has made by then is in the cgroup, and nowhere else.
            self.cgroup.kill()?;
        }
        restored
    }

    async fn try_restore(
        &self,
        stand_in: Waiting,
        restoring: Restoring,
        leash: &Leash,
    ) -> Result<(u32, OwnedFd)> {
        let Restoring { criu, images, descriptors, namespaces, ends, entry, mut record } = restoring;
        let (paths, by) = (&self.world.paths, leash.deadline);
        let work = Work::open(paths, &self.bundle, None, Some(stand_in.pid), "restore.log", by).await?;

        let external: Vec<_> = EXTERNAL
            .iter()
            .filter_map(|(kind, key)| {
                let (_, file) = namespaces.iter().find(|(name, _)| name == kind)?;
                Some((*key, file.as_fd()))
            })
            .collect();
        let joined = namespaces.iter().filter(|(name, _)| EXTERNAL.iter().all(|(kind, _)| kind != name));
        let shim = std::process::id();
        let own = |file: &OwnedFd| PathBuf::from(format!("/proc/{shim}/fd/{}", file.as_raw_fd()));
        let streams = descriptors.iter().zip(0..3).filter(|(name, _)| is_given(name) && ends.is_some());
        let streams = streams.map(|(name, fd)| (name.clone(), fd));
        let keys = external.iter().zip(FIRST..).map(|((key, _), fd)| ((*key).to_owned(), fd));
        let mut mounts: Vec<_> = self
            .given()
            .into_iter()
            .map(|(name, source)| (name, source.to_string_lossy().into_owned()))
            .collect();
        mounts.push((NULL.to_owned(), NULL.to_owned()));
        let root = self.bundle.join(&self.spec.root.path);
        let restore = Restore {
            place: Place {
                images: images.as_fd(),
                work: work.fd(),
                log: work.log(),
                config: criu::config(&self.spec.annotations),
                root: &root.to_string_lossy(),
            },
            mounts,
            descriptors: distinct(streams.chain(keys)),
            namespaces: joined.map(|(name, file)| (*name, own(file))).collect(),
            cgroups: self.hierarchies(),
        };

        let Entry { into, mut procs, hold } = entry;
        if let Some(directory) = into {
            let file = open_at(directory.as_fd(), c"cgroup.procs", libc::O_WRONLY, 0);
            procs.push(file.context(|| "open(cgroup.procs)")?);
        }
        let cgroups: Vec<BorrowedFd<'_>> = procs.iter().map(|file| file.as_fd()).collect();
        let streams = ends
            .as_ref()
            .map(|StdioFds { stdin, stdout, stderr }| [stdin, stdout, stderr].map(|end| end.as_fd()));
        let place = spawn::Place { mounts: Some(stand_in.pidfd.as_fd()), cgroups: &cgroups, streams };
        let fds: Vec<_> = external.iter().map(|(_, file)| *file).collect();
        let made = async {
            let mut talk = Talk::restore(&criu, &restore, place, &fds, leash)?;
            self.follow(&mut talk, leash).await
        };
        let pid = match made.await {
            Ok(pid) => pid,
            Err(e) => return Err(work.explain(paths, e, by).await),
        };
        drop(hold);
        // Named before it can end unseen; then it is the container's first process.
        let pidfd = stand_in.succeeded_by(pid).await?;
        record.pid = pid;
        record.start_time = record::start_time(pid).unwrap_or(0);
        record.pod_cgroup = self.records.pod_cgroup();
        record.root.clone_from(&self.options.root);
        record::write(self.records.folder(), &record)?;
        leash.check()?;
        Ok((pid, pidfd))
    }

    async fn follow(&self, talk: &mut Talk<'_>, leash: &Leash) -> Result<u32> {
        loop {
            match talk.next().await? {
                Heard::Namespaces(pid) => hooks::restore(self, leash, pid).await?,
                Heard::Terminal(master) => {
                    let io = self.lock().life.facts.io.clone();
                    // Another one was of an exec, whose client is gone.
                    let attached = io.map(|io| io.attach_console(master));
                    if let Some(Err(e)) = attached {
                        log::debug!(id = self.id.as_str(); "a terminal of nobody's: {e}");
                    }
                }
                Heard::Restored(pid) => self.seal(pid, leash).await?,
                Heard::Done(Some(pid)) => return Ok(pid),
                Heard::Done(None) => return Err(Error::new(Kind::System, "criu: it names no process")),
            }
        }
    }

    /// They stand still, and what they must not change of the host's is closed to them before they go on.
    async fn seal(&self, pid: u32, leash: &Leash) -> Result<()> {
        let mountinfo = read(&format!("/proc/{pid}/mountinfo"))?;
        let plan = plan::seal(&self.spec, &self.masked(&mountinfo).collect::<Vec<_>>())?;
        let pidfd = wait::open_pidfd(pid).context(|| format!("pidfd_open({pid})"))?;
        let order = Order {
            plan: &plan,
            ends: None,
            entry: Entry::default(),
            init: Some(pidfd.as_fd()),
            leash,
            on_exit: Box::new(|_| {}),
        };
        self.world.launcher.launch(order).await.map(drop)
    }

    /// The cgroup by the names of /proc/PID/cgroup.
    fn hierarchies(&self) -> Vec<(String, String)> {
        let mut all = Vec::new();
        for member in self.cgroup.pod_record().members {
            let below = member.below.strip_prefix("/").unwrap_or(&member.below);
            let path = format!("/{}", below.display());
            match member.names.is_empty() {
                true => all.push((String::new(), path)),
                false => all.extend(member.names.into_iter().map(|name| (name, path.clone()))),
            }
        }
        all
    }
}

impl Restoring {
    pub(super) fn with_ends(self, ends: Option<StdioFds>) -> Self {
        Restoring { ends, ..self }
    }
}

/// A stream that is not the container's: of runc's images a pipe, of ours also a file.
fn is_given(name: &str) -> bool {
    name.starts_with("pipe:[") || name.starts_with("file[")
}

/// Two streams that are one file are given once.
fn distinct(all: impl Iterator<Item = (String, i32)>) -> Vec<(String, i32)> {
    let mut known: Vec<(String, i32)> = Vec::new();
    for (name, fd) in all {
        if known.iter().all(|(other, _)| *other != name) {
            known.push((name, fd));
        }
    }
    known
}
