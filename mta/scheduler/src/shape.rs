//! Merged limits, made once and shared: most sites fit the same few rules.

use std::collections::HashMap;
use std::sync::Arc;

use crate::config::Config;
use crate::dice::Hashing;
use crate::pools::Pools;
use crate::shaping::{Destination, Limits};
use crate::source::Sources;
use crate::types::SourceId;

/// Shapes that are kept for sites to come; past it those that no site has are forgotten.
const KEPT_MAX: usize = 256;

/// What holds at a site, for each pool and source.
#[derive(Debug)]
pub(crate) struct Shape {
    /// By pool, then by source. Equal ones are one.
    limits: Vec<Arc<Limits>>,
    sources: usize,
    rest: Arc<Limits>,
}

impl Shape {
    /// Of these rules.
    pub(crate) fn new(config: &Config, sources: &Sources, pools: &Pools, rules: &[u32]) -> Shape {
        let merge = |source: &str, pool: &str| config.shaping.merge(rules, source, pool, config.window);
        let mut limits: Vec<Arc<Limits>> = Vec::new();
        for pool in pools.names() {
            for (_, pooled) in sources.iter() {
                let merged = merge(&pooled.source.name, pool);
                let known = limits.iter().find(|known| ***known == merged).cloned();
                limits.push(known.unwrap_or_else(|| Arc::new(merged)));
            }
        }
        Shape { limits, sources: sources.iter().count(), rest: Arc::new(merge("", "")) }
    }

    pub(crate) fn of(&self, source: SourceId, pool: u16) -> &Arc<Limits> {
        let source = usize::from(source.0);
        let nth = usize::from(pool) * self.sources + source;
        // A source that is new since then: a configuration comes with it, and new shapes.
        self.limits.get(nth).filter(|_| source < self.sources).unwrap_or(&self.rest)
    }
}

/// Shapes by the rules that they are made of.
pub(crate) struct Shapes(HashMap<Box<[u32]>, Arc<Shape>, Hashing>);

impl Shapes {
    pub(crate) fn new(hashing: Hashing) -> Shapes {
        Shapes(HashMap::with_hasher(hashing))
    }

    /// After a change of rules, sources or pools.
    pub(crate) fn clear(&mut self) {
        self.0.clear();
    }

    pub(crate) fn at(&mut self, config: &Config, sources: &Sources, pools: &Pools, to: Destination<'_>) -> Arc<Shape> {
        let rules = config.shaping.fitting(to);
        if let Some(known) = self.0.get(&rules) {
            return known.clone();
        }
        let shape = Arc::new(Shape::new(config, sources, pools, &rules));
        if self.0.len() >= KEPT_MAX {
            self.0.retain(|_, shape| Arc::strong_count(shape) > 1);
        }
        self.0.insert(rules, shape.clone());
        shape
    }
}
