//! The sources: what may be sent from, and which of the free ones is next.
//!
//! A source keeps its number while the process lives: connections, windows and deliveries in flight name it. One that
//! was removed from the configuration takes no new mail and gets its number back when it returns.

use crate::config::Source;
use crate::dice::Dice;
use crate::types::SourceId;

/// Bounded by the different names ever configured; past 65,535 of them further ones are not used.
pub(crate) struct Sources(Vec<Pooled>);

pub(crate) struct Pooled {
    pub(crate) source: Source,
    pub(crate) removed: bool,
}

impl Sources {
    pub(crate) fn new() -> Sources {
        Sources(Vec::new())
    }

    pub(crate) fn configure(&mut self, sources: &[Source]) {
        for pooled in &mut self.0 {
            pooled.removed = true;
        }
        for source in sources {
            let pooled = Pooled { source: source.clone(), removed: false };
            match self.0.iter().position(|known| known.source.name == source.name) {
                Some(nth) => self.0[nth] = pooled,
                None if self.0.len() < usize::from(u16::MAX) => self.0.push(pooled),
                None => {}
            }
        }
    }

    pub(crate) fn get(&self, id: SourceId) -> Option<&Pooled> {
        self.0.get(usize::from(id.0))
    }

    /// Also one that was removed.
    pub(crate) fn find(&self, name: &str) -> Option<SourceId> {
        self.iter().find(|(_, pooled)| *pooled.source.name == *name).map(|(id, _)| id)
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (SourceId, &Pooled)> {
        self.0.iter().enumerate().map(|(nth, pooled)| (SourceId(nth as u16), pooled))
    }
}

/// One of the candidates, by weight. Thrown anew for each delivery and not dealt out site by site: otherwise every
/// site that gets one message a day would get it from the same source.
pub(crate) fn choose(candidates: &[(SourceId, u32)], dice: &mut Dice) -> Option<SourceId> {
    let total: u64 = candidates.iter().map(|(_, weight)| u64::from(*weight)).sum();
    let mut mark = dice.below(total);
    for (source, weight) in candidates {
        match mark.checked_sub(u64::from(*weight)) {
            Some(rest) => mark = rest,
            None => return Some(*source),
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::{IpAddr, Ipv4Addr};

    fn source(name: &str) -> Source {
        Source { name: name.into(), address: IpAddr::V4(Ipv4Addr::LOCALHOST), weight: 1 }
    }

    #[test]
    fn a_source_keeps_its_number_over_reloads() {
        let mut pool = Sources::new();
        pool.configure(&[source("a"), source("b")]);
        pool.configure(&[source("b"), source("c")]);
        let state: Vec<(u16, String, bool)> = pool.iter().map(|(id, p)| (id.0, p.source.name.to_string(), p.removed)).collect();
        assert_eq!(state, [(0, "a".into(), true), (1, "b".into(), false), (2, "c".into(), false)]);
        pool.configure(&[source("a")]);
        assert!(!pool.get(SourceId(0)).unwrap().removed);
    }

    #[test]
    fn choice_follows_weights() {
        let (mut dice, mut seen) = (Dice::seeded(5), [0u32; 3]);
        for _ in 0..10_000 {
            let candidates = [(SourceId(0), 1), (SourceId(1), 0), (SourceId(2), 3)];
            seen[usize::from(choose(&candidates, &mut dice).unwrap().0)] += 1;
        }
        assert_eq!(seen[1], 0);
        assert!((2_300..2_700).contains(&seen[0]), "{seen:?}");
        assert_eq!(choose(&[], &mut dice), None);
    }
}
