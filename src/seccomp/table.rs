//! Decides system calls by their number alone.
//!
//! Most rules of a profile say "this call, whatever its arguments". For containerd's default profile (360 names, three
//! architectures) libseccomp alone takes 15 ms and 1,240 instructions; with a table of number ranges it is 2 ms and 710
//! (debug build). Calls that have only such rules therefore go into the table, and libseccomp compiles the rest: rules
//! that examine arguments, and calls that share a number with others. libseccomp's program decides any number that is
//! not in the table, and any architecture without a table.
//!
//! The table also answers ENOSYS to calls that are newer than the profile. A call that did not exist when the profile
//! was written is in no list and would get the default action, usually EPERM; but a C library that tries a new call
//! first falls back to an old one only on ENOSYS. As in runc, a number above that of every call the profile names
//! therefore gets ENOSYS.

use super::arch::{self, X32_BIT};
use super::newer;
use crate::spec::seccomp::{Action, Seccomp};
use libseccomp::{ScmpArch, ScmpSyscall};
use std::collections::{BTreeMap, BTreeSet};

const ENOSYS: u32 = verdict(Action::Errno(libc::ENOSYS as u16));

/// Calls that some architectures make through socketcall(2) or ipc(2), which select the call by an argument: libseccomp
/// turns them into rules on that argument.
const MULTIPLEXED: [&str; 34] = [
    "accept",
    "accept4",
    "bind",
    "connect",
    "getpeername",
    "getsockname",
    "getsockopt",
    "listen",
    "recv",
    "recvfrom",
    "recvmmsg",
    "recvmsg",
    "send",
    "sendmmsg",
    "sendmsg",
    "sendto",
    "setsockopt",
    "shutdown",
    "socket",
    "socketcall",
    "socketpair",
    "ipc",
    "msgctl",
    "msgget",
    "msgrcv",
    "msgsnd",
    "semctl",
    "semget",
    "semop",
    "semtimedop",
    "shmat",
    "shmctl",
    "shmdt",
    "shmget",
];

/// SECCOMP_RET_* of linux/seccomp.h.
pub const fn verdict(action: Action) -> u32 {
    match action {
        Action::KillThread => 0,
        Action::KillProcess => 0x8000_0000,
        Action::Trap => 0x0003_0000,
        Action::Errno(errno) => 0x0005_0000 | errno as u32,
        Action::Trace(value) => 0x7ff0_0000 | value as u32,
        Action::Notify => 0x7fc0_0000,
        Action::Log => 0x7ffc_0000,
        Action::Allow => 0x7fff_0000,
    }
}

/// The numbers of one architecture as the kernel distinguishes them (x86_64 and x32 are one), from 0 on: the start of
/// each range, and its verdict, or None if libseccomp's program decides. Adjacent verdicts differ.
#[derive(Debug, PartialEq, Eq)]
pub struct Table {
    pub audit: u32,
    pub ranges: Vec<(u32, Option<u32>)>,
}

/// The calls in the table, by name.
type Direct<'a> = BTreeMap<&'a str, Action>;

/// Splits the profile into the tables and the names that libseccomp has to compile.
pub fn split<'a>(seccomp: &'a Seccomp, architectures: &[ScmpArch]) -> (Vec<Table>, BTreeSet<&'a str>) {
    let mut direct = Direct::new();
    let mut rest: BTreeSet<&str> = BTreeSet::new();
    // A rule that equals the default action has no effect.
    for rule in seccomp.rules.iter().filter(|rule| rule.action != seccomp.default) {
        for name in &rule.names {
            let plain = rule.conditions.is_empty() && !MULTIPLEXED.contains(&name.as_str());
            if !plain || *direct.entry(name).or_insert(rule.action) != rule.action {
                rest.insert(name);
            }
        }
    }
    direct.retain(|name, _| !rest.contains(name));
    move_what_shares_a_number(&mut direct, &mut rest, architectures);

    let mut tables: Vec<Table> = Vec::new();
    for arch in architectures {
        let Some(audit) = arch::audit(*arch) else { continue };
        if tables.iter().all(|table| table.audit != audit) {
            let same = architectures.iter().filter(|other| arch::audit(**other) == Some(audit));
            tables.push(Table { audit, ranges: ranges(seccomp, &direct, same.copied()) });
        }
    }
    tables.retain(|table| table.ranges.iter().any(|(_, verdict)| verdict.is_some()));
    (tables, rest)
}

