//! Pods with a user namespace (`hostUsers: false`).

use serde_json::{json, Value};

use testbed::cri::Case;
use testbed::{skip, Suite};

cases! { a_pod_may_have_users_of_its_own }

const OUTSIDE: u32 = 300_000;

fn users(pid: &str) -> Value {
    let range = json!([{ "host_id": OUTSIDE, "container_id": 0, "length": 65536 }]);
    let options = json!({ "mode": "POD", "uids": range, "gids": range });
    let all = json!({ "network": "POD", "pid": pid, "ipc": "POD", "userns_options": options });
    json!({ "linux": { "security_context": { "namespace_options": all } } })
}

fn a_pod_may_have_users_of_its_own(case: &mut Case<'_>) {
    if case.suite == Suite::Trixie {
        skip::other_machine("containerd 1.7 makes the pod's network outside of its user namespace");
        return;
    }
    for pid in ["CONTAINER", "POD"] {
        let pod = case.pod(users(pid));
        let app = pod.start("app", users(pid));
        let map = app.exec(&["cat", "/proc/self/uid_map"]);
        assert_eq!(map.ok().split_whitespace().collect::<Vec<_>>(), ["0", "300000", "65536"]);
        assert_eq!(app.exec(&["stat", "-c", "%u:%g", "/bin", "/etc"]).ok(), "0:0\n0:0");
        let status = std::fs::read_to_string(format!("/proc/{}/status", app.pid())).expect("it runs");
        assert!(
            status.contains(&format!("\nUid:\t{OUTSIDE}\t{OUTSIDE}\t{OUTSIDE}\t{OUTSIDE}\n")),
            "{status}"
        );
        let script = "touch /file && echo hello >/dev/shm/note && chown 1000:1000 /file && stat -c %u /file";
        assert_eq!(app.exec(&["sh", "-c", script]).ok(), "1000");
        assert!(!pod.ip().is_empty());
        assert!(app.exec(&["ip", "addr"]).ok().contains(&pod.ip()), "the pod's address is inside");
        let (code, out) =
            pod.script(&format!("other-{pid}"), "cat /dev/shm/note; hostname; id -u", users(pid));
        assert_eq!((code, out.as_str()), (0, "hello\na-pod-may-have-users-of-its-own\n0\n"));
        pod.remove();
    }
}
