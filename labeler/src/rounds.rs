//! The rounds: whatever is due is looked at, so many at a time, and settled.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use atproto::key::SigningKey;
use tokio::sync::{Notify, watch};
use tokio::task::JoinSet;

use crate::outside;
use crate::store::{Found, Store, StoreError, Task};
use crate::verify::Verifier;

/// Attestations looked at at the same time. Further ones wait in the store.
const LOOKS_MAX: usize = 64;
/// After the store has refused something.
const STORE_RETRY: Duration = Duration::from_secs(5);

/// What the rounds need.
pub(crate) struct Rounds {
    pub(crate) store: Arc<Store>,
    pub(crate) verifier: Verifier,
    pub(crate) key: SigningKey,
    pub(crate) interval: Duration,
    /// Rung when something new is due.
    pub(crate) bell: Arc<Notify>,
}

impl Rounds {
    pub(crate) async fn run(self, mut stop: watch::Receiver<bool>) {
        let mut looks: JoinSet<(Task, Found)> = JoinSet::new();
        let mut busy: HashSet<u64> = HashSet::new();
        let mut running: HashMap<tokio::task::Id, u64> = HashMap::new();
        loop {
            let wait = match self.start_due(&mut looks, &mut busy, &mut running) {
                Ok(wait) => wait,
                Err(error) => {
                    tracing::error!(%error, "cannot read what is due");
                    STORE_RETRY
                }
            };
            tokio::select! {
                _ = stop.changed() => return,
                () = self.bell.notified() => {}
                () = tokio::time::sleep(wait) => {}
                Some(ended) = looks.join_next_with_id() => match ended {
                    Ok((id, (task, found))) => {
                        running.remove(&id);
                        busy.remove(&task.id);
                        if let Err(error) = self.settle(task, found).await {
                            tracing::error!(%error, "a finding could not be written down; the attestation is looked at again");
                            tokio::time::sleep(STORE_RETRY).await;
                        }
                    }
                    Err(error) => {
                        tracing::error!(%error, "a look ended by itself");
                        if let Some(id) = running.remove(&error.id()) {
                            busy.remove(&id);
                        }
                        tokio::time::sleep(STORE_RETRY).await;
                    }
                },
            }
        }
    }

    /// Starts what is due, and says how long nothing more will be.
    fn start_due(
        &self,
        looks: &mut JoinSet<(Task, Found)>,
        busy: &mut HashSet<u64>,
        running: &mut HashMap<tokio::task::Id, u64>,
    ) -> Result<Duration, StoreError> {
        let now = outside::now();
        for task in self.store.due(now, busy, LOOKS_MAX.saturating_sub(looks.len()))? {
            let (id, verifier) = (task.id, self.verifier.clone());
            busy.insert(id);
            let handle = looks.spawn(async move {
                let found = verifier.look(&task).await;
                (task, found)
            });
            running.insert(handle.id(), id);
        }
        let next = if looks.len() < LOOKS_MAX { self.store.next_due(busy)? } else { None };
        let idle = Duration::from_secs(3600);
        Ok(next.map_or(idle, |next| next.duration_since(now).unwrap_or(Duration::ZERO).min(idle)))
    }

    async fn settle(&self, task: Task, found: Found) -> Result<(), StoreError> {
        let (did, domain) = (task.did.as_str().to_owned(), task.rkey.clone());
        match &found {
            Found::Absent => tracing::info!(did, domain, "the attestation is gone"),
            Found::Judged { judgement, .. } => {
                let reasons = judgement.reasons().join("; ");
                tracing::info!(did, domain, verdict = ?judgement.verdict, reasons, "looked at");
            }
        }
        let (store, interval, key) = (self.store.clone(), self.interval, self.key.clone());
        let settled = tokio::task::spawn_blocking(move || store.settle(&task, &found, interval, outside::now(), &key)).await;
        let issued = settled.unwrap_or_else(|panic| std::panic::resume_unwind(panic.into_panic()))?;
        for label in issued {
            tracing::info!(did, domain, val = label.val, neg = label.negates(), cts = label.cts.as_str(), "label issued");
        }
        Ok(())
    }
}
