//! The turns of one lane at one site: members take turns, and within a member's turn its flows do.
//!
//! A turn is as many deliveries as the member's weight says, to whichever of its domains are next. So the mail of one
//! member delays that of another by one turn, whether it is 100,000 messages to one domain or one to each of 50,000,
//! and also where both write to the same domain. A member that has nothing more leaves, and what was left of its turn
//! with it; when it comes back it stands behind all others.

use crate::flow::Flow;
use crate::ring::{self, Link, Linked};
use crate::slab::Slab;
use crate::types::Lane;
use crate::weights::Weights;

#[derive(Default)]
pub(crate) struct Turns {
    /// Whose turn it is.
    head: Option<u32>,
    /// Deliveries that it has begun in this turn.
    begun: u16,
    /// One for each member that has mail here.
    seats: Slab<Seat>,
    /// Where each member sits, by member.
    by_member: Vec<(u32, u32)>,
}

struct Seat {
    /// Which of its flows is next.
    flows: Option<u32>,
    link: Option<Link>,
}

impl Linked for Seat {
    fn link(&mut self, _: Lane) -> &mut Option<Link> {
        &mut self.link
    }
}

impl Turns {
    /// The flow that comes next.
    pub(crate) fn next(&self) -> Option<u32> {
        self.seats.get(self.head?)?.flows
    }

    /// The flow of a member that comes next in its own turn.
    pub(crate) fn next_of(&self, member: u32) -> Option<u32> {
        let nth = self.by_member.binary_search_by_key(&member, |(member, _)| *member).ok()?;
        self.seats.get(self.by_member[nth].1)?.flows
    }

    /// Who has mail here.
    pub(crate) fn members(&self) -> impl Iterator<Item = u32> {
        self.by_member.iter().map(|(member, _)| *member)
    }

    /// Lets a flow take part: behind the other flows of its member, and a member that is new behind all others.
    pub(crate) fn join(&mut self, flows: &mut Slab<Flow>, lane: Lane, key: u32) {
        let Some(member) = flows.get(key).map(|flow| flow.member) else { return };
        let seat = match self.by_member.binary_search_by_key(&member, |(member, _)| *member) {
            Ok(nth) => self.by_member[nth].1,
            Err(nth) => {
                let seat = self.seats.insert(Seat { flows: None, link: None });
                ring::join(&mut self.seats, &mut self.head, lane, seat);
                self.by_member.insert(nth, (member, seat));
                seat
            }
        };
        if let Some(seat) = self.seats.get_mut(seat) {
            ring::join(flows, &mut seat.flows, lane, key);
        }
    }

    /// Takes a flow out, and its member with the last one.
    pub(crate) fn leave(&mut self, flows: &mut Slab<Flow>, lane: Lane, key: u32) {
        let Some(member) = flows.get(key).map(|flow| flow.member) else { return };
        let Ok(nth) = self.by_member.binary_search_by_key(&member, |(member, _)| *member) else { return };
        let seat_key = self.by_member[nth].1;
        let Some(seat) = self.seats.get_mut(seat_key) else { return };
        ring::leave(flows, &mut seat.flows, lane, key);
        if seat.flows.is_none() {
            if self.head == Some(seat_key) {
                self.begun = 0;
            }
            ring::leave(&mut self.seats, &mut self.head, lane, seat_key);
            self.seats.remove(seat_key);
            self.by_member.remove(nth);
        }
    }

    /// The flow that came next, here or for its member, has begun a delivery: its member's next flow is next, and when
    /// its turn is over the next member. A member that went outside of its turn keeps it.
    pub(crate) fn pass(&mut self, flows: &mut Slab<Flow>, lane: Lane, key: u32, weights: &Weights) {
        let Some(member) = flows.get(key).map(|flow| flow.member) else { return };
        let Ok(nth) = self.by_member.binary_search_by_key(&member, |(member, _)| *member) else { return };
        let seat_key = self.by_member[nth].1;
        let Some(seat) = self.seats.get_mut(seat_key) else { return };
        ring::pass(flows, &mut seat.flows, lane);
        if self.head != Some(seat_key) {
            return;
        }
        self.begun = self.begun.saturating_add(1);
        if self.begun >= weights.of(member).get() {
            self.begun = 0;
            ring::pass(&mut self.seats, &mut self.head, lane);
        }
    }

