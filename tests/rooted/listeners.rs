//! Filters that leave calls to an agent: who has the listener, and what its answers do.

use crate::bench::rooted;
use crate::container::{launch, runc, Bundle, Running};
use crate::users;
use serde_json::{json, Value};
use shoal::launch::Leash;
use shoal::sys::wait;
use shoal::tasks::block_on;
use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};
use testbed::agent::{emulate, Agent, Answer, Served};

pub fn notify(bundle: &mut Bundle, names: &[&str]) {
    bundle.spec["linux"]["seccomp"] = json!({
        "defaultAction": "SCMP_ACT_ALLOW",
        "listenerPath": bundle.dir.path().join("agent"),
        "listenerMetadata": "a=b",
        "syscalls": [{ "names": names, "action": "SCMP_ACT_NOTIFY" }],
    });
}

pub const MKDIR: [&str; 2] = ["mkdir", "mkdirat"];

/// Serves the program as its agent; returns its report, and the calls that the agent was asked for.
pub fn served(mut running: Running, decide: fn(&testbed::agent::Call) -> Answer) -> (Value, Vec<i64>) {
    let listener = running.waiting.listener.take().expect("a listener");
    assert_eq!(
        others(running.waiting.pid),
        Vec::<String>::new(),
        "what the container can see has a listener"
    );
    let served = Served::new(listener, decide);
    let text = running.finish();
    let calls = served.calls.lock().unwrap().clone();
    (serde_json::from_str(&text).unwrap_or_else(|e| panic!("{e}: {text}")), calls)
}

/// What a process at its gate has open besides its streams and its gate, which is a socket.
fn others(pid: u32) -> Vec<String> {
    let links = std::fs::read_dir(format!("/proc/{pid}/fd")).unwrap().map(|entry| entry.unwrap().path());
    let all = links.filter_map(|path| Some((path.clone(), std::fs::read_link(path).ok()?)));
    let above =
        all.filter(|(path, _)| path.file_name().unwrap().to_str().unwrap().parse::<u32>().unwrap() > 2);
    let words = above.map(|(_, target)| target.to_string_lossy().into_owned());
    words.filter(|target| !target.starts_with("socket:")).collect()
}

/// Early filters and late ones, of root and of others, in user namespaces and without.
fn bundles(args: &[&str]) -> Vec<(String, Bundle)> {
    let mut all = Vec::new();
    for (late, uid, in_user) in [
        (true, 0, false),
        (false, 0, false),
        (true, 1000, false),
        (false, 1000, false),
        (true, 0, true),
        (false, 0, true),
    ] {
        let mut bundle = if in_user { users::bundle(args) } else { Bundle::new(args) };
        bundle.spec["process"]["noNewPrivileges"] = late.into();
        bundle.spec["process"]["user"] = json!({ "uid": uid, "gid": uid });
        notify(&mut bundle, &MKDIR);
        all.push((format!("late: {late}, uid: {uid}, user namespace: {in_user}"), bundle));
    }
    all
}

const PATHS: [&str; 4] = ["/probe", "mkdir", "/made", "/refused"];

fn expected() -> Value {
    json!({ "/made": "ok", "/refused": "ENOMEDIUM" })
}

#[test]
fn an_agent_makes_the_call_as_with_runc() {
    if !rooted("an_agent_makes_the_call_as_with_runc") {
        return;
    }
    for (name, bundle) in bundles(&PATHS) {
        let made = bundle.root().join("made");
        let (told, calls) = served(bundle.create().unwrap(), emulate);
        assert_eq!((told, calls.len()), (expected(), 2), "{name}");
        std::fs::remove_dir(&made).expect("the agent has made it");
        let Some(runc) = runc() else { continue };
        let agent = Agent::listen(&bundle.dir.path().join("agent"), emulate);
        let told: Value = serde_json::from_str(&bundle.run_runc(&runc)).unwrap();
        assert_eq!(told, expected(), "runc, {name}");
        assert_eq!(agent.state()["metadata"], "a=b");
        assert!(made.is_dir());
    }
}

#[test]
fn an_exec_has_a_listener_of_its_own_as_with_runc() {
    if !rooted("an_exec_has_a_listener_of_its_own_as_with_runc") {
        return;
    }
    for (name, mut bundle) in bundles(&PATHS) {
        let process = bundle.spec["process"].clone();
        bundle.spec["process"]["args"] = json!(["/probe", "sleep"]);
        let made = bundle.root().join("made");
        let mut init = bundle.create().unwrap();
        let _of_init = init.waiting.listener.take().expect("a listener");
        let pidfd = init.waiting.start().unwrap();
        let exec = launch(&bundle.exec_plan(&process).unwrap(), Some(pidfd.as_fd())).unwrap();
        let (told, calls) = served(exec, emulate);
        wait::signal(pidfd.as_fd(), libc::SIGKILL).unwrap();
        init.exit.recv_timeout(Duration::from_secs(5)).unwrap();
        assert_eq!((told, calls.len()), (expected(), 2), "{name}");
        std::fs::remove_dir(&made).expect("the agent has made it");
        let agent = Agent::listen(&bundle.dir.path().join("agent"), emulate);
        let Some(told) = bundle.exec_report_of_runc(&process) else { continue };
        assert_eq!(told, expected(), "runc, {name}");
        let (first, exec) = (agent.state(), agent.state());
        assert_eq!(exec["state"]["pid"], first["pid"]);
        assert_ne!(exec["pid"], first["pid"]);
    }
}

