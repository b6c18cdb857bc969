//! A rate with a burst: how many may begin in an interval, and when the next one may.
//!
//! The generic cell rate algorithm: a bucket of tokens that is refilled evenly, kept as one number, the time at which it
//! is full again. So a bucket costs eight octets, needs no timer, and one that is full is the same as none.

use std::time::Duration;

use crate::shaping::Rate;
use crate::time::Time;

/// Microseconds since 1970 at which the bucket is full; in the past: it is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Bucket(u64);

/// What one token takes to come, in microseconds.
fn interval(rate: Rate) -> u64 {
    (micros(rate.per) / u64::from(rate.count.max(1))).max(1)
}

fn micros(span: Duration) -> u64 {
    u64::try_from(span.as_micros()).unwrap_or(u64::MAX)
}

fn at(time: Time) -> u64 {
    micros(time.since(Time::ALWAYS))
}

/// Rounded up, so that a token is there at that time.
fn time(micros: u64) -> Time {
    Time::ALWAYS.plus(Duration::from_millis(micros.div_ceil(1000)))
}

impl Bucket {
    /// Nothing if there is a token, else when there will be one.
    pub(crate) fn held_until(self, rate: Rate, now: Time) -> Option<Time> {
        let burst = interval(rate).saturating_mul(u64::from(rate.burst.max(1)) - 1);
        let next = time(self.0.saturating_sub(burst));
        (next > now).then_some(next)
    }

    /// Takes a token, whether there is one or not.
    pub(crate) fn take(&mut self, rate: Rate, now: Time) {
        self.0 = self.0.max(at(now)).saturating_add(interval(rate));
    }

    /// Takes so many more, or gives back what was not used. What is given back to a bucket that is full again is lost.
    pub(crate) fn correct(&mut self, rate: Rate, now: Time, taken: u16, used: u16) {
        (taken..used).for_each(|_| self.take(rate, now));
        let unused = u64::from(taken.saturating_sub(used));
        self.0 = self.0.saturating_sub(interval(rate).saturating_mul(unused));
    }

    /// When it is as if it had never been used.
    pub(crate) fn full_at(self) -> Time {
        time(self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rate(count: u32, per: u64, burst: u32) -> Rate {
        Rate { count, per: Duration::from_secs(per), burst }
    }

    #[test]
    fn a_burst_goes_at_once_and_the_rest_evenly() {
        let (rate, start) = (rate(60, 60, 3), Time::ALWAYS.plus(Duration::from_secs(1_000)));
        let mut bucket = Bucket::default();
        for _ in 0..3 {
            assert_eq!(bucket.held_until(rate, start), None);
            bucket.take(rate, start);
        }
        assert_eq!(bucket.held_until(rate, start), Some(start.plus(Duration::from_secs(1))));
        assert_eq!(bucket.full_at(), start.plus(Duration::from_secs(3)));
        let rested = start.plus(Duration::from_secs(500));
        for _ in 0..3 {
            assert_eq!(bucket.held_until(rate, rested), None, "it holds no more than the burst");
            bucket.take(rate, rested);
        }
        assert!(bucket.held_until(rate, rested).is_some());
    }

    #[test]
    fn what_was_used_counts_and_what_was_only_expected_does_not() {
        let (rate, start) = (rate(60, 60, 3), Time::ALWAYS.plus(Duration::from_secs(1_000)));
        let mut bucket = Bucket::default();
        bucket.take(rate, start);
        bucket.correct(rate, start, 1, 0);
        assert_eq!(bucket.full_at(), start);
        bucket.take(rate, start);
        bucket.correct(rate, start, 1, 4);
        assert_eq!(bucket.full_at(), start.plus(Duration::from_secs(4)));
    }

    #[test]
    fn in_the_long_run_no_more_goes_than_the_rate_says() {
        for (rate, span, most) in
            [(rate(1000, 1, 10), 10, 10_010), (rate(7, 60, 1), 600, 71), (rate(100, 86_400, 5), 86_400, 105)]
        {
            let (mut bucket, mut now, mut gone) = (Bucket::default(), Time::ALWAYS, 0);
            let end = now.plus(Duration::from_secs(span));
            while now < end {
                match bucket.held_until(rate, now) {
                    Some(next) => now = next,
                    None => {
                        bucket.take(rate, now);
                        gone += 1;
                    }
                }
            }
            assert!((most * 95 / 100..=most).contains(&gone), "{rate:?}: {gone}");
        }
    }
}
