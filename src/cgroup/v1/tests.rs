use crate::cgroup::fake::{update, Tree};
use crate::cgroup::{open, Host, Stats};
use crate::error::Kind;

const ALL: [&str; 6] = ["memory", "cpu,cpuacct", "cpuset", "pids", "blkio", "devices"];

fn tree() -> Tree {
    Tree::v1(&ALL)
        .with_leaf(
            "memory",
            &[
                ("memory.limit_in_bytes", ""),
                ("memory.memsw.limit_in_bytes", ""),
                ("memory.soft_limit_in_bytes", ""),
                ("memory.swappiness", ""),
                ("memory.oom_control", ""),
            ],
        )
        .with_leaf(
            "cpu,cpuacct",
            &[
                ("cpu.shares", ""),
                ("cpu.cfs_quota_us", ""),
                ("cpu.cfs_period_us", ""),
                ("cpuacct.usage", "7"),
            ],
        )
        .with_leaf("cpuset", &[("cpuset.cpus", ""), ("cpuset.mems", "")])
        .with_leaf("pids", &[("pids.max", "")])
        .with_leaf("blkio", &[("blkio.throttle.read_bps_device", ""), ("blkio.bfq.weight", "")])
        .with_leaf("devices", &[("devices.allow", ""), ("devices.deny", "")])
}

fn with_parents(tree: &Tree) {
    for hierarchy in tree.layout.hierarchies().iter().filter(|h| h.has("cpuset")) {
        for (dir, cpus) in [("", "0-3"), ("default", "")] {
            std::fs::write(hierarchy.mount.join(dir).join("cpuset.cpus"), cpus).unwrap();
            std::fs::write(hierarchy.mount.join(dir).join("cpuset.mems"), "0").unwrap();
        }
    }
}

#[test]
fn each_limit_is_in_its_file() {
    let tree = tree();
    with_parents(&tree);
    let json = r#"{"memory":{"limit":1000,"swap":-1,"reservation":500,"swappiness":0,"disableOOMKiller":true},
        "cpu":{"shares":2,"quota":-1,"period":5000},"pids":{"limit":7},
        "blockIO":{"weight":500,"throttleReadBpsDevice":[{"major":8,"minor":0,"rate":9}]},
        "devices":[{"allow":true}]}"#;
    tree.make(json).unwrap();
    for (hierarchy, file, value) in [
        ("memory", "memory.limit_in_bytes", "1000"),
        ("memory", "memory.memsw.limit_in_bytes", "-1"),
        ("memory", "memory.soft_limit_in_bytes", "500"),
        ("memory", "memory.swappiness", "0"),
        ("memory", "memory.oom_control", "1"),
        ("cpu,cpuacct", "cpu.shares", "2"),
        ("cpu,cpuacct", "cpu.cfs_quota_us", "-1"),
        ("cpu,cpuacct", "cpu.cfs_period_us", "5000"),
        ("cpuset", "cpuset.cpus", "0-3"),
        ("cpuset", "cpuset.mems", "0"),
        ("pids", "pids.max", "7"),
        ("blkio", "blkio.bfq.weight", "500"),
        ("blkio", "blkio.throttle.read_bps_device", "8:0 9"),
        ("devices", "devices.allow", "a"),
        ("devices", "devices.deny", ""),
    ] {
        assert_eq!(tree.leaf(hierarchy, file), value, "{file}");
    }
    assert_eq!(tree.read("cpuset/default/cpuset.cpus"), "0-3", "a parent without cpus gets them too");
}

