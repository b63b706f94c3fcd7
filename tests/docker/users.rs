//! docker with `userns-remap`: every container has a user namespace.

use testbed::DockerCase;

cases! {
    Remapped: remapped_ids, remapped_files, remapped_joins,
}

fn host_ids(pid: &str) -> String {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("it runs");
    let line = status.lines().find(|line| line.starts_with("Uid:")).expect("it has ids");
    line.split_whitespace().nth(1).expect("a number").to_owned()
}

fn remapped_ids(case: &DockerCase<'_>) {
    case.detach(&["--memory", "64m", "--user", "app"], &["sleep", "1000"]);
    assert_eq!(host_ids(&case.inspect(".State.Pid")), "301000");
    let script = "cat /proc/self/uid_map; id -u; readlink /proc/self/ns/user";
    let out = case.exec(&["--user", "0"], &["sh", "-c", script]);
    let namespace =
        std::fs::read_link(format!("/proc/{}/ns/user", case.inspect(".State.Pid"))).expect("it runs");
    let words: Vec<_> = out.ok().split_whitespace().collect();
    assert_eq!(words, ["0", "300000", "65536", "0", namespace.to_str().expect("UTF-8")], "{out}");
    assert_eq!(case.exec(&[], &["id", "-u"]).ok(), "1000\n");
    case.remove();
    let out = case.run(&["-t"], &["sh", "-c", "tty; stat -c %u:%g /dev/console; echo x >/dev/stdout"]);
    assert_eq!(out.ok(), "/dev/pts/0\r\n0:5\r\nx\r\n", "{out}");
}

fn remapped_files(case: &DockerCase<'_>) {
    let dir = case.docker.containerd.dir("remapped");
    std::fs::create_dir_all(&dir).expect("make a folder");
    std::os::unix::fs::chown(&dir, Some(300_007), Some(300_007)).expect("give it away");
    let volume = format!("{}:/volume", dir.display());
    let script = "stat -c %u /etc/passwd /volume; touch /made && stat -c %u /made; touch /t/x && echo tmpfs; \
                  head -c 3 /dev/zero | wc -c; echo to-stderr >/dev/stderr; mknod /n c 1 3 2>/dev/null || echo refused";
    let flags =
        ["-v", &volume, "--tmpfs", "/t", "--ulimit", "nofile=100:200", "--sysctl", "net.ipv4.ip_forward=1"];
    let out = case.run(&flags, &["sh", "-c", script]);
    assert_eq!(out.ok(), "0\n7\n0\ntmpfs\n3\nrefused\n", "{out}");
    assert_eq!(out.stderr, "to-stderr\n");
    std::fs::remove_dir_all(&dir).expect("remove the folder");
}

/// `--network container:` and similar flags also join the other container's user namespace.
fn remapped_joins(case: &DockerCase<'_>) {
    case.detach(&["--network", "none"], &["sleep", "1000"]);
    let pid = case.inspect(".State.Pid");
    let other = format!("container:{}", case.name);
    let flags = ["run", "--rm", "--runtime", case.runtime.name(), "--network", &other, testbed::IMAGE];
    let script = "readlink /proc/self/ns/net; readlink /proc/self/ns/user";
    let out = case.docker(&[&flags[..], &["sh", "-c", script]].concat());
    let link = |kind: &str| {
        let link = std::fs::read_link(format!("/proc/{pid}/ns/{kind}")).expect("it runs");
        link.to_str().expect("UTF-8").to_owned()
    };
    let lines: Vec<_> = out.ok().lines().collect();
    assert_eq!(lines, [link("net"), link("user")], "{out}");
    case.remove();
}
