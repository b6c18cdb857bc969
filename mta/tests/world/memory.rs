//! What a site that has nothing to do costs in memory, counted octet by octet.
//!
//! The same mail goes to some sites, to as many others, and to those again, each time with all connections closed at the end.
//! By how much more the second has left behind than the third is what the others cost while they idle; what messages leave
//! (fingerprints, what the provider noted) both have left.
//!
//! A world lives on one thread, so it is that thread's memory. What the DNS said of them is not in it: here the DNS is scripted
//! (`host/tests/memory.rs` counts that). What LMDB has mapped is the disk's.

// Only an allocator sees all that is held, and to be one is unsafe.
#![allow(unsafe_code)]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::time::Duration;

use loadtest::sink::Script;

use super::parts::World;

/// With the 1,024 that DNS may take it is less than 4 KB.
const SITE_BYTES_MAX: isize = 2560;
const SITES: usize = 600;
/// Recipients of a message, each in a domain of its own.
const RECIPIENTS: usize = 60;

struct Counting;

#[global_allocator]
static ALLOCATOR: Counting = Counting;

thread_local! {
    /// What this thread has allocated and has not freed.
    static HELD: Cell<isize> = const { Cell::new(0) };
}

fn count(bytes: isize) {
    // A thread that ends counts no more.
    let _ = HELD.try_with(|held| held.set(held.get() + bytes));
}

// SAFETY: all of it is the system's allocator; counting touches none of what it returns, and allocates nothing.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(layout.size() as isize);
        // SAFETY: the caller's promises are those that it asks for.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, place: *mut u8, layout: Layout) {
        count(-(layout.size() as isize));
        // SAFETY: the caller's promises are those that it asks for.
        unsafe { System.dealloc(place, layout) }
    }
}

#[test]
fn an_idle_site_costs_less_than_2560_octets() {
    let mut world = World::seed(41).provider("hosts.example", Script::accepts_all());
    let zone = world.zone();
    let [some, others] = ["a", "b"].map(|kind| {
        let domain = |nth| format!("{kind}{nth}.recipients.example");
        let domains: Vec<String> = (0..SITES).map(domain).collect();
        for domain in &domains {
            let host = format!("mx.{domain}");
            zone.mx(domain, 10, &host).address(&host, "198.51.100.1".parse().unwrap());
        }
        domains
    });
    let mut left = Vec::with_capacity(3);
    let provider = world.provider_of("hosts.example");
    let counted = &mut left;
    world.live(Duration::from_secs(200), |day| async move {
        let mut number = 0;
        for domains in [&some, &others, &others] {
            for few in domains.chunks(RECIPIENTS) {
                let recipients: Vec<String> = few.iter().map(|domain| format!("someone@{domain}")).collect();
                day.submit(number, &recipients.iter().map(String::as_str).collect::<Vec<_>>()).await;
                number += 1;
            }
            // Longer than a connection is kept, and shorter than a route.
            tokio::time::sleep(Duration::from_secs(30)).await;
            counted.push(HELD.get());
        }
    });
    let [before, after, again] = left[..] else { panic!("{left:?}") };
    assert_eq!(provider.messages().len(), 3 * SITES, "all of it arrived");
    let each = ((after - before) - (again - after)) / SITES as isize;
    println!("{each} octets a site; {before}, {after}, {again} held");
    assert!(each < SITE_BYTES_MAX, "{each} octets a site");
    assert!(each > 256, "{each} octets a site: nothing is remembered of them");
}
