//! Who vouches for a message: `coop.tradewind.verifyMessage` out of the store, and [`verify_message`] for whoever has no store,
//! such as the command `tradewind verify`.
//!
//! What a message proves is decided in the crate `vouch`; here DNS is asked for it, and the labeler or the network for the
//! account. Nothing of a message is kept, and nothing of it goes into a log.

mod network;
#[cfg(test)]
mod tests;
mod xrpc;

use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use atproto::Did;
use atproto::label::read_query_labels;
use futures_util::future::join_all;
use tokio::sync::{Semaphore, SemaphorePermit};
use vouch::{Account, Answer, Attested, Bound, Claim, Message, Question, Report};

use crate::dns::Dns;
use crate::pace::{Pace, Rates};
use crate::store::{Bearer, Pattern, Store, StoreError};
use crate::{judge, outside};
pub use network::{Source, verify_message};
pub use url::Url;
pub(crate) use xrpc::router;

/// Messages at a time. Further ones are refused.
const ROOM: usize = 16;
/// Octets of a message that is sent to the labeler; with the room above, what they may fill. `tradewind verify` and the library
/// take longer ones.
pub(crate) const POSTED_BYTES_MAX: usize = 2 << 20;
/// For a message to arrive whole: a slow sender keeps a place from others.
pub(crate) const ARRIVAL_MAX: Duration = Duration::from_secs(10);
/// For all keys of a message.
const KEYS_TIME_MAX: Duration = Duration::from_secs(12);
/// One client: twenty at once, then one in two seconds. All together: a hundred at once, then ten a second.
const RATES: Rates = Rates { domain: None, client: (Duration::from_secs(2), 20), all: (Duration::from_millis(100), 100) };
/// Accounts that attest a domain and are looked through for the one that carries its labels. A crowd of others does not hide it
/// behind a wrong answer: the answer is then that it is not known.
const ATTESTERS_MAX: usize = 4096;

/// Answers everybody, out of the store.
pub(crate) struct Vouching {
    store: Arc<Store>,
    labeler: Did,
    dns: Dns,
    room: Semaphore,
    pace: Mutex<Pace>,
}

impl Vouching {
    pub(crate) fn new(store: Arc<Store>, labeler: Did, dns: Dns) -> Self {
        Self { store, labeler, dns, room: Semaphore::new(ROOM), pace: Mutex::new(Pace::new(RATES)) }
    }

    /// A place for one message, or how long there is none for `client`.
    pub(crate) fn enter(&self, client: Option<IpAddr>) -> Result<SemaphorePermit<'_>, Duration> {
        let place = self.room.try_acquire().map_err(|_| Duration::from_secs(1))?;
        self.pace.lock().unwrap_or_else(PoisonError::into_inner).take(outside::now(), None, client)?;
        Ok(place)
    }

    /// The answer about one message.
    pub(crate) async fn answer(&self, octets: Vec<u8>) -> Result<Report, StoreError> {
        let now = outside::now();
        match claim(octets, &self.dns, now).await {
            Err(report) => Ok(*report),
            Ok(claim) => {
                let bound = claim.question().map(|question| self.bound(question)).transpose()?;
                Ok(claim.report(bound.unwrap_or_else(|| Bound::Nobody(String::new()))))
            }
        }
    }

    /// What the store knows.
    fn bound(&self, question: &Question) -> Result<Bound, StoreError> {
        let domain = &question.domain;
        let did = match &question.did {
            Some(did) => did.clone(),
            None => match self.store.bearer(domain, ATTESTERS_MAX)? {
                Bearer::One(did) => did,
                Bearer::None => return Ok(Bound::Nobody(format!("no account carries labels for {domain} here"))),
                Bearer::Several => return Ok(Bound::Nobody(format!("several accounts carry labels for {domain}"))),
                Bearer::TooMany => return Ok(Bound::Unknown(format!("too many accounts attest {domain} to look through"))),
            },
        };
        let Some((_, row)) = self.store.rows(&did)?.into_iter().find(|(attested, _)| attested == domain) else {
            return Ok(Bound::Nobody(format!("{} does not attest {domain}, as far as this labeler has seen", did.as_str())));
        };
        let attested = if !row.stands {
            Attested::No(format!("the attestation of {domain} by {} is not in order here", did.as_str()))
        } else if row.selectors.is_empty() {
            Attested::Unknown(format!("which selectors the attestation of {domain} names is not known until the next look"))
        } else {
            Attested::Yes { selectors: row.selectors.clone(), since: row.stands_since() }
        };
        let labels = match Pattern::parse(did.as_str()) {
            Err(why) => Err(why),
            Ok(pattern) => {
                let page = read_query_labels(&self.store.query(&[pattern], None, 250)?);
                Ok(page.map_err(|error| StoreError::Corrupt(error.to_string()))?.labels)
            }
        };
        Ok(Bound::Account(Account { did, labeler: self.labeler.clone(), attested, labels }))
    }
}

/// Reads the message, looks its keys up and checks its signatures. The error is the answer to what cannot be read.
async fn claim(octets: Vec<u8>, dns: &Dns, now: SystemTime) -> Result<Claim, Box<Report>> {
    // Hashing megabytes and checking signatures keeps a thread busy for a while.
    let message = blocking(move || Message::read(&octets)).await.map_err(|refused| Box::new(Report::refused(&refused, now)))?;
    let lookups = message.keys().into_iter().map(|name| async move {
        let answer = match tokio::time::timeout(KEYS_TIME_MAX, dns.txt(&name)).await {
            Ok(answer) => told(answer),
            Err(_) => Answer::Unknown(format!("no answer within {} s", KEYS_TIME_MAX.as_secs())),
        };
        (name, answer)
    });
    let keys: Vec<(String, Answer)> = join_all(lookups).await;
    let of = move |name: &str| {
        keys.iter().find(|(known, _)| known == name).map_or(Answer::Unknown("it was not asked for".into()), |(_, it)| it.clone())
    };
    Ok(blocking(move || message.verify(of, now)).await)
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    match tokio::task::spawn_blocking(work).await {
        Ok(done) => done,
        Err(error) => std::panic::resume_unwind(error.into_panic()),
    }
}

fn told(answer: judge::Answer<String>) -> Answer {
    match answer {
        judge::Answer::Found(texts) => Answer::Found(texts),
        judge::Answer::Absent => Answer::Absent,
        judge::Answer::Unknown(why) => Answer::Unknown(why),
    }
}
