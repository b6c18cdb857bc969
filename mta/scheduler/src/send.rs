//! Sending: which delivery goes next, and what its outcome teaches about site, source and the delivery itself.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use crate::domain::Way;
use crate::evaluate::in_flight_max;
use crate::flow::Load;
use crate::machine::Scheduler;
use crate::measure::{MeasureKind, Object, ReplyClass};
use crate::measures::Wanted;
use crate::provider::LineId;
use crate::ration::{Candidate, Choice};
use crate::retry;
use crate::shaping::Limits;
use crate::time::Time;
use crate::types::{Action, Cancellation, Cause, Lane, Next, Outcome, QueueId, Route, Scope, SourceId, Verdict};
use crate::warmup::{Reservation, Spent};

/// Hosts of a site that must be in trouble one after the other before the site is; fewer if it has fewer.
const HOST_TROUBLES: usize = 3;

/// A peer cannot have us stay away for longer than this.
const RETRY_AFTER_MAX: Duration = Duration::from_secs(24 * 3600);

/// A greylisting host that names no time is given this (RFC 6647 §5: a minute is common, five are usual); a one-time code keeps
/// to its own schedule, which ends sooner.
const GREYLIST_WAIT: Duration = Duration::from_secs(300);

/// A delivery that left its flow's window and is not settled yet.
pub(crate) struct Flight {
    pub(crate) flow: u32,
    pub(crate) lane: Lane,
    pub(crate) state: FlightState,
}

pub(crate) enum FlightState {
    InFlight(Attempt),
    Settling { tried: bool },
}

/// A try that is under way.
#[derive(Clone)]
pub(crate) struct Attempt {
    pub(crate) site: u32,
    provider: u32,
    pub(crate) pool: u16,
    pub(crate) limits: Arc<Limits>,
    pub(crate) source: SourceId,
    pub(crate) slot: u16,
    pub(crate) began: Time,
    /// Deliveries are numbered as they begin.
    number: u64,
    /// Connections that were expected and are counted already.
    connects: u16,
    /// It goes to see whether the site is well again, or whether the source is welcome there.
    site_probe: bool,
    source_probe: bool,
    hosts: usize,
    deadline: Time,
    attempts: u16,
    /// An operator wants gone what this leaves open.
    cancelled: Option<Cancellation>,
    /// Its climb, and what of the allowance it holds.
    pub(crate) climb: Option<u32>,
    pub(crate) reserved: Option<Reservation>,
    /// Not all of its recipients are tried.
    partial: bool,
}

impl Attempt {
    /// What is still open afterwards is cancelled.
    pub(crate) fn cancel(&mut self, wish: Cancellation) {
        self.cancelled = Some(wish);
    }

    pub(crate) fn is_cancelled(&self) -> bool {
        self.cancelled.is_some()
    }
}

/// Why a berth is looked at.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Turn {
    /// It may be able to send.
    Ready,
    /// A member's turn has come to use what room the node has.
    InCrowd,
    /// A member's turn has come in a line at a provider.
    InLine((u32, LineId)),
}

