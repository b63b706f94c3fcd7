//! Hooks of a user-written spec.

use serde_json::{json, Value};
use std::path::{Path, PathBuf};
use std::process::Command;
use testbed::{run, Case, Runtime};

cases! {
    a_start_container_hook_without_env_has_the_programs, a_poststart_hook_that_fails_fails_the_start,
    every_kind_of_hook_has_the_state_and_what_it_asks_for,
}

/// Makes a rootfs with the host's busybox as `/bin/sh`.
pub fn rootfs(case: &Case<'_>) -> PathBuf {
    let root = case.containerd.dir("rootfs");
    let _ = std::fs::remove_dir_all(&root);
    for name in ["bin", "dev", "proc", "tmp"] {
        std::fs::create_dir_all(root.join(name)).unwrap();
    }
    testbed::program::copy("/usr/bin/busybox", root.join("bin/sh"));
    root
}

fn command(case: &Case<'_>, root: &Path, script: &str, hooks: &Value) -> Command {
    let config = json!({
        "ociVersion": "1.0.2",
        "process": { "args": ["/bin/sh", "-c", script], "env": ["PATH=/bin", "OF=program"], "cwd": "/", "user": {} },
        "root": { "path": root },
        "mounts": [
            { "destination": "/proc", "type": "proc", "source": "proc" },
            { "destination": "/dev", "type": "tmpfs", "source": "tmpfs" },
        ],
        "linux": {
            "cgroupsPath": format!("/{}/{}", case.containerd.namespace(), case.id),
            "namespaces": [{ "type": "mount" }, { "type": "pid" }],
        },
        "hooks": hooks,
        "annotations": { "org.example.word": "kept" },
    });
    let file = root.join("config.json");
    std::fs::write(&file, config.to_string()).unwrap();
    let path = file.to_str().unwrap();
    case.containerd.ctr_command(["run", "--rm", "--runtime", case.runtime.name(), "--config", path, &case.id])
}

fn hook(script: &str) -> Value {
    json!({ "path": "/bin/sh", "args": ["sh", "-c", script] })
}

fn a_start_container_hook_without_env_has_the_programs(case: &mut Case<'_>) {
    let root = rootfs(case);
    // Reads the environment that execve(2) passed, not what the shell makes of it.
    let seen = "while read -r -d '' variable; do echo \"$variable\"; done </proc/self/environ >/tmp/seen";
    for (env, expected) in [
        (Value::Null, ["HOME=/", "OF=program", "PATH=/bin"].as_slice()),
        (json!([]), &["HOME=/", "OF=program", "PATH=/bin"]),
        (json!(["OF=hook"]), &["OF=hook"]),
    ] {
        let mut hook = hook(seen);
        if !env.is_null() {
            hook["env"] = env;
        }
        run(&mut command(case, &root, "true", &json!({ "startContainer": [hook] }))).ok();
        let text = std::fs::read_to_string(root.join("tmp/seen")).unwrap();
        let mut variables: Vec<_> = text.lines().collect();
        variables.sort_unstable();
        assert_eq!(variables, expected);
    }
    std::fs::remove_dir_all(root).unwrap();
}

/// runc runs poststart hooks during create already, before the program, so there the create fails.
fn a_poststart_hook_that_fails_fails_the_start(case: &mut Case<'_>) {
    let root = rootfs(case);
    let touch = |name: &str| hook(&format!(": >{}", root.join("tmp").join(name).display()));
    let hooks = json!({
        "poststart": [hook("echo not today >&2; exit 3"), touch("second")],
        "poststop": [touch("stopped")],
    });
    let out = run(&mut command(case, &root, "sleep 1000", &hooks));
    out.fails_with("exit status 3");
    assert!(out.stderr.contains("not today"), "{out}");
    assert_eq!(case.state(), "", "it is gone");
    for (name, there) in [("second", false), ("stopped", true)] {
        assert_eq!(root.join("tmp").join(name).exists(), there, "{name}");
    }
    std::fs::remove_dir_all(root).unwrap();
}

/// The name of a hook, the status that it is told, and whether there is a process then.
const MOMENTS: [(&str, &str, bool); 6] = [
    ("prestart", "creating", true),
    ("createRuntime", "creating", true),
    ("createContainer", "creating", true),
    ("startContainer", "created", true),
    ("poststart", "running", true),
    ("poststop", "stopped", false),
];

fn every_kind_of_hook_has_the_state_and_what_it_asks_for(case: &mut Case<'_>) {
    let root = rootfs(case);
    // The shell's own words: no other program is in the container.
    let hook = |(kind, ..): (&str, &str, bool)| {
        // This one sees the container's root.
        let folder = if kind == "startContainer" { "/tmp".into() } else { root.join("tmp") };
        let script = format!("read -r state; echo \"$0 $OF $OTHER $state\" >{}", folder.join(kind).display());
        let hook = json!({
            "path": "/bin/sh", "args": ["sh", "-c", script, kind], "env": ["OF=hook", "OTHER=too"], "timeout": 20,
        });
        (kind.to_owned(), json!([hook]))
    };
    let hooks = Value::Object(MOMENTS.into_iter().map(hook).collect());
    run(&mut command(case, &root, "true", &hooks)).ok();
    for (kind, status, has_process) in MOMENTS {
        let text =
            std::fs::read_to_string(root.join("tmp").join(kind)).unwrap_or_else(|e| panic!("{kind}: {e}"));
        let words: Vec<&str> = text.splitn(4, ' ').collect();
        assert_eq!(words[..3], [kind, "hook", "too"]);
        let state: Value = serde_json::from_str(words[3]).unwrap();
        assert_eq!(state["id"], case.id.as_str(), "{kind}");
        // runc runs this one during the create.
        let early = kind == "poststart" && case.runtime == Runtime::Runc;
        assert_eq!(state["status"], if early { "created" } else { status }, "{kind}");
        assert_eq!(state["annotations"]["org.example.word"], "kept", "{kind}");
        assert!(state["bundle"].as_str().unwrap().ends_with(&case.id), "{kind}: {state}");
        assert!(state["ociVersion"].as_str().unwrap().starts_with("1."), "{kind}: {state}");
        assert_eq!(state["pid"].as_u64().unwrap_or(0) > 0, has_process, "{kind}: {state}");
    }
    std::fs::remove_dir_all(root).unwrap();
}
