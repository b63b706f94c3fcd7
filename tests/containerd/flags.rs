//! What the flags of `ctr run` must do to the container.

use std::sync::atomic::{AtomicU32, Ordering};

use testbed::{Case, Runtime, Suite};

cases! {
    read_only, privileged, net_host, memory_limit, cpus, cpu_shares, device, devices_are_filtered, mount_bind,
    mount_tmpfs, env, user, cwd, seccomp, seccomp_profile, rootfs, hostname, capabilities, no_new_privs,
    joins_a_namespace, cgroup_path, out_of_memory, default_mounts, masked_and_read_only_paths, rootfs_propagation,
    default_devices, limits_and_namespaces, runtime_config_path, user_namespace, remap_labels,
}

fn read_only(case: &mut Case<'_>) {
    let out = case.run(&["--read-only"], &["sh", "-c", "touch /x; touch /dev/shm/ok && echo shm"]);
    assert!(out.stderr.contains("Read-only file system") && out.stdout == "shm\n", "{out}");
    case.run(&[], &["touch", "/x"]).ok();
}

fn status(case: &Case<'_>, flags: &[&str], field: &str) -> String {
    let out = case.run(flags, &["grep", &format!("^{field}:"), "/proc/self/status"]);
    out.ok().split_whitespace().nth(1).unwrap_or_default().to_owned()
}

fn privileged(case: &mut Case<'_>) {
    let own = std::fs::read_to_string("/proc/self/status").expect("read our status");
    let bounding = own.lines().find(|line| line.starts_with("CapBnd:")).expect("it has capabilities");
    let bounding = bounding.split_whitespace().nth(1).expect("a number follows");
    assert_eq!(status(case, &["--privileged"], "CapEff"), bounding, "all that the host has");
    let out = case.run(&["--privileged"], &["sh", "-c", "mount -t tmpfs x /mnt 2>&1 || mkdir /mnt && mount -t tmpfs x /mnt && grep ' /sys sysfs rw' /proc/mounts && test -e /dev/kmsg && echo all"]);
    assert!(out.ok().ends_with("all\n"), "{out}");
    case.run(&[], &["mount", "-t", "tmpfs", "x", "/tmp"]).fails_with("ermi"); // permission denied, not permitted
}

fn net_host(case: &mut Case<'_>) {
    let own = case.containerd.machine.namespace("net");
    assert_eq!(case.run(&["--net-host"], &["readlink", "/proc/self/ns/net"]).ok().trim(), own);
    assert_ne!(case.run(&[], &["readlink", "/proc/self/ns/net"]).ok().trim(), own);
    let out = case.run(&[], &["sh", "-c", "ls /sys/class/net; cat /proc/net/dev | wc -l"]);
    assert!(out.ok().starts_with("lo\n"), "{out}");
}

fn memory_limit(case: &mut Case<'_>) {
    case.detach(&["--memory-limit", "33554432"], &["sleep", "1000"]);
    assert_eq!(case.cgroup_file("memory", "memory.limit_in_bytes", "memory.max"), "33554432");
    case.remove();
}

fn cpus(case: &mut Case<'_>) {
    case.detach(&["--cpus", "0.5"], &["sleep", "1000"]);
    let quota = case.cgroup_file("cpu", "cpu.cfs_quota_us", "cpu.max");
    assert_eq!(quota.split_whitespace().next(), Some("50000"), "{quota}");
    case.remove();
}

fn cpu_shares(case: &mut Case<'_>) {
    case.detach(&["--cpu-shares", "2048"], &["sleep", "1000"]);
    let shares = case.cgroup_file("cpu", "cpu.shares", "cpu.weight");
    // Two formulas convert shares to a weight: the linear one (79) and the logarithmic one of newer runtimes.
    assert!(["2048", "79", "170", "177", "174"].contains(&shares.as_str()), "{shares}");
    case.remove();
}

fn device(case: &mut Case<'_>) {
    let out = case.run(
        &["--device", "/dev/loop-control"],
        &["sh", "-c", "stat -c '%t %T' /dev/loop-control && : </dev/loop-control && echo open"],
    );
    assert_eq!(out.ok(), "a ed\nopen\n");
}

