//! How the containers of a pod start, end and are restarted.

use std::time::{Duration, Instant};

use serde_json::json;

use testbed::cri::{number, Case, Mode, Pod};
use testbed::until;

cases! {
    init_containers_run_one_after_the_other,
    a_container_is_restarted_many_times,
    a_graceful_stop_runs_the_handler,
    a_forced_stop_ends_what_ignores_the_signal,
    what_runs_can_be_removed,
    a_container_may_fail_to_start,
    stopping_and_removing_twice_is_no_error,
    many_pods_at_once,
}

fn init_containers_run_one_after_the_other(case: &mut Case<'_>) {
    let pod = case.plain_pod();
    let volume = case.folder("init");
    let mounts = json!([{ "container_path": "/data", "host_path": volume }]);
    for n in 1..=3 {
        let (code, _) =
            pod.script(&format!("init{n}"), &format!("echo {n} >>/data/list"), json!({ "mounts": mounts }));
        assert_eq!(code, 0);
    }
    let app = pod.start("app", json!({ "mounts": mounts }));
    assert_eq!(app.sh("cat /data/list"), "1\n2\n3");
    assert_eq!(pod.state(), "SANDBOX_READY", "a pod does not end with its init containers");
    pod.remove();
}

fn a_container_is_restarted_many_times(case: &mut Case<'_>) {
    let pod = case.plain_pod();
    let times = if case.mode == Mode::Runc { 20 } else { 100 };
    for attempt in 0..times {
        let container = pod.start(
            "app",
            json!({
                "metadata": { "attempt": attempt },
                "log_path": format!("app-{attempt}.log"),
                "command": ["sh", "-c", format!("echo {attempt}; exit {}", attempt % 7)],
            }),
        );
        assert_eq!(container.until_exited(), attempt % 7);
        assert_eq!(container.output(), format!("{attempt}\n"));
        container.remove();
    }
    pod.remove();
}

fn a_graceful_stop_runs_the_handler(case: &mut Case<'_>) {
    let pod = case.plain_pod();
    let script = "trap 'echo bye; exit 5' TERM; echo ready; while :; do sleep 0.05; done";
    let container = pod.start("app", json!({ "command": ["sh", "-c", script] }));
    container.until_output("ready");
    container.stop(30);
    assert_eq!(container.until_exited(), 5);
    assert_eq!(container.output(), "ready\nbye\n");
    let status = container.status();
    assert_eq!(status["reason"], "Error");
    assert!(number(&status["finished_at"]) >= number(&status["started_at"]), "{status}");
    pod.remove();
}

fn a_forced_stop_ends_what_ignores_the_signal(case: &mut Case<'_>) {
    let pod = case.plain_pod();
    let script = "trap 'echo no' TERM; echo ready; while :; do sleep 0.05; done";
    let container = pod.start("app", json!({ "command": ["sh", "-c", script] }));
    container.until_output("ready");
    let began = Instant::now();
    container.stop(1);
    assert!(began.elapsed() >= Duration::from_secs(1), "it has its time");
    assert_eq!(container.until_exited(), 137);
    assert_eq!(container.output(), "ready\nno\n");
    pod.remove();
}

fn what_runs_can_be_removed(case: &mut Case<'_>) {
    let pod = case.plain_pod();
    pod.start("one", json!({})).remove();
    pod.start("two", json!({}));
    pod.create("three", json!({}));
    pod.remove_at_once();
}

fn a_container_may_fail_to_start(case: &mut Case<'_>) {
    let pod = case.plain_pod();
    let container = pod.create("app", json!({ "command": ["/no/such/program"] }));
    let failure = container.try_call("StartContainer").expect_err("there is no such program");
    assert!(failure.message.contains("/no/such/program"), "{failure:?}");
    let status = container.status();
    assert_eq!((&status["state"], &status["reason"]), (&json!("CONTAINER_EXITED"), &json!("StartError")));
    assert_eq!(number(&status["exit_code"]), 128);
    container.remove();
    assert_eq!(pod.script("next", "echo fine", json!({})), (0, "fine\n".to_owned()), "the pod is as it was");
    pod.remove();
}

fn stopping_and_removing_twice_is_no_error(case: &mut Case<'_>) {
    let pod = case.plain_pod();
    let container = pod.start("app", json!({}));
    for _ in 0..2 {
        container.stop(0);
    }
    for _ in 0..2 {
        pod.stop();
    }
    assert_eq!(pod.state(), "SANDBOX_NOTREADY");
    assert_eq!(container.state(), "CONTAINER_EXITED");
    for _ in 0..2 {
        container.remove();
    }
    for _ in 0..2 {
        pod.remove();
    }
}

fn many_pods_at_once(case: &mut Case<'_>) {
    let count = if case.mode == Mode::Runc { 10 } else { 30 };
    let case = &*case;
    let pods: Vec<Pod> = std::thread::scope(|scope| {
        let start = |n| {
            let pod = case.try_pod(&format!("{}-{n}", case.name), json!({})).expect("RunPodSandbox");
            pod.start("app", json!({ "command": ["sh", "-c", format!("echo {n}; sleep 1000")] }));
            pod
        };
        let threads: Vec<_> = (0..count).map(|n| scope.spawn(move || start(n))).collect();
        threads.into_iter().map(|thread| thread.join().expect("the pod starts")).collect()
    });
    let mut addresses: Vec<_> = pods.iter().map(Pod::ip).collect();
    addresses.sort();
    addresses.dedup();
    assert_eq!(addresses.len(), count, "each pod has an address of its own");
    until("all to run", 20, || {
        let running = pods.iter().flat_map(Pod::containers).filter(|c| c["state"] == "CONTAINER_RUNNING");
        (running.count() == count).then_some(())
    });
    std::thread::scope(|scope| pods.iter().for_each(|pod| drop(scope.spawn(|| pod.remove()))));
}
