//! The dispatcher: the scheduler's thread. It carries inputs in, actions out, and decides nothing.
//!
//! Inputs: what the queue committed, finished attempts, routes, what the clerk read. Actions go to the
//! ring thread that the slot names, to the resolver, to the clerk, and to the queue.
//!
//! It never waits for anyone it also hears from: what cannot be handed over at once stays in an outbox
//! here, and each outbox is bounded by what the scheduler lets be unanswered. So no circle of full
//! channels can form, and the queue may wait for this thread.

use std::collections::{HashMap, HashSet, VecDeque};
use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use host::Clock;
use metrics::Counter;
use scheduler::warmup::Spent;
use scheduler::{Action, Cause, Lane, MemberPools, Next, Outcome, QueueId, Routed, Scheduler, Scope, Verdict, Weights};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;

use super::attempt_line;
use super::clerk::{self, Close, Errand, Errands, Found};
use super::climbs::Climbs;
use super::deliver::Attempt;
use super::dialogues::{Dialogues, Kept};
use super::notebook::Notebook;
use super::pins::Pins;
use super::plan::{Plan, Surroundings};
use super::question::Question;
use super::tls_reports::notes::Notes;
use super::{Finished, Job, Source};
use crate::control::metrics as names;
use crate::drain::Drain;
use crate::events::redact::Redaction;
use crate::queue::{self, LedgerCount, Note, Queue, QueueError, Settlement, StoredDelivery};

/// Octets of fresh messages that are kept at hand so that they are sent without a read; what comes
/// beyond is read from disk when its turn comes.
const PAYLOAD_BYTES_MAX: usize = 64 << 20;
/// Of these, octets that only one-time codes may use.
const PAYLOAD_BYTES_OTP: usize = PAYLOAD_BYTES_MAX / 8;
/// Inputs of one kind that are taken before the scheduler is asked again.
const INPUTS_AT_ONCE: usize = 256;
/// The wall clock may be stepped; timers are set by it and so are looked at again after this.
const NAP_MAX: Duration = Duration::from_secs(60);
/// A settlement that cannot be written is tried again at this pace; the peer has the message, so
/// forgetting it would send it twice.
const SETTLE_RETRY: Duration = Duration::from_secs(1);

/// Batches of settlements that the queue may have at once. A peer's 250 that is not written down comes twice after a crash,
/// so what is known goes into the next commit and does not wait for the last one's end: at most two commits pass. At the
/// bound settlements collect here, and go together when the next batch is done.
const SETTLING_MAX: usize = 64;

/// One message to one domain.
type Key = (QueueId, Arc<str>);

/// The channels that end here or begin here.
pub struct Lines {
    /// From the queue's writer, a batch a commit.
    pub notes: mpsc::Receiver<Vec<Note>>,
    /// From the ring threads; as large as the deliveries that may be in flight.
    pub finished: mpsc::Receiver<Finished>,
    /// From the clerk.
    pub errands_done: mpsc::Receiver<Errands>,
    /// From the resolver.
    pub routes: mpsc::Receiver<(Arc<str>, Routed)>,
    /// To the ring threads.
    pub rings: Vec<mpsc::Sender<Job>>,
    /// To the clerk; `clerk::AT_HAND` of them.
    pub errands: mpsc::Sender<Errand>,
    /// To the resolver.
    pub lookups: mpsc::Sender<Arc<str>>,
    /// From the operator; one is answered between two rounds of mail.
    pub questions: mpsc::Receiver<Question>,
    /// How far a stop is: nothing new is begun then, and what is in flight is finished.
    pub draining: watch::Receiver<Drain>,
    /// How much each member sends in its turn. Whoever keeps the tiers replaces it as a whole; it counts from each
    /// member's next turn on.
    pub weights: watch::Receiver<Arc<Weights>>,
    /// The pools that members were put into; what waits follows at once.
    pub pools: watch::Receiver<Arc<MemberPools>>,
    /// What the settings say, when they have been read again.
    pub plan: watch::Receiver<Arc<Plan>>,
    /// Where TLS is counted for those who want to know.
    pub tls: Notes,
    /// What of people stands in the log.
    pub redaction: Arc<ArcSwap<Redaction>>,
}

