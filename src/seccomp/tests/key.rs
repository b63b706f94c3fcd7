//! The key allows the calls that it is for, and nothing else does.

use super::*;
use crate::seccomp::verdict::{verdict, Verdict};
use crate::seccomp::{unlocked, wanted};
use crate::sys::seccomp::{Filter, MAX_LENGTH};

const KEY: u64 = 0x0123_4567_89ab_cdef;
const EPERM: i64 = -(libc::EPERM as i64);

/// Refuses everything that the tests call except getpid(2).
fn strict() -> Filter {
    compiled(json!({"defaultAction": "SCMP_ACT_ERRNO", "defaultErrnoRet": 1, "syscalls": [
        {"names": ["getpid", "statx"], "action": "SCMP_ACT_ALLOW"}]}))
    .filter
}

fn with_key(number: i64, key: u64) -> Call {
    call(number, &[0, 0, 0, 0, 0, key])
}

#[test]
fn what_is_refused_is_allowed_with_the_key_and_only_with_it() {
    let calls = [libc::SYS_getppid, libc::SYS_setsid, libc::SYS_read];
    let filter = unlocked(&strict(), KEY, &calls).unwrap();
    let attempts = [
        with_key(libc::SYS_getppid, KEY),
        with_key(libc::SYS_setsid, 0),
        with_key(libc::SYS_getppid, 0),
        with_key(libc::SYS_getppid, KEY ^ 1),
        with_key(libc::SYS_getppid, KEY ^ (1 << 63)),
        with_key(libc::SYS_getppid, KEY & 0xffff_ffff),
        with_key(libc::SYS_getppid, KEY.rotate_left(32)),
        // The key in the wrong arguments.
        call(libc::SYS_getppid, &[KEY, KEY, KEY, KEY, KEY]),
        // Calls that it is not for.
        with_key(libc::SYS_getuid, KEY),
        with_key(libc::SYS_getpgrp, KEY),
    ];
    let Outcome::Returned(results) = run(Some(&filter), &attempts) else { panic!() };
    let parent = i64::from(std::process::id());
    assert_eq!(results, [parent, EPERM, EPERM, EPERM, EPERM, EPERM, EPERM, EPERM, EPERM, EPERM]);
    // A session of its own, and a read(2) that got as far as reporting a bad descriptor.
    let attempts = [
        with_key(libc::SYS_setsid, KEY),
        call(libc::SYS_read, &[u64::MAX, 0, 0, 0, 0, KEY]),
        call(libc::SYS_read, &[u64::MAX, 0, 0, 0, 0, 0]),
    ];
    let Outcome::Returned(results) = run(Some(&filter), &attempts) else { panic!() };
    assert!(results[0] > 0, "{results:?}");
    assert_eq!(results[1..], [-i64::from(libc::EBADF), EPERM]);
}

#[test]
fn a_kill_becomes_a_call_with_the_key() {
    let profile = json!({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [
        {"names": ["getppid"], "action": "SCMP_ACT_KILL_PROCESS"}]});
    let filter = unlocked(&compiled(profile).filter, KEY, &[libc::SYS_getppid]).unwrap();
    let parent = i64::from(std::process::id());
    assert_eq!(run(Some(&filter), &[with_key(libc::SYS_getppid, KEY)]), Outcome::Returned(vec![parent]));
    assert_eq!(run(Some(&filter), &[with_key(libc::SYS_getppid, 1)]), Outcome::Killed(libc::SIGSYS));
}

#[test]
fn all_other_calls_and_architectures_are_as_they_were() {
    let profile = allow_list(
        json!([{"names": ["unshare"], "action": "SCMP_ACT_ALLOW",
            "args": [{"index": 0, "op": "SCMP_CMP_EQ", "value": 8}]}]),
        json!(["SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32"]),
    );
    let before = compiled(profile).filter;
    let calls = [libc::SYS_reboot, libc::SYS_unshare, libc::SYS_clone];
    let after = unlocked(&before, KEY, &calls).unwrap();
    assert_eq!(after.flags, before.flags);
    for arch in [X86_64, I386, AARCH64] {
        for number in (0..600).chain(X32_BIT..X32_BIT + 600) {
            for (first, sixth) in [(0, 0), (8, 0), (0, KEY), (0, KEY + 1)] {
                let arguments = [first, 0, 0, 0, 0, sixth];
                let expected = if sixth == KEY && arch == X86_64 && calls.contains(&number.into()) {
                    ALLOW
                } else {
                    simulate(&before.program, arch, number, arguments)
                };
                let verdict = simulate(&after.program, arch, number, arguments);
                assert_eq!(verdict, expected, "{arch:#x} {number} {arguments:?}");
            }
        }
    }
}

#[test]
fn a_program_that_looks_at_what_it_did_not_load_finds_zero() {
    let op = |code, jt, k| SockFilter { code, jt, jf: 0, k };
    // It tests A without loading it first: the call is allowed only if A is 0.
    let program = [op(0x15, 1, 0), op(0x06, 0, errno(5)), op(0x06, 0, ALLOW)];
    let filter = Filter { program: program.into(), flags: 0 };
    let filter = unlocked(&filter, KEY, &[libc::SYS_getppid]).unwrap();
    let calls = [with_key(libc::SYS_getppid, 1), with_key(libc::SYS_getppid, KEY)];
    let parent = i64::from(std::process::id());
    assert_eq!(run(Some(&filter), &calls), Outcome::Returned(vec![parent; 2]));
}

