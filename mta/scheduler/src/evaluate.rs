//! May this domain's mail go now, and from where? If not: why, who set that, and when does it clear?
//!
//! A chain of small checks, each named after what it finds. The same chain decides and explains, so that what an
//! operator is told is what the machine does. A new kind of restraint (an allowance of warmup for source and provider,
//! a limit of shaping) is one more function in `SITE_CHECKS` or `SOURCE_CHECKS`; if it knows when it clears, the
//! machine wakes by itself then.

use std::time::SystemTime;

use smallvec::SmallVec;

use crate::config::Config;
use crate::site::{Path, Site};
use crate::source::{Pool, Pooled};
use crate::time::Time;
use crate::types::{Lane, Route, RouteTrouble, SourceId};

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
    },
    /// After a suspension one delivery has gone to see whether the source is welcome again.
    SourceProbed(SourceId),
    /// As much is in flight from the source to the site as the site bears.
    WindowFull {
        /// Which.
        source: SourceId,
        /// Its window now, as far as the lane may use it.
        window: u16,
    },
}

/// Who could change what holds a delivery.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SetBy {
    /// A setting of this name.
    Setting(&'static str),
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
}

/// The question for one source at that site.
pub(crate) struct AtSource<'a> {
    asked: &'a AtSite<'a>,
    route: &'a Route,
    id: SourceId,
    pooled: &'a Pooled,
    path: Option<&'a Path>,
}

const SITE_CHECKS: [fn(&AtSite) -> Option<Hold>; 3] = [node_is_full, site_is_suspended, site_is_probed];

const SOURCE_CHECKS: [fn(&AtSource) -> Option<Hold>; 5] =
    [source_is_retired, site_has_no_address, source_is_suspended, source_is_probed, window_is_full];

/// Who may send it, or what stops everybody.
pub(crate) struct Evaluation {
    /// The sources that are free, with their weights.
    pub(crate) free: SmallVec<[(SourceId, u32); 16]>,
    /// If none is free.
    pub(crate) hold: Option<Hold>,
    /// The earliest time at which one of the holds clears.
    pub(crate) wake: Time,
}

/// Asks all checks.
pub(crate) fn evaluate(asked: &AtSite, route: &Route, pool: &Pool) -> Evaluation {
    let mut found = Evaluation { free: SmallVec::new(), hold: None, wake: Time::NEVER };
    if let Some(hold) = SITE_CHECKS.iter().find_map(|check| check(asked)) {
        found.wake = hold.clears_at().into();
        found.hold = Some(hold);
        return found;
    }
    for (id, pooled, hold) in at_each_source(asked, route, pool) {
        match hold {
            None => found.free.push((id, pooled.source.weight)),
            Some(hold) => {
                found.wake = found.wake.min(hold.clears_at().into());
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

/// What stops each source of the pool, as far as the site would let it send.
pub(crate) fn at_each_source<'a>(
    asked: &'a AtSite<'a>,
    route: &'a Route,
    pool: &'a Pool,
) -> impl Iterator<Item = (SourceId, &'a Pooled, Option<Hold>)> {
    pool.iter().map(move |(id, pooled)| {
        let question = AtSource { asked, route, id, pooled, path: asked.site.path(id) };
        (id, pooled, SOURCE_CHECKS.iter().find_map(|check| check(&question)))
    })
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
    Some(Hold { reason: Reason::SiteSuspended { failures }, set_by: SetBy::Feedback, clears: at(until) })
}

fn site_is_probed(asked: &AtSite) -> Option<Hold> {
    let hold = Hold { reason: Reason::SiteProbed, set_by: SetBy::Feedback, clears: Clears::WithNextAnswer };
    asked.site.health.is_probing().then_some(hold)
}

fn source_is_retired(question: &AtSource) -> Option<Hold> {
    (question.pooled.removed || question.pooled.source.weight == 0).then_some(Hold {
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

fn source_is_suspended(question: &AtSource) -> Option<Hold> {
    let health = &question.path?.health;
    let until = health.suspended_until().filter(|until| *until > question.asked.now)?;
    let reason = Reason::SourceSuspended { source: question.id, failures: health.failures() };
    Some(Hold { reason, set_by: SetBy::Feedback, clears: at(until) })
}

fn source_is_probed(question: &AtSource) -> Option<Hold> {
    let reason = Reason::SourceProbed(question.id);
    question.path?.health.is_probing().then_some(Hold { reason, set_by: SetBy::Feedback, clears: Clears::WithNextAnswer })
}

fn window_is_full(question: &AtSource) -> Option<Hold> {
    let limits = question.asked.config.window;
    // Where it has never been, a source has room.
    let window = &question.path?.window;
    let room = window.room(limits, question.asked.lane);
    let set_by = if window.size(limits) < limits.max { SetBy::Feedback } else { SetBy::Setting("window") };
    let reason = Reason::WindowFull { source: question.id, window: room };
    (window.in_flight() >= room).then_some(Hold { reason, set_by, clears: Clears::WithNextAnswer })
}
