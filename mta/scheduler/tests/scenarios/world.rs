//! A world for the scheduler: a queue on disk with one writer, a resolver, scripted sites, and time.
//!
//! Reads take time and see the disk as it was when they began; what is committed is told a little later. These are
//! the races that the scheduler has to live with.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap, HashMap};
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use scheduler::{
    Action, Cause, Change, Config, Delivery, Demand, Host, Lane, Measure, MeasureKind, MeasureNews, Next, Outcome, QueueId,
    Route, RouteTrouble, Routed, Scheduler, Scope, Source, SourceId, TlsPolicy, Verdict,
};

use crate::check::{Checkers, Fate, Key};

pub const SECOND: Duration = Duration::from_secs(1);
pub const MINUTE: Duration = Duration::from_secs(60);
pub const HOUR: Duration = Duration::from_secs(3600);
pub const DAY: Duration = Duration::from_secs(24 * 3600);

pub fn start() -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(1_800_000_000)
}

/// Splitmix64: not the scheduler's dice.
pub struct Luck(u64);

impl Luck {
    pub fn below(&mut self, n: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % n.max(1)
    }

    pub fn millis(&mut self, most: u64) -> Duration {
        Duration::from_millis(self.below(most + 1))
    }
}

/// One try, as a site sees it.
pub struct Try {
    pub now: SystemTime,
    pub source: SourceId,
}

type Script = Box<dyn FnMut(&mut Luck, &Try) -> (Duration, Outcome)>;
type Resolution = Box<dyn FnMut(SystemTime) -> Routed>;

pub const ACCEPTED: Outcome = Outcome::ACCEPTED;

pub fn deferred(scope: Scope) -> Outcome {
    Outcome { scope, verdict: Verdict::Deferred, open: true, ..ACCEPTED }
}

/// Every try is accepted after so long.
pub fn accepts_in(latency: Duration) -> Script {
    Box::new(move |_, _| (latency, ACCEPTED))
}

/// Domain, member, lane, due, id.
type Row = (Arc<str>, u32, Lane, SystemTime, QueueId);

/// Where a delivery is in the index.
#[derive(Clone, Copy)]
pub struct Place {
    pub member: u32,
    pub lane: Lane,
    pub due: SystemTime,
}

fn row(key: &Key, place: Place) -> Row {
    (key.1.clone(), place.member, place.lane, place.due, key.0)
}

struct Stored {
    deadline: SystemTime,
    attempts: u16,
}

enum Event {
    Submit(Delivery),
    Told(Told),
    Read { domain: Arc<str>, member: u32, max: usize },
    Window { domain: Arc<str>, member: u32, window: Vec<Delivery>, next_due: Option<SystemTime> },
    Resolved(Arc<str>),
    Outcome(Key, Outcome),
    Commit { key: Key, next: Next, fate: Fate },
}

/// What the writer tells, in the order of its commits.
enum Told {
    Enqueued(Delivery),
    Settled(Key, u32, Option<SystemTime>),
}

pub struct World {
    pub scheduler: Scheduler,
    pub config: Config,
    pub now: SystemTime,
    pub luck: Luck,
    pub check: Checkers,
    /// The index that the queue keeps.
    disk: BTreeMap<Row, Stored>,
    places: HashMap<Key, Place>,
    sites: HashMap<String, Script>,
    resolver: HashMap<String, Resolution>,
    /// Where the last answer led a domain, and until when the scheduler must know it.
    led_to: HashMap<Arc<str>, (Arc<str>, SystemTime)>,
    events: BinaryHeap<Reverse<(SystemTime, u64)>>,
    what: HashMap<u64, Event>,
    sequence: u64,
    writer: SystemTime,
    /// Most time that disk, resolver and writer take.
    pub disk_millis: u64,
    pub reads: usize,
    pub lookups: usize,
    /// Lookups of a domain, and reads of a member's mail to it.
    unanswered: HashMap<(Arc<str>, Option<u32>), usize>,
    /// Every try: when, what, where to, where from.
    pub log: Vec<(SystemTime, Key, Arc<str>, SourceId)>,
    /// Whose each was.
    pub members: Vec<u32>,
    /// How many tries there had been when the scheduler first had a delivery in its hands.
    pub known_at: HashMap<Key, usize>,
    /// Every lookup and every read: of which domain, and the read whose.
    pub asked: Vec<(Arc<str>, Option<u32>)>,
    /// Measures as they were written down last, and all news of them.
    pub measures: BTreeMap<u64, Measure>,
    pub measure_news: Vec<(SystemTime, MeasureNews)>,
    /// With sites that never fail, mail must not wait while a window has room.
    pub never_idle: bool,
}