fn devices_are_filtered(case: &mut Case<'_>) {
    // CAP_MKNOD is among the default capabilities; the device cgroup refuses the open.
    let out = case.run(&[], &["sh", "-c", "mknod /dev/k c 10 237 && : </dev/k"]);
    out.fails_with("not permitted");
    let out = case.run(&[], &["sh", "-c", "mknod /dev/n c 1 3 && : </dev/n && echo open"]);
    assert_eq!(out.ok(), "open\n");
}

fn mount_bind(case: &mut Case<'_>) {
    let dir = case.containerd.dir("bound");
    std::fs::create_dir_all(&dir).expect("make a folder to bind");
    std::fs::write(dir.join("file"), "content\n").expect("write a file");
    let source = dir.display();
    let rw = format!("type=bind,src={source},dst=/a/b,options=rbind:rw");
    assert_eq!(
        case.run(&["--mount", &rw], &["sh", "-c", "cat /a/b/file; echo new >/a/b/new"]).ok(),
        "content\n"
    );
    assert_eq!(std::fs::read_to_string(dir.join("new")).expect("written from inside"), "new\n");
    let ro = format!("type=bind,src={source},dst=/a/b,options=rbind:ro");
    case.run(&["--mount", &ro], &["touch", "/a/b/x"]).fails_with("Read-only file system");
    let file = format!("type=bind,src={source}/file,dst=/etc/one,options=bind:ro");
    assert_eq!(case.run(&["--mount", &file], &["cat", "/etc/one"]).ok(), "content\n");
    std::fs::remove_dir_all(&dir).expect("remove the folder");
}

fn mount_tmpfs(case: &mut Case<'_>) {
    let tmpfs = "type=tmpfs,src=tmpfs,dst=/scratch,options=nosuid:noexec:size=1m:mode=700";
    let out =
        case.run(&["--mount", tmpfs], &["sh", "-c", "grep ' /scratch ' /proc/mounts; stat -c %a /scratch"]);
    let line = out.ok();
    assert!(line.contains("tmpfs") && line.contains("nosuid") && line.contains("noexec"), "{out}");
    assert!(line.contains("size=1024k") && line.ends_with("700\n"), "{out}");
}

fn env(case: &mut Case<'_>) {
    let out = case.run(&["--env", "ONE=1", "--env", "TWO=a b"], &["env"]);
    let lines: Vec<_> = out.ok().lines().collect();
    assert!(lines.contains(&"ONE=1") && lines.contains(&"TWO=a b"), "{out}");
    assert!(lines.iter().any(|line| line.starts_with("PATH=/usr/local/sbin:")), "{out}");
    assert!(!out.stdout.contains("SHOAL_MARK"), "the shim's own environment stays out: {out}");
}

fn user(case: &mut Case<'_>) {
    let ids = ["sh", "-c", "id -u; id -g; grep Groups: /proc/self/status; touch /root/x"];
    let out = case.run(&["--user", "app"], &ids);
    let lines: Vec<_> = out.stdout.lines().collect();
    assert_eq!(lines[..2], ["1000", "1000"], "{out}");
    assert!(out.stderr.contains("Permission denied"), "{out}");
    let out = case.run(
        &["--user", "65534:100"],
        &["sh", "-c", "id -u; id -g; echo x >&2; cat /proc/self/fd/0 </dev/null"],
    );
    assert_eq!(out.ok(), "65534\n100\n", "{out}");
    // A user other than root can reopen its own output.
    let out = case
        .run(&["--user", "1000:1000"], &["sh", "-c", "echo again >/proc/self/fd/1; echo err >/dev/stderr"]);
    assert_eq!(out.ok(), "again\n", "{out}");
    assert!(out.stderr.contains("err"), "{out}");
}

fn cwd(case: &mut Case<'_>) {
    assert_eq!(case.run(&["--cwd", "/etc"], &["pwd"]).ok(), "/etc\n");
    // A missing working directory is created, as with runc.
    assert_eq!(case.run(&["--cwd", "/made/here"], &["pwd"]).ok(), "/made/here\n");
}

