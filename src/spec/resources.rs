//! `linux.resources` of config.json and of Task.Update, as limits that can be written.
//!
//! Read after the OCI runtime spec (config-linux.md, "Control groups") with the habits of the ecosystem: a zero
//! for memory, shares, quota, period or a weight means "not set" (clients of the Go types send zeros), `-1` is
//! "no limit", and `pids.limit` 0 is a limit: the smallest one, since systemd knows no `TasksMax=0`.

mod device;
mod parse;

pub(crate) use device::{Access, DeviceKind, DeviceRule};

use std::fmt;

/// An amount, or none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Limit {
    Max,
    Value(u64),
}

impl Limit {
    /// As the files of cgroup v1 take it.
    pub(crate) fn v1(self) -> String {
        match self {
            Limit::Max => "-1".into(),
            Limit::Value(v) => v.to_string(),
        }
    }

    /// As systemd takes it: UINT64_MAX is infinity.
    pub(crate) fn bus(self) -> u64 {
        match self {
            Limit::Max => u64::MAX,
            Limit::Value(v) => v,
        }
    }
}

/// As the files of cgroup v2 take it.
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
    /// Memory and swap together, as the spec counts.
    pub swap: Option<Limit>,
    /// 0 to 100.
    pub swappiness: Option<u64>,
    pub disable_oom_killer: Option<bool>,
    /// Refuse a limit below what is used now, instead of letting the kernel reclaim or kill.
    pub check_before_update: bool,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Cpu {
    pub shares: Option<u64>,
    /// Microseconds in each period.
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

/// What a throttle counts; the names are those of the v1 and of the v2 file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Throttled {
    ReadBps,
    WriteBps,
    ReadIops,
    WriteIops,
}

/// A rate of 0 takes the limit away.
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
    /// As the kernel's files are called: `2MB`, `1GB`.
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

/// As `rdma.max` takes it.
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

/// Every field that is `None` or empty is left as it is.
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
    /// In the order of the spec; the rules that every container gets are added where they are compiled.
    pub devices: Option<Vec<DeviceRule>>,
    /// What is accepted and has no effect.
    pub warnings: Vec<String>,
}
