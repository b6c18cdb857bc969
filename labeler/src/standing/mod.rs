//! Private standing: MTAs of the co-op report what became of accounts' mail (`coop.tradewind.reportSending`) and read what is
//! doubted about accounts (`coop.tradewind.getStanding`). What this says to whom is told in `PRIVACY.md`.
//!
//! Who keeps it is behind [`Keeper`]: today the store, and where accounts' own repositories hold private data one day, those.
//!
//! | step | where |
//! |---|---|
//! | who calls, and whether they may | `gate` |
//! | the two methods over HTTP | `xrpc` |
//! | what follows from counts | `judge::sending`, pure |
//! | what is kept | `store::sending` |
//! | rulings that time alone changes | [`run`] |

mod gate;
mod settings;
#[cfg(test)]
mod tests;
mod xrpc;

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use atproto::Did;
use atproto::key::SigningKey;
use atproto::sending::{Report, Reported, Standing as Answer};
use tokio::sync::watch;

use crate::judge::sending::Rule;
use crate::outside;
use crate::store::{Store, StoreError};
pub(crate) use gate::Gate;
pub use settings::{Clean, Doubts, Standing};
pub(crate) use xrpc::{Desk, router};

/// Between two rounds: rulings change by the day.
const ROUND_EVERY: Duration = Duration::from_secs(3600);
/// Between two parts of a round, others who write have their turn.
const PAUSE: Duration = Duration::from_millis(10);

/// Who keeps what MTAs report. May block on a disk; called where that is allowed.
pub(crate) trait Keeper: Send + Sync + 'static {
    /// Takes reports of an MTA that may report. Repeating a call changes nothing.
    fn report(&self, mta: &Did, reports: &[Report], now: SystemTime) -> Result<Reported, StoreError>;

    /// What is doubted about each of these accounts, in their order.
    fn standings(&self, dids: &[Did], now: SystemTime) -> Result<Vec<Answer>, StoreError>;
}

/// The labeler's own store keeps it.
pub(crate) struct StoreKeeper {
    pub(crate) store: Arc<Store>,
    pub(crate) rule: Rule,
    pub(crate) key: SigningKey,
}

impl Keeper for StoreKeeper {
    fn report(&self, mta: &Did, reports: &[Report], now: SystemTime) -> Result<Reported, StoreError> {
        self.store.report(mta, reports, &self.rule, now, &self.key).map(|(reported, _)| reported)
    }

    fn standings(&self, dids: &[Did], now: SystemTime) -> Result<Vec<Answer>, StoreError> {
        let doubts = self.store.doubts(dids, &self.rule, now)?;
        Ok(dids.iter().zip(doubts).map(|(did, doubts)| Answer { did: did.clone(), doubts }).collect())
    }
}

/// Rules about every account again, round after round, until told to stop: reports stop, days grow old, accounts go.
pub(crate) async fn run(store: Arc<Store>, rule: Rule, key: SigningKey, mut stop: watch::Receiver<bool>) {
    let mut after = Vec::new();
    loop {
        let (worker, key, from) = (store.clone(), key.clone(), std::mem::take(&mut after));
        let done = tokio::task::spawn_blocking(move || worker.rule_some(&from, &rule, outside::now(), &key)).await;
        let pause = match done.unwrap_or_else(|panic| std::panic::resume_unwind(panic.into_panic())) {
            Ok(ruled) => {
                if ruled.forgotten > 0 {
                    tracing::info!(accounts = ruled.forgotten, "what was reported of accounts is forgotten");
                }
                ruled.next.map_or(ROUND_EVERY, |next| {
                    after = next;
                    PAUSE
                })
            }
            Err(error) => {
                tracing::error!(%error, "clean-sender is not ruled about");
                ROUND_EVERY
            }
        };
        tokio::select! {
            _ = stop.changed() => return,
            () = tokio::time::sleep(pause) => {}
        }
    }
}
