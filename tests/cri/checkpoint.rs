//! CheckpointContainer, as a kubelet asks for it: a container of a pod becomes an archive, and goes on.

use serde_json::json;
use std::fs::read_to_string;
use std::process::Command;
use testbed::cri::{Case, Mode};
use testbed::{run, skip, until, Suite};

cases! { a_container_becomes_an_archive_and_goes_on }

const COUNT: &str = "i=0; while :; do i=$((i+1)); echo $i >/count; echo count-$i; sleep 0.1; done";

fn a_container_becomes_an_archive_and_goes_on(case: &mut Case<'_>) {
    if case.suite == Suite::Trixie {
        skip::other_machine("containerd 1.7 has no CheckpointContainer");
        return;
    }
    let pod = case.plain_pod();
    let app = pod.start("app", json!({ "command": ["sh", "-c", COUNT] }));
    let count = |pid: u32| -> Option<u32> {
        read_to_string(format!("/proc/{pid}/root/count")).ok()?.trim().parse().ok()
    };
    let pid = app.pid();
    until("it to count", 20, || count(pid).filter(|count| *count > 3));
    let archive = case.node.containerd.dir(&format!("{}.tar", case.name));
    app.try_checkpoint(&archive).unwrap_or_else(|e| panic!("CheckpointContainer: {e:?}"));
    let at = count(pid);
    until("it to go on", 20, || (count(pid) > at).then_some(()));
    assert_eq!(app.state(), "CONTAINER_RUNNING");
    app.exec(&["true"]).ok();
    let list = run(Command::new("tar").arg("-tf").arg(&archive));
    let mut names = vec!["checkpoint/pstree.img", "checkpoint/descriptors.json", "rootfs-diff.tar"];
    if case.mode == Mode::Runc {
        // Others are not told where containerd looks for these.
        names.extend(["dump.log", "stats-dump"]);
    }
    for name in names {
        assert!(list.ok().lines().any(|line| line == name), "{name}: {list}");
    }
    std::fs::remove_file(&archive).expect("remove the archive");
    pod.remove();
}
