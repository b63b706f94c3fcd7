//! Runs compiled profiles: in a child under the real filter, and in a small interpreter for other architectures.

mod equivalence;
mod key;
mod verdict;

use super::*;
use crate::spec::seccomp::Seccomp;
use crate::sys::seccomp::trial::{run, Call, Door, Outcome};
use crate::sys::seccomp::{
    knows, SockFilter, FLAG_LOG, FLAG_NEW_LISTENER, FLAG_SPEC_ALLOW, FLAG_WAIT_KILLABLE_RECV,
};
use serde_json::{json, Value};

const X86_64: u32 = 0xc000_003e;
const I386: u32 = 0x4000_0003;
const AARCH64: u32 = 0xc000_00b7;
const X32_BIT: u32 = 0x4000_0000;

const ALLOW: u32 = 0x7fff_0000;
const KILL_THREAD: u32 = 0;
const fn errno(errno: i32) -> u32 {
    0x0005_0000 | errno as u32
}

fn compiled(profile: Value) -> Compiled {
    compile(&Seccomp::check(&serde_json::from_value(profile).unwrap()).unwrap()).unwrap()
}

fn call(number: i64, arguments: &[u64]) -> Call {
    let mut six = [0; 6];
    six[..arguments.len()].copy_from_slice(arguments);
    Call { door: Door::Native, number, arguments: six }
}

/// Interprets classic BPF as the kernel does, as far as seccomp programs need it.
fn simulate(program: &[SockFilter], arch: u32, number: u32, arguments: [u64; 6]) -> u32 {
    let mut data = [0u32; 16];
    (data[0], data[1]) = (number, arch);
    for (i, argument) in arguments.iter().enumerate() {
        (data[4 + 2 * i], data[5 + 2 * i]) = (*argument as u32, (*argument >> 32) as u32);
    }
    let (mut at, mut a) = (0, 0u32);
    loop {
        let SockFilter { code, jt, jf, k } = program[at];
        at += 1;
        let jump = |condition: bool| usize::from(if condition { jt } else { jf });
        match code {
            0x20 => a = data[k as usize / 4],
            0x05 => at += k as usize,
            0x15 => at += jump(a == k),
            0x25 => at += jump(a > k),
            0x35 => at += jump(a >= k),
            0x45 => at += jump(a & k != 0),
            0x54 => a &= k,
            0x06 => return k,
            other => panic!("instruction {other:#x}"),
        }
    }
}

/// An allow list: every call that libseccomp knows here up to statx(2), except reboot(2), unshare(2), personality(2)
/// and clone(2).
fn allow_list(extra: Value, architectures: Value) -> Value {
    let names: Vec<String> = (0..=libc::SYS_statx as i32)
        .filter_map(|number| libseccomp::ScmpSyscall::from(number).get_name().ok())
        .filter(|name| !["reboot", "unshare", "personality", "clone"].contains(&name.as_str()))
        .collect();
    assert!(names.len() > 250);
    let mut syscalls = vec![json!({"names": names, "action": "SCMP_ACT_ALLOW"})];
    syscalls.extend(extra.as_array().unwrap().clone());
    json!({"defaultAction": "SCMP_ACT_ERRNO", "architectures": architectures, "syscalls": syscalls})
}

#[test]
fn allowed_passes_denied_gets_eperm_and_newer_enosys() {
    let compiled = compiled(allow_list(json!([]), json!(["SCMP_ARCH_X86_64"])));
    assert!(compiled.warnings.is_empty());
    let newest = libc::SYS_statx;
    let calls = [
        call(libc::SYS_getppid, &[]),
        call(libc::SYS_unshare, &[0]),
        call(newest, &[u64::MAX, 0, 0, 0, 0]),
        call(newest + 100, &[]),
        call(100_000, &[]),
    ];
    let Outcome::Returned(results) = run(Some(&compiled.filter), &calls) else { panic!() };
    assert_eq!(results[0], i64::from(std::process::id()));
    assert_eq!(results[1], -i64::from(libc::EPERM));
    // statx(2) was made, and rejected its arguments.
    assert!(![libc::EPERM, libc::ENOSYS].contains(&-(results[2] as i32)), "{results:?}");
    assert_eq!(results[3], -i64::from(libc::ENOSYS));
    assert_eq!(results[4], -i64::from(libc::ENOSYS));
    // Without the filter the kernel knows the call that is only 100 newer.
    let Outcome::Returned(results) = run(None, &calls[3..4]) else { panic!() };
    assert_ne!(results[0], -i64::from(libc::ENOSYS));
}

