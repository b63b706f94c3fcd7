//! Task.Create with a checkpoint: CRIU makes the container's processes from images when it is started.
//!
//! Until then a process stands in for the first one, in a mount namespace with the root filesystem. CRIU comes there,
//! into the container's cgroup, and ends when everything is as it was. As with the Go shim, there is no pid before that.

use super::checkpoint::{read, DESCRIPTORS, EXTERNAL, NULL};
use super::prepare::filter;
use super::restored::{First, Measure, ALL, EARLY};
use super::restored_mounts::Part;
use super::work::Work;
use super::{hooks, Container, DEATH};
use crate::cgroup::Entry;
use crate::criu::{self, Criu, Heard, Place, Restore, Talk};
use crate::error::{invalid, Context, Error, Kind, Result};
use crate::launch::{after, Leash, Order, Waiting};
use crate::mountinfo::mounts;
use crate::paths::Purpose;
use crate::plan;
use crate::sandbox::record::{self, Record};
use crate::spec::{annotation, Ns};
use crate::stdio::StdioFds;
use crate::sys::fd::{filesystem, open_at, AsFd, AsRawFd, BorrowedFd, OwnedFd};
use crate::sys::namespace::NSFS_MAGIC;
use crate::sys::spawn;
use std::path::{Path, PathBuf};
use std::time::Instant;

/// [`DESCRIPTORS`] is three short strings.
const DESCRIPTORS_MAX: u64 = 64 << 10;
/// CRIU's descriptors before ours: its streams and the socket.
const FIRST: i32 = 4;

/// What a create has opened for the start.
pub(super) struct Restoring {
    criu: Criu,
    images: OwnedFd,
    /// The names of the streams in the images.
    descriptors: Vec<String>,
    /// Joined namespaces, by their names in /proc/PID/ns.
    namespaces: Vec<(&'static str, OwnedFd)>,
    /// Where the host's files are to be mounted.
    sources: Vec<(String, Part)>,
    ends: Option<StdioFds>,
    /// Keeps the cgroup while nobody is in it.
    entry: Entry,
    record: Record,
}

impl Container {
    /// Everything that can fail before the start does.
    pub(super) async fn prepare_restore(&self, images: &Path, leash: &Leash) -> Result<Restoring> {
        let criu = self.criu(leash).await?;
        // containerd 2.1 to 2.3 unpacks the changes of CRI's root filesystem into the bundle after the create, where the
        // root is mounted with runc: without them, files would be other ones than its processes had.
        if self.spec.annotations.contains_key(annotation::CONTAINER_TYPE) {
            let what = "checkpoint: a container of CRI, whose root filesystem follows later";
            return Err(Error::new(Kind::Unsupported, what));
        }
        let (paths, by) = (&self.world.paths, leash.deadline);
        let field = || "checkpoint";
        let opened = paths.one(images, Purpose::Handle, by).await.context(field)?;
        let text = paths.read(&images.join(DESCRIPTORS), DESCRIPTORS_MAX, by).await.context(field)?;
        let descriptors = serde_json::from_slice(&text)
            .map_err(|e| invalid(format!("checkpoint: {DESCRIPTORS}: {}", crate::error::words(&e))))?;
        self.check_filters(images, by).await?;
        let ns = &self.spec.namespaces;
        if let Ns::Join(_) = ns.cgroup {
            return Err(invalid("linux.namespaces[cgroup]: criu cannot join one"));
        }
        let mut namespaces = Vec::new();
        let kinds = [
            ("net", "network", &ns.net),
            ("pid", "pid", &ns.pid),
            ("ipc", "ipc", &ns.ipc),
            ("uts", "uts", &ns.uts),
            ("time", "time", &ns.time),
        ];
        for (name, field, ns) in kinds {
            if let Ns::Join(path) = ns {
                let file = self.namespace(path, by).await;
                let file = file.and_then(|file| {
                    joinable(file.as_fd(), name, plan::private_for(&self.spec, field))?;
                    Ok(file)
                });
                namespaces.push((name, file.context(|| format!("linux.namespaces[{field}]"))?));
            }
        }
        let sources = self.sources(by).await?;
        let record = Record::new(&self.id, Some(self.cgroup.record()));
        let entry = self.cgroup.entry(None)?;
        Ok(Restoring { criu, images: opened, descriptors, namespaces, sources, ends: None, entry, record })
    }

