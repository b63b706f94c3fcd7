//! What a plan depends on besides the spec: facts of the host, probed once when the shim starts.

use std::path::PathBuf;

/// How a process gets its AppArmor profile.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum AppArmor {
    #[default]
    Off,
    /// /proc/thread-self/attr/exec, which other security modules share: Linux before 5.8.
    Shared,
    /// /proc/thread-self/attr/apparmor/exec.
    Own,
}

/// One mounted v1 hierarchy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hierarchy {
    pub mountpoint: PathBuf,
    /// The options that mount it: `cpu`, `cpuacct`, …, or `name=systemd`.
    pub controllers: Vec<String>,
}

impl Hierarchy {
    /// The name of its directory in a container: the last component of the host's mount point, e.g. `cpu,cpuacct`.
    pub(crate) fn name(&self) -> &str {
        self.mountpoint.file_name().and_then(|name| name.to_str()).unwrap_or("cgroup")
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CgroupMounts {
    /// In mountinfo order. The cgroup layout decides whether a host has v1 or v2.
    V1(Vec<Hierarchy>),
    V2,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Host {
    pub cgroups: CgroupMounts,
    /// /proc/sys/kernel/cap_last_cap.
    pub last_cap: u8,
    pub page_size: usize,
    pub apparmor: AppArmor,
    pub selinux: bool,
    /// The host has a /proc/kcore, so containers get a /dev/core.
    pub kcore: bool,
    /// Where the whole of resctrl is mounted.
    pub resctrl: Option<PathBuf>,
}

impl Host {
    /// The capabilities that the kernel knows.
    pub(crate) fn capabilities(&self) -> u64 {
        u64::MAX >> (63 - self.last_cap.min(63))
    }
}
