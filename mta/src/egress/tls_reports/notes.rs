//! What there is to count, on its way to the reporter: notes over a bounded channel that nobody waits for.
//!
//! Where no reports are configured nothing is noted. What a full channel does not take is lost to the report, and counted.

use std::net::IpAddr;
use std::sync::Arc;

use scheduler::{PolicyKind, TlsFailure, TlsPolicy};
use tokio::sync::mpsc;

use crate::control::metrics as names;
use crate::egress::Job;
use crate::egress::deliver::Attempt;
use crate::egress::tls_policy::TlsResult;
use crate::queue::TlsWish;

/// Notes that wait to be counted; past it they are lost.
const WAITING_MAX: usize = 4096;

/// How TLS went for mail of one recipient domain in one attempt, or in the search for its policy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Note {
    /// The recipient domain, of which the policy is.
    pub domain: Arc<str>,
    /// The policy that was applied.
    pub policy: TlsPolicy,
    /// The address that we spoke from.
    pub source: Option<IpAddr>,
    /// A session each.
    pub results: Vec<TlsResult>,
}

impl Note {
    /// A policy of MTA-STS could not be had.
    pub fn of_policy(domain: &str, failure: TlsFailure, why: String) -> Self {
        let result = TlsResult { host: "".into(), address: None, failure: Some((failure, why)) };
        let policy = TlsPolicy { kind: PolicyKind::Sts, ..TlsPolicy::default() };
        Note { domain: domain.into(), policy, source: None, results: vec![result] }
    }
}

/// The way to the reporter. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Notes(Option<mpsc::Sender<Note>>);

impl Notes {
    /// The way, and the end that the reporter reads.
    pub fn channel() -> (Self, mpsc::Receiver<Note>) {
        let (sender, receiver) = mpsc::channel(WAITING_MAX);
        (Notes(Some(sender)), receiver)
    }

    /// How TLS went in an attempt. Where the sender's word changed what was demanded (RFC 8689), it tells nothing about the
    /// domain's policy.
    pub fn attempted(&self, job: &Job, attempt: &Attempt) {
        let counts = job.stored.message.parameters.tls == TlsWish::Policy && !attempt.tls_results.is_empty();
        if self.0.is_some() && counts {
            self.say(Note {
                domain: job.stored.domain.clone(),
                policy: job.route.tls.clone(),
                source: Some(job.source.address),
                results: attempt.tls_results.clone(),
            });
        }
    }

    /// Hands a note over, or loses it.
    pub fn say(&self, note: Note) {
        if let Some(sender) = &self.0
            && sender.try_send(note).is_err()
        {
            metrics::counter!(names::TLS_NOTES_LOST).increment(1);
        }
    }
}