impl World {
    pub fn seed(seed: u64) -> World {
        World::with(seed, Config { sources: vec![source("a", 1)], ..Config::default() })
    }

    pub fn with(seed: u64, config: Config) -> World {
        World {
            scheduler: Scheduler::new(config.clone(), seed),
            config,
            now: start(),
            luck: Luck(seed),
            check: Checkers::default(),
            disk: BTreeMap::new(),
            places: HashMap::new(),
            sites: HashMap::new(),
            resolver: HashMap::new(),
            led_to: HashMap::new(),
            events: BinaryHeap::new(),
            what: HashMap::new(),
            sequence: 0,
            writer: start(),
            disk_millis: 2,
            reads: 0,
            lookups: 0,
            unanswered: HashMap::new(),
            log: Vec::new(),
            members: Vec::new(),
            known_at: HashMap::new(),
            asked: Vec::new(),
            measures: BTreeMap::new(),
            measure_news: Vec::new(),
            never_idle: false,
        }
    }

    /// A site, and domains whose MX it is.
    pub fn site(mut self, name: &str, domains: &[&str], script: Script) -> World {
        self.sites.insert(name.into(), script);
        for domain in domains {
            let name = name.to_string();
            self.resolver.insert(domain.to_string(), Box::new(move |now| Routed::Route(route(&name, now + HOUR))));
        }
        self
    }

    pub fn domain(mut self, name: &str, resolution: impl FnMut(SystemTime) -> Routed + 'static) -> World {
        self.resolver.insert(name.into(), Box::new(resolution));
        self
    }

    fn at(&mut self, time: SystemTime, event: Event) {
        self.sequence += 1;
        self.what.insert(self.sequence, event);
        self.events.push(Reverse((time, self.sequence)));
    }

    fn soon(&mut self) -> SystemTime {
        self.now + self.luck.millis(self.disk_millis)
    }

    /// A member submits a message at `time`, with a lifetime.
    pub fn submit_at(&mut self, time: SystemTime, domain: &str, lane: Lane, lifetime: Duration) -> Key {
        self.submit_of(1, time, domain, lane, lifetime)
    }

    pub fn submit(&mut self, domain: &str, lane: Lane, lifetime: Duration) -> Key {
        self.submit_at(self.now, domain, lane, lifetime)
    }

    /// The same by another member.
    pub fn submit_of(&mut self, member: u32, time: SystemTime, domain: &str, lane: Lane, lifetime: Duration) -> Key {
        self.sequence += 1;
        let id = QueueId::new(time, self.sequence as u32);
        let domain: Arc<str> = domain.into();
        let key = (id, domain.clone());
        let (deadline, due) = (time + lifetime, time);
        let delivery =
            Delivery { id, domain, lane, member, due, deadline, late_at: None, attempts: 0, recipients: 1, bytes: 4096 };
        self.at(time, Event::Submit(delivery));
        key
    }

    /// Mail that was on disk before the daemon started; call `restart` afterwards.
    pub fn lies_on_disk(&mut self, domain: &str, lane: Lane, due: SystemTime, lifetime: Duration) -> Key {
        self.lies_on_disk_of(1, domain, lane, due, lifetime)
    }

    /// The same by another member.
    pub fn lies_on_disk_of(&mut self, member: u32, domain: &str, lane: Lane, due: SystemTime, lifetime: Duration) -> Key {
        self.sequence += 1;
        let key: Key = (QueueId::new(self.now, self.sequence as u32), Arc::from(domain));
        let place = Place { member, lane, due };
        self.disk.insert(row(&key, place), Stored { deadline: self.now + lifetime, attempts: 0 });
        self.places.insert(key.clone(), place);
        key
    }

    /// The daemon starts and finds what is on disk.
    pub fn restart(&mut self) {
        let mut first: BTreeMap<(Arc<str>, u32), SystemTime> = BTreeMap::new();
        for (domain, member, _, due, _) in self.disk.keys() {
            let earliest = first.entry((domain.clone(), *member)).or_insert(*due);
            *earliest = (*due).min(*earliest);
        }
        for ((domain, member), due) in first {
            self.scheduler.handle_backlog(self.now, &domain, member, due);
        }
    }

