//! `linux.resources` of config.json and of Task.Update, as limits that can be written.
//!
//! Follows the OCI runtime spec (config-linux.md, "Control groups") and established practice: a zero for memory,
//! shares, quota, period or a weight means "not set" (clients that use the Go types send zeros), `-1` means "no limit",
//! and `pids.limit` 0 is a limit: the smallest one, since systemd has no `TasksMax=0`.

mod device;
mod parse;

pub(crate) use device::{Access, DeviceKind, DeviceRule};

use std::fmt;

/// An amount, or no limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Limit {
    Max,
    Value(u64),
}

impl Limit {
    /// The form for the files of cgroup v1.
    pub(crate) fn v1(self) -> String {
        match self {
            Limit::Max => "-1".into(),
            Limit::Value(v) => v.to_string(),
        }
    }

    /// The form for systemd: UINT64_MAX is infinity.
    pub(crate) fn bus(self) -> u64 {
        match self {
            Limit::Max => u64::MAX,
            Limit::Value(v) => v,
        }
    }
}

/// The form for the files of cgroup v2.
impl fmt::Display for Limit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Limit::Max => f.write_str("max"),
            Limit::Value(v) => v.fmt(f),
        }
    }
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Memory {
    pub limit: Option<Limit>,
    pub reservation: Option<Limit>,
    /// Memory plus swap, as in the spec.
    pub swap: Option<Limit>,
    /// 0 to 100.
    pub swappiness: Option<u64>,
    pub disable_oom_killer: Option<bool>,
    /// Refuse a limit below the current usage, instead of letting the kernel reclaim or kill.
    pub check_before_update: bool,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Cpu {
    pub shares: Option<u64>,
    /// Microseconds per period.
    pub quota: Option<Limit>,
    pub period: Option<u64>,
    pub burst: Option<u64>,
    pub idle: Option<bool>,
    pub realtime_runtime: Option<i64>,
    pub realtime_period: Option<u64>,
    /// Lists such as `0-3,5`.
    pub cpus: Option<String>,
    pub mems: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DeviceNumber {
    pub major: u32,
    pub minor: u32,
}

impl fmt::Display for DeviceNumber {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.major, self.minor)
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WeightDevice {
    pub device: DeviceNumber,
    pub weight: u16,
}

/// What a throttle limits; the names follow those of the v1 and v2 files.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Throttled {
    ReadBps,
    WriteBps,
    ReadIops,
    WriteIops,
}

/// A rate of 0 removes the limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Throttle {
    pub device: DeviceNumber,
    pub what: Throttled,
    pub rate: u64,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BlockIo {
    /// 10 to 1000.
    pub weight: Option<u16>,
    pub weight_devices: Vec<WeightDevice>,
    pub throttles: Vec<Throttle>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hugepage {
    /// As in the names of the kernel's files: `2MB`, `1GB`.
    pub size: String,
    pub limit: u64,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Network {
    pub class_id: Option<u32>,
    pub priorities: Vec<(String, u32)>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rdma {
    pub device: String,
    pub handles: Option<u32>,
    pub objects: Option<u32>,
}

/// The form for `rdma.max`.
impl fmt::Display for Rdma {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.device)?;
        for (key, value) in [("hca_handle", self.handles), ("hca_object", self.objects)] {
            if let Some(value) = value {
                write!(f, " {key}={value}")?;
            }
        }
        Ok(())
    }
}

/// The limits to set. A field that is `None` or empty stays unchanged.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Resources {
    pub memory: Memory,
    pub cpu: Cpu,
    pub pids: Option<Limit>,
    pub block_io: BlockIo,
    pub hugepages: Vec<Hugepage>,
    pub network: Network,
    pub rdma: Vec<Rdma>,
    /// File name and value, sorted by name; cgroup v2 only, written last.
    pub unified: Vec<(String, String)>,
    /// In the order of the spec; the rules that every container gets are added when they are compiled.
    pub devices: Option<Vec<DeviceRule>>,
    /// Fields that are accepted but have no effect.
    pub warnings: Vec<String>,
}
