//! `process.scheduler` and `process.ioPriority`, ours and runc's.

use crate::bench::rooted;
use crate::container::Bundle;
use crate::reports::{same, same_exec};
use serde_json::{json, Value};

/// A spec's scheduler, and what the kernel tells then.
fn cases() -> [(Value, Value); 5] {
    [
        (json!({ "policy": "SCHED_OTHER", "nice": -3 }), json!({ "policy": 0, "nice": -3, "flags": 0 })),
        (
            json!({ "policy": "SCHED_BATCH", "nice": 7, "flags": ["SCHED_FLAG_RESET_ON_FORK"] }),
            json!({ "policy": 3, "nice": 7, "flags": 1 }),
        ),
        (json!({ "policy": "SCHED_IDLE" }), json!({ "policy": 5 })),
        (json!({ "policy": "SCHED_FIFO", "priority": 4 }), json!({ "policy": 1, "priority": 4 })),
        (json!({ "policy": "SCHED_RR", "priority": 99 }), json!({ "policy": 2, "priority": 99 })),
    ]
}

/// runc's container has a cgroup of its own, where a kernel with CONFIG_RT_GROUP_SCHED wants time for it first.
fn bundle(args: &[&str], scheduler: &Value) -> Bundle {
    let mut bundle = Bundle::new(args);
    if std::path::Path::new("/sys/fs/cgroup/cpu/cpu.rt_runtime_us").exists() {
        bundle.spec["linux"]["resources"]["cpu"] =
            json!({ "realtimePeriod": 1_000_000, "realtimeRuntime": 1000 });
    }
    bundle.spec["process"]["scheduler"] = scheduler.clone();
    bundle
}

#[track_caller]
fn has(report: &Value, expected: &Value) {
    for (field, value) in expected.as_object().unwrap() {
        assert_eq!(report["schedule"][field], *value, "{field} of {}", report["schedule"]);
    }
}

#[test]
fn a_program_is_scheduled_as_with_runc() {
    if !rooted("a_program_is_scheduled_as_with_runc") {
        return;
    }
    for (scheduler, expected) in cases() {
        has(&same(&bundle(&["/probe", "report"], &scheduler)), &expected);
        if !scheduler["flags"].is_null() {
            continue;
        }
        let container = bundle(&["/probe", "sleep"], &Value::Null);
        let mut process = container.spec["process"].clone();
        process["args"] = json!(["/probe", "report"]);
        process["scheduler"] = scheduler;
        has(&same_exec(&container, &process), &expected);
    }
}

/// An exec may not: such a process cannot fork, and an exec is born of one that has the policy.
#[test]
fn a_program_may_have_a_deadline_as_with_runc() {
    if !rooted("a_program_may_have_a_deadline_as_with_runc") {
        return;
    }
    let wanted = json!({
        "policy": "SCHED_DEADLINE", "runtime": 2_000_000, "deadline": 30_000_000, "period": 40_000_000,
    });
    let mut bundle = Bundle::new(&["/probe", "report"]);
    bundle.spec["process"]["scheduler"] = wanted;
    let expected = json!({ "policy": 6, "runtime": 2_000_000, "deadline": 30_000_000, "period": 40_000_000 });
    has(&same(&bundle), &expected);
}

#[test]
fn a_flag_that_a_birth_would_lose_is_refused_and_not_inherited() {
    if !rooted("a_flag_that_a_birth_would_lose_is_refused_and_not_inherited") {
        return;
    }
    let resets = json!({ "policy": "SCHED_RR", "priority": 3, "flags": ["SCHED_FLAG_RESET_ON_FORK"] });
    let container = bundle(&["/probe", "sleep"], &resets);
    let mut process = container.spec["process"].clone();
    process["args"] = json!(["/probe", "report"]);
    let error = container.exec_plan(&process).expect_err("refused").to_string();
    assert!(error.starts_with("process.scheduler.flags: SCHED_FLAG_RESET_ON_FORK in a pid"), "{error}");
    process["scheduler"] = Value::Null;
    assert!(container.exec_plan(&process).unwrap().warnings.iter().any(|w| w.starts_with("scheduler.flags")));
    has(&container.exec_report(&process), &json!({ "policy": 2, "priority": 3, "flags": 0 }));
    // In the host's, an exec is not born last.
    let mut container = container;
    let namespaces = container.spec["linux"]["namespaces"].as_array_mut().unwrap();
    namespaces.retain(|namespace| namespace["type"] != "pid");
    process["scheduler"] = resets;
    has(&container.exec_report(&process), &json!({ "policy": 2, "priority": 3, "flags": 1 }));
}

#[test]
fn a_program_reads_and_writes_with_its_priority_as_with_runc() {
    if !rooted("a_program_reads_and_writes_with_its_priority_as_with_runc") {
        return;
    }
    for (class, priority, told) in [
        ("IOPRIO_CLASS_RT", 3, 1 << 13 | 3),
        ("IOPRIO_CLASS_BE", 0, 2 << 13),
        ("IOPRIO_CLASS_IDLE", 0, 3 << 13),
    ] {
        let wanted = json!({ "class": class, "priority": priority });
        let mut bundle = Bundle::new(&["/probe", "report"]);
        bundle.spec["process"]["ioPriority"] = wanted.clone();
        has(&same(&bundle), &json!({ "io": told }));
        let container = Bundle::new(&["/probe", "sleep"]);
        let mut process = container.spec["process"].clone();
        process["args"] = json!(["/probe", "report"]);
        process["ioPriority"] = wanted;
        has(&same_exec(&container, &process), &json!({ "io": told }));
    }
}
