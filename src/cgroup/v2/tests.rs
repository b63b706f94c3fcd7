use crate::cgroup::fake::{update, Tree};
use crate::cgroup::Stats;
use crate::error::Kind;
use crate::tasks::block_on;

/// Needs no device program: the files are not the kernel's.
const OPEN: &str = r#""devices":[{"allow":true}]"#;

fn tree() -> Tree {
    let files =
        ["memory.max", "memory.low", "memory.swap.max", "cpu.weight", "cpu.idle", "pids.max", "io.max"];
    let files: Vec<(&str, &str)> = files.iter().map(|file| (*file, "")).collect();
    Tree::v2().with_leaf("unified", &files).with_leaf("unified", &[("cpu.max", ""), ("io.weight", "")])
}

#[test]
fn each_limit_is_in_its_file() {
    let tree = tree();
    let json = r#"{"memory":{"limit":1000,"swap":1500,"reservation":500,"swappiness":60},
        "cpu":{"shares":1024,"quota":-1,"period":5000},"pids":{"limit":-1},
        "blockIO":{"weight":500,"throttleWriteIOPSDevice":[{"major":8,"minor":0,"rate":0}]},"#;
    tree.make(&format!("{json}{OPEN}}}")).unwrap();
    for (file, value) in [
        ("memory.max", "1000"),
        ("memory.swap.max", "500"),
        ("memory.low", "500"),
        ("cpu.weight", "100"),
        ("cpu.max", "max 5000"),
        ("pids.max", "max"),
        ("io.weight", "4950"),
        ("io.max", "8:0 wiops=max"),
        ("cpu.idle", ""),
    ] {
        assert_eq!(tree.leaf("unified", file), value, "{file}");
    }
}