/// How a delivery is to go.
struct Trip {
    route: Arc<scheduler::Route>,
    limits: Arc<scheduler::Limits>,
    slot: u16,
    /// At most so many are tried.
    recipients: u16,
}

/// What was tried.
struct Tried {
    job: Job,
    attempt: Attempt,
    /// Of an allowance of warmup.
    ledger: Option<LedgerCount>,
}

/// The actor.
pub struct Dispatcher {
    scheduler: Scheduler,
    clock: Clock,
    queue: Queue,
    lines: Lines,
    /// By the scheduler's numbers.
    sources: Vec<Arc<Source>>,
    surroundings: Arc<Surroundings>,
    hasher: RandomState,
    /// Messages at hand, by delivery.
    payloads: HashMap<Key, Arc<StoredDelivery>>,
    payload_bytes: usize,
    /// Deliveries whose message is being read, with what they wait to be sent by.
    fetching: HashMap<Key, (Arc<Source>, Trip)>,
    /// What was tried and is not settled yet.
    attempted: HashMap<Key, Tried>,
    /// What was found to be gone when its turn came, until it is settled.
    gone: HashSet<Key>,
    /// Settlements that the clerk is writing.
    closing: usize,
    /// What somebody waits for now, and all others. The clerk has few of them at hand, so that the first overtake.
    errands: [VecDeque<Errand>; 2],
    lookups: VecDeque<Arc<str>>,
    settlements: Vec<Settlement>,
    /// What the scheduler does by itself.
    notebook: Notebook,
    /// What it decides about warmup.
    climbs: Climbs,
    /// What deliveries remember of sources.
    pins: Pins,
    /// What was said where mail was not taken.
    dialogues: Dialogues,
    /// Batches of settlements that the queue has and has not committed.
    settling: JoinSet<()>,
    in_flight: usize,
    /// Attempts deferred, by scope.
    deferred: [Counter; 5],
}

impl Dispatcher {
    /// `scheduler` has the first of the plans.
    pub fn new(scheduler: Scheduler, clock: Clock, queue: Queue, mut lines: Lines) -> Self {
        let plan = lines.plan.borrow_and_update().clone();
        let sources = plan.numbered(&scheduler.source_names(), &[]);
        let deferred =
            ["recipient", "message", "host", "site", "source"].map(|scope| metrics::counter!(names::DEFERRED, "scope" => scope));
        let notebook = Notebook::begin(&scheduler);
        let mut dispatcher = Dispatcher {
            scheduler,
            clock,
            queue,
            lines,
            sources,
            surroundings: plan.surroundings.clone(),
            hasher: RandomState::new(),
            payloads: HashMap::new(),
            payload_bytes: 0,
            fetching: HashMap::new(),
            attempted: HashMap::new(),
            gone: HashSet::new(),
            closing: 0,
            errands: Default::default(),
            lookups: VecDeque::new(),
            settlements: Vec::new(),
            notebook,
            climbs: Climbs::default(),
            pins: Pins::default(),
            dialogues: Dialogues::default(),
            settling: JoinSet::new(),
            in_flight: 0,
            deferred,
        };
        dispatcher.scheduler.handle_weights(dispatcher.lines.weights.borrow_and_update().clone());
        let pools = dispatcher.lines.pools.borrow_and_update().clone();
        dispatcher.scheduler.handle_pools(dispatcher.clock.now(), pools);
        // What waits on disk is learned page by page, while new mail is already sent.
        dispatcher.errands[1].push_back(Errand::Flows(Vec::new()));
        dispatcher
    }

