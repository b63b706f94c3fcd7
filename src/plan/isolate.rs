//! Into the cgroup and the namespaces.

use super::builder::Builder;
use super::dress::Label;
use super::{Open, Step};
use crate::error::Result;
use crate::spec::{Namespaces, Ns, Spec, Sysctl};
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
    enter(b, &spec.namespaces, &spec.sysctls)?;
    b.step("linux.namespaces[mount]", Step::Secede);
    Ok(())
}

/// Those of the process that makes a pod's.
pub(super) fn pod(b: &mut Builder, namespaces: &Namespaces, sysctls: &[Sysctl]) -> Result<()> {
    enter(b, namespaces, sysctls)?;
    if namespaces.mount == Ns::New {
        b.step("linux.namespaces[mount]", Step::Secede);
    }
    Ok(())
}

fn enter(b: &mut Builder, ns: &Namespaces, sysctls: &[Sysctl]) -> Result<()> {
    for (name, flag, origin) in kinds(ns) {
        let flag = flag as u64;
        let field = format!("linux.namespaces[{name}]");
        match origin {
            Ns::Host => {}
            // Its root is the cgroup that the child is in by then.
            Ns::New if name == "cgroup" => b.step(field, Step::Unshare { flags: flag }),
            Ns::New => b.plan.clone_flags |= flag,
            Ns::Join(path) => {
                let apart = sysctls.iter().any(|sysctl| sysctl.namespace() == name);
                join(b, field, flag, path, apart)?;
            }
        }
    }
    if ns.net == Ns::New {
        b.step("linux.namespaces[network]", Step::LoopbackUp);
    }
    Ok(())
}

fn join(b: &mut Builder, field: String, kind: u64, path: &Path, apart: bool) -> Result<()> {
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