pub(super) fn number(name: &str, arch: ScmpArch) -> Option<u32> {
    let Ok(call) = ScmpSyscall::from_name_by_arch(name, arch) else { return newer::number(name, arch) };
    // Negative numbers are libseccomp's own, for calls that this architecture does not have.
    u32::try_from(call.as_raw_syscall()).ok()
}

/// Two names may share a number on some architecture; if their actions differ, libseccomp decides.
fn move_what_shares_a_number<'a>(
    direct: &mut Direct<'a>,
    rest: &mut BTreeSet<&'a str>,
    architectures: &[ScmpArch],
) {
    loop {
        let mut shared: BTreeSet<&str> = BTreeSet::new();
        for arch in architectures {
            let taken: BTreeSet<u32> = rest.iter().filter_map(|name| number(name, *arch)).collect();
            let mut known: BTreeMap<u32, (&str, Action)> = BTreeMap::new();
            for (name, action) in direct.iter() {
                let Some(number) = number(name, *arch) else { continue };
                let (first, other) = *known.entry(number).or_insert((name, *action));
                if other != *action {
                    shared.extend([first, name]);
                }
                if taken.contains(&number) {
                    shared.insert(name);
                }
            }
        }
        if shared.is_empty() {
            return;
        }
        direct.retain(|name, _| !shared.contains(name));
        rest.extend(shared);
    }
}

fn ranges(
    seccomp: &Seccomp,
    direct: &Direct<'_>,
    architectures: impl Iterator<Item = ScmpArch>,
) -> Vec<(u32, Option<u32>)> {
    // The start of each range; every known number is a range at first, and ends at the next number.
    let mut starts: BTreeMap<u32, Option<u32>> = BTreeMap::from([(0, None)]);
    for arch in architectures {
        let (first, after) = match arch {
            ScmpArch::X8664 => (0, Some(X32_BIT)),
            ScmpArch::X32 => (X32_BIT, None),
            _ => (0, None),
        };
        starts.insert(first, None);
        let mut put = |number: u32, verdict: u32| {
            starts.insert(number, Some(verdict));
            if let Some(next) = number.checked_add(1) {
                starts.entry(next).or_insert(None);
            }
        };
        for (name, action) in direct {
            if let Some(number) = number(name, arch) {
                put(number, verdict(*action));
            }
        }
        if !denies_new_calls(seccomp.default) {
            continue;
        }
        if matches!(arch, ScmpArch::S390 | ScmpArch::S390X) {
            // There, numbers above 255 come through call 0, and stay 0 if the kernel does not know them.
            put(0, ENOSYS);
        }
        let names = seccomp.rules.iter().flat_map(|rule| &rule.names);
        let last = names.filter_map(|name| number(name, arch)).filter(|number| *number > 0).max();
        if let Some(newer) = last.and_then(|last| last.checked_add(1)) {
            starts.insert(newer, Some(ENOSYS));
            if let Some(after) = after {
                starts.entry(after).or_insert(None);
            }
        }
    }
    let mut ranges: Vec<(u32, Option<u32>)> = starts.into_iter().collect();
    ranges.dedup_by_key(|(_, verdict)| *verdict);
    ranges
}

/// Whether new calls need ENOSYS: not if the default lets them through, or is ENOSYS itself. A tracer is expected to
/// know about new calls.
fn denies_new_calls(default: Action) -> bool {
    match default {
        Action::Allow | Action::Log | Action::Trace(_) | Action::Notify => false,
        Action::Errno(errno) => i32::from(errno) != libc::ENOSYS,
        Action::KillThread | Action::KillProcess | Action::Trap => true,
    }
}
