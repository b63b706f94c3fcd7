//! containerd dies and comes back while containers run and write.

use std::process::Stdio;

use testbed::{until, Case, Runtime};

cases! { containers_outlive_containerd, a_reader_can_come_back, a_container_that_ends_meanwhile, a_shim_that_was_killed }

fn containers_outlive_containerd(case: &mut Case<'_>) {
    let log = case.containerd.dir("outlive.log");
    let _ = std::fs::remove_file(&log); // of an attempt that has failed: the Go shim may lose its last event
    let uri = format!("file://{}", log.display());
    case.detach(
        &["--log-uri", &uri],
        &["sh", "-c", "i=0; while :; do i=$((i+1)); echo $i; sleep 0.02; done"],
    );
    let lines = || std::fs::read_to_string(&log).unwrap_or_default().lines().count();
    until("it to write", 10, || (lines() > 2).then_some(()));
    let pid = case.pid();
    for _ in 0..2 {
        case.containerd.kill();
        let dead = lines();
        until("it to write without containerd", 10, || (lines() > dead + 5).then_some(()));
        case.containerd.serve();
        assert_eq!((case.state().as_str(), case.pid()), ("RUNNING", pid));
        assert_eq!(case.exec(&[], &["echo", "back"]).ok(), "back\n");
        case.ctr(&["tasks", "metrics", &case.id]).ok();
        case.ctr(&["tasks", "pause", &case.id]).ok();
        case.ctr(&["tasks", "resume", &case.id]).ok();
    }
    let events = case.events();
    case.remove();
    assert_eq!(
        events.topics(&case.id, "/tasks/delete"),
        ["exit", "delete"],
        "events find the new containerd"
    );
    let text = std::fs::read_to_string(&log).expect("read the log");
    let numbers: Vec<usize> = text.lines().map(|line| line.parse().expect("a number per line")).collect();
    assert!(numbers.iter().copied().eq(1..=numbers.len()), "no line was lost");
    std::fs::remove_file(&log).expect("remove the log");
}

fn a_reader_can_come_back(case: &mut Case<'_>) {
    let script = "i=0; while :; do i=$((i+1)); echo line $i; sleep 0.02; done";
    let mut command = case.run_command(&[], &case.id, &["sh", "-c", script]);
    let mut client =
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("start ctr");
    case.until_state("RUNNING");
    let pid = case.pid();
    // Kill both, so that neither cleans up.
    client.kill().expect("kill ctr");
    client.wait().expect("wait for ctr");
    case.containerd.kill();
    std::thread::sleep(std::time::Duration::from_millis(300));
    case.containerd.serve();
    assert_eq!(
        (case.state().as_str(), case.pid()),
        ("RUNNING", pid),
        "a lost reader does not end the writer"
    );
    let mut command = case.containerd.ctr_command(["tasks", "attach", &case.id]);
    let file = case.containerd.dir("attached");
    let out = std::fs::File::create(&file).expect("make a file");
    let mut client =
        command.stdin(Stdio::null()).stdout(out).stderr(Stdio::null()).spawn().expect("start ctr");
    let read = || std::fs::read_to_string(&file).unwrap_or_default();
    until("output to flow again", 10, || (read().lines().count() > 5).then_some(()));
    case.kill("KILL");
    assert_eq!(testbed::end(&mut client, testbed::patience(10)), Some(137), "attach ends with the task");
    case.remove();
}

fn a_container_that_ends_meanwhile(case: &mut Case<'_>) {
    case.detach(&[], &["sh", "-c", "while [ ! -e /tmp/go ]; do sleep 0.02; done; exit 33"]);
    let pid = case.pid();
    case.containerd.kill();
    std::fs::write(format!("/proc/{pid}/root/tmp/go"), "").expect("reach into the container");
    until("it to end", 10, || {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        (stat.is_empty() || stat.contains(") Z")).then_some(())
    });
    case.containerd.serve();
    // containerd takes a shim without processes for leaked and has it removed; a newer one may keep it.
    until("the task to end", 20, || (case.state() != "RUNNING").then_some(()));
    case.remove();
}

fn a_shim_that_was_killed(case: &mut Case<'_>) {
    case.detach(&[], &["sleep", "1000"]);
    let pid = case.pid();
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("the init is there");
    let parent = status.lines().find(|line| line.starts_with("PPid:")).expect("it has a parent");
    let shim = parent.split_whitespace().nth(1).expect("a pid follows");
    testbed::run(std::process::Command::new("kill").args(["-KILL", shim])).ok();
    // containerd runs the shim's `delete`, which kills what is left and cleans up.
    until("the container to be gone", 15, || {
        (!std::path::Path::new(&format!("/proc/{pid}")).exists()).then_some(())
    });
    until("the task to be gone", 15, || case.state().is_empty().then_some(()));
    case.ctr(&["containers", "delete", &case.id]).ok();
    if case.runtime == Runtime::Runc {
        case.containerd.remove_shim_sockets(); // the Go shim's `delete` leaves its socket file
    }
}
