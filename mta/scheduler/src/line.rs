//! A line of flows that wait for something that takes a while: a load, or the look-up of their domain's route.
//!
//! Members take turns here too. Otherwise one member's 50,000 domains would stand before another one's first, however
//! fair the sites are. Turns in a line have no weights: what is scarce is sent by weight later.

use std::collections::{HashMap, HashSet, VecDeque};

use crate::dice::Hashing;

pub(crate) struct Line {
    /// Members that wait, in the order of their turns.
    turns: VecDeque<u32>,
    /// The domains that each waits for, in the order of their coming.
    domains: HashMap<u32, VecDeque<u32>, Hashing>,
    /// (member, domain): one entry for each flow.
    standing: HashSet<(u32, u32), Hashing>,
}

impl Line {
    pub(crate) fn new(hashing: Hashing) -> Line {
        let (domains, standing) = (HashMap::with_hasher(hashing.clone()), HashSet::with_hasher(hashing));
        Line { turns: VecDeque::new(), domains, standing }
    }

    pub(crate) fn len(&self) -> usize {
        self.standing.len()
    }

    /// False: it stands here already.
    pub(crate) fn push(&mut self, member: u32, domain: u32) -> bool {
        if !self.standing.insert((member, domain)) {
            return false;
        }
        let domains = self.domains.entry(member).or_default();
        if domains.is_empty() {
            self.turns.push_back(member);
        }
        domains.push_back(domain);
        true
    }

    /// Whose turn it is among the members that may go. Who may not keeps its place in the order.
    pub(crate) fn find(&self, may: impl Fn(u32) -> bool) -> Option<usize> {
        self.turns.iter().position(|member| may(*member))
    }

    /// Takes out the first domain of a member that was found.
    pub(crate) fn take(&mut self, nth: usize) -> Option<(u32, u32)> {
        let member = self.turns.remove(nth)?;
        let domains = self.domains.get_mut(&member)?;
        let domain = domains.pop_front()?;
        if domains.is_empty() {
            self.domains.remove(&member);
        } else {
            self.turns.push_back(member);
        }
        self.standing.remove(&(member, domain));
        Some((member, domain))
    }

    /// Takes out whatever is next.
    pub(crate) fn pop(&mut self) -> Option<(u32, u32)> {
        self.take(0)
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
        assert_eq!(line.len(), 0);
    }
}
