//! The process that continues in another one's place.

use super::{run_sibling, Lent};
use crate::sys::child::{self as sys, Forked, Result};
use ::core::convert::Infallible;

/// Creates that process, puts its pid on the board, and ends.
pub(super) fn make(forked: Forked, lent: &Lent<'_>, number: u32, flags: u64) -> Result<()> {
    let next = number.saturating_add(1);
    sys::clone::sibling(forked, flags, lent.board, |forked| -> Infallible {
        run_sibling(forked, lent, next)
    })?;
    sys::exec::exit(forked, 0)
}
