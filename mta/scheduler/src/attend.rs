//! Upkeep: after anything has happened to a flow, a domain or a site, `attend` brings it into order.
//!
//! It expires what is past its deadline, seeks a route where there is mail, gives the flow its place in the turns of
//! its site, asks for more when the window runs low, sets the timer, and forgets what nobody needs. Every input
//! ends here, so each rule stands once.

use std::sync::Arc;
use std::time::Duration;

use crate::domain::{Stand, Way};
use crate::flow::{Flow, Wants};
use crate::machine::{Scheduler, Subject};
use crate::send::{Flight, FlightState};
use crate::shaping::Destination;
use crate::site::{self, Site};
use crate::time::Time;
use crate::types::{Action, Cause, Lane, Next, QueueId, Route, Verdict};

/// A route that ran out still serves so long, while the new one is being looked up.
const ROUTE_GRACE: Duration = Duration::from_secs(60);

/// A domain without mail remembers its route so long, if the route is good so long.
const ROUTE_MEMORY: Duration = Duration::from_secs(300);

/// Domains that may remember a route without having mail; past it they forget at once and are looked up again.
const IDLE_DOMAINS_MAX: usize = 4096;

/// A site that no domain leads to is remembered so long, with its windows.
const SITE_MEMORY: Duration = Duration::from_secs(15 * 60);

/// One that was in trouble is remembered so long after its suspension: longer than the longest wait between two tries
/// of a delivery, so that the next one still goes as a probe.
const TROUBLE_MEMORY: Duration = Duration::from_secs(6 * 3600);

/// Such sites; past the first bound those without trouble are forgotten at once and start with a new window, past the
/// second all of them. A few hundred octets each.
const UNUSED_SITES_MAX: usize = 16_384;
const TROUBLED_SITES_MAX: usize = 65_536;

/// Whether a route that ran out may still be used while the new one is being looked up.
pub(crate) fn still_serves(route: &Route, now: Time) -> bool {
    Time::from(route.valid_until).plus(ROUTE_GRACE) > now
}

impl Scheduler {
    /// Brings a flow into order, and its domain. Either may be forgotten by this, if nothing is left of it.
    pub(crate) fn attend(&mut self, now: Time, key: u32) {
        let Some(domain) = self.flows.get(key).map(|flow| flow.domain) else { return };
        self.expire(now, key);
        self.find_way(now, key);
        self.give_back(now, key);
        self.take_turns(now, key);
        self.join_loads(now, key);
        self.rest_or_wake(now, key);
        self.close(now, domain);
    }

    /// The same for all flows of a domain.
    pub(crate) fn attend_domain(&mut self, now: Time, key: u32) {
        let Some(domain) = self.domains.get(key) else { return };
        let flows: Vec<u32> = domain.flows().collect();
        for flow in flows {
            self.attend(now, flow);
        }
        self.close(now, key);
    }

    /// A member's mail to a domain may have become due.
    pub(crate) fn attend_member(&mut self, now: Time, key: u32, member: u32) {
        let Some(domain) = self.domains.get_mut(key) else { return };
        match domain.stand(member) {
            Some(Stand::Flows(flow)) => self.attend(now, flow),
            Some(Stand::Rests { next_due, otp, wants: false }) if next_due <= now => {
                domain.set_stand(member, Some(Stand::Rests { next_due, otp, wants: true }));
                self.line_up_to_load(if otp { Lane::Otp } else { Lane::Notice }, member, key);
            }
            Some(Stand::Rests { next_due, wants: false, .. }) => self.wake_domain(key, next_due),
            Some(Stand::Rests { wants: true, .. }) => {}
            None => self.close(now, key),
        }
    }

