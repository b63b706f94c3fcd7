//! Security contexts.

use serde_json::{json, Value};

use testbed::cri::Case;

cases! {
    a_user_and_groups,
    capabilities_are_added_and_dropped,
    a_root_may_be_read_only,
    a_privileged_container_has_what_the_node_has,
    seccomp_profiles,
    no_new_privileges,
    paths_are_masked_or_read_only,
}

fn secured(context: Value) -> Value {
    json!({ "linux": { "security_context": context } })
}

/// Returns a field of the text of a /proc/PID/status.
fn status(text: &str, name: &str) -> String {
    let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
    line.unwrap_or_else(|| panic!("no {name} in {text}")).trim().to_owned()
}

const STATUS: &str = "cat /proc/self/status";

fn a_user_and_groups(case: &mut Case<'_>) {
    let pod = case.plain_pod();
    let user = json!({
        "run_as_user": { "value": "1000" }, "run_as_group": { "value": "3000" }, "supplemental_groups": ["4000", "5000"],
    });
    let (code, out) = pod.script("number", "id -u; id -g; id -G", secured(user.clone()));
    let lines: Vec<_> = out.lines().collect();
    assert_eq!((code, lines[0], lines[1]), (0, "1000", "3000"), "{out}");
    let groups: Vec<_> = lines[2].split(' ').collect();
    assert!(["3000", "4000", "5000"].iter().all(|group| groups.contains(group)), "{out}");
    assert!(groups.contains(&"2000"), "those of the image count too: {out}");
    let (code, out) =
        pod.script("name", "id -u; id -g; echo $HOME", secured(json!({ "run_as_username": "app" })));
    assert_eq!((code, out.as_str()), (0, "1000\n1000\n/home/app\n"));
    // Later commands run as the same user.
    let app = pod.start("exec", secured(user));
    assert_eq!(app.sh("id -u; id -g"), "1000\n3000");
    pod.remove();
}

fn capabilities_are_added_and_dropped(case: &mut Case<'_>) {
    let pod = case.plain_pod();
    let effective = |name: &str, capabilities: Value| {
        let (code, out) = pod.script(name, STATUS, secured(json!({ "capabilities": capabilities })));
        assert_eq!(code, 0);
        assert_eq!(status(&out, "CapInh"), "0000000000000000");
        assert_eq!(status(&out, "CapEff"), status(&out, "CapBnd"));
        u64::from_str_radix(&status(&out, "CapEff"), 16).expect("a number")
    };
    let (net_admin, mknod) = (1 << 12, 1 << 27);
    assert_eq!(effective("plain", json!({})), 0xa804_25fb, "containerd's default");
    assert_eq!(effective("add", json!({ "add_capabilities": ["NET_ADMIN"] })), 0xa804_25fb | net_admin);
    assert_eq!(effective("drop", json!({ "drop_capabilities": ["MKNOD"] })), 0xa804_25fb & !mknod);
    let only = json!({ "drop_capabilities": ["ALL"], "add_capabilities": ["NET_ADMIN"] });
    assert_eq!(effective("only", only), net_admin);
    pod.remove();
}

fn a_root_may_be_read_only(case: &mut Case<'_>) {
    let pod = case.plain_pod();
    let volume = json!([{ "container_path": "/data", "host_path": case.folder("data") }]);
    let mut config = secured(json!({ "readonly_rootfs": true }));
    config["mounts"] = volume;
    let app = pod.start("app", config);
    assert_ne!(app.exec(&["touch", "/file"]).code, 0);
    assert_ne!(app.exec(&["touch", "/etc/file"]).code, 0);
    app.sh("touch /data/file /dev/shm/file");
    pod.remove();
}

fn a_privileged_container_has_what_the_node_has(case: &mut Case<'_>) {
    let pod = case.pod(secured(json!({ "privileged": true })));
    let app = pod.start("app", secured(json!({ "privileged": true })));
    let (inside, ours) =
        (app.sh(STATUS), std::fs::read_to_string("/proc/self/status").expect("read our status"));
    assert_eq!(status(&inside, "CapEff"), status(&ours, "CapEff"));
    assert_eq!(status(&inside, "Seccomp"), "0");
    for kind in ["sysfs", "cgroup"] {
        // The mount's options; those of the filesystem come after the dash.
        let mounts = app.sh(&format!("grep ' - {kind}2\\? ' /proc/self/mountinfo"));
        assert!(!mounts.is_empty() && mounts.lines().all(|line| line.contains(" rw,")), "{mounts}");
    }
    app.sh("test -c /dev/kmsg && head -c 1 /proc/kcore >/dev/null || test ! -e /proc/kcore");
    app.sh("mkdir /mnt; mount -t tmpfs mine /mnt; umount /mnt");
    let plain = pod.start("plain", json!({}));
    assert_ne!(plain.exec(&["sh", "-c", "mkdir /mnt; mount -t tmpfs mine /mnt"]).code, 0);
    pod.remove();
}

fn seccomp_profiles(case: &mut Case<'_>) {
    let pod = case.plain_pod();
    let run = |name: &str, profile: Value, script: &str| {
        let app = pod.start(name, secured(json!({ "seccomp": profile })));
        (status(&app.sh(STATUS), "Seccomp"), app.exec(&["sh", "-c", script]))
    };
    let (mode, exec) = run("default", json!({ "profile_type": "RuntimeDefault" }), "unshare -U true");
    assert!(mode == "2" && exec.code != 0, "{mode}: {exec:?}");
    let (mode, exec) = run("unconfined", json!({ "profile_type": "Unconfined" }), "unshare -U true");
    assert!(mode == "0" && exec.code == 0, "{mode}: {exec:?}");
    let file = case.folder("seccomp").join("profile.json");
    let rule = json!({ "names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO", "errnoRet": 122 });
    let profile = json!({ "defaultAction": "SCMP_ACT_ALLOW", "architectures": ["SCMP_ARCH_X86_64"], "syscalls": [rule] });
    std::fs::write(&file, profile.to_string()).expect("write a profile");
    let local = json!({ "profile_type": "Localhost", "localhost_ref": file });
    let (mode, exec) = run("localhost", local, "mkdir /tmp/folder");
    assert!(mode == "2" && exec.stderr.contains("quota exceeded"), "{mode}: {exec:?}");
    pod.remove();
}

fn no_new_privileges(case: &mut Case<'_>) {
    let pod = case.plain_pod();
    for (name, wanted, seen) in [("no", true, "1"), ("yes", false, "0")] {
        let (code, out) = pod.script(name, STATUS, secured(json!({ "no_new_privs": wanted })));
        assert_eq!((code, status(&out, "NoNewPrivs").as_str()), (0, seen));
    }
    pod.remove();
}

fn paths_are_masked_or_read_only(case: &mut Case<'_>) {
    let pod = case.plain_pod();
    let paths = json!({ "masked_paths": ["/proc/keys", "/proc/fs", "/no/such"], "readonly_paths": ["/proc/sys", "/no/such"] });
    let masked = pod.start("masked", secured(paths));
    assert_eq!(masked.sh("cat /proc/keys; ls /proc/fs"), "");
    assert!(masked.exec(&["sh", "-c", "echo 1 >/proc/sys/vm/drop_caches"]).stderr.contains("Read-only"));
    // As requested by `procMount: Unmasked`.
    let open = pod.start("open", secured(json!({ "masked_paths": [], "readonly_paths": [] })));
    assert_ne!(open.sh("ls /proc/fs"), "");
    assert!(!open.sh("cat /proc/self/mounts").contains(" /proc/"), "nothing is mounted below /proc");
    pod.remove();
}
