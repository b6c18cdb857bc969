//! Attestations from before our time: a relay lists who has any (`com.atproto.sync.listReposByCollection`).
//!
//! The list is a hint, as the streams are: each account is written down as a repository to look into, and waits with the newcomers, whose
//! places nobody else's are taken for. A page and the place after it are one transaction, so that a crash goes on where it was. It is
//! read once, and again when a stream says that we have missed something.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use atproto::Did;
use atproto::lexicon::ATTESTATION;
use serde::Deserialize;
use tokio::sync::{Notify, watch};
use url::Url;

use crate::fetch::{Fetcher, From};
use crate::outside;
use crate::store::{Backfill, Store, StoreError};

/// What the method allows.
const PAGE_REPOS: usize = 2000;
const PAGE_BYTES_MAX: usize = 2 << 20;
const CURSOR_BYTES_MAX: usize = 2 << 10;
/// Twenty million accounts: a list that does not end before goes round in circles.
const PAGES_MAX: usize = 10_000;
const PAUSE_FIRST: Duration = Duration::from_secs(1);
const PAUSE_LAST: Duration = Duration::from_secs(600);
/// Until somebody who gives no such list is asked again.
const PAUSE_REFUSED: Duration = Duration::from_secs(6 * 3600);

/// Reads the list of one relay.
pub(crate) struct Backfilling {
    /// Base URL of the relay.
    pub(crate) relay: Url,
    pub(crate) fetcher: Fetcher,
    pub(crate) store: Arc<Store>,
    pub(crate) bell: Arc<Notify>,
    /// Rung when a stream has missed something.
    pub(crate) missed: Arc<Notify>,
}

#[derive(Debug, thiserror::Error)]
enum Stopped {
    /// It will say the same in a minute.
    #[error("{0}")]
    Refused(String),
    #[error("{0}")]
    Trouble(String),
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// One page of the list.
#[derive(Debug, PartialEq, Eq)]
struct Page {
    dids: Vec<Did>,
    cursor: Option<String>,
}

impl Backfilling {
    pub(crate) async fn run(self, mut stop: watch::Receiver<bool>) {
        let mut pause = PAUSE_FIRST;
        loop {
            let ended = tokio::select! {
                _ = stop.changed() => return,
                ended = self.fill() => ended,
            };
            let wait = match ended {
                Ok(()) => {
                    pause = PAUSE_FIRST;
                    Duration::MAX
                }
                Err(Stopped::Refused(why)) => {
                    tracing::warn!(relay = %self.relay, why, "it does not list who attests; name another in `ingest.backfill`, or those from \
                        before the stream are seen when they next change");
                    PAUSE_REFUSED
                }
                Err(why) => {
                    tracing::warn!(relay = %self.relay, %why, "the list of those who attest broke off; it is taken up again");
                    pause = (pause * 2).min(PAUSE_LAST);
                    pause
                }
            };
            tokio::select! {
                _ = stop.changed() => return,
                () = self.missed.notified() => {
                    if let Err(error) = self.store.set_backfill(self.relay.as_str(), &Backfill::Never) {
                        tracing::error!(%error, "cannot write down that the list is to be read again");
                    }
                }
                () = tokio::time::sleep(wait) => {}
            }
        }
    }

    /// Reads to the end of the list, from where it was.
    async fn fill(&self) -> Result<(), Stopped> {
        let mut at = match self.store.backfill(self.relay.as_str())? {
            Backfill::Done => return Ok(()),
            Backfill::Never => None,
            Backfill::At(cursor) => Some(cursor),
        };
        let mut accounts = 0;
        for _ in 0..PAGES_MAX {
            let page = match self.page(at.as_deref()).await {
                Err(Stopped::Refused(why)) if at.is_some() => {
                    // A place that it does not know any more. From the beginning.
                    self.store.set_backfill(self.relay.as_str(), &Backfill::Never)?;
                    return Err(Stopped::Trouble(why));
                }
                page => page?,
            };
            accounts += page.dids.len();
            at = page.cursor.filter(|next| Some(next) != at.as_ref());
            let place = at.clone().map_or(Backfill::Done, Backfill::At);
            self.note(page.dids, place, outside::now()).await?;
            if at.is_none() {
                tracing::info!(relay = %self.relay, accounts, "the list of those who attest was read");
                return Ok(());
            }
        }
        self.store.set_backfill(self.relay.as_str(), &Backfill::Done)?;
        Err(Stopped::Refused(format!("its list has more than {PAGES_MAX} pages")))
    }

    async fn note(&self, dids: Vec<Did>, place: Backfill, now: SystemTime) -> Result<(), Stopped> {
        let (store, relay) = (self.store.clone(), self.relay.to_string());
        let noted = tokio::task::spawn_blocking(move || store.touch_listed(dids, &relay, &place, now)).await;
        noted.unwrap_or_else(|panic| std::panic::resume_unwind(panic.into_panic()))?;
        self.bell.notify_one();
        Ok(())
    }

    async fn page(&self, cursor: Option<&str>) -> Result<Page, Stopped> {
        let mut url = self.relay.clone();
        url.set_path("/xrpc/com.atproto.sync.listReposByCollection");
        url.query_pairs_mut().append_pair("collection", ATTESTATION).append_pair("limit", &PAGE_REPOS.to_string());
        if let Some(cursor) = cursor {
            url.query_pairs_mut().append_pair("cursor", cursor);
        }
        let answer = self.fetcher.get(&url, From::Configuration, PAGE_BYTES_MAX).await.map_err(Stopped::Trouble)?;
        match answer.status {
            200 => read(&answer.body),
            400 | 401 | 403 | 404 | 405 | 501 => Err(Stopped::Refused(format!("it answers {}", answer.status))),
            status => Err(Stopped::Trouble(format!("it answers {status}"))),
        }
    }
}

fn read(body: &[u8]) -> Result<Page, Stopped> {
    #[derive(Deserialize)]
    struct Listed {
        repos: Vec<Repo>,
        cursor: Option<String>,
    }
    #[derive(Deserialize)]
    struct Repo {
        did: String,
    }
    let Listed { repos, cursor } =
        serde_json::from_slice(body).map_err(|error| Stopped::Trouble(format!("what it answers is no list: {error}")))?;
    if cursor.as_ref().is_some_and(|cursor| cursor.len() > CURSOR_BYTES_MAX) {
        return Err(Stopped::Refused(format!("its cursor is longer than {CURSOR_BYTES_MAX} octets")));
    }
    // One that is no DID hides none of the others.
    let dids = repos.iter().filter_map(|repo| repo.did.parse().ok()).collect();
    Ok(Page { dids, cursor: cursor.filter(|cursor| !cursor.is_empty()) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_is_accounts_and_where_to_go_on() {
        let page =
            read(br#"{"cursor":"7","repos":[{"did":"did:plc:abc"},{"did":"rubbish"},{"did":"did:web:b.example"}]}"#).unwrap();
        assert_eq!(page.dids, ["did:plc:abc", "did:web:b.example"].map(|did| did.parse::<Did>().unwrap()));
        assert_eq!(page.cursor.as_deref(), Some("7"));
        assert_eq!(read(br#"{"repos":[],"cursor":""}"#).unwrap(), Page { dids: Vec::new(), cursor: None });
        assert!(matches!(read(b"{}"), Err(Stopped::Trouble(_))));
        let long = format!(r#"{{"repos":[],"cursor":"{}"}}"#, "x".repeat(CURSOR_BYTES_MAX + 1));
        assert!(matches!(read(long.as_bytes()), Err(Stopped::Refused(_))));
    }
}
