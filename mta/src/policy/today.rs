//! How much a member has sent today, by days of UTC.
//!
//! Day and count are one atomic, so that no thread sees the one without the other. A day begins when a later one than
//! ever before is seen; when the clock is set back, the later day goes on. So each day's allowance is given once at
//! most, whatever the clock does. Over a restart the queue keeps the count: it commits with the messages themselves.
//!
//! Not here: what is sent at once (`rate.rs`), the row on disk (`queue::usage`).

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

const DAY_SECS: u64 = 86_400;

/// Bits of the count; the day has the others. A million million recipients a day are no limit of ours.
const COUNT_BITS: u32 = 40;
const COUNT_MAX: u64 = (1 << COUNT_BITS) - 1;

/// One member's day.
#[derive(Debug, Default)]
pub struct Today(AtomicU64);

impl Today {
    /// Goes on where a row on disk ends.
    pub fn resume(day: u32, spent: u64) -> Self {
        Self(AtomicU64::new(pack(day, spent)))
    }

    /// Whether `count` more fit under `max` now; if not, when the next day begins.
    pub fn look(&self, now: SystemTime, count: u64, max: u64) -> Result<(), Duration> {
        after(self.0.load(Ordering::Relaxed), now, count, max).map(drop)
    }

    /// Counts `count` more, or nothing. Gives the day that they are counted on.
    pub fn take(&self, now: SystemTime, count: u64, max: u64) -> Result<u32, Duration> {
        let mut found = self.0.load(Ordering::Relaxed);
        loop {
            let after = after(found, now, count, max)?;
            match self.0.compare_exchange_weak(found, after, Ordering::Relaxed, Ordering::Relaxed) {
                Ok(_) => return Ok(day_of(after)),
                Err(other) => found = other,
            }
        }
    }

    /// Takes back what was counted on `day` for nothing.
    pub fn give_back(&self, day: u32, count: u64) {
        // Another day has begun: nobody asks any more.
        let less = |found| (day_of(found) == day).then(|| pack(day, (found & COUNT_MAX).saturating_sub(count)));
        let _ = self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, less);
    }

    /// What was sent on the day that it is.
    pub fn spent(&self, now: SystemTime) -> u64 {
        current(self.0.load(Ordering::Relaxed), now).1
    }
}

/// Days since 1970.
fn day(now: SystemTime) -> u32 {
    let secs = now.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    u32::try_from(secs / DAY_SECS).unwrap_or(u32::MAX).min((1 << (64 - COUNT_BITS)) - 1)
}

/// The day that counts, and what was sent on it.
fn current(found: u64, now: SystemTime) -> (u32, u64) {
    let today = day(now);
    if today > day_of(found) { (today, 0) } else { (day_of(found), found & COUNT_MAX) }
}

fn after(found: u64, now: SystemTime, count: u64, max: u64) -> Result<u64, Duration> {
    let (day, spent) = current(found, now);
    let sum = spent.saturating_add(count);
    if sum > max {
        let next = UNIX_EPOCH + Duration::from_secs((u64::from(day) + 1) * DAY_SECS);
        return Err(next.duration_since(now).unwrap_or_default());
    }
    Ok(pack(day, sum))
}

fn pack(day: u32, count: u64) -> u64 {
    u64::from(day) << COUNT_BITS | count.min(COUNT_MAX)
}

fn day_of(packed: u64) -> u32 {
    (packed >> COUNT_BITS) as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(day: u64, hour: u64) -> SystemTime {
        UNIX_EPOCH + Duration::from_secs((20_000 + day) * DAY_SECS + hour * 3600)
    }

    #[test]
    fn a_day_has_one_allowance_and_the_next_has_another() {
        let today = Today::default();
        assert_eq!(today.take(at(0, 6), 60, 100), Ok(20_000));
        assert_eq!(today.take(at(0, 18), 41, 100), Err(Duration::from_secs(6 * 3600)));
        assert_eq!(today.take(at(0, 18), 40, 100), Ok(20_000));
        assert_eq!(today.spent(at(0, 23)), 100);
        assert_eq!(today.spent(at(1, 0)), 0);
        assert_eq!(today.take(at(1, 0), 100, 100), Ok(20_001));
    }

    #[test]
    fn a_clock_that_steps_gives_no_day_twice() {
        let today = Today::default();
        today.take(at(0, 12), 100, 100).unwrap();
        // A step forward into tomorrow, and back.
        today.take(at(1, 12), 100, 100).unwrap();
        assert_eq!(today.take(at(0, 12), 1, 100), Err(Duration::from_secs(36 * 3600)));
        assert!(today.take(at(1, 13), 1, 100).is_err(), "tomorrow was spent already");
        assert!(today.take(at(2, 0), 1, 100).is_ok());
        // And after a restart with the clock still wrong.
        let resumed = Today::resume(20_001, 100);
        assert!(resumed.take(at(0, 12), 1, 100).is_err());
    }

    #[test]
    fn what_was_for_nothing_does_not_count_and_another_day_is_left_alone() {
        let today = Today::default();
        let day = today.take(at(0, 23), 10, 100).unwrap();
        today.give_back(day, 4);
        assert_eq!(today.spent(at(0, 23)), 6);
        today.take(at(1, 0), 3, 100).unwrap();
        today.give_back(day, 6);
        assert_eq!(today.spent(at(1, 0)), 3);
    }

    #[test]
    fn sixteen_threads_spend_a_day_s_allowance_exactly() {
        let (today, got) = (Today::default(), AtomicU64::new(0));
        std::thread::scope(|scope| {
            for thread in 0..16u64 {
                let (today, got) = (&today, &got);
                scope.spawn(move || {
                    for nth in 0..5_000 {
                        let count = 1 + (thread + nth) % 3;
                        match today.take(at(0, 1), count, 50_000) {
                            Ok(day) if nth % 7 == 0 => today.give_back(day, count),
                            Ok(_) => drop(got.fetch_add(count, Ordering::Relaxed)),
                            Err(_) => {}
                        }
                    }
                });
            }
        });
        while today.take(at(0, 2), 1, 50_000).is_ok() {
            got.fetch_add(1, Ordering::Relaxed);
        }
        assert_eq!(got.into_inner(), 50_000);
        assert_eq!(today.spent(at(0, 3)), 50_000);
    }
}
