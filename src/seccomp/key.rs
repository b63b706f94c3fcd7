//! Lets the launch itself pass a filter, with a key.
//!
//! Between its filter and its execve(2) a child makes a few calls of its own, which a profile may refuse. Allowing them
//! would change the profile for the program too. They are therefore allowed with a sixth argument that no program can
//! guess: calls with fewer arguments ignore that register, but a filter sees it.
//!
//! ```text
//!        ld   arch
//!        jeq  <native>, next, on
//!        ld   nr
//!        jeq  <a call>, look, next
//!        …
//!        jeq  <the last call>, look, on
//! look:  ld   args[5], its low half
//!        jeq  <key>, next, on
//!        ld   args[5], its high half
//!        jeq  <key>, next, on
//!        ret  ALLOW
//! on:    the profile's program
//! ```

use super::arch;
use super::verdict::{
    halves, may_notify, verdict, Verdict, ALLOW, ARCHITECTURE, JEQ, LD_ABS, LD_IMM, NUMBER, RET,
};
use crate::error::{invalid, Error, Kind, Result};
use crate::sys::seccomp::{Filter, SockFilter, MAX_LENGTH};
use libseccomp::ScmpArch;

/// Conditional jumps reach 255 instructions, and the first one skips six others besides those for the numbers.
const MAX_CALLS: usize = 249;

/// A call with its arguments (None: unknown).
pub type Call = (i64, [Option<u64>; 6]);

/// Returns those of `calls` that the filter may refuse, and those of `runcs` that it may leave to an agent: runc makes the
/// latter too, so a profile that works with runc does not refuse them.
pub fn wanted(filter: &Filter, calls: &[Call], runcs: &[Call]) -> Vec<i64> {
    let program = &filter.program;
    let refused = calls.iter().filter(|(number, args)| verdict(program, *number, *args) != Verdict::Allowed);
    let left = runcs.iter().filter(|(number, args)| may_notify(program, *number, *args));
    let mut wanted: Vec<i64> = refused.chain(left).map(|(number, _)| *number).collect();
    wanted.sort_unstable();
    wanted.dedup();
    wanted
}

/// Prepends to the filter a check that allows any of `calls` whose sixth argument is `key`. None of them may have a
/// sixth argument of its own.
pub fn unlocked(filter: &Filter, key: u64, calls: &[i64]) -> Result<Filter> {
    if calls.is_empty() {
        return Ok(filter.clone());
    }
    let native = arch::audit(ScmpArch::native())
        .filter(|_| calls.len() <= MAX_CALLS)
        .ok_or_else(|| Error::new(Kind::Bug, "linux.seccomp: no key for these calls"))?;
    let mut program = door(native, key, calls);
    // The profile's program would find in A what the prefix left there. Ours and libseccomp's never read A first.
    // LD|IMM is not added without need: with one, the kernel no longer caches the numbers that are allowed whatever
    // their arguments.
    if !matches!(filter.program.first(), Some(first) if matches!(first.code, LD_ABS | RET)) {
        program.push(plain(LD_IMM, 0));
    }
    program.extend_from_slice(&filter.program);
    if program.len() > MAX_LENGTH {
        let (own, all) = (filter.program.len(), program.len());
        return Err(invalid(format!(
            "linux.seccomp: the profile needs {own} instructions, {all} with those for the calls of the launch that \
             it refuses, and the kernel takes {MAX_LENGTH}"
        )));
    }
    Ok(Filter { program: program.into(), flags: filter.flags })
}

fn plain(code: u16, k: u32) -> SockFilter {
    SockFilter { code, jt: 0, jf: 0, k }
}

/// The prefix. Calls that it does not decide continue at the instruction after its last.
fn door(native: u32, key: u64, calls: &[i64]) -> Vec<SockFilter> {
    let (low, high) = halves(5);
    let length = calls.len() + 8;
    let equal = |at: usize, k: u32, then: usize, otherwise: usize| {
        // Offsets count from the instruction after the jump, and MAX_CALLS keeps them below 256.
        SockFilter { code: JEQ, jt: (then - at - 1) as u8, jf: (otherwise - at - 1) as u8, k }
    };
    let look = 3 + calls.len();
    let mut door = vec![plain(LD_ABS, ARCHITECTURE), equal(1, native, 2, length), plain(LD_ABS, NUMBER)];
    for (at, number) in (3..).zip(calls) {
        let next = if at + 1 == look { length } else { at + 1 };
        door.push(equal(at, *number as u32, look, next));
    }
    door.push(plain(LD_ABS, low));
    door.push(equal(look + 1, key as u32, look + 2, length));
    door.push(plain(LD_ABS, high));
    door.push(equal(look + 3, (key >> 32) as u32, look + 4, length));
    door.push(plain(RET, ALLOW));
    door
}
