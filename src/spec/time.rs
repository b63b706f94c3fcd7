//! `linux.timeOffsets`: the differences of a new time namespace's clocks from the host's.

use super::{raw, Namespaces, Ns};
use crate::error::{invalid, Result};
use std::collections::BTreeMap;
use std::ffi::CString;
use std::fmt::Write;

/// The clocks of a time namespace: time_namespaces(7).
const CLOCKS: [&str; 2] = ["monotonic", "boottime"];

/// Returns the text for /proc/PID/timens_offsets: a line for each clock.
pub(super) fn check(
    offsets: BTreeMap<String, raw::TimeOffset>,
    namespaces: &Namespaces,
) -> Result<Option<CString>> {
    let mut text = String::new();
    for (clock, offset) in &offsets {
        let field = format!("linux.timeOffsets.{clock}");
        if !CLOCKS.contains(&clock.as_str()) {
            return Err(invalid(format!("{field}: a time namespace has monotonic and boottime only")));
        }
        match &namespaces.time {
            Ns::New => {}
            Ns::Host => return Err(invalid(format!("{field}: cannot be set without a time namespace"))),
            Ns::Join(_) => {
                return Err(invalid(format!("{field}: cannot be set in a time namespace that is joined")))
            }
        }
        if offset.nanosecs >= 1_000_000_000 {
            return Err(invalid(format!("{field}.nanosecs: {} is a second or more", offset.nanosecs)));
        }
        let _ = writeln!(text, "{clock} {} {}", offset.secs, offset.nanosecs);
    }
    Ok(if text.is_empty() { None } else { CString::new(text).ok() })
}
