//! Profiles that leave calls to an agent.

use crate::hooks::rootfs;
use serde_json::{json, Value};
use std::path::PathBuf;
use testbed::agent::{emulate, Agent};
use testbed::{run, Case, Pty};

cases! {
    an_agent_makes_folders, an_exec_is_told_of, a_hook_of_the_container_is_under_the_agent_too, without_an_agent_nothing_runs,
    an_agent_that_is_gone_or_talks_leaves_calls_unimplemented, an_agent_with_an_abstract_name_is_no_path,
}

const REFUSED: &str = "No medium found";

fn profile(case: &Case<'_>) -> Value {
    json!({
        "defaultAction": "SCMP_ACT_ALLOW",
        "listenerPath": socket(case),
        "listenerMetadata": "a=b",
        "syscalls": [{ "names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_NOTIFY" }],
    })
}

fn socket(case: &Case<'_>) -> PathBuf {
    case.containerd.dir("agent.sock")
}

/// The flags of ctr for the profile.
fn flags(case: &Case<'_>) -> [String; 3] {
    flags_for(case, &profile(case))
}

fn flags_for(case: &Case<'_>, profile: &Value) -> [String; 3] {
    let file = case.containerd.dir("notify.json");
    std::fs::write(&file, profile.to_string()).expect("write a profile");
    ["--seccomp".into(), "--seccomp-profile".into(), file.to_str().expect("UTF-8").into()]
}

fn an_agent_makes_folders(case: &mut Case<'_>) {
    let agent = Agent::listen(&socket(case), emulate);
    let flags = flags(case);
    for more in [&[][..], &["--allow-new-privs"]] {
        let flags: Vec<&str> = flags.iter().map(String::as_str).chain(more.iter().copied()).collect();
        let script = "mkdir /tmp/made && ls -d /tmp/made; mkdir /tmp/refused";
        let out = case.run(&flags, &["sh", "-c", script]);
        out.fails_with(REFUSED);
        assert_eq!(out.stdout, "/tmp/made\n", "{more:?}");
        let told = agent.state();
        assert_eq!((&told["fds"], &told["metadata"]), (&json!(["seccompFd"]), &json!("a=b")), "{told}");
        assert_eq!((&told["state"]["id"], &told["state"]["status"]), (&json!(case.id), &json!("creating")));
        assert_eq!(told["pid"], told["state"]["pid"], "{told}");
        assert!(told["pid"].as_u64() > Some(1) && told["ociVersion"].is_string(), "{told}");
        let bundle = told["state"]["bundle"].as_str().expect("a bundle");
        assert!(bundle.ends_with(&case.id), "{told}");
    }
    assert_eq!(agent.next(), None, "one state for a process");
}

fn an_exec_is_told_of(case: &mut Case<'_>) {
    let agent = Agent::listen(&socket(case), emulate);
    let flags = flags(case);
    for more in [&[][..], &["--allow-new-privs"]] {
        let flags: Vec<&str> = flags.iter().map(String::as_str).chain(more.iter().copied()).collect();
        case.detach(&flags, &["sleep", "1000"]);
        let pid = case.pid();
        assert_eq!(agent.state()["pid"], pid);
        let script = "mkdir /tmp/made && ls -d /tmp/made; mkdir /tmp/refused";
        let out = case.exec(&[], &["sh", "-c", script]);
        out.fails_with(REFUSED);
        assert_eq!(out.stdout, "/tmp/made\n", "{more:?}");
        let told = agent.state();
        assert_eq!((&told["state"]["status"], &told["state"]["pid"]), (&json!("running"), &json!(pid)));
        assert!(told["pid"].is_u64() && told["pid"] != pid, "{told}");
        let mut pty = Pty::spawn(&case.exec_command(&["-t"], &["sh"]), 33, 101);
        pty.type_in("mkdir /tmp/typed && echo made-$((40+2)); exit 9\n");
        pty.expect("made-42");
        assert_eq!(pty.wait(), 9, "{:?}", pty.screen());
        agent.state();
        case.remove();
    }
}

