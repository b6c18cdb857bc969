//! May this domain's mail go now, and from where? If not: why, who set that, and when does it clear?
//!
//! A chain of small checks, each named after what it finds. The same chain decides and explains, so that what an
//! operator is told is what the machine does. A new kind of restraint (an allowance of warmup for source and provider,
//! a limit of shaping) is one more function in `SITE_CHECKS` or `SOURCE_CHECKS`; if it knows when it clears, the
//! machine wakes by itself then.

use std::sync::Arc;
use std::time::SystemTime;

use smallvec::SmallVec;

use crate::config::Config;
use crate::measure::{MeasureKind, Object, SourceHealth};
use crate::measures::Measures;
use crate::pools::Pools;
use crate::provider::{AtProvider, Held, Provider};
use crate::shaping::{Knob, Limits, Rate};
use crate::site::{Path, Site};
use crate::source::{Pooled, Sources};
use crate::time::Time;
use crate::types::{Lane, Route, RouteTrouble, SourceId};
use crate::warmup::{Stop, Warmup};

/// What would happen to a domain's next delivery.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decision {
    /// It goes from this source, in this slot.
    Send {
        /// From where.
        source: SourceId,
        /// Which of the source's connections to the site.
        slot: u16,
    },
    /// It waits.
    Hold(Hold),
}

/// Why something waits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hold {
    /// What was found.
    pub reason: Reason,
    /// Who could change it.
    pub set_by: SetBy,
    /// When it clears.
    pub clears: Clears,
}

/// What a check found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reason {
    /// It lies on disk; its turn to be loaded comes when it is due and its flow's window runs low.
    OnDisk,
    /// The domain's route is being looked up.
    Resolving,
    /// The domain has no route.
    Unroutable(RouteTrouble),
    /// As much is in flight as this node handles at once.
    NodeFull {
        /// `Config::in_flight_max`, or what of it is not kept for `otp`.
        max: usize,
    },
    /// The site is left alone after trouble.
    SiteSuspended {
        /// Failures in a row.
        failures: u8,
        /// The measure that says so.
        action: Option<u64>,
    },
    /// After a suspension one delivery has gone to see whether the site is well again.
    SiteProbed,
    /// No source is configured that takes mail.
    NoSource,
    /// The source was removed, or has no weight.
    SourceRetired(SourceId),
    /// No host of the route has an address of the source's family.
    NoAddress(SourceId),
    /// The source is left alone at this site after trouble.
    SourceSuspended {
        /// Which.
        source: SourceId,
        /// Failures in a row.
        failures: u8,
        /// The measure that says so.
        action: Option<u64>,
    },
    /// The source sends nothing to the provider, or nothing at all.
    SourcePaused {
        /// Which.
        source: SourceId,
        /// The measure that says so.
        action: u64,
    },
    /// Nothing of the member is sent.
    MemberHeld {
        /// The measure that says so.
        action: u64,
    },
    /// After a suspension one delivery has gone to see whether the source is welcome again.
    SourceProbed(SourceId),
    /// As much is in flight from the source to the site as the site bears.
    WindowFull {
        /// Which.
        source: SourceId,
        /// Its window now, as far as the lane may use it.
        window: u16,
        /// The measure that keeps it from being wider.
        action: Option<u64>,
    },
    /// As many messages have gone from the source to the site as may go in a while.
    RateReached {
        /// Which.
        source: SourceId,
        /// How many that is.
        rate: Rate,
    },
    /// It needs a connection, and as many have been begun from the source to the site as may be in a while.
    ConnectRateReached {
        /// Which.
        source: SourceId,
        /// How many that is.
        rate: Rate,
    },
    /// As much is in flight from the source to all sites of the provider as may be.
    ProviderFull {
        /// Which.
        source: SourceId,
        /// How much that is.
        max: u32,
    },
    /// As many messages have gone from the source to all sites of the provider as may go in a while.
    ProviderRateReached {
        /// Which.
        source: SourceId,
        /// How many that is.
        rate: Rate,
    },
    /// The source warms up at the provider, and may send it no more now.
    Warmup {
        /// Which.
        source: SourceId,
        /// With whom.
        provider: Arc<str>,
        /// Why.
        stop: Stop,
    },
}

