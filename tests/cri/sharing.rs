//! What the containers of a pod share: addresses, memory, processes, and what they have of the node.

use std::os::unix::fs::MetadataExt;

use serde_json::json;

use testbed::cri::{http_get, Case, Container, Mode};
use testbed::{skip, until, Suite};

cases! {
    a_pod_has_one_address_and_one_localhost,
    a_pod_has_one_shared_memory,
    a_pod_may_have_one_process_tree,
    leftovers_of_a_container_end_with_it,
    a_container_may_join_another_ones_processes,
    a_pod_may_have_the_processes_of_the_node,
    a_pod_may_have_the_memory_of_the_node,
    a_pod_may_have_the_network_of_the_node,
    a_pod_with_the_network_of_the_node_has_no_hostname_of_its_own,
    the_network_is_known_by_the_path_that_cri_gave,
}

const SERVER: &str = "mkdir /tmp/www; echo hello >/tmp/www/index.html; exec httpd -f -p 8080 -h /tmp/www";

fn namespace(container: &Container, kind: &str) -> String {
    container.sh(&format!("readlink /proc/self/ns/{kind}"))
}

fn of_this_process(kind: &str) -> String {
    let link = std::fs::read_link(format!("/proc/self/ns/{kind}")).expect("read our own namespace");
    link.to_string_lossy().into_owned()
}

fn a_pod_has_one_address_and_one_localhost(case: &mut Case<'_>) {
    let pod = case.plain_pod();
    pod.start("server", json!({ "command": ["sh", "-c", SERVER] }));
    let client = pod.start("client", json!({}));
    until("the server to answer on localhost", 10, || {
        let answer = client.exec(&["wget", "-q", "-O", "-", "http://127.0.0.1:8080/"]);
        (answer.stdout == "hello\n").then_some(())
    });
    let ip = pod.ip();
    assert!(client.sh("ip -o -4 address show dev eth0").contains(&ip));
    assert_eq!(http_get(case.node.machine(), &format!("{ip}:8080")).as_deref(), Some("hello\n"));
    let other = case.try_pod(&format!("{}-other", case.name), json!({})).expect("RunPodSandbox");
    let stranger = other.start("client", json!({}));
    assert_eq!(stranger.exec(&["wget", "-q", "-O", "-", &format!("http://{ip}:8080/")]).ok(), "hello");
    assert_ne!(stranger.exec(&["wget", "-q", "-O", "-", "http://127.0.0.1:8080/"]).code, 0);
    other.remove();
    pod.remove();
}

fn a_pod_has_one_shared_memory(case: &mut Case<'_>) {
    let pod = case.plain_pod();
    let (one, two) = (pod.start("one", json!({})), pod.start("two", json!({})));
    one.sh("echo shared >/dev/shm/file");
    assert_eq!(two.sh("cat /dev/shm/file; rm /dev/shm/file"), "shared");
    let mount = one.sh("grep ' /dev/shm ' /proc/self/mounts");
    assert!(mount.contains("size=65536k"), "{mount}");
    for kind in ["ipc", "uts", "net"] {
        assert_eq!(namespace(&one, kind), namespace(&two, kind), "{kind} is the pod's");
        assert_ne!(namespace(&one, kind), of_this_process(kind), "{kind} is not the node's");
    }
    for kind in ["pid", "mnt"] {
        assert_ne!(namespace(&one, kind), namespace(&two, kind), "{kind} is the container's");
    }
    assert_eq!(one.sh("cat /proc/1/cmdline | tr '\\0' ' '").trim(), "sleep 1000");
    pod.remove();
}

fn a_pod_may_have_one_process_tree(case: &mut Case<'_>) {
    let pod = case.pod(json!({ "linux": { "security_context": { "namespace_options": { "pid": "POD" } } } }));
    let one = pod.start("one", json!({ "command": ["sleep", "1001"] }));
    let two = pod.start("two", json!({ "command": ["sleep", "1002"] }));
    assert_eq!(namespace(&one, "pid"), namespace(&two, "pid"));
    let all = one.sh("ps -o pid,args");
    assert!(all.contains("sleep 1001") && all.contains("sleep 1002"), "{all}");
    let first = one.sh("tr '\\0' ' ' </proc/1/cmdline");
    assert!(!first.contains("sleep"), "the pod's first process is no container's: {first}");
    // An orphan becomes a child of the first process, which reaps it.
    let orphan = one.sh("sh -c 'sleep 0.1 >/dev/null 2>&1 & echo $!'");
    until("the orphan to be reaped", 10, || {
        (one.exec(&["test", "-e", &format!("/proc/{orphan}")]).code == 1).then_some(())
    });
    // The process tree outlives one of its containers.
    one.stop(0);
    assert_eq!(one.until_exited(), 137);
    let all = two.sh("ps -o args");
    assert!(!all.contains("sleep 1001") && all.contains("sleep 1002"), "{all}");
    pod.remove();
}

fn leftovers_of_a_container_end_with_it(case: &mut Case<'_>) {
    let pod = case.pod(json!({ "linux": { "security_context": { "namespace_options": { "pid": "POD" } } } }));
    let two = pod.start("two", json!({}));
    let one = pod.start("one", json!({ "command": ["sh", "-c", "sleep 1003 & sleep 0.1; exit 3"] }));
    assert_eq!(one.until_exited(), 3);
    until("what it left to be gone", 10, || (!two.sh("ps -o args").contains("sleep 1003")).then_some(()));
    pod.remove();
}

