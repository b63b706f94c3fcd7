//! What a pod is asked to be, and what it answers, as plain data.

use crate::launch::ExitStatus;
use crate::sandbox::ProcessState;
use crate::spec::{Mappings, Ns};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime};

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

/// What an operator decides for all pods of CRI; it does not tell a shim what its own configuration says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PodSettings {
    /// net.ipv4.ip_unprivileged_port_start=0 (CRI's `enable_unprivileged_ports`).
    pub unprivileged_ports: bool,
    /// net.ipv4.ping_group_range="0 2147483647" (CRI's `enable_unprivileged_icmp`).
    pub unprivileged_icmp: bool,
    /// A program that options name as the runtime (`BinaryName`) is ignored instead of refused.
    pub ignore_binary_name: bool,
    /// How long a process may take to become its program, hooks and all, where the request says no time.
    pub launch_timeout: Duration,
    /// How long a pod may be there without being started.
    pub unstarted_timeout: Duration,
}

/// The kubelet's limit for a request.
const LAUNCH_TIMEOUT: Duration = Duration::from_secs(120);

/// Between the two requests containerd sets nothing up that takes long.
const UNSTARTED_TIMEOUT: Duration = Duration::from_secs(600);

/// CRI's own defaults.
impl Default for PodSettings {
    fn default() -> Self {
        PodSettings {
            unprivileged_ports: true,
            unprivileged_icmp: true,
            ignore_binary_name: false,
            launch_timeout: LAUNCH_TIMEOUT,
            unstarted_timeout: UNSTARTED_TIMEOUT,
        }
    }
}

/// Where a pod's cgroup is.
#[derive(Clone, Copy, Debug)]
pub enum PodPlace<'a> {
    /// The client's `cgroup_parent`.
    Client(&'a str),
    /// One of our own, below each hierarchy's mount point.
    Own(&'a Path),
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