#[test]
fn arguments_are_compared() {
    let rule = |name: &str, args: Value| json!({"names": [name], "action": "SCMP_ACT_ALLOW", "args": args});
    let arg = |index: usize, op: &str, value: u64, second: u64| json!({"index": index, "op": op, "value": value, "valueTwo": second});
    let personality = 0xffff_ffffu64;
    let compiled = compiled(allow_list(
        json!([
            rule("personality", json!([arg(0, "SCMP_CMP_EQ", personality, 0)])),
            // No new namespaces, in docker's form: the masked flags must be 0.
            rule("unshare", json!([arg(0, "SCMP_CMP_MASKED_EQ", 0x7e02_0000, 0)])),
        ]),
        json!([]),
    ));
    let calls = [
        call(libc::SYS_personality, &[personality]),
        call(libc::SYS_personality, &[8]),
        call(libc::SYS_unshare, &[libc::CLONE_FILES as u64]),
        call(libc::SYS_unshare, &[libc::CLONE_NEWNS as u64]),
    ];
    let Outcome::Returned(results) = run(Some(&compiled.filter), &calls) else { panic!() };
    let eperm = -i64::from(libc::EPERM);
    assert_eq!(results, [0, eperm, 0, eperm]);
}

#[test]
fn two_conditions_on_one_argument_are_alternatives_and_on_two_both_must_hold() {
    let arg = |index: usize, value: u64| json!({"index": index, "op": "SCMP_CMP_EQ", "value": value});
    let rule = |args: Value| json!([{"names": ["personality"], "action": "SCMP_ACT_ALLOW", "args": args}]);
    let number = libc::SYS_personality as u32;
    let verdict =
        |compiled: &Compiled, a, b| simulate(&compiled.filter.program, X86_64, number, [a, b, 0, 0, 0, 0]);
    let alternatives = compiled(allow_list(rule(json!([arg(0, 3), arg(0, 4), arg(1, 5)])), json!([])));
    let eperm = errno(libc::EPERM);
    for (a, b, expected) in [(3, 0, ALLOW), (4, 0, ALLOW), (9, 5, ALLOW), (9, 9, eperm)] {
        assert_eq!(verdict(&alternatives, a, b), expected, "{a} {b}");
    }
    let both = compiled(allow_list(rule(json!([arg(0, 3), arg(1, 5)])), json!([])));
    for (a, b, expected) in [(3, 5, ALLOW), (3, 0, eperm), (9, 5, eperm)] {
        assert_eq!(verdict(&both, a, b), expected, "{a} {b}");
    }
}

#[test]
fn every_operator_compares_64_bits() {
    let big = 1u64 << 40;
    for (op, second, yes, no) in [
        ("SCMP_CMP_NE", 0, big + 1, big),
        ("SCMP_CMP_LT", 0, 5, big),
        ("SCMP_CMP_LE", 0, big, big + 1),
        ("SCMP_CMP_EQ", 0, big, 0),
        ("SCMP_CMP_GE", 0, big, 7),
        ("SCMP_CMP_GT", 0, big + 1, big),
        ("SCMP_CMP_MASKED_EQ", big, big | 1, 1),
    ] {
        let args = json!([{"index": 2, "op": op, "value": big, "valueTwo": second}]);
        let compiled = compiled(json!({"defaultAction": "SCMP_ACT_KILL_PROCESS", "syscalls": [
            {"names": ["read"], "action": "SCMP_ACT_ALLOW", "args": args}]}));
        let verdict = |value| simulate(&compiled.filter.program, X86_64, 0, [0, 0, value, 0, 0, 0]);
        assert_eq!(verdict(yes), ALLOW, "{op}");
        assert_eq!(verdict(no), 0x8000_0000, "{op}");
    }
}

