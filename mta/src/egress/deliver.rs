//! One attempt: find or make a connection, drive `smtp::client` over it, say what happened.
//!
//! A cached connection first; then the hosts of the route in order, each address of a host, with the next one beside it
//! where one is slow to answer. A connection that turns out to be dead before the peer can have taken anything costs
//! nothing: the next one is tried. So is the next host where one lacks the TLS that was promised to the domain; when none
//! has it the delivery is deferred, and the site stays open for domains that demand less. And so is the next host where one
//! lacks an extension that the message needs, or takes none of its size. Addresses that need SMTPUTF8 do not keep others of the same
//! message from a host without it. All IO has deadlines, so an attempt always ends.
//!
//! Not here: which addresses in which order (`targets.rs`), how a connection is opened (`link.rs`), which message goes where from which source (the scheduler), what to do
//! about the outcome (`dispatch.rs`, `settle.rs`).

use std::cell::{Cell, RefCell};
use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use host::{Clock, Net, Stream, deadline_in, tls};
use scheduler::{Scope, Verdict};
use smtp::client::{Fate, Stage, Transaction};
use smtp::envelope::DeliverBy;
use tokio::sync::Notify;

use super::Job;
use super::broken::Broken;
use super::cache::{ConnectionCache, Key, MESSAGES_MAX};
use super::dialogues::Dialogue;
use super::link::{Event, Link, Target, Tested, Trail, drive, hang_up};
use super::race::Race;
use super::targets::{barred, other_family, requires_tls, targets};
use super::tls_policy::{self, Clients, TlsResult};
use super::trouble::{self, RecipientOutcome, Trouble, lacks, stale};
use crate::queue::TlsWish;

/// Idle connections are looked over at this pace.
const SWEEP: Duration = Duration::from_secs(2);

/// What one attempt did.
#[derive(Debug)]
pub struct Attempt {
    /// A fate for every recipient of the job.
    pub outcomes: Vec<RecipientOutcome>,
    /// The widest thing that was spoken of.
    pub scope: Scope,
    /// The attempt as a whole.
    pub verdict: Verdict,
    /// The host that answered, if one was reached.
    pub host: Option<Arc<str>>,
    /// What was negotiated; none for clear text.
    pub tls: Option<tls::Info>,
    /// The host offers DSN, and so has taken over what the sender wants to be told (RFC 3461 §5.2.1).
    pub dsn: bool,
    /// How TLS went with each host that a link was opened to, or that was ruled out: for TLS-RPT.
    pub tls_results: Vec<TlsResult>,
    /// Connections that were begun, also those that failed.
    pub connections: u16,
    /// None could be made to addresses of the source's family, and the route has some of the other.
    pub unconnected: bool,
    /// What decided the scope; filled in by `trouble::weigh`.
    pub told: Option<trouble::Told>,
    /// What was said where something went wrong. None: all went well, or nobody answered.
    pub dialogue: Option<Dialogue>,
}

impl Attempt {
    /// An attempt of which nobody knows how it ended: every recipient is tried again.
    pub fn broken_off(job: &Job) -> Self {
        let trouble = Trouble::unreachable("the attempt was broken off by an error of ours".to_owned());
        Attempt::of_trouble(job, &trouble, Scope::Message)
    }

    /// What recipients were told, and nothing yet of the way there.
    pub fn of(outcomes: Vec<RecipientOutcome>, scope: Scope, verdict: Verdict) -> Self {
        Attempt {
            outcomes,
            scope,
            verdict,
            host: None,
            tls: None,
            dsn: false,
            tls_results: Vec::new(),
            connections: 0,
            unconnected: false,
            told: None,
            dialogue: None,
        }
    }

    fn of_trouble(job: &Job, trouble: &Trouble, scope: Scope) -> Self {
        let outcome = |recipient: &crate::queue::Recipient| RecipientOutcome {
            index: recipient.index,
            verdict: trouble.verdict,
            reply: trouble.reply.clone(),
            from_peer: trouble.from_peer,
            stage: Stage::Greeting,
            scope,
        };
        let outcomes = job.stored.recipients.iter().map(outcome).collect();
        Attempt::of(outcomes, scope, trouble.verdict)
    }
}

/// How far an attempt is: until its transaction begins it may be recalled as if it had not been made.
#[derive(Default)]
pub struct Progress {
    begun: Cell<bool>,
    recalled: Cell<bool>,
    trail: Rc<Trail>,
}

impl Progress {
    /// Recalls the attempt; true if it has not begun its transaction, and now will not. Otherwise it does when that turns
    /// out not to have reached anybody.
    pub fn recall(&self) -> bool {
        self.recalled.set(true);
        !self.begun.get()
    }

    /// Whether it was recalled.
    pub fn is_recalled(&self) -> bool {
        self.recalled.get()
    }
}

