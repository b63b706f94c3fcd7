//! Statistics as the messages that `ctr metrics`, the CRI plugin and dockerd unpack.

use containerd_shim_protos::cgroups::metrics as v1;
use containerd_shim_protos::cgroups_v2::metrics as v2;
use protobuf::well_known_types::any::Any;
use protobuf::{Message, MessageField};

use crate::cgroup::stats::{self, Stats};
use crate::error::{Error, Kind, Result};

/// The message for the host's cgroup version, packed under its bare name like containerd's type URLs.
pub fn to_any(stats: &Stats) -> Result<Any> {
    let (name, bytes) = match stats {
        Stats::V1(stats) => ("io.containerd.cgroups.v1.Metrics", v1_metrics(stats).write_to_bytes()),
        Stats::V2(stats) => ("io.containerd.cgroups.v2.Metrics", v2_metrics(stats).write_to_bytes()),
    };
    let value = bytes.map_err(|e| Error::caused_by(Kind::Bug, format!("encode {name}"), e))?;
    Ok(Any { type_url: name.to_owned(), value, ..Any::default() })
}

/// Builds a message with the listed fields copied from `$from` and the others given by name.
macro_rules! message {
    ($message:ty, $from:expr, [$($same:ident),* $(,)?] $(, $field:ident: $value:expr)* $(,)?) => {{
        let from = &$from;
        let mut message = <$message>::new();
        $(message.$same = from.$same.clone();)*
        $(message.$field = $value;)*
        message
    }};
}

fn optional<T, M>(from: Option<T>, message: impl FnOnce(T) -> M) -> MessageField<M> {
    from.map_or_else(MessageField::none, |from| MessageField::some(message(from)))
}

fn v1_metrics(from: &stats::V1) -> v1::Metrics {
    let usage = message!(v1::CPUUsage, from.cpu, [total, kernel, user, per_cpu]);
    let throttling =
        message!(v1::Throttle, from.cpu.throttling, [periods, throttled_periods, throttled_time]);
    let mut cpu = v1::CPUStat::new();
    cpu.usage = MessageField::some(usage);
    cpu.throttling = MessageField::some(throttling);
    let mut metrics = v1::Metrics::new();
    metrics.cpu = MessageField::some(cpu);
    metrics.hugetlb = from.hugetlb.iter().map(v1_hugetlb).collect();
    metrics.pids = optional(from.pids.as_ref(), |pids| message!(v1::PidsStat, pids, [current, limit]));
    metrics.memory = optional(from.memory.as_ref(), v1_memory);
    metrics.memory_oom_control = optional(from.oom_control.as_ref(), |control| {
        message!(v1::MemoryOomControl, control, [oom_kill_disable, under_oom, oom_kill])
    });
    metrics.blkio = optional(from.blkio.as_ref(), v1_blkio);
    metrics.rdma = optional(from.rdma.as_ref(), |rdma| {
        let device = |d: &stats::RdmaDevice| message!(v1::RdmaEntry, d, [device], hca_handles: d.handles, hca_objects: d.objects);
        let mut message = v1::RdmaStat::new();
        message.current = rdma.current.iter().map(device).collect();
        message.limit = rdma.limit.iter().map(device).collect();
        message
    });
    metrics
}

fn v1_hugetlb(from: &stats::Hugetlb) -> v1::HugetlbStat {
    message!(v1::HugetlbStat, from, [max], usage: from.current, failcnt: from.failures,
        pagesize: from.page_size.clone())
}

fn v1_memory(from: &stats::MemoryV1) -> v1::MemoryStat {
    let entry = |usage: &stats::Usage| {
        MessageField::some(message!(v1::MemoryEntry, usage, [limit, usage, max], failcnt: usage.failures))
    };
    message!(
        v1::MemoryStat,
        from.stat,
        [
            cache,
            rss,
            rss_huge,
            mapped_file,
            dirty,
            writeback,
            inactive_anon,
            active_anon,
            inactive_file,
            active_file,
            unevictable,
            hierarchical_memory_limit,
            hierarchical_swap_limit,
            total_cache,
            total_rss,
            total_rss_huge,
            total_mapped_file,
            total_dirty,
            total_writeback,
            total_inactive_anon,
            total_active_anon,
            total_inactive_file,
            total_active_file,
            total_unevictable,
        ],
        pg_pg_in: from.stat.pgpgin,
        pg_pg_out: from.stat.pgpgout,
        pg_fault: from.stat.pgfault,
        pg_maj_fault: from.stat.pgmajfault,
        total_pg_pg_in: from.stat.total_pgpgin,
        total_pg_pg_out: from.stat.total_pgpgout,
        total_pg_fault: from.stat.total_pgfault,
        total_pg_maj_fault: from.stat.total_pgmajfault,
        usage: entry(&from.usage),
        swap: entry(&from.swap),
        kernel: entry(&from.kernel),
        kernel_tcp: entry(&from.kernel_tcp),
    )
}

fn v1_blkio(from: &stats::Blkio) -> v1::BlkIOStat {
    let entries = |list: &[stats::BlkioEntry]| {
        list.iter().map(|e| message!(v1::BlkIOEntry, e, [op, device, major, minor, value])).collect()
    };
    let mut message = v1::BlkIOStat::new();
    message.io_service_bytes_recursive = entries(&from.service_bytes);
    message.io_serviced_recursive = entries(&from.serviced);
    message.io_queued_recursive = entries(&from.queued);
    message.io_service_time_recursive = entries(&from.service_time);
    message.io_wait_time_recursive = entries(&from.wait_time);
    message.io_merged_recursive = entries(&from.merged);
    message.io_time_recursive = entries(&from.time);
    message.sectors_recursive = entries(&from.sectors);
    message
}

