//! The life of one container: run, wait, state, delete.

use testbed::{run, until, Case, Events, Runtime};

cases! {
    run_prints_and_ends, exit_codes_come_through, run_detached, an_id_can_be_used_again, create_then_start,
    stdin_reaches_the_container_and_ends, ps_lists_all_processes, metrics_are_live, every_metric_of_runc_is_there,
    events_come_in_order,
    many_lines_come_complete, null_io, the_snapshotter_may_be_native, the_pid_file_names_the_init,
    attach_shows_what_is_written, a_container_leaves_no_process_behind,
}

fn run_prints_and_ends(case: &mut Case<'_>) {
    let out = case.run(&[], &["sh", "-c", "echo out; echo err >&2; exit 3"]);
    assert_eq!((out.code, out.stdout.as_str()), (3, "out\n"), "{out}");
    assert!(out.stderr.contains("err\n"), "{out}");
}

fn exit_codes_come_through(case: &mut Case<'_>) {
    for code in [0, 1, 42, 255] {
        let out = case.run(&[], &["sh", "-c", &format!("exit {code}")]);
        assert_eq!(out.code, code, "{out}");
    }
    // The init of a pid namespace does not die of its own signals; its child does, and sh reports 128 + 15.
    let out = case.run(&[], &["sh", "-c", "sh -c 'kill -TERM $$'; exit $?"]);
    assert_eq!(out.code, 143, "{out}");
}

fn run_detached(case: &mut Case<'_>) {
    case.detach(&[], &["sleep", "1000"]);
    assert_eq!(case.state(), "RUNNING");
    let words =
        std::fs::read_to_string(format!("/proc/{}/cmdline", case.pid())).expect("the pid is the container's");
    assert_eq!(words, "sleep\x001000\0");
    case.ctr(&["tasks", "delete", &case.id]).fails_with("must be stopped");
    case.kill("KILL");
    case.until_state("STOPPED");
    assert_eq!(case.delete_task(), 137);
    assert_eq!(case.state(), "");
    case.remove();
}

fn an_id_can_be_used_again(case: &mut Case<'_>) {
    for round in ["1", "2", "3"] {
        assert_eq!(case.run(&[], &["echo", round]).ok(), format!("{round}\n"));
    }
    case.detach(&[], &["sleep", "1000"]);
    case.run(&[], &["true"]).fails_with("already exists");
    assert_eq!(case.state(), "RUNNING", "the failed one must not touch the one that runs");
    case.remove();
}

fn create_then_start(case: &mut Case<'_>) {
    let image = case.containerd.image();
    case.ctr(&["containers", "create", "--runtime", case.runtime.name(), image, &case.id, "echo", "started"])
        .ok();
    for _ in 0..2 {
        let out = case.ctr(&["tasks", "start", &case.id]);
        assert_eq!(out.ok(), "started\n", "{out}");
    }
    case.ctr(&["containers", "delete", &case.id]).ok();
}

fn stdin_reaches_the_container_and_ends(case: &mut Case<'_>) {
    let mut command = std::process::Command::new("sh");
    let ctr = case.run_command(&["--rm"], &case.id, &["sh", "-c", "cat; echo end"]);
    command
        .arg("-c")
        .arg("(printf 'one\\ntwo\\n'; sleep 1) | \"$@\"")
        .arg("sh")
        .arg(ctr.get_program())
        .args(ctr.get_args());
    for (name, value) in ctr.get_envs() {
        command.env(name, value.expect("only set, never removed"));
    }
    assert_eq!(run(&mut command).ok(), "one\ntwo\nend\n");
}

fn ps_lists_all_processes(case: &mut Case<'_>) {
    case.detach(&[], &["sh", "-c", "sleep 1000 & sleep 1001 & wait"]);
    case.exec(&["-d", "--exec-id", "extra"], &["sleep", "1002"]).ok();
    let all = until("four processes", 10, || {
        let out = case.ctr(&["tasks", "ps", &case.id]);
        (out.ok().lines().count() == 5).then(|| out.stdout.clone())
    });
    assert!(all.contains(&case.pid().to_string()), "{all}");
    let exec = all.lines().find(|line| line.contains("exec_id:\"extra\"")).expect("the exec's id is told");
    let pid = exec.split_whitespace().next().unwrap_or_default();
    let words = std::fs::read_to_string(format!("/proc/{pid}/cmdline")).expect("that pid is there");
    assert_eq!(words, "sleep\x001002\0");
    case.remove();
}

