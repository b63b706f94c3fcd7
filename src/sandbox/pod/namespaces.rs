//! The pod's namespaces: created by a process that then exits, or stays as the first process of the pod; held open by
//! descriptors, and by a thread whose id makes them reachable in /proc.

use crate::error::{Context, Result};
use crate::launch::{ExitStatus, Holder, Launcher, Leash, OnExit, Order};
use crate::plan::{self, Host};
use crate::spec::{Mappings, Namespaces, Ns, Sysctl};
use crate::{cgroup, sys};
use std::ffi::CString;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::PathBuf;

/// CLONE_NEW* flags and the names in /proc/PID/ns.
const KINDS: [(&str, libc::c_int); 5] = [
    ("net", libc::CLONE_NEWNET),
    ("ipc", libc::CLONE_NEWIPC),
    ("uts", libc::CLONE_NEWUTS),
    ("pid", libc::CLONE_NEWPID),
    ("user", libc::CLONE_NEWUSER),
];

/// The namespaces to create.
pub(super) struct Wanted {
    pub namespaces: Namespaces,
    /// The request specifies the network namespace by `netns_path`.
    pub by_netns_path: bool,
    /// The mappings of a new user namespace.
    pub mappings: Mappings,
    pub hostname: Option<CString>,
    pub sysctls: Vec<Sysctl>,
    /// The root of the pod's first process; None if the pod has none.
    pub root: Option<PathBuf>,
}

/// Keeps the namespaces open; after the drop they exist only as long as a container is in them.
pub(crate) struct Held {
    /// The id in /proc that is in all of them.
    pub pid: u32,
    files: Vec<(&'static str, OwnedFd)>,
    /// The pod's first process.
    init: Option<OwnedFd>,
    _holder: Option<Holder>,
}

impl Held {
    /// A path that leads to the namespace when this process opens it; None if it is the host's.
    pub fn path(&self, kind: &str) -> Option<PathBuf> {
        let (_, file) = self.files.iter().find(|(name, _)| *name == kind)?;
        Some(format!("/proc/self/fd/{}", file.as_raw_fd()).into())
    }
}

/// Killing the first process ends everything in the pod's pid namespace.
impl Drop for Held {
    fn drop(&mut self) {
        if let Some(init) = &self.init {
            // It is already gone, or ours to kill.
            let _ = sys::wait::signal(init.as_fd(), libc::SIGKILL);
        }
    }
}

pub(super) async fn make(
    launcher: &dyn Launcher,
    host: &Host,
    wanted: &Wanted,
    entry: cgroup::Entry,
    leash: &Leash,
    on_exit: OnExit,
) -> Result<Held> {
    let ns = &wanted.namespaces;
    let all = [&ns.net, &ns.ipc, &ns.uts, &ns.pid, &ns.user];
    let mut files = Vec::new();
    let mut init = None;
    let mut pid = 0;
    if all.iter().any(|ns| **ns != Ns::Host) {
        let plan = plan::pod(&plan::PodInput {
            namespaces: ns,
            network: wanted.by_netns_path.then_some("netns_path"),
            mappings: &wanted.mappings,
            hostname: wanted.hostname.as_ref(),
            sysctls: &wanted.sysctls,
            host,
            root: wanted.root.as_deref(),
        })?;
        let order = Order { plan: &plan, ends: None, entry, init: None, leash, on_exit };
        let waiting = launcher.launch(order).await?.at_gate().await?;
        for ((name, _), ns) in KINDS.iter().zip(all) {
            if *ns != Ns::Host {
                files.push((*name, open(waiting.pid, name)?));
            }
        }
        pid = waiting.pid;
        if wanted.root.is_some() {
            init = Some(waiting.start_by(leash).await?);
        }
    }
    if init.is_some() {
        return Ok(Held { pid, files, init, _holder: None });
    }
    let mut joined = Vec::new();
    for (name, file) in &files {
        let kind = KINDS.iter().find(|(known, _)| known == name).map_or(0, |(_, kind)| *kind as u64);
        joined.push((kind, file.try_clone().context(|| format!("dup(the {name} namespace)"))?));
    }
    let holder = Holder::park(joined)?;
    Ok(Held { pid: holder.id, files, init: None, _holder: Some(holder) })
}

fn open(pid: u32, name: &str) -> Result<OwnedFd> {
    let path = format!("/proc/{pid}/ns/{name}");
    std::fs::File::open(&path).map(OwnedFd::from).context(|| format!("open({path:?})"))
}

/// The exit status of a pod that was stopped regularly.
pub(super) fn ended_well() -> ExitStatus {
    ExitStatus { code: 0, at: std::time::SystemTime::now() }
}
