//! Time inside the scheduler: whole milliseconds since 1970, in eight octets that compare in one instruction.
//!
//! Not a clock: every value comes from outside as a `SystemTime`.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Time(u64);

impl Time {
    /// Not later than any other time.
    pub(crate) const ALWAYS: Time = Time(0);
    /// Later than every other time.
    pub(crate) const NEVER: Time = Time(u64::MAX);

    pub(crate) fn plus(self, wait: Duration) -> Time {
        Time(self.0.saturating_add(u64::try_from(wait.as_millis()).unwrap_or(u64::MAX)))
    }

    pub(crate) fn minus(self, wait: Duration) -> Time {
        Time(self.0.saturating_sub(u64::try_from(wait.as_millis()).unwrap_or(u64::MAX)))
    }

    /// How long it is from `earlier` to here; nothing when it is not later.
    pub(crate) fn since(self, earlier: Time) -> Duration {
        Duration::from_millis(self.0.saturating_sub(earlier.0))
    }

    /// None for `NEVER`.
    pub(crate) fn system(self) -> Option<SystemTime> {
        if self == Time::NEVER { None } else { UNIX_EPOCH.checked_add(Duration::from_millis(self.0)) }
    }
}

/// Rounded down: a deadline is noticed up to a millisecond early and never late.
impl From<SystemTime> for Time {
    fn from(time: SystemTime) -> Time {
        let millis = time.duration_since(UNIX_EPOCH).unwrap_or_default().as_millis();
        Time(u64::try_from(millis).unwrap_or(u64::MAX - 1).min(u64::MAX - 1))
    }
}

impl From<Option<SystemTime>> for Time {
    fn from(time: Option<SystemTime>) -> Time {
        time.map_or(Time::NEVER, Time::from)
    }
}
