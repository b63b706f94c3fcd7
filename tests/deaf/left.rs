//! What is left of a shim and its containers.

use std::path::{Path, PathBuf};
use testbed::fake::Containerd;

/// The state before the test.
pub struct Before {
    mounts: Vec<String>,
    namespace: PathBuf,
}

fn mounts() -> Vec<String> {
    let text = std::fs::read_to_string("/proc/thread-self/mountinfo").unwrap();
    text.lines().map(str::to_owned).collect()
}

impl Before {
    pub fn now() -> Before {
        Before { mounts: mounts(), namespace: std::fs::read_link("/proc/thread-self/ns/mnt").unwrap() }
    }

    pub fn left_mounts(&self) -> Vec<String> {
        mounts().into_iter().filter(|line| !self.mounts.contains(line)).collect()
    }

    /// Returns the processes of the containers, by cgroup, and whatever else the shim has made, by mount namespace.
    pub fn processes(&self, containerd: &Containerd) -> Vec<u32> {
        pids().filter(|pid| *pid != std::process::id() && self.is_ours(*pid, containerd)).collect()
    }

    fn is_ours(&self, pid: u32, containerd: &Containerd) -> bool {
        let cgroup = std::fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap_or_default();
        let namespace = std::fs::read_link(format!("/proc/{pid}/ns/mnt")).unwrap_or_default();
        cgroup.contains(&format!("/{}/", containerd.namespace)) || namespace == self.namespace
    }
}

/// Returns the children of a process, except zombies.
pub fn children(parent: u32) -> Vec<u32> {
    let of_parent = |pid: &u32| {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        let rest = stat.rsplit_once(") ").map_or("", |(_, rest)| rest);
        let fields: Vec<&str> = rest.split(' ').collect();
        fields.get(1) == Some(&parent.to_string().as_str()) && fields[0] != "Z"
    };
    pids().filter(of_parent).collect()
}

fn pids() -> impl Iterator<Item = u32> {
    let listing = std::fs::read_dir("/proc").unwrap().flatten();
    listing.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok())
}

/// Describes a process, for a complaint.
pub fn name(pid: u32) -> String {
    let read = |name: &str| std::fs::read_to_string(format!("/proc/{pid}/{name}")).unwrap_or_default();
    let words = read("cmdline").replace('\0', " ");
    let stat = read("stat");
    let state = stat.rsplit_once(") ").map_or("gone", |(_, rest)| &rest[..1]);
    format!("{pid} {:?} {:?} in state {state}", read("comm").trim(), words.trim())
}

/// Returns whether any process has a FIFO open for writing.
pub fn has_writer(fifo: &Path) -> bool {
    use std::io::Read;
    use std::os::unix::fs::OpenOptionsExt;
    let mut reader =
        std::fs::OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open(fifo).unwrap();
    !matches!(reader.read(&mut [0; 16]), Ok(0))
}
