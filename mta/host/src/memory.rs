//! How much memory the program has asked for and not given back.
//!
//! What the system shows of a process (`RssAnon`) says little of what it holds: an allocator keeps pages of what was freed, some
//! megabytes more or less from one minute to the next. So the allocator is asked through one that counts. Each thread counts for
//! itself, in a place that nobody else writes: a nanosecond for each allocation, where one counter for all would be fought over.
//!
//! Not in it: stacks, code, files that are mapped, and what libraries in C ask of the system's allocator (LMDB, some megabytes,
//! the same at all times).

// To be an allocator is unsafe.
#![allow(unsafe_code)]

use std::alloc::{GlobalAlloc, Layout};
use std::cell::Cell;
use std::sync::atomic::{AtomicIsize, AtomicUsize, Ordering};

/// Threads that count by themselves; all further ones share the last place.
const PLACES: usize = 128;

/// On a cache line of its own.
#[repr(align(128))]
struct Place(AtomicIsize);

static HELD: [Place; PLACES] = [const { Place(AtomicIsize::new(0)) }; PLACES];
static TAKEN: AtomicUsize = AtomicUsize::new(0);

thread_local! {
    /// The place of this thread; none yet.
    static MINE: Cell<usize> = const { Cell::new(usize::MAX) };
}

/// Octets that [`Counting`] has given out and not taken back, on all threads. 0 where it is not the program's allocator.
pub fn held() -> usize {
    // What one thread allocates another frees: only the sum means something.
    let sum: isize = HELD.iter().map(|place| place.0.load(Ordering::Relaxed)).sum();
    usize::try_from(sum).unwrap_or(0)
}

fn count(bytes: isize) {
    let nth = MINE.try_with(|mine| {
        if mine.get() == usize::MAX {
            mine.set(TAKEN.fetch_add(1, Ordering::Relaxed).min(PLACES - 1));
        }
        mine.get()
    });
    match nth {
        Ok(nth) if nth < PLACES - 1 => {
            let held = &HELD[nth].0;
            held.store(held.load(Ordering::Relaxed).wrapping_add(bytes), Ordering::Relaxed);
        }
        _ => drop(HELD[PLACES - 1].0.fetch_add(bytes, Ordering::Relaxed)),
    }
}

/// An allocator that counts what another one gives out.
pub struct Counting<A>(pub A);

// SAFETY: every call goes to the other allocator as it came, and what that returns is returned. Counting allocates nothing: the
// thread's place needs neither initialising nor dropping.
unsafe impl<A: GlobalAlloc> GlobalAlloc for Counting<A> {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller's promises are those that it asks for.
        let place = unsafe { self.0.alloc(layout) };
        if !place.is_null() {
            count(layout.size().cast_signed());
        }
        place
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller's promises are those that it asks for.
        let place = unsafe { self.0.alloc_zeroed(layout) };
        if !place.is_null() {
            count(layout.size().cast_signed());
        }
        place
    }

    unsafe fn dealloc(&self, place: *mut u8, layout: Layout) {
        count(layout.size().cast_signed().wrapping_neg());
        // SAFETY: the caller's promises are those that it asks for.
        unsafe { self.0.dealloc(place, layout) }
    }

    unsafe fn realloc(&self, place: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        // SAFETY: the caller's promises are those that it asks for.
        let moved = unsafe { self.0.realloc(place, layout, size) };
        if !moved.is_null() {
            count(size.cast_signed().wrapping_sub(layout.size().cast_signed()));
        }
        moved
    }
}
