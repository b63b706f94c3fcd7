//! Entering the cgroup and the namespaces.
//!
//! A user namespace takes two processes. The first is still root on the host: it joins existing namespaces (the host
//! may own them), assembles the rootfs mounts of the request, then joins the user namespace and clones the second
//! process, whose new namespaces are therefore owned by the user namespace. See [`Step::Sibling`].

use super::builder::{host_path, Builder, Pids};
use super::session::Label;
use super::{Open, Slot, Step};
use crate::error::{invalid, Result};
use crate::spec::{Affinity, Mappings, Namespaces, NetDevice, Ns, Process, Spec};
use std::ffi::{CStr, CString};
use std::path::Path;

/// What determines the isolation of a first process.
pub(super) struct Isolation<'a> {
    /// None for the process of a pod.
    pub process: Option<&'a Process>,
    pub label: Option<&'a Label>,
    pub namespaces: &'a Namespaces,
    pub mappings: &'a Mappings,
    pub time_offsets: Option<&'a CStr>,
    pub net_devices: &'a [NetDevice],
    /// The `tasks` files of its resctrl groups.
    pub resctrl: &'a [CString],
    /// The request's name for the network namespace.
    pub network: &'a str,
    /// What the process changes in a namespace of this kind, and must not change in the host's.
    pub private_for: &'a dyn Fn(&str) -> Option<&'static str>,
}

