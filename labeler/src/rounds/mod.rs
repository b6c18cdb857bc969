//! The rounds: whatever is due is looked at, so many at a time, and settled, as many at once as have ended meanwhile.
//!
//! What waits lies on disk; in memory is only who is being looked at, and who is ahead of their turn (`fair`).

mod fair;
#[cfg(test)]
mod tests;

use std::collections::{HashMap, HashSet};
use std::future::Future;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use atproto::key::SigningKey;
use tokio::sync::{Notify, watch};
use tokio::task::JoinSet;

pub(crate) use fair::{Fair, Turn};

use crate::store::{Found, Lane, Patience, Store, StoreError, Task};

/// After the store has refused something.
const STORE_RETRY: Duration = Duration::from_secs(5);
/// Attestations in front of a lane that may stand there and wait for their host while others pass them. Past it they are given a
/// time.
const STEPPED_OVER_MAX: usize = 32;
/// How often those are forgotten who are within their limits.
const TIDY_EVERY: Duration = Duration::from_secs(60);

/// What a look gave.
#[derive(Debug)]
pub(crate) struct Look {
    /// The host of the account, where it became known.
    pub(crate) host: Option<String>,
    /// What was found, or when to come again.
    pub(crate) outcome: Result<Found, SystemTime>,
    /// Whether the host did its part, where it was asked.
    pub(crate) host_works: Option<bool>,
}

/// Looks at one attestation. `may` is asked when its host is known.
pub(crate) trait Looker: Clone + Send + 'static {
    fn look(&self, task: &Task, may: impl Fn(&str) -> Turn + Send + Sync) -> impl Future<Output = Look> + Send;
}

/// What the rounds need.
pub(crate) struct Rounds<L> {
    pub(crate) store: Arc<Store>,
    pub(crate) looker: L,
    pub(crate) key: SigningKey,
    pub(crate) patience: Patience,
    pub(crate) fair: Fair,
    /// Rung when something new is due.
    pub(crate) bell: Arc<Notify>,
    pub(crate) clock: fn() -> SystemTime,
}

/// The rounds at work.
struct Round<L> {
    store: Arc<Store>,
    looker: L,
    key: SigningKey,
    patience: Patience,
    clock: fn() -> SystemTime,
    fair: Arc<Mutex<Fair>>,
    looks: JoinSet<(Task, Look)>,
    busy: HashSet<u64>,
    running: HashMap<tokio::task::Id, u64>,
    /// Newcomers are taken from both ends of their lane in turn, so that one who comes after a flood is not behind it.
    newest: bool,
}

impl<L: Looker> Rounds<L> {
    pub(crate) async fn run(self, mut stop: watch::Receiver<bool>) {
        let Self { store, looker, key, patience, fair, bell, clock } = self;
        let (looks, busy, running) = Default::default();
        let fair = Arc::new(Mutex::new(fair));
        let mut round = Round { store, looker, key, patience, clock, fair, looks, busy, running, newest: false };
        let mut tidied = clock();
        loop {
            if clock().duration_since(tidied).is_ok_and(|since| since > TIDY_EVERY) {
                tidied = clock();
                round.fair().tidy(tidied);
            }
            let wait = match round.start_due().await {
                Ok(wait) => wait,
                Err(error) => {
                    tracing::error!(%error, "cannot read what is due");
                    STORE_RETRY
                }
            };
            let ended = tokio::select! {
                _ = stop.changed() => return,
                () = bell.notified() => continue,
                () = tokio::time::sleep(wait) => continue,
                Some(ended) = round.looks.join_next_with_id() => ended,
            };
            if let Err(error) = round.settle(ended).await {
                tracing::error!(%error, "findings could not be written down; the attestations are looked at again");
                tokio::time::sleep(STORE_RETRY).await;
            }
        }
    }
}

