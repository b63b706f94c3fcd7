//! Predicts a program's verdict on a call: the kernel's interpreter reimplemented, for the calls that a launch itself
//! makes under its container's filter.

use super::arch;
use crate::sys::seccomp::SockFilter;
use libseccomp::ScmpArch;
use std::collections::BTreeSet;

/// The outcome of a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It is made, perhaps with a line in the log.
    Allowed,
    /// It is not made, or not by the process alone: an errno, a signal, a tracer, a supervisor.
    Refused,
    /// The program examines something that is unknown before the call.
    Depends,
}

/// How a program ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    /// By RET, with this value.
    Value(u32),
    /// At this instruction, which loads something unknown.
    Unknown(usize),
    /// At an instruction that the kernel would not have loaded.
    Malformed,
}

/// SECCOMP_RET_ACTION_FULL, SECCOMP_RET_USER_NOTIF, SECCOMP_RET_LOG and SECCOMP_RET_ALLOW of linux/seccomp.h.
const ACTION: u32 = 0xffff_0000;
const NOTIFY: u32 = 0x7fc0_0000;
const LOG: u32 = 0x7ffc_0000;
pub(super) const ALLOW: u32 = 0x7fff_0000;

// linux/bpf_common.h; a size of 0 is a word, the only one that the kernel accepts here.
pub(super) const LD_IMM: u16 = 0x00;
pub(super) const LD_ABS: u16 = 0x20;
const JA: u16 = 0x05;
pub(super) const JEQ: u16 = 0x15;
pub(super) const RET: u16 = 0x06;
const LDX_IMM: u16 = 0x01;
const ST: u16 = 0x02;
const STX: u16 = 0x03;
const RET_A: u16 = 0x16;
const LD_MEM: u16 = 0x60;
const LDX_MEM: u16 = 0x61;
const LD_LEN: u16 = 0x80;
const LDX_LEN: u16 = 0x81;
const TAX: u16 = 0x07;
const TXA: u16 = 0x87;
const CLASS: u16 = 0x07;
const ALU: u16 = 0x04;
const JMP: u16 = 0x05;
/// The operand is X, not the constant.
const BY_X: u16 = 0x08;

/// Offsets in `struct seccomp_data`, and its size.
pub(super) const NUMBER: u32 = 0;
pub(super) const ARCHITECTURE: u32 = 4;
const ARGUMENTS: u32 = 16;
const SIZE: u32 = 64;

/// The offsets of the low and the high half of an argument.
pub(super) const fn halves(argument: u32) -> (u32, u32) {
    let first = ARGUMENTS + 8 * argument;
    if cfg!(target_endian = "little") {
        (first, first + 4)
    } else {
        (first + 4, first)
    }
}

/// The verdict on a call of this machine's own architecture; an argument that is None is unknown.
pub fn verdict(program: &[SockFilter], number: i64, args: [Option<u64>; 6]) -> Verdict {
    match end(program, number, args) {
        End::Value(value) if matches!(value & ACTION, ALLOW | LOG) => Verdict::Allowed,
        End::Unknown(_) => Verdict::Depends,
        End::Value(_) | End::Malformed => Verdict::Refused,
    }
}

/// Whether the program may leave the call to an agent. Where it examines something unknown, both branches count.
pub fn may_notify(program: &[SockFilter], number: i64, args: [Option<u64>; 6]) -> bool {
    let first = match end(program, number, args) {
        End::Value(value) => return value & ACTION == NOTIFY,
        End::Malformed => return false,
        End::Unknown(at) => at,
    };
    let mut reached = BTreeSet::from([first]);
    // Every jump is forward, so the loop ends.
    while let Some(at) = reached.pop_first() {
        let Some(SockFilter { code, jt, jf, k }) = program.get(at).copied() else { continue };
        let next = at + 1;
        match code {
            RET if k & ACTION == NOTIFY => return true,
            RET => {}
            RET_A => return true,
            JA => drop(reached.insert(next + k as usize)),
            _ if code & CLASS == JMP => reached.extend([next + usize::from(jt), next + usize::from(jf)]),
            _ => drop(reached.insert(next)),
        }
    }
    false
}

