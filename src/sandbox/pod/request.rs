//! What a pod is asked to be, and what it answers, as plain data.

use crate::launch::ExitStatus;
use crate::sandbox::ProcessState;
use crate::spec::{Mappings, Ns};
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::{Instant, SystemTime};

/// CreateSandbox (or the seed's Controller.Start), checked as far as that needs no look at the host.
#[derive(Clone, Debug, Default)]
pub struct PodCreate {
    pub id: String,
    pub bundle: PathBuf,
    /// None: the pod is what the bundle's config.json says, as `ctr sandboxes run` writes it.
    pub config: Option<PodConfig>,
    /// The namespace that CNI has configured; None: as `config.net` (or config.json) says.
    pub netns: Option<PathBuf>,
    /// Beside those of the configuration.
    pub annotations: BTreeMap<String, String>,
    /// When its caller stops waiting; None: as long as the operator says.
    pub deadline: Option<Instant>,
}

/// Which pid namespace a pod's containers have.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum PodPid {
    /// Each one its own.
    #[default]
    Container,
    /// One for all, with a first process of ours that reaps.
    Pod,
    /// The host's.
    Node,
}

/// `runtime.v1.PodSandboxConfig`, as far as it concerns a runtime.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct PodConfig {
    /// Empty: the host's name.
    pub hostname: String,
    /// `New`: the one of `PodCreate::netns`, or a new one with `lo` up where there is none.
    pub net: Ns,
    pub ipc: Ns,
    /// CRI has no word for it: host with a host network, else new.
    pub uts: Ns,
    pub pid: PodPid,
    /// A user namespace for the pod: the one that owns the netns, or a new one with these mappings.
    pub user: Option<Mappings>,
    /// None: a copy of the host's resolv.conf.
    pub dns: Option<Dns>,
    pub sysctls: BTreeMap<String, String>,
    /// The pod's cgroup, which the client has made: a path, or the name of a slice. Empty: one of our own.
    pub cgroup_parent: String,
    pub labels: BTreeMap<String, String>,
    pub annotations: BTreeMap<String, String>,
    /// name, namespace, uid: for the status only.
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

/// The answer to SandboxStatus.
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
