//! More mounts than a service may have descriptors by default.

use crate::hooks::rootfs;
use serde_json::json;
use std::time::Duration;
use testbed::{patience, Case};

cases! { five_thousand_mounts_take_no_limit_away }

const COUNT: usize = 5000;

fn five_thousand_mounts_take_no_limit_away(case: &mut Case<'_>) {
    let root = rootfs(case);
    let source = case.containerd.dir("source");
    std::fs::create_dir_all(&source).expect("make a directory");
    let mut mounts = vec![
        json!({ "destination": "/proc", "type": "proc", "source": "proc" }),
        json!({ "destination": "/dev", "type": "tmpfs", "source": "tmpfs" }),
        json!({ "destination": "/m", "type": "tmpfs", "source": "tmpfs" }),
    ];
    mounts.extend((0..COUNT).map(|i| {
        json!({ "destination": format!("/m/{i}"), "type": "bind", "source": source, "options": ["bind", "ro"] })
    }));
    let script =
        "n=0; while read -r line; do case $line in *' /m/'*) n=$((n + 1));; esac; done </proc/self/mountinfo
        echo $n $(ulimit -Sn)";
    let mut spec = json!({
        "ociVersion": "1.0.2",
        "process": { "args": ["/bin/sh", "-c", script], "env": ["PATH=/bin"], "cwd": "/", "user": {} },
        "root": { "path": root },
        "mounts": mounts,
        "hooks": { "createRuntime": [{ "path": "/bin/sh", "args": ["sh", "-c", "ulimit -Sn >$0/hook", root] }] },
        "linux": {
            "cgroupsPath": format!("/{}/{}", case.containerd.namespace(), case.id),
            "namespaces": [{ "type": "mount" }, { "type": "pid" }],
        },
    });
    let file = root.join("config.json");
    // What the server was started with, if the specification says nothing.
    for (limit, expected) in [(None, "5000 1024\n"), (Some(700), "5000 700\n")] {
        if let Some(limit) = limit {
            spec["process"]["rlimits"] = json!([{ "type": "RLIMIT_NOFILE", "soft": limit, "hard": limit }]);
        }
        std::fs::write(&file, spec.to_string()).expect("write a specification");
        let path = file.to_string_lossy();
        let out = case.ctr(&["run", "--rm", "--runtime", case.runtime.name(), "--config", &path, &case.id]);
        assert_eq!(out.ok(), expected);
        assert!(out.took < patience(20), "{:?}", out.took);
        let hook = std::fs::read_to_string(root.join("hook")).expect("the hook has run");
        assert_eq!(hook, "1024\n");
        println!(
            "{:?}: {COUNT} mounts in {:?}",
            case.runtime,
            Duration::from_millis(out.took.as_millis() as u64)
        );
    }
}
