//! Cgroups below a container's own: a process that may write to a cgroup can nest as many as it likes.

use super::*;
use nix::fcntl::{openat, OFlag};
use nix::sys::stat::{mkdirat, Mode};
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};

/// Returns the container's cgroup in the hierarchy that lists its processes.
pub fn census(cgroup: &dyn Cgroup) -> PathBuf {
    let record = cgroup.record();
    let of = |name: &str| record.members.iter().find(|m| m.names.iter().any(|n| n == name));
    let member = of("freezer").or(record.members.first()).unwrap();
    member.mount.join(&member.below)
}

fn open(path: &Path) -> OwnedFd {
    std::fs::File::open(path).unwrap().into()
}

/// Makes `depth` nested cgroups, and returns the innermost one.
fn nest(top: OwnedFd, name: &str, depth: usize) -> OwnedFd {
    (0..depth).fold(top, |above, _| {
        mkdirat(&above, name, Mode::S_IRWXU).unwrap();
        openat(&above, name, OFlag::O_DIRECTORY | OFlag::O_CLOEXEC, Mode::empty()).unwrap()
    })
}

fn put(pid: u32, into: &OwnedFd) {
    let procs = openat(into, "cgroup.procs", OFlag::O_WRONLY | OFlag::O_CLOEXEC, Mode::empty()).unwrap();
    nix::unistd::write(&procs, pid.to_string().as_bytes()).unwrap();
}

#[test]
fn what_is_nested_is_listed_killed_and_removed_however_deep_it_is() {
    let Some(layout) = layout() else { return };
    for (what, name, depth) in [("levels", "d", 1900), ("names", &*"n".repeat(200), 60)] {
        let cgroup = make(&layout, &format!("deep-{what}"), "{}");
        let mut child = inside(&*cgroup, "read x");
        let census = census(&*cgroup);
        put(child.id(), &nest(open(&census), name, depth));
        // Also in the other hierarchies, which are removed without a look for processes.
        for (mount, below) in cgroup.directories() {
            let top = mount.join(below);
            if top != census {
                nest(open(&top), name, depth / 20);
            }
        }
        // On a stack smaller than a worker's.
        std::thread::scope(|threads| {
            let work = || {
                assert_eq!(cgroup.pids().unwrap(), [child.id()], "{what}");
                cgroup.kill().unwrap();
                child.wait().unwrap();
                finish(&*cgroup);
            };
            let thread = std::thread::Builder::new().stack_size(96 << 10);
            thread.spawn_scoped(threads, work).unwrap().join().unwrap();
        });
    }
}

#[test]
fn the_list_never_fails_while_cgroups_below_come_and_go() {
    let Some(layout) = layout() else { return };
    let cgroup = make(&layout, "churn", "{}");
    let mut child = inside(&*cgroup, "read x");
    let census = census(&*cgroup);
    let over = AtomicBool::new(false);
    std::thread::scope(|threads| {
        for thread in 0..2 {
            let (over, census) = (&over, &census);
            threads.spawn(move || {
                while !over.load(Ordering::Relaxed) {
                    let all =
                        ["a", "a/b", "a/b/c", "d"].map(|below| census.join(format!("{thread}/{below}")));
                    all.iter().for_each(|path| std::fs::create_dir_all(path).unwrap());
                    all.iter().rev().for_each(|path| std::fs::remove_dir(path).unwrap());
                    std::fs::remove_dir(census.join(thread.to_string())).unwrap();
                }
            });
        }
        let end = Instant::now() + Duration::from_secs(3);
        let listed = || -> shoal::error::Result<()> {
            while Instant::now() < end {
                assert_eq!(cgroup.pids()?, [child.id()]);
            }
            Ok(())
        };
        let listed = listed();
        over.store(true, Ordering::Relaxed);
        listed.unwrap();
    });
    cgroup.kill().unwrap();
    child.wait().unwrap();
    finish(&*cgroup);
}
