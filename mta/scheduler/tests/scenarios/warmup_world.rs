//! A world of young sources: crashes, clocks that are stepped, providers that defer and refuse; and a checker that keeps its own
//! count of what each source may and did send, from what was asked for and committed, never from the scheduler's.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap, HashMap, HashSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use scheduler::warmup::{ClimbRow, ClimbState, Plan, Remembered, Spent, Step};
use scheduler::{
    Action, Config, Delivery, Demand, Host, Lane, Next, Outcome, QueueId, ReplyClass, Route, Routed, Scheduler, Scope, SourceId,
    TlsPolicy, Verdict,
};

use crate::world::{ACCEPTED, DAY, HOUR, Luck, MINUTE, SECOND, deferred, start};

type Name = Arc<str>;
type Pair = (Name, Name);

enum Event {
    Submit(Delivery),
    Answer(QueueId, u64),
}

struct Flying {
    attempt: u64,
    pair: Pair,
    charged: Option<(u32, u8)>,
    recipients: u16,
    answer: (Outcome, u16, &'static str),
}

/// What the checker knows of one source at one provider.
#[derive(Default)]
struct Count {
    day: u32,
    accepted: u64,
    under_way: u64,
    /// Accepted and under way by hour.
    hours: HashMap<u8, u64>,
}

pub struct Young {
    pub scheduler: Scheduler,
    config: Config,
    pub luck: Luck,
    /// True time; the clock says something else.
    true_now: SystemTime,
    ahead: i64,
    queue: BTreeMap<QueueId, Delivery>,
    flying: HashMap<QueueId, Flying>,
    events: BinaryHeap<Reverse<(SystemTime, u64)>>,
    what: HashMap<u64, Event>,
    sequence: u64,
    ledger: BTreeMap<(Name, Name, u32, u8), u64>,
    rows: HashMap<Pair, ClimbRow>,
    pub steps: Vec<(Pair, Step)>,
    counts: HashMap<Pair, Count>,
    /// The latest day that a climb was asked about.
    days: HashMap<Pair, u32>,
    /// Per thousand: deferred, refused, and of the deferred those that are for reputation.
    pub troubles: [u64; 3],
    /// Accepted by a source at a provider, and the day of its zone.
    pub accepted: BTreeMap<(Name, Name, u32), u64>,
    pub over: u64,
    pub delivered: u64,
    pub expired: u64,
    pub tries: Vec<(QueueId, Name)>,
    pub crashes: u64,
    members: HashSet<(Name, u32)>,
    pub never_idle: bool,
    /// Providers defer the first try of everything, as greylisting hosts do.
    pub greylists: bool,
    /// Domains and sites are forgotten and come back under other numbers.
    pub short_routes: bool,
}

/// Seconds east of UTC in the zones of these worlds: as the zone's data says, worked out anew.
pub fn offset(zone: &str, secs: i64) -> i64 {
    match zone {
        "summer" if secs < start().duration_since(UNIX_EPOCH).unwrap().as_secs() as i64 + 3 * 86_400 => 3600,
        "summer" => 7200,
        "winter" if secs < start().duration_since(UNIX_EPOCH).unwrap().as_secs() as i64 + 3 * 86_400 => -4 * 3600,
        "winter" => -5 * 3600,
        _ => 0,
    }
}

/// Whether sources of that family reach a domain: those of even number have IPv4 only.
fn has_ipv6(domain: &str) -> bool {
    domain.as_bytes().get(1).is_some_and(|digit| digit % 2 == 1)
}

impl Young {
    pub fn new(seed: u64, config: Config) -> Young {
        let mut world = Young {
            scheduler: Scheduler::new(config.clone(), seed),
            config,
            luck: crate::world::World::seed(seed ^ 0x5eed).luck,
            true_now: start(),
            ahead: 0,
            queue: BTreeMap::new(),
            flying: HashMap::new(),
            events: BinaryHeap::new(),
            what: HashMap::new(),
            sequence: 0,
            ledger: BTreeMap::new(),
            rows: HashMap::new(),
            steps: Vec::new(),
            counts: HashMap::new(),
            days: HashMap::new(),
            troubles: [0; 3],
            accepted: BTreeMap::new(),
            over: 0,
            delivered: 0,
            expired: 0,
            tries: Vec::new(),
            crashes: 0,
            members: HashSet::new(),
            never_idle: true,
            greylists: false,
            short_routes: false,
        };
        world.begin();
        world
    }

