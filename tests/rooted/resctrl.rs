//! `linux.intelRdt`: a process and its children are in its groups. A cgroup v1 hierarchy stands for resctrl, which few
//! machines have: it also takes processes through a file `tasks`, and tells where they are. (runc looks for resctrl
//! itself, and finds none here.)

use crate::bench::{eventually, rooted};
use crate::container::{launch, Bundle};
use serde_json::{json, Value};
use shoal::launch::ExitStatus;
use shoal::plan::Host;
use std::fs;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::mpsc::Receiver;
use std::time::Duration;

/// Groups, the first of which contains the others.
struct Tree(Vec<PathBuf>);

impl Tree {
    /// None, and reported, if the host has no such hierarchy.
    fn new(below: &[&str]) -> Option<Tree> {
        let freezer = Path::new("/sys/fs/cgroup/freezer");
        if !freezer.join("tasks").exists() {
            testbed::skip::other_machine("no cgroup v1");
            return None;
        }
        let root = freezer.join(format!("rooted-resctrl-{}", std::process::id()));
        let all = std::iter::once(root.clone()).chain(below.iter().map(|name| root.join(name)));
        let tree = Tree(all.collect());
        tree.0.iter().for_each(|folder| fs::create_dir(folder).unwrap());
        Some(tree)
    }

    fn host(&self) -> Host {
        Host { resctrl: Some(self.0[0].clone()), ..Host::probe(Path::new("/")).unwrap() }
    }
}

impl Drop for Tree {
    fn drop(&mut self) {
        for folder in self.0.iter().rev() {
            eventually("the group is empty", || fs::remove_dir(folder).is_ok());
        }
    }
}

/// The group of the report's process, below the root of the tree.
fn group(report: &Value) -> String {
    let lines = report["cgroup"].as_array().unwrap();
    let line = lines.iter().filter_map(Value::as_str).find(|line| line.contains(":freezer:")).unwrap();
    let path = line.rsplit(':').next().unwrap();
    path.trim_start_matches('/').split_once('/').map_or("", |(_, below)| below).to_owned()
}

fn process() -> Value {
    json!({ "args": ["/probe", "report"], "cwd": "/", "env": ["PATH=/"], "user": {} })
}

fn end(pidfd: &OwnedFd, exit: &Receiver<ExitStatus>) {
    shoal::sys::wait::signal(pidfd.as_fd(), libc::SIGKILL).unwrap();
    exit.recv_timeout(Duration::from_secs(5)).unwrap();
}

#[test]
fn a_container_and_its_execs_are_in_its_class_and_in_what_counts() {
    if !rooted("a_container_and_its_execs_are_in_its_class_and_in_what_counts") {
        return;
    }
    let monitor = "gold/mon_groups/rooted";
    let Some(tree) = Tree::new(&["gold", "gold/mon_groups", monitor, "rooted"]) else { return };
    for make in [Bundle::new, crate::users::bundle] {
        for (rdt, expected) in [
            (json!({ "closID": "gold" }), "gold"),
            (json!({ "closID": "gold", "enableMonitoring": true }), monitor),
            (json!({ "l3CacheSchema": "L3:0=f" }), "rooted"),
            (json!({ "closID": "/" }), ""),
        ] {
            let with = |args: &[&str]| {
                let mut bundle = make(args);
                bundle.spec["linux"]["intelRdt"] = rdt.clone();
                bundle
            };
            let bundle = with(&["/probe", "report"]);
            let report = launch(&bundle.plan_on(&tree.host()).unwrap(), None).unwrap().finish();
            assert_eq!(group(&serde_json::from_str(&report).unwrap()), expected, "{rdt}");

            let bundle = with(&["/probe", "sleep"]);
            let init = launch(&bundle.plan_on(&tree.host()).unwrap(), None).unwrap();
            let pidfd = init.waiting.start().unwrap();
            let plan = bundle.exec_plan_on(&tree.host(), &process()).unwrap();
            let report = launch(&plan, Some(pidfd.as_fd())).unwrap().finish();
            end(&pidfd, &init.exit);
            assert_eq!(group(&serde_json::from_str(&report).unwrap()), expected, "an exec, {rdt}");
        }
    }
}

#[test]
fn a_class_that_is_gone_fails_a_create_and_no_exec() {
    if !rooted("a_class_that_is_gone_fails_a_create_and_no_exec") {
        return;
    }
    let mut bundle = Bundle::new(&["/probe", "sleep"]);
    let init = bundle.create().unwrap();
    bundle.spec["linux"]["intelRdt"] = json!({ "closID": "gone" });
    let host = Host { resctrl: Some("/sys/fs".into()), ..Host::probe(Path::new("/")).unwrap() };
    let error = launch(&bundle.plan_on(&host).unwrap(), None).err().expect("refused").to_string();
    assert!(error.starts_with("linux.intelRdt: step "), "{error}");
    assert!(
        error.ends_with("write(\"/sys/fs/gone/tasks\", \"0\"): no such file or directory (ENOENT)"),
        "{error}"
    );

    let pidfd = init.waiting.start().unwrap();
    let plan = bundle.exec_plan_on(&host, &process()).unwrap();
    launch(&plan, Some(pidfd.as_fd())).unwrap().finish();
    end(&pidfd, &init.exit);
}
