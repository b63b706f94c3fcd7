//! User namespaces and mapped owners: what a container finds, what the host sees of it, and what is left of a
//! failure.

use crate::bench::{eventually, launch_with, left_behind, rooted};
use crate::container::Bundle;
use crate::hooks::run_in;
use crate::reports::{same, same_exec};
use serde_json::{json, Value};
use shoal::plan::{HookPlace, Open};
use shoal::spec::{Hook, Namespaces, Ns};
use std::os::unix::fs::{chown, MetadataExt};
use std::path::Path;

pub const FIRST: u32 = 300_000;

/// Gives everything below a path to the container's root.
pub fn give(path: &Path) {
    std::os::unix::fs::lchown(path, Some(FIRST), Some(FIRST)).unwrap();
    if path.symlink_metadata().unwrap().is_dir() {
        for entry in std::fs::read_dir(path).unwrap() {
            give(&entry.unwrap().path());
        }
    }
}

pub fn ids() -> Value {
    json!([{ "containerID": 0, "hostID": FIRST, "size": 65536 }])
}

/// Makes a container with a user namespace of its own, whose files belong to its root.
pub fn bundle(args: &[&str]) -> Bundle {
    let mut bundle = Bundle::new(args);
    // A copy is given away, since others run the program. Another process copies it: a file that is open here for
    // writing is open in a child that another test clones at that moment, too, and cannot be executed as long.
    let probe = bundle.root().join("probe");
    std::fs::remove_file(&probe).unwrap();
    let copied = std::process::Command::new("cp").arg(env!("CARGO_BIN_EXE_probe")).arg(&probe).status();
    assert!(copied.unwrap().success());
    give(&bundle.root());
    chown(bundle.root().join("home/user"), Some(FIRST + 1000), Some(FIRST + 1000)).unwrap();
    // As containerd does: root inside can reach its root.
    std::fs::set_permissions(bundle.dir.path(), std::os::unix::fs::PermissionsExt::from_mode(0o711)).unwrap();
    let linux = &mut bundle.spec["linux"];
    linux["namespaces"].as_array_mut().unwrap().push(json!({ "type": "user" }));
    linux["uidMappings"] = ids();
    linux["gidMappings"] = ids();
    bundle
}

#[test]
fn a_user_namespace_is_as_with_runc() {
    if !rooted("a_user_namespace_is_as_with_runc") {
        return;
    }
    let report = same(&bundle(&["/probe", "report"]));
    assert_eq!(report["mappings"]["uid"], json!(["         0     300000      65536"]));
    assert_eq!(report["mappings"]["setgroups"], json!(["allow"]));
    assert_eq!(report["ids"]["uid"], "0 0 0 0");
    assert_eq!(report["pid"], 1);
    let own = std::fs::read_link("/proc/self/ns/user").unwrap();
    assert_ne!(report["namespaces"]["user"], own.to_str().unwrap());
}

#[test]
fn an_exec_in_a_user_namespace_is_as_with_runc() {
    if !rooted("an_exec_in_a_user_namespace_is_as_with_runc") {
        return;
    }
    let bundle = bundle(&["/probe", "sleep"]);
    let mut process = bundle.spec["process"].clone();
    process["args"] = json!(["probe", "report"]);
    process["user"] = json!({ "uid": 1000, "gid": 1000, "additionalGids": [44] });
    let report = same_exec(&bundle, &process);
    assert_eq!(report["mappings"]["gid"], json!(["         0     300000      65536"]));
    assert_eq!(report["ids"]["uid"], "1000 1000 1000 1000");
    assert_eq!(report["ids"]["groups"], "44");
}

#[test]
fn what_a_user_namespace_may_not_do_is_done_before() {
    if !rooted("what_a_user_namespace_may_not_do_is_done_before") {
        return;
    }
    let mut bundle = bundle(&["/probe", "report"]);
    let process = &mut bundle.spec["process"];
    process["user"] = json!({ "uid": 1000, "gid": 1000 });
    process["oomScoreAdj"] = 300.into();
    process["rlimits"] = json!([
        { "type": "RLIMIT_NOFILE", "soft": 1000, "hard": 2000 },
        { "type": "RLIMIT_NPROC", "soft": 500, "hard": 600 },
    ]);
    let (_, own) = nix::sys::resource::getrlimit(nix::sys::resource::Resource::RLIMIT_MEMLOCK).unwrap();
    let capabilities = std::fs::read_to_string("/proc/self/status").unwrap();
    let mine = capabilities.lines().find_map(|line| line.strip_prefix("CapEff:")).unwrap().trim();
    // Needs CAP_SYS_RESOURCE, which some test hosts lack.
    if u64::from_str_radix(mine, 16).unwrap() & 1 << 24 != 0 {
        process["oomScoreAdj"] = (-300).into();
        let more = json!({ "type": "RLIMIT_MEMLOCK", "soft": 4096, "hard": own.saturating_add(4096) });
        process["rlimits"].as_array_mut().unwrap().push(more);
    }
    bundle.spec["domainname"] = "somewhere".into();
    let score = bundle.spec["process"]["oomScoreAdj"].to_string();
    bundle.spec["linux"]["sysctl"] = json!({
        "net.ipv4.ip_forward": "1", "kernel.msgmax": "9000"
    });
    let report = same(&bundle);
    assert_eq!(report["oom_score_adj"], json!([score]));
    assert_eq!(report["domainname"], "somewhere");
    assert_eq!(report["ids"]["groups"], "");
}