/// A joined pid namespace, and the host's: the process that loads the filter is another one.
#[test]
fn the_pid_namespace_makes_no_difference() {
    if !rooted("the_pid_namespace_makes_no_difference") {
        return;
    }
    let other = Bundle::new(&["/probe", "sleep"]).create().unwrap();
    let path = format!("/proc/{}/ns/pid", other.waiting.pid);
    for (namespace, late) in [
        (Some(json!({ "type": "pid", "path": path })), true),
        (Some(json!({ "type": "pid", "path": path })), false),
        (None, true),
        (None, false),
    ] {
        let mut bundle = Bundle::new(&PATHS);
        let namespaces = bundle.spec["linux"]["namespaces"].as_array_mut().unwrap();
        namespaces.retain(|one| one["type"] != "pid");
        namespaces.extend(namespace.clone());
        bundle.spec["process"]["noNewPrivileges"] = late.into();
        notify(&mut bundle, &MKDIR);
        let made = bundle.root().join("made");
        let what = format!("{namespace:?}, late: {late}");
        assert_eq!(served(bundle.create().unwrap(), emulate).0, expected(), "{what}");
        std::fs::remove_dir(&made).unwrap();

        let process = bundle.spec["process"].clone();
        bundle.spec["process"]["args"] = json!(["/probe", "sleep"]);
        let mut init = bundle.create().unwrap();
        let _of_init = init.waiting.listener.take().expect("a listener");
        let pidfd = init.waiting.start().unwrap();
        let exec = launch(&bundle.exec_plan(&process).unwrap(), Some(pidfd.as_fd())).unwrap();
        assert_eq!(served(exec, emulate).0, expected(), "exec, {what}");
        wait::signal(pidfd.as_fd(), libc::SIGKILL).unwrap();
        init.exit.recv_timeout(Duration::from_secs(5)).unwrap();
    }
}

/// The profile leaves all calls of the launch to the agent, which serves only once the program runs.
#[test]
fn a_launch_asks_no_agent() {
    if !rooted("a_launch_asks_no_agent") {
        return;
    }
    let names = [
        "capset",
        "prctl",
        "newfstatat",
        "faccessat2",
        "sendmsg",
        "close",
        "close_range",
        "munmap",
        "madvise",
        "clone",
        "setsid",
        "ioctl",
        "read",
        "exit",
        "exit_group",
        "mkdir",
    ];
    for late in [true, false] {
        let mut bundle = Bundle::new(&["/probe", "mkdir", "/made"]);
        bundle.spec["process"]["noNewPrivileges"] = late.into();
        bundle.spec["process"]["user"] = json!({ "uid": 1000, "gid": 1000 });
        notify(&mut bundle, &names);
        let asked = |call: &testbed::agent::Call| match call.number {
            libc::SYS_mkdir => Answer::Value(0),
            _ => Answer::Continue,
        };
        let process = bundle.spec["process"].clone();
        let (told, calls) = served(bundle.create().unwrap(), asked);
        assert_eq!(told, json!({ "/made": "ok" }), "late: {late}");
        assert!(!calls.contains(&libc::SYS_setsid) && calls.contains(&libc::SYS_mkdir), "{calls:?}");
        // In a pid namespace that others are in.
        bundle.spec["process"]["args"] = json!(["/probe", "sleep"]);
        let mut init = bundle.create().unwrap();
        let of_init = Served::new(init.waiting.listener.take().unwrap(), asked);
        let pidfd = init.waiting.start().unwrap();
        let exec = launch(&bundle.exec_plan(&process).unwrap(), Some(pidfd.as_fd())).unwrap();
        let (told, calls) = served(exec, asked);
        assert_eq!(told, json!({ "/made": "ok" }), "exec, late: {late}");
        assert!(!calls.contains(&libc::SYS_setsid), "{calls:?}");
        wait::signal(pidfd.as_fd(), libc::SIGKILL).unwrap();
        init.exit.recv_timeout(Duration::from_secs(5)).unwrap();
        drop(of_init);

        // Nor does a launch that fails: it ends at once.
        bundle.spec["process"]["args"] = json!(["/missing"]);
        let begun = Instant::now();
        let error = bundle.create().err().expect("refused").to_string();
        assert!(error.contains("no such file or directory"), "{error}");
        assert!(begun.elapsed() < Duration::from_secs(10), "late: {late}: {:?}", begun.elapsed());
    }
}

