//! The plan of the process that makes a pod's namespaces.
//!
//! Without a pid namespace to look after it is gone once the shim holds them. Else it stays, as the first process
//! of the pod: in an empty, read-only root of its own, without rights, with nothing to do but to be the parent of
//! orphans.

use super::builder::{host_path, Builder};
use super::{isolate, mount, Host, Plan, Step};
use crate::error::Result;
use crate::spec::{CapabilitySets, Mappings, Namespaces, Ns, Sysctl};
use std::ffi::CString;
use std::path::Path;

/// Whoever is nobody's user in any image: what pause containers run as.
const NOBODY: u32 = 65535;

pub struct PodInput<'a> {
    /// `mount` and `cgroup` are the first process's own business. A user namespace is joined by the path of one that it
    /// owns.
    pub namespaces: &'a Namespaces,
    /// What the request calls the network namespace; None: as a spec does.
    pub network: Option<&'a str>,
    /// Of a new user namespace.
    pub mappings: &'a Mappings,
    /// Set where the uts namespace is new.
    pub hostname: Option<&'a CString>,
    pub sysctls: &'a [Sysctl],
    pub host: &'a Host,
    /// A directory that the empty root is mounted on, in a mount namespace of its own; None: no process stays.
    pub root: Option<&'a Path>,
}

pub fn pod(input: &PodInput<'_>) -> Result<Plan> {
    let mut b = Builder::default();
    let mount = if input.root.is_some() { Ns::New } else { Ns::Host };
    let namespaces = Namespaces { mount, cgroup: Ns::Host, ..input.namespaces.clone() };
    let apart = |name: &str| match name {
        _ if input.sysctls.iter().any(|sysctl| sysctl.namespace() == name) => Some("linux.sysctl"),
        "uts" if input.hostname.is_some() => Some("hostname"),
        _ => None,
    };
    let isolation = isolate::Isolation {
        process: None,
        label: None,
        namespaces: &namespaces,
        time_offsets: None,
        mappings: input.mappings,
        network: input.network.unwrap_or(isolate::NETWORK),
        apart: &apart,
    };
    isolate::leave_for_pod(&mut b, &isolation)?;
    if let Some(root) = input.root {
        empty_root(&mut b, root)?;
    }
    isolate::settle(&mut b, &isolation);
    if let Some(root) = input.root {
        if namespaces.user != Ns::Host {
            // What was mounted outside is locked, and no root to pivot to; a bind of it is.
            b.step("root", Step::BindRoot { target: host_path("root", root)? });
        }
        b.step("root", Step::OpenRoot { target: host_path("root", root)?, private: true });
    }
    isolate::become_root(&mut b, &isolation);
    mount::sysctls(&mut b, input.sysctls);
    if input.root.is_some() {
        b.step("root", Step::ReadonlyRoot);
        b.step("root", Step::Pivot);
    }
    if let Some(name) = input.hostname {
        b.step("hostname", Step::Hostname(name.clone()));
    }
    if input.root.is_some() {
        b.step("process", Step::NoNewPrivs);
        b.step("process", Step::BoundingSet { keep: 0, last: input.host.last_cap });
        // Root of a user namespace is nobody outside already, and may not have another id.
        if namespaces.user == Ns::Host {
            b.step("process", Step::SetGroups(Vec::new()));
            b.step("process", Step::SetIds { uid: NOBODY, gid: NOBODY });
        }
        b.step("process", Step::Capabilities(CapabilitySets::default()));
        b.step("process", Step::Bare);
        b.step("process", Step::SetSid);
    }
    b.step("process", Step::Gate);
    if input.root.is_some() {
        b.step("process", Step::Reap);
    }
    Ok(b.plan)
}

fn empty_root(b: &mut Builder, root: &Path) -> Result<()> {
    let target = host_path("root", root)?;
    let step = Step::MountRootfs {
        fstype: c"tmpfs".into(),
        source: c"tmpfs".into(),
        device: None,
        target,
        flags: libc::MS_NOSUID | libc::MS_NODEV | libc::MS_NOEXEC,
        data: c"mode=755,size=4k".into(),
        chdir: None,
    };
    b.step("root", step);
    Ok(())
}
