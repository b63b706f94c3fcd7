//! Compiles a seccomp profile to the program that the kernel runs at every system call of the container.
//!
//! The shim compiles it before the clone; the child only loads it. Decisions that depend on the call's number alone use
//! our own lookup table (`table`, `tree`); libseccomp compiles the rest of a profile (`compile`), and knows the calls'
//! names and numbers on every architecture.

mod arch;
mod cache;
mod compile;
mod key;
mod newer;
mod only;
mod table;
mod tree;
mod verdict;

#[cfg(test)]
mod tests;

pub(crate) use arch::accepted;
pub(crate) use cache::Cache;
pub use compile::compile;
pub(crate) use key::{unlocked, wanted};
pub(crate) use only::only;

use crate::sys::seccomp::{self as kernel, Filter};

/// Whether this kernel has SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV (Linux 5.19).
pub(crate) fn waits_killable() -> bool {
    kernel::knows(kernel::FLAG_NEW_LISTENER | kernel::FLAG_WAIT_KILLABLE_RECV)
}

/// Of the libseccomp in this program.
pub(crate) fn version() -> Option<String> {
    libseccomp::ScmpVersion::current().ok().map(|version| version.to_string())
}

/// A compiled profile.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Compiled {
    pub filter: Filter,
    /// Warnings for the log: names that libseccomp does not know.
    pub warnings: Vec<String>,
}
