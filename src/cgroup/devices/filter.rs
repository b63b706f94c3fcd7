//! Compiles a [`Policy`] to an eBPF program: the kernel calls it with `struct bpf_cgroup_dev_ctx` for each open(2) and
//! mknod(2) of a device, and returns EPERM if the result is 0 (linux/bpf.h, instruction set in the kernel's
//! Documentation/bpf/standardization/instruction-set.rst).

use super::Policy;
use crate::spec::resources::{Access, DeviceKind, DeviceRule};
use crate::sys::bpf::Insn;

/// The result.
const R0: u8 = 0;
/// The context at entry; a scratch register afterwards.
const R1: u8 = 1;
const KIND: u8 = 2;
/// The requested access that no rule has granted yet.
const WANTED: u8 = 3;
const MAJOR: u8 = 4;
const MINOR: u8 = 5;

/// BPF_DEVCG_DEV_*.
const BLOCK: i32 = 1;
const CHAR: i32 = 2;

const fn insn(code: u8, to: u8, from: u8, offset: i16, immediate: i32) -> Insn {
    Insn { code, registers: from << 4 | to, offset, immediate }
}

/// `to = *(u32 *)(r1 + offset)`
const fn load(to: u8, offset: i16) -> Insn {
    insn(0x61, to, R1, offset, 0)
}

const fn and(to: u8, mask: i32) -> Insn {
    insn(0x54, to, 0, 0, mask)
}

const fn shift_right(to: u8, bits: i32) -> Insn {
    insn(0x74, to, 0, 0, bits)
}

const fn copy(to: u8, from: u8) -> Insn {
    insn(0xbc, to, from, 0, 0)
}

const fn set(to: u8, value: i32) -> Insn {
    insn(0xb4, to, 0, 0, value)
}

/// 32-bit comparisons (BPF_JMP32, Linux 5.1): nothing is sign-extended.
const fn unless_equal(register: u8, value: i32) -> Insn {
    insn(0x56, register, 0, 0, value)
}

const fn if_equal(register: u8, value: i32) -> Insn {
    insn(0x16, register, 0, 0, value)
}

const EXIT: Insn = insn(0x95, 0, 0, 0, 0);

/// Evaluates the rules from last to first: an allow rule grants its part of the requested access; a deny rule refuses
/// if any of its part is still requested.
pub(in crate::cgroup) fn program(policy: &Policy) -> Vec<Insn> {
    let mut program = vec![
        load(KIND, 0),
        copy(WANTED, KIND),
        shift_right(WANTED, 16),
        and(KIND, 0xffff),
        load(MAJOR, 4),
        load(MINOR, 8),
    ];
    for rule in policy.rules.iter().rev() {
        let block = rule_block(rule);
        let length = block.len();
        for (i, insn) in block.into_iter().enumerate() {
            let is_jump = matches!(insn.code, 0x56 | 0x16);
            // Every jump in a rule goes to the next rule.
            let offset = if is_jump { (length - i - 1) as i16 } else { 0 };
            program.push(Insn { offset, ..insn });
        }
    }
    program.extend([set(R0, i32::from(policy.default_allow)), EXIT]);
    program
}

fn rule_block(rule: &DeviceRule) -> Vec<Insn> {
    let mut block = Vec::with_capacity(7);
    match rule.kind {
        DeviceKind::All => {}
        DeviceKind::Char => block.push(unless_equal(KIND, CHAR)),
        DeviceKind::Block => block.push(unless_equal(KIND, BLOCK)),
    }
    for (register, number) in [(MAJOR, rule.major), (MINOR, rule.minor)] {
        if let Some(number) = number {
            block.push(unless_equal(register, number as i32));
        }
    }
    let access = i32::from(rule.access.0);
    match (rule.allow, rule.access) {
        (true, Access::ALL) => block.extend([set(R0, 1), EXIT]),
        (true, _) => block.extend([and(WANTED, !access), unless_equal(WANTED, 0), set(R0, 1), EXIT]),
        (false, _) => block.extend([copy(R1, WANTED), and(R1, access), if_equal(R1, 0), set(R0, 0), EXIT]),
    }
    block
}

#[cfg(test)]
mod tests {
    use super::super::tests::rule;
    use super::*;

    /// Interprets the few instructions above as the kernel would.
    fn run(program: &[Insn], kind: i32, major: u32, minor: u32, access: &str) -> bool {
        let access = u32::from(Access::parse(access).unwrap().0);
        let context = [access << 16 | kind as u32, major, minor];
        let mut registers = [0u32; 6];
        let mut at = 0;
        loop {
            let Insn { code, registers: packed, offset, immediate } = program[at];
            let (to, from) = (usize::from(packed & 15), usize::from(packed >> 4));
            let value = immediate as u32;
            let mut jump = false;
            match code {
                0x61 => registers[to] = context[offset as usize / 4],
                0x54 => registers[to] &= value,
                0x74 => registers[to] >>= value,
                0xbc => registers[to] = registers[from],
                0xb4 => registers[to] = value,
                0x56 => jump = registers[to] != value,
                0x16 => jump = registers[to] == value,
                0x95 => return registers[0] != 0,
                other => panic!("{other:#x}"),
            }
            at += 1 + if jump { offset as usize } else { 0 };
        }
    }

    fn compiled(rules: &[&str]) -> Vec<Insn> {
        let rules: Vec<DeviceRule> = rules.iter().map(|r| rule(r)).collect();
        program(&Policy::compile(&rules))
    }

    #[test]
    fn the_default_devices_work_and_a_disk_does_not() {
        let p = compiled(&["deny a"]);
        assert!(run(&p, CHAR, 1, 3, "rw"));
        assert!(run(&p, CHAR, 136, 7, "rw"));
        assert!(run(&p, BLOCK, 8, 0, "m"), "making a node is harmless");
        assert!(!run(&p, BLOCK, 8, 0, "r"));
        assert!(!run(&p, BLOCK, 8, 0, "rm"));
        assert!(!run(&p, CHAR, 1, 1, "r"), "/dev/mem");
        assert!(!run(&p, BLOCK, 1, 3, "r"), "the kind counts");
    }

    #[test]
    fn access_is_granted_bit_by_bit() {
        let p = compiled(&["deny a", "allow b 8:0 r", "allow b 8:* w"]);
        assert!(run(&p, BLOCK, 8, 0, "rw"));
        assert!(run(&p, BLOCK, 8, 1, "w"));
        assert!(!run(&p, BLOCK, 8, 1, "rw"));
    }

    #[test]
    fn the_last_rule_that_matches_decides() {
        let p = compiled(&["allow c 10:* rwm", "deny c 10:2 w"]);
        assert!(run(&p, CHAR, 10, 1, "rw"));
        assert!(run(&p, CHAR, 10, 2, "r"));
        assert!(!run(&p, CHAR, 10, 2, "rw"), "a part that is denied denies the whole open");
        let p = compiled(&["deny c 10:2 w", "allow c 10:* rwm"]);
        assert!(run(&p, CHAR, 10, 2, "rw"));
    }

    #[test]
    fn all_but_one() {
        let p = compiled(&["allow a", "deny b 8:0 w"]);
        assert!(run(&p, BLOCK, 8, 1, "rwm"));
        assert!(run(&p, BLOCK, 8, 0, "r"));
        assert!(!run(&p, BLOCK, 8, 0, "rw"));
    }
}
