//! One attempt: find or make a connection, drive `smtp::client` over it, say what happened.
//!
//! A cached connection first; then the hosts of the route in order, each address of a host. A
//! connection that turns out to be dead before the peer can have taken anything costs nothing: the
//! next one is tried. All IO has deadlines, so an attempt always ends.
//!
//! Not here: which message goes where from which source (the scheduler), what to do about the
//! outcome (`dispatch.rs`, `settle.rs`).

use std::cell::{Cell, RefCell};
use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use host::{Clock, Connection, Net, Stream, deadline_in, tls};
use scheduler::{Route, Scope, Verdict};
use smtp::client::{Fate, Session, Settings, Stage, Step, Transaction};
use smtp::envelope::DeliverBy;
use smtp::reply::Reply;
use tokio::sync::Notify;

use super::cache::{ConnectionCache, Key};
use super::tls_policy::TlsPolicy;
use super::trouble::{self, RecipientOutcome, Trouble};
use super::{Job, Source};

/// RFC 5321 §4.5.3.2 gives no time for connecting; a host that does not answer a SYN in this time
/// is passed over, and the next one gets its turn.
const CONNECT_WAIT: Duration = Duration::from_secs(30);
/// A TLS handshake takes two round trips; a peer that needs longer is broken or hostile.
const HANDSHAKE_WAIT: Duration = Duration::from_secs(30);
/// What one write may take: RFC 5321 §4.5.3.2.5 (data block).
const WRITE_WAIT: Duration = Duration::from_secs(180);
/// Idle connections are looked over at this pace.
const SWEEP: Duration = Duration::from_secs(2);
/// Addresses tried in one attempt, over all hosts; more would hold a slot for a quarter of an hour.
const ADDRESSES_TRIED_MAX: usize = 6;

/// A session with a host, ready for a transaction.
pub struct Link {
    connection: Connection,
    session: Session,
    /// Name of the host, for the record.
    pub host: Arc<str>,
    /// Messages that crossed it.
    pub messages: u32,
}

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
}

impl Attempt {
    /// An attempt of which nobody knows how it ended: every recipient is tried again.
    pub fn broken_off(job: &Job) -> Self {
        let trouble = Trouble::unreachable("the attempt was broken off by an error of ours".to_owned());
        Attempt::of_trouble(job, &trouble, Scope::Message)
    }

    fn of_trouble(job: &Job, trouble: &Trouble, scope: Scope) -> Self {
        let outcome = |recipient: &crate::queue::Recipient| RecipientOutcome {
            index: recipient.index,
            verdict: trouble.verdict,
            reply: trouble.reply.clone(),
            from_peer: trouble.from_peer,
        };
        let outcomes = job.stored.recipients.iter().map(outcome).collect();
        Attempt { outcomes, scope, verdict: trouble.verdict, host: None, tls: None, dsn: false }
    }
}

/// How far an attempt is: until its transaction begins it may be recalled as if it had not been made.
#[derive(Default)]
pub struct Progress {
    begun: Cell<bool>,
    recalled: Cell<bool>,
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
    tls: tls::Client,
    port: u16,
    clock: Clock,
    cache: RefCell<ConnectionCache>,
    /// Rung when a connection is kept: the sweeper has something to look after.
    kept: Notify,
    /// No connection is kept any more.
    retired: Cell<bool>,
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
    pub fn new(net: Net, tls: tls::Client, port: u16, clock: Clock) -> Rc<Self> {
        let (cache, kept, parted) = Default::default();
        Rc::new(Deliverer { net, tls, port, clock, cache, kept, retired: Cell::new(false), parting: Cell::new(0), parted })
    }

