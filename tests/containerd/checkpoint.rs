//! `ctr containers checkpoint` and `restore`, `ctr tasks checkpoint`: what CRIU writes down goes on elsewhere.

use std::fs::read_to_string;
use std::path::Path;
use std::process::Command;
use testbed::{run, until, Case, Events, Pty, Runtime, Suite};

cases! {
    a_restored_container_goes_on_where_it_was, what_it_writes_reaches_who_restores, a_restored_terminal_is_one,
    a_checkpoint_can_end_the_container, a_paused_container_stays_paused, limits_binds_and_filter_are_restored,
    what_criu_cannot_do_is_told_and_changes_nothing, a_source_that_is_gone_fails_the_restore_and_leaves_nothing,
    the_hosts_network_is_joined_again, joined_namespaces_are_joined_again,
}

/// Counts, in a file of its own and aloud.
const COUNT: &str = "i=0; while :; do i=$((i+1)); echo $i >/count; echo count-$i; sleep 0.1; done";

fn count(case: &Case<'_>) -> u32 {
    let path = format!("/proc/{}/root/count", case.pid());
    until("a count", 20, || read_to_string(&path).ok()?.trim().parse().ok())
}

/// Of a container that has counted, which goes on afterwards; how far it was.
fn checkpoint(case: &Case<'_>, name: &str) -> u32 {
    until("it to count", 20, || (count(case) > 3).then_some(()));
    forget(case, name);
    case.ctr(&["containers", "checkpoint", "--rw", "--task", &case.id, name]).ok();
    let at = count(case);
    until("it to go on", 20, || (count(case) > at).then_some(()));
    at
}

fn restore(case: &Case<'_>, name: &str) -> Command {
    case.containerd.ctr_command(["containers", "restore", "--rw", "--live", &case.id, name])
}

/// ctr is not attached to what it restores, but for a terminal.
fn restored(case: &Case<'_>, name: &str) {
    run(&mut restore(case, name)).ok();
    assert_eq!(case.state(), "RUNNING");
}

/// Of an attempt that failed, too. containerd leaves the folder that it has given to the shim.
fn forget(case: &Case<'_>, name: &str) {
    case.ctr(&["images", "rm", "--sync", name]);
    case.containerd.forget_checkpoints();
}

fn a_restored_container_goes_on_where_it_was(case: &mut Case<'_>) {
    case.detach(&[], &["sh", "-c", COUNT]);
    let first = case.pid();
    let at = checkpoint(case, "goes-on");
    case.remove();
    let events: Events = case.events();
    restored(case, "goes-on");
    assert_ne!(case.pid(), first);
    let now = count(case);
    assert!((at..at + 30).contains(&now), "{now}, and {at} before");
    until("it to go on", 20, || (count(case) > now).then_some(()));
    let out = case.exec(&[], &["sh", "-c", "ls -d /proc/[0-9]*; cat /proc/1/comm"]);
    assert!(out.ok().contains("/proc/1\n") && out.stdout.ends_with("sh\n"), "{out}");
    case.ctr(&["tasks", "pause", &case.id]).ok();
    assert_eq!(case.state(), "PAUSED");
    case.ctr(&["tasks", "resume", &case.id]).ok();
    let pid = u64::from(case.pid());
    case.kill("TERM"); // the first process of a pid namespace is deaf to it
    case.kill("KILL");
    case.until_state("STOPPED");
    assert_eq!(case.delete_task(), 137);
    case.remove();
    forget(case, "goes-on");
    let all = events.until(&case.id, "/tasks/delete");
    let topics = all.iter().map(|event| event.topic.trim_start_matches("/tasks/"));
    let own: Vec<_> = topics.filter(|topic| !topic.starts_with("exec-")).collect();
    // The one between is the exec's.
    assert_eq!(own, ["create", "start", "exit", "paused", "resumed", "exit", "delete"], "{all:?}");
    let of = |topic: &str| all.iter().rev().find(|event| event.topic.ends_with(topic)).expect("it was told");
    assert_eq!((of("create").number("pid"), of("start").number("pid")), (0, pid), "{all:?}");
    assert_eq!((of("exit").number("pid"), of("exit").number("exit_status")), (pid, 137), "{all:?}");
    assert_eq!(of("delete").number("pid"), pid, "{all:?}");
}

