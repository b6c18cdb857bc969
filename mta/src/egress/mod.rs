//! Egress: from a durable delivery to its settlement.
//!
//! `dispatch` drives the scheduler and hands each delivery that may go to the ring thread of its slot;
//! `deliver` makes the attempt over a `link` that it opens or finds in the `cache`; `trouble` says what the outcome means;
//! `settle` writes it down, with a `dsn` where somebody has to be told. `route` finds the hosts of a
//! domain, `dane` and `sts` what it demands of their TLS, `clerk` reads the disk, all on threads that mail in motion does not wait
//! for. `question` is the operator's way to the scheduler, `plan` what the settings say to all of them. `tls_policy` is what a
//! delivery demands in the end, `tls_reports` tells domains how it went, and `tls_memory` keeps what is known of both.
//! `dialogues` are the last words with hosts that did not take a message. `watch` is what the world finds when it looks at our addresses.

mod attempt_line;
mod broken;
pub mod cache;
pub mod clerk;
mod climbs;
pub mod dane;
pub mod deliver;
pub mod dialogues;
pub mod dispatch;
pub mod dsn;
pub mod link;
mod notebook;
mod outbox;
mod pins;
pub mod plan;
pub mod provider;
pub mod question;
mod race;
pub mod replies;
pub mod resolver;
pub mod route;
pub mod settle;
pub mod sts;
mod targets;
pub mod tls_memory;
pub mod tls_policy;
pub mod tls_reports;
pub mod trouble;
pub mod watch;

use std::net::IpAddr;
use std::sync::Arc;

use scheduler::{Limits, Route};

use crate::queue::StoredDelivery;

/// An address that mail leaves from.
#[derive(Clone, Debug)]
pub struct Source {
    /// Its place in the pool: the scheduler's `SourceId`.
    pub index: usize,
    /// What the configuration calls it.
    pub name: Arc<str>,
    /// The local address.
    pub address: IpAddr,
    /// Its name in EHLO.
    pub ehlo: Arc<str>,
}

/// One delivery that is to be tried now.
#[derive(Clone)]
pub struct Job {
    /// The message and its open recipients.
    pub stored: Arc<StoredDelivery>,
    /// Where to.
    pub route: Arc<Route>,
    /// Where from.
    pub source: Arc<Source>,
    /// What holds there: timeouts, messages over one connection, the least that is demanded of it.
    pub limits: Arc<Limits>,
    /// Further recipients are open, and not to be tried now.
    pub partial: bool,
}

/// A tried delivery, on its way back to the scheduler.
pub struct Finished {
    /// What was tried.
    pub job: Job,
    /// What came of it. None: it was recalled before it began, because we stop.
    pub attempt: Option<deliver::Attempt>,
}
