//! What a program finds in a container, field by field, ours and runc's.

use crate::bench::rooted;
use crate::container::Bundle;
use serde_json::{json, Value};
use std::fs::Permissions;
use std::os::unix::fs::{symlink, PermissionsExt};
use std::path::Path;

/// Fields that our tests do not set, or that differ each time.
const OWN: [&str; 2] = ["cgroup", "namespaces"];

/// Removes deliberate differences, and those of a `runc run` in the foreground.
fn comparable(mut report: Value) -> Value {
    // In the foreground, runc has pipes of its own; only the numbers count.
    for descriptor in report["descriptors"].as_array_mut().unwrap() {
        *descriptor = descriptor.as_str().unwrap()[..1].into();
    }
    for mount in report["mounts"].as_array_mut().unwrap() {
        let fstype = mount["type"].as_str().unwrap().to_owned();
        // For a tmpfs without a mode, runc's is an option, while ours is set on the root: `root` shows both.
        if let Some(words) = mount["filesystem"].as_array_mut() {
            words.retain(|word| !word.as_str().unwrap().starts_with("mode="));
            // With runc, a filesystem with one instance per namespace is as writable as its first mount; with ours,
            // each mount decides for itself.
            if ["proc", "sysfs", "mqueue", "cgroup", "cgroup2"].contains(&fstype.as_str()) {
                words.retain(|word| word != "ro" && word != "rw");
            }
        }
        // runc masks files with the container's /dev/null; ours is the host's, and cannot be changed.
        if mount["root"] == "/null" {
            *mount = mount["point"].clone();
        }
    }
    // The number differs in each run, and so does a container's keyring name: `_ses.` and its id.
    let keyring = report["keyring"].as_object_mut().unwrap();
    keyring.remove("number");
    if keyring["name"].as_str().unwrap_or_default().starts_with("_ses.") {
        keyring["name"] = "_ses.".into();
    }
    // In a user namespace, runc makes the IPC namespace, and so this directory, while its group is still the host's.
    if report["devices"]["mqueue"] == "dir 1777 0:65534" {
        report["devices"]["mqueue"] = "dir 1777 0:0".into();
    }
    // Some builds of runc leave the C library's signal 32 ignored.
    let ignored = report["signals"]["ignored"].as_str().unwrap();
    let ignored = u64::from_str_radix(ignored, 16).unwrap() & !(1 << 31);
    report["signals"]["ignored"] = ignored.into();
    report
}

pub fn same(bundle: &Bundle) -> Value {
    compare(bundle.report(), bundle.report_of_runc())
}

pub fn compare(ours: Value, theirs: Option<Value>) -> Value {
    if let Some(theirs) = theirs {
        let (ours, theirs) = (comparable(ours.clone()), comparable(theirs));
        let mut differences = Vec::new();
        for (field, value) in ours.as_object().unwrap() {
            if !OWN.contains(&field.as_str()) && theirs[field] != *value {
                differences.push(format!("{field}:\n{}", difference(value, &theirs[field])));
            }
        }
        assert!(differences.is_empty(), "{}", differences.join("\n"));
    }
    ours
}

/// Shows of lists only what is not in both.
fn difference(ours: &Value, theirs: &Value) -> String {
    let (Some(ours), Some(theirs)) = (ours.as_array(), theirs.as_array()) else {
        return format!("  shoal {ours}\n  runc  {theirs}");
    };
    let only = |name: &str, these: &[Value], those: &[Value]| {
        let these = these.iter().filter(|value| !those.contains(value));
        these.map(|value| format!("  {name} {value}\n")).collect::<String>()
    };
    only("shoal", ours, theirs) + &only("runc ", theirs, ours)
}

macro_rules! needs_root {
    ($name:literal) => {
        if !rooted($name) {
            return;
        }
    };
}

#[test]
fn a_default_container_is_as_with_runc() {
    needs_root!("a_default_container_is_as_with_runc");
    let report = same(&Bundle::new(&["/probe", "report"]));
    assert_eq!(report["hostname"], "inside");
    assert_eq!(report["pid"], 1);
    assert_eq!(report["descriptors"], json!(["0 /dev/null", "1 pipe", "2 pipe"]));
    assert_eq!(report["capabilities"]["effective"], "00000000a80425fb");
    assert_eq!(report["capabilities"]["inheritable"], "0000000000000000");
    assert_eq!(report["no_new_privs"], "1");
    assert_eq!(report["environment"], json!(["PATH=/usr/bin:/", "A=b", "HOME=/root"]));
    assert_eq!(report["interfaces"], 1);
    let own = std::fs::read_link("/proc/self/ns/mnt").unwrap();
    assert_ne!(report["namespaces"]["mnt"], own.to_str().unwrap());
}