/// The egress half of a ring thread.
pub struct Deliverer {
    net: Net,
    clients: Clients,
    port: u16,
    clock: Clock,
    cache: RefCell<ConnectionCache>,
    /// Rung when a connection is kept: the sweeper has something to look after.
    kept: Notify,
    /// No connection is kept any more.
    retired: Cell<bool>,
    /// What was promised and not kept, a moment ago.
    broken: RefCell<Broken>,
    /// Connections that are saying goodbye.
    parting: Cell<usize>,
    parted: Notify,
}

enum Transacted {
    /// Every recipient has a fate.
    Done(Vec<Fate>),
    /// The connection was dead before it could take anything: another may be tried.
    Stale(String),
}

impl Deliverer {
    /// `port` is where hosts listen: 25, but for tests.
    pub fn new(net: Net, clients: Clients, port: u16, clock: Clock) -> Rc<Self> {
        let (cache, kept, parted, broken, retired, parting) = Default::default();
        Rc::new(Deliverer { net, clients, port, clock, cache, kept, retired, broken, parting, parted })
    }

    /// Tries to hand `job` over; comes back with a fate for each recipient, or with nothing when it was recalled.
    pub async fn attempt(self: &Rc<Self>, job: &Job, progress: &Progress) -> Option<Attempt> {
        let mut tls_results = Vec::new();
        let attempt = self.try_each(job, progress, &mut tls_results).await?;
        let connections = progress.trail.connections.get();
        // A host that had to be passed over is of no interest where another one has taken the message.
        let well = attempt.outcomes.iter().all(|outcome| outcome.verdict == Verdict::Delivered);
        let dialogue = progress.trail.dialogue.take().filter(|_| !well);
        Some(Attempt { tls_results, connections, dialogue, ..attempt })
    }

