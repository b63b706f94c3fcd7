//! A shim beside those of another runtime, and who finds it by the name of its socket.

use crate::testbed::{run, Case, Runtime};

cases! { ctr_finds_the_shim_by_its_socket, a_group_that_another_runtimes_shim_has_is_not_joined }

fn ctr_finds_the_shim_by_its_socket(case: &mut Case<'_>) {
    case.detach(&[], &["sleep", "1000"]);
    let state = case.ctr(&["shim", "--id", &case.id, "state"]);
    let state: serde_json::Value = serde_json::from_str(state.ok()).expect("a state as JSON");
    assert_eq!((state["id"].as_str(), state["pid"].as_u64()), (Some(&*case.id), Some(case.pid().into())));
    case.remove();
}

/// containerd's own shim has the group: a container of shoal's that it would run would have none of what shoal promises.
fn a_group_that_another_runtimes_shim_has_is_not_joined(case: &mut Case<'_>) {
    let group = format!("io.containerd.runc.v2.group={}", case.id("group"));
    let first = case.id("first");
    let runc = ["run", "-d", "--runtime", Runtime::Runc.name(), "--annotation", &group];
    case.ctr(&[&runc[..], &[case.containerd.image(), &first, "sleep", "1000"]].concat()).ok();
    let mut second = case.run_command(&["--rm", "--annotation", &group], &case.id, &["echo", "fine"]);
    let out = run(&mut second);
    match case.runtime {
        Runtime::Runc => assert_eq!(out.ok(), "fine\n"),
        Runtime::Shoal => {
            out.fails_with("is not shoal's shim of it");
            assert!(out.stderr.contains(&case.id("group")), "{out}");
        }
    }
    // The other one's shim is none the worse for it.
    let list = case.ctr(&["tasks", "ls"]);
    assert!(list.ok().lines().any(|l| l.starts_with(&first) && l.contains("RUNNING")), "{list}");
    case.ctr(&["tasks", "delete", "--force", &first]);
    case.ctr(&["containers", "delete", &first]).ok();
}
