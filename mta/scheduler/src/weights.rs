//! How much mail each member sends in its turn.

use std::collections::HashMap;
use std::num::NonZeroU16;

/// Deliveries that a member may begin at a site in each of its turns, by the queue's number of the member. A member that
/// is not named has one: what its tier gives it beyond that is what is told here.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Weights(HashMap<u32, NonZeroU16>);

impl Weights {
    /// Of a member.
    pub fn of(&self, member: u32) -> NonZeroU16 {
        self.0.get(&member).copied().unwrap_or(NonZeroU16::MIN)
    }
}

impl FromIterator<(u32, NonZeroU16)> for Weights {
    fn from_iter<I: IntoIterator<Item = (u32, NonZeroU16)>>(weights: I) -> Weights {
        Weights(weights.into_iter().collect())
    }
}