#[test]
fn what_is_allowed_anyway_wants_no_key() {
    let none = [None; 6];
    let calls =
        [(libc::SYS_setsid, none), (libc::SYS_getpid, none), (libc::SYS_read, none), (libc::SYS_read, none)];
    assert_eq!(wanted(&strict(), &calls, &[]), [libc::SYS_read, libc::SYS_setsid]);
    let allowing = compiled(json!({"defaultAction": "SCMP_ACT_ALLOW"})).filter;
    assert!(wanted(&allowing, &calls, &[]).is_empty());
    assert_eq!(unlocked(&allowing, KEY, &[]).unwrap(), allowing);

    // A rule about an argument counts by the value that the argument will have.
    let strict = compiled(json!({"defaultAction": "SCMP_ACT_ERRNO", "syscalls": [
        {"names": ["ioctl"], "action": "SCMP_ACT_ALLOW",
            "args": [{"index": 1, "op": "SCMP_CMP_EQ", "value": libc::TIOCSCTTY}]}]}));
    for (request, expected) in [(Some(libc::TIOCSCTTY), 0), (Some(libc::TIOCSTI), 1), (None, 1)] {
        let args = [Some(0), request, None, None, None, None];
        assert_eq!(wanted(&strict.filter, &[(libc::SYS_ioctl, args)], &[]).len(), expected, "{request:?}");
    }
}

/// Calls that the profile itself refuses stay refused.
#[test]
fn what_an_agent_would_be_asked_wants_the_key_where_it_would_be_asked() {
    let condition = json!([{"index": 0, "op": "SCMP_CMP_EQ", "value": libc::PR_SET_NAME}]);
    let filter = compiled(json!({"defaultAction": "SCMP_ACT_ALLOW", "listenerPath": "/agent", "syscalls": [
        {"names": ["capset"], "action": "SCMP_ACT_NOTIFY"},
        {"names": ["close"], "action": "SCMP_ACT_ERRNO"},
        {"names": ["prctl"], "action": "SCMP_ACT_NOTIFY", "args": condition}]}))
    .filter;
    let none = [None; 6];
    let prctl = |option: i32| (libc::SYS_prctl, [Some(option as u64), None, None, None, None, None]);
    let calls = [(libc::SYS_capset, none), (libc::SYS_close, none), prctl(libc::PR_CAP_AMBIENT)];
    assert_eq!(wanted(&filter, &[], &calls), [libc::SYS_capset]);
    for option in [prctl(libc::PR_SET_NAME), (libc::SYS_prctl, none)] {
        assert_eq!(wanted(&filter, &[], &[option]), [libc::SYS_prctl]);
    }
    assert_eq!(wanted(&filter, &calls, &[]), [libc::SYS_close, libc::SYS_capset]);
}

#[test]
fn a_profile_without_room_for_the_key_is_refused_with_a_number() {
    let fill = |length: usize| {
        let load = SockFilter { code: 0x20, jt: 0, jf: 0, k: 0 };
        let mut program = vec![load; length - 1];
        program.push(SockFilter { code: 0x06, jt: 0, jf: 0, k: errno(1) });
        Filter { program: program.into(), flags: 0 }
    };
    let longest = fill(MAX_LENGTH - 9);
    let filter = unlocked(&longest, KEY, &[libc::SYS_getppid]).unwrap();
    assert_eq!(filter.program.len(), MAX_LENGTH);
    let parent = i64::from(std::process::id());
    let outcome = run(Some(&filter), &[with_key(libc::SYS_getppid, KEY)]);
    assert_eq!(outcome, Outcome::Returned(vec![parent]));
    let error = unlocked(&fill(MAX_LENGTH - 8), KEY, &[libc::SYS_getppid]).unwrap_err().to_string();
    assert!(error.contains("4088 instructions, 4097 with") && error.contains("takes 4096"), "{error}");
}

#[test]
fn every_call_that_fits_can_have_the_key() {
    let calls: Vec<i64> = (1000..1248).chain([libc::SYS_getppid]).collect();
    let filter = unlocked(&strict(), KEY, &calls).unwrap();
    let args = |key| [None, None, None, None, None, Some(key)];
    for number in calls {
        assert_eq!(verdict(&filter.program, number, args(KEY)), Verdict::Allowed, "{number}");
        assert_eq!(verdict(&filter.program, number, args(!KEY)), Verdict::Refused, "{number}");
        assert_eq!(verdict(&filter.program, number, [None; 6]), Verdict::Depends, "{number}");
        let of_i386 = simulate(&filter.program, I386, number as u32, [0, 0, 0, 0, 0, KEY]);
        assert_eq!(of_i386, simulate(&strict().program, I386, number as u32, [0; 6]), "{number}");
    }
    assert_eq!(verdict(&filter.program, libc::SYS_getuid, args(KEY)), Verdict::Refused);
    let too_many: Vec<i64> = (1000..1250).collect();
    unlocked(&strict(), KEY, &too_many).unwrap_err();
}