    /// A domain's timer went off.
    pub(crate) fn attend_risen(&mut self, now: Time, key: u32) {
        let Some(domain) = self.domains.get(key) else { return };
        let over = domain.active.as_ref().is_some_and(|active| {
            let trouble = matches!(active.way, Way::Trouble { until, .. } if until <= now);
            trouble || active.parked.is_some_and(|until| until <= now)
        });
        for member in domain.risen(now) {
            self.attend_member(now, key, member);
        }
        if over {
            self.attend_domain(now, key)
        } else {
            self.close(now, key)
        }
        let Some(domain) = self.domains.get(key) else { return };
        let mut next = domain.rests_until();
        if let Some(active) = &domain.active {
            let trouble = match &active.way {
                Way::Trouble { until, .. } => Some(*until),
                Way::Unknown | Way::Sought { .. } | Way::Known(_) => None,
            };
            next = [trouble, active.parked, active.idle_until].into_iter().flatten().filter(|at| *at > now).fold(next, Time::min);
        }
        self.wake_domain(key, next);
    }

    fn expire(&mut self, now: Time, key: u32) {
        let Some(flow) = self.flows.get_mut(key) else { return };
        if flow.watch > now {
            return;
        }
        let (member, overdue) = (flow.member, flow.take_overdue(now));
        self.count_out(member, overdue.len());
        for (lane, entry) in overdue {
            self.settle_overdue(now, key, entry.id, lane, entry.deadline);
        }
    }

    fn find_way(&mut self, now: Time, key: u32) {
        let Some(flow) = self.flows.get(key).filter(|flow| flow.queued() > 0) else { return };
        let (domain_key, member, otp) = (flow.domain, flow.member, !flow.lanes[Lane::Otp.index()].is_empty());
        let Some(active) = self.domains.get_mut(domain_key).and_then(|domain| domain.active.as_mut()) else { return };
        let old = match &active.way {
            Way::Trouble { trouble, until } if *until > now => {
                if trouble.verdict == Verdict::Failed {
                    self.fail_all(key);
                }
                return;
            }
            Way::Unknown | Way::Trouble { .. } => None,
            Way::Known(route) if Time::from(route.valid_until) > now => return,
            Way::Known(route) => Some(route.clone()),
            Way::Sought { old, .. } => old.clone(),
        };
        let old = old.filter(|route| still_serves(route, now));
        let lost = old.is_none() && active.site.is_some();
        let asked = matches!(active.way, Way::Sought { asked: true, .. });
        active.way = Way::Sought { old, asked };
        // Each member that waits for it stands in the line, so that none waits for the turn of another.
        if !asked && self.resolves[usize::from(!otp)].push(member, domain_key) {
            self.pushed += 1;
        }
        if lost {
            self.lead_to(now, domain_key, None);
        }
    }

    /// A flow that cannot send for a while gives its memory back, if its member's is scarce, for those that can.
    /// Everything is on disk; one-time codes stay, because their deadlines are near and only what is in memory is watched.
    fn give_back(&mut self, now: Time, key: u32) {
        if self.has_plenty() {
            return;
        }
        let Some(flow) = self.flows.get(key) else { return };
        let Some(active) = self.domains.get(flow.domain).and_then(|domain| domain.active.as_ref()) else { return };
        let until = match &active.way {
            Way::Trouble { until, .. } => Some(*until),
            Way::Unknown | Way::Sought { .. } | Way::Known(_) => {
                active.site.and_then(|site| self.sites.get(site)).and_then(|site| site.health.suspended_until())
            }
        };
        let waits = flow.queued() > flow.lanes[Lane::Otp.index()].len();
        let Some(until) = until.filter(|until| waits && *until > now && self.is_scarce(flow.member)) else { return };
        let Some(flow) = self.flows.get_mut(key) else { return };
        let (member, mut given) = (flow.member, 0);
        for lane in [Lane::Transactional, Lane::Notice] {
            given += std::mem::take(&mut flow.lanes[lane.index()]).len();
        }
        flow.left = [Time::NEVER; 3];
        flow.next_due = until;
        self.count_out(member, given);
    }

    /// The domain takes no mail.
    fn fail_all(&mut self, key: u32) {
        let Some(flow) = self.flows.get_mut(key) else { return };
        let Some(trouble) = self.domains.get(flow.domain).and_then(|domain| domain.trouble()).cloned() else { return };
        let (member, all) = (flow.member, flow.take_all());
        self.count_out(member, all.len());
        for (lane, entry) in all {
            self.settle_unsent(key, entry.id, lane, Cause::Unroutable(trouble.clone()), Next::Done);
        }
    }

