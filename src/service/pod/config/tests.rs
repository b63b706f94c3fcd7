use super::*;
use crate::service::convert::any;
use crate::service::protos::pod::{LinuxSandboxSecurityContext, PodSandboxMetadata};
use protobuf::MessageField;

/// What the kubelet writes for an ordinary pod.
fn kubelet() -> PodSandboxConfig {
    let options = NamespaceOption { pid: NamespaceMode::CONTAINER.into(), ..Default::default() };
    let linux = LinuxPodSandboxConfig {
        cgroup_parent: "/kubepods.slice/kubepods-pod1.slice".into(),
        security_context: MessageField::some(LinuxSandboxSecurityContext {
            namespace_options: MessageField::some(options),
            ..Default::default()
        }),
        sysctls: [("net.core.somaxconn".to_owned(), "1024".to_owned())].into(),
        ..Default::default()
    };
    PodSandboxConfig {
        metadata: MessageField::some(PodSandboxMetadata {
            name: "web".into(),
            uid: "u1".into(),
            namespace: "shop".into(),
            attempt: 2,
            ..Default::default()
        }),
        hostname: "web-0".into(),
        dns_config: MessageField::some(DNSConfig {
            servers: vec!["10.96.0.10".into(), "fe80::1%eth0".into()],
            searches: vec!["shop.svc.cluster.local".into(), ".".into()],
            options: vec!["ndots:5".into()],
            ..Default::default()
        }),
        labels: [("app".to_owned(), "web".to_owned())].into(),
        annotations: [("a/b".to_owned(), "c".to_owned())].into(),
        linux: MessageField::some(linux),
        ..Default::default()
    }
}

fn decode(config: &PodSandboxConfig) -> Result<Option<PodConfig>> {
    from_any(Some(&any(CRI, config.write_to_bytes().unwrap())))
}

fn with(change: impl FnOnce(&mut PodSandboxConfig)) -> Result<PodConfig> {
    let mut config = kubelet();
    change(&mut config);
    decode(&config).map(Option::unwrap)
}

fn options(config: &mut PodSandboxConfig) -> &mut NamespaceOption {
    let linux = config.linux.mut_or_insert_default();
    linux.security_context.mut_or_insert_default().namespace_options.mut_or_insert_default()
}

#[test]
fn a_pod_of_the_kubelet_is_understood() {
    let config = with(|_| {}).unwrap();
    let expected = PodConfig {
        hostname: "web-0".into(),
        net: Ns::New,
        ipc: Ns::New,
        uts: Ns::New,
        pid: PodPid::Container,
        user: None,
        dns: Some(Dns {
            servers: vec!["10.96.0.10".into(), "fe80::1%eth0".into()],
            searches: vec!["shop.svc.cluster.local".into(), ".".into()],
            options: vec!["ndots:5".into()],
        }),
        sysctls: [("net.core.somaxconn".into(), "1024".into())].into(),
        cgroup_parent: "/kubepods.slice/kubepods-pod1.slice".into(),
        labels: [("app".into(), "web".into())].into(),
        annotations: [("a/b".into(), "c".into())].into(),
        name: "web".into(),
        namespace: "shop".into(),
        uid: "u1".into(),
        attempt: 2,
    };
    assert_eq!(config, expected);
}

#[test]
fn no_configuration_is_that_of_the_bundle_and_other_types_are_named() {
    for url in [EMPTY, "type.googleapis.com/google.protobuf.Empty", ""] {
        assert_eq!(from_any(Some(&any(url, Vec::new()))).unwrap(), None, "{url}");
    }
    assert_eq!(from_any(None).unwrap(), None);
    let bytes = kubelet().write_to_bytes().unwrap();
    for url in [CRI, "type.googleapis.com/runtime.v1.PodSandboxConfig"] {
        assert!(from_any(Some(&any(url, bytes.clone()))).unwrap().is_some(), "{url}");
    }
    for url in ["runtime.v1alpha2.PodSandboxConfig", "containerd.runc.v1.Options", ""] {
        let error = from_any(Some(&any(url, bytes.clone()))).unwrap_err();
        assert_eq!(error.kind(), Kind::Invalid);
        assert!(error.to_string().contains(&format!("{url:?}")), "{error}");
    }
    let error = from_any(Some(&any(CRI, vec![0xff]))).unwrap_err();
    assert!(error.kind() == Kind::Invalid && error.to_string().contains("decode"), "{error}");
}

