//! Containers that join the namespaces of another process, with the user namespace that owns them, as in a pod.

use crate::bench::rooted;
use crate::container::{launch, Bundle, Running};
use crate::reports::same;
use crate::users::{bundle, ids};
use serde_json::{json, Value};
use shoal::launch::ExitStatus;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::sync::mpsc::Receiver;
use std::time::Duration;

/// The process whose namespaces the others join.
struct Pod {
    exit: Receiver<ExitStatus>,
    pidfd: OwnedFd,
    pid: u32,
    _root: Bundle,
}

impl Pod {
    fn new() -> Self {
        let root = bundle(&["/probe", "sleep"]);
        let Running { waiting, exit, .. } = root.create().unwrap();
        let pid = waiting.pid;
        Pod { exit, pidfd: waiting.start().unwrap(), pid, _root: root }
    }

    /// Makes a member's bundle as CRI writes it; `joined` are the kinds of namespaces that the pod shares.
    fn member(&self, args: &[&str], joined: &[&str]) -> Bundle {
        let mut bundle = bundle(args);
        let own = ["pid", "mount", "cgroup"].iter().filter(|kind| !joined.contains(kind));
        let own = own.map(|kind| json!({ "type": kind }));
        let joined = joined.iter().map(|kind| {
            let file = if *kind == "network" { "net" } else { kind };
            json!({ "type": kind, "path": format!("/proc/{}/ns/{file}", self.pid) })
        });
        bundle.spec["linux"]["namespaces"] = own.chain(joined).collect::<Vec<_>>().into();
        bundle.spec.as_object_mut().unwrap().remove("hostname");
        bundle
    }

    fn link(&self, kind: &str) -> String {
        std::fs::read_link(format!("/proc/{}/ns/{kind}", self.pid)).unwrap().to_str().unwrap().to_owned()
    }
}

impl Drop for Pod {
    fn drop(&mut self) {
        let _ = shoal::sys::wait::signal(self.pidfd.as_fd(), libc::SIGKILL);
        let _ = self.exit.recv_timeout(Duration::from_secs(5));
    }
}

const SHARED: [&str; 4] = ["user", "network", "ipc", "uts"];

#[test]
fn a_member_of_a_pod_is_as_with_runc() {
    if !rooted("a_member_of_a_pod_is_as_with_runc") {
        return;
    }
    let pod = Pod::new();
    let mut member = pod.member(&["/probe", "report"], &SHARED);
    member.spec["linux"]["sysctl"] = json!({ "user.max_ipc_namespaces": "17" });
    let mounts = member.spec["mounts"].as_array_mut().unwrap();
    mounts.push(
        json!({ "destination": "/sys/fs/cgroup", "type": "cgroup", "source": "cgroup", "options": ["ro"] }),
    );
    let report = member.report();
    for kind in ["user", "net", "ipc", "uts"] {
        assert_eq!(report["namespaces"][kind], pod.link(kind), "{kind}");
    }
    assert_ne!(report["namespaces"]["pid"], pod.link("pid"));
    assert_eq!((&report["pid"], &report["hostname"]), (&json!(1), &json!("inside")));
    assert_eq!(report["mappings"]["uid"], json!(["         0     300000      65536"]));
    let written = std::process::Command::new("nsenter")
        .args(["-t", &pod.pid.to_string(), "-U", "cat", "/proc/sys/user/max_ipc_namespaces"])
        .output()
        .unwrap();
    assert_eq!(String::from_utf8_lossy(&written.stdout).trim(), "17");
    // Not all versions of runc know these.
    member.spec["linux"].as_object_mut().unwrap().remove("sysctl");
    same(&member);
}

#[test]
fn a_member_can_share_the_pid_namespace_and_be_named_by_descriptor() {
    if !rooted("a_member_can_share_the_pid_namespace_and_be_named_by_descriptor") {
        return;
    }
    let pod = Pod::new();
    let mut member = pod.member(&["/probe", "report"], &[&SHARED[..], &["pid"]].concat());
    let user = std::fs::File::open(format!("/proc/{}/ns/user", pod.pid)).unwrap();
    for namespace in member.spec["linux"]["namespaces"].as_array_mut().unwrap() {
        if namespace["type"] == "user" {
            namespace["path"] = format!("/proc/self/fd/{}", user.as_raw_fd()).into();
        }
    }
    // The map of the joined namespace counts.
    let linux = member.spec["linux"].as_object_mut().unwrap();
    linux.remove("uidMappings");
    linux.remove("gidMappings");
    let report = member.report();
    assert_eq!(report["namespaces"]["pid"], pod.link("pid"));
    assert_eq!(report["pid"], 2, "the process between is not born there");
    assert_eq!(report["ids"]["uid"], "0 0 0 0");
}

#[test]
fn an_exec_in_a_member_is_where_the_member_is() {
    if !rooted("an_exec_in_a_member_is_where_the_member_is") {
        return;
    }
    let pod = Pod::new();
    let member = pod.member(&["/probe", "sleep"], &SHARED);
    let mut process = member.spec["process"].clone();
    process["args"] = json!(["/probe", "report"]);
    process["user"] = json!({ "uid": 1000, "gid": 1000 });
    process["terminal"] = true.into();
    let init = member.create().unwrap();
    let pid = init.waiting.pid;
    let pidfd = init.waiting.start().unwrap();
    let exec = launch(&member.exec_plan(&process).unwrap(), Some(pidfd.as_fd())).unwrap();
    let report: Value = serde_json::from_str(&exec.finish()).unwrap();
    for (kind, link) in report["namespaces"].as_object().unwrap() {
        if kind.ends_with("_for_children") {
            continue;
        }
        let of_init = std::fs::read_link(format!("/proc/{pid}/ns/{kind}")).unwrap();
        assert_eq!(link.as_str(), of_init.to_str(), "{kind}");
    }
    assert_eq!(report["mappings"]["gid"], json!(["         0     300000      65536"]));
    assert_eq!(report["devices"]["pts/0"], "char 136:0 620 1000:5");
    shoal::sys::wait::signal(pidfd.as_fd(), libc::SIGKILL).unwrap();
    init.exit.recv_timeout(Duration::from_secs(5)).unwrap();
}

