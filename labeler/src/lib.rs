//! The labeler: verifies mail operators and labels their DIDs.
//!
//! The life of a label, and the module of each step:
//!
//! | step | module |
//! |---|---|
//! | an attestation is seen on a firehose or Jetstream | `ingest` |
//! | its account's DID document is resolved | `identity` |
//! | the record is fetched again with its repository's proof; DNS is asked | `verify`, `collect`, `fetch`, `dns`, `spf` |
//! | the facts are judged (pure), and several resolvers must agree | [`judge`], `quorum` |
//! | the label is signed, numbered and kept, with the reasons of every refusal | [`store`] |
//! | it is looked at again when due, and everybody has a turn | `rounds` |
//! | it is issued again before it runs out | `upkeep` |
//! | anybody may read it | `serve` |
//! | a member is told what stands in the way of one | [`explain`] |
//! | anybody is told who vouches for a message | [`vouching`] |
//! | MTAs report what became of mail, and are told of doubts | [`standing`] |
//! | the operator sees how it is | [`admin`] |
//!
//! [`start`] runs all of it inside of a tokio runtime; the program `tradewind-labeler` is a thin wrapper.

pub mod admin;
mod collect;
pub mod config;
mod dns;
pub mod explain;
mod fetch;
mod identity;
mod ingest;
pub mod judge;
mod key;
mod outside;
mod pace;
mod quorum;
pub mod replay;
mod rounds;
mod serve;
pub mod setup;
mod spf;
pub mod standing;
pub mod store;
#[doc(hidden)]
pub mod strangers;
mod upkeep;
mod verify;
pub mod vouching;

use std::net::SocketAddr;
use std::sync::Arc;

use atproto::did::{labeler_document, web_origin};
use tokio::net::TcpListener;
use tokio::sync::{Notify, watch};
use tokio::task::JoinSet;

pub use config::{Config, ConfigError};
use store::{Store, StoreError};

/// Why the labeler does not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The key file is there and of no use, or cannot be made.
    #[error("signing_key {0}: {1}")]
    Key(std::path::PathBuf, String),
    /// The store does not open.
    #[error("data_dir {0}: {1}")]
    Store(std::path::PathBuf, StoreError),
    /// The address is taken, or not ours.
    #[error("listen {0}: {1}")]
    Listen(SocketAddr, std::io::Error),
    /// No name servers, or no TLS.
    #[error("{0}")]
    Other(String),
}

/// A labeler at work. Dropping it ends it at once; [`Running::stop`] lets requests in progress finish.
#[derive(Debug)]
pub struct Running {
    address: SocketAddr,
    admin: Option<SocketAddr>,
    did_key: String,
    store: Arc<Store>,
    stop: watch::Sender<bool>,
    tasks: JoinSet<()>,
}