impl Scheduler {
    /// Begins the next delivery: with `otp` among the sites that have one-time codes, without among all others.
    pub(crate) fn send(&mut self, now: Time, otp: bool) -> Option<Action> {
        let (list, lane) = if otp { (0, Lane::Otp) } else { (1, Lane::Notice) };
        let max = in_flight_max(&self.config, lane);
        if self.busy >= max {
            self.line_up(otp);
        }
        while self.busy < max {
            let (turn, member, berth_key) = self.next_berth(otp)?;
            let in_line = |scheduler: &mut Scheduler| {
                if let Turn::InLine(line) = turn {
                    scheduler.leave_line(line, otp);
                }
            };
            let Some(berth) = self.berths.get_mut(berth_key) else {
                in_line(self);
                continue;
            };
            if turn == Turn::Ready {
                berth.listed[list] = false;
            }
            let (site_key, pool) = (berth.site, berth.pool);
            let Some((lane, key)) = berth.next_turn(otp, member) else {
                in_line(self);
                continue;
            };
            if self.is_out_of_order(now, key) {
                in_line(self);
                self.attend(now, key);
                self.rouse(site_key);
                continue;
            }
            let Some(site) = self.sites.get(site_key) else { continue };
            let Some(domain_key) = self.flows.get(key).map(|flow| flow.domain) else { continue };
            let active = self.domains.get(domain_key).and_then(|domain| domain.active.as_ref());
            let Some(route) = active.and_then(|active| active.route()).cloned() else { continue };
            let next = self.candidate(now, key, lane);
            let mut dice = self.dice.clone();
            let Choice { found, source, pool, over } = self.choose(now, site, &route, pool, next, &mut dice);
            self.dice = dice;
            if let Some(source) = source {
                let action = self.begin(now, berth_key, key, lane, route, (source, pool, over));
                if let Turn::InLine(line) = turn {
                    let more = member.is_some_and(|it| self.berths.get(berth_key).is_some_and(|berth| berth.has(otp, it)));
                    if more { self.pass_line(line, otp) } else { self.leave_line(line, otp) }
                }
                self.rouse(site_key);
                return action;
            }
            if let Some(until) = found.provider {
                let line = self.line_of(berth_key, found.held);
                match turn {
                    // It keeps its place, and nobody behind it can go either.
                    Turn::InLine(this) if line == Some(this) => self.close_line(otp),
                    // It waits for other sources now, or the berth of that number is another one since.
                    Turn::InLine(_) => in_line(self),
                    Turn::Ready | Turn::InCrowd => {}
                }
                // Others of its berth need not wait for the same: each finds its line by itself, or they might move each other for ever.
                let only = member.filter(|_| matches!(turn, Turn::InLine(_)));
                if let Some(line) = line {
                    self.line_up_at_provider((berth_key, only), line, otp, until);
                }
            } else {
                in_line(self);
            }
            if found.hold.is_some_and(|hold| hold.concerns_only_the_domain()) {
                // Another lookup may find other addresses; a reload may bring another source.
                let least = now.plus(self.config.unroutable_for.max(Duration::from_secs(1)));
                let until = Time::from(route.valid_until).max(least).min(found.wake);
                if let Some(active) = self.domains.get_mut(domain_key).and_then(|domain| domain.active.as_mut()) {
                    active.parked = Some(until);
                }
                self.wake_domain(domain_key, until);
                self.attend_domain(now, domain_key);
                self.rouse(site_key);
            } else if found.wake < Time::NEVER {
                self.wake_site(site_key, found.wake);
            }
        }
        None
    }

    /// The berth that is looked at next, and for which member if it is one's turn.
    fn next_berth(&mut self, otp: bool) -> Option<(Turn, Option<u32>, u32)> {
        let list = usize::from(!otp);
        if let Some((member, berth)) = self.crowd[list].pop_by(&self.weights) {
            return Some((Turn::InCrowd, Some(member), berth));
        }
        if let Some((line, member, berth)) = self.first_in_line(otp) {
            return Some((Turn::InLine(line), Some(member), berth));
        }
        Some((Turn::Ready, None, self.ready[list].pop_front()?))
    }

    /// While the node is full, members take turns for what room there will be: otherwise one that mails thousands of slow
    /// sites would have all of it, site by site.
    fn line_up(&mut self, otp: bool) {
        let list = usize::from(!otp);
        while let Some(key) = self.ready[list].pop_front() {
            let Some(berth) = self.berths.get_mut(key) else { continue };
            berth.listed[list] = false;
            for member in berth.members(otp) {
                self.crowd[list].push(member, key);
            }
        }
    }

    /// A deadline has passed, the route has run out, or the member is held.
    fn is_out_of_order(&self, now: Time, key: u32) -> bool {
        let Some(flow) = self.flows.get(key) else { return true };
        let Some(active) = self.domains.get(flow.domain).and_then(|domain| domain.active.as_ref()) else { return true };
        let stale = match &active.way {
            Way::Known(route) => Time::from(route.valid_until) <= now,
            Way::Sought { old: Some(route), .. } => !crate::attend::still_serves(route, now),
            Way::Unknown | Way::Sought { old: None, .. } | Way::Trouble { .. } => false,
        };
        stale || flow.watch <= now || self.measures.holds(now, flow.member).is_some()
    }

    fn candidate(&self, now: Time, key: u32, lane: Lane) -> Candidate {
        let flow = self.flows.get(key);
        let next = flow.and_then(|flow| flow.lanes[lane.index()].front());
        let domain = flow.and_then(|flow| self.domains.get(flow.domain));
        let pin = next.zip(domain).and_then(|(next, domain)| self.pins.get(now, next.id, &domain.name));
        Candidate { lane, hurry: next.map(|next| (next.deadline, next.attempts > 0)), pin }
    }

