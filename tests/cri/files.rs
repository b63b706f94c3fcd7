//! What a pod's containers find in /etc and /proc/sys, and node ports that lead to them.

use serde_json::json;

use testbed::cri::{http_get, Case};
use testbed::until;

cases! {
    names_and_addresses_come_from_the_pod,
    without_dns_settings_the_file_is_the_nodes,
    more_name_servers_than_a_resolver_takes_are_written,
    a_mount_on_etc_hosts_wins,
    low_ports_and_ping_are_for_everyone,
    sysctls_are_the_pods,
    a_port_of_the_node_leads_to_the_pod,
}

fn names_and_addresses_come_from_the_pod(case: &mut Case<'_>) {
    let dns = json!({ "servers": ["10.96.0.10", "10.96.0.11"], "searches": ["tests.svc", "svc"], "options": ["ndots:5"] });
    let pod = case.pod(json!({ "hostname": "a-name", "dns_config": dns }));
    for (name, config) in
        [("one", json!({})), ("two", json!({ "linux": { "security_context": { "readonly_rootfs": true } } }))]
    {
        let app = pod.start(name, config);
        assert_eq!(
            app.sh("cat /etc/resolv.conf"),
            "search tests.svc svc\nnameserver 10.96.0.10\nnameserver 10.96.0.11\noptions ndots:5"
        );
        assert_eq!(app.sh("cat /etc/hostname"), "a-name");
        assert_eq!(app.sh("hostname"), "a-name");
        let hosts = std::fs::read_to_string("/etc/hosts").expect("the node has names");
        assert_eq!(app.sh("cat /etc/hosts"), hosts.trim_end());
    }
    pod.remove();
}

fn without_dns_settings_the_file_is_the_nodes(case: &mut Case<'_>) {
    let pod = case.plain_pod();
    let app = pod.start("app", json!({}));
    let file = std::fs::read_to_string("/etc/resolv.conf").expect("the node has name servers");
    assert_eq!(app.sh("cat /etc/resolv.conf"), file.trim_end());
    pod.remove();
}

/// Kubernetes has limits of its own, which the runtime does not enforce.
fn more_name_servers_than_a_resolver_takes_are_written(case: &mut Case<'_>) {
    let many = |count: usize, text: &dyn Fn(usize) -> String| (0..count).map(text).collect::<Vec<_>>();
    let servers = many(5, &|n| format!("10.96.0.{n}"));
    let searches = many(40, &|n| format!("s{n}.test"));
    let pod = case.pod(json!({ "dns_config": { "servers": servers, "searches": searches } }));
    let app = pod.start("app", json!({}));
    let expected = format!("search {}\nnameserver {}", searches.join(" "), servers.join("\nnameserver "));
    assert_eq!(app.sh("cat /etc/resolv.conf"), expected);
    pod.remove();
}

fn a_mount_on_etc_hosts_wins(case: &mut Case<'_>) {
    let pod = case.plain_pod();
    let file = case.folder("etc").join("hosts");
    std::fs::write(&file, "127.0.0.1 localhost\n10.88.0.99 from-the-kubelet\n").expect("write a hosts file");
    let mount = json!({ "container_path": "/etc/hosts", "host_path": file });
    let app = pod.start("app", json!({ "mounts": [mount] }));
    assert!(app.sh("cat /etc/hosts").ends_with("from-the-kubelet"));
    pod.remove();
}

fn low_ports_and_ping_are_for_everyone(case: &mut Case<'_>) {
    let pod = case.plain_pod();
    let user = json!({ "run_as_user": { "value": "1000" }, "run_as_group": { "value": "1000" } });
    let app = pod.start("app", json!({ "linux": { "security_context": user } }));
    assert_eq!(app.sh("cat /proc/sys/net/ipv4/ip_unprivileged_port_start"), "0");
    assert_eq!(app.sh("cat /proc/sys/net/ipv4/ping_group_range").replace('\t', " "), "0 2147483647");
    app.sh("httpd -p 80 -h /home/app");
    pod.remove();
}

fn sysctls_are_the_pods(case: &mut Case<'_>) {
    let sysctls = json!({
        "net.ipv4.ip_unprivileged_port_start": "100",
        "net.ipv4.ip_local_port_range": "30000 31000",
        "kernel.shm_rmid_forced": "1",
        "kernel/msgmax": "9000",
    });
    let pod = case.pod(json!({ "linux": { "sysctls": sysctls } }));
    let app = pod.start("app", json!({}));
    assert_eq!(app.sh("cat /proc/sys/net/ipv4/ip_unprivileged_port_start"), "100");
    assert_eq!(app.sh("cat /proc/sys/net/ipv4/ip_local_port_range").replace('\t', " "), "30000 31000");
    assert_eq!(app.sh("cat /proc/sys/kernel/shm_rmid_forced"), "1");
    assert_eq!(app.sh("cat /proc/sys/kernel/msgmax"), "9000");
    assert_ne!(std::fs::read_to_string("/proc/sys/kernel/msgmax").expect("read ours").trim(), "9000");
    pod.remove();
    match case.try_pod(&case.name, json!({ "linux": { "sysctls": { "kernel.no_such": "1" } } })) {
        Ok(_) => panic!("there is no such sysctl"),
        Err(failure) => assert!(failure.message.contains("no_such"), "{failure:?}"),
    }
}

fn a_port_of_the_node_leads_to_the_pod(case: &mut Case<'_>) {
    let ports = json!([{ "protocol": "TCP", "container_port": 8080, "host_port": 18080 }]);
    let pod = case.pod(json!({ "port_mappings": ports }));
    let script = "mkdir /tmp/www; echo mapped >/tmp/www/index.html; exec httpd -f -p 8080 -h /tmp/www";
    pod.start("server", json!({ "command": ["sh", "-c", script] }));
    for address in ["10.88.0.1:18080", "127.0.0.1:18080"] {
        until(&format!("an answer at {address}"), 10, || {
            (http_get(case.node.machine(), address).as_deref() == Some("mapped\n")).then_some(())
        });
    }
    pod.remove();
    assert_eq!(http_get(case.node.machine(), "10.88.0.1:18080"), None);
}