    /// The daemon ends and starts again, with what was written down; nothing is in flight.
    pub fn start_anew(&mut self, seed: u64) {
        assert!(self.check.in_flight.is_empty() && self.check.settling.is_empty());
        let last_id = self.measure_news.iter().map(|(_, news)| news.measure.id).max().unwrap_or(0);
        self.scheduler = Scheduler::new(self.config.clone(), seed);
        self.scheduler.handle_measures(self.now, self.measures.values().cloned().collect(), last_id);
        self.restart();
    }

    /// The one measure of a kind that runs.
    pub fn measure(&self, kind: MeasureKind) -> Measure {
        let found: Vec<&Measure> = self.scheduler.measures().filter(|measure| measure.kind == kind).collect();
        assert_eq!(found.len(), 1, "{kind}: {found:?}");
        assert_eq!(self.measures.get(&found[0].id), Some(found[0]), "what is written down is what runs");
        found[0].clone()
    }

    /// What became of a measure, in order.
    pub fn changes(&self, id: u64) -> Vec<Change> {
        self.measure_news.iter().filter(|(_, news)| news.measure.id == id).map(|(_, news)| news.change.clone()).collect()
    }

    pub fn configure(&mut self, config: Config) {
        self.config = config.clone();
        self.scheduler.configure(self.now, config);
    }

    /// Lets time pass.
    pub fn run(&mut self, span: Duration) {
        let end = self.now + span;
        self.settle_down();
        while let Some(next) = self.next_moment().filter(|next| *next <= end) {
            self.now = next.max(self.now);
            while self.events.peek().is_some_and(|Reverse((time, _))| *time <= self.now) {
                let Reverse((_, sequence)) = self.events.pop().unwrap();
                let event = self.what.remove(&sequence).unwrap();
                self.happen(event);
                // The driver polls after each input; what it is asked for takes time even on a fast machine.
                self.settle_down();
            }
            self.settle_down();
            self.check_never_idle();
        }
        self.now = end;
    }

    fn next_moment(&self) -> Option<SystemTime> {
        let event = self.events.peek().map(|Reverse((time, _))| *time);
        [event, self.scheduler.next_timeout()].into_iter().flatten().min()
    }

    fn settle_down(&mut self) {
        let mut asked = 0;
        while let Some(action) = self.scheduler.poll(self.now) {
            self.act(action);
            asked += 1;
            assert!(asked < 1_000_000, "the scheduler asks without end");
        }
        while let Some(news) = self.scheduler.poll_measures() {
            self.note_measure(news);
        }
    }

    /// What a driver would write down.
    fn note_measure(&mut self, news: MeasureNews) {
        let MeasureNews { measure, change } = &news;
        let known = self.measures.contains_key(&measure.id);
        assert_eq!(known, *change != Change::Started, "{news:?}");
        match change.is_end() {
            true => drop(self.measures.remove(&measure.id)),
            false => drop(self.measures.insert(measure.id, measure.clone())),
        }
        self.measure_news.push((self.now, news));
    }

    fn act(&mut self, action: Action) {
        match action {
            Action::Resolve { domain } => {
                self.lookups += 1;
                self.asked.push((domain.clone(), None));
                *self.unanswered.entry((domain.clone(), None)).or_default() += 1;
                let time = self.soon();
                self.at(time, Event::Resolved(domain));
            }
            Action::Load { domain, member, max } => {
                self.reads += 1;
                self.asked.push((domain.clone(), Some(member)));
                *self.unanswered.entry((domain.clone(), Some(member))).or_default() += 1;
                let time = self.soon();
                self.at(time, Event::Read { domain, member, max });
            }
            Action::Deliver { id, domain, lane, route, source, slot, .. } => {
                let key = (id, domain);
                let Some(&place) = self.places.get(&key) else { panic!("{key:?} goes, and is not in the queue") };
                assert_eq!(lane, place.lane);
                let deadline = self.disk[&row(&key, place)].deadline;
                let (led_to, now) = (&self.led_to, self.now);
                let facts = (place.lane, place.due, deadline);
                // A domain with a rule of its own is a site of its own.
                let site = match self.config.shaping.names_domain(&key.1) {
                    true => format!("{}/{}", route.site, key.1).into(),
                    false => route.site.clone(),
                };
                let trip = (site, source, slot);
                self.check.deliver(self.now, &self.config, &key, facts, trip, |domain| {
                    led_to.get(domain).filter(|(_, until)| *until > now).map(|(site, _)| site.clone())
                });
                self.log.push((self.now, key.clone(), route.site.clone(), source));
                self.members.push(place.member);
                let script = self.sites.get_mut(&*route.site).expect("a site of this world");
                let (latency, outcome) = script(&mut self.luck, &Try { now: self.now, source });
                self.at(self.now + latency, Event::Outcome(key, outcome));
            }
            Action::Settle { id, domain, cause, next } => {
                let key = (id, domain);
                let cancelled = matches!(cause, Cause::Cancelled(_));
                let tried = cause == Cause::Attempted || cancelled && self.check.settling.contains(&key);
                self.check.settle(&key, tried);
                let fate = match (&cause, next) {
                    (Cause::Expired, _) | (_, Next::Expired) => Fate::Expired,
                    (Cause::Unroutable(_), _) => Fate::Unroutable,
                    (Cause::Attempted | Cause::Late, _) => Fate::Done,
                    (Cause::Cancelled(_), _) => Fate::Cancelled,
                };
                let time = self.soon();
                self.at(time, Event::Commit { key, next, fate });
            }
        }
    }

