//! `sources`: our own sources, with what settings, the DNS, block lists and the scheduler say of each.

use super::{
    answers::{SourceInPool, SourceRow, ZoneRow},
    api::Refusal,
    daemon::Daemon,
    views::time,
};
use crate::egress::{plan::Plan, watch::Listing};

impl Daemon {
    /// All of them, in the order of the settings.
    pub(super) async fn list_sources(&self) -> Result<Vec<SourceRow>, Refusal> {
        let plan = Plan::of(&self.config.load());
        let seen = self.seen.load().load_full();
        let health = self.list_source_health().await?;
        let row = |source: &crate::egress::Source| {
            let sight = seen.iter().find(|sight| sight.source == source.name);
            let zones = sight.into_iter().flat_map(|sight| &sight.zones).map(|(zone, listing)| {
                let (says, answer, since) = match listing {
                    Listing::Clean => ("clean", None, None),
                    Listing::Listed(answer, since) => ("listed", Some(answer.to_string()), Some(time(*since))),
                    Listing::Refused(answer) => ("refused", Some(answer.to_string()), None),
                    Listing::Unknown(why) => ("unknown", Some(why.clone()), None),
                };
                ZoneRow { zone: zone.to_string(), says: says.to_owned(), answer, since }
            });
            SourceRow {
                name: source.name.to_string(),
                address: source.address.to_string(),
                ehlo: source.ehlo.to_string(),
                pools: pools(&plan, &source.name),
                ptr: sight.map_or("unseen", |sight| sight.name.word()).to_owned(),
                trouble: sight.and_then(|sight| sight.name.trouble(source)),
                zones: zones.collect(),
                seen_at: sight.map(|sight| time(sight.at)),
                health: health.iter().filter(|row| *row.source == *source.name).cloned().collect(),
            }
        };
        Ok(plan.sources.iter().map(row).collect())
    }
}

fn pools(plan: &Plan, source: &str) -> Vec<SourceInPool> {
    let pools = &plan.scheduling.pools;
    if pools.is_empty() {
        return vec![SourceInPool { pool: scheduler::DEFAULT_POOL.to_owned(), weight: 1 }];
    }
    let part = |pool: &scheduler::Pool| {
        let (_, weight) = pool.sources.iter().find(|(name, _)| **name == *source)?;
        Some(SourceInPool { pool: pool.name.to_string(), weight: *weight })
    };
    pools.iter().filter_map(part).collect()
}
