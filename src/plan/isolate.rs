//! Into the cgroup and the namespaces.
//!
//! A user namespace makes two processes of one. The first is still the host's root: it joins what is joined (a
//! namespace may be owned by the host), puts the rootfs mounts of the request together, then joins the user namespace
//! and gives birth to the second, whose new namespaces the user namespace owns therefore. See [`Step::Sibling`].

use super::builder::{host_path, Builder, Pids};
use super::session::Label;
use super::{Open, Slot, Step};
use crate::error::Result;
use crate::spec::{Affinity, Mappings, Namespaces, Ns, Process, Spec};
use std::ffi::CStr;
use std::path::Path;

/// What decides on where a first process comes to be.
pub(super) struct Isolation<'a> {
    /// None for the process of a pod.
    pub process: Option<&'a Process>,
    pub label: Option<&'a Label>,
    pub namespaces: &'a Namespaces,
    pub mappings: &'a Mappings,
    pub time_offsets: Option<&'a CStr>,
    /// What the request calls the network namespace.
    pub network: &'a str,
    /// What it changes in a namespace of this kind, and must not change in the host's.
    pub apart: &'a dyn Fn(&str) -> Option<&'static str>,
}

/// CLONE_NEW* as the plan has them, and the spec's word. The user namespace is none of them.
fn kinds(ns: &Namespaces) -> [(&'static str, libc::c_int, &Ns); 7] {
    [
        ("ipc", libc::CLONE_NEWIPC, &ns.ipc),
        ("uts", libc::CLONE_NEWUTS, &ns.uts),
        ("network", libc::CLONE_NEWNET, &ns.net),
        ("pid", libc::CLONE_NEWPID, &ns.pid),
        ("cgroup", libc::CLONE_NEWCGROUP, &ns.cgroup),
        ("time", libc::CLONE_NEWTIME, &ns.time),
        // Last: after it, /proc is another one.
        ("mount", libc::CLONE_NEWNS, &ns.mount),
    ]
}

/// The word of `linux.namespaces` for a kind.
fn field(name: &str) -> String {
    format!("linux.namespaces[{name}]")
}

const USER: &str = "linux.namespaces[user]";
pub(super) const NETWORK: &str = "linux.namespaces[network]";
/// See [`Step::BecomeRoot`].
const OF_ROOT: u64 = libc::CLONE_NEWIPC as u64;
const MOUNT: &str = "linux.namespaces[mount]";

/// What needs the host's /sys/fs/cgroup and /proc, which are out of reach once namespaces are left.
fn host_side(b: &mut Builder, process: Option<&Process>, label: Option<&Label>) {
    oom_score_adj(b, process);
    open_label(b, label);
}

/// On the processors of the cpuset, and not on those that the shim is kept on.
fn enter_cgroup(b: &mut Builder, process: Option<&Process>) {
    b.step("linux.cgroupsPath", Step::EnterCgroup);
    if process.is_some() {
        b.step("linux.resources.cpu.cpus", Step::Affinity { cpus: None, initial: false });
    }
}

/// Where `final` is missing, `initial` stays, as with runc.
fn enter_cgroup_of_container(b: &mut Builder, process: Option<&Process>) {
    let affinity = process.and_then(|process| process.exec_cpu_affinity.as_ref());
    let Some(affinity) = affinity.filter(|affinity| **affinity != Affinity::default()) else {
        return enter_cgroup(b, process);
    };
    if let Some(initial) = &affinity.initial {
        let step = Step::Affinity { cpus: Some(initial.clone()), initial: true };
        b.step("process.execCPUAffinity.initial", step);
    }
    b.step("linux.cgroupsPath", Step::EnterCgroup);
    if let Some(last) = &affinity.last {
        let step = Step::Affinity { cpus: Some(last.clone()), initial: false };
        b.step("process.execCPUAffinity.final", step);
    }
}

fn oom_score_adj(b: &mut Builder, process: Option<&Process>) {
    if let Some(adj) = process.and_then(|process| process.oom_score_adj) {
        b.step("process.oomScoreAdj", Step::OomScoreAdj(adj));
    }
}

fn open_label(b: &mut Builder, label: Option<&Label>) {
    if let Some(label) = label {
        b.step(label.field.clone(), Step::OpenExecLabel { file: label.file.clone() });
    }
}

/// What root of a user namespace may not do, or not for long.
fn before_user(b: &mut Builder, process: Option<&Process>, mappings: &Mappings) {
    b.step(USER, Step::LeaveGroups);
    let Some(process) = process else { return };
    let owner = mappings.uid_outside(process.user.uid).filter(|_| !process.terminal);
    if let Some(uid) = owner {
        b.step("process.user.uid", Step::GiveStreams { uid });
    }
    for (i, limit) in process.rlimits.iter().enumerate() {
        let step = Step::RaiseLimit { resource: limit.resource, hard: limit.hard };
        b.step(format!("process.rlimits[{i}]"), step);
    }
}

/// The namespaces of a first process; with a user namespace, those that are the host's or somebody else's, and a mount
/// namespace to work in. What is to be done as the host's root comes after it, and then [`settle`].
pub(super) fn leave(b: &mut Builder, isolation: &Isolation<'_>) -> Result<()> {
    let Isolation { process, label, namespaces: ns, mappings, network, .. } = isolation;
    if ns.user == Ns::Host {
        enter_cgroup(b, *process);
        host_side(b, *process, *label);
        b.plan.clone_flags = new(ns);
        join_all(b, isolation)?;
        unshare_time(b, isolation);
        loopback(b, ns);
        // Before the mounts cease to be the host's peers: a bind can be meant to stay one.
        b.sources_here();
        b.step(MOUNT, Step::MakeSlave);
        return Ok(());
    }
    b.user = Some(match &ns.user {
        Ns::Join(path) if process.is_some() => {
            namespace(b, USER, path, libc::CLONE_NEWUSER, Some("the container"))?
        }
        Ns::Join(path) => {
            let of = join_network(b, isolation, path)?;
            let slot = b.slot(network)?;
            b.step((*network).to_owned(), Step::OpenOwner { slot, of, path: host_path(network, path)? });
            b.network = Some(of);
            slot
        }
        Ns::New | Ns::Host => b.user_namespace("linux.uidMappings", mappings)?,
    });
    oom_score_adj(b, *process);
    before_user(b, *process, mappings);
    join_all(b, isolation)?;
    if ns.mount == Ns::New {
        b.step(MOUNT, Step::Unshare { flags: libc::CLONE_NEWNS as u64 });
    }
    b.step(MOUNT, Step::MakeSlave);
    Ok(())
}

/// The namespaces of the process that makes a pod's; as [`leave`] where there is a user namespace. Without a mount
/// namespace of its own it touches no mount, and no cgroup.
pub(super) fn leave_for_pod(b: &mut Builder, isolation: &Isolation<'_>) -> Result<()> {
    let ns = isolation.namespaces;
    if ns.user != Ns::Host {
        return leave(b, isolation);
    }
    let stays = ns.mount == Ns::New;
    if stays {
        b.step("cgroup_parent", Step::EnterCgroup);
    }
    b.plan.clone_flags = new(ns);
    join_all(b, isolation)?;
    loopback(b, ns);
    if stays {
        b.step(MOUNT, Step::MakeSlave);
    }
    Ok(())
}

/// What the container changes in its namespace of this kind, and must not change in the host's.
pub(super) fn apart(spec: &Spec, name: &str) -> Option<&'static str> {
    match name {
        // Without one of its own, its mounts and its new root would be the host's.
        "mount" => Some("the container's mounts"),
        _ if spec.sysctls.iter().any(|sysctl| sysctl.namespace() == name) => Some("linux.sysctl"),
        "uts" if spec.hostname.is_some() => Some("hostname"),
        "uts" if spec.domainname.is_some() => Some("domainname"),
        _ => None,
    }
}

