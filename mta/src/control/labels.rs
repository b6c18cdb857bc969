//! The labeler, polled: who vouches for our members right now.
//!
//! Every `poll_interval` the labels of all members are asked for (`com.atproto.label.queryLabels`), page by page to the
//! end, since servers differ in order, history and the last cursor. A label counts when the configured labeler issued it and its
//! `#atproto_label` key signed it; of several about the same thing the newest counts, and it may negate or have run out.
//! A new member is asked about at once. What was verified before is not verified again (`verified`).
//!
//! What is known of a member is replaced when the labeler has answered about it in full; while it is away, what it said
//! last stands, across restarts too (table `labels`). A label with a wrong signature neither gives nor takes: what was
//! known of that value stands.
//!
//! Not here: what a label is (`atproto::label`), what it does to mail (`policy::standing`).

use std::{
    collections::{BTreeMap, BTreeSet},
    future::Future,
    sync::Arc,
    time::{Duration, SystemTime},
};

use arc_swap::ArcSwap;
use atproto::{
    Did,
    did::{DOCUMENT_BYTES_MAX, Document, DocumentError, VerifyingKey, web_document_url},
    instant,
    label::{Label, LabelError, newest, read_query_labels},
};
use futures_util::{StreamExt, stream};
use host::Clock;
use serde::{Deserialize, Serialize};
use tokio::sync::Notify;

use super::{
    fetch::{Fetch, FetchError, escape},
    metrics,
    verified::{Digest, Digester, Verified},
};
use crate::{
    config::{Config, Labeler},
    policy::standing::{self, Standing},
};

/// DIDs asked about in one request: two labels of each fit in one page.
const BATCH: usize = 120;
/// Octets of the patterns in one URL: nginx and many others take 8 KiB for a request line.
const PATTERNS_BYTES_MAX: usize = 6 << 10;
/// Requests under way at once: the labeler looks up the next while we read this one.
const AHEAD: usize = 2;
/// Labels in one page, the most that the lexicon allows.
const PAGE: usize = 250;
/// Octets of a page: 250 labels of half a kilobyte, and as much again.
const PAGE_BYTES_MAX: usize = 512 << 10;
/// Pages for one batch. A server that has more, or turns in circles, has not answered.
const PAGES_MAX: usize = 200;
/// After this long the labeler's DID is looked up again: a key that it has given up must not count for ever.
const KEY_FRESH: Duration = Duration::from_secs(3600);

/// What the poll needs of the rest of the daemon.
pub trait Desk: Send + Sync + 'static {
    /// The DIDs of all members.
    fn members(&self) -> impl Future<Output = Vec<String>> + Send;
    /// All rows of the table `labels`.
    fn load(&self) -> impl Future<Output = Result<Vec<Row>, String>> + Send;
    /// Writes rows; a row without a value is removed.
    fn save(&self, rows: Vec<(Vec<u8>, Option<Vec<u8>>)>) -> impl Future<Output = Result<(), String>> + Send;
    /// Makes admission see it.
    fn publish(&self, standing: Arc<Standing>);
}

/// Key and value of a table's row.
pub type Row = (Vec<u8>, Vec<u8>);

/// How the poll goes, for the status page.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PollState {
    /// When all members were last asked about with success.
    pub polled_at: Option<SystemTime>,
    /// What went wrong since.
    pub trouble: Option<String>,
}

/// Why a poll failed; in every case what was known stands.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
enum PollError {
    #[error("the labeler {0}")]
    Labeler(FetchError),
    #[error("the labeler's answer is not one of queryLabels: {0}")]
    Answer(LabelError),
    #[error("the labeler gave more than {PAGES_MAX} pages for at most {BATCH} members")]
    Endless,
    #[error("the labeler's DID cannot be looked up: {0}")]
    Lookup(FetchError),
    #[error("{0} cannot be looked up: only did:plc and did:web with a host name are known")]
    Method(String),
    #[error("the labeler's {0}")]
    Document(DocumentError),
    #[error("labels cannot be kept: {0}")]
    Desk(String),
}

/// What is known of one member; a row of the table `labels`, under its DID.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Known {
    /// When the labeler last answered about it.
    asked: Option<SystemTime>,
    /// The labels that hold, each with its end.
    labels: BTreeMap<String, Option<SystemTime>>,
    /// Whose signatures were verified.
    #[serde(default)]
    verified: Verified,
}

/// Polls the labeler for as long as the daemon runs.
pub struct LabelPoll<D> {
    labeler: Labeler,
    did: Did,
    plc_url: String,
    fetch: Fetch,
    clock: Clock,
    desk: Arc<D>,
    wake: Arc<Notify>,
    state: Arc<ArcSwap<PollState>>,
    known: BTreeMap<String, Known>,
    key: Option<(VerifyingKey, SystemTime)>,
    refused: usize,
    digester: Digester,
}

