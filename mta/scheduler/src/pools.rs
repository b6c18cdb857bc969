//! Pools: which sources may carry what.
//!
//! A delivery goes by its member's pool if the member has one, else by the pool of its lane if that has one, else by the pool
//! called `default`, or the first. So a member that was set apart stays apart with everything it sends.
//!
//! A pool is looked up when mail is about to go: what waits follows a change at once.

use std::collections::HashMap;
use std::sync::Arc;

use crate::config::{Config, DEFAULT_POOL};
use crate::source::Sources;
use crate::types::{Lane, SourceId};

/// The pools that members were put into, by the queue's number of the member. A pool that does not exist counts as none.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MemberPools(HashMap<u32, Arc<str>>);

impl FromIterator<(u32, Arc<str>)> for MemberPools {
    fn from_iter<I: IntoIterator<Item = (u32, Arc<str>)>>(pools: I) -> MemberPools {
        MemberPools(pools.into_iter().collect())
    }
}

/// All pools, by number. Numbers change with the configuration.
#[derive(Default)]
pub(crate) struct Pools {
    pools: Vec<(Arc<str>, Vec<Option<u32>>)>,
    default: u16,
    lanes: [Option<u16>; 3],
    members: HashMap<u32, u16>,
    named: Arc<MemberPools>,
}

impl Pools {
    pub(crate) fn configure(&mut self, config: &Config, sources: &Sources) {
        let weights = |of: &dyn Fn(&str, u32) -> Option<u32>| {
            let weight =
                |pooled: &crate::source::Pooled| of(&pooled.source.name, pooled.source.weight).filter(|_| !pooled.removed);
            sources.iter().map(|(_, pooled)| weight(pooled)).collect::<Vec<_>>()
        };
        self.pools = (config.pools.iter())
            .map(|pool| {
                let find = |name: &str, _| pool.sources.iter().find(|(source, _)| **source == *name).map(|(_, weight)| *weight);
                (pool.name.clone(), weights(&find))
            })
            .collect();
        if self.pools.is_empty() {
            self.pools.push((DEFAULT_POOL.into(), weights(&|_, weight| Some(weight))));
        }
        self.default = self.find(DEFAULT_POOL).unwrap_or(0);
        self.lanes = config.lane_pools.each_ref().map(|name| self.find(name.as_deref()?));
        self.set_members(self.named.clone());
    }

    pub(crate) fn set_members(&mut self, named: Arc<MemberPools>) {
        self.members = named.0.iter().filter_map(|(member, name)| Some((*member, self.find(name)?))).collect();
        self.named = named;
    }

    /// The pool of a member's mail in a lane.
    pub(crate) fn of(&self, member: u32, lane: Lane) -> u16 {
        let own = if self.members.is_empty() { None } else { self.members.get(&member).copied() };
        own.unwrap_or_else(|| self.of_lane(lane))
    }

    /// The pool of a lane's mail, of members that have none.
    pub(crate) fn of_lane(&self, lane: Lane) -> u16 {
        self.lanes[lane.index()].unwrap_or(self.default)
    }

    /// Its weight there, if a source is in a pool.
    pub(crate) fn weight(&self, pool: u16, source: SourceId) -> Option<u32> {
        *self.pools.get(usize::from(pool))?.1.get(usize::from(source.0))?
    }

    pub(crate) fn name(&self, pool: u16) -> Arc<str> {
        self.pools.get(usize::from(pool)).map_or_else(|| DEFAULT_POOL.into(), |(name, _)| name.clone())
    }

    pub(crate) fn names(&self) -> impl Iterator<Item = &Arc<str>> {
        self.pools.iter().map(|(name, _)| name)
    }

    pub(crate) fn find(&self, name: &str) -> Option<u16> {
        self.pools.iter().position(|(known, _)| **known == *name).and_then(|nth| u16::try_from(nth).ok())
    }
}
