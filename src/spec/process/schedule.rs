//! `scheduler` (sched_setattr(2)) and `ioPriority` (ioprio_set(2)).

use crate::error::{invalid, Result};
use crate::spec::raw;

/// `struct sched_attr` of sched_setattr(2), without its size field.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SchedAttr {
    pub policy: u32,
    pub flags: u64,
    pub nice: i32,
    pub priority: u32,
    pub runtime: u64,
    pub deadline: u64,
    pub period: u64,
}

/// linux/sched.h; the index is the policy's number.
const POLICIES: [&str; 7] =
    ["SCHED_OTHER", "SCHED_FIFO", "SCHED_RR", "SCHED_BATCH", "SCHED_ISO", "SCHED_IDLE", "SCHED_DEADLINE"];
const FIFO: u32 = 1;
const RR: u32 = 2;
const DEADLINE: u32 = 6;

/// The index is the bit.
const FLAGS: [&str; 7] = [
    "SCHED_FLAG_RESET_ON_FORK",
    "SCHED_FLAG_RECLAIM",
    "SCHED_FLAG_DL_OVERRUN",
    "SCHED_FLAG_KEEP_POLICY",
    "SCHED_FLAG_KEEP_PARAMS",
    "SCHED_FLAG_UTIL_CLAMP_MIN",
    "SCHED_FLAG_UTIL_CLAMP_MAX",
];

/// linux/sched.h: of [`FLAGS`], the first.
const RESET_ON_FORK: u64 = 1;

impl SchedAttr {
    /// Whether a child has another policy and not this flag.
    pub(crate) fn resets_on_fork(&self) -> bool {
        self.flags & RESET_ON_FORK != 0
    }

    pub(crate) fn without_reset(self) -> Self {
        SchedAttr { flags: self.flags & !RESET_ON_FORK, ..self }
    }

    pub(crate) fn policy_name(&self) -> &'static str {
        POLICIES.get(self.policy as usize).copied().unwrap_or("SCHED_?")
    }
}

pub(super) fn check(raw: raw::Scheduler, field: &str) -> Result<SchedAttr> {
    let refuse = |name: &str, reason: String| Err(invalid(format!("{field}.{name}: {reason}")));
    let Some(policy) = (0u32..).zip(POLICIES).find_map(|(n, name)| (name == raw.policy).then_some(n)) else {
        return refuse("policy", format!("{:?} is not a scheduling policy", raw.policy));
    };
    if !(-20..=19).contains(&raw.nice) {
        return refuse("nice", format!("{} is not between -20 and 19", raw.nice));
    }
    if raw.priority != 0 && policy != FIFO && policy != RR {
        return refuse("priority", "only for SCHED_FIFO and SCHED_RR".into());
    }
    let Ok(priority @ 0..=99) = u32::try_from(raw.priority) else {
        return refuse("priority", format!("{} is not between 0 and 99", raw.priority));
    };
    if policy != DEADLINE {
        for (name, value) in [("runtime", raw.runtime), ("deadline", raw.deadline), ("period", raw.period)] {
            if value != 0 {
                return refuse(name, "only for SCHED_DEADLINE".into());
            }
        }
    }
    let mut flags = 0;
    for (i, word) in raw.flags.iter().flatten().enumerate() {
        match FLAGS.iter().position(|known| known == word) {
            Some(bit) => flags |= 1 << bit,
            None => return refuse(&format!("flags[{i}]"), format!("{word:?} is not a flag")),
        }
    }
    Ok(SchedAttr {
        policy,
        flags,
        nice: raw.nice,
        priority,
        runtime: raw.runtime,
        deadline: raw.deadline,
        period: raw.period,
    })
}

pub(super) fn io_priority(raw: raw::IoPriority, field: &str) -> Result<u32> {
    let class = match raw.class.as_str() {
        "IOPRIO_CLASS_RT" => 1,
        "IOPRIO_CLASS_BE" => 2,
        "IOPRIO_CLASS_IDLE" => 3,
        other => return Err(invalid(format!("{field}.class: {other:?} is not a class"))),
    };
    match u32::try_from(raw.priority) {
        Ok(level @ 0..=7) => Ok(class << 13 | level),
        _ => Err(invalid(format!("{field}.priority: {} is not between 0 and 7", raw.priority))),
    }
}
