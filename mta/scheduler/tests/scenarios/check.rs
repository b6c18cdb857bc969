//! The checkers. They see what the scheduler asks for and what the world answers, never the scheduler's own state.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use scheduler::{Config, Lane, Next, Outcome, QueueId, Scope, SourceId, Verdict};

pub type Key = (QueueId, Arc<str>);

/// What the checkers know of a delivery in flight.
pub struct Trip {
    pub site: Arc<str>,
    pub source: SourceId,
    pub slot: u16,
    number: u64,
}

#[derive(Default)]
pub struct Checkers {
    pub in_flight: HashMap<Key, Trip>,
    pub settling: HashSet<Key>,
    pub fates: HashMap<Key, Fate>,
    /// Accepted by the peer with nothing left open.
    accepted: HashSet<Key>,
    slots: HashMap<(Arc<str>, SourceId), BTreeSet<u16>>,
    pub window_most: HashMap<Arc<str>, usize>,
    /// One-time codes that the scheduler said it keeps in memory and that have not gone yet.
    kept_otp: HashSet<Key>,
    sites: HashMap<Arc<str>, SiteModel>,
    begun: u64,
    /// Deliveries that went to a site after it was first found in trouble and before it was well.
    pub probes: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    Done,
    Expired,
    Unroutable,
    Cancelled,
}

/// Our own idea of whether a site may be visited.
enum SiteModel {
    Open {
        since: u64,
    },
    Down {
        failures: u32,
        until: SystemTime,
    },
    Probed {
        failures: u32,
        by: Key,
    },
    /// A host was in trouble there: whether that closed the site is for the scheduler to judge.
    Unsure,
}

impl Checkers {
    pub fn kept(&mut self, key: Key, lane: Lane) {
        if lane == Lane::Otp
            && !self.fates.contains_key(&key)
            && !self.in_flight.contains_key(&key)
            && !self.settling.contains(&key)
        {
            self.kept_otp.insert(key);
        }
    }

    #[allow(clippy::too_many_arguments)]
    pub fn deliver(
        &mut self,
        now: SystemTime,
        config: &Config,
        key: &Key,
        (lane, due, deadline): (Lane, SystemTime, SystemTime),
        trip: (Arc<str>, SourceId, u16),
        leads_to: impl Fn(&str) -> Option<Arc<str>>,
    ) {
        let (site, source, slot) = trip;
        assert!(!self.in_flight.contains_key(key), "{key:?} is in flight twice");
        assert!(!self.settling.contains(key), "{key:?} goes again before its last try was written down");
        assert!(!self.fates.contains_key(key), "{key:?} goes after it was settled");
        assert!(!self.accepted.contains(key), "{key:?} goes after it was accepted");
        assert!(due <= now, "{key:?} goes before it is due");
        assert!(now < deadline, "{key:?} goes after its deadline");
        let slots = self.slots.entry((site.clone(), source)).or_default();
        let lowest = (0..).find(|n| !slots.contains(n)).unwrap();
        assert_eq!(slot, lowest, "not the lowest free slot of {site}");
        slots.insert(slot);
        let max = usize::from(config.window.max);
        assert!(slots.len() <= max, "the window of {site} is exceeded");
        assert!(
            lane == Lane::Otp || max < 4 || slots.len() < max,
            "{key:?} takes the place that {site} keeps for one-time codes"
        );
        assert!(self.in_flight.len() + self.settling.len() < config.in_flight_max + config.in_memory_max);
        assert!(self.in_flight.len() < config.in_flight_max, "too much in flight");
        if lane == Lane::Otp {
            self.kept_otp.remove(key);
        } else if let Some(otp) = self.kept_otp.iter().find(|otp| leads_to(&otp.1).as_ref() == Some(&site)) {
            panic!("{key:?} overtakes the one-time code {otp:?} at {site}");
        }
        self.begun += 1;
        let count: usize = self.slots.iter().filter(|((at, _), _)| *at == site).map(|(_, slots)| slots.len()).sum();
        let most = self.window_most.entry(site.clone()).or_default();
        *most = count.max(*most);
        self.visit(now, key, &site);
        self.in_flight.insert(key.clone(), Trip { site, source, slot, number: self.begun });
    }