/// The spec's name for each kind and its CLONE_NEW* flag, in plan order. The user namespace is handled separately.
fn kinds(ns: &Namespaces) -> [(&'static str, libc::c_int, &Ns); 7] {
    [
        ("ipc", libc::CLONE_NEWIPC, &ns.ipc),
        ("uts", libc::CLONE_NEWUTS, &ns.uts),
        ("network", libc::CLONE_NEWNET, &ns.net),
        ("pid", libc::CLONE_NEWPID, &ns.pid),
        ("cgroup", libc::CLONE_NEWCGROUP, &ns.cgroup),
        ("time", libc::CLONE_NEWTIME, &ns.time),
        // Last: it changes which /proc is visible.
        ("mount", libc::CLONE_NEWNS, &ns.mount),
    ]
}

/// The `linux.namespaces` field for a kind.
fn field(name: &str) -> String {
    format!("linux.namespaces[{name}]")
}

const USER: &str = "linux.namespaces[user]";
pub(super) const NETWORK: &str = "linux.namespaces[network]";
/// New namespaces that root of the user namespace must create. See [`Step::BecomeRoot`].
const OF_ROOT: u64 = libc::CLONE_NEWIPC as u64;
pub(super) const MOUNT: &str = "linux.namespaces[mount]";

/// Steps that need the host's /sys/fs/cgroup and /proc, which are out of reach once the process has left its
/// namespaces.
fn host_side(b: &mut Builder, process: Option<&Process>, label: Option<&Label>) {
    oom_score_adj(b, process);
    open_label(b, label);
}

/// Enters the cgroup; the process then runs on the CPUs of its cpuset, not only on those that the shim is confined to.
fn enter_cgroup(b: &mut Builder, process: Option<&Process>) {
    b.step("linux.cgroupsPath", Step::EnterCgroup);
    if process.is_some() {
        b.step("linux.resources.cpu.cpus", Step::Affinity { cpus: None, initial: false });
    }
}

/// Enters the cgroup for an exec. Without `final`, `initial` stays in force, as in runc.
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

/// As root on the host. Its children are born there.
fn enter_resctrl(b: &mut Builder, isolation: &Isolation<'_>, unless_gone: bool) {
    for tasks in isolation.resctrl {
        b.step("linux.intelRdt", Step::EnterResctrl { tasks: tasks.clone(), unless_gone });
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
        if label.of_selinux() {
            b.step(label.field.clone(), Step::OpenKeyLabel);
        }
    }
}

/// Steps that root of a user namespace may not do at all, or not for long.
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

/// Sets up the namespaces of a first process. With a user namespace, these are only the host's and joined ones, and a
/// mount namespace to work in; the steps that need root on the host follow, and then [`settle`].
pub(super) fn leave(b: &mut Builder, isolation: &Isolation<'_>) -> Result<()> {
    let Isolation { process, label, namespaces: ns, mappings, network, .. } = isolation;
    if ns.user == Ns::Host {
        enter_cgroup(b, *process);
        enter_resctrl(b, isolation, false);
        host_side(b, *process, *label);
        b.plan.clone_flags = new(ns);
        join_all(b, isolation)?;
        unshare_time(b, isolation);
        loopback(b, ns);
        devices(b, isolation)?;
        // Before the mounts stop being peers of the host's: a bind may be meant to stay one.
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
    enter_resctrl(b, isolation, false);
    oom_score_adj(b, *process);
    before_user(b, *process, mappings);
    join_all(b, isolation)?;
    // Only root on the host may move its devices.
    if let Some(user) = b.user.filter(|_| makes_network_early(isolation)) {
        b.step(NETWORK, Step::OwnNetwork { user });
    }
    devices(b, isolation)?;
    if ns.mount == Ns::New {
        b.step(MOUNT, Step::Unshare { flags: libc::CLONE_NEWNS as u64 });
    }
    b.step(MOUNT, Step::MakeSlave);
    Ok(())
}

/// Sets up the namespaces of the process that creates a pod's; with a user namespace, the same as [`leave`]. Without a
/// mount namespace of its own, the process touches neither mounts nor cgroups.
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

/// Returns what the container changes in its namespace of this kind, and must not change in the host's.
pub(crate) fn private_for(spec: &Spec, name: &str) -> Option<&'static str> {
    match name {
        // Without a mount namespace of its own, its mounts and its new root would be the host's.
        "mount" => Some("the container's mounts"),
        // A cgroup2 that is mounted there is all of the host's, and its mount options are everybody's.
        "cgroup" => Some("the container's mount of cgroups"),
        "network" if !spec.net_devices.is_empty() => Some("linux.netDevices"),
        _ if spec.sysctls.iter().any(|sysctl| sysctl.namespace() == name) => Some("linux.sysctl"),
        "uts" if spec.hostname.is_some() => Some("hostname"),
        "uts" if spec.domainname.is_some() => Some("domainname"),
        _ if spec.namespaces.in_pod.contains(&name) => Some("a container of a sandbox"),
        _ => None,
    }
}

/// Enters the user namespace and continues as the process that stays. Does nothing without a user namespace.
pub(super) fn settle(b: &mut Builder, isolation: &Isolation<'_>) {
    let Some(slot) = b.user else { return };
    let ns = isolation.namespaces;
    let mut made = new(ns) & !OF_ROOT;
    if makes_network_early(isolation) {
        made &= !(libc::CLONE_NEWNET as u64);
    }
    // A pod's process binds nothing.
    if isolation.process.is_some() {
        if ns.mount == Ns::New {
            b.step(MOUNT, Step::LockMounts { user: slot });
            made &= !(libc::CLONE_NEWNS as u64);
        }
        b.sources_here();
    }
    b.step(USER, Step::JoinUser { slot, unless_own: false });
    match b.pids {
        // The process itself goes on: others could see a child cloned now.
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

/// Follows [`settle`], once no step needs root on the host. Does nothing without a user namespace.
pub(super) fn become_root(b: &mut Builder, isolation: &Isolation<'_>) {
    if b.user.is_some() {
        b.step(USER, Step::BecomeRoot { unshare: new(isolation.namespaces) & OF_ROOT });
    }
}

/// Sets the pid namespace for its children, if that is still to do: the process itself stays outside.
pub(super) fn aim(b: &mut Builder) {
    if let Some(Pids { slot, later: true }) = b.pids {
        b.step(field("pid"), Step::Aim { slot });
    }
}

/// The flags of the namespaces that a clone creates. The root of a cgroup namespace is the cgroup that its first
/// process is in, and a time namespace needs its offsets before it has a process, so both come later.
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

/// The new namespace's root is the cgroup that the process is in by then.
fn unshare_cgroup(b: &mut Builder) {
    b.step(field("cgroup"), Step::Unshare { flags: libc::CLONE_NEWCGROUP as u64 });
}

fn loopback(b: &mut Builder, ns: &Namespaces) {
    if ns.net == Ns::New {
        b.step(field("network"), Step::LoopbackUp);
    }
}

/// See [`Step::OwnNetwork`].
fn makes_network_early(isolation: &Isolation<'_>) -> bool {
    isolation.namespaces.net == Ns::New && !isolation.net_devices.is_empty()
}

/// The process is in the container's network namespace by now.
fn devices(b: &mut Builder, isolation: &Isolation<'_>) -> Result<()> {
    let Some(first) = isolation.net_devices.first() else { return Ok(()) };
    let field = |device: &NetDevice| format!("linux.netDevices.{}", device.from.to_string_lossy());
    if isolation.namespaces.net == Ns::Host {
        let why = "cannot be moved without a private network namespace";
        return Err(invalid(format!("{}: {why}", field(first))));
    }
    let host = b.open("linux.netDevices", Open::HostNetwork)?;
    for device in isolation.net_devices {
        let NetDevice { from, to } = device.clone();
        b.step(field(device), Step::FindNetDevice { host, from, to });
    }
    for device in isolation.net_devices {
        let NetDevice { from, to } = device.clone();
        b.step(field(device), Step::NetDevice { host, from, to });
    }
    Ok(())
}

fn join_all(b: &mut Builder, isolation: &Isolation<'_>) -> Result<()> {
    let alone = isolation.namespaces.user == Ns::Host;
    // Open all of them first: what a path leads to depends on the namespaces that the process is in.
    let mut joined = Vec::new();
    for (name, flag, origin) in kinds(isolation.namespaces) {
        if let Ns::Join(path) = origin {
            let slot = match (name, b.network) {
                ("network", Some(slot)) => slot,
                ("network", None) => join_network(b, isolation, path)?,
                _ => namespace(b, &field(name), path, flag, (isolation.private_for)(name))?,
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
    namespace(b, isolation.network, path, libc::CLONE_NEWNET, (isolation.private_for)("network"))
}

/// Opens the namespace file to join. A path below /proc/self/fd names a descriptor of the shim, so the shim lends it.
fn namespace(
    b: &mut Builder,
    field: &str,
    path: &Path,
    kind: libc::c_int,
    private_for: Option<&'static str>,
) -> Result<Slot> {
    let (own, path) = (path.starts_with("/proc/self/fd"), host_path(field, path)?);
    let slot = if own { b.open(field.to_owned(), Open::Descriptor(path.clone()))? } else { b.slot(field)? };
    b.step(field.to_owned(), Step::OpenNamespace { slot, path, kind: kind as u64, private_for });
    Ok(slot)
}

/// Joins a further process to a container: in one call, through the first process's pidfd, to all namespaces that the
/// container does not share with the shim.
pub(super) fn join_container(b: &mut Builder, isolation: &Isolation<'_>) -> Result<()> {
    let ns = isolation.namespaces;
    enter_cgroup_of_container(b, isolation.process);
    // Others on the host manage these groups as well: no reason to refuse an exec.
    enter_resctrl(b, isolation, true);
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
