//! Resource limits and usage of containers.

use serde_json::{json, Value};
use std::path::Path;

use testbed::cri::{number, Case, Container, Mode, Pod};
use testbed::{cgroup_file, run, until};

cases! {
    limits_are_set_and_updated,
    a_container_out_of_memory_says_so,
    containers_and_pods_have_statistics,
    a_pod_need_not_have_a_cgroup,
    a_pods_cgroup_that_nobody_has_made_is_made,
}

fn limits_are_set_and_updated(case: &mut Case<'_>) {
    let pod = case.plain_pod();
    let limits = json!({
        "cpu_period": "100000", "cpu_quota": "50000", "cpu_shares": "512", "memory_limit_in_bytes": "67108864",
        "oom_score_adj": "500",
    });
    let app = pod.start("app", json!({ "linux": { "resources": limits } }));
    assert_eq!(seen(&app), ["50000", shares("512", "59"), "67108864"]);
    assert_eq!(app.sh("cat /proc/self/oom_score_adj"), "500");
    let status = app.status();
    assert_eq!(number(&status["resources"]["linux"]["memory_limit_in_bytes"]), 64 << 20);
    app.update(json!({ "cpu_period": "100000", "cpu_quota": "30000", "cpu_shares": "256", "memory_limit_in_bytes": "33554432" }));
    assert_eq!(seen(&app), ["30000", shares("256", "35"), "33554432"]);
    let status = app.status();
    assert_eq!(number(&status["resources"]["linux"]["cpu_quota"]), 30000);
    pod.remove();
}

/// Returns what the shares become; on v2, the weight that runc, too, derives from them.
fn shares(v1: &'static str, v2: &'static str) -> &'static str {
    if Path::new("/sys/fs/cgroup/cgroup.controllers").exists() {
        v2
    } else {
        v1
    }
}

/// Reads the quota, shares and memory limit of the container's cgroup.
fn seen(app: &Container) -> [String; 3] {
    let file = |controller, v1, v2| cgroup_file(app.pid(), controller, v1, v2);
    let quota = file("cpu", "cpu.cfs_quota_us", "cpu.max");
    let quota = quota.split(' ').next().unwrap_or_default().to_owned();
    let shares = file("cpu", "cpu.shares", "cpu.weight");
    [quota, shares, file("memory", "memory.limit_in_bytes", "memory.max")]
}

fn a_container_out_of_memory_says_so(case: &mut Case<'_>) {
    let pod = case.plain_pod();
    let limits = json!({ "memory_limit_in_bytes": "16777216", "memory_swap_limit_in_bytes": "16777216" });
    let app = pod.start("app", json!({ "command": ["tail", "/dev/zero"], "linux": { "resources": limits } }));
    assert_eq!(app.until_exited(), 137);
    until("the reason", 10, || (app.status()["reason"] == "OOMKilled").then_some(()));
    pod.remove();
}

fn containers_and_pods_have_statistics(case: &mut Case<'_>) {
    let pod = case.plain_pod();
    let script = "head -c 8000000 /dev/urandom >/dev/shm/used; while :; do :; done";
    let app = pod.start("app", json!({ "command": ["sh", "-c", script] }));
    let idle = pod.start("idle", json!({}));
    until("memory to be used", 10, || {
        (number(&app.stats()["memory"]["usage_bytes"]["value"]) > 8_000_000).then_some(())
    });
    let cpu = |stats: &Value| number(&stats["cpu"]["usage_core_nano_seconds"]["value"]);
    let first = app.stats();
    until("time to be used", 10, || (cpu(&app.stats()) > cpu(&first) + 50_000_000).then_some(()));
    assert!(cpu(&idle.stats()) > 0);
    let all = pod.stats();
    let of_pod = &all["linux"];
    assert!(cpu(of_pod) > cpu(&first), "{all}");
    assert!(number(&of_pod["memory"]["usage_bytes"]["value"]) > 8_000_000, "{all}");
    assert_eq!(of_pod["network"]["default_interface"]["name"], "eth0");
    let mut names: Vec<_> = of_pod["containers"].as_array().into_iter().flatten().collect();
    names.sort_by_key(|c| c["attributes"]["metadata"]["name"].to_string());
    let names: Vec<_> = names.iter().map(|c| &c["attributes"]["metadata"]["name"]).collect();
    assert_eq!(names, ["app", "idle"]);
    pod.remove();
}

/// Runs a pod as crictl does: nobody has made a cgroup for it.
fn a_pod_need_not_have_a_cgroup(case: &mut Case<'_>) {
    let pod = case.pod(json!({ "linux": { "cgroup_parent": "" } }));
    let app = pod.start("app", json!({}));
    let cgroups = std::fs::read_to_string(format!("/proc/{}/cgroup", app.pid())).expect("it has cgroups");
    let lost: Vec<_> = cgroups.lines().filter(|line| !line.ends_with(&app.id)).collect();
    assert!(lost.iter().all(|line| line.starts_with("0::/")), "all have the container's name: {lost:?}");
    assert_eq!(app.exec(&["echo", "fine"]).ok(), "fine");
    pod.remove();
    let command = ["-name", &format!("*{}*", pod.id), "-o", "-name", &format!("*{}*", app.id)];
    let found = run(std::process::Command::new("find").arg("/sys/fs/cgroup").args(command));
    assert_eq!(found.stdout, "", "nothing is left of it");
}

/// Does as critest and other clients that are not kubelets do.
fn a_pods_cgroup_that_nobody_has_made_is_made(case: &mut Case<'_>) {
    let config = case.config(&case.name, &json!({}));
    let parent = config["linux"]["cgroup_parent"].as_str().expect("a string").to_owned();
    let there = || {
        let path = format!("*{parent}");
        run(std::process::Command::new("find").args(["/sys/fs/cgroup", "-type", "d", "-path", &path])).stdout
    };
    assert_eq!(there(), "");
    let pod =
        Pod::run_in_cgroup(case.node.client(), case.mode.handler(), config.clone()).expect("RunPodSandbox");
    let app = pod.start("app", json!({}));
    let cgroups = std::fs::read_to_string(format!("/proc/{}/cgroup", app.pid())).expect("it has cgroups");
    assert!(cgroups.lines().any(|line| line.contains(&parent)), "{cgroups}");
    assert_ne!(there(), "");
    pod.stop();
    pod.forget();
    // runc does not remove it, and a slice is systemd's to remove.
    if case.mode == Mode::Shim && parent.starts_with('/') {
        assert_eq!(there(), "");
    }
    pod.remove_cgroup();
}
