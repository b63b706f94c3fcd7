//! Into the cgroup and the namespaces.

use super::builder::Builder;
use super::dress::Label;
use super::{Open, PodInput, Step};
use crate::error::Result;
use crate::spec::{Namespaces, Ns, Spec};
use std::path::Path;

/// CLONE_NEW* as the plan has them, and the spec's word.
fn kinds(ns: &Namespaces) -> [(&'static str, libc::c_int, &Ns); 6] {
    [
        ("ipc", libc::CLONE_NEWIPC, &ns.ipc),
        ("uts", libc::CLONE_NEWUTS, &ns.uts),
        ("network", libc::CLONE_NEWNET, &ns.net),
        ("pid", libc::CLONE_NEWPID, &ns.pid),
        ("cgroup", libc::CLONE_NEWCGROUP, &ns.cgroup),
        // Last: after it, /proc is another one.
        ("mount", libc::CLONE_NEWNS, &ns.mount),
    ]
}

/// What needs the host's /sys/fs/cgroup and /proc, which are out of reach once namespaces are left.
pub(super) fn host_side(b: &mut Builder, oom_score_adj: Option<i32>, label: Option<&Label>) {
    b.step("linux.cgroupsPath", Step::EnterCgroup);
    if let Some(adj) = oom_score_adj {
        b.step("process.oomScoreAdj", Step::OomScoreAdj(adj));
    }
    if let Some(label) = label {
        b.step(label.field.clone(), Step::OpenExecLabel { file: label.file.clone() });
    }
}

/// The namespaces of a container's first process.
pub(super) fn namespaces(b: &mut Builder, spec: &Spec) -> Result<()> {
    enter(b, &spec.namespaces, |name| apart(spec, name))?;
    b.step("linux.namespaces[mount]", Step::Secede);
    Ok(())
}

/// Those of the process that makes a pod's.
pub(super) fn pod(b: &mut Builder, namespaces: &Namespaces, input: &PodInput<'_>) -> Result<()> {
    enter(b, namespaces, |name| match name {
        _ if input.sysctls.iter().any(|sysctl| sysctl.namespace() == name) => Some("linux.sysctl"),
        "uts" if input.hostname.is_some() => Some("hostname"),
        _ => None,
    })?;
    if namespaces.mount == Ns::New {
        b.step("linux.namespaces[mount]", Step::Secede);
    }
    Ok(())
}

fn enter(b: &mut Builder, ns: &Namespaces, apart: impl Fn(&str) -> Option<&'static str>) -> Result<()> {
    for (name, flag, origin) in kinds(ns) {
        let flag = flag as u64;
        let field = format!("linux.namespaces[{name}]");
        match origin {
            Ns::Host => {}
            // Its root is the cgroup that the child is in by then.
            Ns::New if name == "cgroup" => b.step(field, Step::Unshare { flags: flag }),
            Ns::New => b.plan.clone_flags |= flag,
            Ns::Join(path) => {
                join(b, field, flag, path, apart(name))?;
            }
        }
    }
    if ns.net == Ns::New {
        b.step("linux.namespaces[network]", Step::LoopbackUp);
    }
    Ok(())
}

/// What the container changes in its namespace of this kind, and must not change in the host's.
fn apart(spec: &Spec, name: &str) -> Option<&'static str> {
    match name {
        // Without one of its own, its mounts and its new root would be the host's.
        "mount" => Some("the container's mounts"),
        _ if spec.sysctls.iter().any(|sysctl| sysctl.namespace() == name) => Some("linux.sysctl"),
        "uts" if spec.hostname.is_some() => Some("hostname"),
        "uts" if spec.domainname.is_some() => Some("domainname"),
        _ => None,
    }
}

fn join(b: &mut Builder, field: String, kind: u64, path: &Path, apart: Option<&'static str>) -> Result<()> {
    let slot = b.open(field.clone(), Open::Namespace { path: path.into(), kind, apart })?;
    if kind == libc::CLONE_NEWPID as u64 {
        // Concerns only children: the launcher joins it for its own.
        b.plan.pid_namespace = Some(slot);
    } else {
        b.step(field, Step::SetNs { slot, flags: kind });
    }
    Ok(())
}

/// All namespaces that the container does not share with the shim, from its first process, in one call.
pub(super) fn join_container(b: &mut Builder, ns: &Namespaces) -> Result<()> {
    let slot = b.open("linux.namespaces", Open::Init)?;
    let mut flags = 0;
    for (name, flag, origin) in kinds(ns) {
        match origin {
            Ns::Host => {}
            _ if name == "pid" => b.plan.pid_namespace = Some(slot),
            _ => flags |= flag as u64,
        }
    }
    b.step("linux.namespaces", Step::SetNs { slot, flags });
    Ok(())
}
