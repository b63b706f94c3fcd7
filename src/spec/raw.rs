//! config.json as written: only its shape is checked here.
//!
//! The leaves are `oci-spec`'s, if they accept what runc accepts. The upper levels are our own: oci-spec rejects a
//! whole spec for one unknown capability, misspells some scheduler flags, and would have us parse the fields of other
//! platforms.

use oci_spec::runtime::{
    Hooks, LinuxDevice, LinuxIdMapping, LinuxNamespace, LinuxResources, LinuxSeccomp, Mount,
};
use serde::Deserialize;
use std::collections::BTreeMap;
use std::path::PathBuf;

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Spec {
    #[serde(default)]
    pub oci_version: String,
    pub root: Option<Root>,
    pub mounts: Option<Vec<Mount>>,
    pub process: Option<Process>,
    pub hostname: Option<String>,
    pub domainname: Option<String>,
    pub hooks: Option<Hooks>,
    pub annotations: Option<BTreeMap<String, String>>,
    pub linux: Option<Linux>,
}

#[derive(Deserialize)]
pub(super) struct Root {
    #[serde(default)]
    pub path: PathBuf,
    pub readonly: Option<bool>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Linux {
    pub sysctl: Option<BTreeMap<String, String>>,
    pub resources: Option<LinuxResources>,
    pub cgroups_path: Option<String>,
    pub namespaces: Option<Vec<LinuxNamespace>>,
    pub uid_mappings: Option<Vec<LinuxIdMapping>>,
    pub gid_mappings: Option<Vec<LinuxIdMapping>>,
    pub devices: Option<Vec<LinuxDevice>>,
    pub seccomp: Option<LinuxSeccomp>,
    pub rootfs_propagation: Option<String>,
    pub masked_paths: Option<Vec<String>>,
    pub readonly_paths: Option<Vec<String>>,
    pub mount_label: Option<String>,
    pub personality: Option<Personality>,
    pub intel_rdt: Option<IntelRdt>,
    pub memory_policy: Option<MemoryPolicy>,
    pub net_devices: Option<BTreeMap<String, NetDevice>>,
    pub time_offsets: Option<BTreeMap<String, TimeOffset>>,
}

#[derive(Deserialize)]
pub(super) struct MemoryPolicy {
    #[serde(default)]
    pub mode: String,
    pub nodes: Option<String>,
    pub flags: Option<Vec<String>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct IntelRdt {
    #[serde(rename = "closID")]
    pub clos_id: Option<String>,
    pub l3_cache_schema: Option<String>,
    pub mem_bw_schema: Option<String>,
    pub schemata: Option<Vec<String>>,
    pub enable_monitoring: Option<bool>,
    #[serde(rename = "enableCMT")]
    pub enable_cmt: Option<bool>,
    #[serde(rename = "enableMBM")]
    pub enable_mbm: Option<bool>,
}

#[derive(Deserialize)]
pub(super) struct NetDevice {
    pub name: Option<String>,
}

#[derive(Deserialize)]
pub(super) struct TimeOffset {
    #[serde(default)]
    pub secs: i64,
    #[serde(default)]
    pub nanosecs: u32,
}

#[derive(Deserialize)]
pub(super) struct Personality {
    #[serde(default)]
    pub domain: String,
    pub flags: Option<Vec<String>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Process {
    pub terminal: Option<bool>,
    pub console_size: Option<ConsoleSize>,
    #[serde(default)]
    pub user: User,
    pub args: Option<Vec<String>>,
    pub env: Option<Vec<String>>,
    #[serde(default)]
    pub cwd: String,
    pub capabilities: Option<Capabilities>,
    pub rlimits: Option<Vec<Rlimit>>,
    pub no_new_privileges: Option<bool>,
    pub apparmor_profile: Option<String>,
    pub oom_score_adj: Option<i32>,
    pub selinux_label: Option<String>,
    pub scheduler: Option<Scheduler>,
    pub io_priority: Option<IoPriority>,
    #[serde(rename = "execCPUAffinity")]
    pub exec_cpu_affinity: Option<ExecCpuAffinity>,
}

#[derive(Deserialize)]
pub(super) struct ExecCpuAffinity {
    pub initial: Option<String>,
    #[serde(rename = "final")]
    pub last: Option<String>,
}

#[derive(Deserialize)]
pub(super) struct ConsoleSize {
    #[serde(default)]
    pub height: u64,
    #[serde(default)]
    pub width: u64,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct User {
    #[serde(default)]
    pub uid: u32,
    #[serde(default)]
    pub gid: u32,
    pub umask: Option<u32>,
    pub additional_gids: Option<Vec<u32>>,
}

#[derive(Deserialize)]
pub(super) struct Capabilities {
    pub bounding: Option<Vec<String>>,
    pub effective: Option<Vec<String>>,
    pub inheritable: Option<Vec<String>>,
    pub permitted: Option<Vec<String>>,
    pub ambient: Option<Vec<String>>,
}

#[derive(Deserialize)]
pub(super) struct Rlimit {
    #[serde(rename = "type")]
    pub typ: String,
    #[serde(default)]
    pub hard: u64,
    #[serde(default)]
    pub soft: u64,
}

#[derive(Deserialize)]
pub(super) struct Scheduler {
    pub policy: String,
    #[serde(default)]
    pub nice: i32,
    #[serde(default)]
    pub priority: i32,
    pub flags: Option<Vec<String>>,
    #[serde(default)]
    pub runtime: u64,
    #[serde(default)]
    pub deadline: u64,
    #[serde(default)]
    pub period: u64,
}

#[derive(Deserialize)]
pub(super) struct IoPriority {
    pub class: String,
    #[serde(default)]
    pub priority: i64,
}