/// execve(2) is the one call of a launch that the agent is asked for.
#[test]
fn an_agent_that_does_not_let_the_program_run_fails_the_start() {
    if !rooted("an_agent_that_does_not_let_the_program_run_fails_the_start") {
        return;
    }
    let mut bundle = Bundle::new(&["/probe", "mkdir", "/made"]);
    notify(&mut bundle, &["execve"]);
    let start = |listener: fn(OwnedFd) -> Option<OwnedFd>| {
        let mut running = bundle.create().unwrap();
        let held = listener(running.waiting.listener.take().expect("a listener"));
        let begun = Instant::now();
        let leash = Leash::lasting(Duration::from_millis(300));
        let error = block_on(running.waiting.start_by(&leash)).expect_err("it does not run");
        assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
        running.exit.recv_timeout(Duration::from_secs(5)).unwrap();
        drop(held);
        error.to_string()
    };
    let late = start(Some);
    assert_eq!(late, "exec /probe: execve(2) not done within the time limit: the process was killed");
    assert_eq!(start(|_| None), "exec /probe: function not implemented (ENOSYS)");
    let running = bundle.create().unwrap();
    let (told, calls) = served(running, |_| Answer::Continue);
    assert_eq!((told, calls), (json!({ "/made": "ok" }), vec![libc::SYS_execve]));
    // It answers instead of the kernel.
    let faked = "exec /probe: the seccomp profile answers for execve(2), and nothing was executed";
    for (answer, why) in [
        (Answer::Errno(libc::EACCES), "exec /probe: permission denied (EACCES)"),
        (Answer::Value(0), faked),
        (Answer::Value(7), faked),
    ] {
        let mut running = bundle.create().unwrap();
        let agent = Served::new(running.waiting.listener.take().unwrap(), move |_| answer);
        let error = running.waiting.start().expect_err("it does not run").to_string();
        assert_eq!(error, why, "{answer:?}");
        running.exit.recv_timeout(Duration::from_secs(5)).unwrap();
        drop(agent);
    }
}

#[test]
fn where_the_agent_is_gone_a_call_is_not_implemented() {
    if !rooted("where_the_agent_is_gone_a_call_is_not_implemented") {
        return;
    }
    let mut bundle = Bundle::new(&["/probe", "mkdir", "/made"]);
    notify(&mut bundle, &MKDIR);
    let mut running = bundle.create().unwrap();
    drop(running.waiting.listener.take().expect("a listener"));
    let gone = json!({ "/made": "ENOSYS" });
    assert_eq!(serde_json::from_str::<Value>(&running.finish()).unwrap(), gone);
    let Some(runc) = runc() else { return };
    let _agent = Agent::garbage(&bundle.dir.path().join("agent"));
    assert_eq!(serde_json::from_str::<Value>(&bundle.run_runc(&runc)).unwrap(), gone);
}

/// An agent that has received a call may never answer.
#[test]
fn a_process_that_waits_for_an_agent_is_killed() {
    if !rooted("a_process_that_waits_for_an_agent_is_killed") {
        return;
    }
    for flags in [json!([]), json!(["SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV"])] {
        let mut bundle = Bundle::new(&["/probe", "mkdir", "/made"]);
        notify(&mut bundle, &MKDIR);
        bundle.spec["linux"]["seccomp"]["flags"] = flags;
        let mut running = bundle.create().unwrap();
        let listener = running.waiting.listener.take().expect("a listener");
        let pidfd = running.waiting.start().unwrap();
        let mut call = [nix::poll::PollFd::new(listener.as_fd(), nix::poll::PollFlags::POLLIN)];
        assert_eq!(nix::poll::poll(&mut call, 10_000u16), Ok(1), "it has called");
        wait::signal(pidfd.as_fd(), libc::SIGKILL).unwrap();
        assert_eq!(running.exit.recv_timeout(Duration::from_secs(5)).unwrap().code, 137);
    }
}

#[test]
fn what_runc_refuses_of_it_is_refused() {
    if !rooted("what_runc_refuses_of_it_is_refused") {
        return;
    }
    let whole = |bundle: &mut Bundle| notify(bundle, &MKDIR);
    type Change = fn(&mut Value);
    let changes: [(&str, Change, &str); 4] = [
        (
            "default",
            |profile| profile["defaultAction"] = "SCMP_ACT_NOTIFY".into(),
            "linux.seccomp.defaultAction",
        ),
        (
            "write",
            |profile| profile["syscalls"][0]["names"] = json!(["write"]),
            "linux.seccomp.syscalls[0].action",
        ),
        (
            "nobody listens",
            |profile| drop(profile.as_object_mut().unwrap().remove("listenerPath")),
            "linux.seccomp.listenerPath",
        ),
        (
            "a flag for listeners",
            |profile| {
                profile["flags"] = json!(["SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV"]);
                profile["syscalls"] = json!([]);
            },
            "linux.seccomp.flags[0]",
        ),
    ];
    for (name, change, field) in changes {
        let mut bundle = Bundle::new(&["/probe", "mkdir", "/made"]);
        whole(&mut bundle);
        change(&mut bundle.spec["linux"]["seccomp"]);
        let error = bundle.create().err().expect(name).to_string();
        assert!(error.starts_with(field), "{name}: {error}");
        let Some(runc) = runc() else { continue };
        let _agent = Agent::listen(&bundle.dir.path().join("agent"), emulate);
        assert!(!bundle.try_runc(&runc).status.success(), "runc, {name}");
    }
}