    async fn namespace(&self, path: &Path, by: Instant) -> Result<OwnedFd> {
        // A pod's, which the shim holds: no client can name a descriptor of the shim.
        if path.starts_with("/proc/self/fd") {
            let file = std::fs::File::open(path).context(|| format!("open({path:?})"))?;
            return Ok(file.into());
        }
        self.world.paths.one(path, Purpose::Handle, by).await
    }

    /// A restored process has the filters of the image, so those must be the specification's.
    async fn check_filters(&self, images: &Path, by: Instant) -> Result<()> {
        let Some(compiled) = filter(&self.world.filters, &self.spec)? else { return Ok(()) };
        let instruction = |i: &crate::sys::seccomp::SockFilter| {
            let [k0, k1, k2, k3] = i.k.to_ne_bytes();
            let [code0, code1] = i.code.to_ne_bytes();
            [code0, code1, i.jt, i.jf, k0, k1, k2, k3]
        };
        let program: Vec<u8> = compiled.filter.program.iter().flat_map(instruction).collect();
        let image = self.world.paths.read(&images.join(criu::FILTERS), criu::FILTERS_MAX, by).await;
        criu::all_begin_with(&image.context(|| "checkpoint")?, |bytes| bytes == program)
    }

    /// Ends the stand-in; the container's first process exists afterwards.
    pub(super) async fn restore(
        &self,
        stand_in: Waiting,
        restoring: Restoring,
        leash: &Leash,
    ) -> Result<(u32, OwnedFd)> {
        let restored = self.try_restore(stand_in, restoring, leash).await;
        if restored.is_err() {
            // Whatever CRIU has made is there.
            if let Err(e) = self.cgroup.kill() {
                log::warn!(container = self.id.as_str(); "what criu has made is not ended: {e}");
            }
        }
        restored
    }