    /// A flow takes turns in each lane in which it has mail, while nothing holds its domain or its member apart from its site.
    fn take_turns(&mut self, now: Time, key: u32) {
        let Some(flow) = self.flows.get(key) else { return };
        let Some(active) = self.domains.get_mut(flow.domain).and_then(|domain| domain.active.as_mut()) else { return };
        active.parked = active.parked.filter(|until| *until > now);
        let may = active.parked.is_none() && self.measures.holds(now, flow.member).is_none();
        let wants = flow.lanes.each_ref().map(|queue| may && !queue.is_empty());
        let has = flow.takes_turns();
        let Some(site_key) = active.site.filter(|_| wants != has) else { return };
        for lane in Lane::ALL {
            let nth = lane.index();
            if has[nth] != wants[nth] {
                self.moor(site_key, lane, key, wants[nth]);
            }
        }
        self.rouse(site_key);
    }

    fn join_loads(&mut self, now: Time, key: u32) {
        let Some(flow) = self.flows.get_mut(key) else { return };
        if flow.load_at().is_none_or(|at| at > now) {
            return;
        }
        let wants = if flow.left[Lane::Otp.index()] <= now { Wants::Otp } else { Wants::Any };
        if wants <= flow.wants {
            return;
        }
        flow.wants = wants;
        let (member, domain) = (flow.member, flow.domain);
        self.line_up_to_load(if wants == Wants::Otp { Lane::Otp } else { Lane::Notice }, member, domain);
    }

    /// With nothing in memory a flow is a due time again, or nothing.
    fn rest_or_wake(&mut self, now: Time, key: u32) {
        let Some(flow) = self.flows.get(key) else { return };
        if !flow.rests() {
            let at = flow.load_at().filter(|at| *at > now && flow.wants == Wants::Nothing).unwrap_or(Time::NEVER);
            self.wake_flow(key, at.min(flow.watch));
            return;
        }
        let (domain_key, member, next_due, wants) = (flow.domain, flow.member, flow.next_due, flow.wants != Wants::Nothing);
        let otp = flow.left[Lane::Otp.index()] < Time::NEVER;
        let stand = (wants || next_due < Time::NEVER).then_some(Stand::Rests { next_due, otp, wants });
        self.timers.remove(&(flow.wake, Subject::Flow(key)));
        self.flows.remove(key);
        let Some(domain) = self.domains.get_mut(domain_key) else { return };
        domain.set_stand(member, stand);
        domain.activate().flows -= 1;
        if !wants {
            self.wake_domain(domain_key, next_due);
        }
    }

    /// Without flows only a domain's route is remembered, and only for a while; without mail nothing.
    fn close(&mut self, now: Time, key: u32) {
        let Some(domain) = self.domains.get_mut(key) else { return };
        if let Some(active) = domain.active.as_mut() {
            if active.flows > 0 || matches!(active.way, Way::Sought { .. }) {
                self.idle_domains -= usize::from(active.idle_until.take().is_some());
                return;
            }
            let until = active.idle_until.or(match &active.way {
                Way::Known(route) => Some(Time::from(route.valid_until).min(now.plus(ROUTE_MEMORY))),
                Way::Trouble { until, .. } => Some(*until),
                Way::Unknown | Way::Sought { .. } => None,
            });
            let counted = active.idle_until.is_some();
            match until.filter(|until| *until > now && (counted || self.idle_domains < IDLE_DOMAINS_MAX)) {
                Some(until) => {
                    active.idle_until = Some(until);
                    self.idle_domains += usize::from(!counted);
                    self.wake_domain(key, until);
                    return;
                }
                None => {
                    self.idle_domains -= usize::from(counted);
                    self.lead_to(now, key, None);
                }
            }
        }
        let Some(domain) = self.domains.get_mut(key) else { return };
        domain.active = None;
        if domain.is_empty() {
            self.timers.remove(&(domain.wake, Subject::Domain(key)));
            self.domain_by_name.remove(&domain.name);
            self.domains.remove(key);
        }
    }

