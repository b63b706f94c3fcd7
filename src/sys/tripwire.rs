//! Debug and test builds only: an allocator that ends the child of a clone at its first allocation.
//!
//! With the default malloc such a child usually gets away with it, and hangs only once in a long while, if another
//! thread held the arena's lock; no ordinary test shows that.
//!
//! It also counts, for the tests that budget a request's allocations.

use super::child::{exec, forked};
use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicU64, Ordering};

/// The exit code of a child that allocated.
const CODE: i32 = 77;

static COUNT: AtomicU64 = AtomicU64::new(0);

/// The number of heap allocations by all threads since the process began. A reallocation counts again.
pub fn allocations() -> u64 {
    COUNT.load(Ordering::Relaxed)
}

struct Tripwire;

#[global_allocator]
static TRIPWIRE: Tripwire = Tripwire;

// SAFETY: every call is passed on to `System` unchanged, or does not return.
unsafe impl GlobalAlloc for Tripwire {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        if let Some(forked) = forked::forked() {
            exec::exit(forked, CODE);
        }
        COUNT.fetch_add(1, Ordering::Relaxed);
        // SAFETY: the caller upholds the contract.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        if let Some(forked) = forked::forked() {
            exec::exit(forked, CODE);
        }
        // SAFETY: the caller upholds the contract; `pointer` came from `System`.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[cfg(test)]
mod tests {
    use super::CODE;
    use crate::sys::child::{clone, exec, signal, wait};

    fn code_of_a_child_that(acts: impl FnOnce()) -> u32 {
        let mask = signal::block_all().unwrap();
        let child = clone::clone(0, None, |forked| {
            acts();
            exec::exit(forked, 3)
        });
        signal::restore(mask).unwrap();
        wait::reap(child.unwrap().pid).unwrap().code
    }

    #[test]
    fn an_allocation_in_the_child_ends_it() {
        let code = code_of_a_child_that(|| drop(std::hint::black_box(vec![1u8; 100])));
        assert_eq!(code, CODE as u32);
    }

    #[test]
    fn giving_memory_back_in_the_child_ends_it() {
        let memory = std::hint::black_box(vec![1u8; 100]);
        assert_eq!(code_of_a_child_that(move || drop(memory)), CODE as u32);
    }

    #[test]
    fn allocations_are_counted() {
        let before = super::allocations();
        drop(std::hint::black_box(vec![1u8; 100]));
        // Other tests run at the same time.
        assert!(super::allocations() > before);
    }

    #[test]
    fn a_child_that_does_not_allocate_ends_as_it_likes() {
        assert_eq!(code_of_a_child_that(|| assert_eq!(std::hint::black_box([1u8; 100])[99], 1)), 3);
    }
}
