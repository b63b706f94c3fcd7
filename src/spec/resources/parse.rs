//! Converts the spec's types, in which anything may be missing or wrong, to [`Resources`].

use oci_spec::runtime::{
    LinuxBlockIo, LinuxCpu, LinuxDeviceCgroup, LinuxDeviceType, LinuxHugepageLimit, LinuxMemory,
    LinuxResources, LinuxThrottleDevice,
};

use super::{
    Access, BlockIo, Cpu, DeviceKind, DeviceNumber, DeviceRule, Hugepage, Limit, Memory, Network, Rdma,
    Resources, Throttle, Throttled, WeightDevice,
};
use crate::error::{invalid, Error, Kind, Result};

impl Resources {
    /// `field` is the path of the resources in their document, e.g. `linux.resources`; errors start with it.
    pub(crate) fn parse(from: &LinuxResources, field: &str) -> Result<Resources> {
        let mut warnings = Vec::new();
        let at = |name: &str| format!("{field}.{name}");
        let memory = match from.memory() {
            Some(memory) => parse_memory(memory, &at("memory"), &mut warnings)?,
            None => Memory::default(),
        };
        let cpu = match from.cpu() {
            Some(cpu) => parse_cpu(cpu, &at("cpu"))?,
            None => Cpu::default(),
        };
        let block_io = match from.block_io() {
            Some(block_io) => parse_block_io(block_io, &at("blockIO"), &mut warnings)?,
            None => BlockIo::default(),
        };
        let pids = from.pids().as_ref().map(|pids| match pids.limit() {
            limit if limit < 0 => Limit::Max,
            limit => Limit::Value(limit.unsigned_abs().max(1)),
        });
        let hugepages = each(from.hugepage_limits(), &at("hugepageLimits"), parse_hugepage)?;
        let devices = match from.devices() {
            Some(_) => Some(each(from.devices(), &at("devices"), parse_device)?),
            None => None,
        };
        let network = from.network().as_ref().map_or_else(Network::default, |network| Network {
            class_id: network.class_id().filter(|id| *id != 0),
            priorities: network
                .priorities()
                .iter()
                .flatten()
                .map(|p| (p.name().clone(), p.priority()))
                .collect(),
        });
        let mut rdma: Vec<Rdma> = Vec::new();
        for (device, limits) in from.rdma().iter().flatten() {
            if device.is_empty() || device.contains(char::is_whitespace) {
                return Err(invalid(format!("{field}.rdma: {device:?} is not the name of a device")));
            }
            rdma.push(Rdma {
                device: device.clone(),
                handles: limits.hca_handles(),
                objects: limits.hca_objects(),
            });
        }
        rdma.sort_by(|a, b| a.device.cmp(&b.device));
        let mut unified: Vec<(String, String)> = Vec::new();
        for (name, value) in from.unified().iter().flatten() {
            if name.contains('/') || !matches!(name.find('.'), Some(1..)) {
                return Err(invalid(format!(
                    "{field}.unified[{name:?}]: not a file name of the form CONTROLLER.PARAMETER"
                )));
            }
            unified.push((name.clone(), value.clone()));
        }
        unified.sort();
        Ok(Resources { memory, cpu, pids, block_io, hugepages, network, rdma, unified, devices, warnings })
    }

    /// Parses the JSON of an update request, which is an OCI `LinuxResources`.
    pub fn from_json(json: &[u8], field: &str) -> Result<Resources> {
        let deserializer = &mut serde_json::Deserializer::from_slice(json);
        let resources: LinuxResources = serde_path_to_error::deserialize(deserializer).map_err(|e| {
            let path = match e.path().to_string() {
                path if path == "." => field.to_owned(),
                path => format!("{field}.{path}"),
            };
            Error::caused_by(Kind::Invalid, path, e.into_inner())
        })?;
        Resources::parse(&resources, field)
    }
}

