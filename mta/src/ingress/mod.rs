//! Ingress: listeners and sessions, from a connection to `250`.
//!
//! Each ring thread has its own listener on each address (SO_REUSEPORT) and a task per session. All IO of
//! a dialogue is the loop in [`session`]; its rules are in `smtp::server`; its answers come from [`answer`],
//! which asks `policy`, has the message signed, and waits for the queue's commit.
//!
//! Not here: what happens after the commit (`egress`).

pub mod answer;
pub mod greeting;
pub mod roll;
pub mod session;
mod spend;

use std::rc::Rc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use arc_swap::ArcSwap;
use bytes::Bytes;
use host::{Clock, Connection, Listener, Stream, deadline_in, tls};
use metrics::{Counter, Histogram};
use smtp::reply::Reply;
use smtp::server;
use tokio::sync::watch;

use crate::config::{Config, Network, Role};
use crate::drain::Drain;
use crate::policy::class::Lifetimes;
use crate::policy::{CredentialKey, SharedDirectory, Throttle};
use crate::queue::Queue;
use crate::sign::Signers;
use greeting::Manners;
use roll::Roll;

/// Connections that wait to be accepted on each listener; past it the kernel makes clients try again.
pub const BACKLOG: u32 = 1024;
/// Octets of messages that are being received or committed, all sessions together. Past it MAIL is
/// answered 452 (RFC 5321 §4.2.3) until some are on disk.
pub const BODY_BYTES_MAX: usize = 512 << 20;

/// A listener's role, ready to serve.
pub struct Service {
    /// What it is for.
    pub role: Role,
    /// What sessions offer and how long they may take.
    pub settings: Arc<server::Settings>,
    /// Role relay: who may connect.
    pub trusted_networks: Vec<Network>,
    /// Role relay: whose mail it is.
    pub member: Option<String>,
}

/// What the sessions of all threads share. Snapshots are swapped whole; nothing here is locked on a message's way,
/// but for `throttle`, and that only while somebody has failed to authenticate.
pub struct Shared {
    /// Our name in the trace field.
    pub hostname: Arc<str>,
    /// What time it is.
    pub clock: Clock,
    /// Members, credentials, labels.
    pub directory: SharedDirectory,
    /// What secrets are hashed with.
    pub credential_key: CredentialKey,
    /// Failed authentications.
    pub throttle: Gate,
    /// Who speaks first.
    pub manners: Manners,
    /// The certificate, replaced on reload. None: no role needs one.
    pub tls: Option<ArcSwap<tls::Server>>,
    /// The pool of signers.
    pub signers: Signers,
    /// The queue.
    pub queue: Queue,
    /// How long mail lives.
    pub lifetimes: Lifetimes,
    /// Sessions open, all threads.
    pub sessions: AtomicUsize,
    /// Bound of `sessions`.
    pub sessions_max: usize,
    /// Sessions inside a transaction: what a stop waits for.
    pub transactions: AtomicUsize,
    /// Octets of messages that are not on disk yet.
    pub body_bytes: AtomicUsize,
    /// How far a stop is.
    pub draining: watch::Receiver<Drain>,
    /// Counters.
    pub count: Counters,
}

/// Handles of counters, looked up once: a look-up by name for each message would cost more than counting.
pub struct Counters {
    /// Messages that got 250.
    pub accepted: Counter,
    /// Messages that were queued before.
    pub duplicates: Counter,
    /// Messages sent without the member's signature.
    pub unsigned: Counter,
    /// Seconds from the end of data to 250.
    pub accept_seconds: Histogram,
}

/// The table of failed authentications behind a flag that says whether there are any.
#[derive(Default)]
pub struct Gate {
    failures: AtomicUsize,
    table: Mutex<Throttle>,
}

impl Gate {
    /// Runs `look` on the table if anybody has failed since the start; honest clients never wait here.
    pub fn if_any<T>(&self, look: impl FnOnce(&mut Throttle) -> Option<T>) -> Option<T> {
        if self.failures.load(Ordering::Relaxed) == 0 {
            return None;
        }
        self.locked(look)
    }

