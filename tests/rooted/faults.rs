//! Processes that are killed while they are made, at an arbitrary point of any step.

use crate::bench::{alone, eventually, left_behind, null, rooted};
use crate::container::{launch_by, Bundle};
use crate::users::bundle;
use shoal::cgroup::Entry;
use shoal::launch::{CloneLauncher, Launcher, Leash, Order, Reaper, Strangers};
use shoal::tasks::block_on;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;

/// Returns our children, as the kernel lists them.
fn children() -> Vec<i32> {
    let tasks = std::fs::read_dir("/proc/self/task").unwrap().flatten();
    let lists = tasks.map(|task| std::fs::read_to_string(task.path().join("children")).unwrap_or_default());
    lists
        .flat_map(|list| list.split_whitespace().map(|pid| pid.parse().unwrap()).collect::<Vec<_>>())
        .collect()
}

/// The time limit ends at any moment, even when the visible process has just been born.
#[test]
fn a_launch_whose_time_is_over_leaves_no_process() {
    const NAME: &str = "faults::a_launch_whose_time_is_over_leaves_no_process";
    if !rooted(NAME) || !alone(NAME) {
        return;
    }
    let launcher = &CloneLauncher::new(Reaper::start(Strangers::Reap).unwrap()).unwrap();
    let container = Bundle::new(&["/probe", "sleep"]);
    let init = launch_by(launcher, &container.plan().unwrap(), None, Entry::default()).unwrap();
    let pidfd = init.waiting.start().unwrap();
    let process = serde_json::json!({
        "user": { "uid": 0, "gid": 0 }, "args": ["/probe", "sleep"], "cwd": "/", "env": []
    });
    let plan = container.exec_plan(&process).unwrap();
    let before = left_behind();
    let (mut late, mut made) = (0, 0);
    for round in 0..400u64 {
        let leash = Leash::lasting(Duration::from_micros(round * 17 % 6000));
        let ends = shoal::stdio::StdioFds { stdin: null(), stdout: null(), stderr: null() };
        let order = Order {
            plan: &plan,
            ends: Some(ends),
            entry: Entry::default(),
            init: Some(std::os::fd::AsFd::as_fd(&pidfd)),
            leash: &leash,
            on_exit: Box::new(|_| {}),
        };
        let started = async { launcher.launch(order).await?.at_gate().await?.start_by(&leash).await };
        match block_on(started) {
            Err(error) => {
                assert_eq!(error.kind(), shoal::error::Kind::Deadline, "{error}");
                late += 1;
            }
            Ok(running) => {
                made += 1;
                shoal::sys::wait::signal(std::os::fd::AsFd::as_fd(&running), libc::SIGKILL).unwrap();
            }
        }
    }
    println!("{late} late, {made} made");
    assert!(late > 20 && made > 20, "{late} late, {made} made");
    eventually("nothing is left", || left_behind() == before);
    shoal::sys::wait::signal(std::os::fd::AsFd::as_fd(&pidfd), libc::SIGKILL).unwrap();
}

#[test]
fn a_launch_whose_processes_are_killed_fails_and_leaves_nothing() {
    if !rooted("a_launch_whose_processes_are_killed_fails_and_leaves_nothing") {
        return;
    }
    if !alone("faults::a_launch_whose_processes_are_killed_fails_and_leaves_nothing") {
        return;
    }
    // The process that makes a bundle's files is a child too, and must be neither killed nor reaped.
    let bundles = [(); 2].map(|()| bundle(&["/probe", "exit", "0"]));
    // As in the shim: a process born to one that could no longer report it belongs to nobody, and is reaped too.
    let launcher = &CloneLauncher::new(Reaper::start(Strangers::Reap).unwrap()).unwrap();
    let create = |bundle: &Bundle| launch_by(launcher, &bundle.plan().unwrap(), None, Entry::default());
    create(&bundles[0]).unwrap().finish();
    let before = left_behind();
    let (done, failed) = (AtomicBool::new(false), AtomicU32::new(0));
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut wait = 0;
            while !done.load(Ordering::Relaxed) {
                // Kills at different times: the process that holds a map, the first process, and the second.
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
        let (create, failed) = (&create, &failed);
        let threads: Vec<_> = bundles
            .iter()
            .map(|bundle| {
                scope.spawn(move || {
                    for _ in 0..150 {
                        match create(bundle) {
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
