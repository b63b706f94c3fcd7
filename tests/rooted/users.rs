//! User namespaces and mapped owners: what a container finds, what the host sees of it, and what is left of a failure.

use crate::bench::rooted;
use crate::container::Bundle;
use crate::reports::{same, same_exec};
use serde_json::{json, Value};
use std::os::unix::fs::chown;
use std::path::Path;

const FIRST: u32 = 300_000;

/// Everything below is given to the root of the container.
fn give(path: &Path) {
    std::os::unix::fs::lchown(path, Some(FIRST), Some(FIRST)).unwrap();
    if path.symlink_metadata().unwrap().is_dir() {
        for entry in std::fs::read_dir(path).unwrap() {
            give(&entry.unwrap().path());
        }
    }
}

fn ids() -> Value {
    json!([{ "containerID": 0, "hostID": FIRST, "size": 65536 }])
}

/// A container with a user namespace of its own, whose files are its root's.
fn bundle(args: &[&str]) -> Bundle {
    let mut bundle = Bundle::new(args);
    // What is given away must not be the program that others run.
    let probe = bundle.root().join("probe");
    std::fs::remove_file(&probe).unwrap();
    std::fs::copy(env!("CARGO_BIN_EXE_probe"), &probe).unwrap();
    give(&bundle.root());
    chown(bundle.root().join("home/user"), Some(FIRST + 1000), Some(FIRST + 1000)).unwrap();
    // As containerd does it: whoever is root inside finds the way to its root.
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
    process["oomScoreAdj"] = 7.into();
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
        { "type": "RLIMIT_NPROC", "soft": 1, "hard": 1 },
    ]);
    let (_, own) = nix::sys::resource::getrlimit(nix::sys::resource::Resource::RLIMIT_MEMLOCK).unwrap();
    let capabilities = std::fs::read_to_string("/proc/self/status").unwrap();
    let mine = capabilities.lines().find_map(|line| line.strip_prefix("CapEff:")).unwrap().trim();
    // CAP_SYS_RESOURCE, of which some hosts of tests have none.
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
        "destination": "/volume", "type": "bind", "source": outside.path(), "options": ["rbind", "rslave", "ro"]
    }));
    mounts.push(
        json!({ "destination": "/sys/fs/cgroup", "type": "cgroup", "source": "cgroup", "options": ["ro"] }),
    );
    bundle.spec["linux"]["namespaces"].as_array_mut().unwrap().push(json!({ "type": "cgroup" }));
    bundle.spec["linux"]["devices"] = json!([
        { "path": "/dev/kmsg", "type": "c", "major": 1, "minor": 11 },
        { "path": "/dev/fifo", "type": "p", "fileMode": 0o640 },
    ]);
    let report = same(&bundle);
    assert_eq!(report["devices"]["kmsg"].as_str().unwrap().split(' ').nth(1), Some("1:11"));
    assert_eq!(report["devices"]["fifo"], "fifo 640 0:0");
}
