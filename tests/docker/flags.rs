//! What the flags of `docker run` must do to the container.

use testbed::DockerCase;

cases! {
    Plain: files_and_mounts, identity, limits, namespaces, privileges, security_defaults, devices, sysctls_and_shm,
}

fn files_and_mounts(case: &DockerCase<'_>) {
    let dir = case.docker.containerd.dir("volume");
    std::fs::create_dir_all(&dir).expect("make a folder");
    let (rw, ro) = (format!("{}:/rw", dir.display()), format!("{}:/ro:ro", dir.display()));
    let script = "echo x >/rw/f; cat /ro/f; touch /ro/g; touch /t/f && echo tmpfs; grep -c . /etc/hosts /etc/resolv.conf >/dev/null && hostname";
    let flags = ["-v", &rw, "-v", &ro, "--tmpfs", "/t:size=1m", "--read-only", "--hostname", "box"];
    let out = case.run(&flags, &["sh", "-c", script]);
    assert_eq!(out.stdout, "x\ntmpfs\nbox\n", "{out}");
    assert!(out.stderr.contains("Read-only file system"), "{out}");
    std::fs::remove_dir_all(&dir).expect("remove the folder");
}

fn identity(case: &DockerCase<'_>) {
    let script = "id -u; id -g; id -G | tr ' ' '\\n' | sort -n | uniq | xargs; pwd; echo $HOME $X";
    let flags = ["--user", "app", "--group-add", "2000", "--workdir", "/etc", "--env", "X=y"];
    let out = case.run(&flags, &["sh", "-c", script]);
    assert_eq!(out.ok(), "1000\n1000\n100 1000 2000\n/etc\n/home/app y\n", "{out}");
}

fn limits(case: &DockerCase<'_>) {
    let flags = [
        "--memory",
        "64m",
        "--cpus",
        "0.5",
        "--pids-limit",
        "50",
        "--ulimit",
        "nofile=100:200",
        "--cpu-shares",
        "512",
    ];
    case.detach(&flags, &["sleep", "1000"]);
    assert_eq!(case.cgroup_file("memory", "memory.limit_in_bytes", "memory.max"), (64 << 20).to_string());
    assert_eq!(case.cgroup_file("pids", "pids.max", "pids.max"), "50");
    let quota = case.cgroup_file("cpu", "cpu.cfs_quota_us", "cpu.max");
    assert_eq!(quota.split_whitespace().next(), Some("50000"));
    assert_eq!(case.exec(&[], &["sh", "-c", "ulimit -n; ulimit -Hn"]).ok(), "100\n200\n");
    case.remove();
}

fn namespaces(case: &DockerCase<'_>) {
    let own = |ns: &str| case.docker.containerd.machine.namespace(ns);
    let flags = ["--network", "host", "--pid", "host", "--ipc", "host", "--uts", "host"];
    let script = "for n in net pid ipc uts; do readlink /proc/self/ns/$n; done";
    let all = ["net", "pid", "ipc", "uts"].map(|ns| format!("{}\n", own(ns))).concat();
    assert_eq!(case.run(&flags, &["sh", "-c", script]).ok(), all);
    let out = case.run(&["--network", "none"], &["sh", "-c", &format!("{script}; ls /sys/class/net")]);
    for ns in ["net", "pid", "ipc", "uts"] {
        assert!(!out.ok().contains(&own(ns)), "{ns}: {out}");
    }
    assert!(out.stdout.ends_with("lo\n"), "{out}");
}

fn privileges(case: &DockerCase<'_>) {
    let status = ["grep", "-E", "CapEff|NoNewPrivs|^Seccomp:", "/proc/self/status"];
    let mask =
        |flags: &[&str]| case.run(flags, &status).ok().split_whitespace().collect::<Vec<_>>().join(" ");
    assert_eq!(mask(&["--cap-drop", "ALL"]), "CapEff: 0000000000000000 NoNewPrivs: 0 Seccomp: 2");
    assert_eq!(
        mask(&["--cap-drop", "ALL", "--cap-add", "SYS_TIME", "--security-opt", "no-new-privileges"]),
        "CapEff: 0000000002000000 NoNewPrivs: 1 Seccomp: 2"
    );
    assert!(mask(&["--security-opt", "seccomp=unconfined"]).ends_with("Seccomp: 0"));
    let own = std::fs::read_to_string("/proc/self/status").expect("read our status");
    let bounding = own.lines().find_map(|line| line.strip_prefix("CapBnd:\t")).expect("it has capabilities");
    let privileged = mask(&["--privileged"]);
    assert!(
        privileged.starts_with(&format!("CapEff: {bounding}")) && privileged.ends_with("Seccomp: 0"),
        "{privileged}"
    );
}

fn security_defaults(case: &DockerCase<'_>) {
    let script = "unshare -U true; cat /proc/kcore | wc -c; ls /sys/firmware | wc -l; echo x >/proc/sys/kernel/hostname; mount -t tmpfs x /tmp";
    let out = case.run(&[], &["sh", "-c", script]);
    assert_eq!(out.stdout, "0\n0\n", "{out}");
    assert_eq!(
        out.stderr.matches("not permitted").count() + out.stderr.matches("ermission denied").count(),
        2,
        "{out}"
    );
    assert!(out.stderr.contains("Read-only file system"), "{out}");
}

fn devices(case: &DockerCase<'_>) {
    let open = "stat -c '%t:%T' /dev/loop-control && : </dev/loop-control && echo open";
    assert_eq!(case.run(&["--device", "/dev/loop-control"], &["sh", "-c", open]).ok(), "a:ed\nopen\n");
    case.run(&[], &["sh", "-c", "mknod /dev/l c 10 237 && : </dev/l"]).fails_with("not permitted");
    let rule = ["--device-cgroup-rule", "c 10:237 rwm"];
    assert_eq!(
        case.run(&rule, &["sh", "-c", "mknod /dev/l c 10 237 && : </dev/l && echo open"]).ok(),
        "open\n"
    );
}

fn sysctls_and_shm(case: &DockerCase<'_>) {
    let flags = ["--sysctl", "net.ipv4.ip_forward=1", "--sysctl", "kernel.msgmax=4097", "--shm-size", "5m"];
    let script = "cat /proc/sys/net/ipv4/ip_forward /proc/sys/kernel/msgmax; grep ' /dev/shm ' /proc/mounts";
    let out = case.run(&flags, &["sh", "-c", script]);
    assert!(out.ok().starts_with("1\n4097\n") && out.stdout.contains("size=5120k"), "{out}");
}
