//! Pods come and go.

use serde_json::json;

use crate::node::Case;

cases! { a_pod_runs_a_container_and_goes, a_pod_runs_three_containers, a_pod_runs_ten_containers }

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
        .map(|n| pod.start(&format!("c{n}"), json!({ "command": ["sh", "-c", format!("echo {n}; sleep 1000")] })))
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
    pod.remove();
}