fn a_container_may_join_another_ones_processes(case: &mut Case<'_>) {
    let pod = case.plain_pod();
    let app = pod.start("app", json!({ "command": ["sleep", "1004"] }));
    let target = json!({ "pid": "TARGET", "target_id": app.id });
    let debug = pod.start(
        "debug",
        json!({
            "command": ["sleep", "1005"],
            "linux": { "security_context": { "namespace_options": target } },
        }),
    );
    assert_eq!(namespace(&debug, "pid"), namespace(&app, "pid"));
    assert_eq!(debug.sh("tr '\\0' ' ' </proc/1/cmdline").trim(), "sleep 1004");
    debug.stop(0);
    assert_eq!(debug.until_exited(), 137);
    assert_eq!(app.state(), "CONTAINER_RUNNING");
    debug.remove();
    pod.remove();
}

fn a_pod_may_have_the_processes_of_the_node(case: &mut Case<'_>) {
    let pod =
        case.pod(json!({ "linux": { "security_context": { "namespace_options": { "pid": "NODE" } } } }));
    let app = pod.start("app", json!({}));
    assert_eq!(namespace(&app, "pid"), of_this_process("pid"));
    assert_eq!(app.sh(&format!("tr '\\0' ' ' </proc/{}/cmdline", app.pid())).trim(), "sleep 1000");
    // Only the cgroup tells what belongs to the container.
    let other = pod.start("other", json!({ "command": ["sh", "-c", "sleep 1006 & sleep 0.1; exit 4"] }));
    assert_eq!(other.until_exited(), 4);
    until("what it left to be gone", 10, || (!app.sh("ps -o args").contains("sleep 1006")).then_some(()));
    pod.remove();
}

fn a_pod_may_have_the_memory_of_the_node(case: &mut Case<'_>) {
    let pod =
        case.pod(json!({ "linux": { "security_context": { "namespace_options": { "ipc": "NODE" } } } }));
    let app = pod.start("app", json!({}));
    assert_eq!(namespace(&app, "ipc"), of_this_process("ipc"));
    let file = format!("/dev/shm/{}", case.node.machine().mark);
    std::fs::write(&file, "the node's").expect("write to the node's shared memory");
    let seen = app.exec(&["cat", &file]);
    std::fs::remove_file(&file).expect("remove it");
    assert_eq!(seen.ok(), "the node's");
    pod.remove();
}

fn a_pod_may_have_the_network_of_the_node(case: &mut Case<'_>) {
    if case.mode == Mode::Shim && case.suite == Suite::Forky {
        skip::other_machine(
            "containerd 2.0 to 2.2 end with a nil pointer when such a pod has no pause container",
        );
        return;
    }
    let pod = case.pod(
        json!({ "hostname": "", "linux": { "security_context": { "namespace_options": { "network": "NODE" } } } }),
    );
    assert_eq!(pod.ip(), "");
    let app = pod.start("app", json!({ "command": ["sh", "-c", SERVER] }));
    assert_eq!(namespace(&app, "net"), case.node.machine().namespace("net"));
    assert_eq!(namespace(&app, "uts"), of_this_process("uts"));
    until("the server to answer on the node", 10, || {
        (http_get(case.node.machine(), "127.0.0.1:8080").as_deref() == Some("hello\n")).then_some(())
    });
    pod.remove();
}

/// A kubelet passes no hostname with the node's network: it would be set on the node.
fn a_pod_with_the_network_of_the_node_has_no_hostname_of_its_own(case: &mut Case<'_>) {
    if case.mode == Mode::Shim && case.suite == Suite::Forky {
        skip::other_machine(
            "containerd 2.0 to 2.2 end with a nil pointer when such a pod has no pause container",
        );
        return;
    }
    let network = json!({ "namespace_options": { "network": "NODE" } });
    let config = json!({ "hostname": "mine", "linux": { "security_context": network } });
    let failure = case.try_pod(&case.name, config).expect_err("the node would be called so");
    let message = failure.message.to_lowercase();
    assert!(message.contains("hostname") && message.contains("uts namespace"), "{message}");
    assert_ne!(std::fs::read_to_string("/proc/sys/kernel/hostname").expect("a name"), "mine\n");
}

/// NRI's and CNI's plugins look for the network by this path.
fn the_network_is_known_by_the_path_that_cri_gave(case: &mut Case<'_>) {
    let pod = case.plain_pod();
    let app = pod.start("app", json!({}));
    let spec = pod.info()["runtimeSpec"].clone();
    let mut namespaces = spec["linux"]["namespaces"].as_array().expect("a list").iter();
    let network = namespaces.rfind(|namespace| namespace["type"] == "network").expect("one");
    let path = network["path"].as_str().expect("a path");
    assert!(path.contains("/netns/cni-"), "{path}");
    // /var/run is a link to /run, and would lead out of the machine.
    let inside = case.node.machine().inside(path.trim_start_matches("/var"));
    let file = std::fs::metadata(inside).expect("it is there");
    assert_eq!(namespace(&app, "net"), format!("net:[{}]", file.ino()));
    pod.remove();
}
