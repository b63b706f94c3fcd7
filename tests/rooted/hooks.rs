//! A hook gets the state, its own environment and nothing else, and its time limit holds.

use crate::bench::*;
use crate::container::Bundle;
use serde_json::{json, Value};
use shoal::cgroup::Entry;
use shoal::error::Result;
use shoal::launch::hooks::{run, Run};
use shoal::launch::{Launched, Launcher, Order};
use shoal::plan::{self, HookPlace, Host, Step};
use shoal::spec::{Hook, Namespaces, Ns, Spec};
use shoal::stdio::StdioFds;
use shoal::tasks::block_on;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::Path;
use std::time::{Duration, Instant};

fn shell(script: &str) -> Hook {
    Hook {
        path: "/bin/sh".into(),
        args: vec!["hook".into(), "-c".into(), script.into()],
        env: vec!["ONLY=this".into()],
        timeout: Some(Duration::from_secs(20)),
    }
}

/// Runs a hook that joins `init`.
pub fn run_in(place: HookPlace<'_>, hook: &Hook, init: Option<BorrowedFd<'_>>) -> Result<()> {
    let (plan, entry) = (&plan::hook(hook, place)?, Entry::default());
    let hook = Run { plan, entry, init, timeout: hook.timeout, state: b"{\"id\":\"c1\"}" };
    block_on(run(launcher(), &leash(), hook))
}

fn run_on_host(hook: &Hook, bundle: &Path) -> Result<(), String> {
    run_in(HookPlace::Host { bundle }, hook, None).map_err(|e| e.to_string())
}

