//! A cgroup's usage: the fields of `io.containerd.cgroups.v1.Metrics` and `v2.Metrics`, as plain data.
//!
//! A field for which the host has no controller or file is `None` or 0, as in the Go shim. Limits that are not set are
//! u64::MAX on v2; on v1 they are what the kernel prints, and 0 for pids.

/// Usage as reported by the cgroup version that the host has.
#[derive(Clone, Debug, PartialEq)]
pub enum Stats {
    V1(Box<V1>),
    V2(Box<V2>),
}

/// Defines a file of `key value` lines; unlisted keys are ignored.
macro_rules! flat_keyed {
    ($(#[$doc:meta])* $name:ident { $($field:ident = $key:literal),* $(,)? }) => {
        $(#[$doc])*
        #[derive(Clone, Debug, Default, PartialEq, Eq)]
        pub struct $name {
            $(pub $field: u64),*
        }

        impl $name {
            pub(super) fn parse(text: &str) -> Self {
                let mut parsed = Self::default();
                for line in text.lines() {
                    let Some((key, value)) = line.split_once(' ') else { continue };
                    let Ok(value) = value.trim().parse() else { continue };
                    match key {
                        $($key => parsed.$field = value,)*
                        _ => {}
                    }
                }
                parsed
            }
        }
    };
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Pids {
    pub current: u64,
    pub limit: u64,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Hugetlb {
    /// `2MB`
    pub page_size: String,
    pub current: u64,
    /// v1: the maximum usage; v2: the limit.
    pub max: u64,
    pub failures: u64,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RdmaDevice {
    pub device: String,
    pub handles: u32,
    pub objects: u32,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rdma {
    pub current: Vec<RdmaDevice>,
    pub limit: Vec<RdmaDevice>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct V1 {
    pub hugetlb: Vec<Hugetlb>,
    pub pids: Option<Pids>,
    pub cpu: CpuV1,
    pub memory: Option<MemoryV1>,
    pub oom_control: Option<OomControl>,
    pub blkio: Option<Blkio>,
    pub rdma: Option<Rdma>,
}

/// In nanoseconds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CpuV1 {
    pub total: u64,
    pub kernel: u64,
    pub user: u64,
    pub per_cpu: Vec<u64>,
    pub throttling: Throttling,
}

flat_keyed!(Throttling {
    periods = "nr_periods",
    throttled_periods = "nr_throttled",
    throttled_time = "throttled_time",
});

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MemoryV1 {
    pub stat: MemoryStatV1,
    pub usage: Usage,
    pub swap: Usage,
    pub kernel: Usage,
    pub kernel_tcp: Usage,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    pub limit: u64,
    pub usage: u64,
    pub max: u64,
    pub failures: u64,
}

flat_keyed!(
    /// memory.stat of v1.
    MemoryStatV1 {
        cache = "cache",
        rss = "rss",
        rss_huge = "rss_huge",
        mapped_file = "mapped_file",
        dirty = "dirty",
        writeback = "writeback",
        pgpgin = "pgpgin",
        pgpgout = "pgpgout",
        pgfault = "pgfault",
        pgmajfault = "pgmajfault",
        inactive_anon = "inactive_anon",
        active_anon = "active_anon",
        inactive_file = "inactive_file",
        active_file = "active_file",
        unevictable = "unevictable",
        hierarchical_memory_limit = "hierarchical_memory_limit",
        hierarchical_swap_limit = "hierarchical_memsw_limit",
        total_cache = "total_cache",
        total_rss = "total_rss",
        total_rss_huge = "total_rss_huge",
        total_mapped_file = "total_mapped_file",
        total_dirty = "total_dirty",
        total_writeback = "total_writeback",
        total_pgpgin = "total_pgpgin",
        total_pgpgout = "total_pgpgout",
        total_pgfault = "total_pgfault",
        total_pgmajfault = "total_pgmajfault",
        total_inactive_anon = "total_inactive_anon",
        total_active_anon = "total_active_anon",
        total_inactive_file = "total_inactive_file",
        total_active_file = "total_active_file",
        total_unevictable = "total_unevictable",
    }
);

flat_keyed!(
    /// memory.oom_control
    OomControl {
        oom_kill_disable = "oom_kill_disable",
        under_oom = "under_oom",
        oom_kill = "oom_kill",
    }
);

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BlkioEntry {
    /// `Read`, `Write`, …; empty if the file does not distinguish them.
    pub op: String,
    /// `/dev/sda`, or empty.
    pub device: String,
    pub major: u64,
    pub minor: u64,
    pub value: u64,
}

/// Each list includes everything below the cgroup.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Blkio {
    pub service_bytes: Vec<BlkioEntry>,
    pub serviced: Vec<BlkioEntry>,
    pub queued: Vec<BlkioEntry>,
    pub service_time: Vec<BlkioEntry>,
    pub wait_time: Vec<BlkioEntry>,
    pub merged: Vec<BlkioEntry>,
    pub time: Vec<BlkioEntry>,
    pub sectors: Vec<BlkioEntry>,
}

#[derive(Clone, Debug, Default, PartialEq)]
pub struct V2 {
    pub pids: Pids,
    pub cpu: CpuStat,
    pub cpu_pressure: Option<Pressure>,
    pub memory: MemoryV2,
    pub memory_events: Option<MemoryEvents>,
    pub rdma: Rdma,
    pub io: Vec<IoEntry>,
    pub io_pressure: Option<Pressure>,
    pub hugetlb: Vec<Hugetlb>,
}

flat_keyed!(
    /// cpu.stat of v2.
    CpuStat {
        usage_usec = "usage_usec",
        user_usec = "user_usec",
        system_usec = "system_usec",
        nr_periods = "nr_periods",
        nr_throttled = "nr_throttled",
        throttled_usec = "throttled_usec",
        nr_bursts = "nr_bursts",
        burst_usec = "burst_usec",
    }
);

#[derive(Clone, Debug, Default, PartialEq)]
pub struct MemoryV2 {
    pub stat: MemoryStatV2,
    pub usage: u64,
    pub usage_limit: u64,
    pub max_usage: u64,
    pub swap_usage: u64,
    pub swap_limit: u64,
    pub swap_max_usage: u64,
    pub pressure: Option<Pressure>,
}

flat_keyed!(
    /// memory.stat of v2.
    MemoryStatV2 {
        anon = "anon",
        file = "file",
        kernel_stack = "kernel_stack",
        slab = "slab",
        sock = "sock",
        shmem = "shmem",
        file_mapped = "file_mapped",
        file_dirty = "file_dirty",
        file_writeback = "file_writeback",
        anon_thp = "anon_thp",
        inactive_anon = "inactive_anon",
        active_anon = "active_anon",
        inactive_file = "inactive_file",
        active_file = "active_file",
        unevictable = "unevictable",
        slab_reclaimable = "slab_reclaimable",
        slab_unreclaimable = "slab_unreclaimable",
        pgfault = "pgfault",
        pgmajfault = "pgmajfault",
        workingset_refault = "workingset_refault",
        workingset_activate = "workingset_activate",
        workingset_nodereclaim = "workingset_nodereclaim",
        pgrefill = "pgrefill",
        pgscan = "pgscan",
        pgsteal = "pgsteal",
        pgactivate = "pgactivate",
        pgdeactivate = "pgdeactivate",
        pglazyfree = "pglazyfree",
        pglazyfreed = "pglazyfreed",
        thp_fault_alloc = "thp_fault_alloc",
        thp_collapse_alloc = "thp_collapse_alloc",
    }
);

flat_keyed!(
    /// memory.events
    MemoryEvents {
        low = "low",
        high = "high",
        max = "max",
        oom = "oom",
        oom_kill = "oom_kill",
        oom_group_kill = "oom_group_kill",
    }
);

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct IoEntry {
    pub major: u64,
    pub minor: u64,
    pub rbytes: u64,
    pub wbytes: u64,
    pub rios: u64,
    pub wios: u64,
}

/// One line of a pressure file (the kernel's Documentation/accounting/psi.rst).
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Stall {
    pub avg10: f64,
    pub avg60: f64,
    pub avg300: f64,
    pub total: u64,
}

#[derive(Clone, Debug, Default, PartialEq)]
pub struct Pressure {
    pub some: Option<Stall>,
    pub full: Option<Stall>,
}
