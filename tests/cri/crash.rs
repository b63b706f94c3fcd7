//! Counts the processes of a pod, and kills some of them.

use serde_json::json;

use testbed::cri::{Case, Mode};
use testbed::{skip, until, Suite};

cases! {
    a_pod_is_one_shim_and_its_containers,
    pods_outlive_containerd,
    a_pod_ends_with_its_shim,
    a_process_tree_ends_with_its_first_process,
    commands_at_once_leave_nothing,
}

/// Returns the command lines of what runs here besides containerd.
fn processes(case: &Case<'_>) -> Vec<(u32, String)> {
    let server = case.node.containerd.dir("config.toml").display().to_string();
    let all = case.node.machine().processes().into_iter();
    all.filter(|process| !process.words.ends_with(&server))
        .map(|process| (process.pid, process.words))
        .collect()
}

fn a_pod_is_one_shim_and_its_containers(case: &mut Case<'_>) {
    let pod = case.plain_pod();
    for n in 0..3 {
        pod.start(&format!("c{n}"), json!({ "command": ["sleep", "1020"] }));
    }
    let mut expected = vec!["shim", "sleep 1020", "sleep 1020", "sleep 1020"];
    if case.mode != Mode::Shim {
        expected.push("/pause");
    }
    expected.sort_unstable();
    // What the CNI plugins and the shim's `start` have left behind ends by itself.
    until("no more processes than there should be", 5, || {
        let mut found: Vec<_> = processes(case)
            .into_iter()
            .map(|(_, words)| if words.contains("containerd-shim-") { "shim".to_owned() } else { words })
            .collect();
        found.sort_unstable();
        (found == expected).then_some(()).or_else(|| {
            println!("{found:?}");
            None
        })
    });
    pod.remove();
    until("nothing to run", 5, || processes(case).is_empty().then_some(()));
}

fn pods_outlive_containerd(case: &mut Case<'_>) {
    let pod = case.plain_pod();
    let app = pod.start("app", json!({ "command": ["sh", "-c", "echo before; sleep 1021"] }));
    app.until_output("before\n");
    let script = "while [ ! -e /dev/shm/go ]; do sleep 0.02; done; exit 33";
    let other = pod.start("other", json!({ "command": ["sh", "-c", script] }));
    let (pid, pid_of_other, address) = (app.pid(), other.pid(), pod.ip());
    case.node.containerd.kill();
    std::fs::write(format!("/proc/{pid}/root/dev/shm/go"), "").expect("reach into the pod");
    until("the other container to end", 10, || {
        let stat = std::fs::read_to_string(format!("/proc/{pid_of_other}/stat")).unwrap_or_default();
        (stat.is_empty() || stat.contains(") Z")).then_some(())
    });
    case.restart_containerd();
    assert_eq!((pod.state().as_str(), pod.ip()), ("SANDBOX_READY", address));
    assert_eq!((app.state().as_str(), app.pid()), ("CONTAINER_RUNNING", pid));
    assert_eq!(app.exec(&["echo", "back"]).ok(), "back");
    // containerd takes what has no processes for leaked, and then reports 255.
    assert!([33, 255].contains(&other.until_exited()), "it ended while nobody looked");
    assert_eq!(pod.script("new", "ls /dev/shm", json!({})), (0, "go\n".to_owned()));
    // Its output flows again, and its exit is noticed.
    app.exec(&["sh", "-c", "echo after >/proc/1/fd/1"]).ok();
    app.until_output("after\n");
    app.stop(0);
    assert_eq!(app.until_exited(), 137);
    case.restart_containerd();
    assert_eq!(app.until_exited(), 137);
    // Now a container that was only created, and a pod that was only stopped.
    let waits = pod.create("waits", json!({}));
    case.restart_containerd();
    waits.start();
    assert_eq!(waits.exec(&["echo", "fine"]).ok(), "fine");
    pod.stop();
    case.restart_containerd();
    assert_eq!((pod.state().as_str(), waits.state().as_str()), ("SANDBOX_NOTREADY", "CONTAINER_EXITED"));
    pod.remove();
}

fn a_pod_ends_with_its_shim(case: &mut Case<'_>) {
    if case.mode == Mode::Runc && case.suite == Suite::Forky {
        skip::other_machine("containerd 2 does not clean up after the containers of runc's shim");
        return;
    }
    let pod = case.plain_pod();
    let containers = [pod.start("one", json!({})), pod.start("two", json!({}))];
    for (pid, words) in processes(case) {
        if words.contains("containerd-shim-") {
            testbed::run(std::process::Command::new("kill").args(["-KILL", &pid.to_string()])).ok();
        }
    }
    pod.until_state("SANDBOX_NOTREADY");
    for container in &containers {
        container.until_exited();
    }
    pod.remove();
    if case.mode == Mode::Runc {
        case.node.containerd.remove_shim_sockets(); // the Go shim's `delete` leaves its socket file
    }
}

/// Returns the process that is pid 1 in the pid namespace of `pid`.
fn first_process(pid: u32) -> u32 {
    let of = |pid: u32| std::fs::read_link(format!("/proc/{pid}/ns/pid")).ok();
    let namespace = of(pid).expect("it lives");
    let all = std::fs::read_dir("/proc").expect("read /proc").flatten();
    let pids = all.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    let mut first = pids.filter(|pid| of(*pid).as_ref() == Some(&namespace)).filter(|pid| {
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
        status.lines().any(|line| line.starts_with("NSpid:") && line.ends_with("\t1"))
    });
    first.next().expect("a namespace has a first process")
}

fn a_process_tree_ends_with_its_first_process(case: &mut Case<'_>) {
    let pod = case.pod(json!({ "linux": { "security_context": { "namespace_options": { "pid": "POD" } } } }));
    let app = pod.start("app", json!({}));
    let first = first_process(app.pid());
    testbed::run(std::process::Command::new("kill").args(["-KILL", &first.to_string()])).ok();
    assert_eq!(app.until_exited(), 137);
    pod.until_state("SANDBOX_NOTREADY");
    pod.remove();
    if case.mode == Mode::Runc {
        end_shims(case);
    }
}

/// Ends leftover Go shims: one may take the last Shutdown while it still lists the container, and then stays.
fn end_shims(case: &Case<'_>) {
    for (pid, words) in processes(case) {
        if words.contains("containerd-shim-runc-v2") {
            // It may just have ended by itself.
            testbed::run(std::process::Command::new("kill").args(["-KILL", &pid.to_string()])).ok();
        }
    }
    case.node.containerd.remove_shim_sockets();
}

fn commands_at_once_leave_nothing(case: &mut Case<'_>) {
    let pod = case.plain_pod();
    let app = pod.start("app", json!({ "command": ["sleep", "1022"] }));
    let before = processes(case).len();
    std::thread::scope(|scope| {
        let command = |n: i64| {
            let exec = app.exec(&["sh", "-c", &format!("echo {n}; exit {n}")]);
            assert_eq!((exec.code, exec.stdout), (n, format!("{n}\n")));
        };
        let threads: Vec<_> = (0..20).map(|n| scope.spawn(move || command(n))).collect();
        threads.into_iter().for_each(|thread| thread.join().expect("the command does what it should"));
    });
    until("only the container to run", 5, || (processes(case).len() == before).then_some(()));
    app.stop(0);
    assert_eq!(app.until_exited(), 137);
    pod.remove();
}
