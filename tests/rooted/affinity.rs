//! The processors on which a container runs: those of its cpuset, whatever the shim is restricted to; ours and
//! runc's.

use crate::bench::rooted;
use crate::container::{launch_in, Bundle};
use crate::kernels::{cgroup2, Group};
use crate::reports::{same, same_exec};
use nix::sched::{sched_getaffinity, sched_setaffinity, CpuSet};
use nix::unistd::Pid;
use serde_json::{json, Value};
use shoal::cgroup::Entry;
use std::os::fd::AsFd;
use std::path::PathBuf;

const SELF: Pid = Pid::from_raw(0);

/// A thread restricted to one processor, as by `CPUAffinity=` of containerd's unit.
struct Kept {
    all: CpuSet,
    /// As in /proc/PID/status.
    list: String,
    first: usize,
    second: usize,
}

impl Kept {
    /// Restricts this thread; returns `None`, and reports it, if there is only one processor.
    fn on_one() -> Option<Self> {
        let all = sched_getaffinity(SELF).unwrap();
        let mut each = (0..CpuSet::count()).filter(|cpu| all.is_set(*cpu).unwrap());
        let (Some(first), Some(second)) = (each.next(), each.next()) else {
            testbed::skip::other_machine("one processor only");
            return None;
        };
        let status = std::fs::read_to_string("/proc/thread-self/status").unwrap();
        let list = status.lines().find_map(|line| line.strip_prefix("Cpus_allowed_list:")).unwrap();
        let kept = Kept { all, list: list.trim().into(), first, second };
        let mut one = CpuSet::new();
        one.set(first).unwrap();
        sched_setaffinity(SELF, &one).unwrap();
        Some(kept)
    }
}

impl Drop for Kept {
    fn drop(&mut self) {
        sched_setaffinity(SELF, &self.all).unwrap();
    }
}

/// An exec that reports.
pub fn process() -> Value {
    // runc's execs inherit no limits.
    let limit = json!({ "type": "RLIMIT_NOFILE", "hard": 1024, "soft": 1000 });
    json!({ "args": ["/probe", "report"], "cwd": "/", "env": ["PATH=/"], "user": {}, "rlimits": [limit] })
}

#[test]
fn a_container_is_not_kept_where_the_shim_is() {
    if !rooted("a_container_is_not_kept_where_the_shim_is") {
        return;
    }
    let Some(kept) = Kept::on_one() else { return };
    for make in [Bundle::new, crate::users::bundle] {
        assert_eq!(same(&make(&["/probe", "report"]))["cpus"], kept.list);
        assert_eq!(same_exec(&make(&["/probe", "sleep"]), &process())["cpus"], kept.list);
    }
}

#[test]
fn an_exec_has_the_affinity_that_is_asked_for() {
    if !rooted("an_exec_has_the_affinity_that_is_asked_for") {
        return;
    }
    let Some(kept) = Kept::on_one() else { return };
    let (first, second) = (kept.first.to_string(), kept.second.to_string());
    let cases = [
        (json!({ "initial": first }), first.as_str()),
        (json!({ "final": second }), second.as_str()),
        (json!({ "initial": first, "final": second }), second.as_str()),
        (json!({ "final": format!("{first},{second}") }), kept.list.as_str()),
        (
            json!({ "initial": format!("{first}-{second}"), "final": format!(",{second}, ,") }),
            second.as_str(),
        ),
        (json!({}), kept.list.as_str()),
    ];
    for (affinity, expected) in cases {
        let mut own = process();
        own["execCPUAffinity"] = affinity.clone();
        let report = same_exec(&Bundle::new(&["/probe", "sleep"]), &own);
        assert_eq!(report["cpus"], expected, "{affinity}");
        // The container's execCPUAffinity applies to its execs, not to its first process.
        let mut bundle = Bundle::new(&["/probe", "sleep"]);
        bundle.spec["process"]["execCPUAffinity"] = affinity.clone();
        assert_eq!(same_exec(&bundle, &process())["cpus"], expected, "{affinity}");
        bundle.spec["process"]["args"] = json!(["/probe", "report"]);
        assert_eq!(same(&bundle)["cpus"], kept.list, "{affinity}");
    }
}

