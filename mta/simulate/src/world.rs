//! The world around the scheduler: mail that comes, a queue, receivers that answer a second later, and time that jumps.
//!
//! Lean, because a month of mail is to pass in about a second: what is read and what is written down is answered at once (the
//! races between them are the business of the scheduler's own tests), every try takes the same time, so that
//! answers come in the order of the tries, and mail comes at whole minutes. What the scheduler does not take into memory lies in
//! *heaps*, numbers by minute, and becomes deliveries when it is loaded: so mail that only waits costs nothing. Where there is much,
//! one delivery has many recipients (the *grain*): the scheduler counts recipients against an allowance, to the last one, so that
//! only the times at which they go are coarser than they would be.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use scheduler::warmup::{ClimbRow, Step};
use scheduler::{Action, Config, Delivery, Demand, Host, Lane, Next, QueueId, Route, Routed, Scheduler, SourceId, TlsPolicy};

use crate::luck::Luck;
use crate::receiver::{Answer, Model, Standing};
use crate::tally::Tally;

pub(crate) const DAY: Duration = Duration::from_secs(24 * 3600);
const MINUTE: Duration = Duration::from_secs(60);

/// What a try takes, from connecting to the last reply.
const TRY: Duration = Duration::from_secs(1);

/// Places for messages in the queue. The number of a place is part of its id, as the counter that a queue id has.
const PLACES: usize = 1 << QueueId::COUNTER_BITS;

/// Whose mail it is. Members take turns; one is enough to learn about receivers.
const MEMBER: u32 = 1;

/// What a lane's mail is of all mail, and how long it is worth sending.
pub(crate) const LANES: [(Lane, f64, Duration); 3] = [
    (Lane::Otp, 0.2, Duration::from_secs(15 * 60)),
    (Lane::Transactional, 0.6, Duration::from_secs(24 * 3600)),
    (Lane::Notice, 0.2, Duration::from_secs(3 * 24 * 3600)),
];

/// A message that is in the queue.
#[derive(Clone, Copy)]
struct Stored {
    id: QueueId,
    provider: u8,
    lane: Lane,
    due: SystemTime,
    deadline: SystemTime,
    attempts: u16,
    /// Those that are open.
    recipients: u16,
}

/// A provider, its one domain, and what lies in the queue for it.
struct Place {
    domain: Arc<str>,
    route: Arc<Route>,
    /// By source.
    standings: Vec<Standing>,
    /// By lane: when it is due, and its place.
    disk: [BTreeSet<(SystemTime, QueueId)>; 3],
    /// By lane: what came when and is no delivery yet, in its order.
    heaps: [VecDeque<(SystemTime, u64)>; 3],
    /// Recipients of a delivery made now.
    grain: u16,
}

pub(crate) struct World {
    pub(crate) scheduler: Scheduler,
    pub(crate) now: SystemTime,
    pub(crate) tally: Tally,
    model: Model,
    luck: Luck,
    places: Vec<Place>,
    stored: Vec<Option<Stored>>,
    free: Vec<usize>,
    /// Deliveries in the queue, and their recipients.
    kept: usize,
    waiting: u64,
    /// Answers on their way: when, to what, what.
    answers: VecDeque<(SystemTime, QueueId, u8, Answer)>,
    /// What the engine decided since they were taken last.
    pub(crate) steps: Vec<(ClimbRow, Step)>,
    /// Of all deliveries that were made; those that are done are passed over.
    deadlines: BTreeMap<SystemTime, Vec<QueueId>>,
}

