//! containerd and its containers as an ordinary user, who is root of a user namespace (rootlesskit).

use serde_json::{json, Value};
use testbed::{until, Case, Output, Runtime};

/// Declares cases, like `cases!`, with a containerd that an ordinary user runs.
macro_rules! rootless {
    ($($name:ident),* $(,)?) => { $( mod $name {
        use testbed::{rootless_case, Runtime::*, Suite::*};
        #[test]
        fn runc_on_1_7() { rootless_case(Trixie, Runc, stringify!($name), super::$name) }
        #[test]
        fn runc_on_2_1() { rootless_case(Forky, Runc, stringify!($name), super::$name) }
        #[test]
        fn shoal_on_1_7() { rootless_case(Trixie, Shoal, stringify!($name), super::$name) }
        #[test]
        fn shoal_on_2_1() { rootless_case(Forky, Shoal, stringify!($name), super::$name) }
    } )* };
}

rootless! {
    a_user_runs_a_container, a_container_lives_and_ends, devices_are_the_hosts, the_lost_shim_is_cleaned_up,
    what_needs_a_cgroup_is_refused_without_one, what_only_root_may_is_refused_or_left_out,
    the_cgroup_of_the_shim_cannot_be_written, limits_hold_where_a_cgroup_is_delegated, a_further_user_namespace_has_ids_of_the_users, everything_else_is_as_for_root,
}

/// ctr asks for a cgroup and CPU shares by default, which the user cannot have.
const NO_CGROUP: [&str; 4] = ["--cgroup", "", "--cpu-shares", "0"];

fn flags<'a>(more: &[&'a str]) -> Vec<&'a str> {
    NO_CGROUP.iter().chain(more).copied().collect()
}

/// Runs a container with a specification of its own.
fn run_spec(case: &Case<'_>, change: impl FnOnce(&mut Value)) -> Output {
    // The image's root, as a directory of the user.
    let root = case.containerd.dir("home/rootfs");
    if !root.exists() {
        let unpack = "mkdir -p $2.new/x && tar xf $1 -C $2.new/x && for f in $(find $2.new/x -type f); do \
            ! tar tf $f 2>/dev/null | grep -q bin/sh || tar xf $f -C $2.new; done && mv $2.new $2";
        let mut command = case.containerd.as_user("sh");
        command.args(["-c", unpack, "sh"]).arg(testbed::image()).arg(&root);
        testbed::run(&mut command).ok();
    }
    let mount = |to: &str, kind: &str| json!({ "destination": to, "type": kind, "source": kind });
    let namespaces = ["pid", "ipc", "uts", "mount", "network"].map(|kind| json!({ "type": kind }));
    let all = ["CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_SETUID", "CAP_SETGID", "CAP_KILL"];
    let mut spec = json!({
        "ociVersion": "1.1.0",
        "root": { "path": root },
        "process": {
            "user": { "uid": 0, "gid": 0 }, "cwd": "/", "args": ["id", "-u"], "env": ["PATH=/bin"],
            "capabilities": { "bounding": all, "effective": all, "permitted": all },
        },
        "mounts": [mount("/proc", "proc"), mount("/dev", "tmpfs"), mount("/sys", "sysfs")],
        "linux": {
            "namespaces": namespaces,
        },
    });
    change(&mut spec);
    let file = case.containerd.dir("spec.json");
    std::fs::write(&file, spec.to_string()).expect("write a specification");
    let args =
        ["run", "--rm", "--runtime", case.runtime.name(), "--config", &file.to_string_lossy(), &case.id];
    case.ctr(&args)
}

fn shell(spec: &mut Value, script: &str) {
    spec["process"]["args"] = json!(["sh", "-c", script]);
}

/// Gives the container the host's namespace of this kind.
fn share(spec: &mut Value, kind: &str) {
    let namespaces = spec["linux"]["namespaces"].as_array_mut().expect("a list");
    namespaces.retain(|namespace| namespace["type"] != kind);
}

fn a_user_runs_a_container(case: &mut Case<'_>) {
    let out = case.run(&flags(&[]), &["sh", "-c", "id -u; cat /proc/self/uid_map; echo err >&2; exit 3"]);
    assert_eq!(out.code, 3, "{out}");
    let map: Vec<Vec<&str>> =
        out.stdout.lines().skip(1).map(|line| line.split_whitespace().collect()).collect();
    assert_eq!(map, [["0", "64321", "1"], ["1", "20000000", "65536"]], "{out}");
    assert!(out.stdout.starts_with("0\n") && out.stderr.contains("err"), "{out}");
    let out =
        case.run(&flags(&["--user", "1000:1000"]), &["sh", "-c", "id -u; touch /tmp/x && stat -c %u /tmp/x"]);
    assert_eq!(out.ok(), "1000\n1000\n");
}

