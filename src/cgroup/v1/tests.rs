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
    assert!(error.starts_with("write(\"") && error.contains("cpu.cfs_burst_us\", \"5\")"), "{error}");
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
