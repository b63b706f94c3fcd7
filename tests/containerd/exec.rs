//! Additional processes in a running container.

use std::io::Read;
use std::time::Duration;
use testbed::{run, until, Case, Pty, Runtime};

cases! {
    exec_runs_inside, exec_has_codes_and_streams, exec_is_read_to_its_end, exec_takes_user_and_cwd,
    exec_detached_lives_on,
    exec_of_a_terminal, exec_fails_where_it_should, execs_end_before_the_init, many_execs_at_once,
    an_exec_can_be_killed, a_container_that_stops_its_execs_can_be_killed,
}

fn exec_runs_inside(case: &mut Case<'_>) {
    case.detach(&["--hostname", "inner", "--env", "COLOUR=blue"], &["sleep", "1000"]);
    assert_eq!(case.exec(&[], &["hostname"]).ok(), "inner\n");
    assert_eq!(case.exec(&[], &["sh", "-c", "echo $COLOUR"]).ok(), "blue\n");
    for ns in ["mnt", "pid", "net", "ipc", "uts"] {
        let link = format!("/proc/self/ns/{ns}");
        let own = std::fs::read_link(format!("/proc/{}/ns/{ns}", case.pid())).expect("read a namespace link");
        assert_eq!(case.exec(&[], &["readlink", &link]).ok().trim(), own.to_string_lossy(), "{ns}");
    }
    let groups =
        std::fs::read_to_string(format!("/proc/{}/cgroup", case.pid())).expect("read the init's cgroup");
    case.exec(&["-d", "--exec-id", "stays"], &["sleep", "1001"]).ok();
    let ps = case.ctr(&["tasks", "ps", &case.id]);
    let line = ps.ok().lines().find(|line| line.contains("stays")).expect("ps knows it");
    let pid = line.split_whitespace().next().expect("it starts with a pid");
    assert_eq!(std::fs::read_to_string(format!("/proc/{pid}/cgroup")).expect("read its cgroup"), groups);
    case.remove();
}

fn exec_has_codes_and_streams(case: &mut Case<'_>) {
    case.detach(&[], &["sleep", "1000"]);
    let out = case.exec(&[], &["sh", "-c", "echo out; echo err >&2; exit 9"]);
    assert_eq!((out.code, out.stdout.as_str()), (9, "out\n"), "{out}");
    assert!(out.stderr.contains("err\n"), "{out}");
    let out = case.exec(&[], &["sh", "-c", "kill -KILL $$"]);
    assert_eq!(out.code, 137, "{out}");
    case.remove();
}