    /// Runs `note` on the table and remembers that there is something in it.
    pub fn note<T>(&self, note: impl FnOnce(&mut Throttle) -> T) -> T {
        self.failures.store(1, Ordering::Relaxed);
        self.locked(note)
    }

    fn locked<T>(&self, f: impl FnOnce(&mut Throttle) -> T) -> T {
        // A panic elsewhere must not let guessers through, nor stop everybody: the counts stay usable.
        f(&mut self.table.lock().unwrap_or_else(std::sync::PoisonError::into_inner))
    }
}

/// Accepts until the listener is stopped.
pub async fn listen(mut listener: Listener, service: Rc<Service>, shared: Arc<Shared>, roll: Rc<Roll>) {
    loop {
        match listener.accept().await {
            Ok((connection, _)) => admit(connection, &service, &shared, &roll),
            Err(error) if error.kind() == std::io::ErrorKind::ConnectionAborted => return,
            Err(error) => {
                // Out of descriptors, most likely: sessions end and give some back.
                tracing::warn!(address = %listener.local_addr(), %error, "cannot accept; trying again");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

fn admit(connection: Connection, service: &Rc<Service>, shared: &Arc<Shared>, roll: &Rc<Roll>) {
    let peer = connection.peer().ip();
    let open = Open::new(shared.clone());
    if open.count > shared.sessions_max {
        let reply = Reply::new(421, (4, 3, 2), "too many connections; try again later");
        host::spawn_local(refuse(connection, reply, open));
    } else if service.role == Role::Relay && !service.trusted_networks.iter().any(|network| network.contains(peer)) {
        tracing::warn!(%peer, "refused a connection to a relay listener from outside its trusted networks");
        let reply = Reply::new(554, (5, 7, 1), format!("{peer} is not in a trusted network of this listener"));
        host::spawn_local(refuse(connection, reply, open));
    } else {
        let present = roll.enter(&connection);
        host::spawn_local(session::serve(connection, service.clone(), shared.clone(), present, open));
    }
}

async fn refuse(mut connection: Connection, reply: Reply, open: Open) {
    let _ = connection.write(Bytes::from(reply.to_octets()), deadline_in(Duration::from_secs(5))).await;
    connection.close().await;
    drop(open);
}

/// One open session; counted down when it is dropped, however it ends.
pub struct Open {
    shared: Arc<Shared>,
    count: usize,
}

impl Open {
    fn new(shared: Arc<Shared>) -> Self {
        let count = shared.sessions.fetch_add(1, Ordering::Relaxed) + 1;
        Open { shared, count }
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.shared.sessions.fetch_sub(1, Ordering::Relaxed);
    }
}

/// The settings of a listener's sessions.
pub fn settings(role: Role, config: &Config) -> server::Settings {
    let mut settings = server::Settings::new(&*config.hostname);
    settings.limits.message_bytes_max = usize::try_from(config.message_bytes_max).unwrap_or(usize::MAX);
    settings.limits.recipients_max = config.recipients_max;
    settings.dsn = true;
    settings.deliver_by = Some(u32::try_from(config.deliver_by_min.as_secs()).unwrap_or(u32::MAX));
    settings.hold_max = config.future_release_max;
    settings.mt_priority = true;
    match role {
        Role::Submission | Role::Submissions => {
            settings.auth = server::Auth::Required;
            settings.implicit_tls = role == Role::Submissions;
            settings.starttls = role == Role::Submission;
            settings.require_tls = true;
            // RFC 5321 §4.5.3.2.7 wants five minutes for a command, with queueing relays in mind. A submission is
            // made by a program that has its message ready; a minute keeps a thousand dribblers from being thousands.
            settings.limits.timeouts.command = Duration::from_secs(60);
        }
        Role::Relay => {
            // A trusted host keeps its connection for as long as it has mail.
            settings.limits.messages_max = u32::MAX;
        }
    }
    settings
}
