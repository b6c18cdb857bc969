//! A plan: the stages of a climb, how fast a day's allowance may go, and what is asked before the next stage.

use std::sync::Arc;

use super::zone::Zone;
use crate::types::Lane;

/// Stages of a plan; past it none is reached.
pub const STAGES_MAX: usize = 400;

/// How a source climbs at a provider.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    /// Its name.
    pub name: Arc<str>,
    /// The allowances.
    pub stages: Stages,
    /// How fast a day's allowance may go.
    pub pace: Pace,
    /// Whose midnight begins a day.
    pub zone: Arc<Zone>,
    /// Which days count.
    pub days: Days,
    /// At least so many thousandths of the allowance must have been accepted before the next stage. Only with `Days::Sending`.
    pub utilisation: u32,
    /// Any of these keeps the stage for another day.
    pub hold: Troubles,
    /// Any of these takes stages back.
    pub regress: Troubles,
    /// Recipients tried in a day below which nothing is concluded from shares: one of ten is no tenth.
    pub sample: u64,
    /// The same of complaints, which are counted against what was accepted: recipients accepted in a day.
    pub complaint_sample: u64,
    /// Stages that are taken back at once.
    pub regress_stages: u32,
    /// Days on the lower stage before it may rise again.
    pub cool_days: u32,
    /// A reply that is no acceptance and contains one of these takes stages back at once, once a day.
    pub codes: Vec<Arc<str>>,
    /// The pool whose sources carry what this source may not, when no other source of its own pool can.
    pub overflow_pool: Option<Arc<str>>,
    /// One-time codes that nobody else can carry go beyond the allowance; that is counted apart and told.
    pub oversend_otp: bool,
    /// Lanes whose mail goes to this source first, as long as it has allowance; mail of others goes by weight.
    pub first: [bool; 3],
    /// What becomes of a source that does not send.
    pub idle: Option<Idle>,
}

/// Allowances of a day, stage by stage.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Stages {
    /// One by one.
    Daily(Vec<u64>),
    /// Each is so many thousandths of the one before, rounded down and at least one more, up to the last.
    Growth {
        /// The first.
        start: u64,
        /// 1400: each is 1.4 times the one before. More than 1000.
        factor: u32,
        /// The last.
        cap: u64,
    },
}

impl Stages {
    /// One by one; at most `STAGES_MAX`.
    pub fn list(&self) -> Vec<u64> {
        match self {
            Stages::Daily(list) => list.iter().copied().take(STAGES_MAX).collect(),
            Stages::Growth { start, factor, cap } => {
                // The exact product is carried on, so that what is rounded away each day is not lost for ever.
                let (mut list, mut exact) = (Vec::new(), *start as f64);
                while list.len() < STAGES_MAX {
                    let next = (exact.floor() as u64).max(list.last().map_or(1, |last| last + 1)).min((*cap).max(1));
                    list.push(next);
                    if next >= *cap {
                        break;
                    }
                    exact *= f64::from(*factor) / 1000.0;
                }
                list
            }
        }
    }
}

/// How fast a day's allowance may go. Whatever is allowed in an hour may go at once: that is the burst.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pace {
    /// The whole allowance takes at least so many hours: 24 is even, 1 is no pacing.
    pub hours: u32,
    /// At least so many may go in any hour, if the day has them.
    pub burst: u64,
}

impl Pace {
    /// What may go in an hour of a day with such an allowance.
    pub fn hourly(self, allowance: u64) -> u64 {
        allowance.div_ceil(u64::from(self.hours.clamp(1, 24))).max(self.burst).min(allowance)
    }

    /// What may have gone at most when `hour` of the day is over, had every hour before it been used up.
    pub fn until(self, allowance: u64, hour: u8) -> u64 {
        self.hourly(allowance).saturating_mul(u64::from(hour) + 1).min(allowance)
    }
}

/// Which days count towards the next stage.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Days {
    /// Those that used the allowance.
    Sending,
    /// All of them.
    Calendar,
}

/// Shares of a day's recipients, in thousandths of those tried, at which something follows. None: never.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Troubles {
    /// Deferred because of the source's reputation, or for sending too much.
    pub deferred: Option<u32>,
    /// Refused by policy, or because of the source's reputation.
    pub refused: Option<u32>,
    /// Unknown or disabled mailboxes.
    pub unknown: Option<u32>,
    /// Complaints, in hundred-thousandths of those accepted: receivers act on tenths of a percent. One alone is no share.
    pub complained: Option<u32>,
}

/// What becomes of a source that does not send.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Idle {
    /// After so many days without an accepted message a stage is taken back each day.
    pub after_days: u32,
    /// After so many it begins at the first stage.
    pub cold_days: u32,
}

impl Plan {
    /// A plan with such stages and nothing that stops it: days of UTC, no pacing, 90 % to be used.
    pub fn of(name: &str, stages: Stages) -> Plan {
        Plan {
            name: name.into(),
            stages,
            pace: Pace { hours: 1, burst: 0 },
            zone: Arc::new(Zone::utc()),
            days: Days::Sending,
            utilisation: 900,
            hold: Troubles::default(),
            regress: Troubles::default(),
            sample: 100,
            complaint_sample: 1000,
            regress_stages: 1,
            cool_days: 1,
            codes: Vec::new(),
            overflow_pool: None,
            oversend_otp: false,
            first: [false, true, true],
            idle: None,
        }
    }

    /// Whether mail of a lane goes to such a source first.
    pub fn is_first(&self, lane: Lane) -> bool {
        self.first[lane.index()]
    }
}
