//! Limits as writes to the files of a v2 cgroup: one write per limit that is set.
//!
//! The spec counts as v1 did; the conversions are those of the other runtimes. Like them, it ignores limits for which
//! v2 has no file (swappiness, the OOM killer's switch, realtime, net_cls, net_prio).

use super::{Limits, V2};
use crate::cgroup::dir::Dir;
use crate::cgroup::{accepted, refuse_below_usage};
use crate::error::{invalid, Context, Error, Kind, Result};
use crate::spec::resources::{BlockIo, Cpu, Limit, Memory, Resources, Throttle, Throttled};

impl V2 {
    pub(super) fn apply(&self, resources: &Resources, fresh: bool, field: &str) -> Result<()> {
        let dir = &self.dir;
        let Resources { memory, cpu, pids, block_io, hugepages, rdma, .. } = resources;
        if let Some(pids) = pids {
            let value = pids.to_string();
            explained(dir.write("pids.max", &value), dir, "pids", || format!("{field}.pids.limit"))?;
        }
        self.apply_memory(memory, fresh, &format!("{field}.memory"))?;
        explained(apply_block_io(dir, block_io), dir, "io", || format!("{field}.blockIO"))?;
        explained(apply_cpu(dir, cpu), dir, "cpu", || format!("{field}.cpu"))?;
        for (name, value) in [("cpus", &cpu.cpus), ("mems", &cpu.mems)] {
            if let Some(value) = value {
                let written = dir.write(&format!("cpuset.{name}"), value);
                explained(written, dir, "cpuset", || format!("{field}.cpu.{name}"))?;
            }
        }
        for page in hugepages {
            let limit = page.limit.to_string();
            let written = dir.write(&format!("hugetlb.{}.max", page.size), &limit).and_then(|()| {
                // Reservations have a limit of their own since Linux 5.7; without it mmap(2) still gets more than the
                // process may use.
                dir.write_if(&format!("hugetlb.{}.rsvd.max", page.size), &limit).map(drop)
            });
            explained(written, dir, "hugetlb", || format!("{field}.hugepageLimits"))?;
        }
        for limits in rdma {
            let written = dir.write("rdma.max", &limits.to_string());
            explained(written, dir, "rdma", || format!("{field}.rdma"))?;
        }
        Ok(())
    }

    /// Applied last, so that they override converted values.
    pub(super) fn apply_unified(&self, resources: &Resources, field: &str) -> Result<()> {
        for (file, value) in &resources.unified {
            let controller = file.split('.').next().unwrap_or(file);
            let name = || format!("{field}.unified[{file:?}]");
            explained(self.dir.write(file, value), &self.dir, controller, name)?;
        }
        Ok(())
    }

    fn apply_memory(&self, memory: &Memory, fresh: bool, field: &str) -> Result<()> {
        let dir = &self.dir;
        if let (true, Some(Limit::Value(limit))) = (memory.check_before_update, memory.limit) {
            refuse_below_usage(limit, dir.read_number("memory.current")?)
                .context(|| format!("{field}.limit"))?;
        }
        let mut known = self.limits.lock();
        let mut next = Limits { memory: memory.limit.or(known.memory), swap: memory.swap.or(known.swap) };
        if memory.limit.is_some() || memory.swap.is_some() {
            if memory.swap.is_some() && next.memory.is_none() && !fresh {
                next.memory = Some(read_limit(dir, "memory.max")?);
            }
            if let Some(swap) = swap_alone(next.memory, next.swap).context(|| format!("{field}.swap"))? {
                let written =
                    dir.write_if("memory.swap.max", &swap.to_string()).context(|| format!("{field}.swap"))?;
                // Without swap accounting there is no file, and no swap to grant or to withhold.
                if !written && !matches!(swap, Limit::Max | Limit::Value(0)) {
                    let call = format!("write({:?}, \"{swap}\")", dir.path().join("memory.swap.max"));
                    let missing = Err(Error::system(call, libc::ENOENT));
                    return explained(missing, dir, "memory", || format!("{field}.swap"));
                }
            }
        }
        if let Some(limit) = memory.limit {
            let written = dir.write("memory.max", &limit.to_string());
            explained(written, dir, "memory", || format!("{field}.limit"))?;
        }
        if let Some(reservation) = memory.reservation {
            let written = dir.write("memory.low", &reservation.to_string());
            explained(written, dir, "memory", || format!("{field}.reservation"))?;
        }
        *known = next;
        Ok(())
    }
}

/// Prefixes an error with the field. A missing file usually means a controller that the cgroups above do not enable.
fn explained(written: Result<()>, dir: &Dir, controller: &str, field: impl FnOnce() -> String) -> Result<()> {
    let explain = |error: Error| match dir.read("cgroup.controllers") {
        Ok(list) if !list.split_ascii_whitespace().any(|name| name == controller) => error
            .with_kind(Kind::Unsupported)
            .context(format!("the cgroup has no {controller} controller (it has: {})", list.trim())),
        _ => error,
    };
    let written = written.map_err(|error| match error.errno() {
        Some(libc::ENOENT) => explain(error),
        _ => error,
    });
    written.context(field)
}

fn read_limit(dir: &Dir, file: &str) -> Result<Limit> {
    dir.read(file).map(|text| limit(text.trim()))
}

fn limit(text: &str) -> Limit {
    text.parse().map_or(Limit::Max, Limit::Value)
}

/// Returns None if there is no such file.
pub(super) fn limit_if(dir: &Dir, file: &str) -> Result<Option<Limit>> {
    Ok(dir.read_if(file)?.map(|text| limit(text.trim())))
}