fn a_container_lives_and_ends(case: &mut Case<'_>) {
    case.detach(&flags(&[]), &["sleep", "1000"]);
    assert_eq!(case.state(), "RUNNING");
    let status = std::fs::read_to_string(format!("/proc/{}/status", case.pid())).expect("it runs");
    assert!(status.contains("\nUid:\t64321\t"), "an ordinary user outside: {status}");
    let out = case.exec(&["--user", "1000"], &["sh", "-c", "id -u; echo err >&2; exit 4"]);
    assert_eq!((out.code, out.stdout.as_str()), (4, "1000\n"), "{out}");
    let mut script = std::process::Command::new("script");
    let exec = case.exec_command(&["-t"], &["tty"]);
    let words: Vec<_> = exec.get_args().map(|word| word.to_string_lossy().into_owned()).collect();
    script.args(["-qec", &format!("nsenter {}", words.join(" ")), "/dev/null"]);
    script.env("CONTAINERD_ADDRESS", case.containerd.socket());
    script.env("CONTAINERD_NAMESPACE", case.containerd.namespace());
    assert!(testbed::run(&mut script).ok().contains("/dev/pts/0"));
    case.exec(&["-d", "--exec-id", "extra"], &["sleep", "1001"]).ok();
    if case.runtime == Runtime::Shoal {
        // runc needs a cgroup for this.
        let all = case.ctr(&["tasks", "ps", &case.id]);
        assert!(all.ok().contains(&case.pid().to_string()) && all.stdout.contains("extra"), "{all}");
        case.ctr(&["tasks", "kill", "-s", "CONT", "-a", &case.id]).ok();
    }
    case.ctr(&["tasks", "metrics", &case.id]).ok();
    case.kill("KILL");
    case.until_state("STOPPED");
    assert_eq!(case.delete_task(), 137);
    case.remove();
}

fn devices_are_the_hosts(case: &mut Case<'_>) {
    let script =
        "echo x >/dev/null && head -c 3 /dev/zero | wc -c && stat -c '%t:%T %u' /dev/null /dev/fuse && \
        head -c 1 /dev/urandom | wc -c; readlink /dev/ptmx && readlink /dev/fd";
    let out = case.run(&flags(&["--device", "/dev/fuse"]), &["sh", "-c", script]);
    // Root of the host has no id here.
    assert_eq!(out.ok(), "3\n1:3 65534\na:e5 65534\n1\npts/ptmx\n/proc/self/fd\n");
    let device = |minor| json!([{ "path": "/dev/fuse", "type": "c", "major": 10, "minor": minor }]);
    let run = |minor| {
        run_spec(case, |spec| {
            spec["linux"]["devices"] = device(minor);
            shell(spec, "stat -c %t:%T /dev/fuse");
        })
    };
    assert_eq!(run(229).ok(), "a:e5\n");
    // Its root must not change the host's node.
    if case.runtime == Runtime::Shoal {
        let script = "grep ' /dev/null ' /proc/self/mountinfo | cut -d' ' -f6; chmod 600 /dev/null 2>&1";
        let out = case.run(&flags(&[]), &["sh", "-c", script]);
        assert!(out.stdout.starts_with("ro,") && out.stdout.contains("Read-only file system"), "{out}");
    }
    // runc binds whatever has that name.
    match case.runtime {
        Runtime::Runc => drop(run(200).ok()),
        Runtime::Shoal => run(200).fails_with("linux.devices[0]"),
    }
    let missing = run_spec(case, |spec| {
        spec["linux"]["devices"] = json!([{ "path": "/dev/none", "type": "c", "major": 10, "minor": 229 }]);
    });
    missing.fails_with(if case.runtime == Runtime::Runc { "/dev/none" } else { "mknod(\"/dev/none\"" });
}