#[test]
fn a_read_only_root_with_binds_and_devices_is_as_with_runc() {
    if !rooted("a_read_only_root_with_binds_and_devices_is_as_with_runc") {
        return;
    }
    let mut bundle = bundle(&["/probe", "report"]);
    let outside = tempfile::tempdir().unwrap();
    std::fs::write(outside.path().join("file"), "text").unwrap();
    give(outside.path());
    bundle.spec["root"]["readonly"] = true.into();
    let mounts = bundle.spec["mounts"].as_array_mut().unwrap();
    mounts.push(json!({
        "destination": "/volume", "type": "bind", "source": outside.path(), "options": ["rbind", "rprivate", "ro"]
    }));
    mounts.push(
        json!({ "destination": "/sys/fs/cgroup", "type": "cgroup", "source": "cgroup", "options": ["ro"] }),
    );
    bundle.spec["linux"]["namespaces"].as_array_mut().unwrap().push(json!({ "type": "cgroup" }));
    let kmsg = json!({ "path": "/dev/kmsg", "type": "c", "major": 1, "minor": 11 });
    bundle.spec["linux"]["devices"] = json!([kmsg]);
    let report = same(&bundle);
    assert_eq!(report["devices"]["kmsg"].as_str().unwrap().split(' ').nth(1), Some("1:11"));
    let volume =
        report["mounts"].as_array().unwrap().iter().find(|mount| mount["point"] == "/volume").unwrap();
    assert!(volume["options"].as_str().unwrap().starts_with("ro,"));
    // runc looks for one on the host.
    bundle.spec["linux"]["devices"] = json!([{ "path": "/dev/fifo", "type": "p", "fileMode": 0o640 }]);
    assert_eq!(bundle.report()["devices"]["fifo"], "fifo 640 0:0");
}

#[test]
fn without_pivot_root_a_user_namespace_is_as_with_runc() {
    if !rooted("without_pivot_root_a_user_namespace_is_as_with_runc") {
        return;
    }
    let mut bundle = bundle(&["/probe", "report"]);
    bundle.no_pivot_root = true;
    same(&bundle);
}

#[test]
fn the_host_sees_mapped_ids() {
    if !rooted("the_host_sees_mapped_ids") {
        return;
    }
    let mut bundle = bundle(&["/probe", "save", "/home/user/saved"]);
    bundle.spec["process"]["user"] = json!({ "uid": 1000, "gid": 1001, "additionalGids": [5] });
    let running = bundle.create().unwrap();
    let status = std::fs::read_to_string(format!("/proc/{}/status", running.waiting.pid)).unwrap();
    let ids = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap();
        line.split_whitespace().map(str::to_owned).collect::<Vec<_>>()
    };
    assert_eq!(ids("Uid:"), ["301000"; 4]);
    assert_eq!(ids("Gid:"), ["301001"; 4]);
    assert_eq!(ids("Groups:"), ["300005"]);
    assert_eq!(ids("PPid:"), [std::process::id().to_string()], "a child of whoever launched it");
    running.finish();
    let saved = std::fs::metadata(bundle.root().join("home/user/saved")).unwrap();
    assert_eq!((saved.uid(), saved.gid()), (FIRST + 1000, FIRST + 1001));
}

#[test]
fn the_terminal_of_a_user_namespace_is_its_users() {
    if !rooted("the_terminal_of_a_user_namespace_is_its_users") {
        return;
    }
    let mut bundle = bundle(&["/probe", "report"]);
    bundle.spec["process"]["terminal"] = true.into();
    bundle.spec["process"]["user"] = json!({ "uid": 1000, "gid": 1000 });
    let report = bundle.report();
    assert_eq!(report["devices"]["pts/0"], "char 136:0 620 1000:5");
    assert_eq!(report["devices"]["console"], "char 136:0 620 1000:5");
    assert_eq!(report["session"], json!({ "leader": true, "tty": "34816" }));
    let mut process = bundle.spec["process"].clone();
    bundle.spec["process"]["terminal"] = false.into();
    bundle.spec["process"]["args"] = json!(["/probe", "sleep"]);
    process["user"] = json!({ "uid": 7, "gid": 7 });
    let report = bundle.exec_report(&process);
    assert_eq!(report["devices"]["pts/0"], "char 136:0 620 7:5");
    assert_eq!(report["session"]["leader"], true);
}