/// Into the user namespace, and to the process that stays. Nothing without one.
pub(super) fn settle(b: &mut Builder, isolation: &Isolation<'_>) {
    let Some(slot) = b.user else { return };
    let ns = isolation.namespaces;
    let mut made = new(ns) & !OF_ROOT;
    // The process of a pod binds nothing.
    if isolation.process.is_some() {
        if ns.mount == Ns::New {
            b.step(MOUNT, Step::LockMounts { user: slot });
            made &= !(libc::CLONE_NEWNS as u64);
        }
        b.sources_here();
    }
    b.step(USER, Step::JoinUser { slot, apart: false });
    match b.pids {
        // It goes on itself: whom it made now could be seen.
        Some(_) if made == 0 => {}
        Some(_) => b.step(USER, Step::Unshare { flags: made }),
        None => b.step(USER, Step::Sibling { flags: made }),
    }
    enter_cgroup(b, isolation.process);
    open_label(b, isolation.label);
    if ns.cgroup == Ns::New {
        unshare_cgroup(b);
    }
    unshare_time(b, isolation);
    loopback(b, ns);
}

/// After [`settle`], and when nothing of root's of the host is needed any more. Nothing without a user namespace.
pub(super) fn become_root(b: &mut Builder, isolation: &Isolation<'_>) {
    if b.user.is_some() {
        b.step(USER, Step::BecomeRoot { unshare: new(isolation.namespaces) & OF_ROOT });
    }
}