impl<D: Desk> LabelPoll<D> {
    /// None when the configuration has no labeler. `wake` asks about members that are new.
    pub fn new(config: &Config, fetch: Fetch, clock: Clock, desk: Arc<D>, wake: Arc<Notify>) -> Option<Self> {
        let labeler = config.labeler.clone()?;
        let did = labeler.did.parse().ok()?;
        let plc_url = config.identity.plc_url.trim_end_matches('/').to_owned();
        let (state, known, digester) = (Arc::default(), BTreeMap::new(), Digester::default());
        Some(LabelPoll { labeler, did, plc_url, fetch, clock, desk, wake, state, known, key: None, refused: 0, digester })
    }

    /// How the poll goes, to read while it runs.
    pub fn state(&self) -> Arc<ArcSwap<PollState>> {
        self.state.clone()
    }

    /// Goes on with what was known before the restart; admission has it already, from [`Daemon`](super::daemon::Daemon).
    pub async fn restore(&mut self) {
        match self.desk.load().await {
            Ok(rows) => self.known = read_rows(rows),
            Err(error) => tracing::error!(error, "labels kept before the restart cannot be read; waiting for the labeler"),
        }
        self.publish();
    }

    /// Polls until dropped.
    pub async fn run(mut self) {
        loop {
            self.poll(false).await;
            let next = tokio::time::sleep(self.labeler.poll_interval);
            tokio::pin!(next);
            loop {
                tokio::select! {
                    () = &mut next => break,
                    () = self.wake.notified() => self.poll(true).await,
                }
            }
        }
    }

    /// Asks once: about all members, or about those that no answer is known of.
    async fn poll(&mut self, only_new: bool) {
        let mut members: Vec<String> = self.desk.members().await;
        members.sort_unstable();
        members.dedup();
        let forgotten = self.forget_others(&members);
        if only_new {
            members.retain(|did| self.known.get(did).is_none_or(|known| known.asked.is_none()));
        }
        let changed = !forgotten.is_empty() || !members.is_empty();
        let mut outcome = self.ask(&members).await;
        if changed {
            self.publish();
        }
        if !forgotten.is_empty()
            && let Err(error) = self.desk.save(forgotten).await
        {
            outcome = outcome.and(Err(PollError::Desk(error)));
        }
        self.report(outcome, only_new);
    }

    async fn ask(&mut self, members: &[String]) -> Result<(), PollError> {
        let mut looked_up = false;
        let mut refused = 0;
        let asking = Asking::new(&self.labeler, self.fetch.clone());
        let requests: Vec<_> = batches(members).into_iter().map(|batch| asking.clone().query(batch)).collect();
        let mut answers = stream::iter(requests).buffered(AHEAD);
        while let Some((batch, labels)) = answers.next().await {
            let labels = labels?;
            let mut believed = Vec::with_capacity(labels.len());
            // Values that a refused label speaks of: nothing new is known of those.
            let mut doubtful = BTreeSet::new();
            for label in labels {
                let mut verdict = self.verify(&label, &mut looked_up).await?;
                if label.cid.is_some() || batch.binary_search(&label.uri).is_err() {
                    verdict = Err("subject");
                }
                match verdict {
                    Ok(digest) => believed.push((label, digest)),
                    Err(reason) => {
                        ::metrics::counter!(metrics::LABELS_REFUSED, "reason" => reason).increment(1);
                        refused += 1;
                        doubtful.insert((label.uri, label.val));
                    }
                }
            }
            self.take(batch, &believed, &doubtful).await?;
        }
        if refused > 0 && self.refused == 0 {
            tracing::warn!(refused, labeler = self.labeler.did, "labels are not believed; what was known of them stands");
        }
        self.refused = refused;
        Ok(())
    }

