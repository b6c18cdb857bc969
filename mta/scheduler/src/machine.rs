//! The machine: its state, its inputs, and the order in which it asks for things.
//!
//! Upkeep of flows, domains and sites is in `attend.rs`, sending and what comes of it in `send.rs`.

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use crate::berth::Berth;
use crate::config::{Config, Source};
use crate::dice::{Dice, Hashing};
use crate::domain::{Domain, Stand, Way};
use crate::flow::{Flow, Kept, Load, WINDOW_LOW, WINDOW_MAX, Wants};
use crate::line::Line;
use crate::measures::Measures;
use crate::pin::Pins;
use crate::pools::Pools;
use crate::provider::{LineId, Provider};
use crate::retry;
use crate::send::Flight;
use crate::shape::Shapes;
use crate::shaping::Destination;
use crate::site::Site;
use crate::slab::Slab;
use crate::source::Sources;
use crate::tally::Tallies;
use crate::time::Time;
use crate::types::{Action, Delivery, Lane, QueueId, Routed, SourceId, Verdict};
use crate::warmup::Warmup;
use crate::weights::Weights;

/// A driver that answers `Load` with nothing although something is due is not asked again at once.
const LOAD_AGAIN_AFTER: Duration = Duration::from_secs(1);

/// Timers that go off in one `poll`; the rest follow when there is nothing else to do.
const TIMERS_AT_ONCE: usize = 256;

/// Owns every decision about what is sent next. Inputs are `handle_*`; after each one `poll` until it has nothing more
/// to ask for, then sleep until `next_timeout` or the next input.
pub struct Scheduler {
    pub(crate) config: Config,
    pub(crate) sources: Sources,
    pub(crate) pools: Pools,
    pub(crate) shapes: Shapes,
    pub(crate) weights: Arc<Weights>,
    pub(crate) dice: Dice,
    pub(crate) measures: Measures,
    pub(crate) tallies: Tallies,
    pub(crate) pins: Pins,
    pub(crate) warmup: Warmup,
    pub(crate) domains: Slab<Domain>,
    pub(crate) domain_by_name: HashMap<Arc<str>, u32, Hashing>,
    pub(crate) flows: Slab<Flow>,
    pub(crate) sites: Slab<Site>,
    pub(crate) site_by_name: HashMap<Arc<str>, u32, Hashing>,
    pub(crate) berths: Slab<Berth>,
    /// Never forgotten: as many as the driver knows names.
    pub(crate) providers: Vec<Provider>,
    pub(crate) provider_by_name: HashMap<Arc<str>, u32, Hashing>,
    /// In flight or being settled. Bounded by `in_memory_max`, together with what waits.
    pub(crate) flights: HashMap<(QueueId, u32), Flight, Hashing>,
    /// What wakes by itself, at its `wake`. One entry a domain, flow, site or provider.
    pub(crate) timers: BTreeSet<(Time, Subject)>,
    /// Berths that may be able to send: those with `otp`, and all others. One entry a berth in each.
    pub(crate) ready: [VecDeque<u32>; 2],
    /// The same while the node is full: members that wait for room, and at which berths.
    pub(crate) crowd: [Line; 2],
    /// Lines of providers that may move: those with `otp`, and all others.
    pub(crate) open_lines: [VecDeque<(u32, LineId)>; 2],
    /// To be given out; bounded by `flights`.
    pub(crate) settles: VecDeque<Action>,
    /// In line for `Load` and for `Resolve`: those with `otp`, and all others. One entry a flow in each.
    pub(crate) loads: [Line; 2],
    pub(crate) resolves: [Line; 2],
    /// Nobody in a line for `Load` has room while there is more than this in memory.
    pub(crate) no_room_above: [usize; 2],
    pub(crate) loads_asked: usize,
    pub(crate) resolves_asked: usize,
    /// Waiting in memory, all flows together, and of each member that has any.
    pub(crate) queued: usize,
    pub(crate) queued_by_member: HashMap<u32, usize, Hashing>,
    /// In flight, or tried and being settled: what `in_flight_max` bounds.
    pub(crate) busy: usize,
    /// Being tried.
    pub(crate) trying: usize,
    /// Domains that have nothing to do and still remember their route.
    pub(crate) idle_domains: usize,
    /// Sites that no domain leads to and that are still remembered.
    pub(crate) unused_sites: usize,
    /// Counts what joined the lines for settling, loading and resolving.
    pub(crate) pushed: u64,
    /// Number of the newest delivery that has begun.
    pub(crate) begun: u64,
}