    /// What the clock says.
    pub fn now(&self) -> SystemTime {
        if self.ahead < 0 {
            self.true_now - Duration::from_secs(self.ahead.unsigned_abs())
        } else {
            self.true_now + Duration::from_secs(self.ahead.unsigned_abs())
        }
    }

    pub fn step_clock(&mut self, secs: i64) {
        self.ahead += secs;
    }

    /// The process dies: what was not committed did not happen here.
    pub fn crash(&mut self) {
        self.crashes += 1;
        self.flying.clear();
        self.counts.values_mut().for_each(|count| {
            count.under_way = 0;
            count.hours.clear();
        });
        for ((source, provider, day, hour), spent) in &self.ledger {
            let count = self.counts.entry((source.clone(), provider.clone())).or_default();
            if count.day == *day {
                *count.hours.entry(*hour).or_default() += spent;
            }
        }
        self.scheduler = Scheduler::new(self.config.clone(), self.sequence);
        self.begin();
    }

    fn begin(&mut self) {
        // All that ever were: one that has no plan now may get one again.
        let pairs = self.config.warmup.iter().map(|assignment| (assignment.source.clone(), assignment.provider.clone()));
        let pairs: BTreeSet<Pair> = pairs.chain(self.rows.keys().cloned()).collect();
        let remembered = pairs.into_iter().map(|(source, provider)| {
            let row = self.rows.get(&(source.clone(), provider.clone())).cloned();
            let rows = self.ledger.iter().filter(|((of, with, ..), _)| *of == source && *with == provider);
            let ledger = rows.map(|((_, _, day, hour), count)| (*day, *hour, *count)).collect();
            Remembered { source, provider, row, ledger }
        });
        let remembered = remembered.collect();
        let now = self.now();
        self.scheduler.handle_climbs(now, remembered);
        let mut first: BTreeMap<(Name, u32), SystemTime> = BTreeMap::new();
        for delivery in self.queue.values() {
            let due = first.entry((delivery.domain.clone(), delivery.member)).or_insert(delivery.due);
            *due = delivery.due.min(*due);
        }
        for ((domain, member), due) in first {
            self.scheduler.handle_backlog(now, &domain, member, due);
        }
        self.settle_down();
    }

    pub fn reload(&mut self, config: Config) {
        self.config = config.clone();
        let now = self.now();
        self.scheduler.configure(now, config);
        self.settle_down();
    }

    fn at(&mut self, time: SystemTime, event: Event) {
        self.sequence += 1;
        self.what.insert(self.sequence, event);
        self.events.push(Reverse((time, self.sequence)));
    }

    /// To a domain of a provider: `d1.big` is one of `big`.
    pub fn submit(&mut self, after: Duration, domain: &str, lane: Lane, recipients: u16) -> QueueId {
        let member = self.luck.below(3) as u32;
        let lifetime = if lane == Lane::Otp { 10 * MINUTE } else { 3 * DAY };
        self.submit_as((member, lifetime), after, domain, lane, recipients)
    }

    /// Of a certain member, and good for so long.
    pub fn submit_as(
        &mut self,
        (member, lifetime): (u32, Duration),
        after: Duration,
        domain: &str,
        lane: Lane,
        recipients: u16,
    ) -> QueueId {
        self.sequence += 1;
        let at = self.true_now + after;
        let id = QueueId::new(at, self.sequence as u32);
        let (due, deadline) = (at, at + lifetime);
        let domain: Name = domain.into();
        self.members.insert((domain.clone(), member));
        let delivery = Delivery { id, domain, lane, member, due, deadline, late_at: None, attempts: 0, recipients, bytes: 4096 };
        self.at(at, Event::Submit(delivery));
        id
    }

    /// As many as that.
    pub fn submit_all(&mut self, count: usize, after: Duration, domain: &str, lane: Lane, recipients: u16) {
        for _ in 0..count {
            self.submit(after, domain, lane, recipients);
        }
    }

