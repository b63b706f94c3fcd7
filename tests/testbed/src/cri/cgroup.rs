//! A pod's cgroup, which a kubelet makes before the pod and removes after it.

use std::path::{Path, PathBuf};

const ROOT: &str = "/sys/fs/cgroup";

/// Returns the roots of all hierarchies of this machine.
fn hierarchies() -> Vec<PathBuf> {
    if Path::new(ROOT).join("cgroup.controllers").exists() {
        return vec![PathBuf::from(ROOT)];
    }
    let all = std::fs::read_dir(ROOT).expect("there are cgroups").flatten();
    // The name of a single controller may be a link to where it is co-mounted.
    all.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir())).map(|entry| entry.path()).collect()
}

/// Stops a slice, as a kubelet does with the pod: systemd makes it when a scope is to be in it, and keeps it.
fn stop_slice(name: &str) {
    crate::run(std::process::Command::new("systemctl").args(["stop", name])).ok();
    assert!(!Path::new(ROOT).join(name).exists(), "{name} is still there");
}

pub fn make(path: &str) {
    if path.ends_with(".slice") {
        return;
    }
    for hierarchy in hierarchies() {
        let mut dir = hierarchy;
        for name in path.trim_start_matches('/').split('/') {
            let parent = dir.clone();
            dir.push(name);
            // Only v2 has this file; children may use the controllers that their parent enables.
            if let Ok(controllers) = std::fs::read_to_string(parent.join("cgroup.controllers")) {
                for controller in controllers.split_whitespace() {
                    // May be refused, for instance with realtime processes: the tests show which failures matter.
                    let _ = std::fs::write(parent.join("cgroup.subtree_control"), format!("+{controller}"));
                }
            }
            match std::fs::create_dir(&dir) {
                Err(e) if e.kind() != std::io::ErrorKind::AlreadyExists => panic!("{}: {e}", dir.display()),
                _ => {}
            }
            // On v1, no process may enter before both are set.
            for file in ["cpuset.cpus", "cpuset.mems"] {
                let own = std::fs::read_to_string(dir.join(file)).unwrap_or_default();
                match std::fs::read(parent.join(file)) {
                    Ok(all) if own.trim().is_empty() && !dir.join("cgroup.controllers").exists() => {
                        std::fs::write(dir.join(file), all).expect("give it what its parent has");
                    }
                    _ => {}
                }
            }
        }
    }
}

/// Removes the cgroup from all hierarchies if it is empty; otherwise the snapshot shows it.
pub fn remove(path: &str) {
    if path.ends_with(".slice") {
        return stop_slice(path);
    }
    for hierarchy in hierarchies() {
        let _ = std::fs::remove_dir(hierarchy.join(path.trim_start_matches('/')));
    }
}
