//! The daemon: makes the actors, gives each its thread, and ends them in order.
//!
//! The simulation starts the same actors as tasks of one runtime with paused time, on a network in
//! memory: what the seeded world runs is this code, not a copy of it.
//!
//! Not here: where the actors run (`floor.rs`), what a stop does (`drain.rs`), whose sockets it listens on (`sockets.rs`).

use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use arc_swap::ArcSwap;
use host::dns::Resolver;
use host::{Bound, Clock, Dice, Io, Net, Stopper, deadline_in, tls};
use metrics::{counter, histogram};
use metrics_exporter_prometheus::PrometheusHandle;
use scheduler::Scheduler;
use tokio::sync::{mpsc, oneshot, watch};

use crate::config::{self, Config};
use crate::control::Control;
use crate::control::daemon::{Daemon as Desk, OpenError, Parts};
use crate::control::metrics as names;
use crate::control::web::{Pages, Web};
use crate::drain::{Drain, GRACE};
use crate::egress::clerk::{self, Clerk};
use crate::egress::dispatch::{Dispatcher, Lines};
use crate::egress::plan::{Plan, Surroundings};
use crate::egress::question::questions;
use crate::egress::replies::Replies;
use crate::egress::resolver::{RouteFinder, route_questions};
use crate::egress::route::Router;
use crate::egress::sts::Policies;
use crate::egress::sts::store::Store;
use crate::egress::tls_memory::Memory;
use crate::egress::tls_policy::Clients;
use crate::egress::tls_reports;
use crate::egress::tls_reports::actor::ReportWriter;
use crate::egress::tls_reports::notes::Notes;
use crate::egress::tls_reports::report::Reporter;
use crate::egress::watch::{Seen, Watch};
use crate::events::{redact::Redaction, render::Renderer, tally::Tally};
use crate::floor::{Floor, Rounds};
use crate::ingress::greeting::Manners;
use crate::ingress::{Counters, Gate, Service, Shared, settings};
use crate::policy::class::{Lifetime, Lifetimes};
use crate::queue::{Options, Queue, QueueError, Writer};
use crate::ring::Ring;
use crate::sign::Signers;
use crate::sockets::Sockets;

/// Commits whose notes the dispatcher has not taken yet. Past it the queue waits, and with it those who submit.
const NOTES_MAX: usize = 64;

/// The world that the daemon runs in: the machine's, or a simulated one.
pub struct Environment {
    /// Back end of sockets.
    pub io: Io,
    /// What time it is.
    pub clock: Clock,
    /// Chance.
    pub dice: Dice,
    /// Where names are looked up.
    pub resolver: Resolver,
    /// How the queue is kept.
    pub queue: Options,
    /// Policies and receivers of reports, written by a test. None: those of the world.
    pub pages: Option<Pages>,
    /// Listening sockets that somebody has handed to us.
    pub sockets: Vec<Bound>,
}

impl Environment {
    /// The machine's, as `config` wants it. The text, if any, says why io_uring is not used.
    pub fn of_machine(config: &Config) -> Result<(Self, Option<String>), StartError> {
        let choice = match config.io {
            config::Io::Auto => host::IoChoice::Auto,
            config::Io::Uring => host::IoChoice::Uring,
            config::Io::Epoll => host::IoChoice::Epoll,
        };
        let (io, fallback) = host::choose_io(choice).map_err(StartError::Io)?;
        let resolver = resolver(config)?;
        let (clock, dice) = (Clock::system(), Dice::system());
        let keep = config.events.keep;
        let queue = Options { events_max: keep.count, events_age_max: keep.age, ..Options::default() };
        let environment = Environment { io, clock, dice, resolver, queue, pages: None, sockets: Vec::new() };
        Ok((environment, fallback))
    }
}

