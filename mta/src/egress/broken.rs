//! Promises of TLS that a host has just broken: for a minute no more connections are made only to see it break them again.
//!
//! A domain with much mail waiting would otherwise shake hands with its host in vain once a message, while other domains
//! of the same host get theirs. The demand belongs to the key: new TLSA records are another promise, tried at once.
//!
//! Not here: what the trouble means (`trouble.rs`), when a delivery is tried again (the scheduler).

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use scheduler::{Demand, Scope, Verdict};
use tokio::time::Instant;

use super::link::Target;
use super::trouble::Trouble;

/// How long it is remembered.
const REMEMBERED: Duration = Duration::from_secs(60);
/// How many are; past it nothing more is remembered until some are forgotten.
const BROKEN_MAX: usize = 1024;

type Key = (Arc<str>, IpAddr, Demand);

/// What one thread has seen.
#[derive(Default)]
pub(super) struct Broken(HashMap<Key, (Instant, Trouble)>);

impl Broken {
    /// The trouble that `target` had a moment ago.
    pub(super) fn of(&self, target: &Target, now: Instant) -> Option<Trouble> {
        let (since, trouble) = self.0.get(&key(target))?;
        (now.duration_since(*since) < REMEMBERED).then(|| trouble.clone())
    }

    /// Remembers a trouble, if it is one with what was promised to the domain. What the message demanded besides does not
    /// count for others.
    pub(super) fn note(&mut self, target: &Target, trouble: &Trouble, now: Instant) {
        let promised = trouble.scope == Scope::Message && trouble.verdict == Verdict::Deferred && !target.require_tls;
        if !promised {
            return;
        }
        if self.0.len() >= BROKEN_MAX {
            self.0.retain(|_, (since, _)| now.duration_since(*since) < REMEMBERED);
        }
        if self.0.len() < BROKEN_MAX {
            self.0.insert(key(target), (now, trouble.clone()));
        }
    }
}

fn key(target: &Target) -> Key {
    (target.host.clone(), target.address, target.demand.clone())
}