/// Resources, and the file that they are written to, with its contents afterwards.
const ONE_BY_ONE: [(&str, &str, &str, &str); 20] = [
    (r#"{"cpu":{"cpus":"1-2","mems":"1"}}"#, "cpuset", "cpuset.cpus", "1-2"),
    (r#"{"cpu":{"cpus":"1-2","mems":"1"}}"#, "cpuset", "cpuset.mems", "1"),
    (r#"{"cpu":{"burst":5000}}"#, "cpu,cpuacct", "cpu.cfs_burst_us", "5000"),
    (r#"{"cpu":{"idle":1}}"#, "cpu,cpuacct", "cpu.idle", "1"),
    (r#"{"cpu":{"idle":0}}"#, "cpu,cpuacct", "cpu.idle", "0"),
    (r#"{"cpu":{"realtimeRuntime":950}}"#, "cpu,cpuacct", "cpu.rt_runtime_us", "950"),
    (r#"{"cpu":{"realtimePeriod":1000}}"#, "cpu,cpuacct", "cpu.rt_period_us", "1000"),
    (HUGE, "hugetlb", "hugetlb.2MB.limit_in_bytes", "4194304"),
    (HUGE, "hugetlb", "hugetlb.2MB.rsvd.limit_in_bytes", "4194304"),
    (r#"{"rdma":{"mlx5_1":{"hcaHandles":3}}}"#, "rdma", "rdma.max", "mlx5_1 hca_handle=3"),
    (
        r#"{"rdma":{"mlx5_1":{"hcaHandles":3,"hcaObjects":4}}}"#,
        "rdma",
        "rdma.max",
        "mlx5_1 hca_handle=3 hca_object=4",
    ),
    (r#"{"network":{"classID":1048577}}"#, "net_cls", "net_cls.classid", "1048577"),
    (r#"{"network":{"priorities":[{"name":"lo","priority":3}]}}"#, "net_prio", "net_prio.ifpriomap", "lo 3"),
    (WEIGHT, "blkio", "blkio.bfq.weight_device", "8:16 700"),
    (r#"{"blockIO":{"throttleReadBpsDevice":[RATE]}}"#, "blkio", "blkio.throttle.read_bps_device", "8:16 9"),
    (
        r#"{"blockIO":{"throttleWriteBpsDevice":[RATE]}}"#,
        "blkio",
        "blkio.throttle.write_bps_device",
        "8:16 9",
    ),
    (
        r#"{"blockIO":{"throttleReadIOPSDevice":[RATE]}}"#,
        "blkio",
        "blkio.throttle.read_iops_device",
        "8:16 9",
    ),
    (
        r#"{"blockIO":{"throttleWriteIOPSDevice":[RATE]}}"#,
        "blkio",
        "blkio.throttle.write_iops_device",
        "8:16 9",
    ),
    (r#"{"blockIO":{"weight":300}}"#, "blkio", "blkio.bfq.weight", "300"),
    (r#"{"memory":{"swappiness":7}}"#, "memory", "memory.swappiness", "7"),
];
const HUGE: &str = r#"{"hugepageLimits":[{"pageSize":"2MB","limit":4194304}]}"#;
const WEIGHT: &str = r#"{"blockIO":{"weightDevice":[{"major":8,"minor":16,"weight":700}]}}"#;
const RATE: &str = r#"{"major":8,"minor":16,"rate":9}"#;

/// A tree that has all of those files, empty.
fn whole_tree() -> Tree {
    let names =
        ["memory", "cpu,cpuacct", "cpuset", "blkio", "devices", "hugetlb", "rdma", "net_cls", "net_prio"];
    let tree = Tree::v1(&names)
        .with_leaf("devices", &[("devices.allow", ""), ("devices.deny", "")])
        .with_leaf("cpuset", &[("cpuset.cpus", ""), ("cpuset.mems", "")]);
    with_parents(&tree);
    let files = ONE_BY_ONE.iter().filter(|(_, hierarchy, ..)| *hierarchy != "cpuset");
    files.fold(tree, |tree, (_, hierarchy, file, _)| tree.with_leaf(hierarchy, &[(file, "")]))
}

#[test]
fn each_limit_alone_is_in_its_file_after_a_create_and_after_an_update() {
    for (json, hierarchy, file, value) in ONE_BY_ONE {
        let json = json.replace("RATE", RATE);
        let tree = whole_tree();
        tree.make(&json).unwrap_or_else(|e| panic!("{json}: {e}"));
        assert_eq!(tree.leaf(hierarchy, file), value, "{json}");

        let tree = whole_tree();
        let cgroup = tree.make("{}").unwrap();
        update(&*cgroup, &json).unwrap_or_else(|e| panic!("update {json}: {e}"));
        assert_eq!(tree.leaf(hierarchy, file), value, "update {json}");
    }
}

#[test]
fn weights_of_devices_are_with_the_weight_that_the_kernel_has() {
    let tree = whole_tree().with_leaf("blkio", &[("blkio.weight", ""), ("blkio.weight_device", "")]);
    tree.make(WEIGHT).unwrap();
    assert_eq!(tree.leaf("blkio", "blkio.weight_device"), "8:16 700");
    assert_eq!(tree.leaf("blkio", "blkio.bfq.weight_device"), "");
}

#[test]
fn a_kernel_that_does_not_count_reservations_limits_huge_pages_all_the_same() {
    let tree = Tree::v1(&["hugetlb", "devices"])
        .with_leaf("devices", &[("devices.allow", ""), ("devices.deny", "")])
        .with_leaf("hugetlb", &[("hugetlb.2MB.limit_in_bytes", "")]);
    tree.make(HUGE).unwrap();
    assert_eq!(tree.leaf("hugetlb", "hugetlb.2MB.limit_in_bytes"), "4194304");
}

#[test]
fn a_limit_without_its_controller_is_refused() {
    let tree = tree();
    with_parents(&tree);
    let error = tree.make(r#"{"hugepageLimits":[{"pageSize":"2MB","limit":1}]}"#).err().unwrap();
    assert_eq!(error.kind(), Kind::Unsupported);
    assert!(error.to_string().contains("hugetlb"), "{error}");
    let error = tree.make(r#"{"unified":{"memory.high":"1"}}"#).err().unwrap();
    assert!(error.to_string().starts_with("linux.resources.unified"), "{error}");
}

#[test]
fn an_error_names_file_value_and_errno() {
    let tree = tree();
    with_parents(&tree);
    let cgroup = tree.make(r#"{"devices":[{"allow":true}]}"#).unwrap();
    let error = update(&*cgroup, r#"{"cpu":{"burst":5}}"#).unwrap_err().to_string();
    assert!(
        error.starts_with("resources.cpu: write(\"") && error.contains("cpu.cfs_burst_us\", \"5\")"),
        "{error}"
    );
    assert!(error.ends_with("no such file or directory (ENOENT)"), "{error}");
}

#[test]
fn statistics_of_what_is_there() {
    let tree = tree();
    with_parents(&tree);
    let tree = tree.with_leaf("pids", &[("pids.current", "3\n"), ("cgroup.procs", "")]);
    let cgroup = tree.make(r#"{"devices":[{"allow":true}]}"#).unwrap();
    let Stats::V1(stats) = cgroup.stats().unwrap() else { panic!("not v1") };
    assert_eq!(stats.cpu.total, 7);
    assert_eq!(stats.pids.unwrap().current, 3);
    assert!(stats.hugetlb.is_empty() && stats.rdma.is_none());
    let again = open(&Host::default(), &cgroup.record()).unwrap().unwrap();
    assert_eq!(again.directories(), cgroup.directories());
}

#[test]
fn a_hybrid_host_enters_the_unified_hierarchy_by_clone() {
    let tree = Tree::v1(&["name=systemd", ""])
        .with_leaf("name=systemd", &[("tasks", "")])
        .with_leaf("unified", &[("cgroup.procs", "")]);
    let cgroup = tree.make(r#"{"devices":[{"allow":true}]}"#).unwrap();
    let entry = cgroup.entry(None).unwrap();
    assert!(entry.into.is_some());
    assert_eq!(entry.procs.len(), 1);
}