#[test]
fn an_empty_configuration_has_cri_s_defaults() {
    let config = decode(&PodSandboxConfig::new()).unwrap().unwrap();
    let expected =
        PodConfig { net: Ns::New, ipc: Ns::New, uts: Ns::New, pid: PodPid::Pod, ..PodConfig::default() };
    assert_eq!(config, expected);
}

#[test]
fn the_host_s_network_comes_with_its_name() {
    let config = with(|c| {
        options(c).network = NamespaceMode::NODE.into();
        options(c).ipc = NamespaceMode::NODE.into();
        options(c).pid = NamespaceMode::NODE.into();
    })
    .unwrap();
    assert_eq!((&config.net, &config.uts, &config.ipc), (&Ns::Host, &Ns::Host, &Ns::Host));
    assert_eq!(config.pid, PodPid::Node);
    let error = agrees(&config, Some(Path::new("/run/netns/x"))).unwrap_err();
    assert!(error.to_string().starts_with("netns_path"), "{error}");
    agrees(&config, None).unwrap();
    agrees(&with(|_| {}).unwrap(), Some(Path::new("/run/netns/x"))).unwrap();
}

fn range(host_id: u32, container_id: u32, length: u32) -> IDMapping {
    IDMapping { host_id, container_id, length, ..Default::default() }
}

fn userns(mode: NamespaceMode, uids: &[IDMapping], gids: &[IDMapping]) -> Result<PodConfig> {
    let user =
        UserNamespace { mode: mode.into(), uids: uids.into(), gids: gids.into(), ..Default::default() };
    with(|c| options(c).userns_options = MessageField::some(user))
}

#[test]
fn a_user_namespace_has_one_range_of_each_kind() {
    let good = [range(65536, 0, 65536)];
    let config = userns(NamespaceMode::POD, &good, &good).unwrap();
    let mapping = crate::spec::IdRange { inside: 0, outside: 65536, count: 65536 };
    assert_eq!(config.user, Some(crate::spec::Mappings { uids: vec![mapping], gids: vec![mapping] }));
    assert_eq!(userns(NamespaceMode::NODE, &[], &[]).unwrap().user, None);
    let two = [good[0].clone(), range(0, 1 << 20, 1)];
    for (mode, uids, gids, field) in [
        (NamespaceMode::POD, &[][..], &good[..], "userns_options.uids: 0 mappings"),
        (NamespaceMode::POD, &good, &two, "userns_options.gids: 2 mappings"),
        (NamespaceMode::POD, &[range(1, 0, 0)], &good, "userns_options.uids[0]"),
        (NamespaceMode::POD, &good, &[range(u32::MAX, 0, 2)], "userns_options.gids[0]"),
        (NamespaceMode::NODE, &good, &good, "userns_options: NODE"),
        (NamespaceMode::CONTAINER, &good, &good, "userns_options.mode: CONTAINER"),
    ] {
        let error = userns(mode, uids, gids).unwrap_err();
        assert_eq!(error.kind(), Kind::Invalid);
        assert!(error.to_string().contains(&format!("namespace_options.{field}")), "{error}");
    }
}