    fn happen(&mut self, event: Event) {
        match event {
            Event::Submit(delivery) => {
                let key = (delivery.id, delivery.domain.clone());
                let place = Place { member: delivery.member, lane: delivery.lane, due: delivery.due };
                self.disk.insert(row(&key, place), Stored { deadline: delivery.deadline, attempts: 0 });
                self.places.insert(key, place);
                self.tell(Told::Enqueued(delivery));
            }
            Event::Told(Told::Enqueued(delivery)) => {
                let (key, lane) = ((delivery.id, delivery.domain.clone()), delivery.lane);
                if self.scheduler.handle_enqueued(self.now, delivery) {
                    self.known_at.entry(key.clone()).or_insert(self.log.len());
                    self.check.kept(key, lane);
                }
            }
            Event::Told(Told::Settled(key, member, due)) => self.scheduler.handle_settled(self.now, key.0, &key.1, member, due),
            Event::Read { domain, member, max } => {
                let (window, next_due) = self.read(&domain, member, max);
                let time = self.soon();
                self.at(time, Event::Window { domain, member, window, next_due });
            }
            Event::Window { domain, member, window, next_due } => {
                *self.unanswered.get_mut(&(domain.clone(), Some(member))).unwrap() -= 1;
                for delivery in &window {
                    self.known_at.entry((delivery.id, domain.clone())).or_insert(self.log.len());
                }
                self.scheduler.handle_window(self.now, &domain, member, window, next_due);
            }
            Event::Resolved(domain) => {
                *self.unanswered.get_mut(&(domain.clone(), None)).unwrap() -= 1;
                let routed = self.resolver.get_mut(&*domain).expect("a domain of this world")(self.now);
                match &routed {
                    Routed::Route(route) => {
                        let until = route.valid_until.min(self.now + 5 * MINUTE);
                        self.led_to.insert(domain.clone(), (route.site.clone(), until))
                    }
                    Routed::Trouble(_) => self.led_to.remove(&domain),
                };
                self.scheduler.handle_route(self.now, &domain, routed);
            }
            Event::Outcome(key, outcome) => {
                self.check.outcome(self.now, &self.config, &key, outcome);
                let reply = outcome.class.map(|class| format!("451 4.7.1 it speaks of {class}")).unwrap_or_default();
                self.scheduler.handle_outcome(self.now, key.0, &key.1, outcome, &reply);
            }
            Event::Commit { key, next, fate } => {
                let place = self.places.remove(&key).expect("in the queue");
                let stored = self.disk.remove(&row(&key, place)).unwrap();
                self.check.settled(self.now, &key, next, stored.deadline, fate);
                let mut again = None;
                if let Next::RetryAt(at) = next {
                    again = Some(at);
                    let (place, attempts) = (Place { due: at, ..place }, stored.attempts + 1);
                    self.places.insert(key.clone(), place);
                    self.disk.insert(row(&key, place), Stored { attempts, ..stored });
                }
                self.tell(Told::Settled(key, place.member, again));
            }
        }
    }

    fn tell(&mut self, told: Told) {
        self.writer = self.soon().max(self.writer);
        self.at(self.writer, Event::Told(told));
    }

    fn read(&self, domain: &Arc<str>, member: u32, max: usize) -> (Vec<Delivery>, Option<SystemTime>) {
        let (mut window, mut next_due) = (Vec::new(), None);
        let from = (domain.clone(), member, Lane::Otp, UNIX_EPOCH, QueueId(0));
        let flow = self.disk.range(from..).take_while(|((at, of, ..), _)| at == domain && *of == member);
        for ((_, _, lane, due, id), stored) in flow {
            if *due <= self.now && window.len() < max {
                window.push(Delivery {
                    id: *id,
                    domain: domain.clone(),
                    lane: *lane,
                    member,
                    due: *due,
                    deadline: stored.deadline,
                    late_at: None,
                    attempts: stored.attempts,
                    recipients: 1,
                    bytes: 4096,
                });
            } else {
                next_due = Some(next_due.unwrap_or(*due).min(*due));
            }
        }
        (window, next_due)
    }

