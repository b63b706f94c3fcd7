//! Many containers: in sequence in one shim, and concurrently.

use testbed::{run, until, Case, Runtime};

cases! { one_after_the_other, fifty_at_once }

/// Returns the private memory that process `pid` has written to, in KiB. (Its code counts as private or as shared,
/// depending on whether another shim is running.)
fn written(pid: u32) -> u64 {
    let rollup =
        std::fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).expect("read the shim's memory");
    rollup
        .lines()
        .filter(|line| line.starts_with("Private_Dirty:"))
        .filter_map(|line| line.split_whitespace().nth(1)?.parse::<u64>().ok())
        .sum()
}

fn open_files(pid: u32) -> usize {
    std::fs::read_dir(format!("/proc/{pid}/fd")).expect("read the shim's descriptors").count()
}

/// The same once the thread has gone that waits for others: it stays for a second, and has two of its own.
fn open_files_at_rest(pid: u32) -> usize {
    until("nothing to be parked", 10, || {
        let tasks = std::fs::read_dir(format!("/proc/{pid}/task")).expect("read the shim's threads");
        let mut names = tasks.flatten().map(|task| std::fs::read_to_string(task.path().join("comm")));
        names.all(|name| name.is_ok_and(|name| name.trim() != "parked")).then_some(())
    });
    open_files(pid)
}

fn one_after_the_other(case: &mut Case<'_>) {
    // In one group, so that one shim serves them all: only then does it show what the shim keeps of each.
    let group = format!("io.containerd.runc.v2.group={}", case.id);
    case.detach(&["--annotation", &group], &["sleep", "1000"]);
    let status = std::fs::read_to_string(format!("/proc/{}/status", case.pid())).expect("the init is there");
    let parent =
        status.lines().find(|line| line.starts_with("PPid:")).and_then(|line| line.split_whitespace().nth(1));
    let shim: u32 = parent.and_then(|pid| pid.parse().ok()).expect("it has a parent");
    // runc is only the control here, and slow.
    let (warm_up, count) = if case.runtime == Runtime::Shoal { (100, 500) } else { (5, 20) };
    let mut early = (0, 0);
    for n in 0..count {
        if n == warm_up {
            early = (written(shim), open_files_at_rest(shim));
        }
        if n % 50 == 0 {
            println!("after {n} containers: {} KiB written, {} descriptors", written(shim), open_files(shim));
        }
        let id = case.id(&n.to_string());
        let command = &mut case.run_command(&["--rm", "--annotation", &group], &id, &["echo", &id]);
        assert_eq!(run(command).ok(), format!("{id}\n"));
    }
    if case.runtime == Runtime::Shoal {
        let late = (written(shim), open_files_at_rest(shim));
        println!("shim after {warm_up} containers: {early:?} KiB, descriptors; after {count}: {late:?}");
        assert!(late.0 < early.0 + 512, "memory grows: {} KiB, then {} KiB", early.0, late.0);
        assert!(late.1 <= early.1 + 2, "descriptors grow: {}, then {}", early.1, late.1);
    }
    case.remove();
}

fn fifty_at_once(case: &mut Case<'_>) {
    let count = if case.runtime == Runtime::Shoal { 50 } else { 10 };
    let all: Vec<_> = (0..count)
        .map(|n| {
            let id = case.id(&n.to_string());
            let mut command =
                case.run_command(&["--rm"], &id, &["sh", "-c", &format!("echo {n}; sleep 0.2; exit {n}")]);
            std::thread::spawn(move || run(&mut command))
        })
        .collect();
    for (n, thread) in all.into_iter().enumerate() {
        let out = thread.join().expect("run does not panic");
        assert_eq!((out.code, out.stdout.as_str()), (n as i32, format!("{n}\n").as_str()), "{out}");
    }
}