#[test]
fn a_hook_has_the_state_and_only_its_own_environment() {
    if !rooted("a_hook_has_the_state_and_only_its_own_environment") {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let script =
        "cat > state; tr '\\0' '\\n' < /proc/self/environ > env; pwd > cwd; ls -l /proc/self/fd > fds";
    run_on_host(&shell(script), dir.path()).unwrap();
    let read = |name: &str| std::fs::read_to_string(dir.path().join(name)).unwrap();
    assert_eq!(read("state"), "{\"id\":\"c1\"}");
    assert_eq!(read("cwd").trim(), dir.path().to_str().unwrap());
    let variables: Vec<_> = read("env").lines().map(str::to_owned).collect();
    // The shell sets PWD and the like for itself.
    assert!(variables.contains(&"ONLY=this".to_owned()), "{variables:?}");
    assert!(!variables.iter().any(|v| v.starts_with("PATH=") || v.starts_with("HOME=")), "{variables:?}");
    // 0 to 2, and the directory that ls lists.
    assert_eq!(read("fds").lines().filter(|line| line.contains("->")).count(), 4, "{}", read("fds"));
}

#[test]
fn a_hook_that_fails_says_why() {
    if !rooted("a_hook_that_fails_says_why") {
        return;
    }
    let error = run_on_host(&shell("echo out; echo no good >&2; exit 3"), Path::new("/")).unwrap_err();
    assert_eq!(error, "exit status 3, stderr: no good");
    let hook = Hook { path: "/no/such".into(), ..shell("") };
    let error = run_on_host(&hook, Path::new("/")).unwrap_err();
    assert!(error.contains("no such file or directory"), "{error}");
}

#[test]
fn a_hook_is_killed_when_its_time_is_over() {
    if !rooted("a_hook_is_killed_when_its_time_is_over") {
        return;
    }
    let hook = Hook { timeout: Some(Duration::from_secs(2)), ..shell("echo slow >&2; exec sleep 1000") };
    let began = Instant::now();
    let error = run_on_host(&hook, Path::new("/")).unwrap_err();
    assert!(began.elapsed() < Duration::from_secs(20));
    assert_eq!(error, "killed after 2s, stderr: slow");
}

#[test]
fn a_hook_that_writes_without_an_end_is_killed_when_its_time_is_over() {
    if !rooted("a_hook_that_writes_without_an_end_is_killed_when_its_time_is_over") {
        return;
    }
    let hook = Hook { timeout: Some(Duration::from_secs(1)), ..shell("exec yes >&2") };
    let began = Instant::now();
    let error = run_on_host(&hook, Path::new("/")).unwrap_err();
    assert!(began.elapsed() < Duration::from_secs(10), "{:?}", began.elapsed());
    assert!(error.contains("killed after 1s"), "{}", &error[..100]);
}

#[test]
fn what_a_hook_leaves_running_is_not_waited_for() {
    if !rooted("what_a_hook_leaves_running_is_not_waited_for") {
        return;
    }
    let began = Instant::now();
    run_on_host(&shell("sleep 6 & exit 0"), Path::new("/")).unwrap();
    assert!(began.elapsed() < Duration::from_secs(4));
}

#[test]
fn hooks_inside_are_in_the_containers_namespaces() {
    if !rooted("hooks_inside_are_in_the_containers_namespaces") {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("out");
    let script = format!("uname -n > {0}; readlink /proc/self/ns/mnt >> {0}", out.display());
    let plan = program(&["true"], vec![Step::Hostname(c("inside")), Step::Hooks]);
    let mut mount_namespace = String::new();
    let process = launch_with(&plan, None, &mut |pid, pidfd| {
        let link = std::fs::read_link(format!("/proc/{pid}/ns/mnt")).unwrap();
        mount_namespace = link.to_str().unwrap().to_owned();
        let own = Namespaces { pid: Ns::New, ..Namespaces::default() };
        let place = HookPlace::Namespaces { bundle: Path::new("/"), namespaces: &own };
        run_in(place, &shell(&script), Some(pidfd))
    })
    .unwrap();
    assert_eq!(std::fs::read_to_string(&out).unwrap(), format!("inside\n{mount_namespace}\n"));
    assert_eq!(process.finish().1, 0);
}

#[test]
fn hooks_inside_have_the_containers_clocks() {
    if !rooted("hooks_inside_have_the_containers_clocks") {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("out");
    let script = format!("cat /proc/self/timens_offsets > {}", out.display());
    let steps = vec![
        Step::Unshare { flags: nix::libc::CLONE_NEWTIME as u64 },
        Step::TimeOffsets(c("boottime 86400 7\n")),
        Step::EnterTime,
        Step::Hooks,
    ];
    let process = launch_with(&program(&["true"], steps), None, &mut |_, pidfd| {
        let own = Namespaces { time: Ns::New, ..Namespaces::default() };
        let place = HookPlace::Namespaces { bundle: Path::new("/"), namespaces: &own };
        run_in(place, &shell(&script), Some(pidfd))
    })
    .unwrap();
    let offsets = std::fs::read_to_string(&out).unwrap();
    assert!(offsets.lines().any(|line| line.split_whitespace().eq(["boottime", "86400", "7"])), "{offsets}");
    assert_eq!(process.finish().1, 0);
}

#[test]
fn a_create_hook_that_fails_ends_the_launch() {
    if !rooted("a_create_hook_that_fails_ends_the_launch") {
        return;
    }
    let mut child = 0;
    let error = launch_with(&program(&["true"], vec![Step::Hooks]), None, &mut |pid, _| {
        child = pid;
        Err(shoal::error::invalid("not today"))
    })
    .unwrap_err();
    assert_eq!(error.to_string(), "not today");
    assert!(!exists(&format!("/proc/{child}")));
}

/// From its birth on a process shares the socket of its reports with whoever can trace it.
#[test]
fn a_report_that_comes_twice_ends_the_launch() {
    if !rooted("a_report_that_comes_twice_ends_the_launch") {
        return;
    }
    let mut ran = 0;
    let plan = program(&["true"], vec![Step::Hooks, Step::Hooks]);
    let error = launch_with(&plan, None, &mut |_, _| {
        ran += 1;
        Ok(())
    })
    .unwrap_err();
    assert!(error.to_string().starts_with("a report from step"), "{error}");
    assert_eq!(ran, 1);
}

/// Dropping it also closes its gate, which a stopped process does not notice.
#[test]
fn a_process_that_is_dropped_at_its_hooks_is_killed() {
    if !rooted("a_process_that_is_dropped_at_its_hooks_is_killed") {
        return;
    }
    let order = Order {
        plan: &program(&["true"], vec![Step::Hooks]),
        ends: Some(StdioFds { stdin: null(), stdout: null(), stderr: null() }),
        entry: Entry::default(),
        init: None,
        leash: &leash(),
        on_exit: Box::new(|_| {}),
    };
    let Ok(Launched::AtHooks(process)) = block_on(launcher().launch(order)) else {
        panic!("not at its hooks")
    };
    shoal::sys::wait::signal(process.pidfd.as_fd(), libc::SIGSTOP).unwrap();
    let pid = process.pid;
    drop(process);
    eventually("it is gone", || !exists(&format!("/proc/{pid}")));
}

/// The program of a startContainer hook is a file of the image.
#[test]
fn a_hook_of_the_container_has_no_more_rights_than_its_program() {
    if !rooted("a_hook_of_the_container_has_no_more_rights_than_its_program") {
        return;
    }
    let mut bundle = Bundle::new(&["/probe", "report"]);
    bundle.spec["process"]["user"] = json!({ "uid": 1000, "gid": 1000 });
    let saved = bundle.root().join("home/user/saved");
    let hook = Hook {
        path: "/probe".into(),
        args: vec!["name".into(), "save".into(), "/home/user/saved".into()],
        env: vec!["ONLY=this".into()],
        timeout: None,
    };
    let spec = Spec::parse(&serde_json::to_vec(&bundle.spec).unwrap()).unwrap();
    let host = Host::probe(Path::new("/")).unwrap();
    let init = bundle.create().unwrap();
    let place = HookPlace::Container { spec: &spec, host: &host, id: "rooted", filter: None };
    run_in(place, &hook, Some(init.waiting.pidfd.as_fd())).unwrap();
    let ours: Value = serde_json::from_slice(&std::fs::read(saved).unwrap()).unwrap();
    assert_eq!(ours["environment"], json!(["ONLY=this"]));
    assert_eq!(ours["arguments"], json!(["name", "save", "/home/user/saved"]));
    assert_eq!(ours["cwd"], "/");
    let program: Value = serde_json::from_str(&init.finish()).unwrap();
    for field in
        ["ids", "capabilities", "no_new_privs", "seccomp", "limits", "mounts", "hostname", "namespaces"]
    {
        assert_eq!(ours[field], program[field], "{field}");
    }
}
