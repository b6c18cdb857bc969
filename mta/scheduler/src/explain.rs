//! Why a delivery waits, and how a domain's mail would travel: the answers to an operator's `why` and `where`.
//!
//! Every answer comes from the checks that decide (`evaluate.rs`), asked with the same state at the same moment, so
//! what an operator is told is what the machine does. A question looks at one domain, its site and the pool's sources,
//! never at the backlog; only the search for a site's domains goes over all of them, some at a time.

use std::sync::Arc;
use std::time::SystemTime;

use crate::config::Source;
use crate::domain::{Stand, Way};
use crate::evaluate::{AtSite, Clears, Decision, Hold, Reason, SetBy, at_each_source, in_flight_max};
use crate::machine::Scheduler;
use crate::ration::{Candidate, Choice};
use crate::send::FlightState;
use crate::shape::Shape;
use crate::shaping::{Destination, Limits, short};
use crate::site::{self, Site};
use crate::time::Time;
use crate::types::{Lane, QueueId, Route, RouteTrouble, Routed, SourceId};
use crate::view::{DomainView, FlightView, SiteView};
use crate::window::Window;

/// Where a queued delivery is, and what it waits for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Whereabouts {
    /// It is being tried.
    InFlight {
        /// Where to and where from.
        flight: FlightView,
        /// An operator has cancelled it: what this attempt leaves open goes.
        cancelled: bool,
    },
    /// What became of it is being written down.
    Settling,
    /// It is due and waits in memory.
    Waiting {
        /// Deliveries of its member to its domain that go before it: those of better lanes, and earlier ones of its own.
        ahead: usize,
        /// The domain whose turn comes next at the site, in this lane or a better one.
        turn: Option<Arc<str>>,
        /// The member whose turn that is.
        turn_of: Option<u32>,
        /// What would happen to its domain's next delivery.
        decision: Decision,
    },
    /// It lies on disk only.
    OnDisk {
        /// Deliveries of its member to its domain that wait in memory, in its lane or a better one.
        ahead: usize,
        /// Not due yet: the time. Due: what holds those, or `OnDisk` while nothing does but its turn to be loaded.
        decision: Decision,
    },
}

/// How a domain's mail travels, as far as the scheduler knows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum WayView {
    /// Nobody has asked, or it was forgotten.
    Unknown,
    /// It is being looked up; a route that ran out may serve meanwhile.
    Sought(Option<Arc<Route>>),
    /// By this route.
    Known(Arc<Route>),
    /// There is none; believed until then.
    Trouble {
        /// Why.
        trouble: RouteTrouble,
        /// When it is asked for again.
        until: Option<SystemTime>,
    },
}

/// One of our sources, and what it may do at a site.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SourceAnswer {
    /// Its number.
    pub id: SourceId,
    /// Its name, address and weight in the pool.
    pub source: Source,
    /// What holds for it there.
    pub limits: Arc<Limits>,
    /// How many deliveries at once the site bears from it.
    pub window: u16,
    /// Deliveries being tried.
    pub in_flight: u16,
    /// Left alone until then.
    pub suspended_until: Option<SystemTime>,
    /// What stops it; None: it is free.
    pub hold: Option<Hold>,
}

/// Something that bounds sending, and whose word it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limit {
    /// What is bounded.
    pub name: &'static str,
    /// How far: a number, or a schedule.
    pub value: String,
    /// Who could change it.
    pub set_by: SetBy,
}

/// All about the mail of a domain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Survey {
    /// What waits, if anything is known of the domain.
    pub domain: Option<DomainView>,
    /// How it travels.
    pub way: WayView,
    /// The site, if it has been visited lately.
    pub site: Option<SiteView>,
    /// The pool of mail whose class and member have none of their own.
    pub pool: Arc<str>,
    /// Its sources. Empty without a route.
    pub sources: Vec<SourceAnswer>,
    /// What bounds sending there, windows of sources apart.
    pub limits: Vec<Limit>,
    /// For each lane: what would happen to a message that came now.
    pub decisions: [Decision; 3],
}