#[test]
fn a_pod_whose_first_process_has_ended_takes_no_member() {
    if !rooted("a_pod_whose_first_process_has_ended_takes_no_member") {
        return;
    }
    let pod = Pod::new();
    let mut member = pod.member(&["/probe", "report"], &[&SHARED[..], &["pid"]].concat());
    // Held open, the namespaces outlive the pod.
    let namespaces = member.spec["linux"]["namespaces"].as_array_mut().unwrap();
    let held: Vec<_> = namespaces
        .iter_mut()
        .filter_map(|namespace| {
            let file = std::fs::File::open(namespace["path"].as_str()?).unwrap();
            namespace["path"] = format!("/proc/self/fd/{}", file.as_raw_fd()).into();
            Some(file)
        })
        .collect();
    drop(pod);
    let error = member.create().err().expect("refused");
    assert_eq!(held.len(), 5);
    assert_eq!(error.kind(), shoal::error::Kind::State, "{error}");
    assert!(error.to_string().starts_with("the first process of the pid namespace has ended"), "{error}");
}

/// `docker run --network container:x` with remapped users: another user namespace owns what is joined.
#[test]
fn a_namespace_of_somebody_else_can_be_joined() {
    if !rooted("a_namespace_of_somebody_else_can_be_joined") {
        return;
    }
    let pod = Pod::new();
    let mut other = pod.member(&["/probe", "report"], &["network", "ipc"]);
    other.spec["linux"]["namespaces"]
        .as_array_mut()
        .unwrap()
        .extend([json!({ "type": "user" }), json!({ "type": "uts" })]);
    other.spec["linux"]["uidMappings"] = ids();
    // A foreign namespace permits neither a sysfs nor message queues.
    let mounts = other.spec["mounts"].as_array_mut().unwrap();
    mounts.retain(|mount| mount["type"] != "sysfs" && mount["type"] != "mqueue");
    let report = same(&other);
    assert_eq!(report["namespaces"]["net"], pod.link("net"));
    assert_ne!(report["namespaces"]["user"], pod.link("user"));
    let mounts = other.spec["mounts"].as_array_mut().unwrap();
    mounts.push(json!({ "destination": "/sys", "type": "sysfs", "source": "sysfs" }));
    let error = other.create().err().expect("refused").to_string();
    assert!(error.starts_with("mounts[5]: step ") && error.ends_with("(EPERM)"), "{error}");
}

/// hostNetwork with hostUsers: false: sysfs is a bind of the host's.
#[test]
fn with_the_hosts_network_sys_is_bound() {
    if !rooted("with_the_hosts_network_sys_is_bound") {
        return;
    }
    let mut bundle = bundle(&["/probe", "report"]);
    bundle.spec["linux"]["namespaces"]
        .as_array_mut()
        .unwrap()
        .retain(|namespace| namespace["type"] != "network");
    for mount in bundle.spec["mounts"].as_array_mut().unwrap() {
        if mount["type"] == "sysfs" {
            *mount = json!({
                "destination": "/sys", "type": "bind", "source": "/sys", "options": ["rbind", "rprivate", "nosuid", "noexec", "nodev", "ro"]
            });
        }
    }
    let report = same(&bundle);
    let own = std::fs::read_link("/proc/self/ns/net").unwrap();
    assert_eq!(report["namespaces"]["net"], own.to_str().unwrap());
}

/// A filesystem with one instance per namespace is not read-only for the second container of a pod because the first
/// one mounted it read-only.
#[test]
fn what_one_member_has_read_only_another_one_can_write() {
    if !rooted("what_one_member_has_read_only_another_one_can_write") {
        return;
    }
    let mut first = Bundle::new(&["/probe", "sleep"]);
    for mount in first.spec["mounts"].as_array_mut().unwrap() {
        if ["proc", "mqueue"].contains(&mount["type"].as_str().unwrap()) {
            mount["options"].as_array_mut().unwrap().push("ro".into());
        }
    }
    let running = first.create().unwrap();
    let (pid, pidfd) = (running.waiting.pid, running.waiting.start().unwrap());
    let mut second = Bundle::new(&["/probe", "report"]);
    for mount in second.spec["mounts"].as_array_mut().unwrap() {
        mount["options"].as_array_mut().unwrap().retain(|word| word != "ro");
    }
    for namespace in second.spec["linux"]["namespaces"].as_array_mut().unwrap() {
        let kind = namespace["type"].as_str().unwrap().to_owned();
        let file = if kind == "network" { "net" } else { kind.as_str() };
        if kind != "mount" && kind != "uts" {
            namespace["path"] = format!("/proc/{pid}/ns/{file}").into();
        }
    }
    let report = second.report();
    shoal::sys::wait::signal(pidfd.as_fd(), libc::SIGKILL).unwrap();
    running.exit.recv_timeout(Duration::from_secs(5)).unwrap();
    for point in ["/proc", "/sys", "/dev/mqueue"] {
        let mount =
            report["mounts"].as_array().unwrap().iter().find(|mount| mount["point"] == point).unwrap();
        assert!(mount["options"].as_str().unwrap().starts_with("rw,"), "{mount}");
        assert!(mount["filesystem"].as_array().unwrap().contains(&json!("rw")), "{mount}");
    }
}
