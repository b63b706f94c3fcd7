//! The image of the seccomp filters. The kernel tells whether a process has one, but not which.

use super::protos::image::SeccompEntry;
use crate::error::{invalid, Error, Kind, Result};
use protobuf::Message;

/// The file's name.
pub const FILTERS: &str = "seccomp.img";
/// The programs of a few hundred filters.
pub const FILTERS_MAX: u64 = 16 << 20;

/// IMG_COMMON_MAGIC and SECCOMP_MAGIC of criu/include/magic.h.
const MAGIC: [u32; 2] = [0x5456_4319, 0x6441_3049];

/// Checks that whichever of the filters a process has, it also has one that `is_known`, given as the bytes of its
/// program: a process has those before its last one, too.
pub fn all_begin_with(image: &[u8], is_known: impl Fn(&[u8]) -> bool) -> Result<()> {
    let filters = filters(image)?.seccomp_filters;
    let known: Vec<bool> = filters.iter().map(|filter| is_known(filter.filter())).collect();
    for start in 0..filters.len() {
        let mut at = start;
        // A list that leads in a circle has no end.
        let mut left = filters.len();
        while known.get(at) != Some(&true) {
            let before = filters.get(at).and_then(|filter| filter.prev).map(|before| before as usize);
            left = left.saturating_sub(1);
            match before {
                Some(before) if left > 0 => at = before,
                _ => {
                    return Err(invalid(format!(
                        "checkpoint: {FILTERS}: a filter that is not linux.seccomp's"
                    )))
                }
            }
        }
    }
    Ok(())
}

fn filters(image: &[u8]) -> Result<SeccompEntry> {
    let bad = || invalid(format!("checkpoint: {FILTERS}: it is no image of filters"));
    let word = |at: usize| {
        let bytes = image.get(at * 4..at * 4 + 4)?;
        Some(u32::from_le_bytes(bytes.try_into().ok()?))
    };
    if [word(0), word(1)] != MAGIC.map(Some) {
        return Err(bad());
    }
    let length = word(2).ok_or_else(bad)? as usize;
    let message = image.get(12..).and_then(|rest| rest.get(..length)).ok_or_else(bad)?;
    SeccompEntry::parse_from_bytes(message)
        .map_err(|e| Error::caused_by(Kind::Invalid, format!("checkpoint: {FILTERS}"), e))
}

#[cfg(test)]
mod tests {
    use super::super::protos::image::SeccompFilter;
    use super::*;

    fn image(filters: &[(&[u8], Option<u32>)]) -> Vec<u8> {
        let filter = |(program, prev): &(&[u8], Option<u32>)| SeccompFilter {
            filter: Some(program.to_vec()),
            prev: *prev,
            ..Default::default()
        };
        let all =
            SeccompEntry { seccomp_filters: filters.iter().map(filter).collect(), ..Default::default() };
        let message = all.write_to_bytes().unwrap();
        let words = [MAGIC[0], MAGIC[1], message.len() as u32].map(u32::to_le_bytes).concat();
        [words, message].concat()
    }

    fn check(filters: &[(&[u8], Option<u32>)]) -> Result<()> {
        all_begin_with(&image(filters), |program| program == b"ours")
    }

    #[test]
    fn every_filter_follows_a_known_one() {
        check(&[]).unwrap();
        check(&[(b"ours", None), (b"own", Some(0)), (b"more", Some(1)), (b"ours", None)]).unwrap();
        for bad in [
            &[(&b"open"[..], None)][..],
            &[(b"ours", None), (b"open", None)],
            &[(b"open", None), (b"ours", Some(0))],
            &[(b"a", Some(1)), (b"b", Some(0))],
            &[(b"a", Some(7))],
        ] {
            assert!(check(bad).unwrap_err().to_string().contains("linux.seccomp"), "{bad:?}");
        }
    }

    #[test]
    fn what_is_no_image_is_refused() {
        let good = image(&[(b"ours", None)]);
        for bad in [&b""[..], b"garbage of some length", &good[..11], &good[..good.len() - 1]] {
            assert_eq!(all_begin_with(bad, |_| true).unwrap_err().kind(), Kind::Invalid);
        }
    }
}