    /// Tries to hand `job` over; comes back with a fate for each recipient, or with nothing when it was recalled.
    pub async fn attempt(self: &Rc<Self>, job: &Job, progress: &Progress) -> Option<Attempt> {
        let policy = TlsPolicy::of(&job.stored.domain);
        let key = Key { site: job.route.site.clone(), source: job.source.index, policy };
        loop {
            // A statement of its own: the cache must not stay borrowed while we wait for the peer.
            let cached = self.cache.borrow_mut().take(&key);
            let Some(mut link) = cached else { break };
            match self.transact(&mut link, job, progress).await {
                Transacted::Done(fates) => return Some(self.finish(link, key, job, &fates).await),
                Transacted::Stale(_) => link.connection.close().await,
            }
        }
        let mut last = Trouble::unreachable(format!("no address of {} could be tried", job.route.site));
        for (host, address) in targets(&job.route, job.source.address) {
            if progress.is_recalled() {
                return None;
            }
            match self.open(&host, address, &job.source, policy).await {
                Ok(link) if progress.is_recalled() => self.part(link),
                Ok(mut link) => match self.transact(&mut link, job, progress).await {
                    Transacted::Done(fates) => return Some(self.finish(link, key, job, &fates).await),
                    Transacted::Stale(reason) => {
                        last = Trouble::unreachable(format!("{host} [{address}]: {reason}"));
                        link.connection.close().await;
                    }
                },
                Err(trouble) if trouble.scope == Scope::Source => {
                    last = trouble;
                    break;
                }
                Err(trouble) => last = trouble,
            }
        }
        if progress.is_recalled() {
            return None;
        }
        // None of the hosts served: what was a host's trouble is now the site's.
        let scope = if last.scope == Scope::Host { Scope::Site } else { last.scope };
        Some(Attempt::of_trouble(job, &last, scope))
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
        let judged: Vec<_> =
            job.stored.recipients.iter().zip(fates).map(|(recipient, fate)| trouble::judge(recipient.index, fate)).collect();
        let (scope, verdict) = trouble::summarize(&judged);
        let attempt = Attempt {
            outcomes: judged.into_iter().map(|(outcome, _)| outcome).collect(),
            scope,
            verdict,
            host: Some(link.host.clone()),
            tls: link.connection.tls().cloned(),
            dsn: link.session.peer_extensions().dsn,
        };
        if matches!(drive(&mut link, &self.tls).await, Event::Ready) {
            let unkept =
                if self.retired.get() { Some(link) } else { self.cache.borrow_mut().put(key, link, deadline_in(Duration::ZERO)) };
            match unkept {
                Some(link) => self.part(link),
                None => self.kept.notify_one(),
            }
        } else {
            link.connection.close().await;
        }
        attempt
    }

    /// Connects, greets, and upgrades to TLS as `policy` wants it.
    async fn open(&self, host: &Arc<str>, address: IpAddr, source: &Source, policy: TlsPolicy) -> Result<Link, Trouble> {
        match self.open_once(host, address, source, true).await {
            Err(Failure::Handshake(reason)) if policy.allows_clear_text() => {
                tracing::info!(host = %host, %address, reason, "TLS handshake failed; trying in clear text");
                self.open_once(host, address, source, false).await.map_err(|failure| failure.into_trouble(host, address))
            }
            result => result.map_err(|failure| failure.into_trouble(host, address)),
        }
    }

    async fn open_once(&self, host: &Arc<str>, address: IpAddr, source: &Source, starttls: bool) -> Result<Link, Failure> {
        let peer = SocketAddr::new(address, self.port);
        let connection = self
            .net
            .connect(Some(source.address), peer, deadline_in(CONNECT_WAIT))
            .await
            .map_err(|error| Failure::Connect(error.to_string()))?;
        let session = Session::new(Settings { starttls, ..Settings::new(&*source.ehlo) });
        let mut link = Link { connection, session, host: host.clone(), messages: 0 };
        match drive(&mut link, &self.tls).await {
            Event::Ready => Ok(link),
            Event::Handshake(reason) => {
                link.connection.close().await;
                Err(Failure::Handshake(reason))
            }
            Event::Done(_) | Event::Closed => {
                let failure = match link.session.trouble() {
                    Some(Fate::Refused { reply, .. }) => Failure::Refused(reply.clone()),
                    Some(Fate::Broken { reason, .. }) => Failure::Connect(reason.clone()),
                    _ => Failure::Connect("the host closed the connection".to_owned()),
                };
                link.connection.close().await;
                Err(failure)
            }
        }
    }

    /// One message over one link, to all recipients of the job, in as many transactions as the
    /// peer's limit on recipients asks for.
    async fn transact(&self, link: &mut Link, job: &Job, progress: &Progress) -> Transacted {
        if progress.is_recalled() {
            return Transacted::Stale("recalled".to_owned());
        }
        progress.begun.set(true);
        let transacted = self.transact_begun(link, job).await;
        if matches!(transacted, Transacted::Stale(_)) {
            progress.begun.set(false);
        }
        transacted
    }

