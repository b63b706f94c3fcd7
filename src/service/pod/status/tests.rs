use super::*;
use crate::sandbox::{Dns, ProcessKey, ProcessState};
use crate::stdio::Stdio;
use std::time::{Duration, UNIX_EPOCH};

fn status(state: PodState) -> PodStatus {
    let at = UNIX_EPOCH + Duration::from_secs(1_800_000_000);
    let exit = Some(ExitStatus { code: 137, at });
    let mapping = crate::spec::IdRange { inside: 0, outside: 65536, count: 65536 };
    PodStatus {
        id: "s1".into(),
        pid: 42,
        state,
        created_at: at,
        exit: None,
        containers: vec![ProcessState {
            key: ProcessKey::init("c1"),
            bundle: "/b".into(),
            pid: 43,
            status: Status::Stopped,
            stdio: Stdio::default(),
            exit,
        }],
        cgroup: "/kubepods/pod1".into(),
        spec: br#"{"ociVersion":"1.2.0","hostname":"web-0"}"#.to_vec(),
        config: PodConfig {
            hostname: "web-0".into(),
            net: Ns::Host,
            ipc: Ns::New,
            pid: PodPid::Container,
            user: Some(crate::spec::Mappings { uids: vec![mapping], gids: vec![mapping] }),
            dns: Some(Dns { servers: vec!["1.1.1.1".into()], ..Dns::default() }),
            cgroup_parent: "/kubepods/pod1".into(),
            name: "web".into(),
            attempt: 1,
            ..PodConfig::default()
        },
    }
}

#[test]
fn the_extra_tells_of_the_containers_and_the_cgroup() {
    let any = extra(&status(PodState::Paused)).unwrap();
    assert_eq!(any.type_url, "io.containerd.shoal.v1.PodStatus");
    let extra = Extra::parse_from_bytes(&any.value).unwrap();
    assert_eq!((extra.state.as_str(), extra.cgroup.as_str()), ("paused", "/kubepods/pod1"));
    let [container] = &extra.containers[..] else { panic!("{extra:?}") };
    assert_eq!((container.id.as_str(), container.state.as_str(), container.pid), ("c1", "stopped", 43));
    assert_eq!((container.exit_status, container.exited_at.seconds), (137, 1_800_000_000));
}

#[test]
fn a_pod_that_has_its_namespaces_is_ready() {
    let words = [PodState::Created, PodState::Ready, PodState::Paused, PodState::Stopped];
    let (ready, not) = ("SANDBOX_READY", "SANDBOX_NOTREADY");
    assert_eq!(words.map(cri_word), [not, ready, ready, not]);
    assert_eq!(words.map(word), ["created", "running", "paused", "stopped"]);
}

#[test]
fn the_info_has_cri_s_names_and_types() {
    let info: Value = serde_json::from_str(&info(&status(PodState::Ready))).unwrap();
    let expected = json!({
        "pid": 42,
        "processStatus": "running",
        "netNamespaceClosed": false,
        "runtimeType": "io.containerd.shoal.v2",
        "runtimeSpec": { "ociVersion": "1.2.0", "hostname": "web-0" },
        "config": {
            "metadata": { "name": "web", "uid": "", "namespace": "", "attempt": 1 },
            "hostname": "web-0",
            "dns_config": { "servers": ["1.1.1.1"], "searches": [], "options": [] },
            "labels": {},
            "annotations": {},
            "linux": {
                "cgroup_parent": "/kubepods/pod1",
                "security_context": { "namespace_options": {
                    "network": 2,
                    "pid": 1,
                    "ipc": 0,
                    "userns_options": {
                        "mode": 0,
                        "uids": [{ "host_id": 65536, "container_id": 0, "length": 65536 }],
                        "gids": [{ "host_id": 65536, "container_id": 0, "length": 65536 }],
                    },
                } },
                "sysctls": {},
            },
        },
    });
    assert_eq!(info, expected);
}

#[test]
fn a_spec_that_is_none_is_left_out() {
    for spec in ["", "null", "[]", "{"] {
        let mut status = status(PodState::Stopped);
        status.spec = spec.into();
        status.config.net = Ns::New;
        let info: Value = serde_json::from_str(&info(&status)).unwrap();
        assert!(info.get("runtimeSpec").is_none(), "{spec}");
        assert_eq!(info["netNamespaceClosed"], true);
    }
}
