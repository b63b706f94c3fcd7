//! The docker verbs that act on one container.

use testbed::{run, until, DockerCase, Pty, Runtime, IMAGE};

cases! {
    Plain: run_and_its_exit_code, logs, exec_with_a_terminal, exec_plain, stats, pause, update, cp, restart_policy, stop,
    stop_kills_in_the_end, kill, top, health_check, run_with_a_terminal, stdin, out_of_memory, errors,
    the_runtime_by_its_name_in_daemon_json, wait_and_restart, attach,
}

fn run_and_its_exit_code(case: &DockerCase<'_>) {
    let out = case.run(&[], &["sh", "-c", "echo out; echo err >&2; exit 3"]);
    assert_eq!((out.code, out.stdout.as_str(), out.stderr.as_str()), (3, "out\n", "err\n"), "{out}");
}

fn logs(case: &DockerCase<'_>) {
    case.detach(&[], &["sh", "-c", "for i in 1 2 3; do echo line $i; done; echo err >&2"]);
    case.until_inspect(".State.Status", "exited");
    let out = case.docker(&["logs", &case.name]);
    assert_eq!((out.ok(), out.stderr.as_str()), ("line 1\nline 2\nline 3\n", "err\n"), "{out}");
    case.remove();
}

fn exec_with_a_terminal(case: &DockerCase<'_>) {
    case.detach(&["--hostname", "box"], &["sleep", "1000"]);
    let mut pty = Pty::spawn(&case.docker.command(["exec", "-it", &case.name, "sh"]), 30, 99);
    pty.type_in(
        "tty; until stty size 2>/dev/null | grep 99; do sleep 0.05; done; hostname; echo sum-$((2+5))\n",
    );
    pty.expect("sum-7");
    let screen = pty.screen();
    assert!(screen.contains("/dev/pts/") && screen.contains("30 99") && screen.contains("box"), "{screen:?}");
    pty.type_in("exit 11\n");
    assert_eq!(pty.wait(), 11, "{:?}", pty.screen());
    case.remove();
}

fn exec_plain(case: &DockerCase<'_>) {
    case.detach(&["--env", "A=1"], &["sleep", "1000"]);
    let out = case
        .exec(&["-e", "B=2", "-w", "/etc", "-u", "app"], &["sh", "-c", "echo $A$B $PWD $(id -u); exit 4"]);
    assert_eq!((out.code, out.stdout.as_str()), (4, "12 /etc 1000\n"), "{out}");
    let out = case.exec(&["--privileged"], &["sh", "-c", "grep CapEff /proc/self/status"]);
    let plain = case.exec(&[], &["sh", "-c", "grep CapEff /proc/self/status"]);
    assert_ne!(out.ok(), plain.ok(), "--privileged gives capabilities");
    let out = case.exec(&[], &["no-such-program"]);
    // The code depends on docker's version.
    assert!(out.code == 126 || out.code == 127, "{out}");
    assert!(out.to_string().contains("executable file not found in $PATH"), "{out}");
    let out = case.exec(&[], &["/opt/plain"]);
    assert_eq!(out.code, 126, "{out}");
    case.remove();
}

fn stats(case: &DockerCase<'_>) {
    case.detach(&["--memory", "64m"], &["sh", "-c", "while :; do :; done"]);
    let format = "{{.MemUsage}} {{.PIDs}} {{.CPUPerc}}";
    let row = until("stats with CPU use", 20, || {
        let out = case.docker(&["stats", "--no-stream", "--format", format, &case.name]);
        let row = out.ok().trim().to_owned();
        (!row.ends_with(" 0.00%") && row.contains("64MiB")).then_some(row)
    });
    assert!(row.contains("64MiB 1 "), "one process: {row}");
    case.remove();
}

fn pause(case: &DockerCase<'_>) {
    case.detach(&[], &["sh", "-c", "while :; do echo .; sleep 0.02; done"]);
    let lines = || case.docker(&["logs", &case.name]).ok().len();
    until("output", 10, || (lines() > 0).then_some(()));
    case.docker(&["pause", &case.name]).ok();
    assert_eq!(case.inspect(".State.Status"), "paused");
    std::thread::sleep(std::time::Duration::from_millis(200));
    let paused = lines();
    std::thread::sleep(std::time::Duration::from_millis(200));
    assert_eq!(lines(), paused);
    case.docker(&["unpause", &case.name]).ok();
    until("output again", 10, || (lines() > paused).then_some(()));
    case.remove();
}

