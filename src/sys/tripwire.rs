//! Debug and test builds only: an allocator that ends the child of a clone at its first allocation.
//!
//! With the default malloc such a child mostly gets away with it, and hangs once in a long while where another
//! thread held the arena's lock; no ordinary test shows that.

use std::alloc::{GlobalAlloc, Layout, System};

/// The exit code of a child that allocated.
const CODE: i32 = 77;

struct Tripwire;

#[global_allocator]
static TRIPWIRE: Tripwire = Tripwire;

// SAFETY: every call is passed on to `System` unchanged, or does not return.
unsafe impl GlobalAlloc for Tripwire {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        if super::exec::in_child() {
            super::exec::exit(CODE);
        }
        // SAFETY: the caller's promises are passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        if super::exec::in_child() {
            super::exec::exit(CODE);
        }
        // SAFETY: the caller's promises are passed on; `pointer` came from `System`.
        unsafe { System.dealloc(pointer, layout) }
    }
}
