//! How many repositories of strangers are looked into because a stream does not spell out what happened to them. Pure.
//!
//! Nearly all of the network's `#sync` events are of accounts that never attest anything, and anybody with a server of his own can
//! send as many as he likes. So there is a rate, whoever they are of; in memory is how far ahead of it we are, and nothing else. Those
//! that are passed over are not lost: the list of those who attest is read again, once a day at most, when the flood may be over.
//!
//! What is let through waits in the store with the newcomers, by which nobody who stands is kept waiting (`rounds::fair`), and is
//! given up after some days if its server never answers (`store::settle`).

use std::time::{Duration, SystemTime};

use crate::pace::{Pace, Rates};

/// From one reading of the list for the sake of those who were passed over to the next, and from the first of them to that.
const LIST_EVERY: Duration = Duration::from_secs(24 * 3600);
/// So that the list knows what the stream has just said.
const LIST_AFTER: Duration = Duration::from_secs(3600);

/// Of one stream.
#[derive(Debug)]
pub(crate) struct Strangers {
    pace: Pace,
    /// When the list is to be read because of those who were passed over.
    list_at: Option<SystemTime>,
    listed: Option<SystemTime>,
}

impl Default for Strangers {
    fn default() -> Self {
        Self { pace: Pace::new(Rates::STRANGERS), list_at: None, listed: None }
    }
}

impl Strangers {
    /// Whether one more is looked into.
    pub(super) fn take(&mut self, now: SystemTime) -> bool {
        let taken = self.pace.take(now, None, None).is_ok();
        if !taken && self.list_at.is_none() {
            let next = self.listed.map_or(now, |listed| listed + LIST_EVERY);
            self.list_at = Some(next.max(now + LIST_AFTER));
        }
        taken
    }

    /// Whether the list is to be read again now; asked once, it is taken to be done.
    pub(super) fn is_list_wanted(&mut self, now: SystemTime) -> bool {
        let wanted = self.list_at.is_some_and(|at| at <= now);
        if wanted {
            (self.list_at, self.listed) = (None, Some(now));
        }
        wanted
    }
}

#[cfg(test)]
mod tests {
    use std::time::UNIX_EPOCH;

    use super::*;

    #[test]
    fn a_flood_is_looked_into_at_a_rate_and_what_it_hides_is_found_by_the_list_once_a_day() {
        let (mut strangers, mut now) = (Strangers::default(), UNIX_EPOCH + Duration::from_secs(1_800_000_000));
        let began = now;
        let (mut taken, mut lists) = (0_u64, Vec::new());
        // A thousand a second for three days, in steps of a minute.
        while now < began + 3 * LIST_EVERY {
            taken += (0..6000).filter(|_| strangers.take(now)).count() as u64;
            if strangers.is_list_wanted(now) {
                lists.push(now.duration_since(began).unwrap());
            }
            now += Duration::from_secs(60);
        }
        assert_eq!(taken, 3600 + 3 * 86_400 - 60, "an hour's worth, and one a second");
        assert_eq!(lists, [LIST_AFTER, LIST_AFTER + LIST_EVERY, LIST_AFTER + 2 * LIST_EVERY]);
    }

    #[test]
    fn what_is_within_the_rate_needs_no_list() {
        let (mut strangers, mut now) = (Strangers::default(), UNIX_EPOCH);
        for _ in 0..200_000 {
            now += Duration::from_secs(1);
            assert!(strangers.take(now) && !strangers.is_list_wanted(now));
        }
    }
}
