//! The agent of a seccomp profile, with the real binary: on another mount than the shim's bundle, a process connects.

use crate::{connect, create_request, delete, shut_down, start, wait};
use containerd_shim_protos::api::*;
use serde_json::json;
use std::os::fd::AsRawFd;
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::time::{Duration, Instant};
use testbed::agent::{emulate, Agent};
use testbed::fake::{eventually, Containerd, Version};
use testbed::wire::{decode, TASK_V3};
use ttrpc::proto::Code;

/// A directory on another filesystem than $TMPDIR.
fn elsewhere() -> tempfile::TempDir {
    let folder = tempfile::tempdir_in("/dev/shm").unwrap();
    let device = |path: &Path| std::fs::metadata(path).unwrap().dev();
    assert_ne!(device(folder.path()), device(&std::env::temp_dir()), "/dev/shm is $TMPDIR's filesystem");
    folder
}

fn prepare(containerd: &Containerd, id: &str, agent: &Path) {
    containerd.prepare(id, &["/probe", "mkdir", "/made", "/refused"], json!({}));
    containerd.configure(id, |config| {
        config["linux"]["seccomp"] = json!({
            "defaultAction": "SCMP_ACT_ALLOW",
            "listenerPath": agent,
            "syscalls": [{ "names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_NOTIFY" }],
        });
    });
}

/// The processes that the shim has created to open paths.
fn children(shim: u32) -> String {
    let threads = std::fs::read_dir(format!("/proc/{shim}/task")).unwrap();
    // A thread may end meanwhile.
    threads
        .filter_map(|thread| std::fs::read_to_string(thread.unwrap().path().join("children")).ok())
        .collect()
}

#[test]
fn a_listener_is_the_agents_alone() {
    let containerd = Containerd::new(Version::V2_3);
    let folder = elsewhere();
    for path in [folder.path().join("agent"), containerd.dir.path().join("agent")] {
        let agent = Agent::listen(&path, emulate);
        prepare(&containerd, "c1", &path);
        let shim = containerd.start("c1");
        let mut wire = containerd.connect(&shim);
        let shim_pid = connect(&mut wire, TASK_V3, "c1").shim_pid;
        let request = create_request(&containerd, "c1");
        let pid = wire.task::<CreateTaskResponse>("Create", &request).unwrap().pid;
        assert_eq!(agent.state()["pid"], pid);
        for process in [shim_pid, pid] {
            let links = std::fs::read_dir(format!("/proc/{process}/fd")).unwrap();
            let links = links.filter_map(|entry| std::fs::read_link(entry.unwrap().path()).ok());
            let of_agent: Vec<_> = links.filter(|link| link.to_string_lossy().contains("seccomp")).collect();
            assert!(of_agent.is_empty(), "{process} has {of_agent:?}");
        }
        start(&mut wire, TASK_V3, "c1");
        assert_eq!(wait(&mut wire, TASK_V3, "c1"), 0);
        delete(&mut wire, TASK_V3, "c1");
        shut_down(wire, "c1");
        containerd.delete("c1");
        containerd.remove_bundle("c1");
    }
}

#[test]
fn an_agent_elsewhere_that_takes_nothing_has_the_time_of_the_request() {
    let containerd = Containerd::new(Version::V2_3);
    let folder = elsewhere();
    let path = folder.path().join("agent");
    let busy = UnixListener::bind(&path).unwrap();
    // SAFETY: takes integers; its queue has room for one more than this.
    assert_eq!(unsafe { libc::listen(busy.as_raw_fd(), 0) }, 0);
    let _first = UnixStream::connect(&path).unwrap();
    prepare(&containerd, "c1", &path);
    let shim = containerd.start("c1");
    let mut wire = containerd.connect(&shim);
    let shim_pid = connect(&mut wire, TASK_V3, "c1").shim_pid;
    let begun = Instant::now();
    wire.ask(TASK_V3, "Create", &create_request(&containerd, "c1"), Duration::from_millis(800));
    let (code, message) = decode::<CreateTaskResponse>(wire.next().unwrap().1).unwrap_err();
    assert_eq!(code, Code::DEADLINE_EXCEEDED, "{message}");
    assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
    assert!(eventually(|| children(shim_pid).is_empty()), "left: {}", children(shim_pid));

    // The same create succeeds once there is an agent.
    drop((busy, _first));
    std::fs::remove_file(&path).unwrap();
    let agent = Agent::listen(&path, emulate);
    let request = create_request(&containerd, "c1");
    wire.task::<CreateTaskResponse>("Create", &request).unwrap();
    agent.state();
    start(&mut wire, TASK_V3, "c1");
    assert_eq!(wait(&mut wire, TASK_V3, "c1"), 0);
    delete(&mut wire, TASK_V3, "c1");
    shut_down(wire, "c1");
    containerd.delete("c1");
    containerd.remove_bundle("c1");
}