#[test]
fn a_user_is_as_with_runc() {
    needs_root!("a_user_is_as_with_runc");
    let mut bundle = Bundle::new(&["probe", "report"]);
    let process = &mut bundle.spec["process"];
    process["user"] = json!({ "uid": 1000, "gid": 1000, "additionalGids": [5, 6], "umask": 0o27 });
    process["cwd"] = "/home/user/work".into();
    process["noNewPrivileges"] = false.into();
    process["capabilities"]["ambient"] = json!(["CAP_NET_BIND_SERVICE"]);
    process["capabilities"]["inheritable"] = json!(["CAP_NET_BIND_SERVICE"]);
    process["oomScoreAdj"] = 321.into();
    let report = same(&bundle);
    assert_eq!(report["oom_score_adj"], json!(["321"]));
    assert_eq!(report["ids"]["uid"], "1000 1000 1000 1000");
    assert_eq!(report["umask"], "0027");
    assert_eq!(report["cwd"], "/home/user/work");
    assert_eq!(report["capabilities"]["ambient"], "0000000000000400");
}

#[test]
fn a_read_only_root_with_binds_is_as_with_runc() {
    needs_root!("a_read_only_root_with_binds_is_as_with_runc");
    let mut bundle = Bundle::new(&["/probe", "report"]);
    let outside = tempfile::tempdir().unwrap();
    std::fs::write(outside.path().join("file"), "text").unwrap();
    bundle.spec["root"]["readonly"] = true.into();
    let mounts = bundle.spec["mounts"].as_array_mut().unwrap();
    let file = outside.path().join("file");
    mounts.push(
        json!({ "destination": "/etc/new/file", "type": "bind", "source": file, "options": ["bind", "ro"] }),
    );
    mounts.push(json!({
        "destination": "/volume", "type": "bind", "source": outside.path(),
        "options": ["rbind", "rslave", "nosuid", "nodev", "noexec"]
    }));
    mounts.push(json!({
        "destination": "/scratch", "type": "tmpfs", "source": "tmpfs", "options": ["size=1m", "noatime", "mode=1777"]
    }));
    bundle.spec["linux"]["sysctl"] = json!({ "net.ipv4.ip_forward": "1", "kernel.msgmax": "9000" });
    let report = same(&bundle);
    let mounts = report["mounts"].as_array().unwrap();
    let options = |point: &str| {
        let mount = mounts.iter().find(|mount| mount["point"] == point).unwrap();
        mount["options"].as_str().unwrap().to_owned()
    };
    assert!(options("/").starts_with("ro,"));
    assert!(options("/etc/new/file").starts_with("ro,"));
    assert!(options("/volume").starts_with("rw,nosuid,nodev,noexec"));
}

pub fn same_exec(bundle: &Bundle, process: &Value) -> Value {
    let ours = bundle.exec_report(process);
    let theirs = bundle.exec_report_of_runc(process).map(|mut report| {
        // runc's own processes have taken pids before it.
        report["pid"] = ours["pid"].clone();
        report
    });
    compare(ours, theirs)
}

#[test]
fn an_exec_is_as_with_runc() {
    needs_root!("an_exec_is_as_with_runc");
    let bundle = Bundle::new(&["/probe", "sleep"]);
    let mut process = bundle.spec["process"].clone();
    process["args"] = json!(["probe", "report", "more"]);
    process["env"] = json!(["PATH=/bin:/", "TERM=none"]);
    process["user"] = json!({ "uid": 1000, "gid": 1000, "additionalGids": [44] });
    process["cwd"] = "/tmp".into();
    let report = same_exec(&bundle, &process);
    assert_eq!(report["ids"]["uid"], "1000 1000 1000 1000");
    assert_eq!(report["ids"]["groups"], "44");
    assert_eq!(report["descriptors"], json!(["0 /dev/null", "1 pipe", "2 pipe"]));
    assert_eq!(report["environment"], json!(["PATH=/bin:/", "TERM=none", "HOME=/home/user"]));
    assert_eq!(report["capabilities"]["inheritable"], "0000000000000000");
    assert_eq!(report["cwd"], "/tmp");
}

