//! The process that goes on in another one's stead.

use super::{rendezvous, run_sibling, Lent};
use crate::sys::fd::AsFd;
use crate::sys::{self, Errno, Result};
use ::core::convert::Infallible;
use ::core::prelude::rust_2021::*;

/// Waits for the shim's go (which holds its table of children then), makes the process, tells the shim of it, and ends.
/// Where this process ends in between, the other one finds its gate closed and ends too.
pub(super) fn make(lent: &Lent<'_>, number: u32, flags: u64) -> Result<()> {
    let birth = lent.birth.ok_or(Errno::EBADF)?;
    rendezvous(lent, number)?;
    let next = number.saturating_add(1);
    let child = sys::clone::sibling(flags, || -> Infallible { run_sibling(lent, birth, next) })?;
    sys::socket::send(birth, &child.pid.to_ne_bytes(), Some(child.pidfd.as_fd()))?;
    sys::exec::exit(0)
}
