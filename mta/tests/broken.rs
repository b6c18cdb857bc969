//! Egress among hosts that break off, dawdle, stammer and lie: see `loadtest::broken`, which plays and checks.

// A test that cannot go on says so by panicking.
#![allow(clippy::unwrap_used)]

use loadtest::broken::{Count, Stage};

/// Alone in its program: operations under way are counted for the whole process.
#[test]
fn every_recipient_has_the_fate_that_the_host_really_said() {
    let stage = Stage::new().unwrap();
    let mut count = Count::default();
    for seed in 1..=2_000 {
        count.add(&stage.play(seed).unwrap());
    }
    let enough = [count.delivered, count.failed, count.deferred, count.delivered_nevertheless, count.tls, count.mischief];
    assert!(enough.iter().all(|count| *count > 50), "too little happened to prove anything: {count}");
}
