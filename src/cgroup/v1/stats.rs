//! The statistics of the v1 controllers.

use std::path::Path;

use super::V1;
use crate::cgroup::dir::Dir;
use crate::cgroup::read;
use crate::cgroup::stats::{
    self, Blkio, BlkioEntry, CpuV1, Hugetlb, MemoryStatV1, MemoryV1, OomControl, Pids, Throttling, Usage,
};
use crate::error::Result;

/// cpuacct.stat counts in USER_HZ, which is 100 on every architecture on which Linux still runs containers.
const NANOSECONDS_PER_TICK: u64 = 10_000_000;

impl V1 {
    pub(super) fn collect(&self) -> Result<stats::V1> {
        let mut all = stats::V1::default();
        if let Some(dir) = self.dir("cpuacct") {
            all.cpu = cpu(dir)?;
        }
        if let Some(dir) = self.dir("cpu") {
            all.cpu.throttling = Throttling::parse(&read::text(dir, "cpu.stat")?);
        }
        if let Some(dir) = self.dir("memory") {
            all.memory = Some(memory(dir)?);
            all.oom_control = Some(OomControl::parse(&read::text(dir, "memory.oom_control")?));
        }
        if let Some(dir) = self.dir("pids") {
            let limit = match read::value(dir, "pids.max")? {
                u64::MAX => 0,
                limit => limit,
            };
            all.pids = Some(Pids { current: read::value(dir, "pids.current")?, limit });
        }
        if let Some(dir) = self.dir("blkio") {
            all.blkio = Some(blkio(dir, &self.host.proc)?);
        }
        if let Some(dir) = self.dir("rdma") {
            all.rdma = Some(read::rdma(dir)?);
        }
        if let Some(dir) = self.dir("hugetlb") {
            for size in self.hugepages.get_or_init(|| read::hugepage_sizes(dir, "usage_in_bytes")) {
                all.hugetlb.push(Hugetlb {
                    page_size: size.clone(),
                    current: read::value(dir, &format!("hugetlb.{size}.usage_in_bytes"))?,
                    max: read::value(dir, &format!("hugetlb.{size}.max_usage_in_bytes"))?,
                    failures: read::value(dir, &format!("hugetlb.{size}.failcnt"))?,
                });
            }
        }
        Ok(all)
    }
}

fn cpu(dir: &Dir) -> Result<CpuV1> {
    let mut cpu = CpuV1 { total: read::value(dir, "cpuacct.usage")?, ..CpuV1::default() };
    for line in read::text(dir, "cpuacct.stat")?.lines() {
        let Some((key, ticks)) = line.split_once(' ') else { continue };
        let time = ticks.trim().parse::<u64>().unwrap_or(0).saturating_mul(NANOSECONDS_PER_TICK);
        match key {
            "user" => cpu.user = time,
            "system" => cpu.kernel = time,
            _ => {}
        }
    }
    let per_cpu = read::text(dir, "cpuacct.usage_percpu")?;
    cpu.per_cpu = per_cpu.split_ascii_whitespace().filter_map(|n| n.parse().ok()).collect();
    Ok(cpu)
}

fn memory(dir: &Dir) -> Result<MemoryV1> {
    let usage = |prefix: &str| -> Result<Usage> {
        Ok(Usage {
            limit: read::value(dir, &format!("{prefix}.limit_in_bytes"))?,
            usage: read::value(dir, &format!("{prefix}.usage_in_bytes"))?,
            max: read::value(dir, &format!("{prefix}.max_usage_in_bytes"))?,
            failures: read::value(dir, &format!("{prefix}.failcnt"))?,
        })
    };
    Ok(MemoryV1 {
        stat: MemoryStatV1::parse(&read::text(dir, "memory.stat")?),
        usage: usage("memory")?,
        swap: usage("memory.memsw")?,
        kernel: usage("memory.kmem")?,
        kernel_tcp: usage("memory.kmem.tcp")?,
    })
}

