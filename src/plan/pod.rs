//! The plan of the process that creates a pod's namespaces.
//!
//! Without a pid namespace to look after, it exits once the shim holds the namespaces. Otherwise it stays as the pod's
//! first process: in an empty, read-only root of its own, without privileges, with nothing to do but reap orphans.

use super::builder::{host_path, Builder};
use super::{isolate, mount, Host, Plan, Step};
use crate::error::Result;
use crate::spec::{CapabilitySets, Mappings, Namespaces, Ns, Sysctl};
use std::ffi::CString;
use std::path::Path;

/// A uid that belongs to no user in any image; pause containers run as it.
const NOBODY: u32 = 65535;

pub struct PodInput<'a> {
    /// `mount` and `cgroup` are the first process's own business. A user namespace is joined through the path of a
    /// namespace that it owns.
    pub namespaces: &'a Namespaces,
    /// The request's name for the network namespace; None: the spec's name for it.
    pub network: Option<&'a str>,
    /// Of a new user namespace.
    pub mappings: &'a Mappings,
    /// Set if the uts namespace is new.
    pub hostname: Option<&'a CString>,
    pub sysctls: &'a [Sysctl],
    pub host: &'a Host,
    /// The directory on which the empty root is mounted, in a mount namespace of its own; None: no process stays.
    pub root: Option<&'a Path>,
}

pub fn pod(input: &PodInput<'_>) -> Result<Plan> {
    let mut b = Builder::default();
    let mount = if input.root.is_some() { Ns::New } else { Ns::Host };
    let namespaces = Namespaces { mount, cgroup: Ns::Host, ..input.namespaces.clone() };
    let private_for = |name: &str| match name {
        _ if input.sysctls.iter().any(|sysctl| sysctl.namespace() == name) => Some("linux.sysctl"),
        "uts" if input.hostname.is_some() => Some("hostname"),
        _ => None,
    };
    let isolation = isolate::Isolation {
        process: None,
        label: None,
        namespaces: &namespaces,
        time_offsets: None,
        net_devices: &[],
        resctrl: &[],
        mappings: input.mappings,
        network: input.network.unwrap_or(isolate::NETWORK),
        private_for: &private_for,
    };
    isolate::leave_for_pod(&mut b, &isolation)?;
    if let Some(root) = input.root {
        empty_root(&mut b, root)?;
    }
    isolate::settle(&mut b, &isolation);
    if let Some(root) = input.root {
        if namespaces.user != Ns::Host {
            // A mount made outside is locked and cannot be the root to pivot to; a bind of it can.
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
        // Root of a user namespace is already nobody outside, and may not take another id.
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
