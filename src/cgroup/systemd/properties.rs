//! Limits as properties of a unit (org.freedesktop.systemd1(5), systemd.resource-control(5)).
//!
//! The files are written after them. The properties exist so that systemd, when it rewrites a unit's files (at
//! daemon-reload, or when a neighbour starts), writes the same values. It leaves alone anything it has no property for.

use std::path::Path;

use super::wire::{Property, Value};
use crate::cgroup::devices::Policy;
use crate::cgroup::v2::{swap_alone, weight_of_block_io, weight_of_shares};
use crate::cgroup::Halves;
use crate::error::Result;
use crate::spec::resources::{DeviceKind, DeviceRule, Limit, Memory, Resources};

/// systemd's infinity.
const NO_LIMIT: u64 = u64::MAX;

pub(super) fn of_limits(
    resources: &Resources,
    now: &Halves,
    v2: bool,
    version: u32,
) -> Result<Vec<Property>> {
    let mut all = Vec::new();
    let mut number = |name, value: Option<u64>| all.extend(value.map(|value| (name, Value::Number(value))));
    let Resources { memory, cpu, pids, .. } = resources;
    if v2 {
        number("MemoryMax", memory.limit.map(Limit::bus));
        number("MemoryLow", memory.reservation.map(Limit::bus));
        number("MemorySwapMax", swap(memory, now));
        match cpu.idle {
            // Since 252 systemd expresses cpu.idle as a weight of 0.
            Some(true) if version >= 252 => number("CPUWeight", Some(0)),
            Some(true) => {}
            _ => number("CPUWeight", cpu.shares.map(weight_of_shares)),
        }
        // Without it systemd writes its default. For BFQ it converts this to BFQ's range, to nearly the value in the
        // file.
        number("IOWeight", resources.block_io.weight.map(weight_of_block_io));
    } else {
        number("MemoryLimit", memory.limit.map(Limit::bus));
        number("CPUShares", cpu.shares);
        number("BlockIOWeight", resources.block_io.weight.map(u64::from));
    }
    number("TasksMax", pids.map(Limit::bus));
    if cpu.quota.is_some() || cpu.period.is_some() {
        let (quota, period) = (cpu.quota.or(now.quota), cpu.period.or(now.period));
        number("CPUQuotaPeriodUSec", period);
        number("CPUQuotaPerSecUSec", quota.map(|quota| per_second(quota, period)));
    }
    for (name, list) in [("AllowedCPUs", &cpu.cpus), ("AllowedMemoryNodes", &cpu.mems)] {
        if let Some(list) = list {
            all.push((name, Value::Bytes(bits(list))));
        }
    }
    for (file, value) in &resources.unified {
        all.extend(of_unified(file, value.trim(), now));
    }
    // If two set the same property, the last one wins in the files: so here.
    let mut unique: Vec<Property> = Vec::with_capacity(all.len());
    for property in all {
        unique.retain(|(name, _)| *name != property.0);
        unique.push(property);
    }
    Ok(unique)
}

/// Depends on both memory and swap. An invalid combination is left for the files to refuse.
fn swap(memory: &Memory, now: &Halves) -> Option<u64> {
    if memory.limit.is_none() && memory.swap.is_none() {
        return None;
    }
    swap_alone(memory.limit.or(now.memory), memory.swap.or(now.swap)).ok().flatten().map(Limit::bus)
}

/// Microseconds of CPU time per second, rounded up to the whole percentage that systemd keeps.
fn per_second(quota: Limit, period: Option<u64>) -> u64 {
    match quota {
        Limit::Max => NO_LIMIT,
        Limit::Value(quota) => {
            let period = period.filter(|period| *period != 0).unwrap_or(100_000);
            let per_second = quota.saturating_mul(1_000_000) / period;
            per_second.div_ceil(10_000).saturating_mul(10_000)
        }
    }
}

/// The values that the files must have again afterwards: whichever property systemd is given, it writes everything it
/// knows of a unit, with quotas as it has rounded them.
pub(super) fn restored(resources: &Resources, now: &Halves) -> Resources {
    let unified = resources.unified.iter().any(|(file, _)| file == "cpu.max");
    let mut restored = resources.clone();
    if !unified {
        restored.cpu.quota = restored.cpu.quota.or(now.quota);
        restored.cpu.period = restored.cpu.period.or(now.period);
    }
    restored
}

/// Converts `0-2,9` to a bit mask, lowest bit first.
fn bits(list: &str) -> Vec<u8> {
    let mut mask = Vec::new();
    for part in list.split(',') {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let (Ok(first), Ok(last)) = (first.trim().parse::<u16>(), last.trim().parse::<u16>()) else {
            continue;
        };
        for bit in first..=last {
            let byte = usize::from(bit / 8);
            if mask.len() <= byte {
                mask.resize(byte + 1, 0);
            }
            mask[byte] |= 1 << (bit % 8);
        }
    }
    mask
}

