//! What egress takes from the settings, and takes anew when they are read again: sources, pools, shaping, providers.
//!
//! A plan is made of settings that have been read and checked as a whole, and replaced as a whole: the scheduler's half at one
//! moment of its thread, the resolver's with the next route that is asked for.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use scheduler::Pool;

use super::Source;
use super::provider::Providers;
use super::route::Families;
use super::watch::Watching;
use crate::config::Config;

/// All of it.
pub struct Plan {
    /// For the scheduler.
    pub scheduling: scheduler::Config,
    /// For the ring threads; their index is not known yet.
    pub sources: Vec<Source>,
    /// For the watch over our sources.
    pub watching: Watching,
    /// For the resolver.
    pub surroundings: Arc<Surroundings>,
}

/// What a route depends on beside DNS.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Surroundings {
    /// Our own host names, lower case: an MX that names us means that mail would loop (RFC 5321 §5.1).
    pub own_names: Vec<String>,
    /// Where we listen on the port that mail is delivered to: a host there is ourselves, whatever it is called.
    pub own_addresses: Vec<IpAddr>,
    /// Whether sources of that family exist: an address that we cannot speak to is left out.
    pub families: Families,
    /// Who operates which hosts.
    pub providers: Arc<Providers>,
}

impl Plan {
    /// What the settings say.
    pub fn of(config: &Config) -> Plan {
        let sources: Vec<Source> = (config.source.iter())
            .map(|source| Source {
                index: 0,
                name: source.name.as_str().into(),
                address: source.address,
                ehlo: source.ehlo.as_str().into(),
            })
            .collect();
        let own_names = config.source.iter().map(|source| source.ehlo.to_ascii_lowercase());
        let surroundings = Surroundings {
            own_names: own_names.chain([config.hostname.to_ascii_lowercase()]).collect(),
            own_addresses: own_addresses(config),
            families: Families {
                v4: sources.iter().any(|source| source.address.is_ipv4()),
                v6: sources.iter().any(|source| source.address.is_ipv6()),
            },
            providers: config.shaped.providers.clone(),
        };
        let pool = |pool: &crate::config::Pool| {
            let weight = |nth: usize| pool.weights.as_ref().and_then(|weights| weights.get(nth).copied()).unwrap_or(1);
            let sources = pool.sources.iter().enumerate().map(|(nth, name)| (name.as_str().into(), weight(nth)));
            Pool { name: pool.name.as_str().into(), sources: sources.collect() }
        };
        let scheduling = scheduler::Config {
            sources: (sources.iter())
                .map(|source| scheduler::Source { name: source.name.clone(), address: source.address, weight: 1 })
                .collect(),
            pools: config.pool.iter().map(pool).collect(),
            lane_pools: config.class.pools().map(|(_, pool)| pool.as_deref().map(Arc::from)),
            shaping: config.shaped.shaping.clone(),
            warmup: config.climbs.clone(),
            rules: config.replies.rules(),
            ..scheduler::Config::default()
        };
        let watching = Watching { zones: config.dnsbl.zones.clone(), interval: config.dnsbl.interval };
        Plan { scheduling, sources, watching, surroundings: Arc::new(surroundings) }
    }

    /// The sources by the scheduler's numbers, whose names are `names`. One that is gone stays as it was: what is in flight
    /// from it ends.
    pub fn numbered(&self, names: &[Arc<str>], before: &[Arc<Source>]) -> Vec<Arc<Source>> {
        let numbered = names.iter().enumerate().filter_map(|(index, name)| {
            let source = self.sources.iter().find(|source| source.name == *name);
            let now = source.map(|source| Arc::new(Source { index, ..source.clone() }));
            now.or_else(|| before.get(index).cloned())
        });
        numbered.collect()
    }
}

/// Of a listener on every address those are known that we send from.
fn own_addresses(config: &Config) -> Vec<IpAddr> {
    let listeners = config.listen.iter().map(|listen| listen.address).filter(|address| address.port() == config.egress.port);
    let known = |address: SocketAddr| {
        let sources = config.source.iter().map(|source| source.address);
        let any = sources.filter(|source| address.ip().is_unspecified() && source.is_ipv4() == address.is_ipv4());
        any.chain(Some(address.ip())).collect::<Vec<_>>()
    };
    listeners.flat_map(known).collect()
}