    async fn try_each(self: &Rc<Self>, job: &Job, progress: &Progress, results: &mut Vec<TlsResult>) -> Option<Attempt> {
        let key = Key { site: job.route.site.clone(), source: job.source.index };
        // What came of a host that cannot take this message.
        let mut lacking: Option<Attempt> = None;
        while lacking.is_none() {
            // A statement of its own: the cache must not stay borrowed while we wait for the peer.
            let cached = self.cache.borrow_mut().take(&key, |link| serves(link, job));
            let Some(mut link) = cached else { break };
            match self.transact(&mut link, job, progress, results).await {
                Transacted::Done(fates) => {
                    let attempt = self.finish(link, key.clone(), job, &fates).await;
                    if !lacks(&fates) {
                        return Some(attempt);
                    }
                    lacking = Some(attempt);
                }
                Transacted::Stale(_) => link.connection.close().await,
            }
        }
        let mut last = Trouble::unreachable(format!("no address of {} could be tried", job.route.site));
        // What was promised to the domain and not kept outlasts what other hosts say: it is the domain's, not the site's.
        let mut insecure = barred(job, results);
        // A host that could not be asked may have what the others lack.
        let mut unasked: Vec<(Arc<str>, Trouble)> = Vec::new();
        let mut targets = targets(job, &progress.trail);
        let mut connected = false;
        targets.retain(|target| match self.broken.borrow().of(target, deadline_in(Duration::ZERO)) {
            Some(trouble) => {
                insecure = Some(milder(insecure.take(), trouble));
                false
            }
            None => true,
        });
        'hosts: for of_host in targets.chunk_by(|one, next| one.host == next.host) {
            if progress.is_recalled() {
                return None;
            }
            let has_lacked = |attempt: &Attempt| attempt.host.as_ref() == Some(&of_host[0].host);
            if lacking.as_ref().is_some_and(has_lacked) {
                continue;
            }
            let mut race = Race::new(&self.net, &job.source, self.port, of_host);
            let mut silent = true;
            while let Some((target, connection)) = race.next().await {
                connected |= connection.is_ok();
                silent &= connection.as_ref().is_err_and(|error| error.kind() != io::ErrorKind::ConnectionRefused);
                match target.open(connection, &self.net, &self.clients, self.port, &job.source, results).await {
                    Ok(link) if progress.is_recalled() => self.part(link),
                    Ok(mut link) => match self.transact(&mut link, job, progress, results).await {
                        Transacted::Done(fates) => {
                            let attempt = self.finish(link, key.clone(), job, &fates).await;
                            if !lacks(&fates) {
                                return Some(attempt);
                            }
                            unasked.retain(|(host, _)| *host != target.host);
                            lacking = Some(attempt);
                            continue 'hosts;
                        }
                        Transacted::Stale(reason) => {
                            last = Trouble::unreachable(format!("{} [{}]: {reason}", target.host, target.address));
                            unasked.push((target.host, last.clone()));
                            link.connection.close().await;
                        }
                    },
                    Err(trouble) if trouble.scope == Scope::Source => {
                        (last, insecure) = (trouble, None);
                        break 'hosts;
                    }
                    Err(trouble) if trouble.scope == Scope::Message => {
                        self.broken.borrow_mut().note(&target, &trouble, deadline_in(Duration::ZERO));
                        insecure = Some(milder(insecure, trouble));
                    }
                    Err(trouble) => {
                        unasked.push((target.host, trouble.clone()));
                        last = trouble;
                    }
                }
                if progress.is_recalled() {
                    return None;
                }
            }
            // Before another host is asked, this one is by the other family.
            if silent && !connected && of_host[0].patience < Duration::MAX && lacking.is_none() {
                break;
            }
        }
        if progress.is_recalled() {
            return None;
        }
        if let Some(attempt) = lacking {
            // A host that was not asked may have what the others lack; about the site this says nothing.
            let may_pass = insecure.filter(|insecure| insecure.verdict == Verdict::Deferred);
            return Some(match unasked.pop().map(|(_, trouble)| trouble).or(may_pass) {
                Some(trouble) => Attempt::of_trouble(job, &trouble, Scope::Message),
                None => attempt,
            });
        }
        let last = insecure.filter(|insecure| insecure.verdict == Verdict::Deferred || unasked.is_empty()).unwrap_or(last);
        // None of the hosts served: what was a host's trouble is now the site's, unless it may be the way of this family there.
        let unconnected = !connected && !targets.is_empty() && last.scope == Scope::Host && other_family(job);
        let scope = match last.scope {
            Scope::Host if unconnected => Scope::Source,
            Scope::Host => Scope::Site,
            scope => scope,
        };
        Some(Attempt { unconnected, ..Attempt::of_trouble(job, &last, scope) })
    }

    /// Closes what has been idle for too long, each connection in a task of its own. Never returns; it only
    /// sleeps, so it may be dropped.
    pub async fn sweep(self: &Rc<Self>) {
        loop {
            if self.cache.borrow().is_empty() {
                self.kept.notified().await;
            }
            tokio::time::sleep(SWEEP).await;
            let expired = self.cache.borrow_mut().expire(deadline_in(Duration::ZERO));
            expired.into_iter().for_each(|link| self.part(link));
        }
    }

    /// Says goodbye on every idle connection, and from now on on each that has done its work.
    pub fn retire(self: &Rc<Self>) {
        self.retired.set(true);
        let idle = self.cache.borrow_mut().drain();
        idle.into_iter().for_each(|link| self.part(link));
    }

    /// The same, and waits until all have said it.
    pub async fn close(self: &Rc<Self>) {
        self.retire();
        while self.parting.get() > 0 {
            self.parted.notified().await;
        }
    }

    /// Says goodbye, in a task of its own.
    fn part(self: &Rc<Self>, link: Link) {
        self.parting.set(self.parting.get() + 1);
        let deliverer = self.clone();
        host::spawn_local(async move {
            hang_up(link).await;
            deliverer.parting.set(deliverer.parting.get() - 1);
            deliverer.parted.notify_one();
        });
    }

    async fn finish(self: &Rc<Self>, mut link: Link, key: Key, job: &Job, fates: &[Fate]) -> Attempt {
        link.messages += 1;
        let worn = link.messages >= job.limits.messages_per_connection.unwrap_or(MESSAGES_MAX);
        let others = job.route.hosts.iter().any(|host| host.name != link.host);
        let outcomes = trouble::judge_all(job.stored.recipients.iter().map(|recipient| recipient.index), fates, others);
        let (scope, verdict) = trouble::summarize(&outcomes);
        let attempt = Attempt {
            outcomes,
            scope,
            verdict,
            host: Some(link.host.clone()),
            tls: link.connection.tls().cloned(),
            dsn: link.session.peer_extensions().dsn,
            tls_results: Vec::new(),
            connections: 0,
            unconnected: false,
            told: None,
            dialogue: None,
        };
        if matches!(drive(&mut link).await, Event::Ready) {
            let unkept = if self.retired.get() || worn {
                Some(link)
            } else {
                self.cache.borrow_mut().put(key, link, deadline_in(Duration::ZERO))
            };
            match unkept {
                Some(link) => self.part(link),
                None => self.kept.notify_one(),
            }
        } else {
            link.connection.close().await;
        }
        attempt
    }

    /// One message over one link, to all recipients of the job, in as many transactions as the
    /// peer's limit on recipients asks for.
    async fn transact(&self, link: &mut Link, job: &Job, progress: &Progress, results: &mut Vec<TlsResult>) -> Transacted {
        if progress.is_recalled() {
            return Transacted::Stale("recalled".to_owned());
        }
        progress.begun.set(true);
        let transacted = self.transact_begun(link, job, progress, results).await;
        let reached = match &transacted {
            Transacted::Done(fates) => !lacks(fates),
            Transacted::Stale(_) => false,
        };
        if !reached {
            progress.begun.set(false);
        }
        transacted
    }

    async fn transact_begun(&self, link: &mut Link, job: &Job, progress: &Progress, results: &mut Vec<TlsResult>) -> Transacted {
        let recipients = &job.stored.recipients;
        let mut fates = vec![Fate::Untried; recipients.len()];
        let mut open: Vec<usize> = (0..recipients.len()).collect();
        let mut first = true;
        // Something was decided over this link: when it ends, another one is worth opening.
        let mut earned = false;
        while !open.is_empty() {
            link.session.begin(Transaction {
                reverse_path: job.stored.message.reverse_path.clone(),
                recipients: open.iter().map(|nth| passed_on(&recipients[*nth])).collect(),
                octets: job.stored.message.octets.clone(),
                eight_bit: job.stored.message.parameters.eight_bit,
                smtputf8: job.stored.message.parameters.smtputf8,
                parameters: parameters(&job.stored.message.parameters, self.clock.now()),
            });
            let done = match drive(link).await {
                Event::Done(done) => done,
                _ => vec![Fate::Broken { stage: Stage::Mail, reason: "the connection was closed".to_owned() }; open.len()],
            };
            if !done.iter().all(|fate| matches!(fate, Fate::Accepted(_))) {
                progress.trail.note(link);
            }
            // Dead before the peer can have taken anything: as if it had not been tried.
            if first && let Some(reason) = stale(&done, link.session.transactions() > 1) {
                return Transacted::Stale(reason);
            }
            first = false;
            if !earned || stale(&done, true).is_none() {
                let tried = open.len();
                open.iter().zip(done).for_each(|(nth, fate)| fates[*nth] = fate);
                open.retain(|nth| fates[*nth] == Fate::Untried);
                earned = open.len() < tried;
                if open.is_empty() || earned && matches!(drive(link).await, Event::Ready) {
                    continue;
                }
            }
            // The host takes no more over this connection (MAILMAX of RFC 9422, or 421): the rest goes over another.
            let (host, address) = (link.host.clone(), link.connection.peer().ip());
            let (demand, require_tls, limits) = (link.demand.clone(), requires_tls(job), job.limits.clone());
            let trail = progress.trail.clone();
            let target =
                Target { host, address, demand, require_tls, tested: Tested::No, limits, patience: Duration::MAX, trail };
            let fresh = match earned {
                true => {
                    let connection = target.connect(&self.net, &job.source, self.port).await;
                    target.open(connection, &self.net, &self.clients, self.port, &job.source, results).await.ok()
                }
                false => None,
            };
            match fresh {
                Some(fresh) => std::mem::replace(link, fresh).connection.close().await,
                None => {
                    let reason = "the connection was closed before this recipient's turn".to_owned();
                    open.drain(..).for_each(|nth| fates[nth] = Fate::Broken { stage: Stage::Mail, reason: reason.clone() });
                }
            }
            earned = false;
        }
        Transacted::Done(fates)
    }
}

