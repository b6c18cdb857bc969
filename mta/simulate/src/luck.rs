//! Repeatable dice of the simulated world (splitmix64). Not the scheduler's, so that one's throws do not move the other's.

/// The same seed throws the same.
#[derive(Clone, Debug)]
pub(crate) struct Luck(u64);

impl Luck {
    pub(crate) fn seeded(seed: u64) -> Luck {
        Luck(seed)
    }

    fn throw(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Evenly from 0 to 1, 1 left out.
    pub(crate) fn share(&mut self) -> f64 {
        (self.throw() >> 11) as f64 / (1u64 << 53) as f64
    }

    /// `amount` as a whole number: rounded up as often as its fraction says, so that the sum stays right.
    pub(crate) fn whole(&mut self, amount: f64) -> u64 {
        let floor = amount.max(0.0).floor();
        floor as u64 + u64::from(self.share() < amount.max(0.0) - floor)
    }
}