/// It is what a container without a cgroup of its own is in.
fn the_cgroup_of_the_shim_cannot_be_written(case: &mut Case<'_>) {
    let out = run_spec(case, |spec| {
        let namespaces = spec["linux"]["namespaces"].as_array_mut().expect("a list");
        namespaces.push(json!({ "type": "cgroup" }));
        let mounts = spec["mounts"].as_array_mut().expect("a list");
        let (to, options) = ("/sys/fs/cgroup", ["nosuid", "noexec", "nodev", "rw"]);
        mounts.push(json!({ "destination": to, "type": "cgroup", "source": "cgroup", "options": options }));
        shell(spec, "grep ' cgroup2* cgroup' /proc/self/mountinfo | grep ' /sys/fs/cgroup' | cut -d' ' -f6");
    });
    let ways: Vec<&str> = out.ok().lines().collect();
    assert!(!ways.is_empty(), "it has no cgroups");
    if case.runtime == Runtime::Shoal {
        assert!(ways.iter().all(|way| way.starts_with("ro,")), "{ways:?}");
    }
}

fn the_lost_shim_is_cleaned_up(case: &mut Case<'_>) {
    case.detach(&flags(&[]), &["sleep", "1000"]);
    let (pid, ours) = (case.pid(), case.containerd.machine.processes());
    let shim = ours.iter().find(|process| process.words.contains(&format!("-id {} ", case.id)));
    let shim = shim.map(|shim| shim.pid.to_string()).expect("a shim with that id");
    testbed::run(std::process::Command::new("kill").args(["-KILL", &shim])).ok();
    until("the task to be gone", 20, || case.state().is_empty().then_some(()));
    until("its process to end", 10, || {
        let status = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        (status.is_empty() || status.contains(") Z ")).then_some(())
    });
    case.ctr(&["containers", "delete", &case.id]).ok();
}

fn what_needs_a_cgroup_is_refused_without_one(case: &mut Case<'_>) {
    let shoal = case.runtime == Runtime::Shoal;
    // A cgroup that was asked for.
    let out = case.run(&["--cpu-shares", "0"], &["true"]);
    out.fails_with(if shoal { "mkdir(\"/sys/fs/cgroup" } else { "permission denied" });
    // A limit.
    let out = case.run(&["--cgroup", "", "--cpu-shares", "0", "--memory-limit", "20000000"], &["true"]);
    out.fails_with(if shoal { "linux.resources.memory: the container has no cgroup" } else { "memory" });
    case.detach(&flags(&[]), &["sleep", "1000"]);
    case.ctr(&["tasks", "pause", &case.id]).fails_with(if shoal {
        "no cgroup"
    } else {
        "cgroups not configured"
    });
    assert_eq!(case.state(), "RUNNING");
    case.remove();
}

/// Only in the VM, where the user has a systemd of their own.
fn limits_hold_where_a_cgroup_is_delegated(case: &mut Case<'_>) {
    if !std::path::Path::new("/run/user/64321/systemd").exists() {
        println!("left out: tests/vm/v2 has a user with a systemd");
        return;
    }
    let limits = |case: &Case<'_>, cgroup: &str, below: &str| {
        case.detach(&["--cgroup", cgroup, "--memory-limit", "33554432"], &["sleep", "1000"]);
        let of = std::fs::read_to_string(format!("/proc/{}/cgroup", case.pid())).expect("it runs");
        let expected = format!("/user@64321.service/{below}");
        assert!(of.trim_end().ends_with(&expected), "{of}, not {expected}");
        assert_eq!(case.cgroup_file("memory", "", "memory.max"), "33554432");
        assert_eq!(case.exec(&[], &["echo", "in"]).ok(), "in\n");
        case.ctr(&["tasks", "pause", &case.id]).ok();
        case.until_state("PAUSED");
        case.ctr(&["tasks", "resume", &case.id]).ok();
        assert!(case.ctr(&["tasks", "ps", &case.id]).ok().contains(&case.pid().to_string()));
        let metrics = case.ctr(&["tasks", "metrics", "--format", "json", &case.id]);
        assert!(metrics.ok().contains("33554432"), "{metrics}");
        let out = case.exec(&[], &["sh", "-c", "dd if=/dev/zero of=/dev/null bs=100M count=1"]);
        assert_ne!(out.code, 0, "more than the limit");
        case.remove();
    };
    limits(case, "", &format!("app.slice/{}.service/{}", case.containerd.machine.mark, case.id));
    // runc needs a D-Bus daemon of the user's for this.
    if case.runtime == Runtime::Shoal {
        let mark = &case.containerd.machine.mark;
        let scope = format!("user.slice:{mark}:{}", case.id);
        limits(case, &scope, &format!("user.slice/{mark}-{}.scope", case.id));
    }
}