/// Whose timer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Subject {
    Domain(u32),
    Flow(u32),
    Site(u32),
    Provider(u32),
    Measures,
}

impl Scheduler {
    /// An empty scheduler. `seed` makes its choices repeatable; take it from real dice, because it also keys the tables.
    pub fn new(config: Config, seed: u64) -> Scheduler {
        let hashing = Hashing::seeded(seed);
        let lines = [hashing.clone(), hashing.clone()];
        let (mut sources, mut pools) = (Sources::new(), Pools::default());
        sources.configure(&config.sources);
        pools.configure(&config, &sources);
        Scheduler {
            config,
            sources,
            pools,
            shapes: Shapes::new(hashing.clone()),
            weights: Arc::default(),
            dice: Dice::seeded(seed),
            measures: Measures::new(hashing.clone()),
            tallies: Tallies::new(hashing.clone()),
            pins: Pins::new(hashing.clone()),
            warmup: Warmup::default(),
            domains: Slab::new(),
            domain_by_name: HashMap::with_hasher(hashing.clone()),
            flows: Slab::new(),
            sites: Slab::new(),
            site_by_name: HashMap::with_hasher(hashing.clone()),
            berths: Slab::new(),
            providers: Vec::new(),
            provider_by_name: HashMap::with_hasher(hashing.clone()),
            flights: HashMap::with_hasher(hashing.clone()),
            timers: BTreeSet::new(),
            ready: Default::default(),
            crowd: lines.clone().map(Line::new),
            open_lines: Default::default(),
            settles: VecDeque::new(),
            loads: lines.clone().map(Line::new),
            resolves: lines.map(Line::new),
            no_room_above: [usize::MAX; 2],
            loads_asked: 0,
            resolves_asked: 0,
            queued: 0,
            queued_by_member: HashMap::with_hasher(hashing),
            busy: 0,
            trying: 0,
            idle_domains: 0,
            unused_sites: 0,
            pushed: 0,
            begun: 0,
        }
    }

    /// Takes a new configuration and keeps all state. What is in flight finishes under the old one.
    pub fn configure(&mut self, now: SystemTime, config: Config) {
        self.unmoor();
        self.sources.configure(&config.sources);
        self.pools.configure(&config, &self.sources);
        self.config = config;
        self.warmup.configure(now, &self.config.warmup);
        self.bind_climbs();
        self.measures.derive(&self.sources);
        // They are counted by a rule's place in the list.
        self.tallies.clear();
        self.no_room_above = [usize::MAX; 2];
        self.shapes.clear();
        let sites: Vec<u32> = self.sites.iter().map(|(key, _)| key).collect();
        for key in &sites {
            let Some(site) = self.sites.get_mut(*key) else { continue };
            let to = Destination { provider: &site.provider, site: &site.hosts, domain: site.domain.as_deref() };
            site.shape = self.shapes.at(&self.config, &self.sources, &self.pools, to);
        }
        // What was held by a setting may go now. A reload is rare, so looking at everything is in order.
        let domains: Vec<u32> = self.domains.iter().map(|(key, _)| key).collect();
        for key in domains {
            let Some(active) = self.domains.get_mut(key).and_then(|domain| domain.active.as_mut()) else { continue };
            active.parked = None;
            let led = active.route().filter(|_| active.site.is_some()).map(|route| (route.site.clone(), route.provider.clone()));
            if led.is_some() {
                // A rule of its own makes it a site of its own.
                self.lead_to(now.into(), key, led);
            }
            self.attend_domain(now.into(), key);
        }
        for key in sites {
            self.rouse(key);
        }
    }

    /// How much each member sends in its turn, from its next turn on.
    pub fn handle_weights(&mut self, weights: Arc<Weights>) {
        self.weights = weights;
    }

    /// The source of such a number, also when it has been removed from the configuration since.
    pub fn source(&self, id: SourceId) -> Option<&Source> {
        self.sources.get(id).map(|pooled| &pooled.source)
    }

    /// A member has mail for a domain on disk, due then at the earliest. At start once for each flow; later whenever
    /// something else than the scheduler's own actions changed what is on disk (an operator released or flushed mail).
    pub fn handle_backlog(&mut self, now: SystemTime, domain: &str, member: u32, next_due: SystemTime) {
        let key = self.domain(domain);
        self.note_on_disk(key, member, None, next_due.into());
        self.attend_member(now.into(), key, member);
    }