/// Who could change what holds a delivery.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SetBy {
    /// A setting of this name.
    Setting(&'static str),
    /// A rule of shaping: the setting, and the file and line where it stands.
    Shaping(Knob, Arc<str>),
    /// What the peer did.
    Feedback,
    /// The domain's DNS.
    Dns,
    /// The queue's own order and schedule.
    Queue,
}

/// When a hold clears.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Clears {
    /// As soon as something that is under way comes back: a delivery, an answer.
    WithNextAnswer,
    /// At this time.
    At(SystemTime),
    /// When an operator or the domain's owner changes something.
    ByChange,
}

impl Hold {
    /// The time, if it is known.
    pub fn clears_at(&self) -> Option<SystemTime> {
        match self.clears {
            Clears::At(time) => Some(time),
            Clears::WithNextAnswer | Clears::ByChange => None,
        }
    }

    /// Holds of several sources: the one that clears first is the one to tell.
    fn rank(&self) -> (u8, Time) {
        match (&self.reason, self.clears) {
            (Reason::NoAddress(_), _) => (2, Time::NEVER),
            (_, Clears::WithNextAnswer) => (0, Time::ALWAYS),
            (_, Clears::At(time)) => (1, time.into()),
            (_, Clears::ByChange) => (3, Time::NEVER),
        }
    }

    /// It holds this domain; others of the same site may go.
    pub(crate) fn concerns_only_the_domain(&self) -> bool {
        matches!(self.reason, Reason::NoAddress(_))
    }

    /// It holds all sites of the provider.
    fn concerns_the_provider(&self) -> bool {
        matches!(self.reason, Reason::ProviderFull { .. } | Reason::ProviderRateReached { .. } | Reason::Warmup { .. })
    }
}

fn at(time: Time) -> Clears {
    time.system().map_or(Clears::ByChange, Clears::At)
}

/// The question at a site.
pub(crate) struct AtSite<'a> {
    pub(crate) now: Time,
    pub(crate) config: &'a Config,
    /// In flight or being settled, all sites together.
    pub(crate) busy: usize,
    pub(crate) lane: Lane,
    pub(crate) site: &'a Site,
    /// The pool of the mail.
    pub(crate) pool: u16,
    pub(crate) pools: &'a Pools,
    /// Who operates the site, if anything has gone there.
    pub(crate) provider: Option<&'a Provider>,
    pub(crate) measures: &'a Measures,
    pub(crate) warmup: &'a Warmup,
}

/// The question for one source at that site.
pub(crate) struct AtSource<'a> {
    asked: &'a AtSite<'a>,
    route: &'a Route,
    id: SourceId,
    pooled: &'a Pooled,
    weight: u32,
    limits: &'a Limits,
    path: Option<&'a Path>,
    provider: AtProvider,
}

const SITE_CHECKS: [fn(&AtSite) -> Option<Hold>; 3] = [node_is_full, site_is_suspended, site_is_probed];

const SOURCE_CHECKS: [fn(&AtSource) -> Option<Hold>; 11] = [
    source_is_retired,
    site_has_no_address,
    source_is_paused,
    source_is_suspended,
    source_is_probed,
    window_is_full,
    rate_is_reached,
    connect_rate_is_reached,
    provider_is_full,
    provider_rate_is_reached,
    // The last one: what it holds could go otherwise.
    allowance_is_spent,
];

/// Who may send it, or what stops everybody.
pub(crate) struct Evaluation {
    /// The sources that are free, with their weights.
    pub(crate) free: SmallVec<[(SourceId, u32); 16]>,
    /// Those that nothing but warmup holds.
    pub(crate) rationed: SmallVec<[(SourceId, u32); 4]>,
    /// If none is free.
    pub(crate) hold: Option<Hold>,
    /// The earliest time at which one of the holds clears that are the site's own.
    pub(crate) wake: Time,
    /// The same of those that hold all sites of the provider; none: there is no such hold.
    pub(crate) provider: Option<Time>,
    /// The sources that have such holds.
    pub(crate) held: Held,
}