fn seccomp(case: &mut Case<'_>) {
    assert_eq!(status(case, &["--seccomp"], "Seccomp"), "2");
    assert_eq!(status(case, &[], "Seccomp"), "0");
    case.run(&["--seccomp"], &["unshare", "-U", "true"]).fails_with("not permitted");
    assert_eq!(case.run(&["--seccomp"], &["sh", "-c", "echo fine | cat"]).ok(), "fine\n");
}

fn seccomp_profile(case: &mut Case<'_>) {
    let file = case.containerd.dir("profile.json");
    std::fs::write(
        &file,
        r#"{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{"names":["mkdir","mkdirat","no_such_call"],"action":"SCMP_ACT_ERRNO","errnoRet":85}]}"#,
    )
    .expect("write a profile");
    let flags = ["--seccomp", "--seccomp-profile", &file.to_string_lossy()];
    // 85 is ERESTART, which mkdir never returns by itself.
    case.run(&flags, &["mkdir", "/tmp/x"]).fails_with("Interrupted system call should be restarted");
    assert_eq!(case.run(&flags, &["echo", "fine"]).ok(), "fine\n");
}

fn rootfs(case: &mut Case<'_>) {
    let root = case.containerd.dir("own-rootfs");
    std::fs::create_dir_all(root.join("bin")).expect("make a rootfs");
    let busybox =
        std::fs::read_dir("/bin").expect("read /bin").flatten().find(|entry| entry.file_name() == "busybox");
    testbed::program::copy(busybox.expect("busybox is installed").path(), root.join("bin/sh"));
    let path = root.to_string_lossy().into_owned();
    let mut command = case.containerd.ctr_command([
        "run",
        "--rm",
        "--runtime",
        case.runtime.name(),
        "--rootfs",
        &path,
        &case.id,
        "/bin/sh",
        "-c",
        "echo here >/made; echo *",
    ]);
    let out = testbed::run(&mut command);
    assert!(out.ok().starts_with("bin dev made proc"), "{out}");
    assert_eq!(std::fs::read_to_string(root.join("made")).expect("the root is that folder"), "here\n");
    std::fs::remove_dir_all(&root).expect("nothing is mounted there any more");
}

fn hostname(case: &mut Case<'_>) {
    assert_eq!(case.run(&["--hostname", "box"], &["hostname"]).ok(), "box\n");
}

fn capabilities(case: &mut Case<'_>) {
    let default = u64::from_str_radix(&status(case, &[], "CapEff"), 16).expect("a hexadecimal mask");
    assert_eq!(default, 0x0000_0000_a804_25fb, "containerd's default set");
    let admin = 1 << 21;
    let mask = |text: String| u64::from_str_radix(&text, 16).expect("a hexadecimal mask");
    assert_eq!(mask(status(case, &["--cap-add", "CAP_SYS_ADMIN"], "CapPrm")), default | admin);
    assert_eq!(mask(status(case, &["--cap-drop", "CAP_CHOWN"], "CapBnd")), default & !1);
    assert_eq!(mask(status(case, &["--user", "1000"], "CapEff")), 0);
}

fn no_new_privs(case: &mut Case<'_>) {
    assert_eq!(status(case, &[], "NoNewPrivs"), "1");
    assert_eq!(status(case, &["--allow-new-privs"], "NoNewPrivs"), "0");
}

fn joins_a_namespace(case: &mut Case<'_>) {
    case.detach(&["--hostname", "first"], &["sleep", "1000"]);
    let pid = case.pid();
    let second = case.id("second");
    let mut flags = vec!["--rm".to_owned()];
    for (kind, file) in [("network", "net"), ("ipc", "ipc"), ("uts", "uts"), ("pid", "pid")] {
        flags.extend(["--with-ns".to_owned(), format!("{kind}:/proc/{pid}/ns/{file}")]);
    }
    let flags: Vec<_> = flags.iter().map(String::as_str).collect();
    let script =
        "for n in net ipc uts pid; do readlink /proc/self/ns/$n; done; hostname; ps | grep -c 'sleep 100[0]'";
    let out = testbed::run(&mut case.run_command(&flags, &second, &["sh", "-c", script]));
    let mut expected = String::new();
    for file in ["net", "ipc", "uts", "pid"] {
        let link = std::fs::read_link(format!("/proc/{pid}/ns/{file}")).expect("read a namespace link");
        expected += &format!("{}\n", link.display());
    }
    assert_eq!(out.ok(), expected + "first\n1\n", "{out}");
    assert_eq!(case.state(), "RUNNING");
    case.remove();
}

