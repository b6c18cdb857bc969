//! When to try again: the schedule of a lane, what the peer asked for, and the deadline.
//!
//! Not here: how long a site is left alone (`health.rs`); that costs no delivery an attempt.

use std::time::Duration;

use crate::config::{Backoff, Retry};
use crate::dice::Dice;
use crate::time::Time;
use crate::types::{Lane, Next};

/// The last try comes so long before the deadline (or a tenth of what is left, if that is less), so that its outcome
/// is known when the deadline comes.
const LAST_TRY_BEFORE: Duration = Duration::from_secs(60);

/// What becomes of a delivery that was deferred for the `attempts + 1`th time.
pub(crate) fn after_deferral(
    now: Time,
    retry: &Retry,
    lane: Lane,
    attempts: u16,
    retry_after: Option<Duration>,
    deadline: Time,
    dice: &mut Dice,
) -> Next {
    let schedule = retry.lane(lane);
    let shortest = schedule.first().copied().unwrap_or(LAST_TRY_BEFORE);
    let wait = schedule.get(usize::from(attempts)).or(schedule.last()).copied().unwrap_or(LAST_TRY_BEFORE);
    let asked = retry_after.unwrap_or_default();
    let at = now.plus(dice.jitter(wait).max(asked).max(Duration::from_millis(1)));
    if at < deadline {
        return at.system().map_or(Next::Expired, Next::RetryAt);
    }
    // The schedule would miss the deadline: one last try just before it, unless that would be at once, which tells
    // us nothing new, or sooner than the peer asked for.
    let left = deadline.since(now);
    let last = deadline.minus(LAST_TRY_BEFORE.min(left / 10));
    if last >= now.plus(shortest.max(asked)) && last < deadline {
        return last.system().map_or(Next::Expired, Next::RetryAt);
    }
    Next::Expired
}

/// The wait after the `failures`th failure in a row (the first is 1), with jitter.
pub(crate) fn backoff(config: Backoff, failures: u8, dice: &mut Dice) -> Duration {
    let doublings = u32::from(failures.saturating_sub(1)).min(20);
    dice.jitter(config.first.saturating_mul(1 << doublings).min(config.max)).max(Duration::from_millis(1))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::{SystemTime, UNIX_EPOCH};

    const SECOND: Duration = Duration::from_secs(1);

    fn start() -> SystemTime {
        UNIX_EPOCH + Duration::from_secs(1_800_000_000)
    }

    /// The waits between all tries of a delivery that is always deferred at once.
    fn waits(lane: Lane, lifetime: Duration, retry_after: Option<Duration>) -> Vec<Duration> {
        let deadline = start() + lifetime;
        let (mut now, mut waits, mut dice) = (start(), Vec::new(), Dice::seeded(3));
        loop {
            let attempts = waits.len() as u16;
            match after_deferral(now.into(), &Retry::default(), lane, attempts, retry_after, deadline.into(), &mut dice) {
                Next::RetryAt(at) => {
                    assert!(at > now && at < deadline);
                    waits.push(at.duration_since(now).unwrap());
                    now = at;
                }
                Next::Expired => return waits,
                Next::Done => panic!("a deferred delivery is not done"),
            }
        }
    }

    #[test]
    fn the_schedule_is_followed_with_jitter_and_ends_just_before_the_deadline() {
        let waits = waits(Lane::Transactional, 24 * 3600 * SECOND, None);
        for (wait, minutes) in waits.iter().zip([1, 5, 15, 30, 60, 120, 240, 240, 240]) {
            let nominal = minutes * 60 * SECOND;
            assert!(*wait >= nominal * 9 / 10 && *wait <= nominal * 11 / 10, "{waits:?}");
        }
        let sum: Duration = waits.iter().sum();
        assert_eq!(sum, 24 * 3600 * SECOND - LAST_TRY_BEFORE);
    }

    #[test]
    fn a_one_time_code_is_tried_often_in_its_ten_minutes() {
        let waits = waits(Lane::Otp, 600 * SECOND, None);
        assert!(waits.len() >= 6, "{waits:?}");
        assert!(waits[0] <= 11 * SECOND);
        assert!(waits.iter().all(|w| *w >= 9 * SECOND), "{waits:?}");
    }

    #[test]
    fn the_peer_is_not_visited_before_the_time_it_asked_for() {
        let waits = waits(Lane::Transactional, 24 * 3600 * SECOND, Some(3 * 3600 * SECOND));
        assert!(waits.iter().all(|w| *w >= 3 * 3600 * SECOND), "{waits:?}");
        let day = Some(24 * 3600 * SECOND);
        assert!(super::tests::waits(Lane::Otp, 600 * SECOND, day).is_empty(), "it asked for more time than there is");
    }

    #[test]
    fn waits_double_up_to_the_maximum() {
        let config = Backoff { first: 30 * SECOND, max: 1800 * SECOND };
        let mut dice = Dice::seeded(9);
        for (failures, nominal) in [(1, 30), (2, 60), (3, 120), (6, 960), (7, 1800), (255, 1800)] {
            let wait = backoff(config, failures, &mut dice);
            assert!(wait >= nominal * SECOND * 9 / 10 && wait <= nominal * SECOND * 11 / 10, "{failures}: {wait:?}");
        }
    }
}
