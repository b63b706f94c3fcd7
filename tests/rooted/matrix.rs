//! The features of the spec, one at a time, ours and runc's.

use crate::bench::rooted;
use crate::container::Bundle;
use crate::reports::{same, same_exec};
use serde_json::{json, Value};
use std::path::Path;
use std::process::Command;

fn bundle() -> Bundle {
    Bundle::new(&["/probe", "report"])
}

fn mount(bundle: &mut Bundle, mount: Value) {
    bundle.spec["mounts"].as_array_mut().unwrap().push(mount);
}

fn of_point<'a>(report: &'a Value, point: &str) -> &'a Value {
    let mounts = report["mounts"].as_array().unwrap();
    mounts.iter().rev().find(|mount| mount["point"] == point).unwrap_or_else(|| panic!("no {point}"))
}

#[test]
fn a_tmpfs_is_as_with_runc() {
    if !rooted("a_tmpfs_is_as_with_runc") {
        return;
    }
    let mut bundle = bundle();
    for name in ["covered", "copied", "late"] {
        std::fs::create_dir_all(bundle.root().join(name)).unwrap();
    }
    std::fs::write(bundle.root().join("copied/file"), "text").unwrap();
    let mode = |name: &str, mode| {
        let permissions = std::os::unix::fs::PermissionsExt::from_mode(mode);
        std::fs::set_permissions(bundle.root().join(name), permissions).unwrap();
    };
    mode("covered", 0o1711);
    mode("copied", 0o750);
    let tmpfs = |point: &str, options: &[&str]| json!({"destination": point, "type": "tmpfs", "source": "t", "options": options});
    mount(&mut bundle, tmpfs("/covered", &[]));
    mount(&mut bundle, tmpfs("/copied", &["tmpcopyup", "size=1m"]));
    mount(&mut bundle, tmpfs("/late", &["ro", "noatime", "nodiratime"]));
    mount(&mut bundle, tmpfs("/late/below", &["mode=0700", "nr_inodes=100"]));
    mount(&mut bundle, tmpfs("/new/deep", &["relatime", "nostrictatime", "sync", "dirsync"]));
    mount(&mut bundle, tmpfs("/dev/shm", &["size=1m", "strictatime", "private"]));
    let report = same(&bundle);
    assert_eq!(report["root"]["covered"], "dir 1711 0:0");
    assert!(of_point(&report, "/late")["options"].as_str().unwrap().starts_with("ro,"));
}

#[test]
fn devices_are_as_with_runc() {
    if !rooted("devices_are_as_with_runc") {
        return;
    }
    let mut bundle = bundle();
    bundle.spec["linux"]["resources"]["devices"] = json!([{"allow": true, "access": "rwm"}]);
    bundle.spec["linux"]["devices"] = json!([
        {"path": "/dev/null", "type": "c", "major": 1, "minor": 3, "fileMode": 0o600, "uid": 5, "gid": 6},
        {"path": "/dev/sub/fifo", "type": "p", "fileMode": 0o10644},
        {"path": "/dev/disk", "type": "b", "major": 8, "minor": 1},
        {"path": "/dev/other", "type": "u", "major": 10, "minor": 229, "fileMode": 0o660, "gid": 7},
        {"path": "/dev/ptmx", "type": "c", "major": 5, "minor": 2},
        {"path": "/dev/disk", "type": "b", "major": 8, "minor": 1, "fileMode": 0o600},
    ]);
    let report = same(&bundle);
    assert_eq!(report["devices"]["null"], "char 1:3 600 5:6");
    assert_eq!(report["devices"]["ptmx"], "-> pts/ptmx 777 0:0");
}

#[test]
fn a_read_only_dev_is_as_with_runc() {
    if !rooted("a_read_only_dev_is_as_with_runc") {
        return;
    }
    let mut bundle = bundle();
    bundle.spec["mounts"][1]["options"].as_array_mut().unwrap().push("ro".into());
    bundle.spec["root"]["readonly"] = true.into();
    bundle.spec["process"]["cwd"] = "/srv/../made/here".into();
    let report = same(&bundle);
    assert!(of_point(&report, "/dev")["options"].as_str().unwrap().starts_with("ro,"));
}