    fn begin(
        &mut self,
        now: Time,
        berth_key: u32,
        key: u32,
        lane: Lane,
        route: Arc<Route>,
        (source, pool, over): (SourceId, u16, bool),
    ) -> Option<Action> {
        let berth = self.berths.get_mut(berth_key)?;
        let site_key = berth.site;
        let site = self.sites.get_mut(site_key)?;
        let flow = self.flows.get_mut(key)?;
        let (domain_key, member) = (flow.domain, flow.member);
        let name = self.domains.get(domain_key)?.name.clone();
        let entry = flow.lanes[lane.index()].pop_front()?;
        flow.in_flight += 1;
        berth.turns[lane.index()].pass(&mut self.flows, lane, key, &self.weights);
        site.in_flight += 1;
        self.busy += 1;
        self.trying += 1;
        self.begun += 1;
        let site_probe = site.health.begin();
        let (provider, limits) = (site.provider_key, site.shape.of(source, pool).clone());
        let path = site.path_mut(source, limits.window);
        let source_probe = path.health.begin();
        let slot = path.window.begin();
        if let Some(rate) = limits.rate {
            path.rate.take(rate, now);
        }
        let connects = u16::from(limits.connect_rate.is_some() && path.is_cold(slot, now));
        if let Some(rate) = limits.connect_rate.filter(|_| connects > 0) {
            path.connects.take(rate, now);
        }
        let mut climb = None;
        if let Some(provider) = self.providers.get_mut(provider as usize) {
            let there = provider.source_mut(source);
            there.in_flight += 1;
            climb = there.climb();
            if let Some(rate) = limits.provider_rate {
                there.rate.take(rate, now);
            }
        }
        let reserved = climb.and_then(|climb| self.warmup.reserve(now, climb, entry.recipients, over));
        let recipients = reserved.map_or(entry.recipients, |reserved| reserved.recipients());
        let attempt = Attempt {
            site: site_key,
            provider,
            pool,
            limits: limits.clone(),
            source,
            slot,
            began: now,
            number: self.begun,
            connects,
            site_probe,
            source_probe,
            hosts: route.hosts.len(),
            deadline: entry.deadline,
            attempts: entry.attempts,
            cancelled: None,
            climb,
            reserved,
            partial: recipients < entry.recipients,
        };
        self.flights.insert((entry.id, domain_key), Flight { flow: key, lane, state: FlightState::InFlight(attempt) });
        self.count_out(member, 1);
        self.note_begun(now, entry.id, &name, source);
        self.attend(now, key);
        Some(Action::Deliver { id: entry.id, domain: name, lane, route, source, slot, limits, recipients })
    }

    /// Answers `Action::Deliver`. `reply` is the text that decided, verbatim: the cause of what follows from it. All recipients were
    /// accepted, or none.
    pub fn handle_outcome(&mut self, now: SystemTime, id: QueueId, domain: &str, outcome: Outcome, reply: &str) {
        let accepted = if outcome.verdict == Verdict::Delivered { u16::MAX } else { 0 };
        self.handle_outcome_of(now, id, domain, (outcome, accepted), reply);
    }