#[test]
fn what_is_wrong_is_named_by_its_field() {
    type Change = Box<dyn Fn(&mut PodSandboxConfig)>;
    let dns = |c: &mut PodSandboxConfig| std::mem::take(c.dns_config.mut_or_insert_default());
    let cases: Vec<(Change, &str)> = vec![
        (Box::new(|c| c.hostname = "x".repeat(65)), "hostname"),
        (Box::new(|c| c.hostname = "a b".into()), "hostname"),
        (Box::new(|c| c.hostname = "a\nb".into()), "hostname"),
        (Box::new(|c| c.hostname = "-a".into()), "hostname"),
        (
            Box::new(|c| options(c).network = NamespaceMode::CONTAINER.into()),
            "linux.security_context.namespace_options.network: CONTAINER",
        ),
        (Box::new(|c| options(c).ipc = NamespaceMode::TARGET.into()), "namespace_options.ipc: TARGET"),
        (Box::new(|c| options(c).pid = NamespaceMode::TARGET.into()), "namespace_options.pid: TARGET"),
        (Box::new(|c| options(c).pid = EnumOrUnknown::from_i32(9)), "namespace_options.pid: 9"),
        (
            Box::new(move |c| {
                dns(c);
                c.dns_config.mut_or_insert_default().servers = vec!["1.1.1.1".into(), "dns.example".into()];
            }),
            "dns_config.servers[1]",
        ),
        (
            Box::new(|c| c.dns_config.mut_or_insert_default().servers = vec!["fe80::1%eth 0".into()]),
            "dns_config.servers[0]",
        ),
        (
            Box::new(|c| {
                c.dns_config.mut_or_insert_default().searches = vec!["a\nnameserver 6.6.6.6".into()]
            }),
            "dns_config.searches[0]",
        ),
        (
            Box::new(|c| c.dns_config.mut_or_insert_default().options = vec!["".into()]),
            "dns_config.options[0]",
        ),
        (
            Box::new(|c| c.linux.mut_or_insert_default().cgroup_parent = "/a/../../b".into()),
            "linux.cgroup_parent",
        ),
        (
            Box::new(|c| {
                c.linux.mut_or_insert_default().sysctls.insert("kernel.x\n".into(), "1".into());
            }),
            "linux.sysctls",
        ),
        (
            Box::new(|c| {
                c.linux.mut_or_insert_default().sysctls.insert("kernel.shmmax".into(), "1\n2".into());
            }),
            "linux.sysctls[\"kernel.shmmax\"]",
        ),
    ];
    for (change, field) in cases {
        let error = with(|c| change(c)).unwrap_err();
        assert_eq!(error.kind(), Kind::Invalid, "{error}");
        assert!(error.to_string().contains(field), "{field}: {error}");
    }
}

/// containerd's own pods keep all of them.
#[test]
fn lists_of_dns_that_are_longer_than_kubernetes_allows_are_kept_and_warned_about() {
    let wanted = |servers: usize, searches: Vec<String>| DNSConfig {
        servers: (0..servers).map(|i| format!("10.0.0.{i}")).collect(),
        searches,
        ..Default::default()
    };
    let names = |n: usize| (0..n).map(|i| format!("s{i}.test")).collect::<Vec<_>>();
    for (config, warning) in [
        (wanted(3, names(32)), None),
        (wanted(4, Vec::new()), Some("dns_config.servers: 4 entries, Kubernetes allows 3")),
        (wanted(0, names(33)), Some("dns_config.searches: 33 entries, Kubernetes allows 32")),
        (
            wanted(0, vec!["x".repeat(1024); 2]),
            Some("dns_config.searches: 2049 characters, Kubernetes allows 2048"),
        ),
    ] {
        let dns = with(|c| c.dns_config = MessageField::some(config.clone())).unwrap().dns.unwrap();
        assert_eq!((dns.servers, dns.searches), (config.servers.clone(), config.searches.clone()));
        let warnings = beyond(&config);
        assert_eq!(warnings.len(), usize::from(warning.is_some()), "{warnings:?}");
        assert!(warnings.iter().all(|text| text.starts_with(warning.unwrap())), "{warnings:?}");
    }
}

#[test]
fn a_hostname_may_fill_what_the_kernel_has() {
    let name = "x".repeat(64);
    assert_eq!(with(|c| c.hostname = name.clone()).unwrap().hostname, name);
}