fn a_hook_of_the_container_is_under_the_agent_too(case: &mut Case<'_>) {
    let _agent = Agent::listen(&socket(case), emulate);
    let root = rootfs(case);
    let script = |text: &str| json!(["/bin/sh", "-c", text]);
    let config = json!({
        "ociVersion": "1.0.2",
        "process": { "args": script("ls /tmp"), "env": ["PATH=/bin"], "cwd": "/", "user": {} },
        "root": { "path": root },
        "mounts": [{ "destination": "/proc", "type": "proc", "source": "proc" }],
        "linux": {
            "cgroupsPath": format!("/{}/{}", case.containerd.namespace(), case.id),
            "namespaces": [{ "type": "mount" }, { "type": "pid" }],
            "seccomp": profile(case),
        },
        "hooks": { "startContainer": [{ "path": "/bin/sh", "args": script("mkdir /tmp/hooked; mkdir /tmp/refused; true") }] },
    });
    let file = root.join("config.json");
    std::fs::write(&file, config.to_string()).expect("write the config");
    let path = file.to_str().expect("UTF-8");
    let words = ["run", "--rm", "--runtime", case.runtime.name(), "--config", path, &case.id];
    assert_eq!(run(&mut case.containerd.ctr_command(words)).ok(), "hooked\n");
}

fn without_an_agent_nothing_runs(case: &mut Case<'_>) {
    let flags = flags(case);
    let flags: Vec<&str> = flags.iter().map(String::as_str).collect();
    case.run(&flags, &["echo", "never"]).fails_with("no such file or directory");
    drop(std::os::unix::net::UnixListener::bind(socket(case)).expect("a socket"));
    let out = case.run(&flags, &["echo", "never"]);
    out.fails_with("connection refused");
    assert_eq!(out.stdout, "");
    std::fs::remove_file(socket(case)).expect("remove the socket");

    let agent = Agent::listen(&socket(case), emulate);
    case.detach(&flags, &["sleep", "1000"]);
    drop(agent);
    let out = case.exec(&[], &["echo", "never"]);
    out.fails_with("no such file or directory");
    assert_eq!(out.stdout, "");
    assert_eq!(case.state(), "RUNNING");
    case.remove();
}

fn an_agent_that_is_gone_or_talks_leaves_calls_unimplemented(case: &mut Case<'_>) {
    let flags = flags(case);
    let flags: Vec<&str> = flags.iter().map(String::as_str).collect();
    let agent = Agent::garbage(&socket(case));
    case.run(&flags, &["mkdir", "/tmp/made"]).fails_with("Function not implemented");
    drop(agent);
    let agent = Agent::listen(&socket(case), emulate);
    case.detach(
        &flags,
        &["sh", "-c", "while [ ! -e /tmp/go ]; do sleep 0.05; done; mkdir /tmp/made 2>/tmp/told; sleep 1000"],
    );
    case.exec(&[], &["true"]).ok();
    drop(agent);
    let told = PathBuf::from(format!("/proc/{}/root/tmp", case.pid()));
    std::fs::write(told.join("go"), "").expect("let it go");
    testbed::until("the call to be answered", 10, || {
        let text = std::fs::read_to_string(told.join("told")).ok()?;
        text.contains("Function not implemented").then_some(())
    });
    case.remove();
}

fn an_agent_with_an_abstract_name_is_no_path(case: &mut Case<'_>) {
    let mut profile = profile(case);
    profile["listenerPath"] = "@shoal/nobody".into();
    let flags = flags_for(case, &profile);
    let flags: Vec<&str> = flags.iter().map(String::as_str).collect();
    // By a path the file would be missing.
    case.run(&flags, &["echo", "never"]).fails_with("connection refused");
}
