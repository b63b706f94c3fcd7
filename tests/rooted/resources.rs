//! `linux.resources`: what the kernel's files say of a cgroup of ours, and of runc's.

use crate::bench::rooted;
use crate::container::{runc, Bundle};
use serde_json::{json, Value};
use shoal::cgroup::{self, CgroupsPath, Host, Layout};
use shoal::spec::resources::Resources;
use shoal::tasks::block_on;
use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::AtomicBool;

/// Files that tell what happens, or what belongs to each process.
const ALIVE: [&str; 14] = [
    "usage", "failcnt", "stat", "events", "peak", "pressure", "procs", "threads", "tasks", "reset", "force",
    "control", "kill", "reclaim",
];

/// Returns the limits in these folders by the names of their files.
fn limits(folders: impl Iterator<Item = PathBuf>) -> BTreeMap<String, String> {
    let files = folders.flat_map(|folder| std::fs::read_dir(folder).into_iter().flatten().flatten());
    let limit = |entry: std::fs::DirEntry| {
        let name = entry.file_name().into_string().ok()?;
        let about = entry.metadata().ok()?;
        let written = about.is_file() && about.permissions().mode() & 0o200 != 0;
        let limits = written && !ALIVE.iter().any(|word| name.contains(word));
        Some((name, std::fs::read_to_string(entry.path()).ok()?)).filter(|_| limits)
    };
    files.filter_map(limit).collect()
}

/// Returns nothing if a limit is refused.
fn ours(resources: &Value) -> Option<BTreeMap<String, String>> {
    let layout = Layout::probe(Path::new("/proc")).unwrap();
    let resources = Resources::from_json(resources.to_string().as_bytes(), "linux.resources").unwrap();
    let path =
        CgroupsPath::parse(&format!("/rooted-limits-{}", std::process::id()), false, "limits").unwrap();
    let (host, annotations, asked) = (Host::default(), BTreeMap::new(), AtomicBool::new(false));
    let made = cgroup::create(&host, &layout, &path, &resources, &annotations, &asked);
    let cgroup = block_on(made).ok()?;
    let found = limits(cgroup.directories().into_iter().map(|(mount, below)| mount.join(below)));
    block_on(cgroup.remove()).unwrap();
    Some(found)
}

fn of_runc(runc: &Path, resources: &Value) -> Option<BTreeMap<String, String>> {
    let (mut bundle, state) = (Bundle::new(&["/probe", "sleep"]), tempfile::tempdir().unwrap());
    let id = format!("rooted-theirs-{}", std::process::id());
    bundle.spec["linux"]["resources"] = resources.clone();
    bundle.spec["linux"]["cgroupsPath"] = format!("/{id}").into();
    std::fs::write(bundle.dir.path().join("config.json"), bundle.spec.to_string()).unwrap();
    let call = |words: &[&str]| {
        let mut command = Command::new(runc);
        command.arg("--root").arg(state.path()).args(words).arg(&id).current_dir(bundle.dir.path());
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).status().unwrap().success()
    };
    let ran = call(&["run", "--detach"]);
    let hierarchies = Layout::probe(Path::new("/proc")).unwrap();
    let found = limits(hierarchies.hierarchies().iter().map(|hierarchy| hierarchy.mount.join(&id)));
    call(&["delete", "--force"]);
    ran.then_some(found)
}

/// A disk, as the major and minor number of its device.
fn disk() -> Option<(u32, u32)> {
    let disks = std::fs::read_dir("/sys/block").ok()?.flatten();
    let number = |folder: std::fs::DirEntry| {
        let text = std::fs::read_to_string(folder.path().join("dev")).ok()?;
        let (major, minor) = text.trim().split_once(':')?;
        Some((major.parse().ok()?, minor.parse().ok()?))
    };
    disks.filter_map(number).next()
}

fn cases() -> Vec<Value> {
    let mut cases = vec![
        json!({ "memory": { "limit": 64 << 20 } }),
        json!({ "memory": { "limit": 64 << 20, "swap": 96 << 20, "reservation": 32 << 20 } }),
        json!({ "memory": { "limit": 64 << 20, "swap": -1 } }),
        json!({ "memory": { "limit": -1, "reservation": -1 } }),
        json!({ "memory": { "swappiness": 7 } }),
        json!({ "memory": { "disableOOMKiller": true } }),
        json!({ "memory": { "limit": 64 << 20, "useHierarchy": true, "checkBeforeUpdate": true } }),
        json!({ "cpu": { "shares": 512 } }),
        json!({ "cpu": { "shares": 262_144 } }),
        json!({ "cpu": { "quota": 50_000, "period": 200_000 } }),
        json!({ "cpu": { "quota": -1, "period": 50_000 } }),
        json!({ "cpu": { "quota": 50_000, "burst": 20_000 } }),
        json!({ "cpu": { "idle": 1 } }),
        json!({ "cpu": { "realtimePeriod": 500_000, "realtimeRuntime": 1000 } }),
        json!({ "cpu": { "cpus": "0", "mems": "0" } }),
        json!({ "cpu": { "cpus": "4000" } }),
        json!({ "pids": { "limit": 33 } }),
        json!({ "pids": { "limit": -1 } }),
        json!({ "hugepageLimits": [{ "pageSize": "2MB", "limit": 4 << 20 }] }),
        json!({ "network": { "classID": 1_048_577, "priorities": [{ "name": "lo", "priority": 3 }] } }),
        json!({ "rdma": { "no_such_device": { "hcaHandles": 3, "hcaObjects": 4 } } }),
        json!({ "blockIO": { "weight": 300 } }),
    ];
    if let Some((major, minor)) = disk() {
        let rate = json!([{ "major": major, "minor": minor, "rate": 7_340_032 }]);
        for limit in ["ReadBps", "WriteBps", "ReadIOPS", "WriteIOPS"] {
            cases.push(json!({ "blockIO": { format!("throttle{limit}Device"): rate } }));
        }
    }
    if Layout::probe(Path::new("/proc")).unwrap().is_v2() {
        cases.push(json!({ "unified": { "memory.high": "33554432", "pids.max": "9" } }));
    }
    cases
}

/// Where the host lacks a controller, or the kernel refuses a value, both refuse.
#[test]
fn every_limit_is_as_with_runc() {
    if !rooted("every_limit_is_as_with_runc") {
        return;
    }
    let Some(runc) = runc() else { return };
    let mut wrong = Vec::new();
    for resources in cases() {
        let (ours, theirs) = (ours(&resources), of_runc(&runc, &resources));
        match (&ours, &theirs) {
            (Some(ours), Some(theirs)) => {
                for (file, value) in ours.iter().filter(|(file, value)| theirs.get(*file) != Some(value)) {
                    wrong.push(format!("{resources}: {file}: {value:?}, {:?} with runc", theirs.get(file)));
                }
            }
            (None, None) => {}
            _ => wrong.push(format!("{resources}: made: {}, by runc: {}", ours.is_some(), theirs.is_some())),
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