#[test]
fn devices_of_a_user_namespace_can_be_used() {
    if !rooted("devices_of_a_user_namespace_can_be_used") {
        return;
    }
    let devices = ["/dev/null", "/dev/zero", "/dev/urandom", "/dev/full"];
    let arguments = [&["/probe", "open"], &devices[..], &["/proc/keys"]].concat();
    let mut bundle = bundle(&arguments);
    for (name, report) in bundle.reports() {
        assert_eq!(report["/dev/null"], json!({ "read": 0, "write": "ok" }), "{name}");
        for device in &devices[1..] {
            assert_eq!(report[device], json!({ "read": 64, "write": "ok" }), "{name}: {device}");
        }
        assert_eq!(report["/proc/keys"]["read"], 0, "{name}");
    }
    // Nor can root inside change what belongs to the host.
    let mut arguments = vec!["/probe", "chmod"];
    arguments.extend(devices);
    bundle.spec["process"]["args"] = json!(arguments);
    for (name, report) in bundle.reports() {
        assert!(devices.iter().all(|device| report[device] == "EPERM"), "{name}: {report}");
    }
}

#[test]
fn a_device_must_be_the_one_that_was_meant() {
    if !rooted("a_device_must_be_the_one_that_was_meant") {
        return;
    }
    let mut bundle = bundle(&["/probe", "report"]);
    let mut refused = |device: Value| {
        bundle.spec["linux"]["devices"] = json!([device]);
        bundle.create().err().expect("refused").to_string()
    };
    let error = refused(json!({ "path": "/dev/zero", "type": "c", "major": 1, "minor": 3 }));
    assert_eq!(error, "linux.devices[0] \"/dev/zero\": the host has another device there");
    let error = refused(json!({ "path": "/dev/no-such", "type": "b", "major": 1, "minor": 3 }));
    assert_eq!(error, "linux.devices[0] \"/dev/no-such\": no such file or directory (ENOENT)");
}

#[test]
fn the_streams_belong_to_the_user() {
    if !rooted("the_streams_belong_to_the_user") {
        return;
    }
    let mut bundle = bundle(&["/probe", "open", "/proc/self/fd/1"]);
    bundle.spec["process"]["user"] = json!({ "uid": 1000, "gid": 1000 });
    let running = bundle.create().unwrap();
    let output = std::fs::metadata(format!("/proc/{}/fd/1", running.waiting.pid)).unwrap();
    assert_eq!(output.uid(), FIRST + 1000);
    drop(running);
}

#[test]
fn a_hook_inside_is_root_of_the_user_namespace() {
    if !rooted("a_hook_inside_is_root_of_the_user_namespace") {
        return;
    }
    let mut bundle = bundle(&["/probe", "report"]);
    bundle.spec["hooks"] = json!({ "createContainer": [{ "path": "/bin/sh" }] });
    let plan = bundle.plan().unwrap();
    let out = tempfile::tempdir().unwrap();
    std::fs::set_permissions(out.path(), std::os::unix::fs::PermissionsExt::from_mode(0o777)).unwrap();
    let file = out.path().join("out");
    let script =
        format!("exec > {}; id -u; id -G; readlink /proc/self/ns/user /proc/self/ns/pid", file.display());
    let hook = Hook {
        path: "/bin/sh".into(),
        args: vec!["sh".into(), "-c".into(), script],
        env: vec!["PATH=/usr/bin:/bin".into()],
        timeout: None,
    };
    let mut namespaces = String::new();
    let process = launch_with(&plan, None, &mut |pid, pidfd| {
        for name in ["user", "pid"] {
            let link = std::fs::read_link(format!("/proc/{pid}/ns/{name}")).unwrap();
            namespaces += &format!("{}\n", link.display());
        }
        let own = Namespaces { pid: Ns::New, ..Namespaces::default() };
        let place = HookPlace::Namespaces { bundle: Path::new("/"), namespaces: &own };
        run_in(place, &hook, Some(pidfd))
    });
    assert_eq!(process.unwrap().finish().1, 0);
    assert_eq!(std::fs::read_to_string(&file).unwrap(), format!("0\n0\n{namespaces}"));
    assert_eq!(std::fs::metadata(&file).unwrap().uid(), FIRST);
}