fn cgroup_path(case: &mut Case<'_>) {
    let path = format!("/{}/deep/er/{}", case.containerd.namespace(), case.id);
    let mut command = case.containerd.ctr_command([
        "run",
        "-d",
        "--runtime",
        case.runtime.name(),
        "--cgroup",
        &path,
        case.containerd.image(),
        &case.id,
        "sleep",
        "1000",
    ]);
    testbed::run(&mut command).ok();
    let all =
        std::fs::read_to_string(format!("/proc/{}/cgroup", case.pid())).expect("read the init's cgroup");
    assert!(all.lines().all(|line| line.ends_with(&path)), "{all}");
    case.remove();
    // The parents stay, as with runc; only here do they carry the namespace's name.
    case.containerd.remove_empty_cgroups("deep");
}

fn out_of_memory(case: &mut Case<'_>) {
    let events = case.events();
    let id = case.id.clone();
    case.detach(
        &["--memory-limit", "16777216"],
        &["sh", "-c", "sleep 0.3; exec dd if=/dev/zero of=/dev/null bs=200M count=1"],
    );
    case.until_state("STOPPED");
    assert_eq!(case.delete_task(), 137);
    case.remove();
    events.until(&id, "/tasks/oom");
}

fn default_mounts(case: &mut Case<'_>) {
    let out = case.run(&[], &["sh", "-c", "cut -d' ' -f2,3 /proc/mounts"]);
    for line in [
        "/proc proc",
        "/dev tmpfs",
        "/dev/pts devpts",
        "/dev/shm tmpfs",
        "/dev/mqueue mqueue",
        "/sys sysfs",
        "/run tmpfs",
    ] {
        assert!(out.ok().lines().any(|mount| mount == line), "{line} is missing: {out}");
    }
    assert!(out.stdout.starts_with("/ overlay\n"), "{out}");
    assert!(!out.stdout.contains("/tmp/sb-"), "nothing of the host shines through: {out}");
    let out = case.run(
        &[],
        &["sh", "-c", "grep -c . /proc/self/mountinfo; grep -c 'shared:\\|master:' /proc/self/mountinfo"],
    );
    assert!(out.stdout.ends_with("\n0\n"), "private propagation: {out}");
}

fn masked_and_read_only_paths(case: &mut Case<'_>) {
    let out = case.run(&[], &["sh", "-c", "cat /proc/kcore /proc/timer_list | wc -c; ls /sys/firmware | wc -l; ls /proc/scsi 2>/dev/null | wc -l"]);
    assert_eq!(out.ok(), "0\n0\n0\n", "{out}");
    for path in ["/proc/irq/default_smp_affinity", "/proc/sys/kernel/hostname"] {
        let out = case.run(&[], &["sh", "-c", &format!("echo x >{path}")]);
        assert!(out.code != 0 && out.stderr.contains("Read-only file system"), "{path}: {out}");
    }
}

fn rootfs_propagation(case: &mut Case<'_>) {
    let out = case.run(&["--rootfs-propagation", "shared"], &["grep", " / / ", "/proc/self/mountinfo"]);
    // The older suite's runc makes the root private again.
    if case.runtime == Runtime::Shoal || case.containerd.suite == Suite::Forky {
        assert!(out.ok().contains("shared:"), "{out}");
    }
    let bind = format!("type=bind,src={},dst=/m,options=rbind:rslave", case.containerd.machine.dir.display());
    let out = case.run(&["--mount", &bind], &["grep", " /m ", "/proc/self/mountinfo"]);
    assert!(out.ok().contains("master:"), "{out}");
}

fn default_devices(case: &mut Case<'_>) {
    let out = case.run(&[], &["sh", "-c", "cd /dev; for d in null zero full random urandom tty; do stat -c '%n %t:%T %a' $d; done; for l in fd stdin stdout stderr ptmx; do readlink $l; done"]);
    assert_eq!(
        out.ok(),
        "null 1:3 666\nzero 1:5 666\nfull 1:7 666\nrandom 1:8 666\nurandom 1:9 666\ntty 5:0 666\n\
         /proc/self/fd\n/proc/self/fd/0\n/proc/self/fd/1\n/proc/self/fd/2\npts/ptmx\n",
        "{out}"
    );
}

