//! `unshare --user --map-root-user --pid --fork --mount-proc`, as far as the kernel permits.

use nix::mount::{mount, MsFlags};
use nix::sched::{unshare, CloneFlags};
use serde_json::Value;
use std::process::Command;

/// Mounts a procfs in namespaces of the program's own, and returns `ok` or an errno.
pub fn unshared(words: &[&str]) -> Value {
    let flags = CloneFlags::CLONE_NEWUSER | CloneFlags::CLONE_NEWPID | CloneFlags::CLONE_NEWNS;
    if let Err(errno) = unshare(flags) {
        return format!("unshare: {errno:?}").into();
    }
    if let Err(e) = std::fs::write("/proc/self/uid_map", "0 0 1") {
        return format!("uid_map: {e}").into();
    }
    // The first process of the new pid namespace.
    match Command::new(words[0]).args(["procfs", "inside"]).output() {
        Ok(output) => serde_json::from_slice(&output.stdout).unwrap_or(Value::Null),
        Err(e) => format!("clone: {e}").into(),
    }
}

pub fn mounted() -> Value {
    let none = None::<&str>;
    match mount(Some("proc"), "/tmp", Some("proc"), MsFlags::empty(), none) {
        Ok(()) => "ok".into(),
        Err(errno) => format!("{errno:?}").into(),
    }
}