    fn visit(&mut self, now: SystemTime, key: &Key, site: &Arc<str>) {
        let model = self.sites.entry(site.clone()).or_insert(SiteModel::Open { since: 0 });
        match model {
            // Nobody went there for hours: it may have been forgotten.
            SiteModel::Down { until, .. } if now > *until + Duration::from_secs(6 * 3600) => *model = SiteModel::Unsure,
            SiteModel::Down { failures, until } => {
                assert!(now >= *until, "{site} is visited before its time");
                self.probes += 1;
                *model = SiteModel::Probed { failures: *failures, by: key.clone() };
            }
            SiteModel::Probed { by, .. } => panic!("{key:?} follows the probe {by:?} to {site} before it is back"),
            SiteModel::Open { .. } | SiteModel::Unsure => {}
        }
    }

    /// An operator lifts a suspension.
    pub fn lift(&mut self, site: &str, now: SystemTime) {
        if let Some(SiteModel::Down { until, .. }) = self.sites.get_mut(site) {
            *until = now;
        }
    }

    pub fn outcome(&mut self, now: SystemTime, config: &Config, key: &Key, outcome: Outcome) {
        let trip = self.in_flight.remove(key).expect("an outcome is of something in flight");
        self.slots.get_mut(&(trip.site.clone(), trip.source)).unwrap().remove(&trip.slot);
        self.settling.insert(key.clone());
        if outcome.verdict == Verdict::Delivered && !outcome.open {
            self.accepted.insert(key.clone());
        }
        let trouble = outcome.verdict != Verdict::Delivered;
        let model = self.sites.get_mut(&trip.site).unwrap();
        let failures = match model {
            _ if trouble && outcome.scope == Scope::Host => return *model = SiteModel::Unsure,
            SiteModel::Open { since } if trip.number > *since => 0,
            SiteModel::Probed { failures, by } if *by == *key => *failures,
            SiteModel::Open { .. } | SiteModel::Probed { .. } | SiteModel::Down { .. } | SiteModel::Unsure => return,
        };
        if trouble && outcome.scope == Scope::Site {
            let nominal = config.suspend.first.saturating_mul(1 << failures.min(16)).min(config.suspend.max);
            let wait = (nominal * 9 / 10).max(outcome.retry_after.unwrap_or_default());
            *model = SiteModel::Down { failures: failures + 1, until: now + wait - Duration::from_millis(1) };
        } else if failures > 0 {
            *model = SiteModel::Open { since: self.begun };
        }
    }

    /// The scheduler wants it settled; `waited` if it was never tried this time.
    pub fn settle(&mut self, key: &Key, tried: bool) {
        assert!(!self.in_flight.contains_key(key), "{key:?} is settled while in flight");
        assert!(!self.fates.contains_key(key), "{key:?} is settled twice");
        self.kept_otp.remove(key);
        if tried {
            assert!(self.settling.contains(key), "{key:?} is settled without an outcome");
        } else {
            assert!(self.settling.insert(key.clone()), "{key:?} is settled twice at once");
        }
    }

    pub fn settled(&mut self, now: SystemTime, key: &Key, next: Next, deadline: SystemTime, fate: Fate) {
        assert!(self.settling.remove(key));
        match next {
            Next::RetryAt(at) => {
                assert!(at < deadline, "{key:?} is to be tried after its deadline");
                assert!(!self.accepted.contains(key), "{key:?} is to be tried after it was accepted");
            }
            Next::Done | Next::Expired => {
                assert!(self.fates.insert(key.clone(), fate).is_none(), "{key:?} is settled twice");
                if fate == Fate::Expired {
                    assert!(!self.accepted.contains(key), "{key:?} expires after it was accepted, at {now:?}");
                }
            }
        }
    }
}
