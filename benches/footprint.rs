//! What running pods cost a machine: their processes, and the kernel.

use std::path::PathBuf;

use crate::host::Host;
use testbed::cri::Pod;

/// All processes of a pod except the container's own; memory in KiB.
#[derive(Clone, Copy, Debug, Default)]
pub struct Footprint {
    pub private: f64,
    pub pss: f64,
    pub threads: f64,
    pub processes: f64,
    pub descriptors: f64,
}

/// Measures each pod. The pod's id identifies the shim; any child of it except the container (`sleep`) counts as the
/// pod's.
pub fn of_pods(host: &Host, pods: &[Pod]) -> Vec<Footprint> {
    let all = host.node.machine().processes();
    let of_pod = |pod: &Pod| {
        let shim = all.iter().find(|p| p.words.contains("containerd-shim") && p.words.contains(&pod.id));
        let shim = shim.unwrap_or_else(|| panic!("pod {} has no shim", pod.id)).pid;
        let mut sum = Footprint::default();
        for process in &all {
            if process.pid == shim || parent(process.pid) == shim && process.words != "sleep 1000" {
                sum.add(process.pid);
            }
        }
        sum
    };
    pods.iter().map(of_pod).collect()
}

impl Footprint {
    fn add(&mut self, pid: u32) {
        let field = |file: &str, name: &str| field(&format!("/proc/{pid}/{file}"), name);
        let known = |value: Option<f64>| value.unwrap_or_else(|| panic!("process {pid} is gone"));
        self.private += known(field("smaps_rollup", "Private_Clean:"));
        self.private += known(field("smaps_rollup", "Private_Dirty:"));
        self.pss += known(field("smaps_rollup", "Pss:"));
        self.threads += known(field("status", "Threads:"));
        self.processes += 1.0;
        self.descriptors +=
            known(std::fs::read_dir(format!("/proc/{pid}/fd")).ok().map(|all| all.count() as f64));
    }
}

fn parent(pid: u32) -> u32 {
    field(&format!("/proc/{pid}/status"), "PPid:").unwrap_or(0.0) as u32
}

/// The number after `name` in one of the kernel's files.
fn field(file: &str, name: &str) -> Option<f64> {
    let text = std::fs::read_to_string(file).ok()?;
    let line = text.lines().find(|line| line.starts_with(name))?;
    line.split_whitespace().nth(1)?.parse().ok()
}

/// The whole machine's memory, in KiB: it includes everything on the machine, not only the pods.
pub const OF_MACHINE: [&str; 5] = ["MemAvailable", "Slab", "KernelStack", "PageTables", "Percpu"];

pub fn of_machine() -> [f64; 5] {
    OF_MACHINE.map(|name| field("/proc/meminfo", &format!("{name}:")).unwrap_or(0.0))
}

/// Makes the cgroup above the node's pods count the server and the shims that it starts from now on.
pub fn count_kernel_memory(host: &Host) {
    let procs = memory_cgroup(host).join("server/cgroup.procs");
    std::fs::write(&procs, host.node.containerd.pid().to_string())
        .unwrap_or_else(|e| panic!("{procs:?}: {e}"));
}

/// The KiB that the kernel has charged for its own memory (stacks, page tables, slabs on behalf of processes) to
/// containerd, the shims and the pods of a node; None if it does not say.
pub fn kernel_memory(host: &Host) -> Option<f64> {
    let dir = memory_cgroup(host);
    let one = std::fs::read_to_string(dir.join("memory.kmem.usage_in_bytes")).ok();
    let bytes = match one.and_then(|text| text.trim().parse().ok()) {
        Some(bytes) => bytes,
        None => field(dir.join("memory.stat").to_str()?, "kernel ")?,
    };
    Some(bytes / 1024.0)
}

/// The same plus the processes' own memory (without the page cache, which the kernel reclaims).
pub fn charged_memory(host: &Host) -> Option<f64> {
    let stat = memory_cgroup(host).join("memory.stat");
    let stat = stat.to_str()?;
    let own = field(stat, "total_rss ").or_else(|| field(stat, "anon "))?;
    Some(kernel_memory(host)? + own / 1024.0)
}

fn memory_cgroup(host: &Host) -> PathBuf {
    let name = &host.node.machine().mark;
    let one = PathBuf::from("/sys/fs/cgroup/memory").join(name);
    if one.exists() {
        one
    } else {
        PathBuf::from("/sys/fs/cgroup").join(name)
    }
}

/// Waits until start-up is over: worker threads have ended, and no more events are sent.
pub fn settle() {
    std::thread::sleep(std::time::Duration::from_secs(3));
}