fn metrics_are_live(case: &mut Case<'_>) {
    case.detach(&["--memory-limit", "67108864"], &["sh", "-c", "while :; do :; done"]);
    let v2 = std::path::Path::new("/sys/fs/cgroup/cgroup.controllers").exists();
    let cpu = || {
        let out = case.ctr(&["tasks", "metrics", "--format", "json", &case.id]);
        let json: serde_json::Value = serde_json::from_str(out.ok()).expect("ctr prints JSON");
        let at = |path: &str| json.pointer(path).and_then(serde_json::Value::as_u64).unwrap_or(0);
        assert_eq!(at("/pids/current"), 1, "{out}");
        assert_eq!(at(if v2 { "/memory/usage_limit" } else { "/memory/usage/limit" }), 67108864, "{out}");
        assert!(at(if v2 { "/memory/usage" } else { "/memory/usage/usage" }) > 0, "{out}");
        at(if v2 { "/cpu/usage_usec" } else { "/cpu/usage/total" })
    };
    let first = cpu();
    assert!(first > 0, "a busy loop uses the CPU");
    until("the CPU time to grow", 10, || (cpu() > first).then_some(()));
    let table = case.ctr(&["tasks", "metrics", &case.id]);
    assert!(table.ok().contains("pids.current"), "{table}");
    case.remove();
}

type Numbers = std::collections::BTreeMap<String, f64>;

/// Collects every number of a document by its path, without the indices of list elements.
fn numbers(value: &serde_json::Value, path: &str, all: &mut Numbers) {
    match value {
        serde_json::Value::Object(fields) => {
            fields.iter().for_each(|(name, value)| numbers(value, &format!("{path}/{name}"), all));
        }
        serde_json::Value::Array(list) => {
            list.iter().for_each(|value| numbers(value, &format!("{path}[]"), all));
        }
        value => drop(all.insert(path.to_owned(), value.as_f64().unwrap_or(0.0))),
    }
}

/// Returns whether a metric may be zero (and is then left out of the document) or not from one run to the next: who
/// is charged for a cached page, which list it is on, how long something was waited for, and what is counted in
/// batches.
fn by_chance(path: &str) -> bool {
    const WORDS: [&str; 15] = [
        "active_",
        "cache",
        "/file",
        "maj_fault",
        "majfault",
        "dirty",
        "writeback",
        "workingset",
        "pgscan",
        "pgsteal",
        "pressure",
        "/psi",
        "thp_",
        "kernel_stack",
        "mapped_file",
    ];
    WORDS.iter().any(|word| path.contains(word))
}

/// Checks that every field that runc's shim fills is filled, in the same units, and that limits are equal.
fn every_metric_of_runc_is_there(case: &mut Case<'_>) {
    if case.runtime == Runtime::Runc {
        return; // it is the other half of shoal's case
    }
    // Uses some CPU time, causes page faults, writes and reads a file, and then sleeps.
    let work = "i=0; while [ $i -lt 50000 ]; do i=$((i+1)); done; \
        while [ $i -lt 50050 ]; do dd if=/dev/zero of=/f bs=64k count=16 2>/dev/null; cat /f >/dev/null; i=$((i+1)); done; \
        : >/done; sleep 1000";
    let measured = |case: &Case<'_>| {
        case.detach(&["--memory-limit", "67108864", "--cpus", "0.1"], &["sh", "-c", work]);
        until("the work to be done", 20, || {
            std::path::Path::new(&format!("/proc/{}/root/done", case.pid())).exists().then_some(())
        });
        let out = case.ctr(&["tasks", "metrics", "--format", "json", &case.id]);
        let mut all = Numbers::new();
        numbers(&serde_json::from_str(out.ok()).expect("ctr prints JSON"), "", &mut all);
        case.remove();
        all
    };
    let only = |these: &Numbers, those: &Numbers| {
        let lacking = these.keys().filter(|path| !those.contains_key(*path) && !by_chance(path));
        lacking.cloned().collect::<Vec<_>>()
    };
    let id = case.id("control");
    let (mut ours, mut theirs) = (Numbers::new(), Numbers::new());
    // Any single number may be zero once.
    for _ in 0..3 {
        ours.extend(measured(case));
        let control = Case { containerd: &mut *case.containerd, runtime: Runtime::Runc, id: id.clone() };
        theirs.extend(measured(&control));
        if only(&ours, &theirs).is_empty() && only(&theirs, &ours).is_empty() {
            break;
        }
    }
    assert!(ours.len() > 15, "{ours:?}");
    assert_eq!(only(&theirs, &ours), Vec::<String>::new(), "only runc has them; shoal: {ours:#?}");
    assert_eq!(only(&ours, &theirs), Vec::<String>::new(), "only shoal has them; runc: {theirs:#?}");
    for (path, our) in ours.iter().filter(|(path, _)| theirs.contains_key(*path)) {
        let their = theirs[path];
        if path.ends_with("limit") {
            assert_eq!(*our, their, "{path}");
        } else if *our != their && !by_chance(path) {
            // The work differs, but the units must not: a page is 4096 bytes, a microsecond 1000 nanoseconds.
            assert!((0.01..100.0).contains(&(our / their)), "{path}: {our}, and {their} with runc");
        }
    }
}

