//! A time zone as data: when a day begins, without a clock or a database at hand.
//!
//! Whoever knows the zone's rules gives the offsets of some years ahead; past the last one it holds on.

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

const DAY_SECS: i64 = 24 * 3600;

/// Offsets of local time, by the time from which they hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Zone {
    name: Arc<str>,
    /// (seconds since 1970, seconds east of UTC), in order; the first one holds before as well.
    offsets: Vec<(i64, i32)>,
}

/// A day of a zone: 23 to 25 hours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Day {
    /// Days since 1970.
    pub number: u32,
    /// Its first moment.
    pub begins: SystemTime,
    /// The first moment of the next.
    pub ends: SystemTime,
}

impl Day {
    /// The hour of the day, counted from its beginning: 0 to 24. Before it and after it, the first and the last.
    pub fn hour(&self, now: SystemTime) -> u8 {
        let since = now.min(self.ends - Duration::from_secs(1)).duration_since(self.begins).unwrap_or_default();
        (since.as_secs() / 3600).min(24) as u8
    }

    /// When an hour of the day is over.
    pub fn hour_ends(&self, hour: u8) -> SystemTime {
        (self.begins + Duration::from_secs(3600) * (u32::from(hour) + 1)).min(self.ends)
    }
}

impl Zone {
    /// A zone with such offsets: (seconds since 1970, seconds east of UTC). Offsets of more than a day are cut.
    pub fn new(name: &str, mut offsets: Vec<(i64, i32)>) -> Zone {
        offsets.sort_unstable();
        offsets.iter_mut().for_each(|(_, offset)| *offset = (*offset).clamp(-86_399, 86_399));
        Zone { name: name.into(), offsets }
    }

    /// The zone without a season.
    pub fn utc() -> Zone {
        Zone::new("UTC", Vec::new())
    }

    /// Its name.
    pub fn name(&self) -> &Arc<str> {
        &self.name
    }

    /// The day that a time falls into. Where midnight comes twice, the day begins with the first one.
    pub fn day(&self, now: SystemTime) -> Day {
        let secs = i64::try_from(now.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()).unwrap_or(i64::MAX / 2);
        let mut number = (secs + i64::from(self.offset(secs))).div_euclid(DAY_SECS);
        // Local time may have been set back past midnight since.
        while self.begin(number + 1) <= secs {
            number += 1;
        }
        let number = u32::try_from(number).unwrap_or(0);
        self.numbered(number)
    }

    /// The day of a number.
    pub fn numbered(&self, number: u32) -> Day {
        let at = |number: i64| UNIX_EPOCH + Duration::from_secs(u64::try_from(self.begin(number)).unwrap_or(0));
        Day { number, begins: at(i64::from(number)), ends: at(i64::from(number) + 1) }
    }

    fn offset(&self, secs: i64) -> i32 {
        let nth = self.offsets.partition_point(|(from, _)| *from <= secs);
        self.offsets.get(nth.saturating_sub(1)).map_or(0, |(_, offset)| *offset)
    }

    /// The first second at which local time has reached the midnight that begins a day.
    fn begin(&self, number: i64) -> i64 {
        let midnight = number * DAY_SECS;
        // Offsets are less than a day: earlier ones cannot matter.
        let first = self.offsets.partition_point(|(from, _)| *from < midnight - 2 * DAY_SECS).saturating_sub(1);
        for (nth, (from, offset)) in self.offsets.iter().enumerate().skip(first) {
            let since = if nth == 0 { i64::MIN } else { *from };
            let reached = since.max(midnight - i64::from(*offset));
            if self.offsets.get(nth + 1).is_none_or(|(next, _)| reached < *next) {
                return reached;
            }
        }
        midnight
    }
}
