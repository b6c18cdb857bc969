//! How fast a member may send: so many an hour, and a burst of so many at once.
//!
//! The generic cell rate algorithm (ITU-T I.371, annex A): a token bucket kept as one number, the time at which it
//! will be full again. One number fits into one atomic, so ring threads take from the same bucket without a lock, and
//! what one of them takes no other can take too: however many threads, nothing is overspent.
//!
//! In any span of time a member gets at most `burst + span × per_hour`. What is given back (the message was refused
//! after all) may have been away while the bucket ran full, so for a moment a second burst can follow the first; the
//! hourly rate holds all the same, because nothing but time fills the bucket.
//!
//! Under a new tier or new settings an empty bucket is empty and fills at the new rate, from when it is next looked at.
//!
//! Not here: the day (`today.rs`), what a refusal says (`account.rs`). The bucket is not kept over a restart: a member
//! then has one burst at once, and no more.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Nanoseconds of an hour.
const HOUR_NS: u64 = 3_600_000_000_000;

/// Threads take a moment from reading the clock to taking from the bucket. A bucket that is emptier than empty by more
/// than this was filled by a clock that has been set back since, or under a larger burst. (Should a thread ever stall for
/// longer than this in that moment, as much as comes back in the time of its stall could be spent twice.)
const SKEW_NS: u64 = 10_000_000_000;

/// More an hour than this is not told apart from no limit; intervals are whole nanoseconds.
pub const PER_HOUR_MAX: u64 = 1_000_000_000;

/// A rate and its burst.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rate {
    per_hour: u64,
    burst: u64,
    /// Nanoseconds that one takes to come back.
    interval: u64,
}

/// Why something cannot be taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Short {
    /// There will be enough after this long, if nobody else takes it.
    For(Duration),
    /// It is more than a whole burst: there will never be enough.
    Ever,
}

/// What was taken, to be given back if it was for nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Taken(u64);

/// One member's bucket: when it will be full again, in nanoseconds since 1970. A new one is full.
#[derive(Debug, Default)]
pub struct Bucket(AtomicU64);

impl Rate {
    /// `per_hour` is 1 to [`PER_HOUR_MAX`] and `burst` at least 1; what is outside counts as the nearest that is inside.
    pub fn per_hour(per_hour: u64, burst: u64) -> Self {
        let per_hour = per_hour.clamp(1, PER_HOUR_MAX);
        // Rounded up: never faster than promised. A burst of more than ten years' worth would overflow the time.
        let interval = HOUR_NS.div_ceil(per_hour);
        Self { per_hour, burst: burst.clamp(1, 87_600 * HOUR_NS / interval), interval }
    }

    /// How many an hour.
    pub fn hourly(&self) -> u64 {
        self.per_hour
    }

    /// How many at once.
    pub fn burst(&self) -> u64 {
        self.burst
    }

    /// Whether `count` could be taken now.
    pub fn look(&self, bucket: &Bucket, now: SystemTime, count: u64) -> Result<(), Short> {
        let now = nanos(now);
        self.after(self.load(bucket, now), now, count).map(drop)
    }

    /// Takes `count`, or nothing.
    pub fn take(&self, bucket: &Bucket, now: SystemTime, count: u64) -> Result<Taken, Short> {
        let now = nanos(now);
        let mut full_at = self.load(bucket, now);
        loop {
            let after = self.after(full_at, now, count)?;
            match bucket.0.compare_exchange_weak(full_at, after, Ordering::Relaxed, Ordering::Relaxed) {
                Ok(_) => return Ok(Taken(self.interval.saturating_mul(count))),
                Err(found) => full_at = found,
            }
        }
    }

    /// How many could be taken now.
    pub fn available(&self, bucket: &Bucket, now: SystemTime) -> u64 {
        let now = nanos(now);
        let full_at = self.within(self.load(bucket, now), now);
        (now + self.capacity() - full_at) / self.interval
    }

    /// When the bucket is full again once `count` more are gone.
    fn after(&self, full_at: u64, now: u64, count: u64) -> Result<u64, Short> {
        if count > self.burst {
            return Err(Short::Ever);
        }
        let after = self.within(full_at, now) + self.interval * count;
        match after.checked_sub(now + self.capacity()) {
            None | Some(0) => Ok(after),
            Some(missing) => Err(Short::For(Duration::from_nanos(missing))),
        }
    }

