//! How many reads, writes, connects and accepts were begun and have not ended.
//!
//! A leak of these is invisible from above: a session that timed out is gone, yet the kernel may still hold its
//! buffer and its descriptor. So tests assert that the count comes back to zero.

use std::cell::Cell;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};

/// One counter for every few threads, each on cache lines of its own: ring threads must not fight over a word.
#[repr(align(128))]
struct Shard(AtomicU64);

static SHARDS: [Shard; 32] = [const { Shard(AtomicU64::new(0)) }; 32];
static NEXT: AtomicUsize = AtomicUsize::new(0);

thread_local! {
    static MINE: Cell<usize> = Cell::new(NEXT.fetch_add(1, Relaxed) % SHARDS.len());
}

/// Operations on sockets, of all threads, that were begun and have not ended.
pub fn operations_in_flight() -> u64 {
    SHARDS.iter().map(|shard| shard.0.load(Relaxed)).sum()
}

/// Held as long as the operation lasts; on io_uring it travels with the buffer, so that an abandoned one still counts.
pub(crate) struct InFlight(&'static Shard);

impl InFlight {
    pub(crate) fn begin() -> Self {
        let shard = &SHARDS[MINE.get()];
        shard.0.fetch_add(1, Relaxed);
        Self(shard)
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        self.0.0.fetch_sub(1, Relaxed);
    }
}