impl World {
    pub(crate) fn new(config: Config, model: Model, providers: &[Arc<str>], start: SystemTime, seed: u64) -> World {
        let sources = config.sources.len();
        let place = |name: &Arc<str>| {
            let domain: Arc<str> = format!("{name}.example").into();
            let addresses = vec![IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1))];
            let host = Host { name: format!("mx.{domain}").into(), preference: 10, addresses, demand: Demand::Opportunistic };
            let valid_until = start + 20_000 * DAY;
            let (site, provider, tls) = (host.name.clone(), name.clone(), TlsPolicy::default());
            let route = Arc::new(Route { site, provider, hosts: vec![host], tls, valid_until });
            Place {
                domain,
                route,
                standings: vec![Standing::new(&model); sources],
                disk: Default::default(),
                heaps: Default::default(),
                grain: 1,
            }
        };
        World {
            scheduler: Scheduler::new(config, seed),
            now: start,
            tally: Tally::default(),
            places: providers.iter().map(place).collect(),
            model,
            luck: Luck::seeded(seed ^ 0x7761_726d),
            stored: Vec::new(),
            free: Vec::new(),
            kept: 0,
            waiting: 0,
            answers: VecDeque::new(),
            steps: Vec::new(),
            deadlines: BTreeMap::new(),
        }
    }

    /// Messages in the queue.
    pub(crate) fn waiting(&self) -> u64 {
        self.waiting
    }

    /// Midnight: the receivers' days end and ours, which is when the engine decides.
    pub(crate) fn begin_day(&mut self, day: u32) {
        for place in &mut self.places {
            place.standings.iter_mut().filter(|_| day > 0).for_each(|standing| standing.begin_day(&self.model, day));
        }
        self.settle_down();
    }

    /// The rest of a day: so many messages for each provider, in deliveries of so many recipients, spread over its minutes as
    /// `shares` says.
    pub(crate) fn run_day(&mut self, volume: &[(f64, u16)], shares: &[f64]) {
        let begins = self.now;
        for (place, (_, grain)) in self.places.iter_mut().zip(volume) {
            place.grain = (*grain).max(1);
        }
        for (minute, share) in shares.iter().enumerate() {
            self.run_until(begins + MINUTE * minute as u32);
            self.expire();
            for (provider, (volume, grain)) in volume.iter().enumerate() {
                for (lane, part, _) in LANES {
                    let deliveries = self.luck.whole(volume * share * part / f64::from((*grain).max(1)));
                    self.arrive(provider, lane, deliveries * u64::from(*grain));
                }
            }
            if minute > 0 {
                self.settle_down();
            }
        }
        self.run_until(begins + DAY);
    }

    fn run_until(&mut self, end: SystemTime) {
        loop {
            let answer = self.answers.front().map(|(time, ..)| *time);
            let next = [answer, self.scheduler.next_timeout()].into_iter().flatten().min();
            let Some(next) = next.filter(|next| *next < end) else { break };
            self.now = next.max(self.now);
            while self.answers.front().is_some_and(|(time, ..)| *time <= self.now) {
                let Some((_, id, provider, answer)) = self.answers.pop_front() else { break };
                let Answer { outcome, accepted, refused, broke_off, text } = answer;
                if let Some(stored) = self.stored.get_mut(id.0 as usize % PLACES).and_then(Option::as_mut) {
                    stored.recipients = stored.recipients.saturating_sub(accepted + refused);
                    self.waiting -= u64::from(accepted + refused);
                }
                let domain = &self.places[usize::from(provider)].domain;
                let heard = if broke_off { accepted + refused + 1 } else { u16::MAX };
                self.scheduler.handle_outcome_heard(self.now, id, domain, (outcome, accepted, heard), text);
            }
            self.settle_down();
        }
        self.now = end;
    }

    /// What the scheduler takes into memory goes there, the rest on its heap.
    fn arrive(&mut self, provider: usize, lane: Lane, messages: u64) {
        self.tally.arrived(messages);
        self.waiting += messages;
        let (mut left, now) = (messages, self.now);
        while left > 0 {
            let Some((delivery, recipients)) = self.make(provider, lane, now, left) else { break };
            left -= recipients;
            if !self.scheduler.handle_enqueued(now, delivery) {
                break;
            }
        }
        if left > 0 {
            self.places[provider].heaps[lane.index()].push_back((now, left));
        }
    }

    /// A delivery of some of so many messages that came at a time; and of how many. None: there is no place.
    fn make(&mut self, provider: usize, lane: Lane, came: SystemTime, messages: u64) -> Option<(Delivery, u64)> {
        if self.kept >= PLACES / 2 {
            return None;
        }
        let nth = self.free.pop().unwrap_or_else(|| {
            self.stored.push(None);
            self.stored.len() - 1
        });
        let place = &mut self.places[provider];
        let recipients = messages.min(u64::from(place.grain)) as u16;
        let (id, deadline) = (QueueId::new(self.now, nth as u32), came + LANES[lane.index()].2);
        self.stored[nth] = Some(Stored { id, provider: provider as u8, lane, due: came, deadline, attempts: 0, recipients });
        self.kept += 1;
        place.disk[lane.index()].insert((came, id));
        self.deadlines.entry(deadline).or_default().push(id);
        Some((self.delivery(id)?, u64::from(recipients)))
    }

    fn get(&self, id: QueueId) -> Option<&Stored> {
        self.stored.get(id.0 as usize % PLACES)?.as_ref().filter(|stored| stored.id == id)
    }

    fn delivery(&self, id: QueueId) -> Option<Delivery> {
        let Stored { id, provider, lane, due, deadline, attempts, recipients } = *self.get(id)?;
        let domain = self.places.get(usize::from(provider))?.domain.clone();
        Some(Delivery { id, domain, lane, member: MEMBER, due, deadline, late_at: None, attempts, recipients, bytes: 4096 })
    }

    fn provider(&self, domain: &str) -> Option<usize> {
        self.places.iter().position(|place| *place.domain == *domain)
    }

    /// What the clerk's round finds: past its deadline, and perhaps nobody looks at it.
    fn expire(&mut self) {
        for place in &mut self.places {
            for (heap, (.., lifetime)) in place.heaps.iter_mut().zip(LANES) {
                while let Some((_, messages)) = heap.pop_front_if(|(came, _)| *came + lifetime <= self.now) {
                    self.tally.expired(messages);
                    self.waiting -= messages;
                }
            }
        }
        while let Some(first) = self.deadlines.first_entry().filter(|first| *first.key() <= self.now) {
            for id in first.remove() {
                if let Some(delivery) = self.delivery(id) {
                    self.scheduler.handle_overdue(self.now, &delivery);
                }
            }
        }
    }

    fn settle_down(&mut self) {
        while let Some(action) = self.scheduler.poll(self.now) {
            match action {
                Action::Deliver { id, domain, source, recipients, .. } => self.attempt(id, &domain, source, recipients),
                Action::Settle { id, domain, next, .. } => self.settle(id, &domain, next),
                Action::Load { domain, member, max } => {
                    let (window, next_due) = self.read(&domain, max);
                    self.scheduler.handle_window(self.now, &domain, member, window, next_due);
                }
                Action::Resolve { domain } => {
                    let Some(provider) = self.provider(&domain) else { continue };
                    let route = Routed::Route(self.places[provider].route.clone());
                    self.scheduler.handle_route(self.now, &domain, route);
                }
            }
        }
        while self.scheduler.poll_measures().is_some() {}
        while let Some(news) = self.scheduler.poll_warmup() {
            self.steps.extend(news.step.map(|step| (news.row, step)));
        }
    }

    /// The receiver makes up its mind at once, and is heard after a while; so a try belongs to the day on which it began.
    fn attempt(&mut self, id: QueueId, domain: &str, source: SourceId, recipients: u16) {
        let (Some(provider), Some(stored)) = (self.provider(domain), self.get(id)) else { return };
        let left_out = stored.recipients > recipients;
        let Some(standing) = self.places[provider].standings.get_mut(usize::from(source.0)) else { return };
        let mut answer = standing.answer(&self.model, recipients, &mut self.luck);
        answer.outcome.open |= left_out;
        let provider = provider as u8;
        self.tally.tried(provider, source, &answer);
        self.answers.push_back((self.now + TRY, id, provider, answer));
    }

    fn settle(&mut self, id: QueueId, domain: &str, next: Next) {
        let Some(stored) = self.get(id).copied() else { return };
        let disk = &mut self.places[usize::from(stored.provider)].disk[stored.lane.index()];
        disk.remove(&(stored.due, id));
        let mut again = None;
        let kept = &mut self.stored[id.0 as usize % PLACES];
        match next {
            Next::RetryAt(at) => {
                disk.insert((at, id));
                *kept = Some(Stored { due: at, attempts: stored.attempts + 1, ..stored });
                again = Some(at);
            }
            Next::Done | Next::Expired => {
                *kept = None;
                self.kept -= 1;
                self.waiting -= u64::from(stored.recipients);
                self.free.push(id.0 as usize % PLACES);
                if next == Next::Expired {
                    self.tally.expired(u64::from(stored.recipients));
                }
            }
        }
        self.scheduler.handle_settled(self.now, id, domain, MEMBER, again);
    }

    /// In the order of lane, due time, id; and when the next one after these is due.
    fn read(&mut self, domain: &str, max: usize) -> (Vec<Delivery>, Option<SystemTime>) {
        let Some(provider) = self.provider(domain) else { return (Vec::new(), None) };
        let (mut window, mut next_due) = (Vec::new(), None::<SystemTime>);
        for lane in Lane::ALL {
            let made = &self.places[provider].disk[lane.index()];
            let mut made: VecDeque<(SystemTime, QueueId)> = made.iter().take(max - window.len() + 1).copied().collect();
            let left = loop {
                let heap = self.places[provider].heaps[lane.index()].front().copied();
                let next = made.front().map(|(due, _)| *due);
                let due = match (next, heap) {
                    (None, None) => break None,
                    (next, heap) => next.into_iter().chain(heap.map(|(came, _)| came)).min(),
                };
                if due.is_none_or(|due| due > self.now) || window.len() >= max {
                    break due;
                }
                match heap {
                    // Of what came in the same minute that comes first which was made first.
                    Some((came, messages)) if next.is_none_or(|next| came < next) => {
                        let Some((delivery, taken)) = self.make(provider, lane, came, messages) else { break due };
                        window.push(delivery);
                        let heap = &mut self.places[provider].heaps[lane.index()];
                        match heap.front_mut().filter(|_| taken < messages) {
                            Some(first) => first.1 -= taken,
                            None => drop(heap.pop_front()),
                        }
                    }
                    _ => window.extend(made.pop_front().and_then(|(_, id)| self.delivery(id))),
                }
            };
            if let Some(due) = left {
                next_due = Some(next_due.unwrap_or(due).min(due));
            }
        }
        (window, next_due)
    }
}

/// Monday, 4 January 2027, midnight UTC.
pub(crate) fn first_day() -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(1_798_761_600 + 3 * 86_400)
}
