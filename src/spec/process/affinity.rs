//! `execCPUAffinity`: on which processors an exec runs while it enters the container's cgroup, and after that.

use crate::error::{invalid, Result};
use crate::spec::raw;

/// What the largest kernel can have (CONFIG_NR_CPUS).
const LIMIT: usize = 8192;

/// A mask as sched_setaffinity(2) takes it: bit n of byte m is processor 8 * m + n.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Cpus {
    pub mask: Vec<u8>,
    /// As written.
    pub list: String,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Affinity {
    pub initial: Option<Cpus>,
    pub last: Option<Cpus>,
}

pub(super) fn check(raw: raw::ExecCpuAffinity, field: &str) -> Result<Option<Affinity>> {
    let cpus = |name: &str, list: Option<String>| match list.as_deref() {
        None | Some("") => Ok(None),
        Some(list) => parse(list, &format!("{field}.{name}")).map(Some),
    };
    let affinity = Affinity { initial: cpus("initial", raw.initial)?, last: cpus("final", raw.last)? };
    Ok(Some(affinity).filter(|affinity| *affinity != Affinity::default()))
}

/// `0-3,7`.
fn parse(list: &str, field: &str) -> Result<Cpus> {
    let refuse = |what: &str| Err(invalid(format!("{field}: {list:?} {what}")));
    // Multiples of the kernel's word: it wants whole ones.
    let mut mask = vec![0; 8];
    for word in list.split(',') {
        let (first, last) = word.split_once('-').unwrap_or((word, word));
        let (Ok(first), Ok(last)) = (first.trim().parse::<usize>(), last.trim().parse::<usize>()) else {
            return refuse("is not a list of processors");
        };
        if last < first {
            return refuse("has a range that ends before it begins");
        }
        if last >= LIMIT {
            return refuse("has a processor that no kernel has");
        }
        mask.resize(mask.len().max((last / 64 + 1) * 8), 0);
        for cpu in first..=last {
            mask[cpu / 8] |= 1 << (cpu % 8);
        }
    }
    Ok(Cpus { mask, list: list.into() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_is_a_mask() {
        let mask = |list| parse(list, "f").map(|cpus| cpus.mask).map_err(|e| e.to_string());
        assert_eq!(mask("0-3,7"), Ok(vec![0b1000_1111, 0, 0, 0, 0, 0, 0, 0]));
        assert_eq!(mask("1, 64").unwrap(), [2, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0]);
        assert_eq!(mask("8191").unwrap().len(), 1024);
        assert_eq!(mask("3-1").unwrap_err(), "f: \"3-1\" has a range that ends before it begins");
        for list in ["a", "1,", "-1", "1-2-3", "0x3"] {
            assert_eq!(mask(list).unwrap_err(), format!("f: {list:?} is not a list of processors"));
        }
        assert_eq!(mask("8192").unwrap_err(), "f: \"8192\" has a processor that no kernel has");
    }
}
