//! Lists of CPUs and memory nodes, in the kernel's format: cpuset(7), "List format".

use crate::error::{invalid, Result};

/// Bit n of byte m stands for number 8 * m + n.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct IndexList {
    pub mask: Vec<u8>,
    /// As written.
    pub list: String,
}

/// Parses `0-3,7`; `limit` is the most that any kernel can have, and `what` the noun for one.
pub(super) fn parse(list: &str, field: &str, what: &str, limit: usize) -> Result<IndexList> {
    let refuse = |why: String| Err(invalid(format!("{field}: {list:?} {why}")));
    // Multiples of the kernel's word: it takes only whole words.
    let mut mask = vec![0; 8];
    // The kernel and runc ignore empty elements.
    let words: Vec<&str> = list.split(',').map(str::trim).filter(|word| !word.is_empty()).collect();
    if words.is_empty() {
        return refuse(format!("is not a list of {what}s"));
    }
    for word in words {
        let (first, last) = word.split_once('-').unwrap_or((word, word));
        let (Ok(first), Ok(last)) = (first.trim().parse::<usize>(), last.trim().parse::<usize>()) else {
            return refuse(format!("is not a list of {what}s"));
        };
        if last < first {
            return refuse("has a range that ends before it begins".into());
        }
        if last >= limit {
            return refuse(format!("has a {what} that no kernel has"));
        }
        mask.resize(mask.len().max((last / 64 + 1) * 8), 0);
        for number in first..=last {
            mask[number / 8] |= 1 << (number % 8);
        }
    }
    Ok(IndexList { mask, list: list.into() })
}