/// Asks all checks.
pub(crate) fn evaluate(asked: &AtSite, route: &Route, sources: &Sources) -> Evaluation {
    let mut found = Evaluation {
        free: SmallVec::new(),
        rationed: SmallVec::new(),
        hold: None,
        wake: Time::NEVER,
        provider: None,
        held: Held::default(),
    };
    if let Some(hold) = SITE_CHECKS.iter().find_map(|check| check(asked)) {
        found.wake = hold.clears_at().into();
        found.hold = Some(hold);
        return found;
    }
    for (id, _, weight, hold) in at_each_source(asked, route, sources) {
        match hold {
            None => found.free.push((id, share(asked, route, id, weight))),
            Some(hold) => {
                let clears = Time::from(hold.clears_at());
                if matches!(hold.reason, Reason::Warmup { .. }) {
                    found.rationed.push((id, weight));
                }
                if hold.concerns_the_provider() {
                    found.provider = Some(found.provider.unwrap_or(Time::NEVER).min(clears));
                    found.held.add(id);
                } else {
                    found.wake = found.wake.min(clears);
                }
                if found.hold.as_ref().is_none_or(|other| hold.rank() < other.rank()) {
                    found.hold = Some(hold);
                }
            }
        }
    }
    if !found.free.is_empty() {
        found.hold = None;
    } else if found.hold.as_ref().is_none_or(|hold| matches!(hold.reason, Reason::SourceRetired(_))) {
        found.hold = Some(Hold { reason: Reason::NoSource, set_by: SetBy::Setting("source"), clears: Clears::ByChange });
    }
    found
}

/// What stops each source of the pool, with its weight there, as far as the site would let it send.
pub(crate) fn at_each_source<'a>(
    asked: &'a AtSite<'a>,
    route: &'a Route,
    sources: &'a Sources,
) -> impl Iterator<Item = (SourceId, &'a Pooled, u32, Option<Hold>)> {
    sources.iter().filter_map(move |(id, pooled)| {
        let weight = asked.pools.weight(asked.pool, id)?;
        let limits = asked.site.shape.of(id, asked.pool);
        let provider = asked.provider.map(|provider| provider.source(id)).unwrap_or_default();
        let question = AtSource { asked, route, id, pooled, weight, limits, path: asked.site.path(id), provider };
        Some((id, pooled, weight, SOURCE_CHECKS.iter().find_map(|check| check(&question))))
    })
}

/// Its share of the mail; a quarter of it where it is degraded.
fn share(asked: &AtSite, route: &Route, id: SourceId, weight: u32) -> u32 {
    match asked.measures.stop(asked.now, id, &route.provider) {
        Some(stop) if stop.health == SourceHealth::Degraded => weight.div_ceil(4),
        _ => weight,
    }
}

/// What of `in_flight_max` a lane may use: the last sixteenth is for `otp`.
pub(crate) fn in_flight_max(config: &Config, lane: Lane) -> usize {
    match lane {
        Lane::Otp => config.in_flight_max.max(1),
        Lane::Transactional | Lane::Notice => (config.in_flight_max - config.in_flight_max / 16).max(1),
    }
}

fn node_is_full(asked: &AtSite) -> Option<Hold> {
    let max = in_flight_max(asked.config, asked.lane);
    (asked.busy >= max).then_some(Hold {
        reason: Reason::NodeFull { max },
        set_by: SetBy::Setting("in_flight_max"),
        clears: Clears::WithNextAnswer,
    })
}

fn site_is_suspended(asked: &AtSite) -> Option<Hold> {
    let until = asked.site.health.suspended_until().filter(|until| *until > asked.now)?;
    let failures = asked.site.health.failures();
    let action = asked.measures.find(MeasureKind::LeaveSite, &Object::Site(asked.site.name.clone())).map(|measure| measure.id);
    Some(Hold { reason: Reason::SiteSuspended { failures, action }, set_by: SetBy::Feedback, clears: at(until) })
}

fn site_is_probed(asked: &AtSite) -> Option<Hold> {
    let hold = Hold { reason: Reason::SiteProbed, set_by: SetBy::Feedback, clears: Clears::WithNextAnswer };
    asked.site.health.is_probing().then_some(hold)
}

fn source_is_retired(question: &AtSource) -> Option<Hold> {
    (question.pooled.removed || question.weight == 0).then_some(Hold {
        reason: Reason::SourceRetired(question.id),
        set_by: SetBy::Setting("source"),
        clears: Clears::ByChange,
    })
}

fn site_has_no_address(question: &AtSource) -> Option<Hold> {
    let family = question.pooled.source.address.is_ipv4();
    let reachable = question.route.hosts.iter().flat_map(|host| &host.addresses).any(|address| address.is_ipv4() == family);
    (!reachable).then_some(Hold { reason: Reason::NoAddress(question.id), set_by: SetBy::Dns, clears: Clears::ByChange })
}