impl Scheduler {
    /// What would happen to the next delivery of a member to a domain in a lane, and why: answered by the checks that
    /// decide. None: the member has no mail for the domain, as far as is known. Of several free sources it names the one
    /// whose turn it is if nothing else goes before.
    pub fn explain(&self, now: SystemTime, domain: &str, member: u32, lane: Lane) -> Option<Decision> {
        let domain = self.domains.get(*self.domain_by_name.get(domain)?)?;
        let flow = match domain.stand(member)? {
            Stand::Flows(key) => self.flows.get(key)?,
            Stand::Rests { next_due, .. } => return Some(on_disk(next_due)),
        };
        if flow.lanes[lane.index()].is_empty() {
            return Some(on_disk(flow.next_due));
        }
        if let Some((action, until)) = self.measures.holds(now.into(), member) {
            return Some(Decision::Hold(member_held(action, until)));
        }
        let active = domain.active.as_ref()?;
        let route = match way_or_hold(&active.way) {
            Ok(route) => route,
            Err(hold) => return Some(Decision::Hold(hold)),
        };
        self.decide(now.into(), self.sites.get(active.site?)?, route, lane, self.pools.of(member, lane))
    }

    /// Where a delivery is that the queue holds, and what it waits for; `due` is what the queue says.
    pub fn whereabouts(
        &self,
        now: SystemTime,
        id: QueueId,
        domain: &str,
        member: u32,
        lane: Lane,
        due: SystemTime,
    ) -> Whereabouts {
        let not_loaded = |ahead, decision| Whereabouts::OnDisk { ahead, decision };
        let found = self.domain_by_name.get(domain).and_then(|key| Some((*key, self.domains.get(*key)?)));
        // Told soon: its commit is on its way to us.
        let Some((key, known)) = found else { return not_loaded(0, on_disk(due.into())) };
        if let Some(flight) = self.flights.get(&(id, key)) {
            let FlightState::InFlight(attempt) = &flight.state else { return Whereabouts::Settling };
            return match self.view_flight(id, key, flight) {
                Some(flight) => Whereabouts::InFlight { flight, cancelled: attempt.is_cancelled() },
                None => Whereabouts::Settling,
            };
        }
        let flow = known.flow(member).and_then(|key| self.flows.get(key));
        let Some(flow) = flow else { return not_loaded(0, on_disk(due.into())) };
        let lanes = &flow.lanes;
        let better: usize = lanes[..lane.index()].iter().map(|queue| queue.len()).sum();
        if let Some(nth) = lanes[lane.index()].iter().position(|queued| queued.id == id)
            && let Some(decision) = self.explain(now, domain, member, lane)
        {
            let site = known.active.as_ref().and_then(|active| self.sites.get(active.site?));
            let berth = site.and_then(|site| self.berths.get(site.berth(self.pools.of(member, lane))?));
            let turn =
                berth.and_then(|berth| Lane::ALL[..=lane.index()].iter().find_map(|lane| berth.turns[lane.index()].next()));
            let turn = turn.and_then(|key| self.flows.get(key));
            let (turn_of, turn) =
                (turn.map(|flow| flow.member), turn.and_then(|flow| Some(self.domains.get(flow.domain)?.name.clone())));
            return Whereabouts::Waiting { ahead: better + nth, turn, turn_of, decision };
        }
        let ahead = flow.queued_ahead(lane);
        if due > now {
            return not_loaded(ahead, on_disk(due.into()));
        }
        // It is due and not here: what holds those before it holds it too.
        let before = Lane::ALL[..=lane.index()].iter().rev().find(|lane| !lanes[lane.index()].is_empty());
        let held = before.and_then(|lane| self.explain(now, domain, member, *lane));
        let held = held.filter(|decision| matches!(decision, Decision::Hold(_)));
        not_loaded(ahead, held.unwrap_or_else(|| on_disk(Time::NEVER)))
    }