/// Why the daemon did not start. Each says what to do.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// A socket, a thread or a file.
    #[error("{0}")]
    Io(#[from] io::Error),
    /// Name resolution.
    #[error("name resolution cannot be set up: {0}; set [dns] nameservers")]
    Resolver(String),
    /// The certificate.
    #[error("{0}; see [tls] and [egress] trust_anchors")]
    Tls(#[from] tls::Error),
    /// The queue's directory.
    #[error("the queue in {} cannot be opened: {error}", path.display())]
    Queue {
        /// Where it is.
        path: PathBuf,
        /// What is wrong.
        error: QueueError,
    },
    /// What is remembered about TLS.
    #[error("what is remembered about TLS cannot be opened: {0}; see data_dir/tls")]
    Memory(String),
    /// Members or keys on disk.
    #[error("{0}")]
    Desk(#[from] OpenError),
}

/// A daemon that runs.
pub struct Running {
    /// Where it listens, in the order of the configuration; a port 0 has become a number.
    pub addresses: Vec<SocketAddr>,
    /// Members, keys and labels, and the snapshots of them; for the control thread.
    pub desk: Desk,
    /// The settings.
    pub config: Arc<Config>,
    clock: Clock,
    queue: Queue,
    shared: Arc<Shared>,
    draining: watch::Sender<Drain>,
    plan: watch::Sender<Arc<Plan>>,
    surroundings: Arc<ArcSwap<Surroundings>>,
    redaction: Arc<ArcSwap<Redaction>>,
    replies: Arc<ArcSwap<Replies>>,
    sockets: Sockets,
    stoppers: Vec<Stopper>,
    dispatcher: oneshot::Receiver<()>,
    /// Each is dropped when its thread has said its last words.
    rings: Vec<oneshot::Receiver<()>>,
    drain: Duration,
    rounds: Rounds,
}

/// Starts the daemon. It listens when this returns; members and labels are the control thread's business.
pub async fn start(config: Arc<Config>, environment: Environment) -> Result<Running, StartError> {
    let Environment { io, clock, dice, resolver, queue: options, pages, sockets: inherited } = environment;
    let floor = Floor::of(&io);
    private_folder(&config.data_dir)?;

    let path = config.data_dir.join("queue");
    let (notes_tx, notes) = mpsc::channel(NOTES_MAX);
    let (writer, queue, reader) =
        Writer::open(&path, clock.clone(), options, notes_tx).map_err(|error| StartError::Queue { path, error })?;
    floor.start(&Io::Epoll, "queue", move || async move {
        if let Err(error) = writer.run().await {
            tracing::error!(%error, "the queue has stopped; restart the daemon");
        }
    })?;

    let (asker, questions) = questions();
    let watch_asker = asker.clone();
    let (routes_asker, route_questions) = route_questions();
    let parts = Parts {
        config: config.clone(),
        queue: queue.clone(),
        reader: reader.clone(),
        scheduler: asker,
        routes: routes_asker,
        clock: clock.clone(),
        dice: dice.clone(),
        io: io.to_string(),
    };
    let desk = Desk::open(parts)?;
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let (signers, pool) = Signers::new(cores, desk.keys(), config.signing.required);
    for signer in pool {
        floor.start(&Io::Epoll, "signer", move || signer.run())?;
    }

    let (draining, draining_rx) = watch::channel(Drain::No);
    let tls = match &config.tls {
        Some(files) => Some(ArcSwap::from_pointee(tls::Server::from_pem_files(&files.certificate, &files.private_key)?)),
        None => None,
    };
    let shared = Arc::new(Shared {
        hostname: config.hostname.as_str().into(),
        clock: clock.clone(),
        directory: desk.directory(),
        credential_key: desk.credential_key(),
        throttle: Gate::default(),
        manners: Manners::default(),
        tls,
        signers: signers.clone(),
        queue: queue.clone(),
        lifetimes: lifetimes(&config),
        sessions: Default::default(),
        sessions_max: config.connections_max.get(),
        transactions: Default::default(),
        body_bytes: Default::default(),
        draining: draining_rx.clone(),
        count: Counters {
            accepted: counter!(names::ACCEPTED),
            duplicates: counter!(names::DUPLICATES),
            unsigned: counter!(names::UNSIGNED),
            accept_seconds: histogram!(names::ACCEPT_SECONDS),
        },
    });

    let plan = Plan::of(&config);
    let surroundings = Arc::new(ArcSwap::new(plan.surroundings.clone()));
    let scheduling = plan.scheduling.clone();
    let in_flight = scheduling.in_flight_max;
    let threads = if floor.is_here() { 1 } else { config.threads.map_or(cores, usize::from) };
    let (finished_tx, finished) = mpsc::channel(in_flight);
    let trust = trust(&config)?;
    let net = Net::new(io.clone());
    let addresses: Vec<_> = config.listen.iter().map(|listen| listen.address).collect();
    let sockets = Sockets::bind(&net, &addresses, inherited, threads)?;
    let replies = Arc::new(ArcSwap::new(config.replies.clone()));
    let (mut rings, mut ended, mut stoppers) = (Vec::new(), Vec::new(), Vec::new());
    for (nth, share) in sockets.shares(threads)?.into_iter().enumerate() {
        let (jobs_tx, jobs) = mpsc::channel(in_flight);
        let (started_tx, started) = oneshot::channel();
        let (ended_tx, ended_rx) = oneshot::channel();
        let listeners = share.into_iter().map(|(nth, bound)| (bound, service(&config, &config.listen[nth]))).collect();
        let (net, shared, finished) = (net.clone(), shared.clone(), finished_tx.clone());
        let replies = replies.clone();
        let tls = Clients::new(trust.clone())?;
        let port = config.egress.port;
        floor.start(&io, &format!("ring-{nth}"), move || async move {
            Ring { net, listeners, shared, tls, port, replies, jobs, finished }.run(started_tx).await;
            drop::<oneshot::Sender<()>>(ended_tx);
        })?;
        stoppers.extend(started.await.map_err(|_| io::Error::other("a ring thread ended before it listened"))??);
        rings.push(jobs_tx);
        ended.push(ended_rx);
    }
    drop(finished_tx);

    let (lookups_tx, lookups) = mpsc::channel(scheduling.resolves_max);
    let (routes_tx, routes) = mpsc::channel(scheduling.resolves_max);
    let memory = Memory::open(&config.data_dir.join("tls")).map_err(|error| StartError::Memory(error.to_string()))?;
    let web = match pages {
        Some(pages) => Web::scripted(pages),
        None => Web::of(&config.egress, resolver.clone(), trust.as_ref())?,
    };
    let reporter = Reporter::of(&config);
    let (tls_notes, noted) = reporter.as_ref().map(|_| Notes::channel()).unzip();
    let tls_notes = tls_notes.unwrap_or_default();
    let store = Store::new(memory.policies.clone());
    let policies = Policies::new(resolver.clone(), web.clone(), store, clock.clone(), tls_notes.clone());
    if let (Some(notes), Some(reporter)) = (noted, reporter) {
        let (hostname, dns) = (config.hostname.as_str().into(), resolver.clone());
        let (queue, signers) = (queue.clone(), signers.clone());
        let sender = tls_reports::send::Sender { reporter, hostname, dns, web, queue, signers, clock: clock.clone() };
        let (table, clock, dice, draining) = (memory.outcomes, clock.clone(), dice.clone(), draining_rx.clone());
        let (ended_tx, ended_rx) = oneshot::channel();
        floor.start(&Io::Epoll, "tls-reports", move || async move {
            ReportWriter { sender, notes, table, clock, dice, draining }.run().await;
            drop::<oneshot::Sender<()>>(ended_tx);
        })?;
        ended.push(ended_rx);
    }
    let watch_resolver = resolver.clone();
    desk.watch_resolver(resolver.clone());
    let router = Router {
        resolver,
        dice: dice.clone(),
        surroundings: surroundings.clone(),
        allow_private_addresses: config.egress.allow_private_addresses,
        port: config.egress.port,
    };
    let finder = RouteFinder { router, policies, clock: clock.clone(), lookups, routes: routes_tx, questions: route_questions };
    floor.start(&Io::Epoll, "resolver", move || finder.run())?;

    // One more reads on through what waited at the start.
    let errands_max = 2 * in_flight + scheduling.loads_max + 1;
    let (errands_tx, errands) = mpsc::channel(clerk::AT_HAND);
    let (errands_done_tx, errands_done) = mpsc::channel(errands_max);
    let clerk = Clerk {
        queue: queue.clone(),
        reader: reader.clone(),
        signers,
        clock: clock.clone(),
        hostname: config.hostname.as_str().into(),
        errands,
        done: errands_done_tx,
    };
    floor.start(&Io::Epoll, "clerk", move || clerk.run())?;

    let tally = Tally::default();
    desk.watch_tally(tally.clone());
    let redaction = Redaction::open(&config.log, &config.data_dir, &dice).map_err(OpenError::from)?;
    let redaction = Arc::new(ArcSwap::from_pointee(redaction));
    let renderer = Renderer::new(queue.clone(), reader.clone(), tally, surroundings.clone(), redaction.clone());
    floor.start(&Io::Epoll, "events", move || renderer.run())?;

    let (plan, plan_rx) = watch::channel(Arc::new(plan));
    let seen = Seen::default();
    desk.watch_sources(seen.clone());
    desk.send_plans_to(plan.clone());
    let watch = Watch { resolver: watch_resolver, clock: clock.clone(), plan: plan_rx.clone(), scheduler: watch_asker, seen };
    floor.start(&Io::Epoll, "sources", move || watch.run())?;

    let lines = Lines {
        notes,
        finished,
        errands_done,
        routes,
        rings,
        errands: errands_tx,
        lookups: lookups_tx,
        questions,
        draining: draining_rx,
        weights: desk.weights(),
        pools: desk.pools(),
        plan: plan_rx,
        tls: tls_notes,
        redaction: redaction.clone(),
    };
    let assigned = scheduling.warmup.clone();
    let mut scheduler = Scheduler::new(scheduling, dice.below(u64::MAX));
    let (actions, last_action) = reader.actions().map_err(|error| StartError::Queue { path: config.data_dir.clone(), error })?;
    scheduler.handle_measures(clock.now(), actions, last_action);
    let climbs = assigned.iter().map(|climb| (climb.source.clone(), climb.provider.clone()));
    let climbs = reader.climbs(climbs).map_err(|error| StartError::Queue { path: config.data_dir.clone(), error })?;
    scheduler.handle_climbs(clock.now(), climbs);
    let pins = reader.pins().map_err(|error| StartError::Queue { path: config.data_dir.clone(), error })?;
    scheduler.handle_pins(clock.now(), pins);
    let (dispatched, dispatcher) = oneshot::channel();
    let (dispatch_clock, dispatch_queue) = (clock.clone(), queue.clone());
    floor.start(&Io::Epoll, "scheduler", move || async move {
        Dispatcher::new(scheduler, dispatch_clock, dispatch_queue, lines).run().await;
        let _ = dispatched.send(());
    })?;

    let drain = Duration::from_secs(config.drain_secs);
    let addresses = sockets.addresses();
    Ok(Running {
        addresses,
        desk,
        config,
        clock,
        queue,
        shared,
        draining,
        plan,
        surroundings,
        redaction,
        replies,
        sockets,
        stoppers,
        dispatcher,
        rings: ended,
        drain,
        rounds: floor.rounds(),
    })
}

impl Running {
    /// Starts the control thread: the operator's socket, the admin port, the poll of labels.
    pub async fn control(&self, metrics: Option<PrometheusHandle>) -> io::Result<Control> {
        let shared = self.shared.clone();
        let sessions = move || shared.sessions.load(Ordering::Relaxed);
        crate::control::start(self.desk.clone(), self.config.clone(), self.clock.clone(), metrics, sessions, self.rounds.clone())
            .await
    }

    /// Takes from new settings what can change while we run: the certificate, the labels that members need, tiers, duplicates,
    /// sources, pools, shaping and what of people stands in the log. When the new certificate is no good all of it stays as it was.
    pub fn reload(&self, config: Arc<Config>) -> Result<(), tls::Error> {
        self.renew(&config)?;
        let plan = Plan::of(&config);
        // First, so that no route is made for the new plan in the old surroundings.
        self.surroundings.store(plan.surroundings.clone());
        self.plan.send_replace(Arc::new(plan));
        self.replies.store(config.replies.clone());
        self.redaction.store(Arc::new(self.redaction.load().with(&config.log)));
        self.desk.handle_config(config);
        Ok(())
    }

    /// Reads the certificate again. Sessions that are open keep the one that they began with; the old one stays when the new
    /// one is no good.
    pub fn renew(&self, config: &Config) -> Result<(), tls::Error> {
        if let (Some(files), Some(tls)) = (&config.tls, &self.shared.tls) {
            tls.store(Arc::new(tls::Server::from_pem_files(&files.certificate, &files.private_key)?));
        }
        Ok(())
    }

    /// The sockets that it listens on.
    pub fn sockets(&self) -> &Sockets {
        &self.sockets
    }

    /// Stops accepting, finishes what is in progress within `drain_secs`, commits.
    pub async fn stop(self) {
        let Running { shared, draining, sockets, stoppers, mut dispatcher, rings, queue, drain, .. } = self;
        // The last ones that hold a socket now are those that accept from it, unless somebody has a copy.
        drop(sockets);
        stoppers.iter().for_each(Stopper::stop);
        draining.send_replace(Drain::Finish);
        let finish = async {
            // An error means that it has ended already.
            tokio::join!(sessions_end(&shared), async { (&mut dispatcher).await.ok() });
        };
        if tokio::time::timeout(drain, finish).await.is_err() {
            tracing::warn!("not everything in progress was finished; what is in the queue is tried again at the next start");
        }
        draining.send_replace(Drain::Over);
        let last = async {
            if !dispatcher.is_terminated() {
                let _ = dispatcher.await;
            }
            for ring in rings {
                let _ = ring.await;
            }
        };
        // The threads bound what they do themselves; a disk that does not answer is bounded here.
        let _ = tokio::time::timeout(Duration::from_secs(3), last).await;
        queue.stop().await;
    }
}

/// Waits until every session has gone. Those that are inside no transaction are only waited for while they may begin one.
async fn sessions_end(shared: &Shared) {
    let begun = deadline_in(GRACE + Duration::from_millis(200));
    let grace = async {
        while shared.sessions.load(Ordering::Relaxed) > 0 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    let _ = tokio::time::timeout_at(begun, grace).await;
    while shared.transactions.load(Ordering::Relaxed) > 0 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// What can be wrong before the data directory is opened, for a daemon that is about to take another one's place: a wrong
/// certificate must be told while that one still serves.
pub fn check(config: &Config) -> Result<(), StartError> {
    if let Some(files) = &config.tls {
        tls::Server::from_pem_files(&files.certificate, &files.private_key)?;
    }
    trust(config)?;
    resolver(config)?;
    Ok(())
}

/// The DNS, as `config` wants it.
fn resolver(config: &Config) -> Result<Resolver, StartError> {
    let nameservers = config.dns.nameservers.as_deref();
    let dnssec = match config.dns.dnssec {
        config::Dnssec::Validate => host::dns::Dnssec::Validate,
        config::Dnssec::TrustAd => host::dns::Dnssec::TrustAd,
        config::Dnssec::Off => host::dns::Dnssec::Off,
    };
    let resolver = match (&config.dns.trust_anchor, nameservers) {
        (Some(anchor), _) => Resolver::with_trust_anchor(nameservers, anchor),
        (None, Some(nameservers)) => Resolver::with_nameservers(nameservers, dnssec),
        (None, None) => Resolver::system(dnssec),
    };
    for hint in config::hints::hints(config) {
        tracing::info!(hint, "something to know of the settings");
    }
    resolver.map_err(|error| StartError::Resolver(error.to_string()))
}

/// What receiving hosts' certificates are held against. Few domains demand it, so a system without trust anchors is no
/// reason not to start; a file that was named and cannot be used is one.
fn trust(config: &Config) -> Result<Option<tls::Trust>, tls::Error> {
    match (tls::Trust::load(config.egress.trust_anchors.as_deref()), &config.egress.trust_anchors) {
        (Ok(trust), _) => Ok(Some(trust)),
        (Err(error), Some(_)) => Err(error),
        (Err(error), None) => {
            tracing::warn!(%error, "certificates of receiving hosts are not examined; mail that demands it waits");
            Ok(None)
        }
    }
}

fn lifetimes(config: &Config) -> Lifetimes {
    Lifetimes(config.class.each().map(|(_, lifetime, delay_notice_after)| Lifetime { lifetime, delay_notice_after }))
}

/// A folder that only we may enter.
fn private_folder(path: &Path) -> io::Result<()> {
    host::disk::make_dir(path)
        .map_err(|error| io::Error::new(error.kind(), format!("cannot make {}: {error}; see data_dir", path.display())))
}

fn service(config: &Config, listen: &config::Listen) -> Service {
    Service {
        role: listen.role,
        settings: Arc::new(settings(listen.role, config)),
        trusted_networks: listen.trusted_networks.clone().unwrap_or_default(),
        member: listen.member.clone(),
    }
}
