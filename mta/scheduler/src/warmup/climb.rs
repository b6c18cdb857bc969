//! A climb: where one source stands with one provider, and what today has brought.

use std::fmt;

use super::plan::{Days, Plan};
use crate::types::Lane;

/// Hours of a day that is 25 of them long.
pub const HOURS: usize = 25;

/// What a climb is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ClimbState {
    /// It begins on a later day; nothing is sent until then.
    Planned,
    /// It goes on, stage by stage.
    Warming,
    /// It stays where it is.
    Holding,
    /// It went back, and stays there for some days.
    Regressed,
    /// An operator stopped it: nothing is sent.
    Paused,
    /// It is through: only shaping limits it.
    Warm,
    /// It does not send, and loses stages.
    Cooling,
}

impl ClimbState {
    /// All of them, in the order of their numbers.
    pub const ALL: [ClimbState; 7] = [
        ClimbState::Planned,
        ClimbState::Warming,
        ClimbState::Holding,
        ClimbState::Regressed,
        ClimbState::Paused,
        ClimbState::Warm,
        ClimbState::Cooling,
    ];

    /// The word for it.
    pub fn as_str(self) -> &'static str {
        match self {
            ClimbState::Planned => "planned",
            ClimbState::Warming => "warming",
            ClimbState::Holding => "holding",
            ClimbState::Regressed => "regressed",
            ClimbState::Paused => "paused",
            ClimbState::Warm => "warm",
            ClimbState::Cooling => "cooling",
        }
    }
}

impl fmt::Display for ClimbState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// Where one source stands with one provider. What is asked for a day is in [`Figures`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Climb {
    /// What it is doing.
    pub state: ClimbState,
    /// The number of its stage, from 0.
    pub stage: u32,
    /// The day that it lives in, in the plan's zone; never goes back.
    pub day: u32,
    /// The first day.
    pub start: u32,
    /// Days since it went back.
    pub cooled: u32,
    /// Days in a row without an accepted message.
    pub idle: u32,
    /// It went back today already, because of a reply.
    pub struck: bool,
    /// An operator's word on the allowance of a day, which holds until he takes it back.
    pub pinned: Option<u64>,
}

/// What one day has brought, counted by recipients.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Figures {
    /// Accepted within the allowance.
    pub spent: u64,
    /// One-time codes accepted beyond it.
    pub over: u64,
    /// Accepted while there was no allowance, because it was warm.
    pub free: u64,
    /// Tried, whatever came of it; what failed before the provider said anything is not.
    pub tried: u64,
    /// Deferred because of the source's reputation, or for sending too much.
    pub deferred: u64,
    /// Refused by policy, or because of the source's reputation.
    pub refused: u64,
    /// Unknown or disabled mailboxes.
    pub unknown: u64,
    /// Complaints that were heard of on this day (`Scheduler::handle_complaints`); what they are about may have been sent before.
    pub complained: u64,
}

impl Figures {
    /// Accepted at all.
    pub fn accepted(&self) -> u64 {
        self.spent.saturating_add(self.over).saturating_add(self.free)
    }
}

impl Climb {
    /// A climb that begins on a day, seen on that day or before.
    pub fn new(start: u32, today: u32) -> Climb {
        let state = if today < start { ClimbState::Planned } else { ClimbState::Warming };
        Climb { state, stage: 0, day: today, start, cooled: 0, idle: 0, struck: false, pinned: None }
    }

    /// What may be accepted in a day. None: as much as shaping lets through.
    pub fn allowance(&self, stages: &[u64]) -> Option<u64> {
        match self.state {
            ClimbState::Planned | ClimbState::Paused => Some(0),
            ClimbState::Warm => self.pinned,
            ClimbState::Warming | ClimbState::Holding | ClimbState::Regressed | ClimbState::Cooling => {
                let nth = (self.stage as usize).min(stages.len().saturating_sub(1));
                Some(self.pinned.unwrap_or_else(|| stages.get(nth).copied().unwrap_or(0)))
            }
        }
    }

    /// Mail goes to it under an allowance.
    pub fn is_cold(&self) -> bool {
        self.state != ClimbState::Warm || self.pinned.is_some()
    }

    /// Mail of a lane goes to it first.
    pub fn comes_first(&self, plan: &Plan, lane: Lane) -> bool {
        self.is_cold() && plan.is_first(lane)
    }
}

impl Days {
    /// The word for it in a plan file.
    pub fn as_str(self) -> &'static str {
        match self {
            Days::Sending => "sending",
            Days::Calendar => "calendar",
        }
    }
}