    /// Runs until the daemon drains and nothing is in flight, or until the queue is gone.
    pub async fn run(mut self) {
        let mut notes = Vec::new();
        let mut finished = Vec::new();
        let mut errands_done = Vec::new();
        let mut routes = Vec::new();
        loop {
            // One a round, ahead of mail: a thread that always finds mail would never come to it.
            if let Ok(question) = self.lines.questions.try_recv() {
                question.answer(&mut self.scheduler, &self.dialogues, self.clock.now());
            }
            let draining = *self.lines.draining.borrow();
            if draining == Drain::No {
                self.act();
            } else if self.is_settled() && (self.in_flight == 0 || draining == Drain::Over) {
                return;
            } else {
                self.act_draining();
            }
            self.flush();
            let nap = self.nap();
            tokio::select! {
                biased;
                n = self.lines.finished.recv_many(&mut finished, INPUTS_AT_ONCE) => {
                    if n == 0 {
                        return;
                    }
                    for done in finished.drain(..) {
                        self.handle_finished(done);
                    }
                }
                n = self.lines.notes.recv_many(&mut notes, 16) => {
                    if n == 0 {
                        return;
                    }
                    for note in notes.drain(..).flatten() {
                        self.handle_note(note);
                    }
                }
                n = self.lines.errands_done.recv_many(&mut errands_done, INPUTS_AT_ONCE) => {
                    if n == 0 {
                        return;
                    }
                    for done in errands_done.drain(..) {
                        self.handle_errand(done);
                    }
                }
                n = self.lines.routes.recv_many(&mut routes, INPUTS_AT_ONCE) => {
                    if n == 0 {
                        return;
                    }
                    let now = self.clock.now();
                    for (domain, routed) in routes.drain(..) {
                        self.scheduler.handle_route(now, &domain, routed);
                    }
                }
                Some(_) = self.settling.join_next() => {}
                Some(()) = self.notebook.written() => {}
                Some(()) = self.climbs.written() => {}
                Some(()) = self.pins.written() => {}
                Some(question) = self.lines.questions.recv() => question.answer(&mut self.scheduler, &self.dialogues, self.clock.now()),
                changed = self.lines.draining.changed() => {
                    if changed.is_err() {
                        return;
                    }
                }
                // Without its sender the last ones stay.
                Ok(()) = self.lines.weights.changed() => {
                    let weights = self.lines.weights.borrow_and_update().clone();
                    self.scheduler.handle_weights(weights);
                }
                Ok(()) = self.lines.pools.changed() => {
                    let pools = self.lines.pools.borrow_and_update().clone();
                    self.scheduler.handle_pools(self.clock.now(), pools);
                }
                Ok(()) = self.lines.plan.changed() => {
                    let plan = self.lines.plan.borrow_and_update().clone();
                    self.follow(&plan);
                }
                _ = tokio::time::sleep(nap) => {}
            }
        }
    }

    /// New settings: all of them at once, between two rounds of mail.
    fn follow(&mut self, plan: &Plan) {
        let now = self.clock.now();
        self.scheduler.configure(now, plan.scheduling.clone());
        self.sources = plan.numbered(&self.scheduler.source_names(), &self.sources);
        // Which provider a host belongs to, and which addresses we can speak to, is said by the route.
        if self.surroundings != plan.surroundings {
            self.surroundings = plan.surroundings.clone();
            self.scheduler.refresh_routes(now);
        }
    }

    /// Everything that was tried is written down.
    fn is_settled(&self) -> bool {
        self.notebook.is_empty()
            && self.climbs.is_empty()
            && self.pins.is_empty()
            && self.settling.is_empty()
            && self.settlements.is_empty()
            && self.attempted.is_empty()
            && self.closing == 0
    }

    fn nap(&self) -> Duration {
        let now = self.clock.now();
        let wait = self.scheduler.next_timeout().map_or(NAP_MAX, |at| at.duration_since(now).unwrap_or_default());
        wait.min(NAP_MAX)
    }

