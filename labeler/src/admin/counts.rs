//! What is counted where it happens: relaxed atomics in tables of a fixed size, read when somebody scrapes.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use atproto::lexicon::CooperativeLabel;
use axum::http::StatusCode;

use crate::judge::{Answer, Verdict};
use crate::rounds::{Look, Looker, Turn};
use crate::store::{Found, Lane, Task};

/// What a look gave: all in order, something is not, not all could be found out; the attestation is gone; a repository was looked into for
/// attestations; its host is to be asked later.
pub(super) const LOOKS: [&str; 6] = ["pass", "fail", "unknown", "gone", "listed", "later"];
/// In the order of [`Lane::ALL`].
pub(super) const LANES: [&str; Lane::ALL.len()] = ["standing", "waiting", "fresh"];
/// What is asked of the labeler. `other` is all that it does not know.
pub(super) const METHODS: [&str; 11] = [
    "queryLabels",
    "subscribeLabels",
    "getStatus",
    "checkDomain",
    "verifyMessage",
    "reportSending",
    "getStanding",
    "did.json",
    "health",
    "status",
    "other",
];
/// Statuses that the labeler answers with.
pub(super) const STATUSES: [&str; 17] =
    ["101", "200", "204", "400", "401", "403", "404", "405", "408", "413", "426", "429", "431", "500", "501", "503", "other"];
/// What DNS said: records, that there are none, nothing that can be relied on.
pub(super) const ANSWERS: [&str; 3] = ["found", "absent", "unknown"];

/// All of it.
#[derive(Debug, Default)]
pub(crate) struct Counts {
    pub(super) looks: [AtomicU64; LOOKS.len()],
    /// When the last look of each lane ended, in milliseconds since 1970; 0: none since the start.
    pub(super) looked_ms: [AtomicU64; LANES.len()],
    pub(super) requests: [[AtomicU64; STATUSES.len()]; METHODS.len()],
    /// By value of the lexicon: granted, and taken back.
    pub(super) labels: [[AtomicU64; 2]; CooperativeLabel::ALL.len()],
}

impl Counts {
    /// A request was answered.
    pub(crate) fn request(&self, path: &str, status: StatusCode) {
        let method = METHODS.iter().position(|known| *known == method(path)).unwrap_or(METHODS.len() - 1);
        let status = STATUSES.iter().position(|known| *known == status.as_str()).unwrap_or(STATUSES.len() - 1);
        add(&self.requests[method][status]);
    }

    pub(super) fn label(&self, value: &str, negated: bool) {
        if let Some(nth) = CooperativeLabel::ALL.iter().position(|known| known.as_str() == value) {
            add(&self.labels[nth][usize::from(negated)]);
        }
    }

    fn look(&self, lane: Lane, look: &Look, now: SystemTime) {
        add(&self.looks[match &look.outcome {
            Ok(Found::Judged { judgement, .. }) => match judgement.verdict {
                Verdict::Pass => 0,
                Verdict::Fail => 1,
                Verdict::Unknown => 2,
            },
            Ok(Found::Absent) => 3,
            Ok(Found::Records(_)) => 4,
            Err(_) => 5,
        }]);
        let now = now.duration_since(UNIX_EPOCH).map_or(0, |now| u64::try_from(now.as_millis()).unwrap_or(u64::MAX));
        self.looked_ms[lane as usize].store(now, Ordering::Relaxed);
    }
}

/// What the path asks for.
fn method(path: &str) -> &str {
    match path {
        "/xrpc/com.atproto.label.queryLabels" => "queryLabels",
        "/xrpc/com.atproto.label.subscribeLabels" => "subscribeLabels",
        "/.well-known/did.json" => "did.json",
        "/xrpc/_health" => "health",
        "/status" => "status",
        _ if path.starts_with("/status/") => "status",
        _ => path.strip_prefix("/xrpc/coop.tradewind.").unwrap_or("other"),
    }
}

/// A looker whose looks are counted.
#[derive(Clone)]
pub(crate) struct Counted<L> {
    pub(crate) looker: L,
    pub(crate) counts: Arc<Counts>,
    pub(crate) clock: fn() -> SystemTime,
}

impl<L: Looker + Sync> Looker for Counted<L> {
    async fn look(&self, task: &Task, may: impl Fn(&str) -> Turn + Send + Sync) -> Look {
        let look = self.looker.look(task, may).await;
        self.counts.look(task.lane, &look, (self.clock)());
        look
    }
}

/// What one resolver was asked.
#[derive(Debug, Default)]
pub(crate) struct Asked([AtomicU64; ANSWERS.len()]);

impl Asked {
    /// A question was answered, or was not.
    pub(crate) fn answer<T>(&self, answer: &Answer<T>) {
        add(&self.0[match answer {
            Answer::Found(_) => 0,
            Answer::Absent => 1,
            Answer::Unknown(_) => 2,
        }]);
    }

    pub(super) fn counts(&self) -> [u64; ANSWERS.len()] {
        self.0.each_ref().map(|count| count.load(Ordering::Relaxed))
    }
}

fn add(count: &AtomicU64) {
    count.fetch_add(1, Ordering::Relaxed);
}

#[cfg(test)]
impl Counts {
    /// Everything has happened once.
    pub(super) fn fill(&self) {
        let all = self.looks.iter().chain(self.requests.iter().flatten()).chain(self.labels.iter().flatten());
        all.chain(&self.looked_ms).for_each(add);
    }
}

#[cfg(test)]
impl Asked {
    /// Every answer was given once.
    pub(super) fn fill(&self) {
        self.0.iter().for_each(add);
    }
}