    /// What is in the queue.
    pub fn waiting(&self) -> usize {
        self.places.len()
    }

    pub fn fate(&self, key: &Key) -> Option<Fate> {
        self.check.fates.get(key).copied()
    }

    pub fn fates(&self, fate: Fate) -> usize {
        self.check.fates.values().filter(|other| **other == fate).count()
    }

    pub fn tries(&self, key: &Key) -> Vec<SystemTime> {
        self.log.iter().filter(|(_, other, ..)| other == key).map(|(time, ..)| *time).collect()
    }

    /// Tries of others that began after the scheduler had this one in its hands and before it was tried itself.
    pub fn passed_by(&self, key: &Key) -> usize {
        let tried = self.log.iter().position(|(_, other, ..)| other == key);
        tried.unwrap_or_else(|| panic!("{key:?} was never tried")) - self.known_at[key]
    }

    pub fn tries_of_domain(&self, domain: &str) -> usize {
        self.log.iter().filter(|(_, key, ..)| &*key.1 == domain).count()
    }

    /// Nothing is left anywhere: every message that ever was has a fate, and the scheduler has forgotten it.
    pub fn check_empty(&self) {
        assert_eq!(self.waiting(), 0, "left in the queue: {:?}", self.places.keys().next());
        assert!(self.check.in_flight.is_empty() && self.check.settling.is_empty());
        let counts = self.scheduler.counts();
        assert_eq!((counts.queued, counts.in_flight, counts.settling, counts.loading, counts.resolving), (0, 0, 0, 0, 0));
    }

    /// Mail that is due, and that nothing is being read or looked up for, means that the windows of its site
    /// are full, or the node is.
    fn check_never_idle(&self) {
        if !self.never_idle || self.events.peek().is_some_and(|Reverse((time, _))| *time <= self.now) {
            return;
        }
        let mut at_site: HashMap<&str, usize> = HashMap::new();
        for trip in self.check.in_flight.values() {
            *at_site.entry(&trip.site).or_default() += 1;
        }
        let room = usize::from(self.config.window.initial) * self.config.sources.len();
        let node = self.config.in_flight_max - self.config.in_flight_max / 16;
        // What is settled holds its place until the scheduler is told.
        let told = self.what.values().filter(|event| matches!(event, Event::Told(Told::Settled(..)))).count();
        if self.check.in_flight.len() + self.check.settling.len() + told >= node {
            return;
        }
        for (key, Place { member, due, .. }) in &self.places {
            let under_way = self.check.in_flight.contains_key(key) || self.check.settling.contains(key);
            let flow = [None, Some(*member)].map(|of| (key.1.clone(), of));
            let asked = flow.iter().any(|flow| self.unanswered.get(flow).is_some_and(|n| *n > 0));
            // The writer has not told of it yet.
            let untold = self.what.values().any(|event| match event {
                Event::Told(Told::Enqueued(delivery)) => delivery.id == key.0,
                Event::Told(Told::Settled(other, ..)) => other == key,
                _ => false,
            });
            let site = self.led_to.get(&key.1).map(|(site, _)| site);
            if *due > self.now || under_way || asked || untold {
                continue;
            }
            let busy = site.map_or(0, |site| at_site.get(&**site).copied().unwrap_or(0));
            assert!(busy >= room, "{key:?} waits at {:?} while {site:?} has {busy} of {room} in flight", self.now);
        }
    }
}

pub fn source(name: &str, weight: u32) -> Source {
    Source { name: name.into(), address: IpAddr::V4(Ipv4Addr::LOCALHOST), weight }
}

pub fn route(site: &str, valid_until: SystemTime) -> Arc<Route> {
    let addresses = || vec![IpAddr::V4(Ipv4Addr::LOCALHOST)];
    let host = |name: &str| Host { name: name.into(), preference: 10, addresses: addresses(), demand: Demand::Opportunistic };
    let hosts = site.split(',').map(host).collect();
    Arc::new(Route { site: site.into(), provider: "other".into(), hosts, tls: TlsPolicy::default(), valid_until })
}

pub fn no_route(verdict: Verdict) -> Routed {
    Routed::Trouble(RouteTrouble { verdict, code: (5, 1, 2), text: "no such domain".into() })
}