    async fn try_restore(
        &self,
        stand_in: Waiting,
        restoring: Restoring,
        leash: &Leash,
    ) -> Result<(u32, OwnedFd)> {
        let Restoring { criu, images, descriptors, namespaces, sources, ends, entry, mut record } = restoring;
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
        let link = |file: &OwnedFd| std::fs::read_link(format!("/proc/self/fd/{}", file.as_raw_fd()));
        let joined =
            namespaces.iter().map(|(name, file)| Ok((*name, link(file)?.to_string_lossy().into_owned())));
        let mut measure = Measure {
            spec: &self.spec,
            joined: joined.collect::<std::io::Result<_>>().context(|| "readlink(a namespace)")?,
            stand_in: stand_in.pid,
            cgroup: Vec::new(),
        };

        let Entry { into, mut procs, hold } = entry;
        if let Some(directory) = into {
            let file = open_at(directory.as_fd(), c"cgroup.procs", libc::O_WRONLY, 0);
            procs.push(file.context(|| "open(cgroup.procs)")?.into());
        }
        let cgroups: Vec<BorrowedFd<'_>> = procs.iter().map(|file| file.as_fd()).collect();
        let streams = ends
            .as_ref()
            .map(|StdioFds { stdin, stdout, stderr }| [stdin, stdout, stderr].map(|end| end.as_fd()));
        let keyring = (!self.options.no_new_keyring).then(|| plan::keyring_of(&self.id)).transpose()?;
        let place = spawn::Place {
            mounts: Some(stand_in.pidfd.as_fd()),
            cgroups: &cgroups,
            streams,
            keyring: keyring.as_deref(),
        };
        let fds: Vec<_> = external.iter().map(|(_, file)| *file).collect();
        let mut talk = Talk::restore(&criu, &restore, place, &fds, leash)?;
        let mut first = None;
        let made = self.follow(&mut talk, &mut measure, &sources, &mut first, leash).await;
        if made.is_err() {
            // Before CRIU: what it traces goes on when it has ended.
            if let Some(first) = &first {
                first.kill().await;
            }
        }
        talk.stop().await;
        let pid = match made {
            Ok(pid) => pid,
            Err(e) => return Err(work.explain(paths, e, after(DEATH)).await),
        };
        drop(hold);
        self.lock().life.facts.pid = pid;
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

    /// Lets CRIU go on only with what the specification allows.
    async fn follow(
        &self,
        talk: &mut Talk<'_>,
        measure: &mut Measure<'_>,
        sources: &[(String, Part)],
        first: &mut Option<First>,
        leash: &Leash,
    ) -> Result<u32> {
        let mut measured = false;
        loop {
            match talk.next().await? {
                Heard::Namespaces(pid) => {
                    let pid = first.insert(First::new(pid)?).pid;
                    measure.cgroup = read(&format!("/proc/{}/cgroup", talk.pid))?;
                    measure.namespaces(pid, EARLY)?;
                    hooks::restore(self, leash, pid).await?;
                }
                Heard::Terminal(master) => {
                    let io = self.lock().life.facts.io.clone();
                    // Another one was an exec's, whose client is gone.
                    let attached = io.map(|io| io.attach_console(master));
                    if let Some(Err(e)) = attached {
                        log::debug!(container = self.id.as_str(); "a terminal of nobody's: {e}");
                    }
                }
                Heard::Restored(pid) => {
                    let first = known(first.as_ref())?;
                    first.check(pid)?;
                    measure.namespaces(first.alive().await?, ALL)?;
                    self.seal(first, leash).await?;
                    self.check_mounts(pid, measure.stand_in, sources)?;
                    // What was seen was its own.
                    first.alive().await?;
                }
                Heard::Resuming => {
                    let first = known(first.as_ref())?;
                    measure.processes(first.alive().await?)?;
                    first.alive().await?;
                    measured = true;
                }
                Heard::Seized => {}
                Heard::Done(Some(pid)) if measured => {
                    return known(first.as_ref())?.check(pid).map(|()| pid);
                }
                Heard::Done(_) => {
                    let what = "criu: it does not tell of the processes before they go on: it is too old";
                    return Err(Error::new(Kind::Unsupported, what));
                }
            }
        }
    }

    /// While everything stands still, closes to the processes what they must not change of the host's.
    async fn seal(&self, first: &First, leash: &Leash) -> Result<()> {
        let pid = first.pid;
        let mountinfo = read(&format!("/proc/{pid}/mountinfo"))?;
        let points: Vec<PathBuf> = mounts(&mountinfo).map(|mount| mount.point()).collect();
        let is_mounted = |name: &str| {
            let point = super::checkpoint::resolve(pid, name).unwrap_or_else(|| name.into());
            points.contains(&point)
        };
        let plan = plan::seal(&self.spec, &is_mounted)?;
        let order = Order {
            plan: &plan,
            ends: None,
            entry: Entry::default(),
            init: Some(first.pidfd()),
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
            if member.names.is_empty() {
                all.push((String::new(), path));
            } else {
                all.extend(member.names.into_iter().map(|name| (name, path.clone())));
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

fn known(first: Option<&First>) -> Result<&First> {
    first.ok_or_else(|| Error::new(Kind::System, "criu: it names no process"))
}

/// Whether it is a namespace of this kind; and not the host's, where that is refused to a create, too.
fn joinable(file: BorrowedFd<'_>, kind: &str, private_for: Option<&str>) -> Result<()> {
    // Nobody else can make a link that says this.
    let link = std::fs::read_link(format!("/proc/self/fd/{}", file.as_raw_fd()));
    let link = link.context(|| "readlink(a namespace)")?;
    let is_namespace = filesystem(file).context(|| "fstatfs(a namespace)")? == NSFS_MAGIC;
    if !is_namespace || !link.to_string_lossy().starts_with(&format!("{kind}:[")) {
        return Err(invalid(format!("{link:?} is no {kind} namespace")));
    }
    let is_own =
        |pid: &str| std::fs::read_link(format!("/proc/{pid}/ns/{kind}")).is_ok_and(|own| own == link);
    match private_for.filter(|_| is_own("self") || is_own("1")) {
        Some(what) => Err(invalid(format!("the host's, which {what} would change"))),
        None => Ok(()),
    }
}

/// Whether a stream is not the container's own: a pipe in runc's images, in ours also a file.
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