    /// Answers `Action::Deliver` where it is known how many recipients were accepted, and of how many the host had heard when it
    /// ended. What is to be written down in the ledger with the settlement, if the source warms up.
    pub fn handle_outcome_heard(
        &mut self,
        now: SystemTime,
        id: QueueId,
        domain: &str,
        (outcome, accepted, heard): (Outcome, u16, u16),
        reply: &str,
    ) -> Option<Spent> {
        let now = Time::from(now);
        let key = *self.domain_by_name.get(domain)?;
        let flight = self.flights.get_mut(&(id, key))?;
        let FlightState::InFlight(attempt) = &flight.state else { return None };
        let (attempt, lane, flow_key) = (attempt.clone(), flight.lane, flight.flow);
        flight.state = FlightState::Settling { tried: true };
        self.trying -= 1;
        self.learn(now, &attempt, outcome, reply);
        let found = self.domains.get(key).map(|domain| domain.name.clone()).zip(self.flows.get(flow_key).map(|flow| flow.member));
        // What was left out is as good as new.
        let mut elsewhere = attempt.partial && outcome.verdict == Verdict::Delivered;
        let mut spent = None;
        let mut turned = false;
        if let Some((name, member)) = found {
            let again;
            (spent, again) = self.account(now, &attempt, (id, &name), (outcome, accepted, heard), reply);
            elsewhere |= again;
            turned = outcome.unconnected && self.turn_over(now, &attempt, id, &name);
            elsewhere |= self.react(now, &attempt, (id, &name, member), outcome, reply);
        }
        let cancelled = attempt.cancelled.clone().filter(|_| outcome.open);
        let next = if outcome.open && cancelled.is_none() {
            let Attempt { attempts, deadline, .. } = attempt;
            let greylisted = outcome.class == Some(ReplyClass::Greylist) && lane != Lane::Otp;
            let asked = outcome.retry_after.or(greylisted.then_some(GREYLIST_WAIT));
            // From another source it is as good as new.
            let attempts = if elsewhere { 0 } else { attempts };
            match now.system() {
                // Nothing was said to anybody: from the other family it is a first try, and goes at once.
                Some(at) if turned => Next::RetryAt(at),
                _ => retry::after_deferral(now, &self.config.retry, lane, attempts, asked, deadline, &mut self.dice),
            }
        } else {
            Next::Done
        };
        if let (Some(domain), Some(flow)) = (self.domains.get(key), self.flows.get_mut(flow_key)) {
            flow.in_flight -= 1;
            flow.settling += 1;
            let cause = cancelled.map_or(Cause::Attempted, Cause::Cancelled);
            self.settles.push_back(Action::Settle { id, domain: domain.name.clone(), cause, next });
        }
        self.rouse(attempt.site);
        self.leave_unused(now, attempt.site);
        self.attend(now, flow_key);
        spent
    }

    /// What an outcome says about the site and about our source there.
    fn learn(&mut self, now: Time, attempt: &Attempt, outcome: Outcome, reply: &str) {
        let (limits, latest) = (attempt.limits.window, self.begun);
        if let Some(provider) = self.providers.get_mut(attempt.provider as usize) {
            let there = provider.source_mut(attempt.source);
            there.in_flight = there.in_flight.saturating_sub(1);
        }
        self.open_provider(attempt.provider);
        let Some(site) = self.sites.get_mut(attempt.site) else { return };
        site.in_flight -= 1;
        site.lately.note(now, outcome.verdict);
        let path = site.path_mut(attempt.source, limits);
        if outcome.verdict == Verdict::Delivered {
            path.window.widen(limits, attempt.number);
        }
        path.window.end(attempt.slot);
        let scope = match outcome.verdict {
            Verdict::Delivered => Scope::Recipient,
            Verdict::Deferred | Verdict::Failed => outcome.scope,
        };
        if let Some(rate) = attempt.limits.connect_rate {
            if let Some(opened) = outcome.connections {
                path.connects.correct(rate, now, attempt.connects, opened);
            }
            // A host over which a message needs more than one keeps none for the next.
            let kept = outcome.connections.is_none_or(|begun| begun <= attempt.connects.max(1));
            path.set_warm(attempt.slot, now, kept && matches!(scope, Scope::Recipient | Scope::Message));
        }
        let source_is_in_trouble = match scope {
            // It spoke with us about a mailbox: site and source are well.
            Scope::Recipient | Scope::Message => {
                let source_is_well = path.health.good(attempt.source_probe, latest);
                let site_is_well = site.health.good(attempt.site_probe, latest);
                site.host_troubles = 0;
                self.end_suspensions(attempt, source_is_well, site_is_well);
                return;
            }
            // Too fast: going slower is answer enough, until it cannot go any slower.
            Scope::Source if outcome.class == Some(ReplyClass::Rate) && outcome.retry_after.is_none() => {
                attempt.source_probe || path.window.is_least(limits) && path.window.is_news(attempt.number)
            }
            Scope::Source => true,
            // Then the question whether the source is welcome was not answered.
            Scope::Host | Scope::Site => attempt.source_probe,
        };
        let news = path.window.narrow(limits, attempt.number, latest);
        let asked = outcome.retry_after.unwrap_or_default().min(RETRY_AFTER_MAX);
        let mut suspended = [None; 2];
        if source_is_in_trouble && path.health.heeds(attempt.source_probe, attempt.number) {
            let wait = retry::backoff(self.config.suspend, path.health.failures().saturating_add(1), &mut self.dice);
            let until = now.plus(wait.max(asked));
            path.health.suspend(until, latest);
            path.window.start_again(limits);
            suspended[0] = Some(until);
        }
        let mut site_is_well = false;
        let site_is_in_trouble = match scope {
            Scope::Site => true,
            Scope::Host => {
                site.host_troubles = site.host_troubles.saturating_add(u8::from(news));
                attempt.site_probe || usize::from(site.host_troubles) >= attempt.hosts.clamp(1, HOST_TROUBLES)
            }
            Scope::Source | Scope::Recipient | Scope::Message => {
                site_is_well = site.health.good(attempt.site_probe, latest);
                false
            }
        };
        if site_is_in_trouble && site.health.heeds(attempt.site_probe, attempt.number) {
            let wait = retry::backoff(self.config.suspend, site.health.failures().saturating_add(1), &mut self.dice);
            let until = now.plus(wait.max(asked));
            site.health.suspend(until, latest);
            site.host_troubles = 0;
            site.start_again(attempt.pool);
            suspended[1] = Some(until);
            self.wake_site(attempt.site, until);
            self.give_back_site(now, attempt.site);
        }
        self.end_suspensions(attempt, false, site_is_well);
        for (kind, until) in [MeasureKind::PauseSite, MeasureKind::LeaveSite].into_iter().zip(suspended) {
            let (Some(expires), Some(object)) = (until, self.suspended(kind, attempt)) else { continue };
            let (rule, cause, class) = ("suspend".into(), reply.into(), outcome.class);
            self.want(now, Wanted { kind, object, class, rule, cause, expires, window: None });
        }
    }

