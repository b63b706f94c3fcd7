//! The interpreter and the kernel agree.

use super::*;
use crate::seccomp::verdict::{end, verdict, End, Verdict};
use crate::sys::seccomp::Filter;
use nix::errno::Errno;

const fn op(code: u16, jt: u8, jf: u8, k: u32) -> SockFilter {
    SockFilter { code, jt, jf, k }
}

const fn plain(code: u16, k: u32) -> SockFilter {
    op(code, 0, 0, k)
}

fn known(args: [u64; 6]) -> [Option<u64>; 6] {
    args.map(Some)
}

/// xorshift64, for the same programs each time.
struct Dice(u64);

impl Dice {
    fn roll(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn below(&mut self, end: usize) -> usize {
        (self.roll() % end as u64) as usize
    }

    /// A number likely to make a difference: small ones, single bits, any.
    fn word(&mut self) -> u32 {
        match self.below(4) {
            0 => self.below(5) as u32,
            1 => 1 << self.below(32),
            2 => u32::MAX - self.below(3) as u32,
            _ => self.roll() as u32,
        }
    }
}

/// Generates a program of everything the kernel accepts except the instruction pointer; it returns an errno that tells
/// what was in A.
fn random(dice: &mut Dice) -> Vec<SockFilter> {
    let mut program = vec![plain(0x00, dice.word()), plain(0x01, dice.word())];
    program.extend((0..4).map(|cell| plain(if cell % 2 == 0 { 0x02 } else { 0x03 }, cell)));
    let body = 4 + dice.below(40);
    for at in 0..body {
        let left = body - at - 1;
        let (jt, jf) = (dice.below(left.min(255) + 1) as u8, dice.below(left.min(255) + 1) as u8);
        let (cell, k) = (dice.below(4) as u32, dice.word());
        program.push(match dice.below(14) {
            0 => plain(0x20, [0, 4][dice.below(2)]),
            1..=3 => plain(0x20, 16 + 4 * dice.below(12) as u32),
            4 => plain([0x00, 0x01, 0x80, 0x81][dice.below(4)], k),
            5 => plain([0x02, 0x03, 0x60, 0x61][dice.below(4)], cell),
            6 => plain([0x07, 0x87][dice.below(2)], 0),
            7 => op(0x05, 0, 0, jt.into()),
            8 | 9 => op([0x15, 0x25, 0x35, 0x45, 0x1d, 0x2d, 0x3d, 0x4d][dice.below(8)], jt, jf, k),
            10 => plain([0x64, 0x74][dice.below(2)], dice.below(32) as u32),
            11 => plain([0x0c, 0x1c, 0x2c, 0x3c, 0x4c, 0x5c, 0x6c, 0x7c, 0xac][dice.below(9)], 0),
            _ => plain([0x04, 0x14, 0x24, 0x34, 0x44, 0x54, 0x84, 0xa4][dice.below(8)], k.max(1)),
        });
    }
    // SECCOMP_RET_ERRNO with a value that an errno can have.
    program.extend([plain(0x54, 0x7ff), plain(0x44, errno(0x800)), plain(0x16, 0)]);
    program
}

#[test]
fn the_kernel_and_the_interpreter_compute_the_same() {
    let mut dice = Dice(0x5eed_0f5e_cc0e_b9f1);
    let (mut compared, mut divided) = (0, 0);
    for round in 0..400 {
        let program = random(&mut dice);
        let calls: Vec<Call> = (0..8)
            .map(|_| call(libc::SYS_getppid, &[(); 6].map(|()| dice.roll() >> dice.below(64))))
            .collect();
        let ends: Vec<End> =
            calls.iter().map(|call| end(&program, call.number, known(call.arguments))).collect();
        let filter = Filter { program: program.clone().into(), flags: 0 };
        match run(Some(&filter), &calls) {
            Outcome::Returned(results) => {
                let told: Vec<End> = results.iter().map(|r| End::Value(errno(-*r as i32))).collect();
                assert_eq!(ends, told, "round {round}: {program:?} {calls:?}");
                compared += results.len();
            }
            // A division by an X of 0, in the first call that reaches one.
            Outcome::Killed(libc::SIGSYS) => {
                assert!(ends.contains(&End::Value(0)), "round {round}: {program:?} {calls:?} {ends:?}");
                divided += 1;
            }
            other => panic!("round {round}: {other:?}: {program:?}"),
        }
    }
    assert!(compared > 2000 && divided > 0, "{compared} compared, {divided} divided by 0");
}

#[test]
fn a_program_that_the_kernel_does_not_load_refuses() {
    let allow = plain(0x06, ALLOW);
    let programs: &[&[SockFilter]] = &[
        &[],
        // It ends without a RET.
        &[plain(0x20, 0)],
        // Loads of a half word, a byte, by X, beyond the data, between two words.
        &[plain(0x28, 0), allow],
        &[plain(0x30, 0), allow],
        &[plain(0x40, 0), allow],
        &[plain(0x20, 64), allow],
        &[plain(0x20, 2), allow],
        // LDX|B|MSH, RET|X, MOD, a negation with X, an unconditional jump with X.
        &[plain(0xb1, 0), allow],
        &[plain(0x0e, 0), allow],
        &[plain(0x94, 3), allow],
        &[plain(0x8c, 0), allow],
        &[plain(0x0d, 0), allow],
        // By 0, by too much, and a code of more than one byte.
        &[plain(0x34, 0), allow],
        &[plain(0x64, 32), allow],
        &[plain(0x74, 40), allow],
        &[plain(0x120, 0), allow],
        // Memory that does not exist, or that nothing has written.
        &[plain(0x02, 16), allow],
        &[plain(0x60, 16), allow],
        &[plain(0x60, 3), allow],
        // Jumps out of the program.
        &[plain(0x05, 1), allow],
        &[plain(0x05, u32::MAX), allow],
        &[op(0x15, 1, 1, 0), allow],
        &[op(0x55, 0, 0, 0), allow],
    ];
    for program in programs {
        assert_eq!(verdict(program, libc::SYS_getppid, known([0; 6])), Verdict::Refused, "{program:?}");
        let filter = Filter { program: (*program).into(), flags: 0 };
        assert_eq!(run(Some(&filter), &[]), Outcome::Refused(Errno::EINVAL), "{program:?}");
    }
}

#[test]
fn only_allow_and_log_allow() {
    for (value, expected) in [
        (ALLOW, Verdict::Allowed),
        (ALLOW | 0xffff, Verdict::Allowed),
        (0x7ffc_0000, Verdict::Allowed),
        (0x7ff0_0001, Verdict::Refused),
        (0x7fc0_0000, Verdict::Refused),
        (errno(0), Verdict::Refused),
        (errno(libc::EPERM), Verdict::Refused),
        (0x0003_0000, Verdict::Refused),
        (KILL_THREAD, Verdict::Refused),
        (0x8000_0000, Verdict::Refused),
        (0xffff_0000, Verdict::Refused),
    ] {
        assert_eq!(verdict(&[plain(0x06, value)], 0, [None; 6]), expected, "{value:#x}");
    }
}

#[test]
fn what_is_not_known_is_told_only_where_the_program_looks_at_it() {
    let compiled = compiled(json!({"defaultAction": "SCMP_ACT_ERRNO", "syscalls": [
        {"names": ["read"], "action": "SCMP_ACT_ALLOW"},
        {"names": ["clone"], "action": "SCMP_ACT_ALLOW",
            "args": [{"index": 0, "op": "SCMP_CMP_MASKED_EQ", "value": 0x7e02_0000u64, "valueTwo": 0}]}]}));
    let ask = |number, first: Option<u64>| {
        verdict(&compiled.filter.program, number, [first, None, None, None, None, None])
    };
    assert_eq!(ask(libc::SYS_read, None), Verdict::Allowed);
    assert_eq!(ask(libc::SYS_write, None), Verdict::Refused);
    assert_eq!(ask(libc::SYS_clone, None), Verdict::Depends);
    assert_eq!(ask(libc::SYS_clone, Some(0x8000)), Verdict::Allowed);
    assert_eq!(ask(libc::SYS_clone, Some(0x1000_0000)), Verdict::Refused);
    // The instruction pointer is never known.
    assert_eq!(verdict(&[plain(0x20, 8), plain(0x06, ALLOW)], 0, known([0; 6])), Verdict::Depends);
}

#[test]
fn compiled_profiles_mean_what_they_mean_in_the_other_machine() {
    let list = allow_list(
        json!([{"names": ["personality"], "action": "SCMP_ACT_ALLOW",
        "args": [{"index": 0, "op": "SCMP_CMP_GT", "value": 1u64 << 33}]}]),
        json!(["SCMP_ARCH_X86"]),
    );
    for profile in [list, json!({"defaultAction": "SCMP_ACT_LOG"})] {
        let program = compiled(profile).filter.program;
        for number in 0..600u32 {
            for argument in [0, 8, 1 << 33, 1 << 40] {
                let arguments = [argument, 0, 0, 0, 0, 0];
                let value = simulate(&program, X86_64, number, arguments);
                assert_eq!(end(&program, number.into(), known(arguments)), End::Value(value), "{number}");
            }
        }
    }
}
