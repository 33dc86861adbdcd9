//! A limit on the memory of a parser. Counts what its thread takes, so that other threads of a test do not count.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

/// Counts the bytes in use and their peak, for every thread.
struct Counting;

// Without a destructor, so that it can be used for as long as a thread allocates.
thread_local! {
    static NOW: Cell<usize> = const { Cell::new(0) };
    static PEAK: Cell<usize> = const { Cell::new(0) };
}

// SAFETY: every call is handed on to the system's allocator; the counters do not touch the memory and do not allocate.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let now = NOW.get().wrapping_add(layout.size());
        NOW.set(now);
        PEAK.set(PEAK.get().max(now));
        // SAFETY: the caller keeps the contract of `alloc`, which is the same there.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // What another thread has taken may be given back here.
        NOW.set(NOW.get().wrapping_sub(layout.size()));
        // SAFETY: the pointer came from the system's allocator with this layout.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Does `work`, which must not take more memory than `factor` times the `length` of its input and `constant` bytes.
///
/// # Panics
/// When it does.
pub fn bounded<T>(length: usize, factor: usize, constant: usize, work: impl FnOnce() -> T) -> T {
    // From here on nothing wraps: who gives back more than was taken since begins far from both ends.
    NOW.set(usize::MAX / 2);
    PEAK.set(usize::MAX / 2);
    let result = work();
    let used = PEAK.get() - usize::MAX / 2;
    assert!(used <= factor * length + constant, "{used} bytes of memory for an input of {length}");
    result
}
