//! The process that goes on in another one's stead.

use super::{run_sibling, Lent};
use crate::sys::child::{self as sys, Result};
use ::core::convert::Infallible;

/// Makes the process, whose pid is on the board then, and ends.
pub(super) fn make(lent: &Lent<'_>, number: u32, flags: u64) -> Result<()> {
    let next = number.saturating_add(1);
    sys::clone::sibling(flags, lent.board, || -> Infallible { run_sibling(lent, next) })?;
    sys::exec::exit(0)
}