fn source_is_paused(question: &AtSource) -> Option<Hold> {
    let stop = question.asked.measures.stop(question.asked.now, question.id, &question.route.provider)?;
    (stop.health == SourceHealth::Paused).then_some(Hold {
        reason: Reason::SourcePaused { source: question.id, action: stop.id },
        set_by: SetBy::Feedback,
        clears: at(stop.until),
    })
}

fn source_is_suspended(question: &AtSource) -> Option<Hold> {
    let health = &question.path?.health;
    let until = health.suspended_until().filter(|until| *until > question.asked.now)?;
    let action = question.action(MeasureKind::PauseSite);
    let reason = Reason::SourceSuspended { source: question.id, failures: health.failures(), action };
    Some(Hold { reason, set_by: SetBy::Feedback, clears: at(until) })
}

fn source_is_probed(question: &AtSource) -> Option<Hold> {
    let reason = Reason::SourceProbed(question.id);
    question.path?.health.is_probing().then_some(Hold { reason, set_by: SetBy::Feedback, clears: Clears::WithNextAnswer })
}

fn window_is_full(question: &AtSource) -> Option<Hold> {
    let limits = question.limits.window;
    // Where it has never been, a source has room.
    let window = &question.path?.window;
    let room = window.room(limits, question.asked.lane);
    if window.in_flight() < room {
        return None;
    }
    let action = window.is_capped().then(|| question.action(MeasureKind::Narrow)).flatten();
    let set_by = if window.size(limits) < limits.max { SetBy::Feedback } else { question.by(Knob::Connections) };
    let reason = Reason::WindowFull { source: question.id, window: room, action };
    Some(Hold { reason, set_by, clears: Clears::WithNextAnswer })
}

fn rate_is_reached(question: &AtSource) -> Option<Hold> {
    let rate = question.limits.rate?;
    let until = question.path?.rate.held_until(rate, question.asked.now)?;
    let reason = Reason::RateReached { source: question.id, rate };
    Some(Hold { reason, set_by: question.by(Knob::Rate), clears: at(until) })
}

/// What goes over a connection that is kept needs none.
fn connect_rate_is_reached(question: &AtSource) -> Option<Hold> {
    let (rate, path, now) = (question.limits.connect_rate?, question.path?, question.asked.now);
    let until = path.connects.held_until(rate, now).filter(|_| path.is_cold(path.window.next_slot(), now))?;
    let reason = Reason::ConnectRateReached { source: question.id, rate };
    Some(Hold { reason, set_by: question.by(Knob::ConnectRate), clears: at(until) })
}

fn provider_is_full(question: &AtSource) -> Option<Hold> {
    let max = question.limits.provider_connections?;
    let reason = Reason::ProviderFull { source: question.id, max };
    (question.provider.in_flight >= max).then(|| Hold {
        reason,
        set_by: question.by(Knob::ProviderConnections),
        clears: Clears::WithNextAnswer,
    })
}

fn provider_rate_is_reached(question: &AtSource) -> Option<Hold> {
    let rate = question.limits.provider_rate?;
    let until = question.provider.rate.held_until(rate, question.asked.now)?;
    let reason = Reason::ProviderRateReached { source: question.id, rate };
    Some(Hold { reason, set_by: question.by(Knob::ProviderRate), clears: at(until) })
}

fn allowance_is_spent(question: &AtSource) -> Option<Hold> {
    let (stop, until) = question.asked.warmup.get(question.provider.climb())?.stop(question.asked.now)?;
    let reason = Reason::Warmup { source: question.id, provider: question.route.provider.clone(), stop };
    Some(Hold { reason, set_by: SetBy::Setting("warmup"), clears: at(until) })
}

impl AtSource<'_> {
    /// Whose word a setting is.
    fn by(&self, knob: Knob) -> SetBy {
        match self.limits.get(knob) {
            Some(set) => SetBy::Shaping(knob, set.by.clone()),
            None => SetBy::Setting("window"),
        }
    }

    /// The measure of a kind about this source at this site.
    fn action(&self, kind: MeasureKind) -> Option<u64> {
        let (source, site) = (self.pooled.source.name.clone(), self.asked.site.name.clone());
        self.asked.measures.find(kind, &Object::AtSite { source, site }).map(|measure| measure.id)
    }
}