/// Resources, and the file that they are written to, with its contents afterwards.
const ONE_BY_ONE: [(&str, &str, &str); 14] = [
    (r#""cpu":{"cpus":"1-2"}"#, "cpuset.cpus", "1-2"),
    (r#""cpu":{"mems":"1"}"#, "cpuset.mems", "1"),
    (r#""cpu":{"burst":5000}"#, "cpu.max.burst", "5000"),
    (r#""cpu":{"idle":0}"#, "cpu.idle", "0"),
    (HUGE, "hugetlb.2MB.max", "4194304"),
    (HUGE, "hugetlb.2MB.rsvd.max", "4194304"),
    (r#""rdma":{"mlx5_1":{"hcaHandles":3,"hcaObjects":4}}"#, "rdma.max", "mlx5_1 hca_handle=3 hca_object=4"),
    (r#""blockIO":{"throttleReadBpsDevice":[RATE]}"#, "io.max", "8:16 rbps=9"),
    (r#""blockIO":{"throttleWriteBpsDevice":[RATE]}"#, "io.max", "8:16 wbps=9"),
    (r#""blockIO":{"throttleReadIOPSDevice":[RATE]}"#, "io.max", "8:16 riops=9"),
    (r#""blockIO":{"throttleWriteIOPSDevice":[RATE]}"#, "io.max", "8:16 wiops=9"),
    (WEIGHT, "io.weight", "8:16 4950"),
    (r#""pids":{"limit":7}"#, "pids.max", "7"),
    (r#""unified":{"memory.low":"max"}"#, "memory.low", "max"),
];
const HUGE: &str = r#""hugepageLimits":[{"pageSize":"2MB","limit":4194304}]"#;
const WEIGHT: &str = r#""blockIO":{"weightDevice":[{"major":8,"minor":16,"weight":500}]}"#;
const RATE: &str = r#"{"major":8,"minor":16,"rate":9}"#;

/// A tree that has all of those files, empty.
fn whole_tree() -> Tree {
    ONE_BY_ONE.iter().fold(Tree::v2(), |tree, (_, file, _)| tree.with_leaf("unified", &[(file, "")]))
}

#[test]
fn each_limit_alone_is_in_its_file_after_a_create_and_after_an_update() {
    for (json, file, value) in ONE_BY_ONE {
        let json = json.replace("RATE", RATE);
        let tree = whole_tree();
        tree.make(&format!("{{{json},{OPEN}}}")).unwrap_or_else(|e| panic!("{json}: {e}"));
        assert_eq!(tree.leaf("unified", file), value, "{json}");

        let tree = whole_tree();
        let cgroup = tree.make(&format!("{{{OPEN}}}")).unwrap();
        update(&*cgroup, &format!("{{{json}}}")).unwrap_or_else(|e| panic!("update {json}: {e}"));
        assert_eq!(tree.leaf("unified", file), value, "update {json}");
    }
}

#[test]
fn weights_of_devices_are_with_the_weight_that_the_kernel_has() {
    let tree = whole_tree().with_leaf("unified", &[("io.bfq.weight", "")]);
    tree.make(&format!("{{{WEIGHT},{OPEN}}}")).unwrap();
    assert_eq!(tree.leaf("unified", "io.bfq.weight"), "8:16 500");
    assert_eq!(tree.leaf("unified", "io.weight"), "");
}

/// As in the other runtimes, limits for which v2 has no file are ignored, not refused.
#[test]
fn what_only_v1_has_is_left_out() {
    let tree = whole_tree();
    let json = r#""cpu":{"realtimeRuntime":950,"realtimePeriod":1000},"memory":{"swappiness":7},
        "network":{"classID":1048577,"priorities":[{"name":"lo","priority":3}]}"#;
    tree.make(&format!("{{{json},{OPEN}}}")).unwrap();
    for (_, file, _) in ONE_BY_ONE {
        assert_eq!(tree.leaf("unified", file), "", "{file}");
    }
}

#[test]
fn an_idle_cgroup_gets_no_weight() {
    let tree = tree();
    tree.make(&format!(r#"{{"cpu":{{"shares":1024,"idle":1}},{OPEN}}}"#)).unwrap();
    assert_eq!(tree.leaf("unified", "cpu.idle"), "1");
    assert_eq!(tree.leaf("unified", "cpu.weight"), "");
}

#[test]
fn a_new_period_keeps_the_quota() {
    let tree = tree().with_leaf("unified", &[("cpu.max", "7000 9999\n")]);
    let cgroup = tree.make(&format!("{{{OPEN}}}")).unwrap();
    update(&*cgroup, r#"{"cpu":{"period":50000}}"#).unwrap();
    assert_eq!(tree.leaf("unified", "cpu.max"), "7000 50000");
}

#[test]
fn swap_follows_a_new_limit_on_memory() {
    let tree = tree();
    let cgroup = tree.make(&format!(r#"{{"memory":{{"limit":1000,"swap":1500}},{OPEN}}}"#)).unwrap();
    update(&*cgroup, r#"{"memory":{"limit":1200}}"#).unwrap();
    assert_eq!(tree.leaf("unified", "memory.max"), "1200");
    assert_eq!(tree.leaf("unified", "memory.swap.max"), "300");
    update(&*cgroup, r#"{"memory":{"swap":2000}}"#).unwrap();
    assert_eq!(tree.leaf("unified", "memory.swap.max"), "800");
    let error = update(&*cgroup, r#"{"memory":{"limit":9999}}"#).unwrap_err();
    assert_eq!(error.kind(), Kind::Invalid);
    assert!(error.to_string().starts_with("resources.memory.swap: 2000 is memory and swap"), "{error}");
    assert_eq!(tree.leaf("unified", "memory.max"), "1200", "nothing was changed");
}

#[test]
fn unified_files_are_written_last() {
    let tree = tree();
    let json = r#"{"memory":{"limit":1000},"unified":{"memory.max":"max "},"#;
    tree.make(&format!("{json}{OPEN}}}")).unwrap();
    assert_eq!(tree.leaf("unified", "memory.max"), "max ");
    let error = tree.make(&format!(r#"{{"unified":{{"misc.max":"x"}},{OPEN}}}"#)).err().unwrap();
    assert_eq!(error.kind(), Kind::Unsupported);
    let text = error.to_string();
    assert!(
        text.starts_with("linux.resources.unified[\"misc.max\"]: the cgroup has no misc controller"),
        "{text}"
    );
}

#[test]
fn controllers_that_are_missing_are_passed_down() {
    let tree = tree().with_leaf("unified", &[("cgroup.controllers", "cpu")]);
    tree.make(&format!("{{{OPEN}}}")).unwrap();
    assert_eq!(tree.read("unified/cgroup.subtree_control"), "+memory +pids");
    assert_eq!(tree.read("unified/default/cgroup.subtree_control"), "+memory +pids");
}

#[test]
fn files_that_are_still_being_made_are_waited_for() {
    let tree = Tree::v2();
    tree.make(&format!("{{{OPEN}}}")).unwrap();
    assert_eq!(tree.read("unified/default/cgroup.subtree_control"), "+pids");
}

#[test]
fn a_frozen_or_a_busy_one_is_refused() {
    // The latter is what a cgroup below a frozen one reports.
    for state in [
        [("cgroup.freeze", "1\n"), ("cgroup.events", "")],
        [("cgroup.freeze", "0\n"), ("cgroup.events", "frozen 1\n")],
    ] {
        let frozen = tree().with_leaf("unified", &state);
        assert_eq!(frozen.make("{}").err().unwrap().kind(), Kind::State, "{state:?}");
    }
    let busy = tree().with_leaf("unified", &[("cgroup.procs", "1\n2\n")]);
    let error = busy.make("{}").err().unwrap().to_string();
    assert!(error.contains("is in use: 2 processes"), "{error}");
}

#[test]
fn statistics_come_from_the_files() {
    let tree = tree()
        .with_leaf("unified", &[("memory.stat", "anon 4096\npgfault 12\nslab 3\nnew_one 9\n")])
        .with_leaf(
            "unified",
            &[("cpu.stat", "usage_usec 10\nnr_bursts 2\n"), ("memory.events", "oom_kill 1\n")],
        )
        .with_leaf("unified", &[("hugetlb.2MB.max", "max\n"), ("hugetlb.2MB.events", "max 5\n")])
        .with_leaf("unified", &[("hugetlb.2MB.rsvd.max", "max\n"), ("pids.current", "4\n")]);
    let cgroup = tree.make(&format!("{{{OPEN}}}")).unwrap();
    let Stats::V2(stats) = cgroup.stats().unwrap() else { panic!("not v2") };
    assert_eq!((stats.memory.stat.anon, stats.memory.stat.pgfault), (4096, 12));
    assert_eq!((stats.cpu.usage_usec, stats.cpu.nr_bursts), (10, 2));
    assert_eq!(stats.memory_events.unwrap().oom_kill, 1);
    assert_eq!(stats.hugetlb.len(), 1);
    assert_eq!((stats.hugetlb[0].max, stats.hugetlb[0].failures), (u64::MAX, 5));
    assert_eq!(stats.pids.current, 4);
    assert!(stats.cpu_pressure.is_none());
}

#[test]
fn a_freeze_that_fails_leaves_nothing_frozen() {
    let tree = tree().with_leaf("unified", &[("cgroup.freeze", "0")]);
    let cgroup = tree.make(&format!("{{{OPEN}}}")).unwrap();
    // A directory can be opened, but not read.
    let tree = tree.with_leaf("unified", &[("cgroup.events/x", "")]);
    assert_eq!(block_on(cgroup.freeze()).unwrap_err().errno(), Some(libc::EISDIR));
    assert_eq!(tree.leaf("unified", "cgroup.freeze"), "0");
}

#[test]
fn a_freeze_ends_when_another_thaws() {
    let tree = tree().with_leaf("unified", &[("cgroup.events", "frozen 0\n"), ("cgroup.freeze", "0")]);
    let cgroup = tree.make(&format!("{{{OPEN}}}")).unwrap();
    std::thread::scope(|scope| {
        let freezing = scope.spawn(|| block_on(cgroup.freeze()));
        while tree.leaf("unified", "cgroup.freeze") != "1" {
            std::thread::yield_now();
        }
        cgroup.thaw().unwrap();
        assert_eq!(freezing.join().unwrap().unwrap_err().kind(), Kind::State);
    });
}