impl<L: Looker> Round<L> {
    fn fair(&self) -> MutexGuard<'_, Fair> {
        self.fair.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Starts what is due and has its turn, and says how long nothing more will.
    async fn start_due(&mut self) -> Result<Duration, StoreError> {
        let mut wait = Duration::from_secs(3600);
        for lane in Lane::ALL {
            let room = self.fair().room(lane);
            if room == 0 {
                continue;
            }
            let now = (self.clock)();
            self.newest = !self.newest;
            let newest = self.newest && lane == Lane::Fresh;
            let mut later = Vec::new();
            let mut soon = Vec::new();
            let mut begun = 0;
            for task in self.store.due(lane, now, &self.busy, room + STEPPED_OVER_MAX, newest)? {
                if begun == room {
                    break;
                }
                let turn = self.fair().begin(now, task.id, lane, task.did.as_str(), task.host.as_deref());
                match turn {
                    Turn::Now => {
                        begun += 1;
                        self.start(task);
                    }
                    Turn::Soon(until) => soon.push((task, until)),
                    Turn::Later(until) => later.push((task, until)),
                }
            }
            // A few may stand in front until somebody ends; many would hide those behind them.
            let waits = !soon.is_empty();
            if soon.len() >= STEPPED_OVER_MAX {
                later.append(&mut soon);
            }
            if !later.is_empty() {
                let store = self.store.clone();
                let written = tokio::task::spawn_blocking(move || store.postpone(&later)).await;
                written.unwrap_or_else(|panic| std::panic::resume_unwind(panic.into_panic()))?;
                wait = Duration::ZERO;
            }
            if begun < room && !waits {
                let next = self.store.next_due(lane, &self.busy)?;
                let now = (self.clock)();
                wait = next.map_or(wait, |next| next.duration_since(now).unwrap_or(Duration::ZERO).min(wait));
            }
        }
        Ok(wait)
    }

    fn start(&mut self, task: Task) {
        let (id, looker, fair, clock) = (task.id, self.looker.clone(), self.fair.clone(), self.clock);
        self.busy.insert(id);
        let handle = self.looks.spawn(async move {
            let may = |host: &str| fair.lock().unwrap_or_else(PoisonError::into_inner).at_host(clock(), id, host);
            let look = looker.look(&task, may).await;
            (task, look)
        });
        self.running.insert(handle.id(), id);
    }

    /// Writes down what this look and those that ended meanwhile have given.
    async fn settle(&mut self, first: Result<(tokio::task::Id, (Task, Look)), tokio::task::JoinError>) -> Result<(), StoreError> {
        let now = (self.clock)();
        let (mut settled, mut later) = (Vec::new(), Vec::new());
        let mut ended = Some(first);
        while let Some(one) = ended {
            match one {
                Ok((handle, (mut task, look))) => {
                    self.running.remove(&handle);
                    self.busy.remove(&task.id);
                    self.fair().end(now, task.id, look.host_works);
                    task.host = look.host.or(task.host);
                    match look.outcome {
                        Ok(found) => settled.push((task, found)),
                        Err(until) => later.push((task, until)),
                    }
                }
                Err(error) => {
                    // Ours is the mistake: it is looked at again later, and the others go on.
                    tracing::error!(%error, "a look ended by itself");
                    if let Some(id) = self.running.remove(&error.id()) {
                        self.busy.remove(&id);
                        self.fair().end(now, id, None);
                    }
                    tokio::time::sleep(STORE_RETRY).await;
                }
            }
            ended = self.looks.try_join_next_with_id();
        }
        settled.iter().for_each(said);
        let (store, patience, key) = (self.store.clone(), self.patience, self.key.clone());
        let written = tokio::task::spawn_blocking(move || {
            if !later.is_empty() {
                store.postpone(&later)?;
            }
            store.settle_all(settled.iter().map(|(task, found)| (task, found)), patience, now, &key)
        });
        for label in written.await.unwrap_or_else(|panic| std::panic::resume_unwind(panic.into_panic()))? {
            tracing::info!(did = label.uri, val = label.val, neg = label.negates(), cts = label.cts.as_str(), "label issued");
        }
        Ok(())
    }
}

fn said((task, found): &(Task, Found)) {
    let (did, domain) = (task.did.as_str(), task.rkey.as_str());
    match found {
        Found::Absent => tracing::info!(did, domain, "the attestation is gone"),
        Found::Records(domains) => tracing::info!(did, ?domains, "looked for attestations"),
        Found::Judged { judgement, .. } => {
            let reasons = judgement.reasons().join("; ");
            tracing::info!(did, domain, verdict = ?judgement.verdict, reasons, "looked at");
        }
    }
}