    /// How a domain's mail travels and what would happen to a message that came now. `fresh` is what the
    /// driver has looked up for this question; it is used where the scheduler knows no route.
    pub fn survey(&self, now: SystemTime, domain: &str, fresh: Option<&Routed>) -> Survey {
        let known = self.domain_by_name.get(domain).and_then(|key| self.domains.get(*key));
        let active = known.and_then(|known| known.active.as_ref());
        let way = match active.map(|active| &active.way) {
            None | Some(Way::Unknown | Way::Sought { old: None, .. }) => match fresh {
                None => active.map_or(WayView::Unknown, |active| match active.way {
                    Way::Sought { .. } => WayView::Sought(None),
                    Way::Unknown | Way::Known(_) | Way::Trouble { .. } => WayView::Unknown,
                }),
                Some(Routed::Route(route)) => WayView::Known(route.clone()),
                Some(Routed::Trouble(trouble)) => WayView::Trouble { trouble: trouble.clone(), until: None },
            },
            Some(Way::Sought { old, .. }) => WayView::Sought(old.clone()),
            Some(Way::Known(route)) => WayView::Known(route.clone()),
            Some(Way::Trouble { trouble, until }) => WayView::Trouble { trouble: trouble.clone(), until: until.system() },
        };
        let route = match &way {
            WayView::Known(route) | WayView::Sought(Some(route)) => Some(route.clone()),
            WayView::Unknown | WayView::Sought(None) | WayView::Trouble { .. } => None,
        };
        let own = self.config.shaping.names_domain(domain).then(|| Arc::<str>::from(domain));
        let known_site =
            route.as_ref().and_then(|route| self.sites.get(*self.site_by_name.get(&site::name(&route.site, own.as_deref()))?));
        let mut survey = Survey {
            domain: known.map(|known| self.view_domain(known)),
            site: known_site.map(|site| self.view_site(site)),
            pool: self.pools.name(self.pools.of_lane(Lane::Notice)),
            sources: Vec::new(),
            limits: self.limits(),
            decisions: [(); 3].map(|()| Decision::Hold(resolving())),
            way,
        };
        if let WayView::Trouble { trouble, until } = &survey.way {
            survey.decisions = [(); 3].map(|()| Decision::Hold(unroutable(trouble, (*until).into())));
        }
        let Some(route) = route else { return survey };
        // One that nobody has visited is as good as new.
        let to = Destination { provider: &route.provider, site: &route.site, domain: own.as_deref() };
        let shape = Arc::new(Shape::new(&self.config, &self.sources, &self.pools, &self.config.shaping.fitting(to)));
        let provider = self.provider_by_name.get(&route.provider).copied().unwrap_or(u32::MAX);
        let new = Site::new(route.site.clone(), own, route.provider.clone(), provider, shape);
        let site = known_site.unwrap_or(&new);
        for lane in Lane::ALL {
            if let Some(decision) = self.decide(now.into(), site, &route, lane, self.pools.of_lane(lane)) {
                survey.decisions[lane.index()] = decision;
            }
        }
        let pool = self.pools.of_lane(Lane::Notice);
        let asked = self.at(now.into(), site, Lane::Notice, pool);
        let answers = at_each_source(&asked, &route, &self.sources).map(|(id, pooled, weight, hold)| {
            let (path, shaped) = (site.path(id), site.shape.of(id, pool));
            let limits = shaped.window;
            SourceAnswer {
                id,
                source: Source { weight, ..pooled.source.clone() },
                limits: shaped.clone(),
                window: path.map_or_else(|| Window::new(limits).size(limits), |path| path.window.size(limits)),
                in_flight: path.map_or(0, |path| path.window.in_flight()),
                suspended_until: path.and_then(|path| path.health.suspended_until()?.system()),
                hold,
            }
        });
        survey.sources = answers.collect();
        survey
    }