/// The properties for files that systemd writes too. A value that does not parse is left for the kernel to refuse.
fn of_unified(file: &str, value: &str, now: &Halves) -> Vec<Property> {
    let limit = || match value {
        "max" => Some(NO_LIMIT),
        value => value.parse().ok(),
    };
    let one =
        |name, value: Option<u64>| value.map(|value| (name, Value::Number(value))).into_iter().collect();
    match file {
        "memory.max" => one("MemoryMax", limit()),
        "memory.high" => one("MemoryHigh", limit()),
        "memory.low" => one("MemoryLow", limit()),
        "memory.min" => one("MemoryMin", limit()),
        "memory.swap.max" => one("MemorySwapMax", limit()),
        "pids.max" => one("TasksMax", limit()),
        "cpu.weight" => one("CPUWeight", value.parse().ok()),
        "io.weight" => one("IOWeight", value.trim_start_matches("default ").parse().ok()),
        "cpuset.cpus" => vec![("AllowedCPUs", Value::Bytes(bits(value)))],
        "cpuset.mems" => vec![("AllowedMemoryNodes", Value::Bytes(bits(value)))],
        "memory.oom.group" => {
            vec![("OOMPolicy", Value::Text(if value == "1" { "kill" } else { "continue" }.to_owned()))]
        }
        "cpu.max" => {
            let mut words = value.split_ascii_whitespace();
            let quota = match words.next() {
                Some("max") | None => Limit::Max,
                Some(quota) => match quota.parse() {
                    Ok(quota) => Limit::Value(quota),
                    Err(_) => return Vec::new(),
                },
            };
            // Without a period, the kernel keeps the current one.
            let period = words.next().and_then(|period| period.parse().ok()).or(now.period);
            let quota = ("CPUQuotaPerSecUSec", Value::Number(per_second(quota, period)));
            let period = period.map(|period| ("CPUQuotaPeriodUSec", Value::Number(period)));
            period.into_iter().chain([quota]).collect()
        }
        _ => Vec::new(),
    }
}

/// Returns the device properties: for v1 only, where systemd would write its own list over ours. On v2 it has a program
/// of its own, and none if it has no rules.
pub(super) fn of_devices(rules: &[DeviceRule], proc: &Path) -> Vec<Property> {
    let policy = Policy::compile(rules);
    if policy.default_allow {
        // systemd knows no exceptions from "everything"; the files do.
        return vec![("DevicePolicy", Value::Text("auto".into())), ("DeviceAllow", Value::Pairs(Vec::new()))];
    }
    let majors = std::fs::read_to_string(proc.join("devices")).unwrap_or_default();
    let allowed = policy.rules.iter().filter(|rule| rule.allow);
    let pairs =
        allowed.filter_map(|rule| Some((device_name(rule, &majors)?, rule.access.to_string()))).collect();
    vec![("DevicePolicy", Value::Text("strict".into())), ("DeviceAllow", Value::Pairs(pairs))]
}