fn each<T, R>(from: &Option<Vec<T>>, field: &str, parse: fn(&T, &str) -> Result<R>) -> Result<Vec<R>> {
    from.iter().flatten().enumerate().map(|(i, item)| parse(item, &format!("{field}[{i}]"))).collect()
}

/// A byte amount: 0 means not set, -1 no limit.
fn amount(value: Option<i64>, field: &str, name: &str) -> Result<Option<Limit>> {
    match value {
        None | Some(0) => Ok(None),
        Some(-1) => Ok(Some(Limit::Max)),
        Some(v) if v > 0 => Ok(Some(Limit::Value(v.unsigned_abs()))),
        Some(v) => Err(invalid(format!("{field}.{name}: {v} is not an amount (-1 is no limit)"))),
    }
}

fn parse_memory(from: &LinuxMemory, field: &str, warnings: &mut Vec<String>) -> Result<Memory> {
    let limit = amount(from.limit(), field, "limit")?;
    let swap = amount(from.swap(), field, "swap")?;
    if let (Some(Limit::Value(limit)), Some(Limit::Value(swap))) = (limit, swap)
        && swap < limit
    {
        return Err(invalid(format!(
            "{field}.swap: {swap} is memory and swap together, and cannot be less than the limit {limit}"
        )));
    }
    if let Some(swappiness) = from.swappiness().filter(|s| *s > 100) {
        return Err(invalid(format!("{field}.swappiness: {swappiness} is not within 0 to 100")));
    }
    #[allow(deprecated)]
    let kernel = from.kernel();
    for (name, value) in [("kernel", kernel), ("kernelTCP", from.kernel_tcp())] {
        if value.unwrap_or(0) != 0 {
            warnings.push(format!("{field}.{name}: the kernel has no limit for it any more; ignored"));
        }
    }
    if from.use_hierarchy() == Some(false) {
        warnings.push(format!("{field}.useHierarchy: memory is always counted hierarchically; ignored"));
    }
    Ok(Memory {
        limit,
        reservation: amount(from.reservation(), field, "reservation")?,
        swap,
        swappiness: from.swappiness(),
        disable_oom_killer: from.disable_oom_killer(),
        check_before_update: from.check_before_update().unwrap_or(false),
    })
}

fn parse_cpu(from: &LinuxCpu, field: &str) -> Result<Cpu> {
    let quota = match from.quota() {
        None | Some(0) => None,
        Some(quota) if quota < 0 => Some(Limit::Max),
        Some(quota) => Some(Limit::Value(quota.unsigned_abs())),
    };
    let idle = match from.idle() {
        None => None,
        Some(0) => Some(false),
        Some(1) => Some(true),
        Some(other) => return Err(invalid(format!("{field}.idle: {other} is neither 0 nor 1"))),
    };
    Ok(Cpu {
        shares: from.shares().filter(|s| *s != 0),
        quota,
        period: from.period().filter(|p| *p != 0),
        burst: from.burst(),
        idle,
        realtime_runtime: from.realtime_runtime().filter(|r| *r != 0),
        realtime_period: from.realtime_period().filter(|p| *p != 0),
        cpus: list(from.cpus(), field, "cpus")?,
        mems: list(from.mems(), field, "mems")?,
    })
}

/// A list in the kernel's format, such as `0-3,5`; empty means not set.
fn list(from: &Option<String>, field: &str, name: &str) -> Result<Option<String>> {
    let Some(text) = from.as_deref().map(str::trim).filter(|t| !t.is_empty()) else { return Ok(None) };
    let number = |t: &str| t.trim().parse::<u16>().is_ok();
    let well_formed = text.split(',').all(|part| match part.split_once('-') {
        Some((first, last)) => number(first) && number(last),
        None => number(part),
    });
    if well_formed {
        Ok(Some(text.to_owned()))
    } else {
        Err(invalid(format!("{field}.{name}: {text:?} is not a list such as 0-3,5")))
    }
}

