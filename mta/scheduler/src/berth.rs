//! A berth: the turns of one pool's mail at one site.
//!
//! Mail of different pools leaves from different sources, so what holds one pool's must not stand in the way of another's.

use crate::turns::Turns;
use crate::types::Lane;

pub(crate) struct Berth {
    pub(crate) site: u32,
    pub(crate) pool: u16,
    /// Of each lane.
    pub(crate) turns: [Turns; 3],
    /// Stands in the ready list for `otp`, and in the one for the rest.
    pub(crate) listed: [bool; 2],
}

impl Berth {
    pub(crate) fn new(site: u32, pool: u16) -> Berth {
        Berth { site, pool, turns: Default::default(), listed: [false; 2] }
    }

    /// The lane and the flow that come next; `otp` and the rest are asked for apart. With a `member` its own flow, if it
    /// has mail in the lane that comes next.
    pub(crate) fn next_turn(&self, otp: bool, member: Option<u32>) -> Option<(Lane, u32)> {
        lanes(otp).iter().find_map(|lane| {
            let turns = &self.turns[lane.index()];
            let next = turns.next()?;
            Some((*lane, member.and_then(|member| turns.next_of(member)).unwrap_or(next)))
        })
    }

    /// Whether a member has mail here.
    pub(crate) fn has(&self, otp: bool, member: u32) -> bool {
        lanes(otp).iter().any(|lane| self.turns[lane.index()].next_of(member).is_some())
    }

    /// Who has mail here, some of them twice.
    pub(crate) fn members(&self, otp: bool) -> impl Iterator<Item = u32> {
        lanes(otp).iter().flat_map(|lane| self.turns[lane.index()].members())
    }
}

fn lanes(otp: bool) -> &'static [Lane] {
    if otp { &Lane::ALL[..1] } else { &Lane::ALL[1..] }
}
