//! `linux.memoryPolicy`: the NUMA nodes from which a process gets its memory, as set_mempolicy(2) takes them.

use super::index_list::{self, IndexList};
use super::raw;
use crate::error::{invalid, Result};

/// The most nodes that any kernel can have (CONFIG_NODES_SHIFT).
const LIMIT: usize = 1024;

/// linux/mempolicy.h.
pub const MODES: [(&str, u32); 7] = [
    ("MPOL_DEFAULT", 0),
    ("MPOL_PREFERRED", 1),
    ("MPOL_BIND", 2),
    ("MPOL_INTERLEAVE", 3),
    ("MPOL_LOCAL", 4),
    ("MPOL_PREFERRED_MANY", 5),
    ("MPOL_WEIGHTED_INTERLEAVE", 6),
];
pub const FLAGS: [(&str, u32); 3] = [
    ("MPOL_F_NUMA_BALANCING", 1 << 13),
    ("MPOL_F_RELATIVE_NODES", 1 << 14),
    ("MPOL_F_STATIC_NODES", 1 << 15),
];

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MemoryPolicy {
    /// Includes the flags.
    pub mode: u32,
    pub nodes: IndexList,
}

pub(super) fn check(raw: raw::MemoryPolicy) -> Result<MemoryPolicy> {
    let known = |names: &[(&str, u32)], field: String, word: &str| {
        let found = names.iter().find(|(name, _)| *name == word);
        found.map(|(_, value)| *value).ok_or_else(|| invalid(format!("{field}: {word:?} is not known")))
    };
    let mut mode = known(&MODES, "linux.memoryPolicy.mode".into(), &raw.mode)?;
    let nodes = match raw.nodes.as_deref().unwrap_or_default().trim() {
        "" => IndexList::default(),
        list => index_list::parse(list, "linux.memoryPolicy.nodes", "node", LIMIT)?,
    };
    match (raw.mode.as_str(), nodes.mask.is_empty()) {
        ("MPOL_DEFAULT" | "MPOL_LOCAL", false) => {
            return Err(invalid(format!("linux.memoryPolicy.nodes: {} takes none", raw.mode)))
        }
        ("MPOL_DEFAULT" | "MPOL_LOCAL" | "MPOL_PREFERRED", _) | (_, false) => {}
        (_, true) => return Err(invalid(format!("linux.memoryPolicy.nodes: {} needs them", raw.mode))),
    }
    for (i, flag) in raw.flags.iter().flatten().enumerate() {
        mode |= known(&FLAGS, format!("linux.memoryPolicy.flags[{i}]"), flag)?;
    }
    Ok(MemoryPolicy { mode, nodes })
}
