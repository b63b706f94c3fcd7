//! Compiles the spec and facts about the host into a list of steps. Pure: no I/O, no clock, no look-ups.
//!
//! [`create`] and [`exec`] read like the life of the process: isolate, assemble the root, enter it, dress, drop
//! privileges, run. Each of these is a module. The order within each is runc's wherever a container could tell the
//! difference; comments give the reason if it is not obvious.

mod builder;
mod dev;
mod display;
mod hook;
mod host;
mod isolate;
mod mount;
mod phase;
mod pod;
mod privileges;
mod rootfs;
mod run;
mod session;
mod stage;
pub(crate) mod step;

pub use hook::{hook, HookPlace};
pub use host::{AppArmor, CgroupMounts, Hierarchy, Host};
pub(crate) use isolate::private_for;
pub(crate) use mount::BELOW_PROC;
pub use pod::{pod, PodInput};
pub(crate) use rootfs::{by_helper, mountpoint, OF_MANAGER};
pub(crate) use session::keyring_of;
pub use stage::{seal, stage};
pub(crate) use step::RootPath;
pub use step::{Open, Slot, Step};

use crate::error::Result;
use crate::spec::{Ns, Process, Spec};
use crate::sys::seccomp::Filter;
use builder::Builder;
use std::ffi::CString;
use std::path::{Path, PathBuf};

/// The field of the spec that a step or a descriptor came from, e.g. `mounts[7]`.
pub(crate) type Field = std::borrow::Cow<'static, str>;

/// Everything that one clone needs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// The CLONE_NEW* flags of the clone itself.
    pub clone_flags: u64,
    pub opens: Vec<(Open, Field)>,
    pub steps: Vec<(Step, Field)>,
    /// Warnings for the log: an unknown capability, …
    pub warnings: Vec<String>,
}

impl Plan {
    /// The number of slots that its steps fill.
    pub fn opened(&self) -> usize {
        self.steps.iter().filter(|(step, _)| matches!(step.fills(), Some(Slot::Opened(_)))).count()
    }

    /// Returns the index of the first step at which other processes in the pid namespace may see this one: after the
    /// birth if the namespace already has members; otherwise from the gate on, when the container's hooks or execs may
    /// run.
    pub(crate) fn seen_from(&self) -> Option<usize> {
        let bare = self.steps.iter().position(|(step, _)| matches!(step, Step::Bare))?;
        let birth = self.steps.iter().position(|(step, _)| matches!(step, Step::Birth));
        let filter = self.steps.iter().rposition(|(step, _)| matches!(step, Step::Seccomp(_)));
        Some(birth.or(filter).unwrap_or(bare) + 1)
    }
}

/// A rootfs mount of the request (`containerd.types.Mount`).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RootfsMount {
    pub fstype: String,
    pub source: String,
    /// Below the rootfs; usually empty.
    pub target: String,
    pub options: Vec<String>,
}

/// The input for the plan of a container's first process.
pub struct Input<'a> {
    pub spec: &'a Spec,
    pub host: &'a Host,
    pub id: &'a str,
    /// Absolute.
    pub bundle: &'a Path,
    pub rootfs: &'a [RootfsMount],
    pub filter: Option<Filter>,
    /// The container's own cgroup: `(mount point, path below it)` of each hierarchy.
    pub cgroup_dirs: &'a [(PathBuf, PathBuf)],
    /// Set without pivot_root(2): the host's full procfs and sysfs mounts ([`Host::revealing`]), which then stay in the
    /// mount namespace.
    pub no_pivot_root: Option<&'a [PathBuf]>,
    pub no_new_keyring: bool,
}

/// The input for the plan of a further process of a container.
pub struct ExecInput<'a> {
    /// The container's.
    pub spec: &'a Spec,
    pub process: &'a Process,
    pub host: &'a Host,
    /// The container's.
    pub id: &'a str,
    pub filter: Option<Filter>,
    pub no_new_keyring: bool,
}