    /// A delivery was found on disk that is past its deadline, or late, although its turn to be loaded has not come: its
    /// domain has more mail than is kept in memory. What is known of already is left alone.
    pub fn handle_overdue(&mut self, now: SystemTime, delivery: &Delivery) {
        let now = Time::from(now);
        let key = self.domain(&delivery.domain);
        if self.flights.contains_key(&(delivery.id, key)) {
            return;
        }
        self.withdraw(now, key, delivery.id);
        // From here on it is as if it had been loaded.
        let flow = self.flow(key, delivery.member);
        self.settle_overdue(now, flow, delivery.id, delivery.lane, delivery.deadline.into());
        self.attend(now, flow);
    }

    /// A delivery was committed. True: it waits in memory, so its octets may be kept at hand too; false: it will be
    /// loaded. To be told in the order of commits, and before the settling of the same delivery.
    pub fn handle_enqueued(&mut self, now: SystemTime, delivery: Delivery) -> bool {
        let now = Time::from(now);
        let key = self.domain(&delivery.domain);
        // It may have been loaded before we were told of it: in flight already, or waiting.
        if self.flights.contains_key(&(delivery.id, key)) {
            return true;
        }
        let kept = self.waits_already(key, &delivery) || self.may_wait(now, key, &delivery) && self.keep(now, key, &delivery);
        if !kept {
            self.note_on_disk(key, delivery.member, Some(delivery.lane), delivery.due.into());
        }
        self.attend_member(now, key, delivery.member);
        kept
    }

    /// Whether a new delivery may wait in memory instead of on disk.
    fn may_wait(&self, now: Time, key: u32, delivery: &Delivery) -> bool {
        if Time::from(delivery.due) > now || self.room(delivery.lane, delivery.member) == 0 {
            return false;
        }
        // Older mail of the flow that is due on disk goes first, or it would never come while new mail keeps coming. While
        // it is being read, new mail may wait here: what is older takes its place if there is too much.
        let behind = match self.domains.get(key).and_then(|domain| domain.stand(delivery.member)) {
            Some(Stand::Rests { next_due, .. }) => next_due <= now,
            Some(Stand::Flows(flow)) => self.flows.get(flow).is_some_and(|flow| flow.next_due <= now && !flow.is_loading()),
            None => false,
        };
        delivery.lane == Lane::Otp || !behind
    }

    fn waits_already(&self, key: u32, delivery: &Delivery) -> bool {
        let flow = self.domains.get(key).and_then(|domain| domain.flow(delivery.member));
        let Some(flow) = flow.and_then(|flow| self.flows.get(flow)) else { return false };
        delivery.id <= flow.loaded_up_to && flow.lanes.iter().flatten().any(|queued| queued.id == delivery.id)
    }

    /// Puts a delivery into its flow's window; false: the window is full of what is more urgent.
    fn keep(&mut self, now: Time, key: u32, delivery: &Delivery) -> bool {
        let flow = self.flow(key, delivery.member);
        match self.flows.get_mut(flow).map_or(Kept::Full, |flow| flow.keep(now, delivery)) {
            Kept::Added => self.count_in(delivery.member, 1),
            Kept::Displaced => {}
            Kept::Full => return false,
        }
        true
    }