    pub fn run(&mut self, span: Duration) {
        let end = self.true_now + span;
        self.settle_down();
        while self.true_now < end {
            let event = self.events.peek().map(|Reverse((time, _))| *time);
            let now = self.now();
            let timer = self.scheduler.next_timeout().map(|at| self.true_now + at.duration_since(now).unwrap_or_default());
            // A driver looks again after a while, because the clock may be stepped.
            let nap = self.true_now + HOUR;
            self.true_now = [event, timer, Some(nap), Some(end)].into_iter().flatten().min().unwrap().max(self.true_now);
            self.settle_down();
            while self.events.peek().is_some_and(|Reverse((time, _))| *time <= self.true_now) {
                let Reverse((_, sequence)) = self.events.pop().unwrap();
                match self.what.remove(&sequence).unwrap() {
                    Event::Submit(mut delivery) => {
                        // Its times are the clock's.
                        let now = self.now();
                        let lifetime = delivery.deadline.duration_since(delivery.due).unwrap();
                        (delivery.due, delivery.deadline) = (now, now + lifetime);
                        self.queue.insert(delivery.id, delivery.clone());
                        self.scheduler.handle_enqueued(now, delivery);
                    }
                    Event::Answer(id, attempt) => self.answer(id, attempt),
                }
                self.settle_down();
            }
            if self.events.peek().is_none_or(|Reverse((time, _))| *time > self.true_now) {
                self.check_never_idle();
            }
        }
    }

    fn settle_down(&mut self) {
        let now = self.now();
        for assignment in self.config.warmup.clone().iter() {
            let pair = (assignment.source.clone(), assignment.provider.clone());
            let known = self.days.get(&pair).copied().unwrap_or(0);
            let (day, _) = self.day_of(&assignment.plan, known);
            self.days.insert(pair, day);
        }
        let mut asked = 0;
        while let Some(action) = self.scheduler.poll(now) {
            // What was decided before it counts for it.
            self.hear();
            self.act(action);
            asked += 1;
            assert!(asked < 100_000, "the scheduler asks without end");
        }
        self.hear();
    }

    fn hear(&mut self) {
        while let Some(news) = self.scheduler.poll_warmup() {
            let pair = (news.row.source.clone(), news.row.provider.clone());
            if let Some(before) = self.rows.get(&pair) {
                assert!(before.climb.day <= news.row.climb.day, "a day goes back: {before:?} {news:?}");
            }
            self.steps.extend(news.step.map(|step| (pair.clone(), step)));
            self.rows.insert(pair, news.row);
        }
    }

    fn act(&mut self, action: Action) {
        let now = self.now();
        match action {
            Action::Resolve { domain } => {
                let provider: Name = domain.split('.').nth(1).unwrap().into();
                let mut addresses = vec![IpAddr::V4(Ipv4Addr::LOCALHOST)];
                addresses.extend(has_ipv6(&domain).then_some(IpAddr::V6(Ipv6Addr::LOCALHOST)));
                let host = Host { name: format!("mx.{domain}").into(), preference: 10, addresses, demand: Demand::Opportunistic };
                let site = host.name.clone();
                let lasts = if self.short_routes { MINUTE + self.luck.millis(4 * 3_600_000) } else { 100 * DAY };
                let (tls, valid_until) = (TlsPolicy::default(), now + lasts);
                let route = Route { site, provider, hosts: vec![host], tls, valid_until };
                self.scheduler.handle_route(now, &domain, Routed::Route(Arc::new(route)));
            }
            Action::Load { domain, member, max } => {
                let mut due: Vec<&Delivery> =
                    self.queue.values().filter(|it| it.domain == domain && it.member == member).collect();
                due.sort_by_key(|it| (it.lane, it.due, it.id));
                let (now_due, later): (Vec<_>, Vec<_>) = due.into_iter().partition(|it| it.due <= now);
                let next = later.iter().chain(now_due.iter().skip(max)).map(|it| it.due).min();
                let window = now_due.into_iter().take(max).cloned().collect();
                self.scheduler.handle_window(now, &domain, member, window, next);
            }
            Action::Deliver { id, route, source, recipients, .. } => self.deliver(id, &route.provider, source, recipients),
            Action::Settle { id, domain, next, .. } => {
                let again = match next {
                    Next::RetryAt(at) => Some(at),
                    Next::Done => None,
                    Next::Expired => {
                        self.expired += 1;
                        None
                    }
                };
                let member = self.queue.get(&id).map_or(0, |it| it.member);
                match again {
                    Some(at) => {
                        let delivery = self.queue.get_mut(&id).unwrap();
                        (delivery.due, delivery.attempts) = (at, delivery.attempts + 1);
                    }
                    None => drop(self.queue.remove(&id)),
                }
                self.scheduler.handle_settled(now, id, &domain, member, again);
            }
        }
    }