    /// When the bucket is full. Empty is the worst that it may be, also when the clock was set back or a reload has made
    /// the burst smaller: nobody waits for a time that is long in coming.
    fn load(&self, bucket: &Bucket, now: u64) -> u64 {
        let full_at = bucket.0.load(Ordering::Relaxed);
        let empty = now + self.capacity();
        if full_at > empty.saturating_add(SKEW_NS) {
            // Whoever came between has read what we would write.
            let _ = bucket.0.compare_exchange(full_at, empty, Ordering::Relaxed, Ordering::Relaxed);
            return empty;
        }
        full_at
    }

    /// Full is full, however long ago.
    fn within(&self, full_at: u64, now: u64) -> u64 {
        full_at.clamp(now, now + self.capacity())
    }

    fn capacity(&self) -> u64 {
        self.interval * self.burst
    }
}

impl Bucket {
    /// Puts back what was taken for nothing.
    pub fn give_back(&self, taken: Taken) {
        let less = |full_at: u64| Some(full_at.saturating_sub(taken.0));
        // `less` never declines.
        let _ = self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, less);
    }
}

/// Enough until the year 2500; later times count as that.
fn nanos(time: SystemTime) -> u64 {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_nanos()).unwrap_or(u64::MAX).min(530 * 8766 * HOUR_NS)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(millis: u64) -> SystemTime {
        UNIX_EPOCH + Duration::from_millis(1_795_400_000_000 + millis)
    }

    const SECOND: u64 = 1000;
    const HOUR: u64 = 3600 * SECOND;

    #[test]
    fn an_idle_member_gets_its_burst_at_once_and_then_one_by_one() {
        let (rate, bucket) = (Rate::per_hour(60, 5), Bucket::default());
        for _ in 0..5 {
            rate.take(&bucket, at(0), 1).unwrap();
        }
        assert_eq!(rate.take(&bucket, at(0), 1), Err(Short::For(Duration::from_secs(60))));
        assert_eq!(rate.take(&bucket, at(59 * SECOND), 1), Err(Short::For(Duration::from_secs(1))));
        assert!(rate.take(&bucket, at(60 * SECOND), 1).is_ok());
        assert!(rate.take(&bucket, at(60 * SECOND), 1).is_err());
        // A day later there is a burst again, and not a day's worth.
        assert_eq!(rate.available(&bucket, at(24 * HOUR)), 5);
    }

    #[test]
    fn a_refusal_tells_when_there_is_room_for_as_many_and_takes_nothing() {
        let (rate, bucket) = (Rate::per_hour(100, 50), Bucket::default());
        rate.take(&bucket, at(0), 40).unwrap();
        for _ in 0..100 {
            assert_eq!(rate.take(&bucket, at(0), 20), Err(Short::For(Duration::from_secs(360))));
        }
        assert_eq!(rate.available(&bucket, at(0)), 10);
        assert!(rate.look(&bucket, at(360 * SECOND), 20).is_ok());
        assert_eq!(rate.take(&bucket, at(0), 51), Err(Short::Ever));
    }

    #[test]
    fn what_was_for_nothing_is_there_again() {
        let (rate, bucket) = (Rate::per_hour(100, 10), Bucket::default());
        let taken = rate.take(&bucket, at(0), 10).unwrap();
        assert!(rate.look(&bucket, at(0), 1).is_err());
        bucket.give_back(taken);
        assert_eq!(rate.available(&bucket, at(0)), 10);
        // Given back late, it makes no more than a full bucket.
        bucket.give_back(rate.take(&bucket, at(0), 10).unwrap());
        assert_eq!(rate.available(&bucket, at(HOUR)), 10);
    }

    #[test]
    fn a_clock_set_back_or_a_smaller_burst_never_makes_anybody_wait_longer_than_an_empty_bucket() {
        let (rate, bucket) = (Rate::per_hour(60, 10), Bucket::default());
        rate.take(&bucket, at(10 * HOUR), 10).unwrap();
        assert_eq!(rate.take(&bucket, at(0), 1), Err(Short::For(Duration::from_secs(60))));
        // It gives nothing either: the bucket is as empty as it was, and fills from now on.
        assert_eq!(rate.available(&bucket, at(0)), 0);
        assert_eq!(rate.available(&bucket, at(120 * SECOND)), 2);
        let smaller = Rate::per_hour(60, 2);
        rate.take(&bucket, at(120 * SECOND), 2).unwrap();
        assert_eq!(smaller.look(&bucket, at(120 * SECOND), 1), Err(Short::For(Duration::from_secs(60))));
        assert!(smaller.take(&bucket, at(180 * SECOND), 1).is_ok());
    }

    #[test]
    fn absurd_settings_and_times_do_not_overflow() {
        for (per_hour, burst) in [(0, 0), (1, u64::MAX), (u64::MAX, u64::MAX), (7, 1)] {
            let (rate, bucket) = (Rate::per_hour(per_hour, burst), Bucket::default());
            for time in [UNIX_EPOCH, at(0), UNIX_EPOCH + Duration::from_secs(1 << 40)] {
                let _ = rate.take(&bucket, time, 1);
                let _ = rate.take(&bucket, time, rate.burst());
                let _ = rate.take(&bucket, time, u64::MAX);
                rate.available(&bucket, time);
            }
        }
    }

    /// Numbers by seed (SplitMix64).
    fn random(state: &mut u64) -> u64 {
        *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = *state;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// The checker keeps a list of what was granted and when, and holds every span of it against the promise.
    #[test]
    fn in_no_span_of_time_is_more_granted_than_burst_and_rate() {
        for seed in 0..200 {
            let mut state = seed;
            let per_hour = 1 + random(&mut state) % 5000;
            let burst = 1 + random(&mut state) % 40;
            let (rate, bucket) = (Rate::per_hour(per_hour, burst), Bucket::default());
            let (mut now, mut granted) = (0, Vec::new());
            for _ in 0..300 {
                now += match random(&mut state) % 4 {
                    0 => 0,
                    1 => random(&mut state) % 50,
                    2 => random(&mut state) % 5_000,
                    _ => random(&mut state) % 100_000,
                };
                let count = 1 + random(&mut state) % burst;
                if rate.take(&bucket, at(now), count).is_ok() {
                    granted.push((now, count));
                }
            }
            assert!(granted.len() > 1, "seed {seed}: nothing was granted, so nothing was tested");
            for (nth, (from, _)) in granted.iter().enumerate() {
                let mut sum = 0;
                for (to, count) in &granted[nth..] {
                    sum += count;
                    let most = burst as f64 + (to - from) as f64 * per_hour as f64 / HOUR as f64;
                    assert!(sum as f64 <= most + 1e-6, "seed {seed}: {sum} between {from} and {to}, at most {most}");
                }
            }
        }
    }

    #[test]
    fn sixteen_threads_together_get_no_more_and_no_less_than_one() {
        let (rate, bucket, got) = (Rate::per_hour(3600, 1_000), Bucket::default(), AtomicU64::new(0));
        for second in (0..1_000).step_by(100) {
            let time = at(second * SECOND);
            std::thread::scope(|scope| {
                for thread in 0..16u64 {
                    let (rate, bucket, got) = (&rate, &bucket, &got);
                    scope.spawn(move || {
                        let mut state = second << 8 | thread;
                        for _ in 0..500 {
                            let count = 1 + random(&mut state) % 3;
                            match rate.take(bucket, time, count) {
                                Ok(taken) if random(&mut state).is_multiple_of(4) => bucket.give_back(taken),
                                Ok(_) => drop(got.fetch_add(count, Ordering::Relaxed)),
                                Err(_) => {}
                            }
                        }
                    });
                }
            });
            // What the threads were refused while another had taken it and gave it back.
            while rate.take(&bucket, time, 1).is_ok() {
                got.fetch_add(1, Ordering::Relaxed);
            }
            assert_eq!(got.load(Ordering::Relaxed), 1_000 + second, "after {second} s");
        }
    }
}
