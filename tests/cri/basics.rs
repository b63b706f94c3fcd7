//! The life of pods and their containers.

use serde_json::{json, Value};

use testbed::cri::{number, Case, Container};

cases! {
    a_pod_runs_a_container_and_goes,
    a_pod_runs_three_containers,
    a_pod_runs_ten_containers,
    ten_containers_start_and_stop_at_once,
    a_container_gets_what_was_asked_for,
    pods_and_containers_are_listed,
}

fn a_pod_runs_a_container_and_goes(case: &mut Case<'_>) {
    containers(case, 1);
}

fn a_pod_runs_three_containers(case: &mut Case<'_>) {
    containers(case, 3);
}

fn a_pod_runs_ten_containers(case: &mut Case<'_>) {
    containers(case, 10);
}

fn containers(case: &mut Case<'_>, count: usize) {
    let pod = case.plain_pod();
    assert_eq!(pod.state(), "SANDBOX_READY");
    assert!(pod.ip().starts_with("10.88."), "{}", pod.ip());
    let containers: Vec<_> = (0..count)
        .map(|n| {
            pod.start(&format!("c{n}"), json!({ "command": ["sh", "-c", format!("echo {n}; sleep 1000")] }))
        })
        .collect();
    for (n, container) in containers.iter().enumerate() {
        assert_eq!(container.until_output("\n"), format!("{n}\n"));
        assert_eq!(container.state(), "CONTAINER_RUNNING");
    }
    for container in &containers {
        container.stop(0);
        assert_eq!(container.until_exited(), 137);
        container.remove();
    }
    pod.stop();
    assert_eq!(pod.state(), "SANDBOX_NOTREADY");
    pod.remove();
}

fn ten_containers_start_and_stop_at_once(case: &mut Case<'_>) {
    let pod = case.plain_pod();
    let one = |n: i64| {
        let script = format!("trap 'exit {n}' TERM; echo ready; while :; do sleep 0.05; done");
        let container = pod.start(&format!("c{n}"), json!({ "command": ["sh", "-c", script] }));
        container.until_output("ready");
        assert_eq!(container.sh(&format!("echo {n}")), n.to_string());
        container.stop(30);
        assert_eq!(container.until_exited(), n);
        container.remove();
    };
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..10).map(|n| scope.spawn(move || one(n))).collect();
        threads.into_iter().for_each(|thread| thread.join().expect("the container does what it should"));
    });
    pod.remove();
}

fn a_container_gets_what_was_asked_for(case: &mut Case<'_>) {
    let pod = case.plain_pod();
    let config = json!({
        "command": ["sh", "-c"],
        // containerd records the start time once the start has been answered.
        "args": ["sleep 0.3; pwd; echo $COLOUR; echo $PATH; cat /proc/self/cgroup"],
        "working_dir": "/home/app",
        "envs": [{ "key": "COLOUR", "value": "blue and green" }],
    });
    let app = pod.start("app", config);
    assert_eq!(app.until_exited(), 0);
    let output = app.output();
    let lines: Vec<_> = output.lines().collect();
    let path = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
    assert_eq!(lines[..3], ["/home/app", "blue and green", path], "{output}");
    let status = app.status();
    assert_eq!((&status["reason"], number(&status["exit_code"])), (&json!("Completed"), 0));
    let (created, started) = (number(&status["created_at"]), number(&status["started_at"]));
    assert!(0 < created && created <= started && started <= number(&status["finished_at"]), "{status}");
    let idle = pod.start("idle", json!({}));
    let cgroups = std::fs::read_to_string(format!("/proc/{}/cgroup", idle.pid())).expect("it has cgroups");
    let place = format!("/{}/{}/{}", case.node.machine().mark, case.name, idle.id);
    let lost: Vec<_> = cgroups.lines().filter(|line| !line.ends_with(&place)).collect();
    assert!(lost.iter().all(|line| line.starts_with("0::/")), "all below {place}: {lost:?}");
    pod.remove();
}

fn pods_and_containers_are_listed(case: &mut Case<'_>) {
    let names = json!({ "labels": { "app": "listed" }, "annotations": { "note": "a pod's" } });
    let pod = case.pod(names);
    let app =
        pod.start("app", json!({ "labels": { "part": "one" }, "annotations": { "note": "a container's" } }));
    let client = case.node.client();
    let list =
        |method: &str, filter: Value| client.call(method, &json!({ "filter": filter })).expect("a list");
    let pods = list("ListPodSandbox", json!({ "label_selector": { "app": "listed" } }));
    let item = &pods["items"][0];
    assert_eq!((&item["id"], &item["state"]), (&json!(pod.id), &json!("SANDBOX_READY")));
    assert_eq!(
        (&item["annotations"]["note"], &item["runtime_handler"]),
        (&json!("a pod's"), &json!(case.mode.handler()))
    );
    assert!(number(&item["created_at"]) > 1_600_000_000_000_000_000, "{item}");
    let of_app = |state: &str| {
        let containers =
            list("ListContainers", json!({ "pod_sandbox_id": pod.id, "state": { "state": state } }));
        containers["containers"].as_array().map_or(0, Vec::len)
    };
    assert_eq!((of_app("CONTAINER_RUNNING"), of_app("CONTAINER_EXITED")), (1, 0));
    app.stop(0);
    assert_eq!((of_app("CONTAINER_RUNNING"), of_app("CONTAINER_EXITED")), (0, 1));
    assert_eq!(pod.containers()[0]["labels"]["part"], "one");
    pod.stop();
    let ready = list("ListPodSandbox", json!({ "id": pod.id, "state": { "state": "SANDBOX_READY" } }));
    assert_eq!(ready["items"], json!([]));
    pod.remove();
    for (method, key) in [("ListPodSandbox", "items"), ("ListContainers", "containers")] {
        assert_eq!(list(method, json!({}))[key], json!([]));
    }
    gone(&app);
}

fn gone(container: &Container) {
    let failure = container.try_call("ContainerStatus").expect_err("it is removed");
    assert_eq!(failure.code, 5, "{failure:?}");
}