fn what_it_writes_reaches_who_restores(case: &mut Case<'_>) {
    case.detach(&[], &["sh", "-c", COUNT]);
    let at = checkpoint(case, "writes");
    case.remove();
    restored(case, "writes");
    let attach = case.containerd.ctr_command(["tasks", "attach", &case.id]);
    let attached = std::thread::spawn(move || run(&mut { attach }));
    until("some counting", 20, || (count(case) > at + 20).then_some(()));
    case.kill("KILL");
    let out = attached.join().expect("attach ends with the task");
    assert!(out.stdout.contains(&format!("count-{}\n", at + 20)), "{out}");
    case.remove();
    forget(case, "writes");
}

fn a_restored_terminal_is_one(case: &mut Case<'_>) {
    let mut first = Pty::spawn(&case.run_command(&["-t"], &case.id, &["sh"]), 25, 90);
    first.type_in("kept=value-$((20+3)); echo up-$((1+1))\n");
    first.expect("up-2");
    forget(case, "terminal");
    case.ctr(&["containers", "checkpoint", "--rw", "--task", &case.id, "terminal"]).ok();
    case.kill("KILL");
    first.wait();
    // 1.7 leaves the task to its client, which is gone with it.
    case.ctr(&["tasks", "delete", &case.id]);
    case.ctr(&["containers", "delete", &case.id]).ok();
    let mut second = Pty::spawn(&restore(case, "terminal"), 25, 90);
    until("the restored shell", 30, || (case.state() == "RUNNING").then_some(()));
    second.type_in("echo $kept; tty\n");
    second.expect("value-23");
    second.expect("/dev/pts/0");
    second.type_in("until stty size | grep 122; do sleep 0.05; done\n");
    until("the new size", 20, || {
        second.resize(43, 121);
        second.resize(44, 122);
        std::thread::sleep(std::time::Duration::from_millis(100));
        second.screen().contains("44 122").then_some(())
    });
    second.type_in("exit 7\n");
    assert_eq!(second.wait(), 7, "{:?}", second.screen());
    // ctr may leave each of them.
    case.ctr(&["tasks", "delete", &case.id]);
    case.ctr(&["containers", "delete", &case.id]);
    case.ctr(&["snapshots", "rm", &case.id]);
    forget(case, "terminal");
}

/// A folder that the client names, and what is in it then.
fn task_checkpoint(case: &Case<'_>, more: &[&str]) -> (std::path::PathBuf, testbed::Output) {
    let images = case.containerd.dir(&format!("images-{}", case.id));
    let mut args = vec!["tasks", "checkpoint", "--image-path", images.to_str().expect("UTF-8")];
    args.extend(more);
    args.push(&case.id);
    let out = case.ctr(&args);
    (images, out)
}

/// ctr of 1.7 gives its flags to runc's shim only.
fn flags_are_lost(case: &Case<'_>) -> bool {
    case.runtime == Runtime::Shoal && case.containerd.suite == Suite::Trixie
}

fn a_checkpoint_can_end_the_container(case: &mut Case<'_>) {
    if flags_are_lost(case) {
        return;
    }
    case.detach(&[], &["sh", "-c", COUNT]);
    count(case);
    let work = case.containerd.dir("work");
    let (images, out) = task_checkpoint(case, &["--exit", "--work-path", work.to_str().expect("UTF-8")]);
    out.ok();
    case.until_state("STOPPED");
    assert_eq!(case.delete_task(), 137);
    case.ctr(&["containers", "delete", &case.id]).ok();
    let names = read_to_string(images.join("descriptors.json")).expect("the streams' names");
    assert_eq!(serde_json::from_str::<Vec<String>>(&names).expect("JSON").len(), 3, "{names}");
    assert!(images.join("pstree.img").exists() && work.join("dump.log").exists());
    for folder in [images, work] {
        std::fs::remove_dir_all(folder).expect("remove the images");
    }
}

