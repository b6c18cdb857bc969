//! Upkeep of the labels: what will run out is issued again, what was superseded long ago is forgotten. And of memory: the store's
//! map is let go of when much of it was read.

use std::sync::Arc;
use std::time::Duration;

use atproto::key::SigningKey;
use tokio::sync::watch;

use crate::outside;
use crate::store::Store;

/// Far shorter than the shortest time that a label may hold.
const EVERY: Duration = Duration::from_secs(60);

/// Octets of files in our memory that nobody minds: the program itself, and what is read all the time.
const MAPPED_BYTES_MAX: u64 = 96 << 20;
/// The kernel maps sixteen pages around each that is read, so a round over everybody maps some hundred megabytes a second.
const MAPPED_EVERY: Duration = Duration::from_millis(250);

/// Keeps the map of the store from counting as all of our memory, until told to stop.
pub(crate) async fn let_go(store: Arc<Store>, mut stop: watch::Receiver<bool>) {
    loop {
        tokio::select! {
            _ = stop.changed() => return,
            () = tokio::time::sleep(MAPPED_EVERY) => {}
        }
        if let Err(error) = store.let_go(MAPPED_BYTES_MAX) {
            tracing::warn!(%error, "the pages of the store cannot be let go of: they count as our memory");
            let _ = stop.changed().await;
            return;
        }
    }
}

/// Runs until told to stop.
pub(crate) async fn run(store: Arc<Store>, key: SigningKey, mut stop: watch::Receiver<bool>) {
    loop {
        let (worker, key) = (store.clone(), key.clone());
        let done = tokio::task::spawn_blocking(move || worker.upkeep(outside::now(), &key)).await;
        let more = match done.unwrap_or_else(|panic| std::panic::resume_unwind(panic.into_panic())) {
            Ok(done) => {
                if done.renewed + done.forgotten > 0 {
                    tracing::info!(renewed = done.renewed, forgotten = done.forgotten, "upkeep of the labels");
                }
                done.more
            }
            Err(error) => {
                tracing::error!(%error, "labels cannot be issued again; they run out if that does not change");
                false
            }
        };
        // Between two parts, others who write have their turn.
        let pause = if more { Duration::from_millis(10) } else { EVERY };
        tokio::select! {
            _ = stop.changed() => return,
            () = tokio::time::sleep(pause) => {}
        }
    }
}
