//! Dice: unpredictable ones from the kernel, or seeded ones that repeat a simulation.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use ring::rand::{SecureRandom, SystemRandom};

/// A source of random octets. Clones of seeded dice share one sequence.
#[derive(Clone)]
pub struct Dice(Source);

#[derive(Clone)]
enum Source {
    System(SystemRandom),
    Seeded(Arc<Mutex<u64>>),
}

impl Dice {
    /// The kernel's random numbers: fit for secrets.
    pub fn system() -> Self {
        Self(Source::System(SystemRandom::new()))
    }

    /// A repeatable sequence for the simulation. Never for secrets.
    pub fn seeded(seed: u64) -> Self {
        Self(Source::Seeded(Arc::new(Mutex::new(seed))))
    }

    /// Fills `octets`.
    pub fn fill(&self, octets: &mut [u8]) {
        match &self.0 {
            // getrandom(2) does not fail once the machine has booted; going on with predictable secrets would be worse than stopping.
            Source::System(system) => assert!(system.fill(octets).is_ok(), "the kernel gives random numbers"),
            Source::Seeded(state) => {
                let mut state = state.lock().unwrap_or_else(PoisonError::into_inner);
                for chunk in octets.chunks_mut(8) {
                    let word = splitmix64(&mut state).to_le_bytes();
                    chunk.copy_from_slice(&word[..chunk.len()]);
                }
            }
        }
    }

    /// A number in `0..n`, every one as likely as another. `n` is at least 1.
    pub fn below(&self, n: u64) -> u64 {
        assert!(n > 0, "a number below zero was asked for");
        // Values past the last whole multiple of `n` would favour small results.
        let whole = u64::MAX - u64::MAX % n;
        loop {
            let mut octets = [0; 8];
            self.fill(&mut octets);
            let thrown = u64::from_le_bytes(octets);
            if thrown < whole {
                return thrown % n;
            }
        }
    }

    /// Puts `items` into a random order.
    pub fn shuffle<T>(&self, items: &mut [T]) {
        for last in (1..items.len()).rev() {
            items.swap(last, self.below(last as u64 + 1) as usize);
        }
    }
}

impl fmt::Debug for Dice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.0 {
            Source::System(_) => "Dice::system",
            Source::Seeded(_) => "Dice::seeded",
        })
    }
}

/// Vigna's SplitMix64: one word of state, passes the usual statistical tests.
fn splitmix64(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9E37_79B9_7F4A_7C15);
    let mut z = *state;
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_seed_throws_the_same_and_another_seed_does_not() {
        let throw = |seed| {
            let dice = Dice::seeded(seed);
            (0..20).map(|_| dice.below(1_000_000)).collect::<Vec<_>>()
        };
        assert_eq!(throw(7), throw(7));
        assert_ne!(throw(7), throw(8));
    }

    #[test]
    fn every_number_below_six_is_thrown_about_as_often() {
        for dice in [Dice::seeded(1), Dice::system()] {
            let mut seen = [0u32; 6];
            for _ in 0..6_000 {
                seen[dice.below(6) as usize] += 1;
            }
            assert!(seen.iter().all(|&n| (800..1_200).contains(&n)), "{dice:?} {seen:?}");
        }
    }

    #[test]
    fn a_shuffle_loses_nothing() {
        let mut items: Vec<u32> = (0..100).collect();
        Dice::seeded(3).shuffle(&mut items);
        assert_ne!(items, (0..100).collect::<Vec<_>>());
        items.sort_unstable();
        assert_eq!(items, (0..100).collect::<Vec<_>>());
    }
}
