//! Measures the memory of one shim while its container runs.

use super::table::{line, median};
use testbed::{until, Containerd, Runtime};

pub fn table(containerd: &Containerd) -> String {
    let (shoal, runc) = (measure(containerd, Runtime::Shoal), measure(containerd, Runtime::Runc));
    let mut text = line("", "shoal", "runc", "ratio");
    for (what, field) in [("private", 0), ("Pss", 1), ("threads", 2)] {
        let show = |value: u64| if field == 2 { value.to_string() } else { format!("{value} KiB") };
        let ratio = format!("{:.2}", shoal[field] as f64 / runc[field] as f64);
        text += &line(what, &show(shoal[field]), &show(runc[field]), &ratio);
    }
    text
}

/// Returns medians over three running containers, each in its own shim.
fn measure(containerd: &Containerd, runtime: Runtime) -> [u64; 3] {
    let ids: Vec<_> = (0..3).map(|n| format!("idle-{n}")).collect();
    for id in &ids {
        let args = ["run", "-d", "--runtime", runtime.name(), containerd.image(), id, "sleep", "1000"];
        containerd.ctr(args).ok();
    }
    let shims: Vec<_> = ids.iter().map(|id| shim_of(containerd, id)).collect();
    std::thread::sleep(std::time::Duration::from_secs(1)); // start-up is over
    let all: Vec<_> = shims.iter().map(|pid| memory_of(*pid)).collect();
    for id in &ids {
        containerd.ctr(["tasks", "kill", "-s", "KILL", id]).ok();
        until("it to be deleted", 20, || (containerd.ctr(["tasks", "delete", id]).code == 0).then_some(()));
        containerd.ctr(["containers", "delete", id]).ok();
    }
    [0, 1, 2].map(|field| median(&all.iter().map(|values| values[field]).collect::<Vec<_>>()))
}

/// Finds the shim: the parent of the container's first process.
fn shim_of(containerd: &Containerd, id: &str) -> u32 {
    let out = containerd.ctr(["tasks", "ls"]);
    let row = out.ok().lines().find(|row| row.starts_with(id)).expect("the task is listed");
    let pid = row.split_whitespace().nth(1).expect("with its pid");
    field(&format!("/proc/{pid}/status"), "PPid:") as u32
}

pub fn memory_of(pid: u32) -> [u64; 3] {
    let rollup = format!("/proc/{pid}/smaps_rollup");
    let private = field(&rollup, "Private_Clean:") + field(&rollup, "Private_Dirty:");
    [private, field(&rollup, "Pss:"), field(&format!("/proc/{pid}/status"), "Threads:")]
}

fn field(file: &str, name: &str) -> u64 {
    let text = std::fs::read_to_string(file).unwrap_or_else(|e| panic!("{file}: {e}"));
    let line =
        text.lines().find(|line| line.starts_with(name)).unwrap_or_else(|| panic!("{file} has no {name}"));
    line.split_whitespace().nth(1).and_then(|word| word.parse().ok()).expect("a number follows")
}