#[test]
fn actions_and_their_values() {
    let compiled = compiled(json!({
    "defaultAction": "SCMP_ACT_ALLOW",
    "flags": ["SECCOMP_FILTER_FLAG_LOG", "SECCOMP_FILTER_FLAG_SPEC_ALLOW"],
    "syscalls": [
        {"names": ["getppid"], "action": "SCMP_ACT_ERRNO"},
        {"names": ["getuid"], "action": "SCMP_ACT_ERRNO", "errnoRet": 77},
        {"names": ["getgid"], "action": "SCMP_ACT_ERRNO", "errnoRet": 0},
        {"names": ["getsid"], "action": "SCMP_ACT_KILL_PROCESS"},
        {"names": ["geteuid"], "action": "SCMP_ACT_TRACE", "errnoRet": 9},
        {"names": ["getegid"], "action": "SCMP_ACT_TRAP"},
        {"names": ["getpid"], "action": "SCMP_ACT_LOG"},
        {"names": ["getpgrp"], "action": "SCMP_ACT_ALLOW"}
    ]}));
    assert_eq!(compiled.filter.flags, FLAG_LOG | FLAG_SPEC_ALLOW);
    let calls = [libc::SYS_getppid, libc::SYS_getuid, libc::SYS_getgid].map(|number| call(number, &[]));
    let Outcome::Returned(results) = run(Some(&compiled.filter), &calls) else { panic!() };
    assert_eq!(results, [-i64::from(libc::EPERM), -77, 0]);
    assert_eq!(run(Some(&compiled.filter), &[call(libc::SYS_getsid, &[0])]), Outcome::Killed(libc::SIGSYS));
    let verdict = |number: i64| simulate(&compiled.filter.program, X86_64, number as u32, [0; 6]);
    assert_eq!(verdict(libc::SYS_geteuid), 0x7ff0_0009);
    assert_eq!(verdict(libc::SYS_getegid), 0x0003_0000);
    assert_eq!(verdict(libc::SYS_getpid), 0x7ffc_0000);
    assert_eq!(verdict(libc::SYS_getpgrp), ALLOW);
}

#[test]
fn what_is_left_to_an_agent_is_so_by_table_and_by_rule() {
    let argument = json!([{"index": 0, "op": "SCMP_CMP_EQ", "value": 7}]);
    let profile = |flags: Value| {
        json!({"defaultAction": "SCMP_ACT_ALLOW", "listenerPath": "/agent", "flags": flags, "syscalls": [
            {"names": ["mkdir"], "action": "SCMP_ACT_NOTIFY"},
            {"names": ["personality"], "action": "SCMP_ACT_NOTIFY", "args": argument}]})
    };
    let compiled = |flags: Value| compiled(profile(flags)).filter;
    let filter = compiled(json!([]));
    let verdict =
        |number: i64, first| simulate(&filter.program, X86_64, number as u32, [first, 0, 0, 0, 0, 0]);
    let left = 0x7fc0_0000;
    assert_eq!(verdict(libc::SYS_mkdir, 0), left);
    assert_eq!([7, 8].map(|first| verdict(libc::SYS_personality, first)), [left, ALLOW]);
    assert!(filter.listens() && filter.flags == FLAG_NEW_LISTENER);
    let killable = compiled(json!(["SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV"]));
    assert_eq!(killable.flags, FLAG_NEW_LISTENER | FLAG_WAIT_KILLABLE_RECV);
    assert!([FLAG_LOG, FLAG_SPEC_ALLOW, FLAG_NEW_LISTENER].into_iter().all(knows) && !knows(1 << 30));
}

