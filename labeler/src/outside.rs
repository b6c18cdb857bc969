//! The clock and the dice: the only file of the labeler that asks either. Decisions take `now` as an argument.

use std::time::SystemTime;

use ring::rand::{SecureRandom, SystemRandom};

/// The time of day.
pub(crate) fn now() -> SystemTime {
    SystemTime::now()
}

/// The clock that waits are measured with.
pub(crate) fn moment() -> tokio::time::Instant {
    tokio::time::Instant::now()
}

/// Octets that nobody can guess.
pub(crate) fn random<const N: usize>() -> [u8; N] {
    let mut octets = [0; N];
    assert!(SystemRandom::new().fill(&mut octets).is_ok(), "the kernel has randomness");
    octets
}