/// The pid namespace that its children will be in, where that is still to come: the process itself stays outside.
pub(super) fn aim(b: &mut Builder) {
    if let Some(Pids { slot, later: true }) = b.pids {
        b.step(field("pid"), Step::Aim { slot });
    }
}

/// What a clone makes. The root of a cgroup namespace is the cgroup that its first process is in, and a time namespace has
/// its offsets before it has a process.
fn new(ns: &Namespaces) -> u64 {
    let later = |name: &str| matches!(name, "cgroup" | "time");
    let made = kinds(ns).into_iter().filter(|(name, _, origin)| **origin == Ns::New && !later(name));
    made.fold(0, |flags, (_, flag, _)| flags | flag as u64)
}

fn unshare_time(b: &mut Builder, isolation: &Isolation<'_>) {
    if isolation.namespaces.time != Ns::New {
        return;
    }
    b.step(field("time"), Step::Unshare { flags: libc::CLONE_NEWTIME as u64 });
    if let Some(offsets) = isolation.time_offsets {
        b.step("linux.timeOffsets", Step::TimeOffsets(offsets.to_owned()));
    }
    b.step(field("time"), Step::EnterTime);
}

/// Its root is the cgroup that the process is in by then.
fn unshare_cgroup(b: &mut Builder) {
    b.step(field("cgroup"), Step::Unshare { flags: libc::CLONE_NEWCGROUP as u64 });
}

fn loopback(b: &mut Builder, ns: &Namespaces) {
    if ns.net == Ns::New {
        b.step(field("network"), Step::LoopbackUp);
    }
}

fn join_all(b: &mut Builder, isolation: &Isolation<'_>) -> Result<()> {
    let alone = isolation.namespaces.user == Ns::Host;
    // All of them first: what the paths lead to depends on the namespaces that the process is in.
    let mut joined = Vec::new();
    for (name, flag, origin) in kinds(isolation.namespaces) {
        if let Ns::Join(path) = origin {
            let slot = match (name, b.network) {
                ("network", Some(slot)) => slot,
                ("network", None) => join_network(b, isolation, path)?,
                _ => namespace(b, &field(name), path, flag, (isolation.apart)(name))?,
            };
            joined.push((name, slot));
        }
    }
    for (name, flag, origin) in kinds(isolation.namespaces) {
        match (origin, joined.iter().find(|(joined, _)| *joined == name)) {
            (Ns::New, _) if name == "cgroup" && alone => unshare_cgroup(b),
            (Ns::Join(_), Some((_, slot))) if name == "pid" => {
                b.pids = Some(Pids { slot: *slot, later: true })
            }
            (Ns::Join(_), Some((_, slot))) => {
                b.step(field(name), Step::SetNs { slot: *slot, flags: flag as u64 });
            }
            _ => {}
        }
    }
    Ok(())
}

fn join_network(b: &mut Builder, isolation: &Isolation<'_>, path: &Path) -> Result<Slot> {
    namespace(b, isolation.network, path, libc::CLONE_NEWNET, (isolation.apart)("network"))
}

/// The file of a namespace that is joined. A descriptor of the shim's is no other process's.
fn namespace(
    b: &mut Builder,
    field: &str,
    path: &Path,
    kind: libc::c_int,
    apart: Option<&'static str>,
) -> Result<Slot> {
    let (own, path) = (path.starts_with("/proc/self/fd"), host_path(field, path)?);
    let slot = if own { b.open(field.to_owned(), Open::Descriptor(path.clone()))? } else { b.slot(field)? };
    b.step(field.to_owned(), Step::OpenNamespace { slot, path, kind: kind as u64, apart });
    Ok(slot)
}

/// A further process of a container: into all namespaces that the container does not share with the shim, from its
/// first process, in one call.
pub(super) fn join_container(b: &mut Builder, isolation: &Isolation<'_>) -> Result<()> {
    let ns = isolation.namespaces;
    enter_cgroup_of_container(b, isolation.process);
    host_side(b, isolation.process, isolation.label);
    let mut flags = 0;
    if ns.user != Ns::Host {
        before_user(b, isolation.process, isolation.mappings);
        flags |= libc::CLONE_NEWUSER as u64;
    }
    let slot = b.open("linux.namespaces", Open::Init)?;
    for (name, flag, origin) in kinds(ns) {
        match origin {
            Ns::Host => {}
            _ => {
                flags |= flag as u64;
                if name == "pid" {
                    b.pids = Some(Pids { slot, later: false });
                }
            }
        }
    }
    b.step("linux.namespaces", Step::SetNs { slot, flags });
    if ns.user != Ns::Host {
        b.step(USER, Step::BecomeRoot { unshare: 0 });
    }
    Ok(())
}
