//! `linux.seccomp.syscalls`: names, conditions and actions, ours and runc's.

use crate::bench::rooted;
use crate::container::Bundle;
use serde_json::{json, Value};

/// An operator, its two values, and whether an argument of zero meets it.
const OPERATORS: [(&str, u64, u64, bool); 10] = [
    ("SCMP_CMP_EQ", 0, 0, true),
    ("SCMP_CMP_EQ", 1, 0, false),
    ("SCMP_CMP_NE", 0, 0, false),
    ("SCMP_CMP_GE", 0, 0, true),
    ("SCMP_CMP_GT", 0, 0, false),
    ("SCMP_CMP_LE", 0, 0, true),
    ("SCMP_CMP_LT", 0, 0, false),
    ("SCMP_CMP_LT", 1 << 33, 0, true),
    ("SCMP_CMP_MASKED_EQ", 0xff, 0, true),
    ("SCMP_CMP_MASKED_EQ", 0xff, 7, false),
];

/// Calls that do nothing with zeros: one for each operator.
const CALLS: [(&str, libc::c_long); 10] = [
    ("getpid", libc::SYS_getpid),
    ("getuid", libc::SYS_getuid),
    ("geteuid", libc::SYS_geteuid),
    ("getgid", libc::SYS_getgid),
    ("getegid", libc::SYS_getegid),
    ("getppid", libc::SYS_getppid),
    ("getpgrp", libc::SYS_getpgrp),
    ("gettid", libc::SYS_gettid),
    ("sched_yield", libc::SYS_sched_yield),
    ("getpgid", libc::SYS_getpgid),
];

/// The last argument is the highest that a rule can name.
#[test]
fn conditions_on_arguments_decide_as_with_runc() {
    if !rooted("conditions_on_arguments_decide_as_with_runc") {
        return;
    }
    let numbers: Vec<String> = CALLS.iter().map(|(_, number)| number.to_string()).collect();
    let args: Vec<&str> = ["/probe", "call"].into_iter().chain(numbers.iter().map(String::as_str)).collect();
    let rules = CALLS.iter().zip(OPERATORS).enumerate().map(|(i, ((name, _), (op, value, second, _)))| {
        let condition = json!({ "index": i % 6, "value": value, "valueTwo": second, "op": op });
        json!({ "names": [name], "action": "SCMP_ACT_ERRNO", "errnoRet": libc::EDOM, "args": [condition] })
    });
    let mut bundle = Bundle::new(&args);
    bundle.spec["linux"]["seccomp"] = json!({
        "defaultAction": "SCMP_ACT_ALLOW", "architectures": ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86"],
        "flags": ["SECCOMP_FILTER_FLAG_LOG", "SECCOMP_FILTER_FLAG_SPEC_ALLOW"], "syscalls": rules.collect::<Value>(),
    });
    for (name, report) in bundle.reports() {
        for ((call, number), (op, value, _, met)) in CALLS.iter().zip(OPERATORS) {
            let expected = if met { "EDOM" } else { "ok" };
            assert_eq!(report[number.to_string()], expected, "{name}: {call}, {op} {value}");
        }
    }
}
