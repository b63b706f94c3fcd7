//! Limits as writes to the files of the v1 controllers: one write per limit that is set.

use std::path::Path;

use super::V1;
use crate::cgroup::devices::Policy;
use crate::cgroup::dir::Dir;
use crate::cgroup::{self, accepted};
use crate::error::{Context, Result};
use crate::spec::resources::{Access, BlockIo, Cpu, DeviceRule, Limit, Memory, Resources, Throttled};

impl V1 {
    /// `fresh`: no limit has been set yet. An error begins with the part of `field` that it concerns.
    pub(super) fn apply(&self, resources: &Resources, fresh: bool, field: &str) -> Result<()> {
        let Resources { memory, cpu, pids, block_io, hugepages, network, rdma, .. } = resources;
        for (file, value, name) in
            [("cpuset.cpus", &cpu.cpus, "cpu.cpus"), ("cpuset.mems", &cpu.mems, "cpu.mems")]
        {
            if let Some(value) = value {
                self.in_controller("cpuset", field, name, |dir| dir.write(file, value))?;
            }
        }
        if *memory != Memory::default() {
            let field = format!("{field}.memory");
            let dir = self.need("memory").context(|| field.clone())?;
            apply_memory(dir, memory, fresh, &field)?;
        }
        if *cpu != (Cpu { cpus: cpu.cpus.clone(), mems: cpu.mems.clone(), ..Cpu::default() }) {
            self.in_controller("cpu", field, "cpu", |dir| apply_cpu(dir, cpu))?;
        }
        if let Some(pids) = pids {
            self.in_controller("pids", field, "pids.limit", |dir| dir.write("pids.max", &pids.to_string()))?;
        }
        if *block_io != BlockIo::default() {
            self.in_controller("blkio", field, "blockIO", |dir| apply_block_io(dir, block_io))?;
        }
        for page in hugepages {
            let limit = page.limit.to_string();
            self.in_controller("hugetlb", field, "hugepageLimits", |dir| {
                dir.write(&format!("hugetlb.{}.limit_in_bytes", page.size), &limit)?;
                // Reservations have a limit of their own since Linux 5.7; without it mmap(2) still gets more than the
                // process may use.
                dir.write_if(&format!("hugetlb.{}.rsvd.limit_in_bytes", page.size), &limit).map(drop)
            })?;
        }
        if let Some(class) = network.class_id {
            let write = |dir: &Dir| dir.write("net_cls.classid", &class.to_string());
            self.in_controller("net_cls", field, "network.classID", write)?;
        }
        for (interface, priority) in &network.priorities {
            let write = |dir: &Dir| dir.write("net_prio.ifpriomap", &format!("{interface} {priority}"));
            self.in_controller("net_prio", field, "network.priorities", write)?;
        }
        for limits in rdma {
            self.in_controller("rdma", field, "rdma", |dir| dir.write("rdma.max", &limits.to_string()))?;
        }
        Ok(())
    }

    fn in_controller(
        &self,
        controller: &str,
        field: &str,
        name: &str,
        write: impl FnOnce(&Dir) -> Result<()>,
    ) -> Result<()> {
        self.need(controller).and_then(write).context(|| format!("{field}.{name}"))
    }

    /// Sets the spec's rules and the default ones; rules already in force are not written again.
    pub(super) fn apply_devices(&self, rules: &[DeviceRule], field: &str) -> Result<()> {
        let policy = Policy::compile(rules);
        let exceptions = policy.exceptions()?;
        let mut known = self.devices.lock();
        let dir = match self.dir("devices") {
            Some(dir) => dir,
            None if policy.allows_all() => return Ok(()),
            None => self.need("devices").context(|| field.to_owned())?,
        };
        let (allow, deny) = ("devices.allow", "devices.deny");
        let (add, take) = if policy.default_allow { (deny, allow) } else { (allow, deny) };
        let write = |file: &str, rules: &[DeviceRule]| {
            dir.write_each(file, rules.iter().map(DeviceRule::to_string)).context(|| field.to_owned())
        };
        match known.take() {
            // Only the difference: running programs never lose access that they keep.
            Some((default_allow, old)) if default_allow == policy.default_allow => {
                let new: Vec<DeviceRule> =
                    exceptions.iter().filter(|rule| !old.contains(rule)).copied().collect();
                let gone: Vec<DeviceRule> =
                    old.iter().filter_map(|rule| without(rule, &exceptions)).collect();
                write(add, &new)?;
                write(take, &gone)?;
            }
            _ => {
                dir.write(if policy.default_allow { allow } else { deny }, "a")
                    .context(|| field.to_owned())?;
                write(add, &exceptions)?;
            }
        }
        *known = Some((policy.default_allow, exceptions));
        Ok(())
    }
}

/// Returns the access of `rule` that `kept` does not include.
fn without(rule: &DeviceRule, kept: &[DeviceRule]) -> Option<DeviceRule> {
    let same = |e: &&DeviceRule| (e.kind, e.major, e.minor) == (rule.kind, rule.major, rule.minor);
    let kept = kept.iter().find(same).map_or(0, |e| e.access.0);
    let access = Access(rule.access.0 & !kept);
    (access.0 != 0).then_some(DeviceRule { access, ..*rule })
}

/// Copies its parent's CPUs and memory nodes, from an existing ancestor down: a new cpuset has none, and nothing can
/// enter it (cpusets.rst, section 1.9).
pub(super) fn inherit_cpuset(dir: &Dir, mount: &Path, below: &Path) -> Result<()> {
    for file in ["cpuset.cpus", "cpuset.mems"] {
        inherit(dir, file, mount, below)?;
    }
    Ok(())
}

