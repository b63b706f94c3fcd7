//! The plans of the process that makes a pod's namespaces.

use super::case::Hosts;
use shoal::plan::{self, PodInput};
use shoal::spec::{self, IdRange, Mappings, Namespaces, Ns};
use std::collections::BTreeMap;
use std::path::Path;

/// Each kind by its file.
pub fn all() -> BTreeMap<String, String> {
    let cni = || Namespaces {
        net: Ns::Join("/run/netns/cni-1".into()),
        ipc: Ns::New,
        uts: Ns::New,
        ..Namespaces::default()
    };
    let kinds = [
        ("plain", cni()),
        ("shared-pid", Namespaces { pid: Ns::New, ..cni() }),
        ("own-network", Namespaces { net: Ns::New, ..cni() }),
        ("host-ipc", Namespaces { ipc: Ns::Host, ..cni() }),
        ("users", Namespaces { pid: Ns::New, user: cni().net, ..cni() }),
        ("new-users", Namespaces { net: Ns::New, pid: Ns::New, user: Ns::New, ..cni() }),
    ];
    kinds.into_iter().map(|(name, namespaces)| (format!("{name}.txt"), text(&namespaces))).collect()
}

fn text(namespaces: &Namespaces) -> String {
    let range = IdRange { inside: 0, outside: 100_000, count: 65536 };
    let sysctls = [("net.ipv4.ip_unprivileged_port_start".to_owned(), "0".to_owned())];
    let sysctls = spec::sysctls(sysctls.into(), namespaces).expect("allowed");
    let input = PodInput {
        namespaces,
        network: None,
        mappings: &Mappings { uids: vec![range], gids: vec![range] },
        hostname: Some(&c"pod-1".into()),
        sysctls: &sysctls,
        host: &Hosts::v2(),
        root: (namespaces.pid == Ns::New).then_some(Path::new("/bundle/rootfs")),
    };
    plan::pod(&input).expect("it is a plan").to_string()
}
