//! Processes that are killed while they are made: in the middle of any step, by nobody's plan.

use crate::bench::{alone, eventually, left_behind, rooted};
use crate::container::{launch_by, Bundle};
use crate::users::bundle;
use shoal::cgroup::Entry;
use shoal::launch::{Real, Reaper, Strangers};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;

/// Our children, as the kernel lists them.
fn children() -> Vec<i32> {
    let tasks = std::fs::read_dir("/proc/self/task").unwrap().flatten();
    let lists = tasks.map(|task| std::fs::read_to_string(task.path().join("children")).unwrap_or_default());
    lists
        .flat_map(|list| list.split_whitespace().map(|pid| pid.parse().unwrap()).collect::<Vec<_>>())
        .collect()
}

#[test]
fn a_launch_whose_processes_are_killed_fails_and_leaves_nothing() {
    if !rooted("a_launch_whose_processes_are_killed_fails_and_leaves_nothing") {
        return;
    }
    if !alone("faults::a_launch_whose_processes_are_killed_fails_and_leaves_nothing") {
        return;
    }
    // As the shim has it: a process that was born to one that could not say so any more is nobody's, and is reaped too.
    let launcher = &Real::new(Reaper::start(Strangers::Reap).unwrap()).unwrap();
    let create = |bundle: &Bundle| launch_by(launcher, &bundle.plan().unwrap(), None, Entry::default());
    create(&bundle(&["/probe", "report"])).unwrap().finish();
    let before = left_behind();
    let (done, failed) = (AtomicBool::new(false), AtomicU32::new(0));
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut wait = 0;
            while !done.load(Ordering::Relaxed) {
                // Of the process that holds a map, of the first, and of the second.
                wait = (wait + 137) % 3000;
                std::thread::sleep(Duration::from_micros(wait));
                for pid in children() {
                    let _ = nix::sys::signal::kill(
                        nix::unistd::Pid::from_raw(pid),
                        nix::sys::signal::Signal::SIGKILL,
                    );
                }
            }
        });
        let threads: Vec<_> = (0..2)
            .map(|_| {
                scope.spawn(|| {
                    let bundle = bundle(&["/probe", "exit", "0"]);
                    for _ in 0..150 {
                        match create(&bundle) {
                            Err(_) => drop(failed.fetch_add(1, Ordering::Relaxed)),
                            Ok(running) => {
                                let _ = running.waiting.start();
                                running.exit.recv_timeout(Duration::from_secs(20)).expect("an exit is told");
                            }
                        }
                    }
                })
            })
            .collect();
        let ended: Vec<_> = threads.into_iter().map(|thread| thread.join()).collect();
        done.store(true, Ordering::Relaxed);
        assert!(ended.iter().all(Result::is_ok));
    });
    let failed = failed.into_inner();
    assert!(failed > 20, "only {failed} launches were hit");
    eventually("nothing is left", || left_behind() == before);
}