/// Each error names the field of the spec, and nothing stays.
#[test]
fn a_user_namespace_that_cannot_be_leaves_nothing() {
    if !rooted("a_user_namespace_that_cannot_be_leaves_nothing") {
        return;
    }
    if !crate::bench::alone("users::a_user_namespace_that_cannot_be_leaves_nothing") {
        return;
    }
    bundle(&["/probe", "report"]).report();
    let before = left_behind();
    let refused = |change: &dyn Fn(&mut Bundle)| {
        let mut bundle = bundle(&["/probe", "report"]);
        change(&mut bundle);
        let error = bundle.create().err().expect("refused").to_string();
        eventually("nothing is left", || left_behind() == before);
        let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
        assert!(!mounts.contains(bundle.dir.path().to_str().unwrap()), "{mounts}");
        error
    };
    let join = |path: &'static str| {
        move |bundle: &mut Bundle| {
            let namespaces = bundle.spec["linux"]["namespaces"].as_array_mut().unwrap();
            namespaces.last_mut().unwrap()["path"] = path.into();
        }
    };
    let field = "linux.namespaces[user]";
    for (path, why) in [
        ("/proc/self/ns/net", "a namespace of another kind"),
        ("/etc/passwd", "not a namespace"),
        ("/no/such", "no such file or directory (ENOENT)"),
        ("/proc/self/ns/user", "the host's, which is no user namespace for a container"),
    ] {
        assert_eq!(refused(&join(path)), format!("{field} \"{path}\": {why}"));
    }
    // The kernel reads no more than a page.
    let error = refused(&|bundle| {
        let map = |n: u32| json!({ "containerID": n * 1000, "hostID": 1_000_000 + n * 1000, "size": 999 });
        bundle.spec["linux"]["gidMappings"] = (0..300).map(map).collect::<Vec<_>>().into();
    });
    assert!(
        error.starts_with("linux.gidMappings: write(gid_map, ") && error.ends_with("(EINVAL)"),
        "{error}"
    );
    let error = refused(&|bundle| bundle.spec["process"]["user"]["uid"] = 70_000.into());
    assert!(error.starts_with("process.user: step ") && error.ends_with("(EINVAL)"), "{error}");
    // By the first process, by the second, and by the second as root of the namespace.
    let error = refused(&|bundle| {
        bundle.rootfs = vec![shoal::plan::RootfsMount { fstype: "no-such".into(), ..Default::default() }];
    });
    assert!(error.starts_with("rootfs[0]: step ") && error.ends_with("(ENODEV)"), "{error}");
    let error = refused(&|bundle| bundle.spec["root"]["path"] = "nothing".into());
    assert!(error.starts_with("root.path: step ") && error.ends_with("(ENOENT)"), "{error}");
    let error = refused(&|bundle| bundle.spec["mounts"][1]["options"] = json!(["nonsense"]));
    assert!(error.starts_with("mounts[1]: step ") && error.ends_with("(EINVAL)"), "{error}");
    assert!(refused(&|bundle| bundle.spec["process"]["args"] = json!(["/none"])).contains("stat /none"));
}

#[test]
fn launches_into_user_namespaces_lose_no_exit() {
    if !rooted("launches_into_user_namespaces_lose_no_exit") {
        return;
    }
    if !crate::bench::alone("users::launches_into_user_namespaces_lose_no_exit") {
        return;
    }
    let plan = bundle(&["/probe", "report"]);
    plan.report();
    let before = left_behind();
    let threads: Vec<_> = (0..6u32)
        .map(|thread| {
            std::thread::spawn(move || {
                let code = (thread + 1).to_string();
                let mut bundle = bundle(&["/probe", "exit", &code]);
                for round in 0..25 {
                    bundle.spec["process"]["args"][0] =
                        if round % 5 == 4 { "/none" } else { "/probe" }.into();
                    match bundle.create() {
                        Err(error) => assert!(round % 5 == 4, "{error}"),
                        // Dropped at the gate.
                        Ok(running) if round % 5 == 3 => {
                            drop(running.waiting);
                            running.exit.recv_timeout(std::time::Duration::from_secs(20)).unwrap();
                        }
                        Ok(running) => {
                            running.waiting.start().unwrap();
                            let ended =
                                running.exit.recv_timeout(std::time::Duration::from_secs(20)).unwrap();
                            assert_eq!(ended.code, thread + 1);
                        }
                    }
                }
            })
        })
        .collect();
    for thread in threads {
        thread.join().unwrap();
    }
    eventually("no descriptor and no child is left", || left_behind() == before);
}

/// However many volumes there are, one namespace maps all that want the same.
#[test]
fn one_map_is_one_namespace() {
    let mut bundle = Bundle::new(&["/probe", "report"]);
    let mounts = bundle.spec["mounts"].as_array_mut().unwrap();
    for n in 0..4 {
        mounts.push(json!({
            "destination": format!("/{n}"), "source": "/tmp", "options": ["rbind"], "uidMappings": ids(), "gidMappings": ids()
        }));
    }
    let plan = bundle.plan().unwrap();
    let made = plan.opens.iter().filter(|(open, _)| matches!(open, Open::UserNamespace(_)));
    assert_eq!(made.count(), 1);
}