#[test]
fn a_32_bit_call_follows_the_rules_of_its_architecture() {
    // getppid is 64 on i386 and 110 on x86_64.
    let profile = |architectures: Value| {
        compiled(json!({"defaultAction": "SCMP_ACT_ERRNO", "architectures": architectures, "syscalls": [
            {"names": ["getppid", "getuid32"], "action": "SCMP_ACT_ALLOW"}]}))
    };
    let with = profile(json!(["SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32"]));
    let program = &with.filter.program;
    assert_eq!(simulate(program, I386, 64, [0; 6]), ALLOW);
    assert_eq!(simulate(program, I386, 110, [0; 6]), errno(libc::EPERM));
    // getuid32 (199) is the highest on i386, and x86_64 has no call of that name.
    assert_eq!(simulate(program, I386, 199, [0; 6]), ALLOW);
    assert_eq!(simulate(program, I386, 200, [0; 6]), errno(libc::ENOSYS));
    assert_eq!(simulate(program, X86_64, 110, [0; 6]), ALLOW);
    assert_eq!(simulate(program, X86_64, 111, [0; 6]), errno(libc::ENOSYS));
    assert_eq!(simulate(program, X86_64, X32_BIT + 110, [0; 6]), ALLOW);
    assert_eq!(simulate(program, X86_64, X32_BIT + 109, [0; 6]), errno(libc::EPERM));
    assert_eq!(simulate(program, X86_64, X32_BIT + 111, [0; 6]), errno(libc::ENOSYS));
    assert_eq!(simulate(program, AARCH64, 110, [0; 6]), KILL_THREAD);

    let without = profile(json!(["SCMP_ARCH_X86_64"]));
    assert_eq!(simulate(&without.filter.program, I386, 64, [0; 6]), KILL_THREAD);
    assert_eq!(simulate(&without.filter.program, X86_64, X32_BIT + 110, [0; 6]), KILL_THREAD);

    // The same on the kernel, if it runs 32-bit programs.
    let old = Call { door: Door::I386, number: 64, arguments: [0; 6] };
    let parent = i64::from(std::process::id());
    match run(None, &[old]) {
        Outcome::Returned(results) if results == [parent] => {
            assert_eq!(run(Some(&with.filter), &[old]), Outcome::Returned(vec![parent]));
            assert_eq!(run(Some(&without.filter), &[old]), Outcome::Killed(libc::SIGSYS));
        }
        other => println!("this kernel has no 32-bit calls ({other:?}): simulated only"),
    }
}

#[test]
fn a_profile_for_arm_has_its_numbers() {
    let compiled = compiled(json!({"defaultAction": "SCMP_ACT_ERRNO",
        "architectures": ["SCMP_ARCH_AARCH64", "SCMP_ARCH_ARM"],
        "syscalls": [{"names": ["openat"], "action": "SCMP_ACT_ALLOW"}]}));
    let verdict = |arch, number| simulate(&compiled.filter.program, arch, number, [0; 6]);
    assert_eq!(verdict(AARCH64, 56), ALLOW);
    assert_eq!(verdict(AARCH64, 57), errno(libc::ENOSYS));
    assert_eq!(verdict(0x4000_0028, 322), ALLOW);
    assert_eq!(verdict(0x4000_0028, 321), errno(libc::EPERM));
    assert_eq!(verdict(X86_64, 257), ALLOW);
}

