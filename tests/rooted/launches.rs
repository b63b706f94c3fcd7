//! A process is made, waits, runs and ends, and nothing is left of it.

use crate::bench::*;
use shoal::plan::Step;
use std::time::Duration;

#[test]
fn a_shell_is_the_first_process_of_its_namespaces() {
    if !rooted("a_shell_is_the_first_process_of_its_namespaces") {
        return;
    }
    let hostname = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap();
    let plan = program(&["sh", "-c", "echo $$; uname -n; exit 7"], vec![Step::Hostname(c("inside"))]);
    let (text, code) = launch(&plan).unwrap().finish();
    assert_eq!((text.as_str(), code), ("1\ninside\n", 7));
    assert_eq!(std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap(), hostname);
}

#[test]
fn dropping_a_waiting_process_ends_it() {
    if !rooted("dropping_a_waiting_process_ends_it") {
        return;
    }
    let process = launch(&program(&["sleep", "1000"], vec![])).unwrap();
    let pid = process.waiting.pid;
    drop(process.waiting);
    let status = process.exit.recv_timeout(Duration::from_secs(5)).unwrap();
    assert_eq!(status.code, 137);
    assert!(!exists(&format!("/proc/{pid}")));
}

#[test]
fn a_failed_step_is_told_by_name() {
    if !rooted("a_failed_step_is_told_by_name") {
        return;
    }
    let bad = Step::BindRoot { target: c("/does/not/exist") };
    let error = launch(&program(&["true"], vec![bad])).unwrap_err().to_string();
    assert!(error.contains("step 2/9") && error.contains("no such file or directory (ENOENT)"), "{error}");
}

#[test]
fn a_program_that_is_not_there_fails_the_create() {
    if !rooted("a_program_that_is_not_there_fails_the_create") {
        return;
    }
    let text = |name: &str| launch(&program(&[name], vec![])).unwrap_err().to_string();
    assert_eq!(text("no-such"), "exec: \"no-such\": executable file not found in $PATH");
    assert_eq!(text("/no/such"), "exec: \"/no/such\": stat /no/such: no such file or directory (ENOENT)");
    assert_eq!(text("/etc/passwd"), "exec: \"/etc/passwd\": permission denied (EACCES)");
    assert_eq!(text("/tmp"), "exec: \"/tmp\": is a directory (EISDIR)");
}