fn update(case: &DockerCase<'_>) {
    case.detach(&["--memory", "64m"], &["sleep", "1000"]);
    let memory = || case.cgroup_file("memory", "memory.limit_in_bytes", "memory.max");
    assert_eq!(memory(), (64 << 20).to_string());
    let flags = ["--memory", "96m", "--memory-swap", "96m", "--cpus", "0.5", "--pids-limit", "33"];
    let mut args = vec!["update"];
    args.extend(flags);
    args.push(&case.name);
    case.docker(&args).ok();
    assert_eq!(memory(), (96 << 20).to_string());
    assert_eq!(case.cgroup_file("pids", "pids.max", "pids.max"), "33");
    let quota = case.cgroup_file("cpu", "cpu.cfs_quota_us", "cpu.max");
    assert_eq!(quota.split_whitespace().next(), Some("50000"));
    case.remove();
}

fn cp(case: &DockerCase<'_>) {
    case.detach(&["--tmpfs", "/scratch"], &["sleep", "1000"]);
    let file = case.docker.containerd.dir("to-copy");
    std::fs::write(&file, "content\n").expect("write a file");
    let path = file.to_string_lossy();
    case.docker(&["cp", &path, &format!("{}:/etc/copied", case.name)]).ok();
    assert_eq!(case.exec(&[], &["cat", "/etc/copied"]).ok(), "content\n");
    case.exec(&[], &["sh", "-c", "echo from-inside >/etc/made"]).ok();
    case.docker(&["cp", &format!("{}:/etc/made", case.name), &path]).ok();
    assert_eq!(std::fs::read_to_string(&file).expect("it was copied"), "from-inside\n");
    case.remove();
    std::fs::remove_file(&file).expect("remove the file");
}

fn restart_policy(case: &DockerCase<'_>) {
    case.detach(&["--restart", "on-failure:2"], &["sh", "-c", "echo run; exit 5"]);
    until("two restarts", 30, || {
        (case.inspect(".RestartCount") == "2" && case.inspect(".State.Status") == "exited").then_some(())
    });
    assert_eq!(case.docker(&["logs", &case.name]).ok(), "run\nrun\nrun\n");
    assert_eq!(case.inspect(".State.ExitCode"), "5");
    case.remove();
}

fn stop(case: &DockerCase<'_>) {
    case.detach(&[], &["sh", "-c", "trap 'echo bye; exit 21' TERM; echo up; while :; do sleep 0.02; done"]);
    until("it to be up", 10, || case.docker(&["logs", &case.name]).stdout.contains("up").then_some(()));
    let out = case.docker(&["stop", &case.name]);
    out.ok();
    assert!(out.took.as_secs() < 8, "not by the time limit: {out}");
    assert_eq!(case.inspect(".State.ExitCode"), "21");
    assert_eq!(case.docker(&["logs", &case.name]).ok(), "up\nbye\n");
    case.remove();
}

fn stop_kills_in_the_end(case: &DockerCase<'_>) {
    case.detach(&[], &["sleep", "1000"]); // the init of a pid namespace ignores SIGTERM without a handler
    case.docker(&["stop", "-t", "1", &case.name]).ok();
    assert_eq!(case.inspect(".State.ExitCode"), "137");
    case.remove();
}

fn kill(case: &DockerCase<'_>) {
    case.detach(&[], &["sh", "-c", "trap 'exit 12' USR1; echo up; while :; do sleep 0.02; done"]);
    until("it to be up", 10, || case.docker(&["logs", &case.name]).stdout.contains("up").then_some(()));
    case.docker(&["kill", "-s", "USR1", &case.name]).ok();
    case.until_inspect(".State.Status", "exited");
    assert_eq!(case.inspect(".State.ExitCode"), "12");
    let out = case.docker(&["kill", &case.name]);
    assert!(out.code != 0 && out.stderr.contains("is not running"), "{out}");
    case.remove();
}

fn top(case: &DockerCase<'_>) {
    case.detach(&[], &["sh", "-c", "sleep 1000 & sleep 1001 & wait"]);
    until("three processes", 10, || {
        let out = case.docker(&["top", &case.name, "-o", "pid,args"]);
        (out.ok().contains("sleep 1000") && out.stdout.contains("sleep 1001")).then_some(())
    });
    case.remove();
}

fn health_check(case: &DockerCase<'_>) {
    let flags =
        ["--health-cmd", "test -e /tmp/healthy", "--health-interval", "200ms", "--health-retries", "2"];
    case.detach(&flags, &["sleep", "1000"]);
    case.until_inspect(".State.Health.Status", "unhealthy");
    case.exec(&[], &["touch", "/tmp/healthy"]).ok();
    case.until_inspect(".State.Health.Status", "healthy");
    case.remove();
}