    fn suspended(&self, kind: MeasureKind, attempt: &Attempt) -> Option<Object> {
        let site = self.sites.get(attempt.site)?.name.clone();
        match kind {
            MeasureKind::LeaveSite => Some(Object::Site(site)),
            _ => Some(Object::AtSite { source: self.sources.get(attempt.source)?.source.name.clone(), site }),
        }
    }

    /// The probe is back, and all is well.
    fn end_suspensions(&mut self, attempt: &Attempt, source: bool, site: bool) {
        for (kind, ends) in [(MeasureKind::PauseSite, source), (MeasureKind::LeaveSite, site)] {
            if let Some(object) = self.suspended(kind, attempt).filter(|_| ends) {
                self.end_measure_of(kind, &object);
            }
        }
    }

    /// Answers `Action::Settle` after the commit: when it is due again, if it is still queued. Also to be told when
    /// somebody else settled a delivery (an operator held or cancelled it); one in flight is finished first. `member`,
    /// whose mail it is, is only needed if it is due again.
    pub fn handle_settled(&mut self, now: SystemTime, id: QueueId, domain: &str, member: u32, due: Option<SystemTime>) {
        let now = Time::from(now);
        let key = match self.domain_by_name.get(domain) {
            Some(&key) => key,
            None if due.is_none() => return,
            None => self.domain(domain),
        };
        let (mut member, mut lane) = (member, None);
        match self.flights.get(&(id, key)) {
            Some(Flight { state: FlightState::InFlight(_), .. }) => return,
            Some(&Flight { state: FlightState::Settling { tried }, lane: its_lane, flow: flow_key }) => {
                self.busy -= usize::from(tried);
                lane = Some(its_lane);
                self.flights.remove(&(id, key));
                if let Some(flow) = self.flows.get_mut(flow_key) {
                    member = flow.member;
                    flow.settling -= 1;
                    if let Load::Asked { settled } = &mut flow.load {
                        settled.push(id);
                    }
                }
            }
            None => self.withdraw(now, key, id),
        }
        match due {
            Some(due) => self.note_on_disk(key, member, lane, due.into()),
            None => {
                if let Some(name) = self.domains.get(key).map(|domain| domain.name.clone()) {
                    self.forget_pin(now, id, &name);
                }
            }
        }
        self.attend_member(now, key, member);
    }

    /// Takes a delivery that waits in memory, or is just being loaded, out of whichever flow of the domain it is in.
    pub(crate) fn withdraw(&mut self, now: Time, key: u32, id: QueueId) {
        let flows: Vec<u32> = self.domains.get(key).into_iter().flat_map(|domain| domain.flows()).collect();
        for key in flows {
            let Some(flow) = self.flows.get_mut(key) else { continue };
            if let Load::Asked { settled } = &mut flow.load {
                settled.push(id);
            }
            let member = flow.member;
            let places = flow.lanes.iter_mut().filter_map(|queue| {
                let nth = queue.iter().position(|queued| queued.id == id)?;
                queue.remove(nth)
            });
            let found = places.count();
            if found > 0 {
                self.count_out(member, found);
                self.attend(now, key);
            }
        }
    }
}
