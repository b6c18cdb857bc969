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
    pub(crate) fn tried(&mut self, provider: u8, source: SourceId, answer: &Answer) {
        for (sum, count) in self.tried.iter_mut().zip([answer.accepted, u16::from(answer.broke_off), answer.refused]) {
            *sum += u64::from(count);
        }
        *self.pairs.entry((provider, source.0)).or_default() += u64::from(answer.accepted);
    }

    pub(crate) fn arrived(&mut self, messages: u64) {
        self.arrived += messages;
    }

    pub(crate) fn expired(&mut self, messages: u64) {
        self.expired += messages;
    }

    /// The most that one source had accepted by one provider.
    pub(crate) fn most(&self) -> u64 {
        self.pairs.values().copied().max().unwrap_or(0)
    }
}