    /// Every flow, by member.
    pub(crate) fn flows(&self, flows: &mut Slab<Flow>, lane: Lane) -> Vec<u32> {
        let heads = self.seats.iter().map(|(_, seat)| seat.flows);
        heads.flat_map(|head| ring::all(flows, head, lane)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::num::NonZeroU16;

    const LANE: Lane = Lane::Notice;

    /// Flows of these members, all of them in the turns.
    fn table(members: &[u32]) -> (Slab<Flow>, Turns) {
        let (mut flows, mut turns) = (Slab::new(), Turns::default());
        for member in members {
            let key = flows.insert(Flow::new(0, *member));
            turns.join(&mut flows, LANE, key);
        }
        (flows, turns)
    }

    fn take(flows: &mut Slab<Flow>, turns: &mut Turns, weights: &Weights, many: usize) -> Vec<u32> {
        let mut next = || {
            let key = turns.next().unwrap();
            turns.pass(flows, LANE, key, weights);
            key
        };
        (0..many).map(|_| next()).collect()
    }

    fn weights(of: &[(u32, u16)]) -> Weights {
        of.iter().map(|(member, weight)| (*member, NonZeroU16::new(*weight).unwrap())).collect()
    }

    #[test]
    fn members_take_turns_however_many_flows_each_has() {
        let (mut flows, mut turns) = table(&[1, 1, 1, 2, 3]);
        assert_eq!(take(&mut flows, &mut turns, &weights(&[]), 9), [0, 3, 4, 1, 3, 4, 2, 3, 4]);
    }

    #[test]
    fn a_turn_is_as_long_as_the_weight_says_and_its_flows_share_it() {
        let (mut flows, mut turns) = table(&[1, 1, 2]);
        assert_eq!(take(&mut flows, &mut turns, &weights(&[(1, 3)]), 8), [0, 1, 0, 2, 1, 0, 1, 2]);
        // Another weight counts at once.
        assert_eq!(take(&mut flows, &mut turns, &weights(&[(2, 2)]), 4), [0, 2, 2, 1]);
    }

    #[test]
    fn who_goes_outside_of_its_turn_keeps_it() {
        let (mut flows, mut turns) = table(&[1, 2, 2]);
        let weights = weights(&[]);
        assert_eq!((turns.next_of(2), turns.next_of(3)), (Some(1), None));
        turns.pass(&mut flows, LANE, 1, &weights);
        assert_eq!(turns.next_of(2), Some(2));
        assert_eq!(take(&mut flows, &mut turns, &weights, 4), [0, 2, 0, 1]);
    }

    #[test]
    fn who_leaves_in_the_middle_of_a_turn_takes_nothing_from_the_next() {
        let (mut flows, mut turns) = table(&[1, 2, 3]);
        let weights = weights(&[(1, 3), (2, 3)]);
        assert_eq!(take(&mut flows, &mut turns, &weights, 2), [0, 0]);
        turns.leave(&mut flows, LANE, 0);
        assert_eq!(take(&mut flows, &mut turns, &weights, 3), [1, 1, 1]);
        turns.join(&mut flows, LANE, 0);
        assert_eq!(take(&mut flows, &mut turns, &weights, 5), [2, 1, 1, 1, 0], "behind all others");
        for key in [0, 1, 2, 2] {
            turns.leave(&mut flows, LANE, key);
        }
        assert_eq!((turns.next(), turns.seats.len(), turns.by_member.len()), (None, 0, 0));
    }
}