fn a_paused_container_stays_paused(case: &mut Case<'_>) {
    if flags_are_lost(case) {
        return;
    }
    case.detach(&[], &["sh", "-c", COUNT]);
    count(case);
    case.ctr(&["tasks", "pause", &case.id]).ok();
    let at = count(case);
    let (images, out) = task_checkpoint(case, &[]);
    out.ok();
    assert_eq!(case.state(), "PAUSED");
    std::thread::sleep(testbed::patience(1) / 2);
    assert_eq!(count(case), at);
    case.ctr(&["tasks", "resume", &case.id]).ok();
    until("it to go on", 20, || (count(case) > at).then_some(()));
    case.remove();
    std::fs::remove_dir_all(images).expect("remove the images");
}

fn limits_binds_and_filter_are_restored(case: &mut Case<'_>) {
    let (one, other) = (case.containerd.dir("one"), case.containerd.dir("other"));
    for folder in [&one, &other] {
        std::fs::create_dir(folder).expect("make a source");
        std::fs::write(folder.join("name"), folder.display().to_string()).expect("write a file");
    }
    let mount = |from: &Path, to: &str| format!("type=bind,src={},dst={to},options=rbind:ro", from.display());
    let flags = ["--null-io", "--seccomp", "--memory-limit", "67108864", "--mount"];
    let mounts = [mount(&one, "/one"), mount(&other, "/other")];
    let flags = [&flags[..], &[&mounts[0], "--mount", &mounts[1]]].concat();
    case.detach(&flags, &["sh", "-c", COUNT]);
    checkpoint(case, "limits");
    case.remove();
    restored(case, "limits");
    for (name, folder) in [("one", &one), ("other", &other)] {
        let text = read_to_string(format!("/proc/{}/root/{name}/name", case.pid())).expect("it is mounted");
        assert_eq!(text, folder.display().to_string());
    }
    let limit = case.cgroup_file("memory", "memory.limit_in_bytes", "memory.max");
    assert_eq!(limit, "67108864");
    let status = read_to_string(format!("/proc/{}/status", case.pid())).expect("it lives");
    assert!(status.contains("Seccomp:\t2\n"), "{status}");
    let mounts = read_to_string(format!("/proc/{}/mountinfo", case.pid())).expect("it lives");
    let closed = |point: &str| {
        let line = mounts.lines().find(|line| line.split(' ').nth(4) == Some(point)).expect(point);
        line.split(' ').nth(5).expect("options").split(',').any(|option| option == "ro")
    };
    assert!(closed("/one") && closed("/other"), "{mounts}");
    if case.runtime == Runtime::Shoal {
        // runc leaves the host's null device to be changed through the masks.
        assert!(closed("/proc/keys") && closed("/proc/timer_list"), "{mounts}");
    }
    case.exec(&[], &["sh", "-c", "echo x >/one/file"]).fails_with("Read-only");
    for folder in [one, other] {
        std::fs::remove_dir_all(folder).expect("remove a source");
    }
    case.remove();
    forget(case, "limits");
}