#[test]
fn the_environment_is_as_with_runc() {
    if !rooted("the_environment_is_as_with_runc") {
        return;
    }
    let mut bundle = bundle();
    bundle.spec["process"]["env"] = json!(["A=1", "HOME=", "PATH=/nope::/", "B=", "A=2", "C=a=b"]);
    bundle.spec["process"]["args"] = json!(["/../probe", "report", "a b", "", "\u{e4}\n"]);
    same(&bundle);
    bundle.spec["process"]["env"] = json!(["HOME=/x", "HOME=/y"]);
    bundle.spec["process"]["user"] = json!({"uid": 77777, "gid": 5});
    same(&bundle);
    bundle.spec["process"]["env"] = json!(["X=y"]);
    let report = same(&bundle);
    assert_eq!(report["environment"], json!(["X=y", "HOME=/"]));
}

#[test]
fn namespaces_of_the_host_are_as_with_runc() {
    if !rooted("namespaces_of_the_host_are_as_with_runc") {
        return;
    }
    let mut bundle = bundle();
    bundle.spec["linux"]["namespaces"] = json!([{"type": "mount"}, {"type": "pid"}]);
    bundle.spec["hostname"] = Value::Null;
    let report = same(&bundle);
    for name in ["net", "ipc", "uts", "cgroup"] {
        let own = std::fs::read_link(Path::new("/proc/self/ns").join(name)).unwrap();
        assert_eq!(report["namespaces"][name], own.to_str().unwrap());
    }
}

#[test]
fn sysctls_of_the_host_are_refused_by_path_too() {
    if !rooted("sysctls_of_the_host_are_refused_by_path_too") {
        return;
    }
    for (kind, file, sysctl) in [("network", "net", "net.ipv4.ip_forward"), ("ipc", "ipc", "kernel.msgmax")] {
        let mut bundle = bundle();
        let namespaces = bundle.spec["linux"]["namespaces"].as_array_mut().unwrap();
        namespaces.retain(|namespace| namespace["type"] != kind);
        namespaces.push(json!({"type": kind, "path": format!("/proc/self/ns/{file}")}));
        assert_eq!(bundle.report()["hostname"], "inside");
        // The current value: writing it would change nothing.
        let file = format!("/proc/sys/{}", sysctl.replace('.', "/"));
        bundle.spec["linux"]["sysctl"] = json!({sysctl: std::fs::read_to_string(file).unwrap().trim()});
        let error = bundle.create().err().expect("refused").to_string();
        assert!(error.ends_with("the host's, which linux.sysctl would change"), "{error}");
    }
}

/// A process in a namespace of its own, and that namespace's path.
struct Held(std::process::Child, String);