pub(super) fn end(program: &[SockFilter], number: i64, args: [Option<u64>; 6]) -> End {
    let (mut a, mut x, mut memory) = (0u32, 0u32, [None; 16]);
    let mut at = 0usize;
    // Every jump is forward, so the loop ends.
    while let Some(SockFilter { code, jt, jf, k }) = program.get(at).copied() {
        at += 1;
        let cell = k as usize;
        match code {
            RET => return End::Value(k),
            RET_A => return End::Value(a),
            LD_ABS if !k.is_multiple_of(4) || k >= SIZE => return End::Malformed,
            LD_ABS => match word(k, number, args) {
                Some(word) => a = word,
                None => return End::Unknown(at - 1),
            },
            LD_IMM => a = k,
            LDX_IMM => x = k,
            LD_LEN => a = SIZE,
            LDX_LEN => x = SIZE,
            TAX => x = a,
            TXA => a = x,
            ST | STX => match memory.get_mut(cell) {
                Some(place) => *place = Some(if code == ST { a } else { x }),
                None => return End::Malformed,
            },
            LD_MEM | LDX_MEM => match memory.get(cell).copied().flatten() {
                Some(value) if code == LD_MEM => a = value,
                Some(value) => x = value,
                None => return End::Malformed,
            },
            JA => at += cell,
            _ => {
                let by_x = code & BY_X != 0;
                let operand = if by_x { x } else { k };
                match code & CLASS {
                    ALU if code == (NEG | BY_X | ALU) => return End::Malformed,
                    ALU => match compute(code & !(BY_X | CLASS), a, operand) {
                        Some(result) if by_x || constant_is_valid(code, k) => a = result,
                        // On a division by an X of 0 the kernel ends the program with 0.
                        None if code == (DIV | BY_X | ALU) => return End::Value(0),
                        _ => return End::Malformed,
                    },
                    JMP => match holds(code & !(BY_X | CLASS), a, operand) {
                        Some(true) => at += usize::from(jt),
                        Some(false) => at += usize::from(jf),
                        None => return End::Malformed,
                    },
                    _ => return End::Malformed,
                }
            }
        }
    }
    End::Malformed
}

/// A word of `struct seccomp_data`, if it is known.
fn word(offset: u32, number: i64, args: [Option<u64>; 6]) -> Option<u32> {
    match offset {
        NUMBER => Some(number as u32),
        ARCHITECTURE => arch::audit(ScmpArch::native()),
        _ => {
            // The instruction pointer is below the arguments.
            let argument = offset.checked_sub(ARGUMENTS)? / 8;
            let value = args.get(argument as usize).copied().flatten()?;
            let (low, _) = halves(argument);
            Some(if offset == low { value as u32 } else { (value >> 32) as u32 })
        }
    }
}

const DIV: u16 = 0x30;
const NEG: u16 = 0x80;
const SHIFTS: [u16; 2] = [0x60, 0x70];

fn constant_is_valid(code: u16, k: u32) -> bool {
    !SHIFTS.contains(&(code & !(BY_X | CLASS))) || k < u32::BITS
}

/// Returns None for an unknown operation (seccomp has no BPF_MOD), or a division by 0.
fn compute(operation: u16, a: u32, operand: u32) -> Option<u32> {
    Some(match operation {
        0x00 => a.wrapping_add(operand),
        0x10 => a.wrapping_sub(operand),
        0x20 => a.wrapping_mul(operand),
        DIV => a.checked_div(operand)?,
        0x40 => a | operand,
        0x50 => a & operand,
        // For an X of 32 or more the kernel shifts by its low five bits.
        0x60 => a.wrapping_shl(operand),
        0x70 => a.wrapping_shr(operand),
        NEG => a.wrapping_neg(),
        0xa0 => a ^ operand,
        _ => return None,
    })
}

fn holds(comparison: u16, a: u32, operand: u32) -> Option<bool> {
    Some(match comparison {
        0x10 => a == operand,
        0x20 => a > operand,
        0x30 => a >= operand,
        0x40 => a & operand != 0,
        _ => return None,
    })
}