    /// Whether a label is the labeler's. A wrong signature may mean a new key: its DID is looked up again, once a poll.
    async fn verify(&mut self, label: &Label, looked_up: &mut bool) -> Result<Result<Digest, &'static str>, PollError> {
        let key = self.key().await?;
        let mut verdict = self.check(label, &key);
        if verdict == Err(LabelError::BadSignature) && !*looked_up {
            *looked_up = true;
            self.key = None;
            let key = match self.key().await {
                Ok(key) => key,
                // The old key is better than none: it was right a moment ago.
                Err(error) => {
                    self.key = Some((key, self.clock.now()));
                    return Err(error);
                }
            };
            verdict = self.check(label, &key);
        }
        Ok(verdict.map_err(|error| match error {
            LabelError::OtherIssuer(_) => "issuer",
            LabelError::BadSignature => "signature",
            LabelError::Unsigned => "unsigned",
            LabelError::Version(_) => "version",
            LabelError::Malformed(_) => "malformed",
        }))
    }

    /// A signature that was verified before need not be again.
    fn check(&mut self, label: &Label, key: &VerifyingKey) -> Result<Digest, LabelError> {
        let digest = self.digester.digest(label, &self.did, key);
        if !self.known.get(&label.uri).is_some_and(|known| known.verified.has(&digest)) {
            ::metrics::counter!(metrics::LABELS_VERIFIED).increment(1);
            label.verify(&self.did, key)?;
        }
        Ok(digest)
    }

    async fn key(&mut self) -> Result<VerifyingKey, PollError> {
        let now = self.clock.now();
        let cached = self.key.clone();
        if let Some((key, since)) = &cached
            && now.duration_since(*since).is_ok_and(|age| age < KEY_FRESH)
        {
            return Ok(key.clone());
        }
        match (self.look_up().await, cached) {
            (Ok(key), _) => {
                self.key = Some((key.clone(), now));
                Ok(key)
            }
            // The directory is away: not the labeler's fault, and the key is most likely the same.
            (Err(PollError::Lookup(error)), Some((key, _))) => {
                tracing::debug!(%error, "the labeler's DID cannot be looked up; its last known key serves");
                Ok(key)
            }
            (Err(error), _) => Err(error),
        }
    }

    async fn look_up(&self) -> Result<VerifyingKey, PollError> {
        let url = self.document_url().ok_or_else(|| PollError::Method(self.labeler.did.clone()))?;
        let octets = self.fetch.get(&url, DOCUMENT_BYTES_MAX).await.map_err(PollError::Lookup)?;
        let document = Document::parse(&octets, &self.did).map_err(PollError::Document)?;
        document.label_key().map_err(PollError::Document)
    }

    /// A did:web is its host's word. A labeler that is configured by a loopback address runs on this machine, which nobody
    /// else can answer for: it is asked for its document itself, so that a test or a first installation needs no public name.
    fn document_url(&self) -> Option<String> {
        if self.did.starts_with("did:plc:") {
            return Some(format!("{}/{}", self.plc_url, self.did.as_str()));
        }
        let base = self.labeler.url.trim_end_matches('/');
        if self.did.starts_with("did:web:") && base.starts_with("http://") {
            return Some(format!("{base}/.well-known/did.json"));
        }
        web_document_url(&self.did)
    }

    /// The labeler has answered about `batch` in full.
    async fn take(
        &mut self,
        batch: &[String],
        believed: &[(Label, Digest)],
        doubtful: &BTreeSet<(String, String)>,
    ) -> Result<(), PollError> {
        let now = self.clock.now();
        // Those that are believed are all of one source, or they were not.
        let (newest, source) = (newest(believed.iter().map(|(label, _)| label)), self.did.as_str());
        let mut verified: BTreeMap<&str, Vec<Digest>> = BTreeMap::new();
        for (label, digest) in believed {
            verified.entry(&label.uri).or_default().push(*digest);
        }
        let mut rows = Vec::new();
        for did in batch {
            let before = self.known.get(did).cloned().unwrap_or_default();
            let of_did = newest.range((source, did.as_str(), "")..).take_while(|((_, uri, _), _)| uri == did);
            let mut labels: BTreeMap<_, _> = of_did
                .map(|(_, label)| label)
                .filter(|label| label.in_force(now))
                .map(|label| (label.val.clone(), label.exp.as_ref().map(instant)))
                .collect();
            for (val, exp) in &before.labels {
                let spoken_of = newest.contains_key(&(source, did.as_str(), val.as_str()));
                if !spoken_of && doubtful.contains(&(did.clone(), val.clone())) {
                    labels.insert(val.clone(), *exp);
                }
            }
            let verified = Verified::of(verified.remove(did.as_str()).unwrap_or_default());
            let after = Known { asked: Some(now), labels, verified };
            let changed = (&after.labels, &after.verified) != (&before.labels, &before.verified);
            if changed || self.is_old(before.asked, now) {
                let row = serde_json::to_vec(&after).map_err(|error| PollError::Desk(error.to_string()))?;
                rows.push((did.clone().into_bytes(), Some(row)));
            }
            self.known.insert(did.clone(), after);
        }
        if rows.is_empty() { Ok(()) } else { self.desk.save(rows).await.map_err(PollError::Desk) }
    }

    /// The time of the last answer is kept on disk too, but only as exactly as `stale_after` needs: not a write a poll.
    fn is_old(&self, asked: Option<SystemTime>, now: SystemTime) -> bool {
        let age = asked.and_then(|asked| now.duration_since(asked).ok());
        age.is_none_or(|age| age > self.labeler.stale_after / 8)
    }

    /// Those who are no longer members, as rows to remove.
    fn forget_others(&mut self, members: &[String]) -> Vec<(Vec<u8>, Option<Vec<u8>>)> {
        let gone = self.known.extract_if(.., |did, _| members.binary_search(did).is_err());
        gone.map(|(did, _)| (did.into_bytes(), None)).collect()
    }

    fn publish(&self) {
        self.desk.publish(Arc::new(standing_of(&self.known)));
    }

    /// Tells each change between well and unwell once.
    fn report(&self, outcome: Result<(), PollError>, only_new: bool) {
        let before = self.state.load_full();
        let mut state = PollState::clone(&before);
        match outcome {
            Ok(()) => {
                if before.trouble.is_some() {
                    tracing::info!(labeler = self.labeler.did, "the labeler answers again");
                }
                state.trouble = None;
                if !only_new {
                    let now = self.clock.now();
                    let unix = now.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
                    ::metrics::gauge!(metrics::LABELS_POLLED_AT).set(unix.as_secs_f64());
                    state.polled_at = Some(now);
                }
            }
            Err(error) => {
                ::metrics::counter!(metrics::LABEL_POLLS_FAILED).increment(1);
                if before.trouble.is_none() {
                    tracing::warn!(%error, labeler = self.labeler.did, url = self.labeler.url, "last known labels serve");
                }
                state.trouble = Some(error.to_string());
            }
        }
        self.state.store(Arc::new(state));
    }
}

