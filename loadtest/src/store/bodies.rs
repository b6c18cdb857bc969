//! Bodies of the sizes that mail has, and dice that fall the same for the same seed.

use bytes::Bytes;

/// How large the largest of [`Sizes::with_large`] are.
const LARGE_BYTES: (usize, usize) = (64 << 10, 2 << 20);

/// Numbers by seed (SplitMix64).
pub(crate) struct Dice(u64);

impl Dice {
    pub(crate) fn seeded(seed: u64) -> Self {
        Self(seed)
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Less than `n`, which is not 0.
    pub(crate) fn below(&mut self, n: usize) -> usize {
        (self.next() % n as u64) as usize
    }

    /// In (0, 1].
    fn part(&mut self) -> f64 {
        ((self.next() >> 11) + 1) as f64 / (1u64 << 53) as f64
    }

    /// Of the standard normal distribution (Box and Muller).
    fn normal(&mut self) -> f64 {
        (-2.0 * self.part().ln()).sqrt() * (2.0 * std::f64::consts::PI * self.part()).cos()
    }
}

/// Octets of bodies: log-normal around a median, a third of them more than twice as large or less than half.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sizes {
    median: usize,
    /// One in so many is large, up to 2 MiB. 0: none.
    large: usize,
}

impl Sizes {
    pub(crate) fn around(median: usize) -> Self {
        Self { median, large: 0 }
    }

    /// One in a thousand is between 64 KiB and 2 MiB.
    pub(crate) fn with_large(self) -> Self {
        Self { large: 1000, ..self }
    }

    fn draw(self, dice: &mut Dice) -> usize {
        if self.large > 0 && dice.below(self.large) == 0 {
            return LARGE_BYTES.0 + dice.below(LARGE_BYTES.1 - LARGE_BYTES.0);
        }
        let factor = (0.7 * dice.normal()).exp();
        // The bound is eight standard deviations away.
        ((self.median as f64 * factor) as usize).min(LARGE_BYTES.1)
    }
}

/// Makes messages.
pub(crate) struct Bodies {
    pub(crate) dice: Dice,
    sizes: Sizes,
    /// Lines to cut a body from, so that none is written twice; all of one length.
    lines: Bytes,
    line_bytes: usize,
}

impl Bodies {
    pub(crate) fn new(sizes: Sizes, seed: u64) -> Self {
        let line = format!("{}\r\n", "tradewind ".repeat(7).trim_end());
        let (line_bytes, lines) = (line.len(), line.repeat(LARGE_BYTES.1 / line.len() + 1));
        Self { dice: Dice::seeded(seed), sizes, lines: lines.into(), line_bytes }
    }

    /// A message with its number in the header, in pieces. At least as large as its header.
    pub(crate) fn next(&mut self, number: u64, domain: &str) -> Vec<Bytes> {
        let member = crate::daemon::MEMBER_DOMAIN;
        let head = format!(
            "From: noreply@{member}\r\nTo: user{number}@{domain}\r\nSubject: A test\r\nDate: Thu, 01 Jan 2026 00:00:00 +0000\r\n\
             Message-ID: <{number}@{member}>\r\n{}: {number}\r\n\r\n",
            crate::ledger::HEADER
        );
        let length = self.sizes.draw(&mut self.dice).saturating_sub(head.len()).min(self.lines.len());
        vec![head.into(), self.lines.slice(..length - length % self.line_bytes)]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_lie_around_their_median_and_some_are_large() {
        let mut dice = Dice::seeded(3);
        let mut drawn: Vec<usize> = (0..20_000).map(|_| Sizes::around(8192).with_large().draw(&mut dice)).collect();
        drawn.sort_unstable();
        let median = drawn[drawn.len() / 2];
        assert!((7500..9000).contains(&median), "{median}");
        let large = drawn.iter().filter(|size| **size >= LARGE_BYTES.0).count();
        assert!((5..100).contains(&large), "{large} large ones");
        assert!(drawn.iter().all(|size| *size <= LARGE_BYTES.1));
    }

    #[test]
    fn a_message_carries_its_number_and_ends_with_a_line() {
        let mut bodies = Bodies::new(Sizes::around(1024), 1);
        for number in 0..100 {
            let octets = bodies.next(number, "big.test").concat();
            assert_eq!(crate::ledger::Ledger::id_in(&octets), Some(number));
            assert!(octets.ends_with(b"\r\n") && !octets.windows(2).any(|two| two == b"\r\r"));
        }
    }
}
