//! Requests for a pod and their responses, as plain data.

use crate::launch::ExitStatus;
use crate::sandbox::ProcessState;
use crate::spec::{Mappings, Ns};
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::{Instant, SystemTime};

/// CreateSandbox (or the seed's Controller.Start), validated as far as possible without looking at the host.
#[derive(Clone, Debug, Default)]
pub struct PodCreate {
    pub id: String,
    pub bundle: PathBuf,
    /// None: the pod is specified by the bundle's config.json, as `ctr sandboxes run` writes it.
    pub config: Option<PodConfig>,
    /// The network namespace that CNI has set up; None: as `config.net` (or config.json) specifies.
    pub netns: Option<PathBuf>,
    /// Added to those of the configuration.
    pub annotations: BTreeMap<String, String>,
    /// When the caller stops waiting; None means the operator's limit.
    pub deadline: Option<Instant>,
}

/// The pid namespace of a pod's containers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum PodPid {
    /// One for each container.
    #[default]
    Container,
    /// A shared one, whose first process is ours and reaps.
    Pod,
    /// The host's.
    Node,
}

/// The part of `runtime.v1.PodSandboxConfig` that concerns a runtime.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct PodConfig {
    /// Empty: the host's hostname.
    pub hostname: String,
    /// `New`: `PodCreate::netns`, or if there is none, a new one with `lo` up.
    pub net: Ns,
    pub ipc: Ns,
    /// CRI has no field for it: the host's with the host's network, otherwise a new one.
    pub uts: Ns,
    pub pid: PodPid,
    /// A user namespace for the pod: the one that owns the netns, or a new one with these mappings.
    pub user: Option<Mappings>,
    /// None: a copy of the host's resolv.conf.
    pub dns: Option<Dns>,
    pub sysctls: BTreeMap<String, String>,
    /// The pod's cgroup, created by the client: a path or the name of a slice. Empty: one of our own.
    pub cgroup_parent: String,
    pub labels: BTreeMap<String, String>,
    pub annotations: BTreeMap<String, String>,
    /// name, namespace and uid are only for the status.
    pub name: String,
    pub namespace: String,
    pub uid: String,
    pub attempt: u32,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Dns {
    pub servers: Vec<String>,
    pub searches: Vec<String>,
    pub options: Vec<String>,
}

/// The answer to StartSandbox.
#[derive(Clone, Debug)]
pub struct PodStarted {
    /// `/proc/PID/ns/*` are the pod's namespaces.
    pub pid: u32,
    pub created_at: SystemTime,
    /// An OCI runtime spec as JSON: namespaces by path, mounts of the pod's files, sysctls, hostname, cgroup.
    pub spec: Vec<u8>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PodState {
    Created,
    Ready,
    Paused,
    Stopped,
}

/// The response to SandboxStatus.
#[derive(Clone, Debug)]
pub struct PodStatus {
    pub id: String,
    /// 0 once the pod is stopped.
    pub pid: u32,
    pub state: PodState,
    pub created_at: SystemTime,
    pub exit: Option<ExitStatus>,
    /// The first processes of the pod's containers.
    pub containers: Vec<ProcessState>,
    /// The pod's cgroup, below each hierarchy's mount point.
    pub cgroup: String,
    pub spec: Vec<u8>,
    pub config: PodConfig,
}