/// Reads the files of the BFQ and CFQ schedulers, or those of the throttling layer, which counts without them.
fn blkio(dir: &Dir, proc: &Path) -> Result<Blkio> {
    let mut names = Partitions::new(proc);
    let mut blkio = Blkio::default();
    for prefix in ["blkio", "blkio.bfq"] {
        for (file, entries) in [
            ("sectors_recursive", &mut blkio.sectors),
            ("io_service_bytes_recursive", &mut blkio.service_bytes),
            ("io_serviced_recursive", &mut blkio.serviced),
            ("io_queued_recursive", &mut blkio.queued),
            ("io_service_time_recursive", &mut blkio.service_time),
            ("io_wait_time_recursive", &mut blkio.wait_time),
            ("io_merged_recursive", &mut blkio.merged),
            ("time_recursive", &mut blkio.time),
        ] {
            *entries = names.entries(&read::text(dir, &format!("{prefix}.{file}"))?);
        }
        if blkio != Blkio::default() {
            return Ok(blkio);
        }
    }
    let recursive = ["blkio.throttle.io_serviced_recursive", "blkio.throttle.io_service_bytes_recursive"];
    let plain = ["blkio.throttle.io_serviced", "blkio.throttle.io_service_bytes"];
    let [serviced, bytes] = if dir.has(recursive[0]) { recursive } else { plain };
    blkio.serviced = names.entries(&read::text(dir, serviced)?);
    blkio.service_bytes = names.entries(&read::text(dir, bytes)?);
    Ok(blkio)
}

/// The names of block devices, looked up only if there is an entry to name.
struct Partitions<'a> {
    proc: &'a Path,
    names: Option<Vec<(u64, u64, String)>>,
}

impl<'a> Partitions<'a> {
    fn new(proc: &'a Path) -> Self {
        Partitions { proc, names: None }
    }

    fn name(&mut self, major: u64, minor: u64) -> String {
        let names = self.names.get_or_insert_with(|| {
            let text = std::fs::read_to_string(self.proc.join("partitions")).unwrap_or_default();
            text.lines().filter_map(partition).collect()
        });
        let found = names.iter().find(|(a, b, _)| (*a, *b) == (major, minor));
        found.map(|(_, _, name)| name.clone()).unwrap_or_default()
    }

    /// Parses `8:0 Read 4096` or `8:0 4096`; the line `Total …` has no device.
    fn entries(&mut self, text: &str) -> Vec<BlkioEntry> {
        let mut entries = Vec::new();
        for line in text.lines() {
            let fields: Vec<&str> = line.split_ascii_whitespace().collect();
            let (device, op, value) = match fields[..] {
                [device, op, value] => (device, op, value),
                [device, value] => (device, "", value),
                _ => continue,
            };
            let Some((major, minor)) = device.split_once(':') else { continue };
            let (Ok(major), Ok(minor), Ok(value)) = (major.parse(), minor.parse(), value.parse()) else {
                continue;
            };
            entries.push(BlkioEntry {
                op: op.to_owned(),
                device: self.name(major, minor),
                major,
                minor,
                value,
            });
        }
        entries
    }
}

/// Parses `   8        0  104857600 sda`.
fn partition(line: &str) -> Option<(u64, u64, String)> {
    let mut fields = line.split_ascii_whitespace();
    let (major, minor) = (fields.next()?.parse().ok()?, fields.next()?.parse().ok()?);
    Some((major, minor, format!("/dev/{}", fields.nth(1)?)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_are_named_after_proc_partitions() {
        let proc = tempfile::tempdir().unwrap();
        let text = "major minor  #blocks  name\n\n   8        0  104857600 sda\n 259        1  9 nvme0n1p1\n";
        std::fs::write(proc.path().join("partitions"), text).unwrap();
        let mut names = Partitions::new(proc.path());
        let entries = names.entries("8:0 Read 4096\n8:0 Total 4096\n7:0 12\nTotal 4096\n");
        let short: Vec<String> =
            entries.iter().map(|e| format!("{} {} {}", e.device, e.op, e.value)).collect();
        assert_eq!(short, ["/dev/sda Read 4096", "/dev/sda Total 4096", "  12"]);
    }
}
