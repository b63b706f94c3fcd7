//! Memory that the shim shares with the child of a clone: the child reports without a system call, which a seccomp
//! profile could refuse or answer itself.
//!
//! There are two pages: a process that the container can see has only the second one, so reports of births never come
//! from a process that a container could have taken over. The second page only selects a step from a list that the shim
//! has.

use super::{check, Result};
use ::core::prelude::rust_2021::*;
use ::core::ptr::NonNull;
use ::core::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use ::{core, libc};

/// The page size of x86-64. With larger pages both would have to grow: only a whole page can be hidden.
pub(in crate::sys) const PAGE: usize = 4096;

#[repr(C, align(4096))]
struct Pages {
    /// The step that the child has reached.
    step: AtomicU32,
    /// The pid of the process that continues in the child's place, as seen in the child's pid namespace.
    born: AtomicU32,
    outcome: Outcome,
}

#[repr(C, align(4096))]
struct Outcome(AtomicU64);

/// Bit 63 marks an outcome as set: an errno of 0 is valid too.
const TOLD: u64 = 1 << 63;

/// Encodes a failed step as one number.
pub(in crate::sys) const fn failure(step: u32, errno: u32) -> u64 {
    TOLD | ((step as u64) << 32) & !TOLD | errno as u64
}

/// Shared with every child that is cloned during its lifetime.
#[derive(Debug)]
pub struct Board(NonNull<Pages>);

// SAFETY: the memory behind the pointer is atomic, and mapped until the drop.
unsafe impl Send for Board {}
// SAFETY: as above.
unsafe impl Sync for Board {}

impl Board {
    pub fn new() -> Result<Self> {
        let (size, access) = (size_of::<Pages>(), libc::PROT_READ | libc::PROT_WRITE);
        let flags = libc::MAP_SHARED | libc::MAP_ANONYMOUS;
        // SAFETY: a new mapping at an address of the kernel's choice touches no existing memory.
        let pages = unsafe { libc::mmap(core::ptr::null_mut(), size, access, flags, -1, 0) };
        check(pages as libc::c_long)?;
        NonNull::new(pages.cast()).map(Board).ok_or(super::Errno::EFAULT)
    }

    fn pages(&self) -> &Pages {
        // SAFETY: mapped until the drop, zeroed by the kernel, and only ever used as atomics.
        unsafe { self.0.as_ref() }
    }

    /// Records, in the child, the step that it has reached.
    pub fn at(&self, step: u32) {
        self.pages().step.store(step, Ordering::Relaxed);
    }

    /// Records, in the child, that this step failed.
    pub fn fail(&self, step: u32, errno: i32) {
        self.pages().outcome.0.store(failure(step, errno as u32), Ordering::Release);
    }

    pub fn step(&self) -> u32 {
        self.pages().step.load(Ordering::Relaxed)
    }

    /// The process that the child has created in its place.
    pub fn born(&self) -> Option<u32> {
        Some(self.pages().born.load(Ordering::Acquire)).filter(|pid| *pid != 0)
    }

    /// The failed step, and its errno.
    pub fn failed(&self) -> Option<(u32, i32)> {
        let told = self.pages().outcome.0.load(Ordering::Acquire);
        (told & TOLD != 0).then_some((((told & !TOLD) >> 32) as u32, told as u32 as i32))
    }

    /// The address at which the kernel stores the pid of the process that the child creates.
    pub(in crate::sys) fn born_at(&self) -> *mut u32 {
        self.pages().born.as_ptr()
    }

    pub(in crate::sys) fn outcome_at(&self) -> *const AtomicU64 {
        core::ptr::from_ref(&self.pages().outcome.0)
    }

    /// The first address, and the one after the last.
    pub(in crate::sys) fn range(&self) -> (usize, usize) {
        let first = self.0.as_ptr() as usize;
        (first, first.saturating_add(size_of::<Pages>()))
    }
}

impl Drop for Board {
    fn drop(&mut self) {
        // SAFETY: the mapping of `new`, which nothing borrows any more.
        unsafe { libc::munmap(self.0.as_ptr().cast(), size_of::<Pages>()) };
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use ::std::assert_eq;

    #[test]
    fn what_a_child_says_is_heard() {
        let board = Board::new().unwrap();
        assert_eq!((board.step(), board.born(), board.failed()), (0, None, None));
        board.at(7);
        board.fail(9, libc::ENOENT);
        assert_eq!((board.step(), board.failed()), (7, Some((9, libc::ENOENT))));
        board.fail(u32::MAX >> 1, 0);
        assert_eq!(board.failed(), Some((u32::MAX >> 1, 0)));
        let (first, end) = board.range();
        assert_eq!(end - first, 2 * PAGE);
        assert_eq!(board.outcome_at() as usize, first + PAGE);
    }
}
