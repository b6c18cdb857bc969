//! One mailbox provider's memory: its script, its greylist, and its own account of what it was given.

use std::collections::{HashMap, VecDeque};
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::Notify;

use super::post::Report;
use super::script::{Act, Pace, Script, Stage};
use crate::ledger::Ledger;

/// Violations kept word by word; further ones are only counted.
const VIOLATIONS_KEPT: usize = 100;
/// Reports that wait to be sent; what comes beyond is not reported.
const REPORTS_MAX: usize = 10_000;

/// How much of each message is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Keep {
    /// Envelope and octets, and every line is checked.
    Everything,
    /// Counts only: for load.
    Counts,
}

/// A message that was accepted.
#[derive(Clone, Debug)]
pub struct Message {
    /// When, since the provider's beginning.
    pub at: Duration,
    /// Who delivered it.
    pub peer: SocketAddr,
    /// The name in EHLO.
    pub ehlo: String,
    /// Whether the session was under TLS.
    pub tls: bool,
    /// Reverse-path without angle brackets; empty for the null one.
    pub reverse_path: String,
    /// Accepted forward-paths without angle brackets.
    pub recipients: Vec<String>,
    /// Parameters of MAIL, and of the RCPT of each recipient, as they came.
    pub parameters: (String, Vec<String>),
    /// The message as it was meant: dots unstuffed, no end of data.
    pub octets: Bytes,
}

/// Counts since the provider's beginning.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Connections accepted.
    pub connections: u64,
    /// TLS handshakes completed.
    pub tls_sessions: u64,
    /// Messages answered 250 (or whose reply a rule made us lose).
    pub messages: u64,
    /// Recipients of those messages.
    pub recipients: u64,
    /// Octets of those messages.
    pub octets: u64,
    /// Replies 4xx and 5xx to MAIL, RCPT, DATA and end of data.
    pub refusals: u64,
    /// Breaches of the standards by the peers.
    pub violations: u64,
    /// Transactions begun and not ended at this moment.
    pub open: u64,
    /// Sessions that have not ended at this moment.
    pub sessions: u64,
}

#[derive(Default)]
struct Atomics {
    connections: AtomicU64,
    tls_sessions: AtomicU64,
    messages: AtomicU64,
    recipients: AtomicU64,
    octets: AtomicU64,
    refusals: AtomicU64,
    violations: AtomicU64,
    open: AtomicU64,
    sessions: AtomicU64,
}

#[derive(Default)]
struct Memory {
    messages: Vec<Message>,
    sample: Option<Message>,
    violations: Vec<String>,
    /// (address, reverse-path, recipient) → first seen.
    greylist: HashMap<(IpAddr, String, String), Duration>,
    /// When each address began its last transactions.
    paced: HashMap<IpAddr, VecDeque<Duration>>,
    /// What the reverse-paths are still to be told, the first first.
    reports: VecDeque<Report>,
    /// Recipients accepted from each address.
    accepted: HashMap<IpAddr, u64>,
    /// (rule, what it counts) → how often it applied.
    applied: HashMap<(usize, String), u32>,
}

/// A mailbox provider; share it by `Arc` between its listeners and those who look at it.
pub struct Provider {
    keep: Keep,
    ledgers: Mutex<Vec<Arc<Ledger>>>,
    script: Mutex<Arc<Script>>,
    counts: Atomics,
    memory: Mutex<Memory>,
    news: Notify,
}

impl Provider {
    /// A provider that keeps everything.
    pub fn new(script: Script) -> Arc<Self> {
        Self::with(script, Keep::Everything, None)
    }

    /// A provider for load: counts only, arrivals go to `ledger`.
    pub fn for_load(script: Script, ledger: Option<Arc<Ledger>>) -> Arc<Self> {
        Self::with(script, Keep::Counts, ledger)
    }

    fn with(script: Script, keep: Keep, ledger: Option<Arc<Ledger>>) -> Arc<Self> {
        Arc::new(Self {
            keep,
            ledgers: Mutex::new(ledger.into_iter().collect()),
            script: Mutex::new(Arc::new(script)),
            counts: Atomics::default(),
            memory: Mutex::default(),
            news: Notify::new(),
        })
    }

    /// Changes the behaviour; sessions follow at their next command outside a transaction.
    pub fn set_script(&self, script: Script) {
        *self.script.lock().unwrap_or_else(PoisonError::into_inner) = Arc::new(script);
        self.memory().applied.clear();
    }

    /// From now on arrivals go to another ledger, and the sample is taken anew.
    pub fn set_ledger(&self, ledger: Arc<Ledger>) {
        self.set_ledgers(vec![ledger]);
    }

    /// From now on arrivals go to these, each taking the numbers that are its own, and the sample is taken anew.
    pub fn set_ledgers(&self, ledgers: Vec<Arc<Ledger>>) {
        *self.ledgers.lock().unwrap_or_else(PoisonError::into_inner) = ledgers;
        self.memory().sample = None;
    }

    /// The first message since the beginning or the last [`Provider::set_ledger`], whatever is kept otherwise.
    pub fn sample(&self) -> Option<Message> {
        self.memory().sample.clone()
    }

