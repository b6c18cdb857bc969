//! Repeatable dice for jitter and weighted choice, and the keyed hash of our tables. Both start from the seed.
//!
//! Not for secrets. The driver takes the seed from real dice, so that nobody outside can choose recipient domains
//! whose hashes collide.

use std::hash::{BuildHasher, DefaultHasher, Hasher};
use std::time::Duration;

/// Marsaglia's xorshift64*.
#[derive(Clone, Debug)]
pub(crate) struct Dice(u64);

impl Dice {
    pub(crate) fn seeded(seed: u64) -> Dice {
        // The one state that xorshift never leaves is zero; neighbouring seeds must not give neighbouring throws.
        let mixed = seed.wrapping_add(0x9e37_79b9_7f4a_7c15).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        Dice((mixed ^ (mixed >> 31)).max(1))
    }

    fn throw(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    /// Evenly from `0..n`; 0 when `n` is 0.
    pub(crate) fn below(&mut self, n: u64) -> u64 {
        // Multiply and shift instead of a remainder; the bias is n / 2^64.
        ((u128::from(self.throw()) * u128::from(n)) >> 64) as u64
    }

    /// `wait`, ten per cent more or less, so that what was deferred together does not come back together.
    pub(crate) fn jitter(&mut self, wait: Duration) -> Duration {
        let spread = wait / 5;
        let millis = u64::try_from(spread.as_millis()).unwrap_or(u64::MAX);
        wait - spread / 2 + Duration::from_millis(self.below(millis.saturating_add(1)))
    }
}

/// SipHash with the seed in front of every key.
#[derive(Clone)]
pub(crate) struct Hashing(u64);

impl Hashing {
    pub(crate) fn seeded(seed: u64) -> Hashing {
        Hashing(seed)
    }
}

impl BuildHasher for Hashing {
    type Hasher = DefaultHasher;

    fn build_hasher(&self) -> DefaultHasher {
        let mut hasher = DefaultHasher::new();
        hasher.write_u64(self.0);
        hasher
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn jitter_stays_within_ten_per_cent_and_uses_all_of_it() {
        let mut dice = Dice::seeded(1);
        let waits: Vec<Duration> = (0..10_000).map(|_| dice.jitter(Duration::from_secs(100))).collect();
        let (least, most) = (waits.iter().min().unwrap(), waits.iter().max().unwrap());
        assert!(*least >= Duration::from_secs(90) && *least < Duration::from_secs(91), "{least:?}");
        assert!(*most <= Duration::from_secs(110) && *most > Duration::from_secs(109), "{most:?}");
        assert_eq!(dice.jitter(Duration::ZERO), Duration::ZERO);
    }

    #[test]
    fn throws_are_even() {
        let mut dice = Dice::seeded(0);
        let mut seen = [0u32; 7];
        for _ in 0..70_000 {
            seen[dice.below(7) as usize] += 1;
        }
        assert!(seen.iter().all(|&n| (9_500..10_500).contains(&n)), "{seen:?}");
        assert_eq!(dice.below(0), 0);
    }
}