    fn act(&mut self) {
        let now = self.clock.now();
        while let Some(action) = self.scheduler.poll(now) {
            match action {
                Action::Resolve { domain } => self.lookups.push_back(domain),
                // Few, and the windows of sites wait for them.
                Action::Load { domain, member, max } => self.errands[0].push_back(Errand::Load { domain, member, max }),
                Action::Deliver { id, domain, lane, route, source, slot, limits, recipients } => {
                    self.deliver((id, domain), lane, source.0, Trip { route, limits, slot, recipients })
                }
                Action::Settle { id, domain, cause, next } => self.settle((id, domain), cause, next),
            }
        }
        self.notebook.hear(&mut self.scheduler);
        self.climbs.hear(&mut self.scheduler);
        self.pins.hear(&mut self.scheduler);
    }

    /// While draining, only what ends something is done; deliveries that were about to begin stay in the queue.
    fn act_draining(&mut self) {
        let now = self.clock.now();
        while let Some(action) = self.scheduler.poll(now) {
            if let Action::Settle { id, domain, cause, next } = action {
                self.settle((id, domain), cause, next);
            }
        }
        self.notebook.hear(&mut self.scheduler);
        self.climbs.hear(&mut self.scheduler);
        self.pins.hear(&mut self.scheduler);
    }

    fn deliver(&mut self, key: Key, lane: Lane, source: u16, trip: Trip) {
        let Some(source) = self.sources.get(usize::from(source)).cloned() else {
            // Removed by a reload: the attempt never took place.
            let outcome = untried(Verdict::Deferred, true);
            self.scheduler.handle_outcome(self.clock.now(), key.0, &key.1, outcome, "");
            return;
        };
        self.in_flight += 1;
        match self.take_payload(&key) {
            Some(stored) => self.send(stored, source, trip),
            None => {
                let errand = Errand::Fetch { id: key.0, domain: key.1.clone() };
                self.errands[usize::from(lane != Lane::Otp)].push_back(errand);
                self.fetching.insert(key, (source, trip));
            }
        }
    }

    /// The ring thread follows from site and slot: slots are handed out lowest first, so a site's mail
    /// comes back to the thread that holds its idle connections, and a busy site uses every thread.
    fn send(&mut self, stored: Arc<StoredDelivery>, source: Arc<Source>, Trip { route, limits, slot, recipients }: Trip) {
        let (stored, partial) = first_of(stored, recipients);
        let job = Job { stored, route, source, limits, partial };
        let nth =
            (self.hasher.hash_one(&job.route.site) as usize).wrapping_add(usize::from(slot)) % self.lines.rings.len().max(1);
        // The channel holds as many as may be in flight, so it is full only when the thread is gone.
        let handed = self.lines.rings.get(nth).map(|ring| ring.try_send(job));
        if !matches!(handed, Some(Ok(()))) {
            tracing::error!("a ring thread does not take deliveries any more");
        }
    }

    fn settle(&mut self, key: Key, cause: Cause, next: Next) {
        if self.gone.remove(&key) {
            self.settlements.push(clerk::nothing(key.0, key.1, self.clock.now()));
            return;
        }
        let attempted = self.attempted.remove(&key);
        if let Cause::Cancelled(wish) = &cause
            && attempted.is_none()
            && !wish.notify
        {
            // Nobody is told, so nothing need be read.
            self.take_payload(&key);
            self.settlements.push(Settlement {
                next: queue::Next::Cancelled,
                last_reply: wish.by.to_string(),
                ..clerk::nothing(key.0, key.1, self.clock.now())
            });
            return;
        }
        if let Some(Tried { job, attempt, ledger }) = &attempted
            && !job.partial
            && super::settle::ends_in_silence(&job.stored, attempt)
        {
            // The common end needs no notice and no read.
            let closing = super::settle::Closing {
                stored: &job.stored,
                cause: &cause,
                next,
                attempt: Some(attempt),
                source: &job.source.name,
                now: self.clock.now(),
            };
            let (mut settlement, _) = super::settle::settlement(&closing);
            settlement.ledger.extend(ledger.clone());
            self.settlements.push(settlement);
            return;
        }
        let stored = match &attempted {
            // All that are open have to be settled, and not all of them were tried.
            Some(tried) => (!tried.job.partial).then(|| tried.job.stored.clone()),
            None => self.take_payload(&key),
        };
        let source = attempted.as_ref().map_or_else(|| "".into(), |tried| tried.job.source.name.clone());
        let (attempt, ledger) = attempted.map_or((None, None), |tried| (Some(tried.attempt), tried.ledger));
        self.closing += 1;
        self.errands[1].push_back(Errand::Close(Box::new(Close {
            id: key.0,
            domain: key.1,
            stored,
            cause,
            next,
            attempt,
            source,
            ledger,
        })));
    }

