//! `docker checkpoint`, of a daemon with experimental features.

use testbed::{until, DockerCase};

cases! { Plain: a_container_is_started_from_its_checkpoint, a_container_goes_on_after_a_checkpoint }

const COUNT: &str = "i=0; while :; do i=$((i+1)); echo $i >/count; sleep 0.1; done";

fn count(case: &DockerCase<'_>) -> u32 {
    until("a count", 20, || case.exec(&[], &["cat", "/count"]).stdout.trim().parse().ok())
}

fn a_container_is_started_from_its_checkpoint(case: &DockerCase<'_>) {
    case.detach(&[], &["sh", "-c", COUNT]);
    let at = until("it to count", 20, || Some(count(case)).filter(|count| *count > 3));
    case.docker(&["checkpoint", "create", &case.name, "one"]).ok();
    // dockerd tells only runc's shim that the container ends with its checkpoint.
    case.docker(&["kill", &case.name]);
    case.until_inspect(".State.Status", "exited");
    let all = case.docker(&["checkpoint", "ls", &case.name]);
    assert!(all.ok().lines().any(|line| line.trim() == "one"), "{all}");
    // dockerd hands the images to containerd, and fails while the same ones are still there from the checkpoint.
    until("the start", 30, || {
        let out = case.docker(&["start", "--checkpoint", "one", &case.name]);
        let again = out.code != 0 && out.stderr.contains("already exists");
        (!again).then(|| out.ok().len())
    });
    case.until_inspect(".State.Status", "running");
    let now = count(case);
    assert!((at..at + 100).contains(&now), "{now}, and {at} before");
    until("it to go on", 20, || (count(case) > now).then_some(()));
    case.docker(&["checkpoint", "rm", &case.name, "one"]).ok();
    case.remove();
    case.docker.containerd.forget_checkpoints();
}

fn a_container_goes_on_after_a_checkpoint(case: &DockerCase<'_>) {
    case.detach(&[], &["sh", "-c", COUNT]);
    count(case);
    case.docker(&["checkpoint", "create", "--leave-running", &case.name, "two"]).ok();
    let at = count(case);
    until("it to go on", 20, || (count(case) > at).then_some(()));
    assert_eq!(case.inspect(".State.Status"), "running");
    case.docker(&["checkpoint", "rm", &case.name, "two"]).ok();
    case.remove();
}