/// Returns systemd's name for a device; None if it has none.
fn device_name(rule: &DeviceRule, majors: &str) -> Option<String> {
    let (kind, title) = match rule.kind {
        DeviceKind::All => return None,
        DeviceKind::Char => ("char", "Character devices:"),
        DeviceKind::Block => ("block", "Block devices:"),
    };
    match (rule.major, rule.minor) {
        (None, _) => Some(format!("{kind}-*")),
        (Some(major), Some(minor)) => Some(format!("/dev/{kind}/{major}:{minor}")),
        (Some(major), None) => {
            let mut lines = majors.lines().skip_while(|line| *line != title).skip(1);
            let name = lines.by_ref().take_while(|line| !line.is_empty()).find_map(|line| {
                let (number, name) = line.trim().split_once(' ')?;
                (number.parse() == Ok(major)).then_some(name)
            });
            name.map(|name| format!("{kind}-{name}"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cgroup::devices::tests::rule;

    fn properties(json: &str, v2: bool) -> Vec<Property> {
        update(json, &Halves::default(), v2)
    }

    fn update(json: &str, now: &Halves, v2: bool) -> Vec<Property> {
        let resources = Resources::from_json(json.as_bytes(), "resources").unwrap();
        of_limits(&resources, now, v2, 257).unwrap()
    }

    #[test]
    fn a_half_of_a_limit_comes_with_the_other_half() {
        let value = |value| Some(Limit::Value(value));
        let now = Halves { quota: value(25_000), period: Some(50_000), memory: value(100), swap: value(150) };
        let numbers = |json: &str| -> Vec<(&str, u64)> {
            let all = update(json, &now, true);
            let number = |(name, value)| match value {
                Value::Number(number) => (name, number),
                other => panic!("{name}: {other:?}"),
            };
            all.into_iter().map(number).collect()
        };
        let (period, quota) = ("CPUQuotaPeriodUSec", "CPUQuotaPerSecUSec");
        assert_eq!(numbers(r#"{"cpu":{"quota":40000}}"#), [(period, 50_000), (quota, 800_000)]);
        assert_eq!(numbers(r#"{"cpu":{"period":100000}}"#), [(period, 100_000), (quota, 250_000)]);
        assert_eq!(numbers(r#"{"cpu":{"shares":1024}}"#), [("CPUWeight", 100)]);
        assert_eq!(numbers(r#"{"unified":{"cpu.max":"40000"}}"#), [(period, 50_000), (quota, 800_000)]);
        assert_eq!(numbers(r#"{"memory":{"swap":100}}"#), [("MemorySwapMax", 0)]);
        assert_eq!(numbers(r#"{"memory":{"limit":120}}"#), [("MemoryMax", 120), ("MemorySwapMax", 30)]);
        assert_eq!(numbers(r#"{"memory":{"swap":-1}}"#), [("MemorySwapMax", NO_LIMIT)]);
        assert_eq!(numbers(r#"{"pids":{"limit":7}}"#), [("TasksMax", 7)]);
        assert_eq!(numbers(r#"{"blockIO":{"weight":500}}"#), [("IOWeight", 4950)]);
    }

    #[test]
    fn the_files_get_the_quota_that_they_had_and_not_a_rounded_one() {
        let now = Halves { quota: Some(Limit::Value(12_345)), period: Some(70_000), ..Halves::default() };
        let quota = |json: &str| {
            let resources = Resources::from_json(json.as_bytes(), "resources").unwrap();
            let cpu = restored(&resources, &now).cpu;
            (cpu.quota, cpu.period)
        };
        assert_eq!(quota(r#"{"cpu":{"shares":5}}"#), (now.quota, now.period));
        assert_eq!(quota(r#"{"cpu":{"quota":-1}}"#), (Some(Limit::Max), now.period));
        assert_eq!(quota(r#"{"unified":{"cpu.max":"max"}}"#), (None, None));
    }

    #[test]
    fn limits_that_systemd_writes_too() {
        let json = r#"{"memory":{"limit":100,"swap":150},"cpu":{"shares":1024,"quota":12345,"period":100000,
            "cpus":"0-2,9"},"pids":{"limit":-1}}"#;
        let v2 = [
            ("MemoryMax", Value::Number(100)),
            ("MemorySwapMax", Value::Number(50)),
            ("CPUWeight", Value::Number(100)),
            ("TasksMax", Value::Number(NO_LIMIT)),
            ("CPUQuotaPeriodUSec", Value::Number(100_000)),
            ("CPUQuotaPerSecUSec", Value::Number(130_000)),
            ("AllowedCPUs", Value::Bytes(vec![7, 2])),
        ];
        assert_eq!(properties(json, true), v2);
        let v1 = properties(json, false);
        assert_eq!(v1[0], ("MemoryLimit", Value::Number(100)));
        assert_eq!(v1[1], ("CPUShares", Value::Number(1024)));
        assert_eq!(properties(r#"{"cpu":{"idle":1,"shares":5}}"#, true), [("CPUWeight", Value::Number(0))]);
    }

    #[test]
    fn unified_files_win_over_what_was_converted() {
        let json =
            r#"{"memory":{"limit":100},"unified":{"memory.max":"max","cpu.max":"max 5000","misc.max":"x"}}"#;
        let expected = [
            ("CPUQuotaPeriodUSec", Value::Number(5000)),
            ("CPUQuotaPerSecUSec", Value::Number(NO_LIMIT)),
            ("MemoryMax", Value::Number(NO_LIMIT)),
        ];
        assert_eq!(properties(json, true), expected);
    }

    #[test]
    fn devices_have_names() {
        let proc = tempfile::tempdir().unwrap();
        let text = "Character devices:\n  1 mem\n136 pts\n\nBlock devices:\n  8 sd\n";
        std::fs::write(proc.path().join("devices"), text).unwrap();
        let all = of_devices(&[rule("deny a"), rule("allow b 8:* r"), rule("allow b 9:* r")], proc.path());
        let Value::Pairs(pairs) = &all[1].1 else { panic!("{all:?}") };
        assert_eq!(pairs[0], ("block-sd".into(), "r".into()));
        assert_eq!(pairs[1], ("char-*".into(), "m".into()), "9 has no name");
        assert!(pairs.contains(&("char-pts".into(), "rwm".into())));
        assert!(pairs.contains(&("/dev/char/1:3".into(), "rwm".into())));
        let all = of_devices(&[rule("allow a")], proc.path());
        assert_eq!(all[0].1, Value::Text("auto".into()));
    }
}
