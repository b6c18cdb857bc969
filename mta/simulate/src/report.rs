//! What came of a trial, day by day.

use serde::Serialize;

/// A day of a trial, all sources and providers together. Numbers are messages.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Day {
    /// The first is 1.
    pub day: u32,
    /// What the plan allows. None: there is at least one source that no plan bounds any more.
    pub allowance: Option<u64>,
    /// What members submitted.
    pub arrived: u64,
    /// What receivers accepted.
    pub sent: u64,
    /// Tries that were deferred.
    pub deferred: u64,
    /// Tries that were refused for good.
    pub refused: u64,
    /// What was too late to be sent.
    pub expired: u64,
    /// In the queue at the day's end.
    pub waiting: u64,
    /// What the one source and provider that had most of it exchanged: accepted.
    pub most: u64,
    /// How many pairs of source and provider stand how: `warming`, or `warming 8, holding 4`.
    pub state: String,
    /// What the engine decided at the day's end, and why.
    pub decision: String,
}

/// What came of a trial.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Report {
    /// The plan's name.
    pub plan: String,
    /// Day by day.
    pub days: Vec<Day>,
    /// The first day on which every pair of source and provider is warm.
    pub finished: Option<u32>,
    /// How many recipients a delivery of the simulation has at most.
    pub grain: u64,
    /// What the volume means for the plan: warnings, projections.
    pub outlook: Vec<String>,
}

impl Report {
    /// The sum of something over all days.
    pub fn total(&self, of: impl Fn(&Day) -> u64) -> u64 {
        self.days.iter().map(of).sum()
    }
}
