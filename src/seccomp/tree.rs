//! Compiles tables to a program: a binary search for the range that a number is in.
//!
//! ```text
//!       ld   arch
//!       jeq  AUDIT_ARCH_X86_64, on, next
//! next: ja   the next architecture
//! on:   ld   nr
//!       jge  <a boundary>, high, low
//!       …
//!       ret  <a verdict>   or   ja  libseccomp's program
//! ```

use super::table::Table;
use crate::sys::seccomp::SockFilter;

// linux/bpf_common.h
const LOAD_ABSOLUTE: u16 = 0x20;
const JUMP: u16 = 0x05;
const JUMP_EQUAL: u16 = 0x15;
const JUMP_GREATER_OR_EQUAL: u16 = 0x35;
const RETURN: u16 = 0x06;
/// Offsets in `struct seccomp_data` of linux/seccomp.h.
const NUMBER: u32 = 0;
const ARCHITECTURE: u32 = 4;

fn plain(code: u16, k: u32) -> SockFilter {
    SockFilter { code, jt: 0, jf: 0, k }
}

/// Returns the program of the tables. What it does not decide continues at the instruction after its last.
pub fn program(tables: &[Table]) -> Vec<SockFilter> {
    if tables.is_empty() {
        return Vec::new();
    }
    let mut program = vec![plain(LOAD_ABSOLUTE, ARCHITECTURE)];
    let mut undecided = Vec::new();
    for table in tables {
        program.push(SockFilter { code: JUMP_EQUAL, jt: 1, jf: 0, k: table.audit });
        let over = program.len();
        program.push(plain(JUMP, 0));
        program.push(plain(LOAD_ABSOLUTE, NUMBER));
        search(&mut program, &table.ranges, &mut undecided);
        land(&mut program, over);
    }
    for jump in undecided {
        land(&mut program, jump);
    }
    program
}

/// Makes the jump at this index lead to the next instruction.
fn land(program: &mut [SockFilter], jump: usize) {
    // Offsets count from the instruction after the jump.
    let offset = program.len() - jump - 1;
    if let Some(instruction) = program.get_mut(jump) {
        instruction.k = offset as u32;
    }
}

fn search(program: &mut Vec<SockFilter>, ranges: &[(u32, Option<u32>)], undecided: &mut Vec<usize>) {
    match ranges {
        [] => {}
        [(_, Some(verdict))] => program.push(plain(RETURN, *verdict)),
        [(_, None)] => {
            undecided.push(program.len());
            program.push(plain(JUMP, 0));
        }
        ranges => {
            let (low, high) = ranges.split_at(ranges.len() / 2);
            let boundary = high.first().map_or(0, |(start, _)| *start);
            let test = program.len();
            program.push(SockFilter { code: JUMP_GREATER_OR_EQUAL, jt: 0, jf: 0, k: boundary });
            search(program, low, undecided);
            // Conditional jumps reach 255 instructions; a greater distance takes an unconditional jump.
            if let Ok(offset) = u8::try_from(program.len() - test - 1) {
                if let Some(instruction) = program.get_mut(test) {
                    instruction.jt = offset;
                }
            } else {
                let low: Vec<SockFilter> = program.drain(test + 1..).collect();
                for jump in undecided.iter_mut().filter(|jump| **jump > test) {
                    *jump += 1;
                }
                if let Some(instruction) = program.get_mut(test) {
                    instruction.jf = 1;
                }
                program.push(plain(JUMP, low.len() as u32));
                program.extend(low);
            }
            search(program, high, undecided);
        }
    }
}