/// The output of a program that has ended is in fifos and pipes that its client reads slowly.
fn exec_is_read_to_its_end(case: &mut Case<'_>) {
    case.detach(&[], &["sleep", "1000"]);
    let mut command = case.exec_command(&[], &["sh", "-c", "head -c 150000 /dev/zero"]);
    let mut child = command.stdout(std::process::Stdio::piped()).spawn().unwrap();
    let mut stdout = child.stdout.take().unwrap();
    std::thread::sleep(Duration::from_secs(1));
    let mut total = 0;
    loop {
        match stdout.read(&mut [0; 10_000]).unwrap() {
            0 => break,
            length => total += length,
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    // With runc's shim the client gives up what it has not read when the process is deleted.
    assert!(total == 150_000 || case.runtime == Runtime::Runc && total < 150_000, "{total}");
    assert!(child.wait().unwrap().success());
    case.remove();
}

fn exec_takes_user_and_cwd(case: &mut Case<'_>) {
    case.detach(&[], &["sleep", "1000"]);
    assert_eq!(case.exec(&["--cwd", "/etc"], &["pwd"]).ok(), "/etc\n");
    assert_eq!(case.exec(&["--user", "1000:1000"], &["sh", "-c", "id -u; id -g"]).ok(), "1000\n1000\n");
    case.remove();
}

fn exec_detached_lives_on(case: &mut Case<'_>) {
    case.detach(&[], &["sh", "-c", "while [ ! -e /tmp/go ]; do sleep 0.05; done; exit 6"]);
    case.exec(&["-d", "--exec-id", "d"], &["sh", "-c", "sleep 0.2; touch /tmp/go"]).ok();
    case.until_state("STOPPED");
    assert_eq!(case.delete_task(), 6);
    case.remove();
}

fn exec_of_a_terminal(case: &mut Case<'_>) {
    case.detach(&[], &["sleep", "1000"]);
    let mut pty = Pty::spawn(&case.exec_command(&["-t"], &["sh"]), 33, 101);
    pty.type_in("tty; until stty size 2>/dev/null | grep 101; do sleep 0.05; done; echo in-$((40+2))\n");
    pty.expect("in-42");
    assert!(pty.screen().contains("/dev/pts/") && pty.screen().contains("33 101"), "{:?}", pty.screen());
    pty.type_in("exit 12\n");
    assert_eq!(pty.wait(), 12, "{:?}", pty.screen());
    case.remove();
}

fn exec_fails_where_it_should(case: &mut Case<'_>) {
    case.detach(&[], &["sleep", "1000"]);
    for (command, words) in [
        ("/nope", "no such file or directory"),
        ("/opt/plain", "permission denied"),
        ("/opt/orphan", "no such file or directory"),
        ("no-such-program", "executable file not found in $PATH"),
    ] {
        case.exec(&[], &[command]).fails_with(words);
    }
    let out = case.exec(&[], &["/opt"]);
    assert!(out.stderr.contains("is a directory") || out.stderr.contains("permission denied"), "{out}");
    case.exec(&["--cwd", "/nowhere"], &["pwd"]).fails_with("no such file or directory");
    // A failed exec frees its id and leaves the container unchanged.
    assert_eq!(case.exec(&[], &["echo", "fine"]).ok(), "fine\n");
    assert_eq!(case.state(), "RUNNING");
    case.ctr(&["tasks", "pause", &case.id]).ok();
    case.exec(&[], &["true"]).fails_with("paused");
    case.ctr(&["tasks", "resume", &case.id]).ok();
    case.kill("KILL");
    case.until_state("STOPPED");
    assert_ne!(case.exec(&[], &["true"]).code, 0);
    case.remove();
    case.exec(&[], &["true"]).fails_as_not_found();
}

fn execs_end_before_the_init(case: &mut Case<'_>) {
    let events = case.events();
    case.detach(&[], &["sleep", "1000"]);
    for id in ["e1", "e2", "e3"] {
        case.exec(&["-d", "--exec-id", id], &["sleep", "1001"]).ok();
    }
    case.kill("KILL");
    case.until_state("STOPPED");
    case.remove();
    let all = events.until(&case.id, "/tasks/delete");
    let exits: Vec<_> =
        all.iter().filter(|event| event.topic == "/tasks/exit").map(|e| e.field("id")).collect();
    assert_eq!(exits.len(), 4, "{all:?}");
    assert_eq!(exits[3], case.id, "the init's exit comes last: {all:?}");
}

fn many_execs_at_once(case: &mut Case<'_>) {
    case.detach(&[], &["sleep", "1000"]);
    let all: Vec<_> = (0..12)
        .map(|n| {
            let mut command = case.exec_command(
                &["--exec-id", &format!("e{n}")],
                &["sh", "-c", &format!("echo {n}; exit {n}")],
            );
            std::thread::spawn(move || run(&mut command))
        })
        .collect();
    for (n, thread) in all.into_iter().enumerate() {
        let out = thread.join().expect("run does not panic");
        assert_eq!((out.code, out.stdout.as_str()), (n as i32, format!("{n}\n").as_str()), "{out}");
    }
    case.remove();
}

fn an_exec_can_be_killed(case: &mut Case<'_>) {
    case.detach(&[], &["sleep", "1000"]);
    let mut command = case.exec_command(&["--exec-id", "victim"], &["sh", "-c", "echo up; exec sleep 1001"]);
    let thread = std::thread::spawn(move || run(&mut command));
    until("the exec to run", 10, || {
        case.ctr(&["tasks", "ps", &case.id]).stdout.contains("victim").then_some(())
    });
    until("the signal to arrive", 10, || {
        (case.ctr(&["tasks", "kill", "-s", "KILL", "--exec-id", "victim", &case.id]).code == 0).then_some(())
    });
    let out = thread.join().expect("run does not panic");
    assert_eq!(out.code, 137, "{out}");
    assert_eq!(case.state(), "RUNNING");
    case.ctr(&["tasks", "kill", "--exec-id", "victim", &case.id]).fails_as_not_found();
    case.remove();
}

/// An exec is stopped before it runs by a container that stops whatever appears in its pid namespace. The container
/// can still be killed.
fn a_container_that_stops_its_execs_can_be_killed(case: &mut Case<'_>) {
    if case.runtime == Runtime::Runc {
        return println!("with runc it can be killed too, but the case then takes a minute");
    }
    case.detach(&[], &["sh", "-c", "while :; do kill -STOP -1 2>/dev/null; done"]);
    let mut command = case.exec_command(&["--exec-id", "e"], &["true"]);
    let thread = std::thread::spawn(move || run(&mut command));
    std::thread::sleep(std::time::Duration::from_secs(1));
    case.ctr(&["tasks", "kill", "-s", "KILL", &case.id]).ok();
    case.until_state("STOPPED");
    thread.join().expect("run does not panic");
    case.remove();
}