#[test]
fn a_program_of_no_known_format_fails_the_start() {
    if !rooted("a_program_of_no_known_format_fails_the_start") {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("program");
    for (content, words) in [("junk", "exec format error"), ("#!/no/such\n", "no such file or directory")] {
        std::fs::write(&file, content).unwrap();
        std::fs::set_permissions(&file, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
        let process = launch(&program(&[file.to_str().unwrap()], vec![])).unwrap();
        let pid = process.waiting.pid;
        let error = process.waiting.start().unwrap_err().to_string();
        assert!(error.starts_with(&format!("exec {}: {words}", file.display())), "{error}");
        assert!(!exists(&format!("/proc/{pid}")), "reaped when start returns");
        process.exit.recv_timeout(Duration::from_secs(5)).unwrap();
    }
}

#[test]
fn a_thousand_launches_from_eight_threads_leave_nothing() {
    if !rooted("a_thousand_launches_from_eight_threads_leave_nothing") {
        return;
    }
    if !alone("launches::a_thousand_launches_from_eight_threads_leave_nothing") {
        return;
    }
    drop(launch(&program(&["true"], vec![])).unwrap().finish());
    let before = left_behind();
    let threads: Vec<_> = (0..8)
        .map(|thread| {
            std::thread::spawn(move || {
                let path = format!("exit {thread}");
                for round in 0..125 {
                    match round % 5 {
                        // Dropped at the gate.
                        3 => {
                            let process = launch(&program(&["true"], vec![])).unwrap();
                            drop(process.waiting);
                            process.exit.recv_timeout(Duration::from_secs(20)).unwrap();
                        }
                        // Fails before it.
                        4 => drop(launch(&program(&["/no/such"], vec![])).unwrap_err()),
                        _ => {
                            let (_, code) = launch(&program(&["sh", "-c", &path], vec![])).unwrap().finish();
                            assert_eq!(code, thread);
                        }
                    }
                }
            })
        })
        .collect();
    for thread in threads {
        thread.join().unwrap();
    }
    eventually("no descriptor and no child is left", || left_behind() == before);
}

/// Plans a process that is born into another's pid namespace.
fn joining(argv: &[&str]) -> shoal::plan::Plan {
    let slot = shoal::plan::Slot::Lent(0);
    let mut steps = vec![Step::SetNs { slot, flags: libc::CLONE_NEWPID as u64 }];
    steps.extend(run(argv));
    let bare = steps.iter().position(|step| matches!(step, Step::Bare)).unwrap();
    steps.insert(bare + 1, Step::Birth);
    let mut joins = plan(0, steps);
    joins.opens.push((shoal::plan::Open::Init, "".into()));
    joins
}

#[test]
fn a_process_joins_a_pid_namespace_and_its_thread_comes_back() {
    if !rooted("a_process_joins_a_pid_namespace_and_its_thread_comes_back") {
        return;
    }
    let init = launch(&program(&["sleep", "1000"], vec![])).unwrap();
    let namespace = |name: &str| std::fs::read_link(format!("/proc/thread-self/ns/{name}")).unwrap();
    let before = namespace("pid_for_children");
    let joins = joining(&["sh", "-c", "echo $$; cat /proc/sys/kernel/ns_last_pid"]);
    let pidfd = std::os::fd::AsFd::as_fd(&init.waiting.pidfd);
    let (text, code) = launch_with(&joins, Some(pidfd), &mut |_, _| Ok(())).unwrap().finish();
    assert_eq!((text.lines().next(), code), (Some("2"), 0));
    assert_eq!(namespace("pid_for_children"), before);
    drop(init.waiting);
    init.exit.recv_timeout(Duration::from_secs(5)).unwrap();
}

#[test]
fn a_pid_namespace_that_has_ended_takes_no_process() {
    if !rooted("a_pid_namespace_that_has_ended_takes_no_process") {
        return;
    }
    let init = launch(&program(&["sleep", "1000"], vec![])).unwrap();
    // Held open, the namespace outlives its first process, but no process can be born there.
    let namespace = std::fs::File::open(format!("/proc/{}/ns/pid", init.waiting.pid)).unwrap();
    let pidfd = init.waiting.pidfd.try_clone().unwrap();
    drop(init.waiting);
    init.exit.recv_timeout(Duration::from_secs(5)).unwrap();
    let joins = joining(&["true"]);
    for (fd, errno) in [(namespace.into(), libc::ENOMEM), (pidfd, libc::ESRCH)] {
        let fd: std::os::fd::OwnedFd = fd;
        let fd = std::os::fd::AsFd::as_fd(&fd);
        let error = launch_with(&joins, Some(fd), &mut |_, _| Ok(())).unwrap_err();
        assert_eq!((error.errno(), error.kind()), (Some(errno), shoal::error::Kind::State), "{error}");
    }
    let own = std::fs::read_link("/proc/thread-self/ns/pid").unwrap();
    assert_eq!(std::fs::read_link("/proc/thread-self/ns/pid_for_children").unwrap(), own);
}

#[test]
fn a_process_that_is_killed_at_its_gate_is_told_so() {
    if !rooted("a_process_that_is_killed_at_its_gate_is_told_so") {
        return;
    }
    let process = launch(&program(&["true"], vec![])).unwrap();
    let pidfd = std::os::fd::AsFd::as_fd(&process.waiting.pidfd);
    shoal::sys::wait::signal(pidfd, libc::SIGKILL).unwrap();
    assert_eq!(process.exit.recv_timeout(Duration::from_secs(5)).unwrap().code, 137);
    let error = process.waiting.start().unwrap_err();
    assert_eq!(error.to_string(), "the process ended before it was started");
    assert_eq!(error.kind(), shoal::error::Kind::State);
}
