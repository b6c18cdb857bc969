//! What an operator may set about scheduling. Each comment says what the setting is good for, and its default.
//!
//! Values are taken as they come, and what would stop all mail (a window of nothing, an empty schedule) is read as the
//! smallest value that works: the configuration file is checked, by line, where it is read.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use crate::measure::Reaction;
use crate::shaping::Shaping;
use crate::types::Lane;
use crate::warmup::Assignment;

/// The pool of mail that nothing gives another one.
pub const DEFAULT_POOL: &str = "default";

/// Everything that the scheduler is told by its operator. `Scheduler::configure` applies a new one and keeps all state.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// Where mail may be sent from. Matched by name on reload; one that is gone finishes what it has begun.
    pub sources: Vec<Source>,
    /// Which of them carry what. Empty: one pool, all sources with their own weights.
    pub pools: Vec<Pool>,
    /// The pool of each lane, of members that have none of their own. Default: the pool `default`.
    pub lane_pools: [Option<Arc<str>>; 3],
    /// Concurrent deliveries to one site from one source, where shaping says nothing.
    pub window: WindowLimits,
    /// What receivers bear.
    pub shaping: Arc<Shaping>,
    /// When a deferred delivery is tried again.
    pub retry: Retry,
    /// How long a site, or one source at a site, is left alone after trouble.
    pub suspend: Backoff,
    /// Which sources climb at which providers, each pair once. Default: none.
    pub warmup: Arc<[Assignment]>,
    /// What is done about replies by their class. All that match are counted. Default: none; the driver ships some.
    pub rules: Arc<[Reaction]>,
    /// How long a domain whose DNS does not answer waits before it is asked for again.
    pub route_retry: Backoff,
    /// How long "this domain takes no mail" is believed without asking again. Default: 1 minute.
    pub unroutable_for: Duration,
    /// Deliveries in flight or being settled, all sites together; a sixteenth of them only for `otp`. At the bound ready
    /// mail waits its turn in memory. Each holds a message and perhaps a connection. Default: 4096.
    pub in_flight_max: usize,
    /// Deliveries waiting in memory, all domains together. Near the bound new ones stay on disk, `notice` first, and
    /// sites that are suspended give theirs back to the disk. A member takes as much as is left free, so that the mail of
    /// others always finds room. About 100 octets each, and 300 for each flow. Default: 131072.
    pub in_memory_max: usize,
    /// `Load`s that may be unanswered; further flows wait, their members take turns. Default: 64.
    pub loads_max: usize,
    /// `Resolve`s that may be unanswered; further domains wait, those with `otp` first; members take turns. Default: 256.
    pub resolves_max: usize,
}

impl Default for Config {
    fn default() -> Config {
        Config {
            sources: Vec::new(),
            pools: Vec::new(),
            lane_pools: [const { None }; 3],
            shaping: Arc::default(),
            warmup: Arc::from([]),
            window: WindowLimits::default(),
            retry: Retry::default(),
            suspend: Backoff { first: Duration::from_secs(30), max: Duration::from_secs(30 * 60) },
            rules: Arc::default(),
            route_retry: Backoff { first: Duration::from_secs(10), max: Duration::from_secs(15 * 60) },
            unroutable_for: Duration::from_secs(60),
            in_flight_max: 4096,
            in_memory_max: 1 << 17,
            loads_max: 64,
            resolves_max: 256,
        }
    }
}

/// An address that we send from. Its EHLO name is egress's business.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Source {
    /// Its name in the configuration.
    pub name: Arc<str>,
    /// Only hosts with an address of the same family can be reached from it.
    pub address: IpAddr,
    /// Share of the mail among the sources that are free; 0 takes none. Counts where there are no pools.
    pub weight: u32,
}

/// A set of sources.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pool {
    /// Its name in the configuration.
    pub name: Arc<str>,
    /// Names of sources, and the share of the mail of each among those that are free; 0 takes none.
    pub sources: Vec<(Arc<str>, u32)>,
}

/// Bounds of a window, which feedback moves: up by one for each delivery until the first trouble, afterwards by one for
/// each windowful; down to a half at trouble, once for all that was in flight then.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WindowLimits {
    /// Where a new site starts. Default: 10.
    pub initial: u16,
    /// Trouble narrows no further. Default: 1.
    pub min: u16,
    /// Success widens no further. Most providers think more than this from one address rude. The last place is only for
    /// `otp`, if there are four. Default: 50.
    pub max: u16,
}

impl Default for WindowLimits {
    fn default() -> WindowLimits {
        WindowLimits { initial: 10, min: 1, max: 50 }
    }
}

/// Waiting times after the first, second, … attempt; the last one is repeated until the deadline.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Retry {
    /// For `otp`: 10s, 30s, 1m, 2m, 5m.
    pub otp: Vec<Duration>,
    /// For `transactional`: 1m, 5m, 15m, 30m, 1h, 2h, 4h.
    pub transactional: Vec<Duration>,
    /// For `notice`: the same.
    pub notice: Vec<Duration>,
}

impl Default for Retry {
    fn default() -> Retry {
        let minutes = |list: &[u64]| list.iter().map(|m| Duration::from_secs(60 * m)).collect::<Vec<_>>();
        let mut otp: Vec<Duration> = [10, 30].map(Duration::from_secs).to_vec();
        otp.extend(minutes(&[1, 2, 5]));
        let slow = minutes(&[1, 5, 15, 30, 60, 120, 240]);
        Retry { otp, transactional: slow.clone(), notice: slow }
    }
}

impl Retry {
    /// The schedule of a lane.
    pub fn lane(&self, lane: Lane) -> &[Duration] {
        match lane {
            Lane::Otp => &self.otp,
            Lane::Transactional => &self.transactional,
            Lane::Notice => &self.notice,
        }
    }
}

/// A wait that doubles with each failure in a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Backoff {
    /// After the first failure. Default: 30 seconds for sites, 10 seconds for DNS.
    pub first: Duration,
    /// Not longer than this. Default: 30 minutes for sites, 15 minutes for DNS.
    pub max: Duration,
}