fn v2_metrics(from: &stats::V2) -> v2::Metrics {
    let cpu = message!(
        v2::CPUStat,
        from.cpu,
        [usage_usec, user_usec, system_usec, nr_periods, nr_throttled, throttled_usec, nr_bursts, burst_usec],
        psi: optional(from.cpu_pressure.as_ref(), v2_pressure),
    );
    let device = |d: &stats::RdmaDevice| message!(v2::RdmaEntry, d, [device], hca_handles: d.handles, hca_objects: d.objects);
    let mut rdma = v2::RdmaStat::new();
    rdma.current = from.rdma.current.iter().map(device).collect();
    rdma.limit = from.rdma.limit.iter().map(device).collect();
    let mut io = v2::IOStat::new();
    io.usage = from
        .io
        .iter()
        .map(|e| message!(v2::IOEntry, e, [major, minor, rbytes, wbytes, rios, wios]))
        .collect();
    io.psi = optional(from.io_pressure.as_ref(), v2_pressure);
    let mut metrics = v2::Metrics::new();
    metrics.pids = MessageField::some(message!(v2::PidsStat, from.pids, [current, limit]));
    metrics.cpu = MessageField::some(cpu);
    metrics.memory = MessageField::some(v2_memory(&from.memory));
    metrics.rdma = MessageField::some(rdma);
    metrics.io = MessageField::some(io);
    metrics.hugetlb = from
        .hugetlb
        .iter()
        .map(|h| {
            message!(v2::HugeTlbStat, h, [current, max], pagesize: h.page_size.clone(), failcnt: h.failures)
        })
        .collect();
    metrics.memory_events = optional(from.memory_events.as_ref(), |events| {
        message!(v2::MemoryEvents, events, [low, high, max, oom, oom_kill, oom_group_kill])
    });
    metrics
}

fn v2_memory(from: &stats::MemoryV2) -> v2::MemoryStat {
    message!(
        v2::MemoryStat,
        from.stat,
        [
            anon,
            file,
            kernel_stack,
            slab,
            sock,
            shmem,
            file_mapped,
            file_dirty,
            file_writeback,
            anon_thp,
            inactive_anon,
            active_anon,
            inactive_file,
            active_file,
            unevictable,
            slab_reclaimable,
            slab_unreclaimable,
            pgfault,
            pgmajfault,
            workingset_refault,
            workingset_activate,
            workingset_nodereclaim,
            pgrefill,
            pgscan,
            pgsteal,
            pgactivate,
            pgdeactivate,
            pglazyfree,
            pglazyfreed,
            thp_fault_alloc,
            thp_collapse_alloc,
        ],
        usage: from.usage,
        usage_limit: from.usage_limit,
        max_usage: from.max_usage,
        swap_usage: from.swap_usage,
        swap_limit: from.swap_limit,
        swap_max_usage: from.swap_max_usage,
        psi: optional(from.pressure.as_ref(), v2_pressure),
    )
}

fn v2_pressure(from: &stats::Pressure) -> v2::PSIStats {
    let stall = |s: &stats::Stall| message!(v2::PSIData, s, [avg10, avg60, avg300, total]);
    let mut message = v2::PSIStats::new();
    message.some = optional(from.some.as_ref(), stall);
    message.full = optional(from.full.as_ref(), stall);
    message
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn v1_statistics_unpack_as_v1_metrics() {
        let mut from = stats::V1::default();
        from.cpu.per_cpu = vec![1, 2];
        from.memory = Some(stats::MemoryV1::default());
        from.memory.as_mut().unwrap().stat.total_pgmajfault = 7;
        from.memory.as_mut().unwrap().swap.failures = 8;
        let any = to_any(&Stats::V1(Box::new(from))).unwrap();
        assert_eq!(any.type_url, "io.containerd.cgroups.v1.Metrics");
        let metrics = v1::Metrics::parse_from_bytes(&any.value).unwrap();
        assert_eq!(metrics.cpu.usage.per_cpu, [1, 2]);
        assert_eq!(metrics.memory.total_pg_maj_fault, 7);
        assert_eq!(metrics.memory.swap.failcnt, 8);
        assert!(metrics.pids.is_none() && metrics.blkio.is_none());
    }

    #[test]
    fn v2_statistics_unpack_as_v2_metrics() {
        let mut from =
            stats::V2 { pids: stats::Pids { current: 3, limit: u64::MAX }, ..stats::V2::default() };
        from.memory.usage_limit = 9;
        from.io_pressure = Some(stats::Pressure {
            some: Some(stats::Stall { avg10: 1.5, ..Default::default() }),
            full: None,
        });
        let any = to_any(&Stats::V2(Box::new(from))).unwrap();
        assert_eq!(any.type_url, "io.containerd.cgroups.v2.Metrics");
        let metrics = v2::Metrics::parse_from_bytes(&any.value).unwrap();
        assert_eq!((metrics.pids.current, metrics.pids.limit), (3, u64::MAX));
        assert_eq!(metrics.memory.usage_limit, 9);
        assert_eq!(metrics.io.psi.some.avg10, 1.5);
        assert!(metrics.io.psi.full.is_none() && metrics.memory_events.is_none());
    }
}