/// Parses cpu.max: `max 100000`.
pub(super) fn quota_and_period(dir: &Dir) -> Result<(Option<Limit>, Option<u64>)> {
    let text = dir.read_if("cpu.max")?.unwrap_or_default();
    let mut words = text.split_ascii_whitespace();
    let (quota, period) = (words.next().map(limit), words.next());
    Ok((quota, period.and_then(|period| period.parse().ok())))
}

/// Computes memory.swap.max: the spec's sum of memory and swap, less memory.
pub(in crate::cgroup) fn swap_alone(memory: Option<Limit>, swap: Option<Limit>) -> Result<Option<Limit>> {
    Ok(match (memory, swap) {
        (Some(Limit::Max), None) => Some(Limit::Max),
        (_, None) => None,
        (_, Some(Limit::Max)) => Some(Limit::Max),
        (Some(Limit::Max), swap) => swap,
        (None, _) => return Err(invalid("it is memory and swap together: it needs memory.limit")),
        (Some(Limit::Value(memory)), Some(Limit::Value(swap))) => match swap.checked_sub(memory) {
            Some(alone) => Some(Limit::Value(alone)),
            None => {
                return Err(invalid(format!(
                    "{swap} is memory and swap together, and cannot be less than the limit {memory}"
                )))
            }
        },
    })
}

/// Converts shares (2 to 262144, 1024 by default) to a weight (1 to 10000, 100 by default) by the curve that runc 1.3.2
/// and crun 1.23 have agreed on, which maps both ends and the default onto each other.
pub(in crate::cgroup) fn weight_of_shares(shares: u64) -> u64 {
    match shares {
        ..=2 => 1,
        262_144.. => 10_000,
        shares => {
            let l = (shares as f64).log2();
            let exponent = (l * l + 125.0 * l) / 612.0 - 7.0 / 34.0;
            10f64.powf(exponent).ceil() as u64
        }
    }
}

/// Maps 10..=1000 onto 1..=10000.
pub(in crate::cgroup) fn weight_of_block_io(weight: u16) -> u64 {
    1 + (u64::from(weight) - 10) * 9999 / 990
}

fn apply_cpu(dir: &Dir, cpu: &Cpu) -> Result<()> {
    if let Some(idle) = cpu.idle {
        dir.write("cpu.idle", if idle { "1" } else { "0" })?;
    }
    // An idle cgroup has no weight, and the kernel refuses to set one.
    if let (Some(shares), false) = (cpu.shares, cpu.idle == Some(true)) {
        dir.write("cpu.weight", &weight_of_shares(shares).to_string())?;
    }
    // A burst may be valid only with the new quota: then write it again after the quota.
    let mut burst = cpu.burst.map(|burst| burst.to_string());
    if let Some(value) = burst.take()
        && !accepted(dir.write("cpu.max.burst", &value), cpu.quota.is_some())?
    {
        burst = Some(value);
    }
    match (cpu.quota, cpu.period) {
        (None, None) => {}
        // Without a period, the kernel keeps the current one.
        (Some(quota), None) => dir.write("cpu.max", &quota.to_string())?,
        (Some(quota), Some(period)) => dir.write("cpu.max", &format!("{quota} {period}"))?,
        (None, Some(period)) => {
            let current = dir.read("cpu.max")?;
            let quota = current.split_ascii_whitespace().next().unwrap_or("max");
            dir.write("cpu.max", &format!("{quota} {period}"))?;
        }
    }
    match burst {
        Some(value) => dir.write("cpu.max.burst", &value),
        None => Ok(()),
    }
}

fn apply_block_io(dir: &Dir, block_io: &BlockIo) -> Result<()> {
    if block_io.weight.is_some() || !block_io.weight_devices.is_empty() {
        // BFQ has a file of its own, with the spec's range; otherwise the weight is that of io.cost.
        let bfq = dir.has("io.bfq.weight");
        let file = if bfq { "io.bfq.weight" } else { "io.weight" };
        let scaled = |weight: u16| if bfq { u64::from(weight) } else { weight_of_block_io(weight) };
        if let Some(weight) = block_io.weight {
            dir.write(file, &scaled(weight).to_string())?;
        }
        for device in &block_io.weight_devices {
            dir.write(file, &format!("{} {}", device.device, scaled(device.weight)))?;
        }
    }
    for Throttle { device, what, rate } in &block_io.throttles {
        let key = match what {
            Throttled::ReadBps => "rbps",
            Throttled::WriteBps => "wbps",
            Throttled::ReadIops => "riops",
            Throttled::WriteIops => "wiops",
        };
        let limit = if *rate == 0 { Limit::Max } else { Limit::Value(*rate) };
        dir.write("io.max", &format!("{device} {key}={limit}"))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_and_weights_have_the_same_default_and_the_same_ends() {
        let weights: Vec<u64> = [1, 2, 100, 1024, 2048, 262_144, u64::MAX].map(weight_of_shares).into();
        assert_eq!(weights, [1, 1, 17, 100, 174, 10_000, 10_000]);
        assert_eq!([10, 500, 1000].map(weight_of_block_io), [1, 4950, 10_000]);
    }

    #[test]
    fn swap_is_what_the_sum_leaves() {
        let (max, value) = (Some(Limit::Max), |v| Some(Limit::Value(v)));
        let alone = |memory, swap| swap_alone(memory, swap).unwrap();
        assert_eq!(alone(value(100), value(150)), value(50));
        assert_eq!(alone(value(100), value(100)), value(0));
        assert_eq!(alone(value(100), None), None);
        assert_eq!(alone(value(100), max), max);
        assert_eq!(alone(max, None), max);
        assert_eq!(alone(max, value(7)), value(7));
        assert!(swap_alone(None, value(7)).is_err());
        assert!(swap_alone(value(9), value(7)).is_err());
    }
}