/// What a host that offers DSN hears of a recipient: what we heard (RFC 3461 §5.2.1).
fn passed_on(recipient: &crate::queue::Recipient) -> smtp::client::Recipient {
    let crate::queue::Recipient { mailbox, notify, orcpt, .. } = recipient;
    smtp::client::Recipient { mailbox: mailbox.clone(), notify: *notify, orcpt: orcpt.clone() }
}

/// What the host hears of the message, with what is left of its time (RFC 2852 §4).
fn parameters(given: &crate::queue::Parameters, now: SystemTime) -> smtp::client::Parameters {
    let deliver_by = given.deliver_by.map(|by| {
        let secs = match by.at.duration_since(now) {
            Ok(left) => left.as_secs() as i64,
            Err(passed) => -(passed.duration().as_secs() as i64),
        };
        DeliverBy { secs, mode: by.mode, trace: by.trace }
    });
    smtp::client::Parameters {
        ret: given.ret,
        envid: given.envid.clone(),
        deliver_by,
        priority: given.priority,
        require_tls: given.tls == TlsWish::Required,
    }
}

/// Whether an idle link is as good as the job's domain demands of that host.
fn serves(link: &Link, job: &Job) -> bool {
    let host = job.route.hosts.iter().find(|host| host.name == link.host);
    if requires_tls(job) && !link.session.peer_extensions().require_tls {
        return false;
    }
    host.is_some_and(|host| link.demand.serves(&tls_policy::demand(job, host)))
}

/// Of two troubles with what was promised the one that may pass.
fn milder(before: Option<Trouble>, now: Trouble) -> Trouble {
    before.filter(|before| now.verdict == Verdict::Failed && before.verdict == Verdict::Deferred).unwrap_or(now)
}
