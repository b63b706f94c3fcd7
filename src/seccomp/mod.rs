//! A seccomp profile as the program that the kernel runs at every system call of the container.
//!
//! It is compiled in the shim, before the clone; the child only loads it. What a number alone decides is looked up
//! in ours (`table`, `tree`); the rest of a profile is compiled by libseccomp (`compile`), which also knows the
//! calls' names and numbers on every architecture.

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

use crate::sys::seccomp::Filter;

/// A compiled profile.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Compiled {
    pub filter: Filter,
    /// What is worth a line in the log: names that libseccomp does not know.
    pub warnings: Vec<String>,
}
