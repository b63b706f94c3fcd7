//! `linux.uidMappings`, `linux.gidMappings` and those of mounts: which host ids stand for which ids inside.

use crate::error::{invalid, Result};
use oci_spec::runtime::LinuxIdMapping;

/// The most lines that the kernel takes: user_namespaces(7).
const MOST: usize = 340;

/// One line of a map: `count` ids starting at `inside` map to those starting at `outside` on the host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IdRange {
    pub inside: u32,
    pub outside: u32,
    pub count: u32,
}

/// Both maps of a user namespace.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Mappings {
    pub uids: Vec<IdRange>,
    pub gids: Vec<IdRange>,
}

impl Mappings {
    pub(crate) fn is_empty(&self) -> bool {
        self.uids.is_empty() && self.gids.is_empty()
    }

    /// The text that `/proc/<pid>/uid_map` takes.
    pub(crate) fn uid_map(&self) -> String {
        text(&self.uids)
    }

    pub(crate) fn gid_map(&self) -> String {
        text(&self.gids)
    }

    /// Returns the host's id for a user id inside.
    pub(crate) fn uid_outside(&self, inside: u32) -> Option<u32> {
        self.uids.iter().find_map(|range| {
            let offset = inside.checked_sub(range.inside)?;
            (offset < range.count).then(|| range.outside.checked_add(offset)).flatten()
        })
    }
}

fn text(ranges: &[IdRange]) -> String {
    ranges.iter().map(|range| format!("{} {} {}\n", range.inside, range.outside, range.count)).collect()
}

/// `field` is the list's; an error names an entry's field, as `linux.uidMappings[1].size`.
pub(super) fn check(raw: Option<&Vec<LinuxIdMapping>>, field: &str) -> Result<Vec<IdRange>> {
    let each = |raw: &LinuxIdMapping| IdRange {
        inside: raw.container_id(),
        outside: raw.host_id(),
        count: raw.size(),
    };
    let ranges: Vec<IdRange> = raw.into_iter().flatten().map(each).collect();
    check_ranges(&ranges, |i, part| match part {
        "" => format!("{field}[{i}]"),
        part => format!("{field}[{i}].{part}"),
    })?;
    Ok(ranges)
}

/// Rejects ranges that the kernel would refuse without explanation. `at` names a field of an entry: `(1, "size")`.
pub(crate) fn check_ranges(ranges: &[IdRange], at: impl Fn(usize, &str) -> String) -> Result<()> {
    let overlap = |a: u32, b: u32, one: &IdRange, other: &IdRange| {
        u64::from(a) < u64::from(b) + u64::from(other.count)
            && u64::from(b) < u64::from(a) + u64::from(one.count)
    };
    for (i, range) in ranges.iter().enumerate() {
        if i >= MOST {
            return Err(invalid(format!("{}: more than {MOST} ranges", at(i, ""))));
        }
        if range.count == 0 {
            return Err(invalid(format!("{}: must not be 0", at(i, "size"))));
        }
        for (name, first) in [("containerID", range.inside), ("hostID", range.outside)] {
            // The last id, (uid_t)-1, is not valid.
            if u64::from(first) + u64::from(range.count) > u64::from(u32::MAX) {
                return Err(invalid(format!(
                    "{}: {first} and {} more are too many",
                    at(i, name),
                    range.count
                )));
            }
        }
        for (j, other) in ranges.iter().enumerate().take(i) {
            if overlap(range.inside, other.inside, range, other) {
                return Err(invalid(format!("{}: overlaps with range {j}", at(i, "containerID"))));
            }
            if overlap(range.outside, other.outside, range, other) {
                return Err(invalid(format!("{}: overlaps with range {j}", at(i, "hostID"))));
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_looked_up_in_every_range() {
        let range = |inside, outside, count| IdRange { inside, outside, count };
        let mappings = Mappings { uids: vec![range(0, 1000, 1), range(1, 100_000, 10)], gids: Vec::new() };
        let found: Vec<_> = [0, 1, 10, 11, u32::MAX].iter().map(|id| mappings.uid_outside(*id)).collect();
        assert_eq!(found, [Some(1000), Some(100_000), Some(100_009), None, None]);
        assert_eq!(mappings.uid_map(), "0 1000 1\n1 100000 10\n");
    }
}