impl Held {
    /// Spawns it with the `flag` of unshare(1); `file` is the one below /proc/PID/ns.
    fn new(flag: &str, file: &str) -> Self {
        let child = Command::new("unshare").args([flag, "sleep", "1000"]).spawn().unwrap();
        let path = format!("/proc/{}/ns/{file}", child.id());
        let own = std::fs::read_link(format!("/proc/self/ns/{file}")).unwrap();
        crate::bench::eventually("the namespace", || std::fs::read_link(&path).unwrap() != own);
        Held(child, path)
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn joining(kind: &str, path: &str) -> Bundle {
    let mut bundle = bundle();
    let namespaces = bundle.spec["linux"]["namespaces"].as_array_mut().unwrap();
    namespaces.retain(|namespace| namespace["type"] != kind);
    namespaces.push(json!({"type": kind, "path": path}));
    bundle
}

#[test]
fn a_cgroup_namespace_by_path_is_joined_as_with_runc() {
    if !rooted("a_cgroup_namespace_by_path_is_joined_as_with_runc") {
        return;
    }
    let held = Held::new("--cgroup", "cgroup");
    let link = std::fs::read_link(&held.1).unwrap();
    let bundle = joining("cgroup", &held.1);
    same(&bundle);
    for (name, report) in bundle.reports() {
        assert_eq!(report["namespaces"]["cgroup"], link.to_str().unwrap(), "{name}");
    }
}

/// The root is made in the joined namespace, and the host's sees nothing of it.
#[test]
fn a_mount_namespace_by_path_is_joined_as_with_runc() {
    if !rooted("a_mount_namespace_by_path_is_joined_as_with_runc") {
        return;
    }
    let host = || std::fs::read_to_string("/proc/self/mountinfo").unwrap();
    let before = host();
    // One for each runtime: pivot_root(2) affects the namespace's other processes.
    let (first, second) = (Held::new("--mount", "mnt"), Held::new("--mount", "mnt"));
    let of = |held: &Held| std::fs::read_link(&held.1).unwrap().to_str().unwrap().to_owned();
    let mut bundle = joining("mount", &first.1);
    let ours = bundle.report();
    assert_eq!(ours["namespaces"]["mnt"], of(&first));
    assert_eq!(ours["root"]["probe"].as_str().unwrap().split(' ').next(), Some("file"));
    let namespaces = bundle.spec["linux"]["namespaces"].as_array_mut().unwrap();
    namespaces.last_mut().unwrap()["path"] = second.1.clone().into();
    if let Some(theirs) = bundle.report_of_runc() {
        assert_eq!(theirs["namespaces"]["mnt"], of(&second));
        crate::reports::compare(ours, Some(theirs));
    }
    assert_eq!(host(), before);
}

#[test]
fn a_hostname_of_the_host_is_refused_by_path_too() {
    if !rooted("a_hostname_of_the_host_is_refused_by_path_too") {
        return;
    }
    for field in ["hostname", "domainname"] {
        let mut bundle = bundle();
        let namespaces = bundle.spec["linux"]["namespaces"].as_array_mut().unwrap();
        namespaces.retain(|namespace| namespace["type"] != "uts");
        namespaces.push(json!({"type": "uts", "path": "/proc/self/ns/uts"}));
        bundle.spec["hostname"] = Value::Null;
        bundle.report();
        // The current value: setting it would change nothing.
        let own = std::fs::read_to_string(format!("/proc/sys/kernel/{field}")).unwrap();
        bundle.spec[field] = own.trim().into();
        let error = bundle.create().err().expect("refused").to_string();
        assert!(error.ends_with(&format!("the host's, which {field} would change")), "{error}");
    }
}

#[test]
fn the_mount_namespace_of_the_host_is_refused_by_path_too() {
    if !rooted("the_mount_namespace_of_the_host_is_refused_by_path_too") {
        return;
    }
    let mut bundle = bundle();
    let namespaces = bundle.spec["linux"]["namespaces"].as_array_mut().unwrap();
    namespaces.retain(|namespace| namespace["type"] != "mount");
    namespaces.push(json!({"type": "mount", "path": "/proc/self/ns/mnt"}));
    let error = bundle.create().err().expect("refused").to_string();
    assert!(error.ends_with("the host's, which the container's mounts would change"), "{error}");
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
    assert!(!mounts.contains(bundle.dir.path().to_str().unwrap()), "a mount on the host");
}

/// Otherwise it would see all of the host's cgroups, in a mount that is new.
#[test]
fn the_cgroup_namespace_of_the_host_is_refused_by_path() {
    if !rooted("the_cgroup_namespace_of_the_host_is_refused_by_path") {
        return;
    }
    let mut bundle = bundle();
    let namespaces = bundle.spec["linux"]["namespaces"].as_array_mut().unwrap();
    namespaces.retain(|namespace| namespace["type"] != "cgroup");
    namespaces.push(json!({"type": "cgroup", "path": "/proc/self/ns/cgroup"}));
    let error = bundle.create().err().expect("refused").to_string();
    assert!(error.ends_with("the host's, which the container's mount of cgroups would change"), "{error}");
}

#[test]
fn a_cgroup_namespace_is_as_with_runc() {
    if !rooted("a_cgroup_namespace_is_as_with_runc") {
        return;
    }
    for options in
        [json!(["ro", "nosuid", "noexec", "nodev", "relatime"]), json!(["nosuid", "noexec", "nodev"])]
    {
        let mut bundle = bundle();
        bundle.spec["linux"]["namespaces"].as_array_mut().unwrap().push(json!({"type": "cgroup"}));
        let cgroup = json!({"destination": "/sys/fs/cgroup", "type": "cgroup", "source": "cgroup", "options": options});
        mount(&mut bundle, cgroup);
        same(&bundle);
    }
}

#[test]
fn capabilities_are_as_with_runc() {
    if !rooted("capabilities_are_as_with_runc") {
        return;
    }
    let mut bundle = bundle();
    // Without the field there are no capabilities, as in runc 1.1; runc 1.3 drops none.
    bundle.spec["process"]["capabilities"] = Value::Null;
    assert_eq!(bundle.report()["capabilities"]["bounding"], "0000000000000000");
    bundle.spec["process"]["capabilities"] = json!({
        "bounding": ["CAP_NET_RAW", "CAP_CHOWN", "CAP_NOBODY_KNOWS"], "permitted": ["CAP_CHOWN"], "effective": [],
        "inheritable": ["CAP_CHOWN"], "ambient": ["CAP_CHOWN"],
    });
    same(&bundle);
    bundle.spec["process"]["user"] = json!({"uid": 1000, "gid": 1000});
    let report = same(&bundle);
    assert_eq!(report["capabilities"]["ambient"], "0000000000000001");
}

#[test]
fn other_fields_are_as_with_runc() {
    if !rooted("other_fields_are_as_with_runc") {
        return;
    }
    let mut bundle = bundle();
    bundle.spec["domainname"] = "example.org".into();
    bundle.spec["linux"]["personality"] = json!({"domain": "LINUX32"});
    bundle.spec["process"]["oomScoreAdj"] = 500.into();
    bundle.spec["process"]["rlimits"] = json!([
        {"type": "RLIMIT_NOFILE", "soft": 20, "hard": 30}, {"type": "RLIMIT_CORE", "soft": 0, "hard": 0},
    ]);
    bundle.spec["linux"]["maskedPaths"] = json!(["/proc/keys", "/etc/passwd", "/nope/x", "/home"]);
    bundle.spec["linux"]["readonlyPaths"] = json!(["/proc/sys", "/run", "/nope/y", "/etc"]);
    bundle.spec["linux"]["sysctl"] = json!({"kernel.domainname": "else.example", "fs.mqueue.msg_max": "33"});
    same(&bundle);
}

/// A shared mount of the test's own, with another one below it.
struct Shared(tempfile::TempDir);

impl Shared {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let run = |words: &[&str]| {
            assert!(Command::new("mount").args(words).status().unwrap().success(), "{words:?}")
        };
        let path = dir.path().to_str().unwrap();
        run(&["-t", "tmpfs", "-o", "nosuid,nodev", "none", path]);
        run(&["--make-shared", path]);
        std::fs::create_dir(dir.path().join("below")).unwrap();
        run(&["-t", "tmpfs", "none", &format!("{path}/below")]);
        Shared(dir)
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        drop(Command::new("umount").arg("-R").arg(self.0.path()).status());
    }
}

#[test]
fn propagation_is_as_with_runc() {
    if !rooted("propagation_is_as_with_runc") {
        return;
    }
    let shared = Shared::new();
    for root in [Value::Null, json!("rprivate"), json!("rslave"), json!("rshared"), json!("shared")] {
        let mut bundle = bundle();
        bundle.spec["linux"]["rootfsPropagation"] = root;
        let words =
            ["", "rprivate", "private", "rslave", "slave", "rshared", "shared", "runbindable", "unbindable"];
        for (i, word) in words.iter().enumerate() {
            for (j, kind) in ["rbind", "bind"].into_iter().enumerate() {
                let options = if word.is_empty() { json!([kind]) } else { json!([kind, word]) };
                let point = format!("/m{i}{j}");
                mount(
                    &mut bundle,
                    json!({"destination": point, "type": "none", "source": shared.0.path(), "options": options}),
                );
            }
        }
        same(&bundle);
    }
}

#[test]
fn attributes_of_binds_are_as_with_runc() {
    if !rooted("attributes_of_binds_are_as_with_runc") {
        return;
    }
    let shared = Shared::new();
    let mut bundle = bundle();
    let lists = [
        json!(["rbind"]),
        json!(["rbind", "rro"]),
        json!(["rbind", "suid", "dev"]),
        json!(["rbind", "nosuid", "nodev", "noexec", "noatime"]),
        json!(["rbind", "ro", "nosuid", "nodev", "strictatime", "nosymfollow"]),
        json!(["rbind", "rnosuid", "rnodev", "rnoexec", "rsuid"]),
        json!(["rbind", "rnoatime", "ratime"]),
    ];
    let source = shared.0.path();
    let bind = |point: &str, options: &Value| json!({"destination": point, "type": "none", "source": source, "options": options});
    for (i, options) in lists.iter().enumerate() {
        mount(&mut bundle, bind(&format!("/m{i}"), options));
    }
    same(&bundle);
    // Deliberately different: what the host's mount forbids stays forbidden unless the spec allows it by name. runc
    // clears what is not requested as soon as anything is.
    mount(&mut bundle, bind("/ro", &json!(["rbind", "ro"])));
    let report = bundle.report();
    assert_eq!(of_point(&report, "/ro")["options"], "ro,nosuid,nodev,relatime");
}

#[test]
fn an_exec_inherits_as_with_runc() {
    if !rooted("an_exec_inherits_as_with_runc") {
        return;
    }
    let mut bundle = Bundle::new(&["/probe", "sleep"]);
    let process = &mut bundle.spec["process"];
    process["rlimits"] = json!([{"type": "RLIMIT_NOFILE", "soft": 50, "hard": 60}]);
    process["oomScoreAdj"] = 300.into();
    process["user"]["umask"] = 0o27.into();
    process["capabilities"]["inheritable"] = json!(["CAP_CHOWN"]);
    bundle.spec["linux"]["personality"] = json!({"domain": "LINUX32"});
    let args = json!(["/probe", "report"]);

    // Without limits of its own an exec has the container's; runc would give it those of its caller.
    let limits = bundle.spec["process"]["rlimits"].clone();
    let mut bare = json!({"user": {"uid": 0, "gid": 0}, "args": args, "cwd": "/", "env": ["A=b"]});
    let without = bundle.exec_report(&bare);
    bare["rlimits"] = limits;
    assert_eq!(bundle.exec_report(&bare)["limits"], without["limits"]);
    let report = same_exec(&bundle, &bare);
    assert_eq!(report["oom_score_adj"], json!(["300"]));
    assert_eq!(report["no_new_privs"], "0");
    assert_eq!(report["umask"], "0027");

    let own = json!({
        "user": {"uid": 1000, "gid": 1000, "additionalGids": [7]}, "args": args, "cwd": "/tmp", "noNewPrivileges": true,
        "env": ["HOME=", "A=1", "A=2"], "rlimits": [{"type": "RLIMIT_CORE", "soft": 0, "hard": 0}],
        "capabilities": {"bounding": ["CAP_CHOWN"], "permitted": ["CAP_CHOWN"], "effective": []},
    });
    let report = same_exec(&bundle, &own);
    assert_eq!(report["capabilities"]["bounding"], "0000000000000001");

    // Not with runc, which would give an exec inheritable capabilities that its container lacks.
    let more = json!({
        "user": {"uid": 0, "gid": 0}, "args": args, "cwd": "/", "env": [],
        "capabilities": {
            "bounding": ["CAP_CHOWN", "CAP_KILL"], "permitted": ["CAP_CHOWN", "CAP_KILL"], "effective": [],
            "inheritable": ["CAP_CHOWN", "CAP_KILL"], "ambient": ["CAP_KILL"],
        },
    });
    let capabilities = &bundle.exec_report(&more)["capabilities"];
    assert_eq!(capabilities["inheritable"], "0000000000000001");
    assert_eq!(capabilities["ambient"], "0000000000000000");
}