fn weight(value: Option<u16>, field: &str, name: &str) -> Result<Option<u16>> {
    match value {
        None | Some(0) => Ok(None),
        Some(w @ 10..=1000) => Ok(Some(w)),
        Some(w) => Err(invalid(format!("{field}.{name}: {w} is not within 10 to 1000"))),
    }
}

fn number(value: i64, field: &str, name: &str) -> Result<u32> {
    u32::try_from(value).map_err(|_| invalid(format!("{field}.{name}: {value} is not a device number")))
}

fn parse_block_io(from: &LinuxBlockIo, field: &str, warnings: &mut Vec<String>) -> Result<BlockIo> {
    let mut throttles = Vec::new();
    for (name, what, list) in [
        ("throttleReadBpsDevice", Throttled::ReadBps, from.throttle_read_bps_device()),
        ("throttleWriteBpsDevice", Throttled::WriteBps, from.throttle_write_bps_device()),
        ("throttleReadIOPSDevice", Throttled::ReadIops, from.throttle_read_iops_device()),
        ("throttleWriteIOPSDevice", Throttled::WriteIops, from.throttle_write_iops_device()),
    ] {
        for (i, throttle) in list.iter().flatten().enumerate() {
            throttles.push(parse_throttle(throttle, what, &format!("{field}.{name}[{i}]"))?);
        }
    }
    let mut leaf_weight = from.leaf_weight().unwrap_or(0);
    let mut weight_devices = Vec::new();
    for (i, device) in from.weight_device().iter().flatten().enumerate() {
        let field = format!("{field}.weightDevice[{i}]");
        leaf_weight = leaf_weight.max(device.leaf_weight().unwrap_or(0));
        let major = number(device.major(), &field, "major")?;
        let minor = number(device.minor(), &field, "minor")?;
        if let Some(weight) = weight(device.weight(), &field, "weight")? {
            weight_devices.push(WeightDevice { device: DeviceNumber { major, minor }, weight });
        }
    }
    if leaf_weight != 0 {
        warnings.push(format!("{field}.leafWeight: the kernel has no such weight since 5.0; ignored"));
    }
    Ok(BlockIo { weight: weight(from.weight(), field, "weight")?, weight_devices, throttles })
}

fn parse_throttle(from: &LinuxThrottleDevice, what: Throttled, field: &str) -> Result<Throttle> {
    let major = number(from.major(), field, "major")?;
    let minor = number(from.minor(), field, "minor")?;
    Ok(Throttle { device: DeviceNumber { major, minor }, what, rate: from.rate() })
}

fn parse_hugepage(from: &LinuxHugepageLimit, field: &str) -> Result<Hugepage> {
    let size = from.page_size();
    let unit = size.trim_start_matches(|c: char| c.is_ascii_digit());
    if unit.len() == size.len() || !matches!(unit, "KB" | "MB" | "GB") {
        return Err(invalid(format!("{field}.pageSize: {size:?} is not a size such as 2MB")));
    }
    let limit = u64::try_from(from.limit())
        .map_err(|_| invalid(format!("{field}.limit: {} is not an amount", from.limit())))?;
    Ok(Hugepage { size: size.clone(), limit })
}