#[test]
fn a_terminal_is_the_containers_own() {
    needs_root!("a_terminal_is_the_containers_own");
    let mut bundle = Bundle::new(&["/probe", "report"]);
    bundle.spec["process"]["terminal"] = true.into();
    bundle.spec["process"]["consoleSize"] = json!({ "height": 30, "width": 90 });
    bundle.spec["process"]["user"] = json!({ "uid": 1000, "gid": 1000 });
    let report = bundle.report();
    assert_eq!(report["descriptors"], json!(["0 /dev/pts/0", "1 /dev/pts/0", "2 /dev/pts/0"]));
    assert_eq!(report["session"], json!({ "leader": true, "tty": "34816" }));
    assert_eq!(report["window"], json!([30, 90]));
    assert_eq!(report["devices"]["pts/0"], "char 136:0 620 1000:5");
    assert_eq!(report["devices"]["console"], "char 136:0 620 1000:5");
}

/// A tmpfs is world-writable, as in tmpfs(5) (some versions of runc gave it the mode of the directory that they had
/// just made for it); one that covers a directory takes that directory's mode.
#[test]
fn a_tmpfs_has_the_mode_of_what_it_covers() {
    needs_root!("a_tmpfs_has_the_mode_of_what_it_covers");
    let mut bundle = Bundle::new(&["/probe", "report"]);
    std::fs::set_permissions(bundle.root().join("tmp"), std::os::unix::fs::PermissionsExt::from_mode(0o711))
        .unwrap();
    let mounts = bundle.spec["mounts"].as_array_mut().unwrap();
    for (destination, options) in [("/new", json!([])), ("/tmp", json!([])), ("/etc", json!(["tmpcopyup"]))] {
        mounts.push(
            json!({ "destination": destination, "type": "tmpfs", "source": "tmpfs", "options": options }),
        );
    }
    let report = bundle.report();
    assert_eq!(report["root"]["new"], "dir 1777 0:0");
    assert_eq!(report["root"]["tmp"], "dir 711 0:0");
    assert_eq!(report["root"]["etc"], "dir 755 0:0");
    assert_eq!(
        report["environment"].as_array().unwrap().last().unwrap(),
        "HOME=/root",
        "/etc/passwd was copied"
    );
}

/// `tmpcopyup` copies whatever the image has there, however deep, on a thread with a small stack.
#[test]
fn a_tmpfs_can_start_as_a_copy() {
    needs_root!("a_tmpfs_can_start_as_a_copy");
    let nested = "d/".repeat(30);
    let deepest = format!("/copied/{nested}file");
    let bundle = std::thread::Builder::new().stack_size(384 << 10).spawn(move || {
        let mut bundle = Bundle::new(&[
            "/probe",
            "stat",
            "/copied/link",
            "/copied/set",
            "/copied/fifo",
            "/copied",
            &deepest,
        ]);
        let copied = bundle.root().join("copied");
        std::fs::create_dir_all(copied.join(&nested)).unwrap();
        std::fs::write(copied.join(&nested).join("file"), "x".repeat(3_000_000)).unwrap();
        std::fs::write(copied.join("set"), "").unwrap();
        symlink("/nowhere", copied.join("link")).unwrap();
        std::os::unix::fs::chown(copied.join("set"), Some(7), Some(8)).unwrap();
        std::fs::set_permissions(copied.join("set"), Permissions::from_mode(0o4751)).unwrap();
        std::fs::set_permissions(&copied, Permissions::from_mode(0o1733)).unwrap();
        bundle.spec["mounts"].as_array_mut().unwrap().push(json!({
            "destination": "/copied", "type": "tmpfs", "source": "tmpfs", "options": ["tmpcopyup"]
        }));
        for (name, report) in bundle.reports() {
            assert_eq!(report["/copied/link"], "-> /nowhere 777 0:0", "{name}");
            assert_eq!(report["/copied/set"], "file 4751 7:8 0", "{name}");
            assert_eq!(report["/copied"].as_str().unwrap(), "dir 1733 0:0", "{name}");
            assert_eq!(report[&deepest], "file 644 0:0 3000000", "{name}");
        }
        // runc 1.3 fails on a FIFO.
        nix::unistd::mkfifo(&copied.join("fifo"), nix::sys::stat::Mode::from_bits_truncate(0o600)).unwrap();
        assert_eq!(bundle.report()["/copied/fifo"], "fifo 600 0:0");
    });
    bundle.unwrap().join().unwrap();
}