fn events_come_in_order(case: &mut Case<'_>) {
    let events: Events = case.events();
    case.detach(&[], &["sleep", "1000"]);
    let pid = u64::from(case.pid());
    let out = case.exec(&["--exec-id", "e1"], &["sh", "-c", "exit 7"]);
    assert_eq!(out.code, 7, "{out}");
    case.ctr(&["tasks", "pause", &case.id]).ok();
    case.ctr(&["tasks", "resume", &case.id]).ok();
    case.kill("KILL");
    case.until_state("STOPPED");
    case.remove();
    let all = events.until(&case.id, "/tasks/delete");
    let topics: Vec<_> = all.iter().map(|event| event.topic.trim_start_matches("/tasks/")).collect();
    assert_eq!(
        topics,
        ["create", "start", "exec-added", "exec-started", "exit", "paused", "resumed", "exit", "delete"],
        "{all:?}"
    );
    assert_eq!(all[0].number("pid"), pid, "{all:?}");
    assert!(all[0].field("bundle").ends_with(&case.id), "{all:?}");
    assert_eq!(all[1].number("pid"), pid, "{all:?}");
    assert_eq!((all[2].field("exec_id"), all[3].field("exec_id")), ("e1", "e1"), "{all:?}");
    assert_eq!((all[4].field("id"), all[4].number("exit_status")), ("e1", 7), "{all:?}");
    assert_eq!(all[4].number("pid"), all[3].number("pid"), "{all:?}");
    assert_eq!((all[7].field("id"), all[7].number("exit_status")), (case.id.as_str(), 137), "{all:?}");
    assert_eq!((all[8].number("pid"), all[8].number("exit_status")), (pid, 137), "{all:?}");
}

fn many_lines_come_complete(case: &mut Case<'_>) {
    let out = case
        .run(&[], &["sh", "-c", "i=0; while [ $i -lt 5000 ]; do echo line $i; i=$((i+1)); done; echo e >&2"]);
    assert_eq!(out.ok().lines().count(), 5000, "{}", out.stderr);
    assert!(out.stdout.ends_with("line 4999\n") && out.stderr.contains("e\n"));
    // More than a pipe holds, at once.
    let out = case.run(&[], &["sh", "-c", "dd if=/dev/zero bs=1M count=3 2>/dev/null | tr '\\0' x"]);
    assert_eq!(out.ok().len(), 3 << 20, "{}", out.stderr);
}

fn null_io(case: &mut Case<'_>) {
    let out = case.run(&["--null-io"], &["sh", "-c", "echo lost; cat; exit 5"]);
    assert_eq!((out.code, out.stdout.as_str()), (5, ""), "{out}");
}

fn the_snapshotter_may_be_native(case: &mut Case<'_>) {
    let out = case.run(&["--snapshotter", "native"], &["sh", "-c", "echo x >/file && cat /file"]);
    assert_eq!(out.ok(), "x\n");
}

fn the_pid_file_names_the_init(case: &mut Case<'_>) {
    let file = case.containerd.dir("pid-file");
    case.detach(&["--pid-file", &file.to_string_lossy()], &["sleep", "1000"]);
    let pid = std::fs::read_to_string(&file).expect("ctr wrote it");
    assert_eq!(pid, case.pid().to_string());
    case.remove();
}

fn attach_shows_what_is_written(case: &mut Case<'_>) {
    case.detach(&[], &["sh", "-c", "trap 'echo bye; exit 4' TERM; while :; do sleep 0.1; done"]);
    let attach = case.containerd.ctr_command(["tasks", "attach", &case.id]);
    let waiter = std::thread::spawn(move || run(&mut { attach }));
    // The trap is set once the shell runs, and the client is attached once it holds the FIFO. Neither can be queried.
    std::thread::sleep(testbed::patience(1) / 2);
    case.kill("TERM");
    let out = waiter.join().expect("attach ends with the task");
    assert!(out.stdout.contains("bye"), "{out}");
    assert_eq!(out.code, 4, "{out}");
    case.remove();
}

fn a_container_leaves_no_process_behind(case: &mut Case<'_>) {
    // In a session of its own and ignoring signals: only the end of the pid namespace ends it.
    let out =
        case.run(&[], &["sh", "-c", "trap '' HUP INT TERM; setsid sleep 1003 & setsid sleep 1004 & exit 0"]);
    out.ok();
}
