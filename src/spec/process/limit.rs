//! `rlimits`: getrlimit(2).

use crate::error::{invalid, Result};
use crate::spec::raw;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rlimit {
    /// RLIMIT_*.
    pub resource: u32,
    pub soft: u64,
    pub hard: u64,
}

/// The index is the resource's number (asm-generic/resource.h).
const NAMES: [&str; 16] = [
    "RLIMIT_CPU",
    "RLIMIT_FSIZE",
    "RLIMIT_DATA",
    "RLIMIT_STACK",
    "RLIMIT_CORE",
    "RLIMIT_RSS",
    "RLIMIT_NPROC",
    "RLIMIT_NOFILE",
    "RLIMIT_MEMLOCK",
    "RLIMIT_AS",
    "RLIMIT_LOCKS",
    "RLIMIT_SIGPENDING",
    "RLIMIT_MSGQUEUE",
    "RLIMIT_NICE",
    "RLIMIT_RTPRIO",
    "RLIMIT_RTTIME",
];

impl Rlimit {
    pub(crate) fn name(resource: u32) -> &'static str {
        NAMES.get(resource as usize).copied().unwrap_or("RLIMIT_?")
    }
}

pub(super) fn check(list: Vec<raw::Rlimit>, field: &str) -> Result<Vec<Rlimit>> {
    let mut checked: Vec<Rlimit> = Vec::with_capacity(list.len());
    for (i, raw) in list.iter().enumerate() {
        let Some(resource) = (0u32..).zip(NAMES).find_map(|(n, name)| (name == raw.typ).then_some(n)) else {
            return Err(invalid(format!("{field}[{i}].type: {:?} is not a resource limit", raw.typ)));
        };
        if checked.iter().any(|limit| limit.resource == resource) {
            return Err(invalid(format!("{field}[{i}].type: a second {}", raw.typ)));
        }
        if raw.soft > raw.hard {
            return Err(invalid(format!(
                "{field}[{i}].soft: {} is more than the hard limit {}",
                raw.soft, raw.hard
            )));
        }
        checked.push(Rlimit { resource, soft: raw.soft, hard: raw.hard });
    }
    Ok(checked)
}
