//! Counts of replies by class, for the rules: how many within an interval, and of how many attempts.
//!
//! One tally for each rule and what it is about; it exists from the first such reply until an interval has passed without one,
//! so healthy traffic counts nothing. An interval is five parts, so what is counted reaches back between one and one and a
//! fifth intervals.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use crate::dice::Hashing;
use crate::measure::{Reaction, Threshold};
use crate::time::Time;
use crate::types::SourceId;

/// Tallies kept; at the bound those whose interval is over leave, and if that is not enough all of them: rules then act late,
/// and never wrongly.
const TALLIES_MAX: usize = 16_384;

const PARTS: u64 = 5;

/// What a rule counts by.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum About {
    AtSite(u32, SourceId),
    AtProvider(Arc<str>, SourceId),
    Member(u32),
}

pub(crate) struct Tallies(HashMap<(u16, About), Tally, Hashing>);

#[derive(Default)]
struct Tally {
    /// The number of the newest part.
    part: u64,
    parts: [(u32, u32); PARTS as usize + 1],
}

impl Tally {
    fn turn(&mut self, now: Time, within: Duration) {
        let width = u64::try_from(within.as_millis()).unwrap_or(u64::MAX).max(PARTS) / PARTS;
        let part = u64::try_from(now.since(Time::ALWAYS).as_millis()).unwrap_or(u64::MAX) / width;
        let passed = part.saturating_sub(self.part).min(PARTS + 1);
        for nth in 0..passed {
            self.parts[((part - nth) % (PARTS + 1)) as usize] = (0, 0);
        }
        self.part = self.part.max(part);
    }

    fn sum(&self) -> (u32, u32) {
        self.parts.iter().fold((0, 0), |sum, part| (sum.0.saturating_add(part.0), sum.1.saturating_add(part.1)))
    }
}

impl Tallies {
    pub(crate) fn new(hashing: Hashing) -> Tallies {
        Tallies(HashMap::with_hasher(hashing))
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(crate) fn clear(&mut self) {
        self.0.clear();
    }

    /// Counts an attempt; `hit`: with such a reply. True: the threshold is reached, and counting begins anew.
    pub(crate) fn count(&mut self, now: Time, nth: u16, rule: &Reaction, about: About, hit: bool) -> bool {
        let key = (nth, about);
        if !hit && !self.0.contains_key(&key) {
            return false;
        }
        if self.0.len() >= TALLIES_MAX && !self.0.contains_key(&key) {
            let rule_within = rule.within;
            self.0.retain(|(other, _), tally| {
                // Intervals of other rules are not known here; theirs are looked at when their turn comes.
                if *other == nth {
                    tally.turn(now, rule_within);
                }
                tally.sum().0 > 0
            });
            if self.0.len() >= TALLIES_MAX {
                self.0.clear();
            }
        }
        let tally = self.0.entry(key.clone()).or_default();
        tally.turn(now, rule.within);
        let part = &mut tally.parts[(tally.part % (PARTS + 1)) as usize];
        *part = (part.0.saturating_add(u32::from(hit)), part.1.saturating_add(1));
        let (hits, all) = tally.sum();
        let reached = match rule.threshold {
            Threshold::Count(count) => hits >= count.max(1),
            Threshold::Share { percent, sample } => {
                all >= sample.max(1) && u64::from(hits) * 100 >= u64::from(all) * u64::from(percent.max(1))
            }
        };
        // Only such a reply makes a rule act: a share is not reached by an attempt that went well.
        if hits == 0 || hit && reached {
            self.0.remove(&key);
        }
        hit && reached
    }

    /// An operator has said no: what was counted about this counts no longer.
    pub(crate) fn forget(&mut self, is_about: impl Fn(&About) -> bool) {
        self.0.retain(|(_, about), _| !is_about(about));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::measure::{MeasureKind, ReplyClass};
    use std::time::{SystemTime, UNIX_EPOCH};

    fn rule(threshold: Threshold) -> Reaction {
        Reaction {
            name: "r".into(),
            class: ReplyClass::Rate,
            provider: None,
            threshold,
            within: Duration::from_secs(600),
            act: MeasureKind::PauseSite,
            lasts: Duration::from_secs(60),
            alone: None,
        }
    }

    fn at(secs: u64) -> Time {
        let time: SystemTime = UNIX_EPOCH + Duration::from_secs(1_800_000_000 + secs);
        time.into()
    }

    #[test]
    fn a_count_is_reached_within_the_interval_and_begins_anew() {
        let (mut tallies, rule) = (Tallies::new(Hashing::seeded(1)), rule(Threshold::Count(3)));
        let mut hit = |secs| tallies.count(at(secs), 0, &rule, About::Member(1), true);
        assert_eq!([hit(0), hit(300), hit(1_000), hit(1_100), hit(1_200)], [false, false, false, false, true]);
        assert_eq!([hit(1_201), hit(1_202), hit(1_203)], [false, false, true]);
    }

    #[test]
    fn a_share_needs_its_sample_and_a_tally_without_hits_is_forgotten() {
        let (mut tallies, rule) = (Tallies::new(Hashing::seeded(1)), rule(Threshold::Share { percent: 50, sample: 10 }));
        assert!(!tallies.count(at(0), 0, &rule, About::Member(1), false) && tallies.is_empty());
        for _ in 0..4 {
            assert!(!tallies.count(at(1), 0, &rule, About::Member(1), true));
        }
        for _ in 0..5 {
            assert!(!tallies.count(at(1), 0, &rule, About::Member(1), false));
        }
        assert!(tallies.count(at(1), 0, &rule, About::Member(1), true), "5 of 10");
        assert!(tallies.is_empty());
        assert!(!tallies.count(at(1), 0, &rule, About::Member(2), true));
        assert!(!tallies.count(at(2_000), 0, &rule, About::Member(2), false) && tallies.is_empty(), "its interval is over");
    }
}
