//! The environment of a sandbox: what its containers and its pod are created with.

use super::request::{Event, Options};
use super::watch::Watch;
use crate::cgroup::Cgroup;
use crate::error::Result;
use crate::launch::{Launcher, Leash};
use crate::paths::Paths;
use crate::plan::Host;
use crate::seccomp::Cache;
use crate::spec::resources::Resources;
use crate::stdio::Streams;
use crate::tasks::Answer;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

/// The destination of events. Called in order, must not block.
pub type EventSink = Box<dyn Fn(Event) + Send + Sync>;

/// Creates a container's cgroup.
pub type CgroupMaker =
    Box<dyn for<'a> Fn(CgroupOrder<'a>) -> Answer<'a, Result<Box<dyn Cgroup>>> + Send + Sync>;

/// The parameters of a container's cgroup.
#[derive(Clone, Copy)]
pub struct CgroupOrder<'a> {
    /// `linux.cgroupsPath`
    pub path: Option<&'a str>,
    pub limits: &'a Resources,
    /// Of the specification.
    pub annotations: &'a BTreeMap<String, String>,
    pub options: &'a Options,
    /// The container's id.
    pub id: &'a str,
    /// Set while the creation must not be abandoned because another service (systemd) has been asked for something.
    pub asked: &'a AtomicBool,
}

/// Finds a pod's cgroup.
pub type PodCgroup = Box<dyn Fn(PodPlace<'_>) -> Result<Box<dyn Cgroup>> + Send + Sync>;

/// The operator's settings; read anew for each pod, and for each launch without a time limit of its own.
pub type Settings = Box<dyn Fn() -> Result<PodSettings> + Send + Sync>;

/// What an operator decides for all pods of CRI; it does not tell a shim what its own configuration says.
#[derive(Clone, Debug, PartialEq, Eq)]
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
    /// The program for checkpoints. None: `criu` in the shim's PATH.
    pub criu_path: Option<PathBuf>,
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
            criu_path: None,
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

/// What comes from outside, as parameters.
pub struct Config {
    /// containerd's namespace.
    pub namespace: String,
    pub host: Host,
    pub paths: Paths,
    pub launcher: Box<dyn Launcher>,
    pub cgroups: CgroupMaker,
    pub pod_cgroup: PodCgroup,
    pub pod_settings: Settings,
    pub events: EventSink,
}

/// Shared by all containers of a shim.
pub(super) struct World {
    pub namespace: String,
    pub host: Host,
    pub paths: Paths,
    pub launcher: Box<dyn Launcher>,
    pub cgroups: CgroupMaker,
    pub pod_cgroup: PodCgroup,
    settings: Settings,
    pub events: EventSink,
    pub watch: Watch,
    pub streams: Streams,
    pub filters: Cache,
}

impl World {
    pub fn new(config: Config) -> Result<Self> {
        let Config { namespace, host, paths, launcher, cgroups, pod_cgroup, pod_settings: settings, events } =
            config;
        Ok(World {
            namespace,
            host,
            paths: paths.clone(),
            launcher,
            cgroups,
            pod_cgroup,
            settings,
            events,
            watch: Watch::start()?,
            streams: Streams::new(paths),
            filters: Cache::default(),
        })
    }

    /// Reads the operator's current settings.
    pub fn settings(&self) -> Result<PodSettings> {
        (self.settings)()
    }

    pub fn settings_or_default(&self) -> PodSettings {
        self.settings().unwrap_or_else(|e| {
            log::warn!("using the default time limits: {e}");
            PodSettings::default()
        })
    }

    pub fn launch_limit(&self) -> Duration {
        self.settings_or_default().launch_timeout
    }

    /// A leash limited by the request's deadline, or by the operator's limit if there is none.
    pub fn leash(&self, deadline: Option<Instant>) -> Leash {
        match deadline {
            Some(deadline) => Leash::until(deadline),
            None => Leash::lasting(self.launch_limit()),
        }
    }
}