    /// The flow of a member, made if need be.
    pub(crate) fn flow(&mut self, domain_key: u32, member: u32) -> u32 {
        let Some(domain) = self.domains.get_mut(domain_key) else { return u32::MAX };
        let mut flow = Flow::new(domain_key, member);
        match domain.stand(member) {
            Some(Stand::Flows(key)) => return key,
            Some(Stand::Rests { next_due, otp, wants }) => {
                flow.note_on_disk(otp.then_some(Lane::Otp), next_due);
                flow.wants = match (wants, otp) {
                    (false, _) => Wants::Nothing,
                    (true, false) => Wants::Any,
                    (true, true) => Wants::Otp,
                };
            }
            None => {}
        }
        let key = self.flows.insert(flow);
        domain.set_stand(member, Some(Stand::Flows(key)));
        domain.activate().flows += 1;
        key
    }

    /// Moves a domain to another site, or to none. What is in flight stays where it began.
    pub(crate) fn lead_to(&mut self, now: Time, key: u32, name: Option<(Arc<str>, Arc<str>)>) {
        let new = name.map(|(hosts, provider)| {
            let own = self.domains.get(key).map(|domain| domain.name.clone());
            self.site(hosts, own.filter(|name| self.config.shaping.names_domain(name)), provider)
        });
        let Some(active) = self.domains.get_mut(key).and_then(|domain| domain.active.as_mut()) else { return };
        let old = std::mem::replace(&mut active.site, new);
        if old == new {
            return;
        }
        if let Some(old) = old {
            let flows: Vec<u32> = self.domains.get(key).into_iter().flat_map(|domain| domain.flows()).collect();
            for flow in flows {
                Lane::ALL.into_iter().for_each(|lane| self.moor(old, lane, flow, false));
            }
            if let Some(site) = self.sites.get_mut(old) {
                site.domains -= 1;
            }
            self.leave_unused(now, old);
        }
        if let Some(site) = new.and_then(|new| self.sites.get_mut(new)) {
            site.domains += 1;
            site.last = self.domains.get(key).map(|domain| domain.name.clone());
            if site.unused_since.take().is_some() {
                self.unused_sites -= 1;
            }
        }
    }

    fn site(&mut self, hosts: Arc<str>, domain: Option<Arc<str>>, provider: Arc<str>) -> u32 {
        let name = site::name(&hosts, domain.as_deref());
        let provider_key = self.provider(&provider);
        let known = self.site_by_name.get(&name).copied();
        if let Some(key) = known.filter(|key| self.sites.get(*key).is_some_and(|site| site.provider == provider)) {
            return key;
        }
        let shape = self.shape(Destination { provider: &provider, site: &hosts, domain: domain.as_deref() });
        if let Some(key) = known {
            if let Some(site) = self.sites.get_mut(key) {
                (site.provider, site.provider_key, site.shape) = (provider, provider_key, shape);
            }
            // Who stands in line at the old one may go at the new one.
            self.rouse(key);
            return key;
        }
        let key = self.sites.insert(Site::new(hosts, domain, provider, provider_key, shape));
        self.site_by_name.insert(name, key);
        self.impose(key);
        key
    }

    /// Puts the berths of a site on the list of those that may be able to send.
    pub(crate) fn rouse(&mut self, key: u32) {
        let Some(site) = self.sites.get(key) else { return };
        for (_, key) in &site.berths {
            let Some(berth) = self.berths.get_mut(*key) else { continue };
            for (nth, otp) in [(0, true), (1, false)] {
                if !berth.listed[nth] && berth.next_turn(otp, None).is_some() {
                    berth.listed[nth] = true;
                    self.ready[nth].push_back(*key);
                }
            }
        }
    }

