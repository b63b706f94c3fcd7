//! What a machine holds at one moment, and what is left later.

use std::collections::BTreeSet;
use std::fmt::Write;
use std::path::Path;
use std::time::Instant;

use super::machine::Machine;
use super::run::patience;

/// Processes, mounts, cgroups, sockets and files that carry a machine's mark.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Snapshot {
    processes: BTreeSet<String>,
    mounts: BTreeSet<String>,
    cgroups: BTreeSet<String>,
    files: BTreeSet<String>,
}

impl Snapshot {
    pub fn take(machine: &Machine) -> Snapshot {
        let mut snapshot = Snapshot::default();
        let server = machine.dir.join("config.toml").display().to_string();
        for process in machine.processes() {
            // The server itself may have been restarted.
            if process.words.ends_with(&server) {
                continue;
            }
            snapshot.processes.insert(format!("{} {} {}", process.pid, process.state, process.words));
        }
        for line in machine.mountinfo().lines() {
            // Leaves out ids and peer groups: only what is mounted where counts.
            let words: Vec<_> = line.split(' ').collect();
            if let (Some(root), Some(at)) = (words.get(3), words.get(4)) {
                if at.contains("/exec/netns/") {
                    continue;
                }
                snapshot
                    .mounts
                    .insert(format!("{at} (root {root}) {}", line.split(" - ").nth(1).unwrap_or("")));
            }
        }
        cgroups(Path::new("/sys/fs/cgroup"), machine, false, &mut snapshot.cgroups);
        for place in ["/run/containerd", "/run/shoal", "/run/docker", "/run/netns", "/var/lib/cni"] {
            let root = machine.inside(place);
            files(machine, &root, &root, place, &mut snapshot.files);
        }
        for place in
            ["root/io.containerd.runtime.v2.task", "root/io.containerd.grpc.v1.cri", "cni", "tmp", "exec"]
        {
            let root = machine.dir.join(place);
            files(machine, &root, &root, place, &mut snapshot.files);
        }
        files(machine, &machine.state(), &machine.state(), "state", &mut snapshot.files);
        snapshot
    }

    /// Returns what exists now and did not in `self`, or `None`.
    pub fn left_over(&self, now: &Snapshot) -> Option<String> {
        let mut report = String::new();
        for (what, before, now) in [
            ("process", &self.processes, &now.processes),
            ("mount", &self.mounts, &now.mounts),
            ("cgroup", &self.cgroups, &now.cgroups),
            ("file", &self.files, &now.files),
        ] {
            for new in now.difference(before) {
                let _ = writeln!(report, "  {what}: {new}"); // a String takes everything
            }
        }
        (!report.is_empty()).then_some(report)
    }

    /// Fails the test if something that did not exist in `self` does not go away soon.
    #[track_caller]
    pub fn assert_nothing_left(&self, machine: &Machine) {
        if let Some(report) = self.wait_for_nothing_left(machine) {
            panic!("left behind:\n{report}");
        }
    }

    /// Returns a report of what stays even after some seconds.
    pub fn wait_for_nothing_left(&self, machine: &Machine) -> Option<String> {
        let deadline = Instant::now() + patience(5);
        loop {
            let report = self.left_over(&Snapshot::take(machine))?;
            if Instant::now() > deadline {
                return Some(report);
            }
            std::thread::sleep(std::time::Duration::from_millis(20));
        }
    }
}

/// Collects the cgroups of all hierarchies whose path carries the mark.
fn cgroups(dir: &Path, machine: &Machine, mut ours: bool, to: &mut BTreeSet<String>) {
    let Ok(entries) = std::fs::read_dir(dir) else { return };
    if !ours && dir.file_name().is_some_and(|name| machine.names(&name.to_string_lossy())) {
        ours = true;
    }
    // The namespace's own cgroup stays, as the runtimes leave it.
    if ours && !dir.ends_with(&machine.mark) {
        to.insert(dir.display().to_string());
    }
    for entry in entries.flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            cgroups(&entry.path(), machine, ours, to);
        }
    }
}

/// Directories that stay once they are made: per namespace, or for all containers.
const SHARED: &[&str] = &[
    "/run/containerd/runc",
    "/run/containerd/s",
    "exec/containerd",
    "exec/runtime-runc",
    "/var/lib/cni/cache",
    "/var/lib/cni/results",
    "/var/lib/cni/cache/results",
    "state/io.containerd.grpc.v1.cri",
    "state/io.containerd.grpc.v1.cri/containers",
    "state/io.containerd.grpc.v1.cri/sandboxes",
    "root/io.containerd.grpc.v1.cri/containers",
    "root/io.containerd.grpc.v1.cri/sandboxes",
    "cni/addresses",
    "cni/addresses/pods",
    "cni/addresses/pods/lock",
    "cni/addresses/pods/last_reserved_ip.0",
];

fn files(machine: &Machine, root: &Path, dir: &Path, shown: &str, to: &mut BTreeSet<String>) {
    let Ok(entries) = std::fs::read_dir(dir) else { return };
    for entry in entries.flatten() {
        let path = entry.path();
        let below = path.strip_prefix(root).unwrap_or(&path).display().to_string();
        let name = format!("{shown}/{below}");
        // ctr makes and removes FIFOs, and a detached one never removes them. dockerd collects its network namespaces
        // at its own pace.
        if name == "/run/containerd/fifo" || name == "exec/netns" {
            continue;
        }
        let namespace = entry.file_name() == *machine.mark || entry.file_name() == "k8s.io";
        if !SHARED.contains(&name.as_str()) && !namespace {
            to.insert(name);
        }
        // The files of a mounted rootfs do not count.
        let rootfs = entry.file_name() == "rootfs";
        if !rootfs && entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            files(machine, root, &path, shown, to);
        }
    }
}