    /// Hands over what the channels have room for.
    fn flush(&mut self) {
        for line in &mut self.errands {
            while let Some(errand) = line.pop_front() {
                if let Err(mpsc::error::TrySendError::Full(errand)) = self.lines.errands.try_send(errand) {
                    line.push_front(errand);
                    break;
                }
            }
        }
        while let Some(domain) = self.lookups.pop_front() {
            if let Err(mpsc::error::TrySendError::Full(domain)) = self.lines.lookups.try_send(domain) {
                self.lookups.push_front(domain);
                break;
            }
        }
        if self.settling.len() < SETTLING_MAX && !self.settlements.is_empty() {
            let batch = std::mem::take(&mut self.settlements);
            self.settling.spawn_local(write(self.queue.clone(), batch));
        }
        self.notebook.flush(&self.queue);
        self.climbs.flush(&self.queue);
        self.pins.flush(&self.queue);
    }

    fn handle_note(&mut self, note: Note) {
        let now = self.clock.now();
        match note {
            Note::Enqueued { delivery, stored } => {
                let key = (delivery.id, delivery.domain.clone());
                let bytes = stored.message.octets.len();
                let kept = if delivery.lane == Lane::Otp { 0 } else { PAYLOAD_BYTES_OTP };
                if self.scheduler.handle_enqueued(now, delivery) && self.payload_bytes + bytes + kept <= PAYLOAD_BYTES_MAX {
                    self.payload_bytes += bytes;
                    self.payloads.insert(key, stored);
                }
            }
            Note::Settled { id, domain, member, next_due } => {
                self.take_payload(&(id, domain.clone()));
                self.scheduler.handle_settled(now, id, &domain, member, next_due);
            }
            Note::Due { domain, member, at } => self.scheduler.handle_backlog(now, &domain, member, at),
        }
    }

    fn handle_finished(&mut self, done: Finished) {
        let Finished { job, attempt } = done;
        self.in_flight -= 1;
        // Recalled: we stop, and it stays in the queue as if it had not been tried.
        let Some(mut attempt) = attempt else { return };
        let key = (job.stored.message.id, job.stored.domain.clone());
        let open = job.partial || attempt.outcomes.iter().any(|outcome| outcome.verdict == Verdict::Deferred);
        let accepted = attempt.outcomes.iter().filter(|outcome| outcome.verdict == Verdict::Delivered).count();
        self.record(&job, &attempt);
        self.lines.tls.attempted(&job, &attempt);
        if let Some(dialogue) = attempt.dialogue.take() {
            let (domain, source) = (key.1.clone(), job.source.name.clone());
            self.dialogues.keep(key.0, Kept { domain, at: self.clock.now(), source, dialogue });
        }
        let told = attempt.told.clone();
        let class = told.as_ref().and_then(|told| told.class);
        let retry_after = told.as_ref().and_then(|told| told.after);
        let Attempt { scope, verdict, unconnected, .. } = attempt;
        let outcome = Outcome { scope, verdict, retry_after, open, class, unconnected, connections: Some(attempt.connections) };
        let reply = told.map(|told| told.reply).unwrap_or_default();
        let counted = (outcome, u16::try_from(accepted).unwrap_or(u16::MAX));
        let spent = self.scheduler.handle_outcome_of(self.clock.now(), key.0, &key.1, counted, &reply);
        let ledger = spent.map(|Spent { source, provider, day, hour, count }| LedgerCount { source, provider, day, hour, count });
        self.attempted.insert(key, Tried { job, attempt, ledger });
    }