    /// Answers `Action::Load`: the first deliveries that are due, in the order (lane, due, id), `max` of them if there
    /// are so many; and the earliest due time of all others of the flow, `None` if there are none. If the disk could
    /// not be read: nothing, and a time to try again.
    pub fn handle_window(
        &mut self,
        now: SystemTime,
        domain: &str,
        member: u32,
        window: Vec<Delivery>,
        next_due: Option<SystemTime>,
    ) {
        let now = Time::from(now);
        let Some(&key) = self.domain_by_name.get(domain) else { return };
        let Some(flow_key) = self.domains.get(key).and_then(|domain| domain.flow(member)) else { return };
        let Some(flow) = self.flows.get_mut(flow_key) else { return };
        let Load::Asked { settled } = std::mem::replace(&mut flow.load, Load::Idle) else { return };
        self.loads_asked -= 1;
        let mut waiting: Vec<QueueId> = flow.lanes.iter().flatten().map(|queued| queued.id).collect();
        waiting.sort_unstable();
        flow.loaded_up_to = window.iter().map(|delivery| delivery.id).max().unwrap_or(QueueId(0)).max(flow.loaded_up_to);
        for delivery in &window {
            // The answer may be older than what we know: then what we know holds.
            let known = waiting.binary_search(&delivery.id).is_ok()
                || settled.contains(&delivery.id)
                || self.flights.contains_key(&(delivery.id, key));
            if known {
                continue;
            }
            let fits = Time::from(delivery.due) <= now && self.room(delivery.lane, member) > 0;
            if !(fits && self.keep(now, key, delivery)) {
                self.note_on_disk(key, member, Some(delivery.lane), delivery.due.into());
            }
        }
        let least = if window.is_empty() { now.plus(LOAD_AGAIN_AFTER) } else { Time::ALWAYS };
        self.note_on_disk(key, member, None, least.max(next_due.into()));
        self.attend(now, flow_key);
    }

    /// Answers `Action::Resolve`.
    pub fn handle_route(&mut self, now: SystemTime, domain: &str, routed: Routed) {
        let now = Time::from(now);
        let Some(&key) = self.domain_by_name.get(domain) else { return };
        let Some(domain) = self.domains.get_mut(key) else { return };
        let Some(active) = domain.active.as_mut() else { return };
        if !matches!(active.way, Way::Sought { asked: true, .. }) {
            return;
        }
        self.resolves_asked -= 1;
        active.parked = None;
        match routed {
            Routed::Route(route) => {
                domain.route_failures = 0;
                let site = (route.site.clone(), route.provider.clone());
                active.way = Way::Known(route);
                self.lead_to(now, key, Some(site));
            }
            Routed::Trouble(trouble) => {
                let until = match trouble.verdict {
                    Verdict::Failed => now.plus(self.config.unroutable_for),
                    Verdict::Deferred | Verdict::Delivered => {
                        domain.route_failures = domain.route_failures.saturating_add(1);
                        now.plus(retry::backoff(self.config.route_retry, domain.route_failures, &mut self.dice))
                    }
                };
                active.way = Way::Trouble { trouble, until };
                self.lead_to(now, key, None);
                self.wake_domain(key, until);
            }
        }
        self.attend_domain(now, key);
    }

    /// What to do next; None: nothing until `next_timeout` or an input.
    pub fn poll(&mut self, now: SystemTime) -> Option<Action> {
        let now = Time::from(now);
        self.turn_days(now);
        loop {
            let more = self.go_off(now);
            let pushed = self.pushed;
            // Settling frees room, so it comes first. Lookups and loads take long, so they are begun before what is
            // ready is sent; but nothing comes before a one-time code.
            let action = (self.settles.pop_front())
                .or_else(|| self.send(now, true))
                .or_else(|| self.resolve())
                .or_else(|| self.load(now))
                .or_else(|| self.send(now, false));
            // Looking at one thing may have made another one wait in a line that was looked at before.
            if action.is_some() || !more && self.pushed == pushed {
                return action;
            }
        }
    }

    /// When to `poll` again without an input. It may come to nothing: timers are moved lazily.
    pub fn next_timeout(&self) -> Option<SystemTime> {
        let timer = self.timers.first().map(|(time, _)| *time);
        timer.into_iter().chain(self.warmup.turns).min()?.system()
    }

    /// Lets timers go off; true: there are more.
    fn go_off(&mut self, now: Time) -> bool {
        for _ in 0..TIMERS_AT_ONCE {
            let Some(&(time, subject)) = self.timers.first() else { return false };
            if time > now {
                return false;
            }
            self.timers.pop_first();
            match subject {
                Subject::Domain(key) => {
                    if let Some(domain) = self.domains.get_mut(key) {
                        domain.wake = Time::NEVER;
                    }
                    self.attend_risen(now, key);
                }
                Subject::Flow(key) => {
                    if let Some(flow) = self.flows.get_mut(key) {
                        flow.wake = Time::NEVER;
                    }
                    self.attend(now, key);
                }
                Subject::Site(key) => {
                    if let Some(site) = self.sites.get_mut(key) {
                        site.wake = Time::NEVER;
                    }
                    self.attend_site(now, key);
                }
                Subject::Provider(key) => {
                    if let Some(provider) = self.providers.get_mut(key as usize) {
                        provider.wake = Time::NEVER;
                    }
                    self.open_provider(key);
                }
                Subject::Measures => {
                    self.measures.wake = Time::NEVER;
                    self.end_measures(now);
                }
            }
        }
        true
    }