    /// The behaviour now.
    pub fn script(&self) -> Arc<Script> {
        self.script.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Every message accepted so far, in order. Empty with [`Keep::Counts`].
    pub fn messages(&self) -> Vec<Message> {
        self.memory().messages.clone()
    }

    /// Forgets the messages kept so far and returns them.
    pub fn take_messages(&self) -> Vec<Message> {
        std::mem::take(&mut self.memory().messages)
    }

    /// What peers did against the standards, the first hundred.
    pub fn violations(&self) -> Vec<String> {
        self.memory().violations.clone()
    }

    /// Recipients accepted from an address so far.
    pub fn accepted_from(&self, address: IpAddr) -> u64 {
        self.memory().accepted.get(&address).copied().unwrap_or(0)
    }

    /// Counts so far.
    pub fn counts(&self) -> Counts {
        let at = |count: &AtomicU64| count.load(Relaxed);
        Counts {
            connections: at(&self.counts.connections),
            tls_sessions: at(&self.counts.tls_sessions),
            messages: at(&self.counts.messages),
            recipients: at(&self.counts.recipients),
            octets: at(&self.counts.octets),
            refusals: at(&self.counts.refusals),
            violations: at(&self.counts.violations),
            open: at(&self.counts.open),
            sessions: at(&self.counts.sessions),
        }
    }

    /// Takes out what is due to be told by now, since the provider's beginning.
    pub fn take_reports(&self, now: Duration) -> Vec<Report> {
        let mut memory = self.memory();
        let due = memory.reports.iter().take_while(|report| report.due <= now).count();
        memory.reports.drain(..due).collect()
    }

    /// Waits until `messages` have been accepted since the beginning; false when that took longer than `within`.
    pub async fn wait_for(&self, messages: u64, within: Duration) -> bool {
        tokio::time::timeout(within, async {
            loop {
                let news = self.news.notified();
                tokio::pin!(news);
                // Enabled before the look: a message between the two must not be missed.
                news.as_mut().enable();
                if self.counts().messages >= messages {
                    return;
                }
                news.await;
            }
        })
        .await
        .is_ok()
    }

    pub(super) fn keep(&self) -> Keep {
        self.keep
    }

    pub(super) fn connected(&self) {
        self.counts.sessions.fetch_add(1, Relaxed);
        self.counts.connections.fetch_add(1, Relaxed);
    }

    pub(super) fn disconnected(&self) {
        self.counts.sessions.fetch_sub(1, Relaxed);
    }

    pub(super) fn encrypted(&self) {
        self.counts.tls_sessions.fetch_add(1, Relaxed);
    }

    pub(super) fn opened(&self) {
        self.counts.open.fetch_add(1, Relaxed);
    }

    pub(super) fn ended(&self) {
        self.counts.open.fetch_sub(1, Relaxed);
    }

    pub(super) fn refused(&self) {
        self.counts.refusals.fetch_add(1, Relaxed);
    }

    pub(super) fn violated(&self, what: String) {
        self.counts.violations.fetch_add(1, Relaxed);
        let mut memory = self.memory();
        if memory.violations.len() < VIOLATIONS_KEPT {
            memory.violations.push(what);
        }
    }

    /// Writes an accepted message down, before its 250 leaves.
    pub(super) fn accepted(&self, message: Message, octets: usize) {
        let ledgers = self.ledgers.lock().unwrap_or_else(PoisonError::into_inner);
        ledgers.iter().for_each(|ledger| ledger.handle_arrival(&message.octets));
        drop(ledgers);
        self.counts.recipients.fetch_add(message.recipients.len() as u64, Relaxed);
        self.counts.octets.fetch_add(octets as u64, Relaxed);
        let script = self.script();
        let mut memory = self.memory();
        if let Some(after) = script.reports_after
            && !message.reverse_path.is_empty()
            && memory.reports.len() < REPORTS_MAX
        {
            memory.reports.push_back(Report::of(&message, &script.hostname, after));
        }
        *memory.accepted.entry(message.peer.ip()).or_default() += message.recipients.len() as u64;
        if memory.sample.is_none() {
            memory.sample = Some(message.clone());
        }
        if self.keep == Keep::Everything {
            memory.messages.push(message);
        }
        drop(memory);
        self.counts.messages.fetch_add(1, Relaxed);
        self.news.notify_waiters();
    }

    /// What the script's rules say at this stage.
    pub(super) fn act(
        &self,
        script: &Script,
        stage: Stage,
        peer: IpAddr,
        reverse_path: &str,
        recipients: &[String],
    ) -> Option<Act> {
        if script.rules.is_empty() {
            return None;
        }
        for (index, rule) in script.rules.iter().enumerate() {
            if rule.stage != stage || rule.from.is_some_and(|from| from != peer) || !rule.concerns(recipients) {
                continue;
            }
            if let Some(first) = rule.first {
                let key = if rule.of_each { format!("{reverse_path} {}", recipients.join(" ")) } else { String::new() };
                let mut memory = self.memory();
                let applied = memory.applied.entry((index, key)).or_default();
                if *applied >= first {
                    continue;
                }
                *applied += 1;
            }
            return Some(rule.act.clone());
        }
        None
    }

    /// Whether one more message from an address is within the pace; then it counts.
    pub(super) fn keeps_pace(&self, now: Duration, pace: &Pace, peer: IpAddr) -> bool {
        let mut memory = self.memory();
        let begun = memory.paced.entry(peer).or_default();
        while begun.front().is_some_and(|at| now.saturating_sub(*at) >= pace.within) {
            begun.pop_front();
        }
        let within = begun.len() < pace.messages as usize;
        if within {
            begun.push_back(now);
        }
        within
    }

    /// Whether the greylist lets this attempt pass.
    pub(super) fn greylist(&self, now: Duration, wait: Duration, peer: IpAddr, from: &str, to: &str) -> bool {
        let mut memory = self.memory();
        let first_seen = *memory.greylist.entry((peer, from.to_owned(), to.to_owned())).or_insert(now);
        now.saturating_sub(first_seen) >= wait
    }

    fn memory(&self) -> MutexGuard<'_, Memory> {
        self.memory.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