/// Opens the store, binds the listener and begins to watch. When it returns, queries are answered.
pub async fn start(config: Config) -> Result<Running, StartError> {
    let other = |error: &dyn std::fmt::Display| StartError::Other(error.to_string());
    let key = key::open(&config.signing_key).map_err(|why| StartError::Key(config.signing_key.clone(), why))?;
    let did_key = key.verifying_key().did_key();
    let terms = store::Terms { expires_after: config.labels.expires_after, history: config.labels.history };
    let store = Store::open(&config.data_dir, &config.did, &key, terms, outside::now())
        .map_err(|error| StartError::Store(config.data_dir.clone(), error))?;
    let store = Arc::new(store);
    let listener = TcpListener::bind(config.listen).await.map_err(|error| StartError::Listen(config.listen, error))?;
    let address = listener.local_addr().map_err(|error| StartError::Listen(config.listen, error))?;
    let admin_listener = match config.admin {
        Some(admin) => Some(TcpListener::bind(admin.address).await.map_err(|error| StartError::Listen(admin.address, error))?),
        None => None,
    };
    let tls = fetch::tls().map_err(|error| other(&error))?;
    let checker = explain::Checker::new(&config.identity, &config.dns, &config.verify, &tls).map_err(StartError::Other)?;
    let document = web_origin(&config.did).map(|endpoint| labeler_document(&config.did, &key.verifying_key(), &endpoint));

    let (stop, stopped) = watch::channel(false);
    let bell = Arc::new(Notify::new());
    let mut tasks = JoinSet::new();
    let explainer = Arc::new(explain::Explainer::new(store.clone(), checker.clone(), bell.clone()));
    let vouching = Arc::new(vouching::Vouching::new(store.clone(), config.did.clone(), checker.views.dns().clone()));
    let rule = config.standing.as_ref().map(config::Standing::rule).unwrap_or_default();
    let gate = config.standing.map(|settings| {
        let resolver = checker.resolver.clone();
        standing::Gate::new(config.did.clone(), settings.mtas, resolver, store.clone(), outside::now())
    });
    let gate = gate.transpose().map_err(|error| StartError::Store(config.data_dir.clone(), error))?;
    let desk: standing::Desk = gate.map(|gate| {
        let keeper = standing::StoreKeeper { store: store.clone(), rule, key: key.clone() };
        Arc::new((gate, Box::new(keeper) as Box<dyn standing::Keeper>))
    });
    let methods = serve::Methods { explainer, vouching, desk };
    let answers = serve::Answers::new(store.clone(), config.did.as_str(), document, methods, &config.serve, stopped.clone());
    let counts = Arc::new(admin::Counts::default());
    let subscribers = Box::new(answers.subscribers.count());
    tasks.spawn(serve::run(listener, answers, config.serve, counts.clone(), stopped.clone()));
    tasks.spawn(upkeep::run(store.clone(), key.clone(), stopped.clone()));
    // Also without a word about it: what was granted before is withdrawn when reports stop.
    tasks.spawn(standing::run(store.clone(), rule, key.clone(), stopped.clone()));
    tasks.spawn(upkeep::let_go(store.clone(), stopped.clone()));
    let missed = Arc::new(Notify::new());
    if let Some(relay) = config.ingest.relay() {
        let (fetcher, store, bell) = (checker.resolver.fetcher.clone(), store.clone(), bell.clone());
        let backfilling = ingest::Backfilling { relay, fetcher, store, bell, missed: missed.clone() };
        tasks.spawn(backfilling.run(stopped.clone()));
    }
    let firehose = config.ingest.firehose.map(|url| (ingest::Kind::Firehose, url));
    let jetstream = config.ingest.jetstream.map(|url| (ingest::Kind::of_jetstream(&url), url));
    let streams: Vec<_> = firehose.into_iter().chain(jetstream).collect();
    let resolvers = checker.views.asked();
    let verifier = verify::Verifier { resolver: checker.resolver, views: checker.views };
    let rounds = rounds::Rounds {
        store: store.clone(),
        looker: admin::Counted { looker: verifier, counts: counts.clone(), clock: outside::now },
        key,
        patience: config.verify.patience(),
        fair: rounds::Fair::new(config.verify.concurrency, config.verify.per_host),
        bell: bell.clone(),
        clock: outside::now,
    };
    tasks.spawn(rounds.run(stopped.clone()));
    let mut admin = None;
    if let Some(listener) = admin_listener {
        admin = listener.local_addr().ok();
        let watched = streams.iter().map(|(kind, url)| admin::Stream::new(*kind, url, outside::now()));
        let streams = std::sync::Mutex::new(watched.collect());
        let (store, clock) = (store.clone(), outside::now as fn() -> std::time::SystemTime);
        let instruments = admin::Instruments { store, counts, resolvers, subscribers, streams, clock };
        tasks.spawn(admin::run(listener, Arc::new(instruments), stopped.clone()));
    }
    for (kind, url) in streams {
        let (store, bell, missed) = (store.clone(), bell.clone(), missed.clone());
        let (tls, strangers) = (tls.clone(), ingest::Strangers::default());
        let ingest = ingest::Ingest { kind, url, store, bell, missed, tls, strangers };
        tasks.spawn(ingest.run(stopped.clone()));
    }
    tracing::info!(did = config.did.as_str(), key = did_key, %address, "the labeler serves");
    Ok(Running { address, admin, did_key, store, stop, tasks })
}

impl Running {
    /// Where it listens.
    pub fn local_addr(&self) -> SocketAddr {
        self.address
    }

    /// Where the operator's listener listens, if there is one.
    pub fn admin_addr(&self) -> Option<SocketAddr> {
        self.admin
    }

    /// The public half of the signing key, as did:key.
    pub fn did_key(&self) -> &str {
        &self.did_key
    }

    /// What it knows: attestations with the reasons of each refusal, and the labels issued.
    pub fn store(&self) -> &Store {
        &self.store
    }

    /// Returns only if a part of it has died, which is a bug: whoever runs it should end and be started again.
    pub async fn died(&mut self) {
        match self.tasks.join_next().await {
            Some(Err(error)) => tracing::error!(%error, "a part of the labeler has died"),
            Some(Ok(())) => tracing::error!("a part of the labeler has ended by itself"),
            None => {}
        }
    }

    /// Accepts nothing more, lets requests in progress finish, and closes the store.
    pub async fn stop(mut self) {
        self.stop.send_replace(true);
        while self.tasks.join_next().await.is_some() {}
    }
}