/// How queryLabels is asked, without the rest of the poll: the next batch is under way while this one is looked at.
#[derive(Clone)]
struct Asking {
    base: String,
    source: String,
    fetch: Fetch,
}

impl Asking {
    fn new(labeler: &Labeler, fetch: Fetch) -> Self {
        let base = format!("{}/xrpc/com.atproto.label.queryLabels", labeler.url.trim_end_matches('/'));
        Asking { base, source: escape(&labeler.did), fetch }
    }

    async fn query(self, batch: &[String]) -> (&[String], Result<Vec<Label>, PollError>) {
        let labels = self.pages(batch).await;
        (batch, labels)
    }

    /// All labels of a batch, as they came.
    async fn pages(&self, batch: &[String]) -> Result<Vec<Label>, PollError> {
        let patterns: Vec<_> = batch.iter().map(|did| pattern(did)).collect();
        let query = format!("{}?{}&sources={}&limit={PAGE}", self.base, patterns.join("&"), self.source);
        let (mut labels, mut cursor) = (Vec::new(), None::<String>);
        for _ in 0..PAGES_MAX {
            let url = cursor.as_ref().map_or_else(|| query.clone(), |cursor| format!("{query}&cursor={}", escape(cursor)));
            let page = self.fetch.get(&url, PAGE_BYTES_MAX).await.map_err(PollError::Labeler)?;
            let page = read_query_labels(&page).map_err(PollError::Answer)?;
            if !page.refused.is_empty() {
                ::metrics::counter!(metrics::LABELS_REFUSED, "reason" => "malformed").increment(page.refused.len() as u64);
            }
            let empty = page.labels.is_empty() && page.refused.is_empty();
            labels.extend(page.labels);
            // Ozone leaves the cursor out at the end; skyware repeats the last one, "0" when it has nothing.
            if empty || page.cursor.is_none() || page.cursor == cursor {
                return Ok(labels);
            }
            cursor = page.cursor;
        }
        Err(PollError::Endless)
    }
}

fn pattern(did: &str) -> String {
    format!("uriPatterns={}", escape(did))
}

/// Members in the order of their names, as many at a time as one request can ask about; at least one.
fn batches(mut members: &[String]) -> Vec<&[String]> {
    let mut batches = Vec::new();
    while !members.is_empty() {
        let mut octets = 0;
        let fits = members.iter().take(BATCH).take_while(|did| {
            octets += pattern(did).len() + 1;
            octets <= PATTERNS_BYTES_MAX
        });
        let (batch, rest) = members.split_at(fits.count().max(1));
        batches.push(batch);
        members = rest;
    }
    batches
}

/// What the rows of the table `labels` say; for the time before the first poll.
pub(super) fn kept_standing(rows: Vec<Row>) -> Standing {
    standing_of(&read_rows(rows))
}

/// A row that cannot be read is a member not asked about yet.
fn read_rows(rows: Vec<Row>) -> BTreeMap<String, Known> {
    let read = |(did, row): Row| Some((String::from_utf8(did).ok()?, serde_json::from_slice(&row).ok()?));
    rows.into_iter().filter_map(read).collect()
}

fn standing_of(known: &BTreeMap<String, Known>) -> Standing {
    let mut standing = Standing::default();
    for (did, known) in known {
        let Some(asked) = known.asked else { continue };
        let label =
            |(val, exp): (&String, &Option<SystemTime>)| standing::Label { did: did.clone(), val: val.clone(), exp: *exp };
        standing.handle_answer(asked, [did.clone()], known.labels.iter().map(label));
    }
    standing
}

#[cfg(test)]
#[path = "labels_tests.rs"]
mod tests;
