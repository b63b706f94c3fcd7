//! What the child of a clone calls: system calls, and nothing else.
//!
//! The clone copies the memory of a multithreaded process, and any lock in the copy may be held for ever, malloc's
//! first of all. This module is therefore under the deny list of `crate::init`, and knows nothing of the rest of the
//! crate. The shim may call it too ([`crate::sys`] names what it does call), except for functions that require
//! [`Forked`].
#![no_implicit_prelude]
#![deny(
    clippy::disallowed_macros,
    clippy::disallowed_methods,
    clippy::disallowed_types,
    clippy::indexing_slicing,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::arithmetic_side_effects
)]

use ::core::prelude::rust_2021::*;
use ::{core, libc};

pub mod board;
pub mod clone;
pub mod console;
pub(crate) mod directory;
pub(crate) mod entry;
pub(crate) mod exec;
pub mod fd;
pub(crate) mod forked;
pub mod identity;
pub(crate) mod idle;
pub(crate) mod keyring;
pub(crate) mod last;
pub(crate) mod limits;
pub(crate) mod loop_device;
pub mod mount;
pub mod namespace;
pub(crate) mod netlink;
pub(crate) mod network;
pub(crate) mod poll;
pub mod root;
pub(crate) mod rseq;
pub mod seccomp;
pub(crate) mod signal;
pub mod socket;
pub mod wait;
pub(crate) mod walk;

pub use ::nix::errno::Errno;
pub use forked::Forked;

pub type Result<T, E = Errno> = core::result::Result<T, E>;

/// A launch's own, the sixth argument of the calls that it makes under its filter: see [`last`]. 0: none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Key(pub u64);

/// Converts the result of a raw system call made with libc's `syscall`, which has stored the errno.
pub(in crate::sys) fn check(answer: libc::c_long) -> Result<libc::c_long> {
    match answer {
        -1 => Err(Errno::last()),
        answer => Ok(answer),
    }
}
