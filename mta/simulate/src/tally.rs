//! The simulation's own count of a day. It asks nobody: what a table shows as sent is what the receivers took.

use std::collections::HashMap;

use scheduler::SourceId;

use crate::receiver::Answer;

/// A day, in messages.
#[derive(Clone, Debug, Default)]
pub(crate) struct Tally {
    /// Accepted, deferred, refused.
    pub(crate) tried: [u64; 3],
    pub(crate) arrived: u64,
    pub(crate) expired: u64,
    /// By provider and source: what was accepted.
    pairs: HashMap<(u8, u16), u64>,
}

impl Tally {
    pub(crate) fn tried(&mut self, provider: u8, source: SourceId, recipients: u16, answer: &Answer) {
        let deferred = recipients - answer.accepted - answer.refused;
        for (sum, count) in self.tried.iter_mut().zip([answer.accepted, deferred, answer.refused]) {
            *sum += u64::from(count);
        }
        *self.pairs.entry((provider, source.0)).or_default() += u64::from(answer.accepted);
    }

    pub(crate) fn arrived(&mut self, recipients: u16) {
        self.arrived += u64::from(recipients);
    }

    pub(crate) fn expired(&mut self, recipients: u16) {
        self.expired += u64::from(recipients);
    }

    /// The most that one source had accepted by one provider.
    pub(crate) fn most(&self) -> u64 {
        self.pairs.values().copied().max().unwrap_or(0)
    }
}