fn run_with_a_terminal(case: &DockerCase<'_>) {
    let mut pty = Pty::spawn(&case.run_command(&["--rm", "-it"], &["sh"]), 31, 98);
    pty.type_in(
        "until stty size 2>/dev/null | grep 98; do sleep 0.05; done; ls -l /dev/console; echo sum-$((2+6))\n",
    );
    pty.expect("sum-8");
    assert!(pty.screen().contains("31 98"), "{:?}", pty.screen());
    pty.type_in("until stty size | grep 140; do sleep 0.05; done\n");
    // The client may not listen for changes yet, and the kernel only reports a change.
    until("the new size", 20, || {
        pty.resize(44, 139);
        pty.resize(45, 140);
        std::thread::sleep(std::time::Duration::from_millis(100));
        pty.screen().contains("45 140").then_some(())
    });
    pty.type_in("exit 6\n");
    assert_eq!(pty.wait(), 6, "{:?}", pty.screen());
}

fn stdin(case: &DockerCase<'_>) {
    let docker = case.run_command(&["--rm", "-i"], &["sh", "-c", "cat; echo end"]);
    let mut command = std::process::Command::new("sh");
    command.arg("-c").arg("echo in | \"$@\"").arg("sh").arg(docker.get_program()).args(docker.get_args());
    for (name, value) in docker.get_envs() {
        command.env(name, value.expect("only set, never removed"));
    }
    assert_eq!(run(&mut command).ok(), "in\nend\n");
}

fn out_of_memory(case: &DockerCase<'_>) {
    // The init lives on for a moment, so that the event is not lost with the container.
    let greedy = "dd if=/dev/zero of=/dev/null bs=200M count=1; code=$?; sleep 1; exit $code";
    case.detach(&["--memory", "16m", "--memory-swap", "16m"], &["sh", "-c", greedy]);
    case.until_inspect(".State.Status", "exited");
    assert_eq!(case.inspect(".State.ExitCode"), "137");
    // (Not every version fills .State.OOMKilled; all send the event.)
    let filter = format!("container={}", case.name);
    let args = ["events", "--since", "1m", "--until", "0s", "--filter", &filter, "--filter", "event=oom"];
    let out = case.docker(&args);
    assert!(out.ok().contains("container oom"), "{out}");
    case.remove();
}

fn errors(case: &DockerCase<'_>) {
    let out = case.run(&[], &["no-such-program"]);
    assert_eq!(out.code, 127, "{out}");
    assert!(out.stderr.contains("executable file not found in $PATH"), "{out}");
    case.docker(&["rm", "-f", &case.name]);
    let out = case.run(&[], &["/opt/plain"]);
    assert_eq!(out.code, 126, "{out}");
    assert!(out.stderr.contains("permission denied"), "{out}");
    case.docker(&["rm", "-f", &case.name]);
    let out = case.run(&["--workdir", "/opt/plain"], &["true"]);
    assert!(out.code != 0, "{out}");
    case.docker(&["rm", "-f", &case.name]);
    // docker's smallest limit. On a busy machine it is too small for runc's own processes.
    let limit = if case.runtime == Runtime::Runc { "32m" } else { "6m" };
    let out = case.run(&["--memory", limit, "--memory-swap", limit], &["true"]);
    out.ok();
}

fn the_runtime_by_its_name_in_daemon_json(case: &DockerCase<'_>) {
    let name = if case.runtime == Runtime::Shoal { "shoal" } else { "runc" };
    assert_eq!(case.docker(&["run", "--rm", "--runtime", name, IMAGE, "echo", "hi"]).ok(), "hi\n");
    assert!(case.docker(&["info"]).ok().contains("shoal"));
}

fn wait_and_restart(case: &DockerCase<'_>) {
    case.detach(&[], &["sh", "-c", "echo up; sleep 0.2; exit 7"]);
    assert_eq!(case.docker(&["wait", &case.name]).ok(), "7\n");
    case.docker(&["restart", &case.name]).ok();
    assert_eq!(case.docker(&["wait", &case.name]).ok(), "7\n");
    case.docker(&["start", &case.name]).ok();
    assert_eq!(case.docker(&["wait", &case.name]).ok(), "7\n");
    assert_eq!(case.docker(&["logs", &case.name]).ok(), "up\nup\nup\n");
    case.remove();
}

fn attach(case: &DockerCase<'_>) {
    case.detach(&[], &["sh", "-c", "trap 'echo bye; exit 4' TERM; while :; do sleep 0.05; done"]);
    let mut command = case.docker.command(["attach", "--sig-proxy=false", &case.name]);
    let attached = std::thread::spawn(move || run(&mut command));
    // Neither the trap nor the client's connection can be queried.
    std::thread::sleep(testbed::patience(1));
    case.docker(&["kill", "-s", "TERM", &case.name]).ok();
    let out = attached.join().expect("attach ends with the container");
    assert_eq!((out.code, out.stdout.as_str()), (4, "bye\n"), "{out}");
    case.remove();
}