/// Compiles the plan of a container's first process.
pub fn create(input: &Input<'_>) -> Result<Plan> {
    let spec = input.spec;
    let process = &spec.process;
    let mut b = Builder::default();
    b.plan.warnings.clone_from(&spec.warnings);
    let label = session::label(process, input.host)?;

    let isolation = isolate::Isolation {
        process: Some(process),
        label: label.as_ref(),
        namespaces: &spec.namespaces,
        mappings: &spec.mappings,
        time_offsets: spec.time_offsets.as_deref(),
        net_devices: &spec.net_devices,
        resctrl: &resctrl(spec, input.host, input.id)?,
        network: isolate::NETWORK,
        private_for: &|name| isolate::private_for(spec, name),
    };
    mount::cgroupfs::give(&mut b, input);
    isolate::leave(&mut b, &isolation)?;
    rootfs::mounts(&mut b, input)?;
    isolate::settle(&mut b, &isolation);

    rootfs::root(&mut b, input)?;
    isolate::become_root(&mut b, &isolation);
    mount::all(&mut b, input)?;
    dev::all(&mut b, spec, input.host)?;
    mount::hooks(&mut b, spec);
    dev::console(&mut b, process, true);
    mount::workdir(&mut b, process)?;
    mount::sysctls(&mut b, &spec.sysctls);
    mount::restrict(&mut b, spec)?;

    rootfs::enter(&mut b, input)?;

    let in_user = spec.namespaces.user != Ns::Host;
    let keyring = session::Keyring { user_namespace: in_user, first: true };
    let session = session::Session {
        id: input.id,
        keyring: (!input.no_new_keyring).then_some(keyring),
        personality: spec.personality,
        memory_policy: spec.memory_policy.as_ref(),
    };
    session::all(&mut b, process, &session, label)?;
    isolate::aim(&mut b);
    privileges::all(&mut b, process, input.host, input.filter.as_ref(), in_user);
    run::all(&mut b, process, input.filter.clone(), run::Start::Gate)?;
    Ok(b.plan)
}

/// Compiles the plan of a further process: it joins the container's namespaces, then proceeds like the first process.
pub fn exec(input: &ExecInput<'_>) -> Result<Plan> {
    let process = &inherit(input.process, &input.spec.process);
    let mut b = Builder::default();
    b.plan.warnings.clone_from(&process.warnings);
    let label = session::label(process, input.host)?;

    let isolation = isolate::Isolation {
        process: Some(process),
        label: label.as_ref(),
        namespaces: &input.spec.namespaces,
        mappings: &input.spec.mappings,
        time_offsets: None,
        net_devices: &[],
        resctrl: &resctrl(input.spec, input.host, input.id)?,
        network: isolate::NETWORK,
        private_for: &|_| None,
    };
    isolate::join_container(&mut b, &isolation)?;

    if process.terminal {
        rootfs::look_only(&mut b);
        dev::console(&mut b, process, false);
    }

    let in_user = input.spec.namespaces.user != Ns::Host;
    let keyring = session::Keyring { user_namespace: in_user, first: false };
    let session = session::Session {
        id: input.id,
        keyring: (!input.no_new_keyring).then_some(keyring),
        personality: input.spec.personality,
        memory_policy: input.spec.memory_policy.as_ref(),
    };
    session::all(&mut b, process, &session, label)?;
    privileges::all(&mut b, process, input.host, input.filter.as_ref(), in_user);
    run::all(&mut b, process, input.filter.clone(), run::Start::AtOnce)?;
    Ok(b.plan)
}

/// The files by which a process enters the container's resctrl groups: its class before the monitoring group in it.
fn resctrl(spec: &Spec, host: &Host, id: &str) -> Result<Vec<CString>> {
    let Some((rdt, root)) = spec.intel_rdt.as_ref().zip(host.resctrl.as_deref()) else {
        return Ok(Vec::new());
    };
    let groups = [Some(rdt.group(root, id)), rdt.monitor(root, id)];
    let tasks = |group: PathBuf| builder::host_path("linux.intelRdt", &group.join("tasks"));
    groups.into_iter().flatten().map(tasks).collect()
}

/// Fills in what the exec's own `Process` leaves out from the container's, as runc does (except for rlimits, which runc
/// does not inherit). Inheritable capabilities never exceed those of the container's first process (CVE-2022-29162).
fn inherit(process: &Process, container: &Process) -> Process {
    let mut process = process.clone();
    process.capabilities = process.capabilities.map(|mut sets| {
        let allowed = container.capabilities.unwrap_or_default().inheritable;
        if sets.inheritable & !allowed != 0 {
            process.warnings.push("capabilities.inheritable: not more than the container's".into());
        }
        sets.inheritable &= allowed;
        sets
    });
    process.capabilities = process.capabilities.or(container.capabilities);
    if process.rlimits.is_empty() {
        process.rlimits.clone_from(&container.rlimits);
    }
    process.user.umask = process.user.umask.or(container.user.umask);
    process.oom_score_adj = process.oom_score_adj.or(container.oom_score_adj);
    // What the container's own program asked for is no reason to refuse an exec.
    if let (None, Some(scheduler)) = (process.scheduler, container.scheduler) {
        process.scheduler = Some(scheduler.without_reset());
        if scheduler.resets_on_fork() {
            process.warnings.push("scheduler.flags: SCHED_FLAG_RESET_ON_FORK is not inherited".into());
        }
    }
    process.io_priority = process.io_priority.or(container.io_priority);
    let either = |own: &Option<_>, other: &Option<_>| own.clone().or_else(|| other.clone());
    process.exec_cpu_affinity = process.exec_cpu_affinity.or_else(|| container.exec_cpu_affinity.clone());
    process.apparmor_profile = either(&process.apparmor_profile, &container.apparmor_profile);
    process.selinux_label = either(&process.selinux_label, &container.selinux_label);
    process
}