fn inherit(dir: &Dir, file: &str, mount: &Path, below: &Path) -> Result<String> {
    let own = dir.read(file)?.trim().to_owned();
    let Some(parent) = below.parent().filter(|_| own.is_empty()) else { return Ok(own) };
    let inherited = inherit(&Dir::open(&mount.join(parent))?, file, mount, parent)?;
    if !inherited.is_empty() {
        dir.write(file, &inherited)?;
    }
    Ok(inherited)
}

const LIMIT: &str = "memory.limit_in_bytes";
const SWAP: &str = "memory.memsw.limit_in_bytes";

fn apply_memory(dir: &Dir, memory: &Memory, fresh: bool, field: &str) -> Result<()> {
    let write =
        |file: &str, value: &str, name: &str| dir.write(file, value).context(|| format!("{field}.{name}"));
    if let (true, Some(Limit::Value(limit))) = (memory.check_before_update, memory.limit) {
        cgroup::refuse_below_usage(limit, dir.read_number("memory.usage_in_bytes")?)
            .context(|| format!("{field}.limit"))?;
    }
    let swap = match (memory.limit, memory.swap) {
        // Unlimited memory cannot go with a limit on memory plus swap: the kernel requires memsw >= memory.
        (Some(Limit::Max), None) if dir.has(SWAP) => Some(Limit::Max),
        (_, swap) => swap,
    };
    // The limit that moves away from the other one goes first. In a new cgroup neither is set.
    let swap_first = match (memory.limit, swap) {
        (Some(_), Some(Limit::Max)) => true,
        (Some(_), Some(Limit::Value(swap))) => !fresh && dir.read_number(LIMIT)? < swap,
        _ => false,
    };
    let mut order = [(LIMIT, memory.limit, "limit"), (SWAP, swap, "swap")];
    if swap_first {
        order.swap(0, 1);
    }
    for (file, limit, name) in order {
        let Some(limit) = limit else { continue };
        if let Err(error) = dir.write(file, &limit.v1()) {
            let error = match (error.errno(), dir.read_number("memory.usage_in_bytes")) {
                (Some(libc::EBUSY), Ok(usage)) => error.context(format!("the container uses {usage} bytes")),
                _ => error,
            };
            return Err(error.context(format!("{field}.{name}")));
        }
    }
    if let Some(reservation) = memory.reservation {
        write("memory.soft_limit_in_bytes", &reservation.v1(), "reservation")?;
    }
    match memory.disable_oom_killer {
        Some(true) => write("memory.oom_control", "1", "disableOOMKiller")?,
        // It is enabled in a new cgroup.
        Some(false) if !fresh => write("memory.oom_control", "0", "disableOOMKiller")?,
        _ => {}
    }
    if let Some(swappiness) = memory.swappiness {
        write("memory.swappiness", &swappiness.to_string(), "swappiness")?;
    }
    Ok(())
}

fn apply_cpu(dir: &Dir, cpu: &Cpu) -> Result<()> {
    if let Some(shares) = cpu.shares {
        dir.write("cpu.shares", &shares.to_string())?;
    }
    if let Some(idle) = cpu.idle {
        dir.write("cpu.idle", if idle { "1" } else { "0" })?;
    }
    // A new period may be valid only with the new quota, and so may a burst: then write it again after the quota.
    let mut period = cpu.period.map(|period| period.to_string());
    if let Some(value) = period.take()
        && !accepted(dir.write("cpu.cfs_period_us", &value), cpu.quota.is_some())?
    {
        period = Some(value);
    }
    let mut burst = cpu.burst.map(|burst| burst.to_string());
    if let Some(value) = burst.take()
        && !accepted(dir.write("cpu.cfs_burst_us", &value), cpu.quota.is_some())?
    {
        burst = Some(value);
    }
    if let Some(quota) = cpu.quota {
        dir.write("cpu.cfs_quota_us", &quota.v1())?;
    }
    for (file, value) in [("cpu.cfs_period_us", period), ("cpu.cfs_burst_us", burst)] {
        if let Some(value) = value {
            dir.write(file, &value)?;
        }
    }
    if let Some(period) = cpu.realtime_period {
        dir.write("cpu.rt_period_us", &period.to_string())?;
    }
    if let Some(runtime) = cpu.realtime_runtime {
        dir.write("cpu.rt_runtime_us", &runtime.to_string())?;
    }
    Ok(())
}

fn apply_block_io(dir: &Dir, block_io: &BlockIo) -> Result<()> {
    // CFQ's file went with CFQ in Linux 5.0; weights are now BFQ's, if it is built in.
    let prefix = if dir.has("blkio.weight") { "blkio" } else { "blkio.bfq" };
    if let Some(weight) = block_io.weight {
        dir.write(&format!("{prefix}.weight"), &weight.to_string())?;
    }
    for device in &block_io.weight_devices {
        dir.write(&format!("{prefix}.weight_device"), &format!("{} {}", device.device, device.weight))?;
    }
    for throttle in &block_io.throttles {
        let file = match throttle.what {
            Throttled::ReadBps => "blkio.throttle.read_bps_device",
            Throttled::WriteBps => "blkio.throttle.write_bps_device",
            Throttled::ReadIops => "blkio.throttle.read_iops_device",
            Throttled::WriteIops => "blkio.throttle.write_iops_device",
        };
        dir.write(file, &format!("{} {}", throttle.device, throttle.rate))?;
    }
    Ok(())
}