    fn plan_of(&self, pair: &Pair) -> Option<Arc<Plan>> {
        let mine = |assignment: &&scheduler::warmup::Assignment| assignment.source == pair.0 && assignment.provider == pair.1;
        self.config.warmup.iter().find(mine).map(|assignment| assignment.plan.clone())
    }

    /// Day and hour, worked out anew: a day never goes back, and before its beginning is its first hour.
    fn day_of(&self, plan: &Plan, known: u32) -> (u32, u8) {
        let secs = self.now().duration_since(UNIX_EPOCH).unwrap().as_secs() as i64;
        let local = secs + offset(plan.zone.name(), secs);
        let day = (local / 86_400) as u32;
        if day < known {
            return (known, 0);
        }
        // Clocks change at noon in these worlds: the offset of midnight may be another one.
        let mut begin = i64::from(day) * 86_400 - offset(plan.zone.name(), secs);
        begin += offset(plan.zone.name(), secs) - offset(plan.zone.name(), begin);
        (day, ((secs - begin) / 3600) as u8)
    }

    /// What may go today: (of the day, of the hour), from the row that was written down last. None: as much as there is.
    fn allowed(&self, pair: &Pair, plan: &Plan) -> Option<(u64, u64)> {
        let climb = self.rows.get(pair).map(|row| row.climb);
        let stages = plan.stages.list();
        let of = |stage: u32| stages[(stage as usize).min(stages.len() - 1)];
        let day = match climb {
            None => of(0),
            Some(climb) => match (climb.state, climb.pinned) {
                (ClimbState::Planned | ClimbState::Paused, _) => 0,
                (_, Some(pinned)) => pinned,
                (ClimbState::Warm, None) => return None,
                _ => of(climb.stage),
            },
        };
        let hour = day.div_ceil(u64::from(plan.pace.hours)).max(plan.pace.burst).min(day);
        Some((day, hour))
    }

    fn deliver(&mut self, id: QueueId, provider: &Name, source: SourceId, recipients: u16) {
        let delivery = self.queue.get(&id).expect("it is in the queue").clone();
        assert!(!self.flying.contains_key(&id), "in flight twice");
        assert!(recipients >= 1 && recipients <= delivery.recipients);
        let source = self.scheduler.source(source).unwrap().name.clone();
        let pair = (source.clone(), provider.clone());
        self.tries.push((id, source));
        let mut charged = None;
        if let Some(plan) = self.plan_of(&pair) {
            let known = self.days.get(&pair).copied().unwrap_or(0);
            let (day, hour) = self.day_of(&plan, known);
            let allowed = self.allowed(&pair, &plan);
            let ledger: u64 =
                self.ledger.iter().filter(|((s, p, d, _), _)| *s == pair.0 && *p == pair.1 && *d == day).map(|(_, n)| n).sum();
            let count = self.counts.entry(pair.clone()).or_default();
            if count.day != day {
                *count = Count { day, accepted: ledger, ..Count::default() };
            }
            if let Some((of_day, of_hour)) = allowed {
                let used = count.hours.get(&hour).copied().unwrap_or(0);
                let (all, more) = (count.accepted + count.under_way, u64::from(recipients));
                let otp = delivery.lane == Lane::Otp && plan.oversend_otp;
                if otp && all >= of_day {
                    self.over += more;
                } else {
                    assert!(all + more <= of_day, "{pair:?} overspends: {all} and {more} of {of_day} on day {day}");
                    assert!(
                        otp || used + more <= of_hour,
                        "{pair:?}: {used} and {more} of {of_hour} in hour {hour} of day {day}"
                    );
                    count.under_way += more;
                    *count.hours.entry(hour).or_default() += more;
                    charged = Some((day, hour));
                }
            }
        }
        let [defers, refuses, reputation] = self.troubles;
        let answer = match self.luck.below(1000) {
            _ if self.greylists && delivery.attempts == 0 => {
                let class = Some(ReplyClass::Greylist);
                (Outcome { class, ..deferred(Scope::Recipient) }, 0, "451 4.7.1 greylisted")
            }
            n if n < defers && self.luck.below(1000) < reputation => {
                let class = Some(ReplyClass::Reputation);
                (Outcome { class, ..deferred(Scope::Recipient) }, 0, "421 4.7.0 [TSS04] deferred")
            }
            n if n < defers => (deferred(Scope::Recipient), 0, "451 4.3.0 later"),
            n if n < defers + refuses => {
                let class = Some(ReplyClass::Mailbox);
                (Outcome { verdict: Verdict::Failed, open: false, class, ..deferred(Scope::Recipient) }, 0, "550 5.1.1 unknown")
            }
            _ => (ACCEPTED, recipients, "250 ok"),
        };
        self.sequence += 1;
        let attempt = self.sequence;
        self.flying.insert(id, Flying { attempt, pair, charged, recipients, answer });
        let takes = self.luck.millis(90_000).max(SECOND);
        self.at(self.true_now + takes, Event::Answer(id, attempt));
    }