#[test]
fn the_stub_is_only_where_the_default_denies() {
    let newer = |default: Value| {
        let mut profile = default;
        profile["syscalls"] = json!([{"names": ["write"], "action": "SCMP_ACT_KILL"}]);
        simulate(&compiled(profile).filter.program, X86_64, 5000, [0; 6])
    };
    for (default, expected) in [
        (json!({"defaultAction": "SCMP_ACT_ALLOW"}), ALLOW),
        (json!({"defaultAction": "SCMP_ACT_LOG"}), 0x7ffc_0000),
        (json!({"defaultAction": "SCMP_ACT_TRACE"}), 0x7ff0_0001),
        (json!({"defaultAction": "SCMP_ACT_ERRNO", "defaultErrnoRet": 38}), errno(38)),
        (json!({"defaultAction": "SCMP_ACT_ERRNO", "defaultErrnoRet": 5}), errno(libc::ENOSYS)),
        (json!({"defaultAction": "SCMP_ACT_KILL_PROCESS"}), errno(libc::ENOSYS)),
        (json!({"defaultAction": "SCMP_ACT_TRAP"}), errno(libc::ENOSYS)),
    ] {
        assert_eq!(newer(default.clone()), expected, "{default}");
    }
}

#[test]
fn unknown_calls_are_ignored_with_a_warning() {
    let compiled = compiled(json!({"defaultAction": "SCMP_ACT_ERRNO", "syscalls": [
        {"names": ["read", "no_such_call", "another"], "action": "SCMP_ACT_ALLOW"}]}));
    assert_eq!(compiled.warnings, ["linux.seccomp.syscalls: unknown calls ignored: another, no_such_call"]);
    assert_eq!(simulate(&compiled.filter.program, X86_64, 0, [0; 6]), ALLOW);
}

#[test]
fn rules_that_change_nothing_or_repeat_are_no_error() {
    let compiled = compiled(json!({"defaultAction": "SCMP_ACT_ERRNO", "syscalls": [
        {"names": ["write"], "action": "SCMP_ACT_ERRNO"},
        {"names": ["read", "read"], "action": "SCMP_ACT_ALLOW"},
        {"names": ["read"], "action": "SCMP_ACT_ALLOW"}]}));
    assert_eq!(simulate(&compiled.filter.program, X86_64, 0, [0; 6]), ALLOW);
    assert_eq!(simulate(&compiled.filter.program, X86_64, 1, [0; 6]), errno(libc::EPERM));
}

#[test]
fn an_architecture_that_cannot_be_is_named() {
    let profile = json!({"defaultAction": "SCMP_ACT_ERRNO", "architectures": ["SCMP_ARCH_S390X"]});
    let seccomp = Seccomp::check(&serde_json::from_value(profile).unwrap()).unwrap();
    let error = compile(&seccomp).unwrap_err();
    assert!(error.to_string().contains("linux.seccomp.architectures (S390X)"), "{error}");
}

#[test]
fn a_call_that_libseccomp_is_too_old_for_can_be_allowed() {
    let compiled = compiled(json!({"defaultAction": "SCMP_ACT_ERRNO",
        "architectures": ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32"],
        "syscalls": [
            {"names": ["read", "file_setattr"], "action": "SCMP_ACT_ALLOW"},
            {"names": ["listns"], "action": "SCMP_ACT_ALLOW",
                "args": [{"index": 0, "value": 0, "op": "SCMP_CMP_EQ"}]}]}));
    let verdict = |arch, number| simulate(&compiled.filter.program, arch, number, [0; 6]);
    for (arch, bit) in [(X86_64, 0), (I386, 0), (X86_64, X32_BIT)] {
        assert_eq!(verdict(arch, bit + 469), ALLOW);
        assert_eq!(verdict(arch, bit + 468), errno(libc::EPERM));
        assert_eq!(verdict(arch, bit + 471), errno(libc::ENOSYS));
    }
    // If libseccomp knows listns(2) it compiles the rule, and nothing is ignored.
    let known = libseccomp::ScmpSyscall::from_name("listns").is_ok();
    let ignored = "linux.seccomp.syscalls: unknown calls ignored: listns".to_owned();
    assert_eq!(compiled.warnings, if known { vec![] } else { vec![ignored] });
}
