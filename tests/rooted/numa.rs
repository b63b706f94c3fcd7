//! `linux.memoryPolicy`: the kernel's view of a process's memory.

use crate::bench::rooted;
use crate::container::Bundle;
use serde_json::{json, Value};

fn process() -> Value {
    json!({ "args": ["/probe", "report"], "cwd": "/", "env": ["PATH=/"], "user": {} })
}

#[test]
fn memory_comes_from_where_the_policy_says() {
    if !rooted("memory_comes_from_where_the_policy_says") {
        return;
    }
    if !std::path::Path::new("/proc/self/numa_maps").exists() {
        return testbed::skip::other_machine("a kernel without NUMA");
    }
    let cases = [
        (Value::Null, "default"),
        (json!({ "mode": "MPOL_DEFAULT", "nodes": "" }), "default"),
        (json!({ "mode": "MPOL_BIND", "nodes": "0" }), "bind:0"),
        (json!({ "mode": "MPOL_BIND", "nodes": "0", "flags": ["MPOL_F_STATIC_NODES"] }), "bind=static:0"),
        (json!({ "mode": "MPOL_PREFERRED", "nodes": "0" }), "prefer:0"),
        (json!({ "mode": "MPOL_PREFERRED" }), "local"),
        (json!({ "mode": "MPOL_INTERLEAVE", "nodes": "0" }), "interleave:0"),
        (json!({ "mode": "MPOL_LOCAL" }), "local"),
    ];
    for make in [Bundle::new, crate::users::bundle] {
        for (policy, expected) in &cases {
            let with = |args: &[&str]| {
                let mut bundle = make(args);
                bundle.spec["linux"]["memoryPolicy"] = policy.clone();
                bundle
            };
            assert_eq!(with(&["/probe", "report"]).report()["memory_policy"], *expected, "{policy}");
            let report = with(&["/probe", "sleep"]).exec_report(&process());
            assert_eq!(report["memory_policy"], *expected, "an exec, {policy}");
        }
    }
}

#[test]
fn a_policy_that_the_kernel_refuses_is_told_by_its_field() {
    if !rooted("a_policy_that_the_kernel_refuses_is_told_by_its_field") {
        return;
    }
    let mut bundle = Bundle::new(&["/probe", "report"]);
    bundle.spec["linux"]["memoryPolicy"] = json!({
        "mode": "MPOL_BIND", "nodes": "0", "flags": ["MPOL_F_STATIC_NODES", "MPOL_F_RELATIVE_NODES"],
    });
    let error = bundle.create().err().expect("refused").to_string();
    assert!(error.starts_with("linux.memoryPolicy: step "), "{error}");
    assert!(error.ends_with("invalid argument (EINVAL)"), "{error}");
}
