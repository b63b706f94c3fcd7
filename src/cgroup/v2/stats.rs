//! The statistics of a v2 cgroup.

use super::V2;
use crate::cgroup::read;
use crate::cgroup::stats::{self, CpuStat, Hugetlb, MemoryEvents, MemoryStatV2, MemoryV2, Pids};
use crate::error::Result;

impl V2 {
    pub(super) fn collect(&self) -> Result<stats::V2> {
        let dir = &self.dir;
        let mut hugetlb = Vec::new();
        for size in self.hugepages.get_or_init(|| read::hugepage_sizes(dir, "max")) {
            // `max 0`: the number of times the limit was hit.
            let events = read::text(dir, &format!("hugetlb.{size}.events"))?;
            let failures = events.trim().strip_prefix("max ").and_then(|n| n.parse().ok()).unwrap_or(0);
            hugetlb.push(Hugetlb {
                page_size: size.clone(),
                current: read::value(dir, &format!("hugetlb.{size}.current"))?,
                max: read::value(dir, &format!("hugetlb.{size}.max"))?,
                failures,
            });
        }
        Ok(stats::V2 {
            pids: Pids { current: read::value(dir, "pids.current")?, limit: read::value(dir, "pids.max")? },
            cpu: CpuStat::parse(&read::text(dir, "cpu.stat")?),
            cpu_pressure: read::pressure(dir, "cpu.pressure")?,
            memory: MemoryV2 {
                stat: MemoryStatV2::parse(&read::text(dir, "memory.stat")?),
                usage: read::value(dir, "memory.current")?,
                usage_limit: read::value(dir, "memory.max")?,
                max_usage: read::value(dir, "memory.peak")?,
                swap_usage: read::value(dir, "memory.swap.current")?,
                swap_limit: read::value(dir, "memory.swap.max")?,
                swap_max_usage: read::value(dir, "memory.swap.peak")?,
                pressure: read::pressure(dir, "memory.pressure")?,
            },
            memory_events: dir.read_if("memory.events")?.map(|text| MemoryEvents::parse(&text)),
            rdma: read::rdma(dir)?,
            io: read::io(&read::text(dir, "io.stat")?),
            io_pressure: read::pressure(dir, "io.pressure")?,
            hugetlb,
        })
    }
}
