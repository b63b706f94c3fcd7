//! What only the child of a clone has.

use ::core::prelude::rust_2021::*;
use ::core::sync::atomic::{AtomicBool, Ordering};

/// Proof of being the child of a clone: a copy of a multithreaded process, alone in its memory.
///
/// Only a clone hands it out, to the code that the child runs. A function that requires it would do harm in the shim:
/// it takes descriptors or memory from their owners, ends the process without running its exit handlers, changes what
/// all threads share (working directory, root, umask, limits, signal dispositions), or changes in one thread what the C
/// library keeps the same in all of them (ids, groups) or nobody expects to differ (capabilities).
#[derive(Clone, Copy, Debug)]
pub struct Forked(());

/// True in a child (which has its own copy of it). Never reset: the child ends in execve(2) or exit.
static FORKED: AtomicBool = AtomicBool::new(false);

impl Forked {
    /// For `clone` alone, in the child.
    pub(super) fn after_clone() -> Forked {
        FORKED.store(true, Ordering::Relaxed);
        Forked(())
    }
}

/// For the allocator, which takes no arguments of ours.
#[cfg(debug_assertions)]
pub(in crate::sys) fn forked() -> Option<Forked> {
    FORKED.load(Ordering::Relaxed).then_some(Forked(()))
}