fn limits_and_namespaces(case: &mut Case<'_>) {
    let out = case.run(&[], &["sh", "-c", "ulimit -n; echo $$; ls /proc | grep -c '^[0-9]'"]);
    let lines: Vec<_> = out.ok().lines().collect();
    assert_eq!(lines[..2], ["1024", "1"], "{out}");
}

fn runtime_config_path(case: &mut Case<'_>) {
    if case.runtime == Runtime::Runc {
        return; // runc's shim refuses any such file
    }
    let file = case.containerd.dir("shoal.toml");
    let path = file.to_string_lossy().into_owned();
    let with = |case: &Case<'_>, toml: &str, flags: &[&str]| {
        std::fs::write(&file, toml).expect("write the options");
        case.run(&[&["--runtime-config-path", &path], flags].concat(), &["echo", "fine"])
    };
    assert_eq!(with(case, "NoPivotRoot = true\nSomethingNew = 1\n", &[]).ok(), "fine\n");
    let log = case.containerd.log();
    assert!(log.contains("the key SomethingNew is not known"), "{log}");
    // A setting that is only safe with pivot_root shows that there is none.
    let private = ["--rootfs-propagation", "private"];
    with(case, "NoPivotRoot = true", &private).fails_with("private is not safe without pivot_root");
    assert_eq!(with(case, "NoPivotRoot = false", &private).ok(), "fine\n");
    with(case, "NoPivotRoot = 'yes'", &[]).fails_with("NoPivotRoot must be true or false");
    std::fs::remove_file(&file).expect("remove the options");
    case.run(&["--runtime-config-path", &path], &["true"]).fails_with("shoal.toml");
}

/// Returns flags that map the ids from 0 on to a range of the host that no other container has had, and the range's
/// first id.
///
/// ctr makes one remapped layer per range, and could find one that containerd's garbage collector is removing.
fn own_range(flags: &[&'static str]) -> (Vec<String>, u32) {
    static NEXT: AtomicU32 = AtomicU32::new(300_000);
    let first = NEXT.fetch_add(65536, Ordering::Relaxed);
    let map = format!("0:{first}:65536");
    let mut own: Vec<String> = ["--uidmap", &map, "--gidmap", &map].map(str::to_owned).into();
    own.extend(flags.iter().map(|flag| (*flag).to_owned()));
    (own, first)
}

/// Checks the ids inside, the root's owner inside, the ids that the host sees, and an exec with the same map.
fn remapped(case: &mut Case<'_>, flags: &[&'static str]) {
    let script = "cat /proc/self/uid_map; stat -c %u:%g / /bin /etc/passwd; touch /new && stat -c %u /new; : >/dev/null && echo ok";
    let (own, first) = own_range(flags);
    let out = case.run(&own.iter().map(String::as_str).collect::<Vec<_>>(), &["sh", "-c", script]);
    let words: Vec<_> = out.ok().split_whitespace().collect();
    assert_eq!(words, ["0", &first.to_string(), "65536", "0:0", "0:0", "0:0", "0", "ok"], "{out}");
    let (own, first) = own_range(flags);
    case.detach(&own.iter().map(String::as_str).collect::<Vec<_>>(), &["sleep", "1000"]);
    let pid = case.pid();
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("it runs");
    assert!(status.contains(&format!("\nUid:\t{first}\t{first}\t{first}\t{first}\n")), "{status}");
    let out = case.exec(&["--user", "1000"], &["sh", "-c", "id -u; cat /proc/self/gid_map"]);
    let words: Vec<_> = out.ok().split_whitespace().collect();
    assert_eq!(words, ["1000", "0", &first.to_string(), "65536"], "{out}");
    case.remove();
}

fn user_namespace(case: &mut Case<'_>) {
    remapped(case, &[]);
}

/// The snapshotter maps the layers' owners if it can.
fn remap_labels(case: &mut Case<'_>) {
    remapped(case, &["--remap-labels"]);
}