fn what_criu_cannot_do_is_told_and_changes_nothing(case: &mut Case<'_>) {
    // A connection that is open, and nobody has said that it may be.
    let program = "(sleep 1000 | nc -l -p 7000) & sleep 0.3; (sleep 1000 | nc 127.0.0.1 7000) & ";
    case.detach(&[], &["sh", "-c", &format!("{program}{COUNT}")]);
    count(case);
    until("a connection", 20, || {
        let tables = ["tcp", "tcp6"].map(|name| read_to_string(format!("/proc/{}/net/{name}", case.pid())));
        let lines = tables.iter().flatten().flat_map(|table| table.lines());
        lines.map(|line| line.split_whitespace().nth(3)).any(|state| state == Some("01")).then_some(())
    });
    let (images, out) = task_checkpoint(case, &[]);
    out.fails_with("criu");
    if case.runtime == Runtime::Shoal {
        // The words of CRIU's log, which is where it is said to be.
        assert!(out.stderr.contains("--tcp-established"), "{out}");
        let log = out.stderr.split('"').find(|word| word.ends_with("criu-dump.log")).expect("a place");
        let bundle = case.containerd.bundle(&case.id);
        assert!(log.ends_with(&format!("{}/criu-dump.log", case.id)), "{out}");
        assert!(bundle.join("criu-dump.log").exists() && !bundle.join("criu-work").exists());
    }
    assert_eq!(case.state(), "RUNNING");
    let at = count(case);
    until("it to go on", 20, || (count(case) > at).then_some(()));
    case.remove();
    let _ = std::fs::remove_dir_all(images);
}

fn a_source_that_is_gone_fails_the_restore_and_leaves_nothing(case: &mut Case<'_>) {
    let gone = case.containerd.dir("gone");
    std::fs::create_dir(&gone).expect("make a source");
    let mount = format!("type=bind,src={},dst=/gone,options=rbind", gone.display());
    case.detach(&["--mount", &mount], &["sh", "-c", COUNT]);
    checkpoint(case, "gone");
    case.remove();
    std::fs::remove_dir(&gone).expect("remove the source");
    let out = run(&mut restore(case, "gone"));
    assert_ne!(out.code, 0, "{out}");
    if case.runtime == Runtime::Shoal {
        assert!(out.stderr.contains("no such file or directory") && out.stderr.contains("mounts["), "{out}");
    }
    case.ctr(&["tasks", "delete", "--force", &case.id]);
    case.ctr(&["containers", "delete", &case.id]);
    forget(case, "gone");
}

fn the_hosts_network_is_joined_again(case: &mut Case<'_>) {
    // The host's network: it is there, and nothing of it is in the files.
    case.detach(&["--net-host"], &["sh", "-c", COUNT]);
    checkpoint(case, "network");
    let before = std::fs::read_link(format!("/proc/{}/ns/net", case.pid())).expect("it lives");
    case.remove();
    restored(case, "network");
    let after = std::fs::read_link(format!("/proc/{}/ns/net", case.pid())).expect("it lives");
    assert_eq!(before, after);
    case.remove();
    forget(case, "network");
}

fn joined_namespaces_are_joined_again(case: &mut Case<'_>) {
    let owner = case.id("owner");
    run(&mut case.run_command(&["-d"], &owner, &["sleep", "1000"])).ok();
    let pid = {
        let all = case.ctr(&["tasks", "ls"]);
        let line = all.ok().lines().find(|line| line.starts_with(&owner)).expect("it runs");
        line.split_whitespace().nth(1).expect("a pid").to_owned()
    };
    let kinds = [("network", "net"), ("ipc", "ipc"), ("uts", "uts")];
    let flags = kinds.map(|(word, kind)| format!("{word}:/proc/{pid}/ns/{kind}"));
    let flags: Vec<&str> = flags.iter().flat_map(|flag| ["--with-ns", flag]).collect();
    case.detach(&flags, &["sh", "-c", COUNT]);
    checkpoint(case, "joined");
    case.remove();
    restored(case, "joined");
    for (_, kind) in kinds {
        let link = |pid: &str| std::fs::read_link(format!("/proc/{pid}/ns/{kind}")).expect("it lives");
        assert_eq!(link(&case.pid().to_string()), link(&pid), "{kind}");
    }
    case.exec(&[], &["true"]).ok();
    case.remove();
    case.ctr(&["tasks", "delete", "--force", &owner]);
    case.ctr(&["containers", "delete", &owner]).ok();
    forget(case, "joined");
}