    fn resolve(&mut self) -> Option<Action> {
        while self.resolves_asked < self.config.resolves_max.max(1) {
            let (_, key) = self.resolves[0].pop().or_else(|| self.resolves[1].pop())?;
            let Some(domain) = self.domains.get_mut(key) else { continue };
            let Some(active) = domain.active.as_mut() else { continue };
            // Several members may have stood in line for it.
            let Way::Sought { asked: asked @ false, .. } = &mut active.way else { continue };
            *asked = true;
            self.resolves_asked += 1;
            return Some(Action::Resolve { domain: domain.name.clone() });
        }
        None
    }

    /// Whose turn it is to be loaded, among those that have one-time codes or among all others, and how much.
    fn next_load(&mut self, lane: Lane) -> Option<(u32, u32, usize)> {
        let nth = usize::from(lane != Lane::Otp);
        if self.loads[nth].is_empty() || self.in_memory() > self.no_room_above[nth] {
            return None;
        }
        let Some(found) = self.loads[nth].find(|member| self.portion(lane, member) > 0) else {
            // Asking all members again for each delivery that ends would cost more than the delivery.
            self.no_room_above[nth] = self.in_memory().saturating_sub(self.portion_min().div_ceil(2));
            return None;
        };
        let (member, key) = self.loads[nth].take(found)?;
        Some((member, key, self.portion(lane, member)))
    }

    fn load(&mut self, now: Time) -> Option<Action> {
        while self.loads_asked < self.config.loads_max.max(1) {
            let (member, key, most) = self.next_load(Lane::Otp).or_else(|| self.next_load(Lane::Notice))?;
            match self.domains.get(key).and_then(|domain| domain.stand(member)) {
                Some(Stand::Flows(_) | Stand::Rests { wants: true, .. }) => {}
                // It stood in both lines.
                Some(Stand::Rests { wants: false, .. }) | None => continue,
            }
            let flow_key = self.flow(key, member);
            let Some(flow) = self.flows.get_mut(flow_key) else { continue };
            flow.wants = Wants::Nothing;
            // It was due when it joined the line; meanwhile enough may have come in another way.
            if flow.load_at().is_none_or(|at| at > now) {
                self.attend(now, flow_key);
                continue;
            }
            flow.next_due = Time::NEVER;
            for left in &mut flow.left {
                *left = if *left <= now { Time::NEVER } else { *left };
            }
            let known = flow.queued() + flow.in_flight as usize + flow.settling as usize;
            flow.load = Load::Asked { settled: Vec::new() };
            self.loads_asked += 1;
            // What is known lies on disk too and may come first, so it is added to what we want.
            let wanted = most.min(WINDOW_MAX.saturating_sub(flow.queued()).max(WINDOW_LOW));
            let domain = self.domains.get(key)?.name.clone();
            return Some(Action::Load { domain, member, max: known + wanted });
        }
        None
    }

    /// For a domain that nothing was known about.
    pub(crate) fn domain(&mut self, name: &str) -> u32 {
        if let Some(&key) = self.domain_by_name.get(name) {
            return key;
        }
        let name: Arc<str> = Arc::from(name);
        let key = self.domains.insert(Domain::new(name.clone()));
        self.domain_by_name.insert(name, key);
        key
    }

    pub(crate) fn note_on_disk(&mut self, key: u32, member: u32, lane: Option<Lane>, due: Time) {
        let Some(domain) = self.domains.get_mut(key) else { return };
        match domain.stand(member) {
            Some(Stand::Flows(flow)) => {
                if let Some(flow) = self.flows.get_mut(flow) {
                    flow.note_on_disk(lane, due);
                }
            }
            Some(Stand::Rests { next_due, otp, wants }) => {
                let (next_due, otp) = (next_due.min(due), otp || lane == Some(Lane::Otp));
                domain.set_stand(member, Some(Stand::Rests { next_due, otp, wants }));
            }
            None if due == Time::NEVER => {}
            None => {
                let otp = lane == Some(Lane::Otp);
                domain.set_stand(member, Some(Stand::Rests { next_due: due, otp, wants: false }));
            }
        }
    }
}
