//! What nothing in Kubernetes requests: a whole pod is paused through the shim's own service, and `ctr` runs a
//! container in it.

use containerd_shim_protos::sandbox_api::{PingRequest, PingResponse};
use serde_json::json;

use testbed::cri::{Case, Mode, Pod};
use testbed::wire::{Wire, CONTROLLER};
use testbed::{skip, until, Events};

cases! { a_pod_stops_as_one_and_goes_on, ctr_runs_a_container_in_a_pod }

/// Finds the shim's socket by the file that the shim leaves in the pod's bundle.
fn socket(case: &Case<'_>, pod: &Pod) -> std::path::PathBuf {
    let state = case.node.machine().state();
    let bundles = ["io.containerd.sandbox.controller.v1.shim", "io.containerd.runtime.v2.task"];
    let address = bundles.iter().find_map(|plugin| {
        std::fs::read_to_string(state.join(plugin).join("k8s.io").join(&pod.id).join("address")).ok()
    });
    let address = address.expect("the shim tells its address");
    case.node.machine().inside(address.trim().strip_prefix("unix://").expect("a path"))
}

fn a_pod_stops_as_one_and_goes_on(case: &mut Case<'_>) {
    if case.mode != Mode::Shim {
        skip::other_machine("a pod with a pause container has no such service");
        return;
    }
    let pod = case.plain_pod();
    let names = ["one", "two", "three"];
    let apps = names.map(|name| {
        let script = format!("i=0; while :; do i=$((i+1)); echo $i >/dev/shm/{name}; sleep 0.001; done");
        pod.start(name, json!({ "command": ["sh", "-c", script] }))
    });
    let shm = format!("/proc/{}/root/dev/shm", apps[0].pid());
    let counts = || names.map(|name| std::fs::read_to_string(format!("{shm}/{name}")).unwrap_or_default());
    until("all to count", 10, || counts().iter().all(|count| !count.is_empty()).then_some(()));
    let events = Events::listen(&case.node.containerd);
    let mut wire = Wire::connect(&socket(case, &pod));
    let mut ask = |method: &str| {
        let request = PingRequest { sandbox_id: pod.id.clone(), ..Default::default() };
        wire.call::<PingResponse>(CONTROLLER, method, &request).unwrap_or_else(|e| panic!("{method}: {e:?}"));
    };
    ask("Pause");
    let before = counts();
    std::thread::sleep(std::time::Duration::from_millis(200));
    assert_eq!(counts(), before, "nobody counts");
    assert_eq!(pod.state(), "SANDBOX_READY");
    let refused = apps[1].try_exec(5, &["true"]).expect_err("an exec into a paused pod");
    assert!(refused.message.contains("its sandbox is paused"), "{refused:?}");
    ask("Resume");
    until("all to go on", 10, || counts().iter().zip(&before).all(|(now, then)| now != then).then_some(()));
    apps[1].exec(&["true"]).ok();
    for app in &apps {
        let topics = events.topics(&app.id, "/tasks/resumed");
        let of_pause: Vec<_> =
            topics.iter().filter(|t| ["paused", "resumed"].contains(&t.as_str())).collect();
        assert_eq!(of_pause, ["paused", "resumed"], "{topics:?}");
    }
    drop(events);
    pod.remove();
}

fn ctr_runs_a_container_in_a_pod(case: &mut Case<'_>) {
    if case.mode != Mode::Shim {
        skip::other_machine("a pod with a pause container cannot be joined so");
        return;
    }
    let pod = case.plain_pod();
    let app = pod.start("app", json!({ "command": ["sh", "-c", "echo hi >/dev/shm/note; exec sleep 1000"] }));
    let link = |kind: &str| std::fs::read_link(format!("/proc/{}/ns/{kind}", app.pid())).expect("it lives");
    let script = "hostname; for n in net ipc uts pid; do readlink /proc/self/ns/$n; done; cat /dev/shm/note";
    let image = case.node.containerd.image();
    // Its cgroup is named after it, beside those of other cases.
    let guest = format!("guest-{}", pod.id.get(..12).expect("long enough"));
    let run = ["run", "--rm", "--sandbox", &pod.id, "--runtime", "io.containerd.shoal.v2", image, &guest];
    let out = case.node.containerd.ctr([&run[..], &["sh", "-c", script]].concat());
    let lines: Vec<_> = out.ok().lines().collect();
    assert_eq!((lines[0], lines[5]), (pod.config["hostname"].as_str().expect("it has one"), "hi"));
    for (line, kind) in lines[1..4].iter().zip(["net", "ipc", "uts"]) {
        assert_eq!(*line, link(kind).to_string_lossy());
    }
    assert_ne!(lines[4], link("pid").to_string_lossy(), "its processes are its own");
    pod.remove();
}