    fn answer(&mut self, id: QueueId, attempt: u64) {
        // It was in flight when the process died.
        if self.flying.get(&id).is_none_or(|flying| flying.attempt != attempt) {
            return;
        }
        let Flying { pair, charged, recipients, answer: (outcome, accepted, reply), .. } = self.flying.remove(&id).unwrap();
        let delivery = self.queue.get_mut(&id).unwrap();
        let partial = recipients < delivery.recipients;
        let final_ones = if outcome.verdict == Verdict::Failed { recipients } else { accepted };
        delivery.recipients -= final_ones;
        let outcome = Outcome { open: outcome.open || partial, ..outcome };
        self.delivered += u64::from(accepted);
        let domain = delivery.domain.clone();
        let now = self.now();
        let spent = self.scheduler.handle_outcome_of(now, id, &domain, (outcome, accepted), reply);
        match charged {
            Some((day, hour)) => {
                let spent_by_us = (accepted > 0).then(|| Spent {
                    source: pair.0.clone(),
                    provider: pair.1.clone(),
                    day,
                    hour,
                    count: u64::from(accepted),
                });
                assert_eq!(spent, spent_by_us, "it is charged to the hour in which it was reserved");
                let count = self.counts.get_mut(&pair).unwrap();
                if count.day == day {
                    count.under_way -= u64::from(recipients);
                    count.accepted += u64::from(accepted);
                    *count.hours.get_mut(&hour).unwrap() -= u64::from(recipients - accepted);
                }
                if accepted > 0 {
                    // Settled and committed at once: a crash comes before or after.
                    *self.ledger.entry((pair.0.clone(), pair.1.clone(), day, hour)).or_default() += u64::from(accepted);
                    *self.accepted.entry((pair.0, pair.1, day)).or_default() += u64::from(accepted);
                }
            }
            None => assert_eq!(spent, None),
        }
    }

    /// Mail that is due means that nobody may carry it: no allowance is left in this hour.
    fn check_never_idle(&self) {
        if !self.never_idle {
            return;
        }
        let now = self.now();
        let waits = |it: &&Delivery| it.due <= now && it.deadline > now && !self.flying.contains_key(&it.id);
        let mut seen: HashSet<(Name, bool)> = HashSet::new();
        for delivery in self.queue.values().filter(waits) {
            let provider: Name = delivery.domain.split('.').nth(1).unwrap().into();
            let ipv6 = has_ipv6(&delivery.domain);
            if !seen.insert((provider.clone(), ipv6)) {
                continue;
            }
            for source in self.config.sources.iter().filter(|source| source.address.is_ipv4() || ipv6) {
                let pair = (source.name.clone(), provider.clone());
                let Some(plan) = self.plan_of(&pair) else { panic!("{delivery:?} waits and {} is free", source.name) };
                let known = self.days.get(&pair).copied().unwrap_or(0);
                let (day, hour) = self.day_of(&plan, known);
                let Some((of_day, of_hour)) = self.allowed(&pair, &plan) else {
                    panic!("{delivery:?} waits and {pair:?} is warm")
                };
                let count = self.counts.get(&pair).filter(|count| count.day == day);
                let all = count.map_or(0, |count| count.accepted + count.under_way);
                let used = count.and_then(|count| count.hours.get(&hour)).copied().unwrap_or(0);
                let climb = self.rows.get(&pair).map(|row| row.climb);
                assert!(
                    all >= of_day || used >= of_hour,
                    "{delivery:?} waits at {now:?} while {pair:?} has {all} of {of_day} today, {used} of {of_hour} in hour {hour}: {climb:?}; {:?}",
                    self.scheduler.explain(now, &delivery.domain, delivery.member, delivery.lane)
                );
            }
        }
    }

    pub fn row(&self, source: &str, provider: &str) -> &ClimbRow {
        &self.rows[&(source.into(), provider.into())]
    }

    pub fn waiting(&self) -> usize {
        self.queue.len()
    }
}