    async fn transact_begun(&self, link: &mut Link, job: &Job) -> Transacted {
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
            let done = match drive(link, &self.tls).await {
                Event::Done(done) => done,
                _ => vec![Fate::Broken { stage: Stage::Mail, reason: "the connection was closed".to_owned() }; open.len()],
            };
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
                if open.is_empty() || earned && matches!(drive(link, &self.tls).await, Event::Ready) {
                    continue;
                }
            }
            // The host takes no more over this connection (MAILMAX of RFC 9422, or 421): the rest goes over another.
            let (host, address) = (link.host.clone(), link.connection.peer().ip());
            let fresh = match earned {
                true => self.open(&host, address, &job.source, TlsPolicy::of(&job.stored.domain)).await.ok(),
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
    smtp::client::Parameters { ret: given.ret, envid: given.envid.clone(), deliver_by, priority: given.priority }
}

/// Why a transaction cannot have reached the peer, if that is so. A 421 to MAIL over a connection that was
/// `used` before says that the peer had tired of that connection, not that it refuses this message.
fn stale(fates: &[Fate], used: bool) -> Option<String> {
    let untouched = |fate: &Fate| match fate {
        Fate::Broken { stage, reason } if *stage != Stage::Body => Some(reason.clone()),
        Fate::Refused { reply, stage: Stage::Mail } if used && reply.code() == 421 => Some(reply.to_string()),
        _ => None,
    };
    let mut reasons = fates.iter().map(untouched).collect::<Option<Vec<_>>>()?;
    reasons.pop()
}

/// Why a link could not be opened.
enum Failure {
    Connect(String),
    Handshake(String),
    Refused(Reply),
}

impl Failure {
    fn into_trouble(self, host: &str, address: IpAddr) -> Trouble {
        match self {
            Failure::Connect(reason) => Trouble::unreachable(format!("{host} [{address}]: {reason}")),
            Failure::Handshake(reason) => Trouble::unreachable(format!("{host} [{address}]: TLS handshake: {reason}")),
            Failure::Refused(reply) => Trouble::refused_session(reply),
        }
    }
}

/// Hosts and addresses in the order to try, of the source's own family.
fn targets(route: &Route, source: IpAddr) -> Vec<(Arc<str>, IpAddr)> {
    route
        .hosts
        .iter()
        .flat_map(|host| host.addresses.iter().map(|address| (host.name.clone(), *address)))
        .filter(|(_, address)| address.is_ipv4() == source.is_ipv4())
        .take(ADDRESSES_TRIED_MAX)
        .collect()
}

enum Event {
    Ready,
    Done(Vec<Fate>),
    Handshake(String),
    Closed,
}

/// All IO of a client dialogue is this loop; its rules are in `smtp::client`.
async fn drive(link: &mut Link, tls: &tls::Client) -> Event {
    let mut phase = (u64::MAX, deadline_in(Duration::ZERO));
    loop {
        match link.session.poll() {
            Step::Read { phase: number, within } => {
                if phase.0 != number {
                    phase = (number, deadline_in(within));
                }
                match link.connection.read(phase.1).await {
                    Ok(octets) => link.session.handle_octets(octets),
                    Err(error) => link.session.handle_broken(error.to_string()),
                }
            }
            Step::Write(octets) => {
                if let Err(error) = link.connection.write(octets, deadline_in(WRITE_WAIT)).await {
                    link.session.handle_broken(error.to_string());
                }
            }
            Step::StartTls => {
                let host = link.host.clone();
                match link.connection.start_tls_client(tls, &host, deadline_in(HANDSHAKE_WAIT)).await {
                    Ok(_) => link.session.handle_tls(),
                    Err(error) => return Event::Handshake(error.to_string()),
                }
            }
            Step::Ready => return Event::Ready,
            Step::Done(fates) => return Event::Done(fates),
            Step::Close => return Event::Closed,
        }
    }
}

/// QUIT, and wait for the answer as RFC 5321 §4.1.1.10 asks, but not for long.
async fn hang_up(mut link: Link) {
    link.session.quit();
    let wait = || deadline_in(Duration::from_secs(5));
    loop {
        match link.session.poll() {
            Step::Write(octets) => {
                if link.connection.write(octets, wait()).await.is_err() {
                    break;
                }
            }
            Step::Read { .. } => match link.connection.read(wait()).await {
                Ok(octets) => link.session.handle_octets(octets),
                Err(_) => break,
            },
            _ => break,
        }
    }
    link.connection.close().await;
}