    /// A site's timer went off.
    pub(crate) fn attend_site(&mut self, now: Time, key: u32) {
        self.rouse(key);
        let Some(site) = self.sites.get_mut(key) else { return };
        let Some(since) = site.unused_since else { return };
        let until = match site.health.suspended_until() {
            None => since.plus(SITE_MEMORY).max(site.rested_at()),
            Some(until) => since.max(until).plus(TROUBLE_MEMORY),
        };
        if until <= now {
            self.forget_site(key);
        } else {
            self.wake_site(key, until);
        }
    }

    /// Nobody needs a site any more, perhaps.
    pub(crate) fn leave_unused(&mut self, now: Time, key: u32) {
        let Some(site) = self.sites.get_mut(key) else { return };
        if site.domains > 0 || site.in_flight > 0 || site.unused_since.is_some() {
            return;
        }
        site.unused_since = Some(now);
        site.rest();
        self.unused_sites += 1;
        let max = if site.health.is_open() && site.rested_at() <= now { UNUSED_SITES_MAX } else { TROUBLED_SITES_MAX };
        self.remove_berths(key);
        if self.unused_sites > max {
            self.forget_site(key);
        } else {
            self.attend_site(now, key);
        }
    }

    fn forget_site(&mut self, key: u32) {
        self.remove_berths(key);
        let Some(site) = self.sites.remove(key) else { return };
        self.unused_sites -= 1;
        self.timers.remove(&(site.wake, Subject::Site(key)));
        self.site_by_name.remove(&site.name);
    }

    pub(crate) fn wake_domain(&mut self, key: u32, at: Time) {
        let Some(domain) = self.domains.get_mut(key) else { return };
        if at < domain.wake {
            self.timers.remove(&(domain.wake, Subject::Domain(key)));
            self.timers.insert((at, Subject::Domain(key)));
            domain.wake = at;
        }
    }

    fn wake_flow(&mut self, key: u32, at: Time) {
        let Some(flow) = self.flows.get_mut(key) else { return };
        if at < flow.wake {
            self.timers.remove(&(flow.wake, Subject::Flow(key)));
            self.timers.insert((at, Subject::Flow(key)));
            flow.wake = at;
        }
    }

    pub(crate) fn wake_site(&mut self, key: u32, at: Time) {
        let Some(site) = self.sites.get_mut(key) else { return };
        if at < site.wake {
            self.timers.remove(&(site.wake, Subject::Site(key)));
            self.timers.insert((at, Subject::Site(key)));
            site.wake = at;
        }
    }

    /// The flows of a site that has just been suspended bring themselves into order, where memory is scarce.
    pub(crate) fn give_back_site(&mut self, now: Time, site_key: u32) {
        let Some(site) = self.sites.get(site_key).filter(|_| !self.has_plenty()) else { return };
        let lanes = [Lane::Transactional, Lane::Notice];
        let berths = site.berths.iter().filter_map(|(_, key)| self.berths.get(*key));
        let turns = berths.flat_map(|berth| lanes.map(|lane| (lane, &berth.turns[lane.index()])));
        let flows: Vec<u32> = turns.flat_map(|(lane, turns)| turns.flows(&mut self.flows, lane)).collect();
        for key in flows {
            self.attend(now, key);
        }
    }

    /// What has passed its deadline expires; what is late goes back to the disk, due at once, and the sender is told.
    pub(crate) fn settle_overdue(&mut self, now: Time, key: u32, id: QueueId, lane: Lane, deadline: Time) {
        let (cause, next) = match now.system() {
            Some(at) if deadline > now => (Cause::Late, Next::RetryAt(at)),
            _ => (Cause::Expired, Next::Expired),
        };
        self.settle_unsent(key, id, lane, cause, next);
    }

    /// Settles what was never tried.
    pub(crate) fn settle_unsent(&mut self, key: u32, id: QueueId, lane: Lane, cause: Cause, next: Next) {
        let Some(flow) = self.flows.get_mut(key) else { return };
        let Some(domain) = self.domains.get(flow.domain) else { return };
        flow.settling += 1;
        self.flights.insert((id, flow.domain), Flight { flow: key, lane, state: FlightState::Settling { tried: false } });
        self.pushed += 1;
        self.settles.push_back(Action::Settle { id, domain: domain.name.clone(), cause, next });
    }
}
