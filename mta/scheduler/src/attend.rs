//! Upkeep: after anything has happened to a domain or a site, `attend` brings it into order.
//!
//! It expires what is past its deadline, seeks a route where there is mail, gives the domain its place in the turns of
//! its site, asks for more when the window runs low, sets the timer, and forgets what nobody needs. Every input
//! ends here, so each rule stands once.

use std::sync::Arc;
use std::time::Duration;

use crate::domain::{WINDOW_LOW, WINDOW_MAX, Way};
use crate::machine::{Scheduler, Subject};
use crate::send::{Flight, FlightState};
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
    /// Brings a domain into order. It may be forgotten by this, if nothing is left of it.
    pub(crate) fn attend(&mut self, now: Time, key: u32) {
        self.expire(now, key);
        self.find_way(now, key);
        self.give_back(now, key);
        self.take_turns(now, key);
        self.join_loads(now, key);
        self.rest(now, key);
        self.forget_or_wake(now, key);
    }

    fn expire(&mut self, now: Time, key: u32) {
        let Some(active) = self.domains.get_mut(key).and_then(|domain| domain.active.as_mut()) else { return };
        if active.watch > now {
            return;
        }
        for (lane, entry) in active.take_expired(now) {
            self.queued -= 1;
            self.settle_unsent(key, entry.id, lane, Cause::Expired, Next::Expired);
        }
    }

    fn find_way(&mut self, now: Time, key: u32) {
        let Some(active) = self.domains.get_mut(key).and_then(|domain| domain.active.as_mut()) else { return };
        if active.queued() == 0 {
            return;
        }
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
            Way::Sought { old: None, .. } => return,
            Way::Sought { old: Some(route), .. } => Some(route.clone()),
        };
        let old = old.filter(|route| still_serves(route, now));
        let lost = old.is_none() && active.site.is_some();
        let otp = !active.lanes[Lane::Otp.index()].is_empty();
        match &mut active.way {
            Way::Sought { old: known, .. } => *known = old,
            way => {
                *way = Way::Sought { old, asked: false };
                self.pushed += 1;
                if otp { self.resolves.push_front(key) } else { self.resolves.push_back(key) }
            }
        }
        if lost {
            self.lead_to(now, key, None);
        }
    }

    /// A domain that cannot send for a while gives its memory back, if memory is scarce, so that half of it is always
    /// there for those that can. Everything is on disk; one-time codes stay, because their deadlines are near and only
    /// what is in memory is watched.
    fn give_back(&mut self, now: Time, key: u32) {
        if self.in_memory() * 2 < self.config.in_memory_max {
            return;
        }
        let Some(domain) = self.domains.get_mut(key) else { return };
        let Some(active) = domain.active.as_mut() else { return };
        let until = match &active.way {
            Way::Trouble { until, .. } => Some(*until),
            Way::Unknown | Way::Sought { .. } | Way::Known(_) => {
                active.site.and_then(|site| self.sites.get(site)).and_then(|site| site.health.suspended_until())
            }
        };
        let waits = active.queued() > active.lanes[Lane::Otp.index()].len();
        let Some(until) = until.filter(|until| waits && *until > now) else { return };
        for lane in [Lane::Transactional, Lane::Notice] {
            self.queued -= std::mem::take(&mut active.lanes[lane.index()]).len();
        }
        active.left = [Time::NEVER; 3];
        domain.next_due = until;
    }

    /// The domain takes no mail.
    fn fail_all(&mut self, key: u32) {
        let Some(trouble) = self.trouble(key).cloned() else { return };
        let Some(active) = self.domains.get_mut(key).and_then(|domain| domain.active.as_mut()) else { return };
        active.watch = Time::NEVER;
        let lanes = std::mem::take(&mut active.lanes);
        for (lane, entry) in
            Lane::ALL.into_iter().zip(lanes).flat_map(|(lane, queue)| queue.into_iter().map(move |entry| (lane, entry)))
        {
            self.queued -= 1;
            self.settle_unsent(key, entry.id, lane, Cause::Unroutable(trouble.clone()), Next::Done);
        }
    }

    /// A domain takes turns in each lane in which it has mail, while nothing holds it apart from its site.
    fn take_turns(&mut self, now: Time, key: u32) {
        let Some(active) = self.domains.get_mut(key).and_then(|domain| domain.active.as_mut()) else { return };
        active.parked = active.parked.filter(|until| *until > now);
        let may = active.parked.is_none();
        let wants = active.lanes.each_ref().map(|queue| may && !queue.is_empty());
        let has = active.links.map(|link| link.is_some());
        let Some(site_key) = active.site.filter(|_| wants != has) else { return };
        let Some(site) = self.sites.get_mut(site_key) else { return };
        for lane in Lane::ALL {
            let nth = lane.index();
            match (has[nth], wants[nth]) {
                (false, true) => site::join_turns(&mut self.domains, &mut site.turns[nth], lane, key),
                (true, false) => site::leave_turns(&mut self.domains, &mut site.turns[nth], lane, key),
                (true, true) | (false, false) => {}
            }
        }
        self.rouse(site_key);
    }

    fn join_loads(&mut self, now: Time, key: u32) {
        let Some(domain) = self.domains.get_mut(key).filter(|domain| !domain.wants_load) else { return };
        let at = match &domain.active {
            Some(active) => active.load_at(domain.next_due).unwrap_or(Time::NEVER),
            None => domain.next_due,
        };
        if at > now {
            return;
        }
        domain.wants_load = true;
        self.pushed += 1;
        let otp = domain.active.as_ref().is_some_and(|active| active.left[Lane::Otp.index()] <= now);
        if otp { self.loads.push_front(key) } else { self.loads.push_back(key) }
    }

    /// With nothing to do, only the route is remembered, and only for a while.
    fn rest(&mut self, now: Time, key: u32) {
        let Some(domain) = self.domains.get_mut(key) else { return };
        let wants_load = domain.wants_load;
        let Some(active) = domain.active.as_mut() else { return };
        let sought = matches!(active.way, Way::Sought { .. });
        let busy =
            wants_load || sought || active.is_loading() || active.in_flight > 0 || active.settling > 0 || active.queued() > 0;
        if busy {
            if active.idle_until.take().is_some() {
                self.idle_domains -= 1;
            }
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
            }
            None => {
                self.idle_domains -= usize::from(counted);
                self.lead_to(now, key, None);
                if let Some(domain) = self.domains.get_mut(key) {
                    domain.active = None;
                }
            }
        }
    }

    fn forget_or_wake(&mut self, now: Time, key: u32) {
        let Some(domain) = self.domains.get_mut(key) else { return };
        let wake = match &domain.active {
            None if domain.next_due == Time::NEVER && !domain.wants_load => {
                self.timers.remove(&(domain.wake, Subject::Domain(key)));
                self.domain_by_name.remove(&domain.name);
                self.domains.remove(key);
                return;
            }
            None => domain.next_due,
            Some(active) => {
                let load = active.load_at(domain.next_due);
                let trouble = match &active.way {
                    Way::Trouble { until, .. } => Some(*until),
                    Way::Unknown | Way::Sought { .. } | Way::Known(_) => None,
                };
                let others = [load, trouble, active.parked, active.idle_until];
                others.into_iter().flatten().filter(|at| *at > now).min().unwrap_or(Time::NEVER).min(active.watch)
            }
        };
        // In the line for a load there is nothing to wake for but what is in memory.
        let wake = if domain.wants_load && domain.active.is_none() { Time::NEVER } else { wake };
        if wake < domain.wake {
            self.timers.remove(&(domain.wake, Subject::Domain(key)));
            self.timers.insert((wake, Subject::Domain(key)));
            domain.wake = wake;
        }
    }

    /// Moves a domain to another site, or to none. What is in flight stays where it began.
    pub(crate) fn lead_to(&mut self, now: Time, key: u32, name: Option<(Arc<str>, Arc<str>)>) {
        let new = name.map(|(name, provider)| self.site(name, provider));
        let Some(active) = self.domains.get_mut(key).and_then(|domain| domain.active.as_mut()) else { return };
        let old = std::mem::replace(&mut active.site, new);
        if old == new {
            return;
        }
        if let Some(old) = old {
            if let Some(site) = self.sites.get_mut(old) {
                for lane in Lane::ALL {
                    site::leave_turns(&mut self.domains, &mut site.turns[lane.index()], lane, key);
                }
                site.domains -= 1;
            }
            self.leave_unused(now, old);
        }
        if let Some(site) = new.and_then(|new| self.sites.get_mut(new)) {
            site.domains += 1;
            if site.unused_since.take().is_some() {
                self.unused_sites -= 1;
            }
        }
    }

    fn site(&mut self, name: Arc<str>, provider: Arc<str>) -> u32 {
        if let Some(&key) = self.site_by_name.get(&name) {
            if let Some(site) = self.sites.get_mut(key) {
                site.provider = provider;
            }
            return key;
        }
        let key = self.sites.insert(Site::new(name.clone(), provider));
        self.site_by_name.insert(name, key);
        key
    }

    /// Puts a site on the list of those that may be able to send.
    pub(crate) fn rouse(&mut self, key: u32) {
        let Some(site) = self.sites.get_mut(key) else { return };
        for (nth, otp) in [(0, true), (1, false)] {
            if !site.listed[nth] && site.next_turn(otp).is_some() {
                site.listed[nth] = true;
                self.ready[nth].push_back(key);
            }
        }
    }

    /// A site's timer went off.
    pub(crate) fn attend_site(&mut self, now: Time, key: u32) {
        self.rouse(key);
        let Some(site) = self.sites.get_mut(key) else { return };
        let Some(since) = site.unused_since else { return };
        let until = match site.health.suspended_until() {
            None => since.plus(SITE_MEMORY),
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
        self.unused_sites += 1;
        let max = if site.health.is_open() { UNUSED_SITES_MAX } else { TROUBLED_SITES_MAX };
        if self.unused_sites > max {
            self.forget_site(key);
        } else {
            self.attend_site(now, key);
        }
    }

    fn forget_site(&mut self, key: u32) {
        let Some(site) = self.sites.remove(key) else { return };
        self.unused_sites -= 1;
        self.timers.remove(&(site.wake, Subject::Site(key)));
        self.site_by_name.remove(&site.name);
        for (nth, _) in site.listed.iter().enumerate().filter(|(_, listed)| **listed) {
            self.ready[nth].retain(|listed| *listed != key);
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

    /// How many deliveries a load may bring now; None: no room. The fuller the memory, the smaller the portions, so
    /// that many slow domains do not keep the rest waiting.
    pub(crate) fn load_most(&self) -> Option<usize> {
        let (used, max) = (self.in_memory(), self.config.in_memory_max.max(1));
        match () {
            () if used * 2 < max => Some(WINDOW_MAX),
            () if used * 4 < max * 3 => Some(WINDOW_LOW / 2),
            () if used < max => Some(8),
            () => None,
        }
    }

    /// The domains of a site that has just been suspended bring themselves into order, if memory is scarce.
    pub(crate) fn give_back_site(&mut self, now: Time, site_key: u32) {
        for lane in [Lane::Transactional, Lane::Notice] {
            let head = |machine: &Scheduler| machine.sites.get(site_key).and_then(|site| site.turns[lane.index()]);
            // Each round takes the domain at the head out of this lane's turns, unless there is memory enough.
            while let Some(key) = head(self) {
                self.attend(now, key);
                if head(self) == Some(key) {
                    break;
                }
            }
        }
    }

    /// Settles what was never tried.
    pub(crate) fn settle_unsent(&mut self, key: u32, id: QueueId, lane: Lane, cause: Cause, next: Next) {
        let Some(domain) = self.domains.get_mut(key) else { return };
        let name = domain.name.clone();
        domain.activate().settling += 1;
        self.flights.insert((id, key), Flight { lane, state: FlightState::Settling { tried: false } });
        self.pushed += 1;
        self.settles.push_back(Action::Settle { id, domain: name, cause, next });
    }
}
