//! Mounts of the node in containers, and the propagation of later mounts.

use std::path::Path;

use serde_json::{json, Value};

use testbed::cri::{Case, Mode};
use testbed::{run, skip, Suite};

cases! {
    files_and_folders_of_the_node_are_mounted,
    mounts_go_the_way_that_was_asked_for,
    a_read_only_mount_may_be_so_all_the_way_down,
}

fn files_and_folders_of_the_node_are_mounted(case: &mut Case<'_>) {
    let pod = case.plain_pod();
    let folder = case.folder("data");
    std::fs::write(folder.join("file"), "the node's").expect("write a file");
    let app = pod.start(
        "app",
        json!({ "mounts": [
            { "container_path": "/data", "host_path": folder },
            { "container_path": "/new/place/fixed", "host_path": folder, "readonly": true },
            { "container_path": "/new/file", "host_path": folder.join("file") },
        ] }),
    );
    assert_eq!(app.sh("cat /data/file /new/place/fixed/file /new/file"), "the node's".repeat(3));
    assert!(app.exec(&["touch", "/new/place/fixed/more"]).stderr.contains("Read-only"));
    app.sh("echo more >/data/more");
    assert_eq!(std::fs::read_to_string(folder.join("more")).expect("it is the node's"), "more\n");
    pod.remove();
}

#[track_caller]
fn of_the_node(case: &Case<'_>, command: &[&str], at: &Path) {
    let mut all = case.node.machine().command(command[0]);
    run(all.args(&command[1..]).arg(at)).ok();
}

fn mounts_go_the_way_that_was_asked_for(case: &mut Case<'_>) {
    let pod = case.pod(json!({ "linux": { "security_context": { "privileged": true } } }));
    let start = |name: &str, propagation: &str| {
        let folder = case.folder(name);
        let sub = folder.join("sub");
        std::fs::create_dir_all(&sub).expect("make a folder");
        let mount = json!({ "container_path": "/data", "host_path": folder, "propagation": propagation });
        let security = json!({ "security_context": { "privileged": true } });
        let app = pod.start(name, json!({ "mounts": [mount], "linux": security }));
        of_the_node(case, &["mount", "-t", "tmpfs", "node"], &sub);
        let inside = app.sh("grep -c ' /data/sub ' /proc/self/mounts || true");
        of_the_node(case, &["umount"], &sub);
        app.sh("mkdir /data/mine; mount -t tmpfs mine /data/mine");
        let outside = case.node.machine().mountinfo().contains(&folder.join("mine").display().to_string());
        app.sh("umount /data/mine");
        (inside == "1", outside)
    };
    assert_eq!(start("private", "PROPAGATION_PRIVATE"), (false, false));
    assert_eq!(start("slave", "PROPAGATION_HOST_TO_CONTAINER"), (true, false));
    assert_eq!(start("shared", "PROPAGATION_BIDIRECTIONAL"), (true, true));
    pod.remove();
}

fn a_read_only_mount_may_be_so_all_the_way_down(case: &mut Case<'_>) {
    if case.suite == Suite::Trixie {
        skip::other_machine("containerd 1.7 does not know recursive_read_only");
        return;
    }
    if case.mode != Mode::Runc {
        skip::other_machine(
            "up to 2.2.6 containerd asks runc alone whether it can, and ends with a nil pointer otherwise",
        );
        return;
    }
    let pod = case.plain_pod();
    let folder = case.folder("data");
    let sub = folder.join("sub");
    std::fs::create_dir_all(&sub).expect("make a folder");
    of_the_node(case, &["mount", "-t", "tmpfs", "node"], &sub);
    let mount = |recursive: bool| -> Value {
        json!({ "mounts": [{
            "container_path": "/data", "host_path": folder, "readonly": true, "recursive_read_only": recursive,
        }] })
    };
    let plain = pod.start("plain", mount(false));
    assert_ne!(plain.exec(&["touch", "/data/file"]).code, 0);
    plain.sh("touch /data/sub/file");
    let deep = pod.start("deep", mount(true));
    assert_ne!(deep.exec(&["touch", "/data/sub/file"]).code, 0);
    pod.remove();
    of_the_node(case, &["umount"], &sub);
}