    fn handle_errand(&mut self, done: Errands) {
        let now = self.clock.now();
        match done {
            Errands::Overdue(found) => {
                for delivery in found {
                    self.scheduler.handle_overdue(now, &delivery);
                }
            }
            Errands::Flows(backlog, next) => {
                for (domain, member, next_due) in backlog.flows {
                    self.scheduler.handle_backlog(now, &domain, member, next_due);
                }
                self.errands[1].extend(next.map(Errand::Flows));
            }
            Errands::Window { domain, member, window, next_due } => {
                self.scheduler.handle_window(now, &domain, member, window, next_due);
            }
            Errands::Settlement(settlement) => {
                self.closing -= 1;
                self.settlements.push(*settlement);
            }
            Errands::Fetched { id, domain, found } => {
                let key = (id, domain);
                let Some((source, trip)) = self.fetching.remove(&key) else { return };
                let (verdict, open) = match found {
                    Found::Stored(stored) => return self.send(stored, source, trip),
                    Found::Gone => {
                        self.gone.insert(key.clone());
                        (Verdict::Failed, false)
                    }
                    Found::Unreadable => (Verdict::Deferred, true),
                };
                self.in_flight -= 1;
                let outcome = untried(verdict, open);
                self.scheduler.handle_outcome(now, key.0, &key.1, outcome, "");
            }
        }
    }

    /// What an attempt says about the site, and its line in the log; what became of recipients is counted by their events.
    fn record(&self, job: &Job, attempt: &Attempt) {
        let deferred = attempt.outcomes.iter().filter(|outcome| outcome.verdict == Verdict::Deferred).count();
        self.deferred[attempt.scope as usize].increment(deferred as u64);
        if let Some(class) = attempt.told.as_ref().and_then(|told| told.class) {
            metrics::counter!(names::REPLIES, "class" => class.as_str(), "provider" => job.route.provider.to_string())
                .increment(1);
        }
        attempt_line::say(&self.lines.redaction.load(), self.clock.now(), job, attempt);
    }

    fn take_payload(&mut self, key: &Key) -> Option<Arc<StoredDelivery>> {
        let stored = self.payloads.remove(key)?;
        self.payload_bytes -= stored.message.octets.len();
        Some(stored)
    }
}

/// Nothing was said to anybody.
fn untried(verdict: Verdict, open: bool) -> Outcome {
    Outcome { scope: Scope::Message, verdict, open, connections: Some(0), ..Outcome::ACCEPTED }
}

/// A delivery to the first of its recipients; true: there are others, which stay open.
fn first_of(stored: Arc<StoredDelivery>, recipients: u16) -> (Arc<StoredDelivery>, bool) {
    if stored.recipients.len() <= usize::from(recipients) {
        return (stored, false);
    }
    let first = stored.recipients.iter().take(usize::from(recipients)).cloned().collect();
    (Arc::new(StoredDelivery { recipients: first, ..StoredDelivery::clone(&stored) }), true)
}

/// Writes a batch, and tries again until it is written.
async fn write(queue: Queue, batch: Vec<Settlement>) {
    let mut said = false;
    loop {
        match queue.settle(batch.clone()).await {
            Ok(()) => return,
            Err(QueueError::Stopped) => return,
            Err(error) => {
                if !said {
                    tracing::error!(%error, "settlements cannot be written; trying again every second");
                    said = true;
                }
                tokio::time::sleep(SETTLE_RETRY).await;
            }
        }
    }
}
