//! Kill with every signal, pause and resume.

use testbed::{cgroup_path, until, Case, Runtime};

cases! {
    every_signal_arrives, stop_and_continue, kill_all_reaches_the_children, kill_of_what_is_gone,
    pause_stops_and_resume_goes_on, a_paused_container_can_be_killed, one_that_others_have_frozen_refuses_an_exec_and_can_be_killed,
    sigterm_runs_the_handler,
}

fn every_signal_arrives(case: &mut Case<'_>) {
    // 9 and 19 cannot be caught, 17 arrives by itself, 32 and 33 belong to the C library.
    let all: Vec<u32> = (1..=64).filter(|n| ![9, 17, 19, 32, 33].contains(n)).collect();
    let list = all.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ");
    let log = case.containerd.dir("signals.log");
    let script = format!(
        "for s in {list}; do trap \"echo got $s.\" $s; done; echo ready; while :; do sleep 0.02; done"
    );
    let uri = format!("file://{}", log.display());
    case.detach(&["--log-uri", &uri], &["sh", "-c", &script]);
    let text = || std::fs::read_to_string(&log).unwrap_or_default();
    until("the traps to be set", 20, || text().contains("ready").then_some(()));
    for signal in &all {
        case.kill(&signal.to_string());
    }
    for signal in &all {
        until(&format!("signal {signal}"), 10, || text().contains(&format!("got {signal}.\n")).then_some(()));
    }
    case.remove();
    std::fs::remove_file(&log).expect("remove the log");
}

fn stop_and_continue(case: &mut Case<'_>) {
    case.detach(&[], &["sleep", "1000"]);
    let state = || {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", case.pid())).expect("the init is there");
        stat.rsplit(") ").next().and_then(|rest| rest.chars().next()).expect("a state follows the name")
    };
    case.kill("STOP");
    until("the init to stop", 10, || (state() == 'T').then_some(()));
    assert_eq!(case.state(), "RUNNING");
    case.kill("CONT");
    until("the init to go on", 10, || (state() == 'S').then_some(()));
    case.remove();
}

fn kill_all_reaches_the_children(case: &mut Case<'_>) {
    case.detach(&[], &["sh", "-c", "trap '' TERM; sleep 1000 & sleep 1001 & wait"]);
    until("three processes", 10, || {
        (case.ctr(&["tasks", "ps", &case.id]).ok().lines().count() == 4).then_some(())
    });
    case.ctr(&["tasks", "kill", "-a", "-s", "KILL", &case.id]).ok();
    case.until_state("STOPPED");
    assert_eq!(case.delete_task(), 137);
    case.remove();
}

fn kill_of_what_is_gone(case: &mut Case<'_>) {
    case.detach(&[], &["true"]);
    case.until_state("STOPPED");
    case.ctr(&["tasks", "kill", &case.id]).fails_as_not_found();
    case.remove();
    case.ctr(&["tasks", "kill", &case.id]).fails_as_not_found();
}

fn pause_stops_and_resume_goes_on(case: &mut Case<'_>) {
    let log = case.containerd.dir("pause.log");
    let uri = format!("file://{}", log.display());
    case.detach(&["--log-uri", &uri], &["sh", "-c", "while :; do echo .; sleep 0.02; done"]);
    let size = || std::fs::metadata(&log).map(|data| data.len()).unwrap_or(0);
    until("it to write", 10, || (size() > 0).then_some(()));
    for _ in 0..2 {
        case.ctr(&["tasks", "pause", &case.id]).ok();
        assert_eq!(case.state(), "PAUSED");
        let paused = size();
        std::thread::sleep(std::time::Duration::from_millis(200));
        assert_eq!(size(), paused, "a paused container writes nothing");
        case.ctr(&["tasks", "resume", &case.id]).ok();
        assert_eq!(case.state(), "RUNNING");
        until("it to write again", 10, || (size() > paused).then_some(()));
    }
    case.remove();
    std::fs::remove_file(&log).expect("remove the log");
}

fn a_paused_container_can_be_killed(case: &mut Case<'_>) {
    case.detach(&[], &["sleep", "1000"]);
    case.ctr(&["tasks", "pause", &case.id]).ok();
    case.kill("KILL");
    // On cgroup v1 the signal is pending until the thaw, unless the runtime thaws.
    if case.state() == "PAUSED" {
        case.ctr(&["tasks", "resume", &case.id]);
    }
    case.until_state("STOPPED");
    assert_eq!(case.delete_task(), 137);
    case.remove();
}

/// Freezes as the host's administrator may, by a write to the container's cgroup.
fn one_that_others_have_frozen_refuses_an_exec_and_can_be_killed(case: &mut Case<'_>) {
    case.detach(&[], &["sleep", "1000"]);
    let freeze = || {
        let file = cgroup_path(case.pid(), "freezer", "freezer.state", "cgroup.freeze");
        let word = if file.ends_with("freezer.state") { "FROZEN" } else { "1" };
        std::fs::write(&file, word).expect("freeze it");
        let done = || case.cgroup_file("freezer", "freezer.state", "cgroup.events");
        until("it to freeze", 10, || {
            let done = done();
            (done == "FROZEN" || done.contains("frozen 1")).then_some(())
        });
    };
    freeze();
    case.exec(&[], &["true"]).fails_with("paused");
    // The Go shim reports the state that it remembers.
    if case.runtime == Runtime::Shoal {
        assert_eq!(case.state(), "PAUSED");
        case.ctr(&["tasks", "resume", &case.id]).ok();
        assert_eq!(case.state(), "RUNNING");
        freeze();
    }
    case.kill("KILL");
    case.until_state("STOPPED");
    assert_eq!(case.delete_task(), 137);
    case.remove();
}

fn sigterm_runs_the_handler(case: &mut Case<'_>) {
    let log = case.containerd.dir("term.log");
    let uri = format!("file://{}", log.display());
    case.detach(
        &["--log-uri", &uri],
        &["sh", "-c", "trap 'echo bye; exit 21' TERM; echo up; while :; do sleep 0.02; done"],
    );
    let text = || std::fs::read_to_string(&log).unwrap_or_default();
    until("it to be up", 10, || text().contains("up").then_some(()));
    case.ctr(&["tasks", "kill", &case.id]).ok();
    case.until_state("STOPPED");
    assert_eq!(case.delete_task(), 21);
    assert_eq!(text(), "up\nbye\n");
    case.remove();
    std::fs::remove_file(&log).expect("remove the log");
}