/// Also on a kernel where an exec could be born in its cgroup: `initial` is for the time before.
#[test]
fn processors_that_are_not_there_are_told_by_their_field() {
    if !rooted("processors_that_are_not_there_are_told_by_their_field") {
        return;
    }
    let Some(hierarchy) = cgroup2() else { return };
    let group = Group::new(&hierarchy, "affinity");
    let init = Bundle::new(&["/probe", "sleep"]);
    let running = init.create().unwrap();
    let pidfd = running.waiting.start().unwrap();
    let exec = |affinity: Value| {
        let mut own = process();
        own["execCPUAffinity"] = affinity;
        let into = Some(std::fs::File::open(&group.0).unwrap().into());
        launch_in(&init.exec_plan(&own).unwrap(), Some(pidfd.as_fd()), Entry { into, ..Entry::default() })
    };
    for field in ["initial", "final"] {
        let error = exec(json!({ field: "8191" })).err().expect("refused").to_string();
        assert!(error.starts_with(&format!("process.execCPUAffinity.{field}: step ")), "{error}");
        assert!(error.ends_with("sched_setaffinity(8191): invalid argument (EINVAL)"), "{error}");
    }
    let allowed = sched_getaffinity(SELF).unwrap();
    let first = (0..CpuSet::count()).find(|cpu| allowed.is_set(*cpu).unwrap()).unwrap().to_string();
    let report = exec(json!({ "initial": &first })).unwrap().finish();
    let report: Value = serde_json::from_str(&report).unwrap();
    assert_eq!(report["cpus"], first);
    let (lines, end) = (report["cgroup"].as_array().unwrap(), format!("/{}", group.name()));
    assert!(lines.iter().any(|line| line.as_str().unwrap().ends_with(&end)), "{lines:?}");
    shoal::sys::wait::signal(pidfd.as_fd(), libc::SIGKILL).unwrap();
    running.exit.recv_timeout(std::time::Duration::from_secs(5)).unwrap();
}

/// A v1 cpuset with these processors.
struct Cpuset(PathBuf);

impl Cpuset {
    fn new(cpus: &str) -> Option<Self> {
        let hierarchy = PathBuf::from("/sys/fs/cgroup/cpuset");
        if !hierarchy.join("cpuset.cpus").exists() {
            testbed::skip::other_machine("no cpuset of cgroup v1");
            return None;
        }
        let cpuset = Cpuset(hierarchy.join(format!("rooted-affinity-{}", std::process::id())));
        std::fs::create_dir(&cpuset.0).unwrap();
        std::fs::write(cpuset.0.join("cpuset.cpus"), cpus).unwrap();
        let mems = std::fs::read_to_string(hierarchy.join("cpuset.mems")).unwrap();
        std::fs::write(cpuset.0.join("cpuset.mems"), mems.trim()).unwrap();
        Some(cpuset)
    }

    fn entry(&self) -> Entry {
        let procs = std::fs::OpenOptions::new().write(true).open(self.0.join("cgroup.procs")).unwrap();
        Entry { procs: vec![std::sync::Arc::new(std::os::fd::OwnedFd::from(procs))], ..Entry::default() }
    }
}

impl Drop for Cpuset {
    fn drop(&mut self) {
        crate::bench::eventually("the cpuset is empty", || std::fs::remove_dir(&self.0).is_ok());
    }
}

#[test]
fn a_container_runs_on_what_its_cpuset_has() {
    if !rooted("a_container_runs_on_what_its_cpuset_has") {
        return;
    }
    let Some(kept) = Kept::on_one() else { return };
    for cpus in [kept.second.to_string(), format!("{},{}", kept.first, kept.second)] {
        let Some(cpuset) = Cpuset::new(&cpus) else { return };
        let mut bundle = Bundle::new(&["/probe", "report"]);
        let text = bundle.create_in(cpuset.entry()).unwrap().finish();
        let ours: Value = serde_json::from_str(&text).unwrap();
        bundle.spec["linux"]["resources"]["cpu"] = json!({ "cpus": cpus });
        if let Some(theirs) = bundle.report_of_runc() {
            assert_eq!(ours["cpus"], theirs["cpus"]);
        }
        let mask = std::fs::read_to_string(cpuset.0.join("cpuset.cpus")).unwrap();
        assert_eq!(ours["cpus"], mask.trim());
    }
}
