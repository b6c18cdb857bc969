//! A line of members that wait for something scarce, each for some domains or sites: a load, the look-up of a domain's
//! route, room at a node that is full.
//!
//! Members take turns here too. Otherwise one member's 50,000 domains would stand before another one's first, however
//! fair the sites are. Turns for loads and lookups have no weights: what comes of them is sent by weight later.

use std::collections::{HashMap, HashSet, VecDeque};

use crate::dice::Hashing;
use crate::weights::Weights;

pub(crate) struct Line {
    /// Members that wait, in the order of their turns.
    turns: VecDeque<u32>,
    /// What the first of them has taken in its turn.
    taken: u16,
    /// The domains or sites that each waits for, in the order of their coming.
    places: HashMap<u32, VecDeque<u32>, Hashing>,
    /// (member, domain or site): each stands here once.
    standing: HashSet<(u32, u32), Hashing>,
}

impl Line {
    pub(crate) fn new(hashing: Hashing) -> Line {
        let (places, standing) = (HashMap::with_hasher(hashing.clone()), HashSet::with_hasher(hashing));
        Line { turns: VecDeque::new(), taken: 0, places, standing }
    }

    pub(crate) fn len(&self) -> usize {
        self.standing.len()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.standing.is_empty()
    }

    /// False: it stands here already.
    pub(crate) fn push(&mut self, member: u32, place: u32) -> bool {
        if !self.standing.insert((member, place)) {
            return false;
        }
        let places = self.places.entry(member).or_default();
        if places.is_empty() {
            self.turns.push_back(member);
        }
        places.push_back(place);
        true
    }

    /// Whose turn it is among the members that may go. Who may not keeps its place in the order.
    pub(crate) fn find(&self, may: impl Fn(u32) -> bool) -> Option<usize> {
        self.turns.iter().position(|member| may(*member))
    }

    /// Takes out what a member that was found waits for first, and passes the turn on.
    pub(crate) fn take(&mut self, nth: usize) -> Option<(u32, u32)> {
        let member = self.turns.remove(nth)?;
        let (place, more) = self.take_from(member)?;
        if more {
            self.turns.push_back(member);
        }
        Some((member, place))
    }

    /// Takes out whatever is next.
    pub(crate) fn pop(&mut self) -> Option<(u32, u32)> {
        self.take(0)
    }

    /// What `pop_by` would take out.
    pub(crate) fn first(&self) -> Option<(u32, u32)> {
        let &member = self.turns.front()?;
        Some((member, *self.places.get(&member)?.front()?))
    }

    /// The same, by weight: a member's turn is as long as it says.
    pub(crate) fn pop_by(&mut self, weights: &Weights) -> Option<(u32, u32)> {
        let &member = self.turns.front()?;
        let (place, more) = self.take_from(member)?;
        self.taken = self.taken.saturating_add(1);
        if !more || self.taken >= weights.of(member).get() {
            self.turns.pop_front();
            self.turns.extend(more.then_some(member));
            self.taken = 0;
        }
        Some((member, place))
    }

    /// The same, but what would be taken out stays: its member has more for it.
    pub(crate) fn pass_by(&mut self, weights: &Weights) {
        let Some(&member) = self.turns.front() else { return };
        if let Some(places) = self.places.get_mut(&member).filter(|places| !places.is_empty()) {
            places.rotate_left(1);
        }
        self.taken = self.taken.saturating_add(1);
        if self.taken >= weights.of(member).get() {
            self.turns.rotate_left(1);
            self.taken = 0;
        }
    }

    /// What a member waits for first, and whether there is more.
    fn take_from(&mut self, member: u32) -> Option<(u32, bool)> {
        let places = self.places.get_mut(&member)?;
        let place = places.pop_front()?;
        let more = !places.is_empty();
        if !more {
            self.places.remove(&member);
        }
        self.standing.remove(&(member, place));
        Some((place, more))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn members_take_turns_and_who_may_not_go_is_passed_over() {
        let mut line = Line::new(Hashing::seeded(1));
        for domain in 0..5 {
            assert!(line.push(1, domain));
        }
        assert!(line.push(2, 9) && line.push(3, 9) && line.push(3, 10) && !line.push(3, 9));
        assert_eq!(line.len(), 8);
        let mut next = |but: u32| line.find(|member| member != but).and_then(|nth| line.take(nth));
        assert_eq!([next(0), next(0)], [Some((1, 0)), Some((2, 9))]);
        assert_eq!([next(3), next(0), next(0)], [Some((1, 1)), Some((3, 9)), Some((1, 2))]);
        assert_eq!([next(1), next(1), next(0), next(0), next(0)], [Some((3, 10)), None, Some((1, 3)), Some((1, 4)), None]);
        assert!(line.is_empty() && line.turns.is_empty() && line.places.is_empty());
    }

    #[test]
    fn by_weight_a_turn_takes_more() {
        let mut line = Line::new(Hashing::seeded(1));
        for member in [1, 2] {
            assert!((0..6).all(|site| line.push(member, site)));
        }
        let weights: Weights = [(2, std::num::NonZeroU16::new(3).unwrap())].into_iter().collect();
        let taken: Vec<u32> = std::iter::from_fn(|| line.pop_by(&weights).map(|(member, _)| member)).collect();
        assert_eq!(taken, [1, 2, 2, 2, 1, 2, 2, 2, 1, 1, 1, 1]);
        assert!(line.is_empty() && line.taken == 0);
        for (member, site) in [(1, 7), (2, 7), (2, 8)] {
            assert!(line.push(member, site));
        }
        let first = |line: &mut Line| {
            let first = line.first();
            line.pass_by(&weights);
            first.unwrap()
        };
        let passed: Vec<(u32, u32)> = (0..6).map(|_| first(&mut line)).collect();
        assert_eq!(passed, [(1, 7), (2, 7), (2, 8), (2, 7), (1, 7), (2, 8)]);
        assert_eq!(line.len(), 3);
    }
}