#[test]
fn limits_that_are_refused_are_told_with_their_field() {
    needs_root!("limits_that_are_refused_are_told_with_their_field");
    let mut bundle = Bundle::new(&["/probe", "report"]);
    // The kernel refuses more than fs.nr_open to everyone.
    bundle.spec["process"]["rlimits"] =
        json!([{ "type": "RLIMIT_NOFILE", "hard": 1u64 << 40, "soft": 1024 }]);
    let error = bundle.create().err().expect("refused").to_string();
    assert!(error.contains("rlimits[0]") && error.contains("EPERM"), "{error}");
}

#[test]
fn no_user_namespace_in_a_container_can_mount_a_procfs_without_masks() {
    needs_root!("no_user_namespace_in_a_container_can_mount_a_procfs_without_masks");
    for no_pivot_root in [false, true] {
        let mut bundle = Bundle::new(&["/probe", "procfs"]);
        bundle.no_pivot_root = no_pivot_root;
        for (whose, answer) in bundle.reports() {
            assert_eq!(answer, "EPERM", "{whose}, no_pivot_root: {no_pivot_root}");
        }
        bundle.spec["linux"]["maskedPaths"] = Value::Null;
        bundle.spec["linux"]["readonlyPaths"] = Value::Null;
        assert_eq!(bundle.report(), "ok", "the probe finds nothing");
    }
    assert!(std::path::Path::new("/proc/self/fd").exists(), "the host's is gone");
}

#[test]
fn without_pivot_root_all_is_the_same() {
    needs_root!("without_pivot_root_all_is_the_same");
    let mut bundle = Bundle::new(&["/probe", "report"]);
    bundle.no_pivot_root = true;
    let report = same(&bundle);
    let points: Vec<_> =
        report["mounts"].as_array().unwrap().iter().map(|m| m["point"].as_str().unwrap()).collect();
    assert!(
        points.iter().filter(|point| **point == "/").count() >= 1 && points.contains(&"/proc"),
        "{points:?}"
    );
    assert_eq!(report["root"]["probe"].as_str().unwrap().split(' ').next(), Some("file"));
}

#[test]
fn the_session_keyring_is_a_new_one_or_the_callers() {
    needs_root!("the_session_keyring_is_a_new_one_or_the_callers");
    let outside = std::process::Command::new(env!("CARGO_BIN_EXE_probe")).arg("report").output().unwrap();
    let outside = &serde_json::from_slice::<Value>(&outside.stdout).unwrap()["keyring"];
    let mut bundle = Bundle::new(&["/probe", "report"]);
    for (name, report) in bundle.reports() {
        let keyring = &report["keyring"];
        assert!(keyring["name"].as_str().unwrap().starts_with("_ses.rooted"), "{name}: {keyring}");
        assert_ne!(keyring["number"], outside["number"], "{name}");
        assert_eq!(keyring["permissions"], "3f1b0000", "{name}");
    }
    bundle.no_new_keyring = true;
    for (name, report) in bundle.reports() {
        assert_eq!(report["keyring"], *outside, "{name}");
    }
    same(&bundle);
    let mut process = bundle.spec["process"].clone();
    bundle.spec["process"]["args"] = json!(["/probe", "sleep"]);
    assert_eq!(bundle.exec_report(&process)["keyring"], *outside);
    bundle.no_new_keyring = false;
    process["user"] = json!({ "uid": 1000, "gid": 1000 });
    let report = same_exec(&bundle, &process);
    assert!(report["keyring"]["name"].as_str().unwrap().starts_with("_ses."), "{}", report["keyring"]);
}

/// EDOM, which no call here returns by itself.
const REFUSED: u32 = libc::EDOM as u32;

/// Returns the numbers of calls on this machine, as the probe's arguments.
fn numbers(calls: &[libc::c_long]) -> Vec<String> {
    calls.iter().map(libc::c_long::to_string).collect()
}

