//! `execCPUAffinity`: the CPUs on which an exec runs while it enters the container's cgroup, and after that.

use crate::error::Result;
use crate::spec::index_list::{self, IndexList};
use crate::spec::raw;

/// The most CPUs that any kernel can have (CONFIG_NR_CPUS).
const LIMIT: usize = 8192;

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Affinity {
    pub initial: Option<IndexList>,
    pub last: Option<IndexList>,
}

pub(super) fn check(raw: raw::ExecCpuAffinity, field: &str) -> Result<Option<Affinity>> {
    let cpus = |name: &str, list: Option<String>| match list.as_deref() {
        None | Some("") => Ok(None),
        Some(list) => parse(list, &format!("{field}.{name}")).map(Some),
    };
    let affinity = Affinity { initial: cpus("initial", raw.initial)?, last: cpus("final", raw.last)? };
    Ok(Some(affinity).filter(|affinity| *affinity != Affinity::default()))
}

fn parse(list: &str, field: &str) -> Result<IndexList> {
    index_list::parse(list, field, "processor", LIMIT)
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
        assert_eq!(mask(",1,, 2 ,"), mask("1-2"));
        for list in ["a", ",", " ", "-1", "1-2-3", "0x3"] {
            assert_eq!(mask(list).unwrap_err(), format!("f: {list:?} is not a list of processors"));
        }
        assert_eq!(mask("8192").unwrap_err(), "f: \"8192\" has a processor that no kernel has");
    }
}