fn parse_device(from: &LinuxDeviceCgroup, field: &str) -> Result<DeviceRule> {
    let kind = match from.typ() {
        None | Some(LinuxDeviceType::A) => DeviceKind::All,
        Some(LinuxDeviceType::B) => DeviceKind::Block,
        Some(LinuxDeviceType::C | LinuxDeviceType::U) => DeviceKind::Char,
        Some(LinuxDeviceType::P) => {
            return Err(invalid(format!("{field}.type: the cgroup does not control fifos (p)")))
        }
    };
    // The Go types write -1 for "any".
    let any_or = |value: Option<i64>, name: &str| match value {
        None | Some(-1) => Ok(None),
        Some(value) => number(value, field, name).map(Some),
    };
    let access = match from.access().as_deref() {
        None | Some("") => Access::ALL,
        Some(text) => Access::parse(text)
            .ok_or_else(|| invalid(format!("{field}.access: {text:?} is not made of r, w and m")))?,
    };
    Ok(DeviceRule {
        allow: from.allow(),
        kind,
        major: any_or(from.major(), "major")?,
        minor: any_or(from.minor(), "minor")?,
        access,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(json: &str) -> Result<Resources> {
        Resources::from_json(json.as_bytes(), "linux.resources")
    }

    #[track_caller]
    fn refused(json: &str, sentence: &str) {
        let error = parse(json).expect_err(json);
        assert_eq!(error.kind(), Kind::Invalid);
        assert!(error.to_string().starts_with(sentence), "{error}");
    }

    #[test]
    fn what_is_not_there_is_left_alone() {
        assert_eq!(parse("{}").unwrap(), Resources::default());
        let zeros = r#"{"memory":{"limit":0,"swap":0},"cpu":{"shares":0,"quota":0,"period":0,"cpus":""},
            "blockIO":{"weight":0}}"#;
        assert_eq!(parse(zeros).unwrap(), Resources::default());
    }

    #[test]
    fn amounts_are_bytes_or_no_limit() {
        let r = parse(r#"{"memory":{"limit":1048576,"swap":-1,"reservation":4096,"swappiness":0}}"#).unwrap();
        assert_eq!(r.memory.limit, Some(Limit::Value(1 << 20)));
        assert_eq!(r.memory.swap, Some(Limit::Max));
        assert_eq!(r.memory.swappiness, Some(0));
        assert_eq!(parse(r#"{"pids":{"limit":-1}}"#).unwrap().pids, Some(Limit::Max));
        assert_eq!(parse(r#"{"pids":{"limit":0}}"#).unwrap().pids, Some(Limit::Value(1)));
        assert_eq!(parse(r#"{"cpu":{"quota":-1}}"#).unwrap().cpu.quota, Some(Limit::Max));
    }

    #[test]
    fn an_error_names_the_field() {
        refused(r#"{"memory":{"limit":-2}}"#, "linux.resources.memory.limit: -2 is not an amount");
        refused(r#"{"memory":{"limit":10,"swap":5}}"#, "linux.resources.memory.swap: 5 is memory and swap");
        refused(r#"{"memory":{"limit":"1G"}}"#, "linux.resources.memory.limit: invalid type");
        refused(r#"{"cpu":{"cpus":"0-x"}}"#, "linux.resources.cpu.cpus: \"0-x\" is not a list");
        refused(r#"{"cpu":{"idle":2}}"#, "linux.resources.cpu.idle: 2 is neither");
        refused(
            r#"{"devices":[{"allow":true,"access":"rwx"}]}"#,
            "linux.resources.devices[0].access: \"rwx\" is not made of",
        );
        refused(
            r#"{"hugepageLimits":[{"pageSize":"2M","limit":1}]}"#,
            "linux.resources.hugepageLimits[0].pageSize",
        );
        refused(r#"{"unified":{"../memory.max":"1"}}"#, "linux.resources.unified[\"../memory.max\"]");
        refused(
            r#"{"blockIO":{"weightDevice":[{"major":8,"minor":0,"weight":5}]}}"#,
            "linux.resources.blockIO.weightDevice[0].weight: 5",
        );
        refused("[", "linux.resources");
    }

    #[test]
    fn limits_that_the_kernel_dropped_are_a_warning() {
        let r = parse(r#"{"memory":{"kernel":4096,"kernelTCP":-1}}"#).unwrap();
        assert_eq!(r.warnings.len(), 2, "{:?}", r.warnings);
    }

    #[test]
    fn a_rule_without_type_is_for_all_devices() {
        let rules = parse(
            r#"{"devices":[{"allow":false,"access":"rwm"},
            {"allow":true,"type":"c","major":10,"minor":-1,"access":"wr"}]}"#,
        )
        .unwrap()
        .devices
        .unwrap();
        assert_eq!(rules[0].kind, DeviceKind::All);
        assert_eq!(rules[1].to_string(), "c 10:* rw");
    }
}