/// The filter is early (before capabilities are dropped, but after ids) without no_new_privs, else late.
#[test]
fn a_seccomp_profile_is_as_with_runc_early_and_late() {
    needs_root!("a_seccomp_profile_is_as_with_runc_early_and_late");
    for late in [true, false] {
        let mut bundle = Bundle::new(&["/probe", "report"]);
        bundle.spec["process"]["noNewPrivileges"] = late.into();
        bundle.spec["process"]["user"] = json!({ "uid": 1000, "gid": 1000 });
        bundle.spec["linux"]["seccomp"] = json!({
            "defaultAction": "SCMP_ACT_ALLOW",
            "syscalls": [{ "names": ["personality", "vhangup"], "action": "SCMP_ACT_ERRNO", "errnoRet": REFUSED }],
        });
        let report = same(&bundle);
        assert_eq!(report["seccomp"], json!({ "mode": "2", "filters": "1" }));
        assert_eq!(report["no_new_privs"], if late { "1" } else { "0" });

        let calls = numbers(&[libc::SYS_personality, libc::SYS_vhangup, libc::SYS_getpgid, 100_000]);
        bundle.spec["process"]["args"] =
            json!([&["/probe".to_owned(), "call".to_owned()], &calls[..]].concat());
        for (name, report) in bundle.reports() {
            let told: Vec<_> = calls.iter().map(|call| report[call].as_str().unwrap()).collect();
            assert_eq!(told, ["EDOM", "EDOM", "ok", "ENOSYS"], "{name}, late: {late}");
        }
        // An exec is filtered as well.
        let process = bundle.spec["process"].clone();
        bundle.spec["process"]["args"] = json!(["/probe", "sleep"]);
        let ours = bundle.exec_report(&process);
        assert_eq!(ours[&calls[0]], "EDOM");
        if let Some(theirs) = bundle.exec_report_of_runc(&process) {
            assert_eq!(ours, theirs);
        }
    }
}

#[test]
fn an_early_filter_is_there_when_capabilities_are_set_and_a_late_one_is_not() {
    needs_root!("an_early_filter_is_there_when_capabilities_are_set_and_a_late_one_is_not");
    let mut bundle = Bundle::new(&["/probe", "report"]);
    let refuse = |bundle: &mut Bundle, names: &[&str]| {
        bundle.spec["linux"]["seccomp"] = json!({
            "defaultAction": "SCMP_ACT_ALLOW",
            "syscalls": [{ "names": names, "action": "SCMP_ACT_ERRNO", "errnoRet": REFUSED }],
        });
    };
    let ids = ["setgroups", "setuid", "setresuid", "setgid", "setresgid"];
    for names in [&ids[..], &["capset"]] {
        refuse(&mut bundle, names);
        assert_eq!(same(&bundle)["seccomp"]["mode"], "2");
    }
    bundle.spec["process"]["noNewPrivileges"] = false.into();
    bundle.spec["process"]["user"] = json!({ "uid": 1000, "gid": 1000 });
    let error = bundle.create().err().expect("refused").to_string();
    assert!(error.starts_with("process.capabilities: step ") && error.contains("(EDOM)"), "{error}");
    let theirs = |bundle: &Bundle| {
        let Some(runc) = crate::container::runc() else { return };
        let output = bundle.try_runc(&runc);
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success() && errors.contains("numerical argument out of domain"), "{errors}");
    };
    theirs(&bundle);
    // They are set before the filter; with runc, after it.
    refuse(&mut bundle, &ids);
    assert_eq!(bundle.report()["ids"]["uid"], "1000 1000 1000 1000");
    theirs(&bundle);
}

/// The profile refuses unknown calls: a call that is newer than the profile still gives ENOSYS, so that programs fall
/// back to older ones.
#[test]
fn a_call_that_is_newer_than_the_profile_is_not_implemented() {
    needs_root!("a_call_that_is_newer_than_the_profile_is_not_implemented");
    let spec = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/specs/ctr-seccomp.json");
    let spec: Value = serde_json::from_slice(&std::fs::read(spec).unwrap()).unwrap();
    let calls = numbers(&[libc::SYS_vhangup, libc::SYS_getpgid, 100_000]);
    for late in [true, false] {
        let words = [&["/probe".to_owned(), "call".to_owned()], &calls[..]].concat();
        let mut bundle = Bundle::new(&[]);
        bundle.spec["process"]["args"] = json!(words);
        bundle.spec["process"]["noNewPrivileges"] = late.into();
        bundle.spec["linux"]["seccomp"] = spec["linux"]["seccomp"].clone();
        bundle.spec["linux"]["seccomp"]["defaultErrnoRet"] = REFUSED.into();
        for (name, report) in bundle.reports() {
            let told: Vec<_> = calls.iter().map(|call| report[call].as_str().unwrap()).collect();
            assert_eq!(told, ["EDOM", "ok", "ENOSYS"], "{name}, late: {late}");
        }
    }
}