/// What runc refuses too, each with the errno of the kernel, and what it leaves out.
fn what_only_root_may_is_refused_or_left_out(case: &mut Case<'_>) {
    let shoal = case.runtime == Runtime::Shoal;
    let refused = |field: &str, change: &dyn Fn(&mut Value)| {
        let out = run_spec(case, change);
        out.fails_with(if shoal { field } else { "runc create failed" });
        assert!(!shoal || out.stderr.contains("(EPERM)"), "{out}");
    };
    refused("mounts[0]", &|spec| share(spec, "pid"));
    refused("mounts[3]", &|spec| {
        share(spec, "ipc");
        spec["mounts"]
            .as_array_mut()
            .expect("a list")
            .push(json!({ "destination": "/dev/mqueue", "type": "mqueue", "source": "mqueue" }));
    });
    refused("process.rlimits[0]", &|spec| {
        spec["process"]["rlimits"] = json!([{ "type": "RLIMIT_RTPRIO", "soft": 50, "hard": 50 }]);
    });
    let score = |score: i32| {
        run_spec(case, |spec| {
            spec["process"]["oomScoreAdj"] = json!(score);
            shell(spec, "cat /proc/self/oom_score_adj");
        })
    };
    assert_eq!(score(500).ok(), "500\n");
    // runc fails in this mode.
    if shoal {
        let least: i32 = score(-1000).ok().trim().parse().expect("a number");
        assert!(least > -1000, "{least}");
    }
}

fn a_further_user_namespace_has_ids_of_the_users(case: &mut Case<'_>) {
    let map = json!([{ "containerID": 0, "hostID": 1, "size": 1000 }]);
    let out = run_spec(case, |spec| {
        spec["linux"]["namespaces"].as_array_mut().expect("a list").push(json!({ "type": "user" }));
        spec["linux"]["uidMappings"] = map.clone();
        spec["linux"]["gidMappings"] = map;
        shell(spec, "id -u; cat /proc/self/uid_map; echo x >/dev/null && echo y");
    });
    let words: Vec<_> = out.ok().split_whitespace().collect();
    assert_eq!(words, ["0", "0", "1", "1000", "y"], "{out}");
}

fn everything_else_is_as_for_root(case: &mut Case<'_>) {
    let run = |more: &[&str], script: &str| case.run(&flags(more), &["sh", "-c", script]);
    assert_eq!(run(&["--net-host"], "grep -c ' / /sys ' /proc/self/mountinfo").ok(), "1\n");
    assert_eq!(run(&["--seccomp"], "grep -c 'Seccomp:.*2' /proc/self/status").ok(), "1\n");
    assert_eq!(run(&["--privileged"], "grep -c 'CapEff:.*1ff' /proc/self/status").ok(), "1\n");
    run(&["--read-only"], "touch /x").fails_with("Read-only");
    let bind = "type=bind,src=/etc,dst=/mnt,options=rbind:ro";
    assert_eq!(run(&["--mount", bind], "grep -c shoal-test /mnt/passwd").ok(), "1\n");
    assert_eq!(run(&["--snapshotter", "native"], "echo x >/file && cat /file").ok(), "x\n");
    // As it is in: its own is the shim's.
    let cgroups = "type=cgroup,src=cgroup,dst=/sys/fs/cgroup,options=ro:nosuid:noexec:nodev";
    let out = run(
        &["--mount", cgroups],
        "ls /sys/fs/cgroup/cgroup.procs /sys/fs/cgroup/*/cgroup.procs 2>/dev/null | wc -l",
    );
    assert!(out.ok().trim().parse::<u32>().is_ok_and(|n| n > 0), "{out}");
    let out = run_spec(case, |spec| {
        spec["linux"]["sysctl"] = json!({ "net.ipv4.ip_forward": "1", "kernel.shmmax": "77777" });
        shell(spec, "cat /proc/sys/net/ipv4/ip_forward /proc/sys/kernel/shmmax");
    });
    assert_eq!(out.ok(), "1\n77777\n");
    // Without a pid namespace of its own the procfs is the host's, bound.
    let out = run_spec(case, |spec| {
        share(spec, "pid");
        spec["mounts"][0] =
            json!({ "destination": "/proc", "type": "bind", "source": "/proc", "options": ["rbind"] });
        shell(spec, "echo $$");
    });
    assert!(out.ok().trim().parse::<u32>().is_ok_and(|pid| pid > 1), "{out}");
}