    /// Domains whose route leads to a site now, found among the next `look_at` domains from `from` on (0: the first);
    /// and where to go on, if there are more to look at.
    pub fn domains_of_site(&self, site: &str, from: u32, look_at: u32) -> (Vec<Arc<str>>, Option<u32>) {
        let Some(&site) = self.site_by_name.get(site) else { return (Vec::new(), None) };
        let (until, end) = (from.saturating_add(look_at), self.domains.end());
        let domains = (from..until.min(end)).filter_map(|key| self.domains.get(key));
        let leads_there = |active: &crate::domain::Active| active.site == Some(site);
        let found = domains.filter(|domain| domain.active.as_deref().is_some_and(leads_there));
        (found.map(|domain| domain.name.clone()).collect(), (until < end).then_some(until))
    }

    fn decide(&self, now: Time, site: &Site, route: &Route, lane: Lane, pool: u16) -> Option<Decision> {
        let next = Candidate { lane, hurry: None, pin: None };
        let Choice { found, source, .. } = self.choose(now, site, route, pool, next, &mut self.dice.clone());
        match source {
            Some(source) => {
                let slot = site.path(source).map_or(0, |path| path.window.next_slot());
                Some(Decision::Send { source, slot })
            }
            None => found.hold.map(Decision::Hold),
        }
    }

    pub(crate) fn at<'a>(&'a self, now: Time, site: &'a Site, lane: Lane, pool: u16) -> AtSite<'a> {
        AtSite {
            now,
            config: &self.config,
            busy: self.busy,
            lane,
            site,
            pool,
            pools: &self.pools,
            provider: self.providers.get(site.provider_key as usize),
            measures: &self.measures,
            warmup: &self.warmup,
        }
    }

    fn limits(&self) -> Vec<Limit> {
        let config = &self.config;
        let limit = |name, set_by, value| Limit { name, value, set_by: SetBy::Setting(set_by) };
        let all = in_flight_max(config, Lane::Otp);
        let most = in_flight_max(config, Lane::Notice);
        let mut limits = vec![
            limit("in flight at this node, of which the rest is for otp", "in_flight_max", format!("{most} of {all}")),
            limit(
                "site left alone after trouble, first and longest",
                "suspend",
                waits(&[config.suspend.first, config.suspend.max]),
            ),
        ];
        for (lane, name) in Lane::ALL.into_iter().zip(["retry of otp", "retry of transactional", "retry of notice"]) {
            limits.push(limit(name, "retry", waits(config.retry.lane(lane))));
        }
        limits
    }
}

fn waits(list: &[std::time::Duration]) -> String {
    list.iter().map(|wait| short(*wait)).collect::<Vec<_>>().join(" ")
}

/// Not loaded: until it is due, and then until there is room for it.
fn on_disk(due: Time) -> Decision {
    let clears = due.system().map_or(Clears::WithNextAnswer, Clears::At);
    Decision::Hold(Hold { reason: Reason::OnDisk, set_by: SetBy::Queue, clears })
}

fn member_held(action: u64, until: Time) -> Hold {
    let clears = until.system().map_or(Clears::ByChange, Clears::At);
    Hold { reason: Reason::MemberHeld { action }, set_by: SetBy::Feedback, clears }
}

fn resolving() -> Hold {
    Hold { reason: Reason::Resolving, set_by: SetBy::Dns, clears: Clears::WithNextAnswer }
}

fn unroutable(trouble: &RouteTrouble, until: Time) -> Hold {
    let clears = until.system().map_or(Clears::ByChange, Clears::At);
    Hold { reason: Reason::Unroutable(trouble.clone()), set_by: SetBy::Dns, clears }
}

fn way_or_hold(way: &Way) -> Result<&Arc<Route>, Hold> {
    match way {
        Way::Unknown | Way::Sought { old: None, .. } => Err(resolving()),
        Way::Trouble { trouble, until } => Err(unroutable(trouble, *until)),
        Way::Known(route) | Way::Sought { old: Some(route), .. } => Ok(route),
    }
}
