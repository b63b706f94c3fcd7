//! What a plan depends on besides the spec: facts of the host, probed once when the shim starts.

use std::path::PathBuf;

/// How a process gets its AppArmor profile.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum AppArmor {
    #[default]
    Off,
    /// /proc/thread-self/attr/exec, shared with other security modules: Linux before 5.8.
    Shared,
    /// /proc/thread-self/attr/apparmor/exec.
    Own,
}

/// One mounted v1 hierarchy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hierarchy {
    pub mountpoint: PathBuf,
    /// `cpu`, `cpuacct`, …, or `name=systemd`: the options that mount it.
    pub controllers: Vec<String>,
}

impl Hierarchy {
    /// The directory that a container has for it: the last part of the host's mount point, e.g. `cpu,cpuacct`.
    pub(crate) fn name(&self) -> &str {
        self.mountpoint.file_name().and_then(|name| name.to_str()).unwrap_or("cgroup")
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CgroupMounts {
    /// In the order of mountinfo. Which of the two a host has is for the layout of its cgroups to say.
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
    /// There is a /proc/kcore, so containers get their /dev/core.
    pub kcore: bool,
}

impl Host {
    /// The capabilities that the kernel has.
    pub(crate) fn capabilities(&self) -> u64 {
        u64::MAX >> (63 - self.last_cap.min(63))
    }
}
