//! Private standing: the labeler is told what became of each member's mail, in counts, and is asked what is doubted about
//! members.
//!
//! `count` adds up events by member and day, `report` sends the sums when a day is over, and again where one changed later;
//! `read` asks about all members at an interval. All of it is on the control thread; mail waits for none of it, and a labeler
//! that is away changes nothing but that reports are sent later and doubts come to their end.
//!
//! With whom is behind [`Counterpart`]: today the labeler's two methods over HTTP with a signed token ([`Caller`]), and where
//! private data of accounts can be read by whom they trust one day, that.
//!
//! Not here: what a doubt does to mail (`policy::doubts`), the key (`sign::caller`).

mod count;
#[cfg(test)]
mod labeler_tests;
mod read;
mod report;
#[cfg(test)]
mod tests;

use std::future::Future;
use std::io;
use std::time::Duration;

use atproto::{
    Did,
    did::{SigningKey, caller_document},
    jwt,
    sending::{Day, GET_STANDING, REPORT_SENDING, Report, Reported, SERVICE, Sending, Standing, Standings},
};
use host::{Clock, Dice};
use serde::de::DeserializeOwned;

pub(super) use count::forget;
pub(super) use read::kept_doubts;

use super::{
    daemon::Daemon,
    fetch::{Fetch, FetchError, escape},
};
use crate::{config::Config, sign};

/// Octets of an answer about 100 members or to 200 reports.
const ANSWER_BYTES_MAX: usize = 256 << 10;
/// How often events are added up, and whether a report is due is looked at.
const COUNT_EVERY: Duration = Duration::from_secs(60);
/// After a failure, the first wait; doubled each time,
const RETRY_FIRST: Duration = Duration::from_secs(60);
/// up to this.
const RETRY_LAST: Duration = Duration::from_secs(3600);
/// A day's reports are sent within so long of its end, each MTA at a time of its own: or all of them would come at midnight.
const SPREAD_SECS: u64 = 1800;

/// Who keeps standing: told and asked. An error says for the operator why it could not be; everything is tried again later.
pub(crate) trait Counterpart: Send + Sync {
    /// Tells what became of mail. Telling it twice changes nothing.
    fn report(&self, reports: Vec<Report>) -> impl Future<Output = Result<Reported, String>> + Send;

    /// Asks what is doubted about these members, at most `DIDS_MAX`.
    fn read(&self, dids: &[String]) -> impl Future<Output = Result<Vec<Standing>, String>> + Send;
}

/// Calls the labeler's methods, each with a token of its own.
pub(crate) struct Caller {
    fetch: Fetch,
    clock: Clock,
    dice: Dice,
    did: Did,
    key: SigningKey,
    /// Where the labeler answers, without a slash at the end.
    url: String,
    /// The labeler's DID with its service.
    audience: String,
}

impl Caller {
    /// None when the configuration has no `[standing]`. The key is made when there is none.
    pub(crate) fn open(config: &Config, fetch: Fetch, clock: Clock, dice: Dice) -> io::Result<Option<Caller>> {
        let (Some(standing), Some(labeler)) = (&config.standing, &config.labeler) else { return Ok(None) };
        let key = sign::caller::open(&standing.signing_key, &dice).map_err(io::Error::other)?;
        let did: Did = standing.did.parse().map_err(io::Error::other)?;
        let document = caller_document(&did, &key.verifying_key());
        let path = standing.signing_key.with_file_name("did.json");
        // It may be published long since, and the folder may be read-only.
        if let Err(error) = std::fs::write(&path, format!("{document:#}\n")) {
            tracing::warn!(%error, path = %path.display(), "the document of [standing] cannot be written for the web server");
        }
        tracing::info!(did = standing.did, key = key.verifying_key().did_key(), "the labeler is called by this name");
        let (url, audience) = (labeler.url.trim_end_matches('/').to_owned(), format!("{}#{SERVICE}", labeler.did));
        Ok(Some(Caller { fetch, clock, dice, did, key, url, audience }))
    }

    async fn call<T: DeserializeOwned>(&self, method: &str, query: &str, body: Option<Vec<u8>>) -> Result<T, String> {
        let mut jti = [0; 16];
        self.dice.fill(&mut jti);
        let jti = data_encoding::HEXLOWER.encode(&jti);
        let token = jwt::issue(&self.key, &self.did, &self.audience, method, self.clock.now(), &jti);
        let url = format!("{}/xrpc/{method}{query}", self.url);
        let octets = self.fetch.call(&url, &token, body, ANSWER_BYTES_MAX).await.map_err(|error| said(&error))?;
        serde_json::from_slice(&octets).map_err(|error| format!("the labeler's answer is not one of {method}: {error}"))
    }
}

fn said(error: &FetchError) -> String {
    format!("the labeler {error}")
}

impl Counterpart for Caller {
    async fn report(&self, reports: Vec<Report>) -> Result<Reported, String> {
        let body = serde_json::to_vec(&Sending { reports }).map_err(|error| error.to_string())?;
        self.call(REPORT_SENDING, "", Some(body)).await
    }

    async fn read(&self, dids: &[String]) -> Result<Vec<Standing>, String> {
        let query: Vec<_> = dids.iter().map(|did| format!("dids={}", escape(did))).collect();
        let Standings { standings } = self.call(GET_STANDING, &format!("?{}", query.join("&")), None).await?;
        Ok(standings)
    }
}

/// Counts, reports and reads until dropped.
pub(crate) async fn run(daemon: &Daemon, config: &Config, caller: Option<Caller>) {
    let (Some(caller), Some(settings)) = (caller, &config.standing) else { return };
    let telling = async {
        if settings.report {
            tell(daemon, &caller).await;
        }
    };
    tokio::join!(telling, read::run(daemon, &caller, settings));
}

async fn tell(daemon: &Daemon, to: &impl Counterpart) {
    let (mut wait, mut well) = (COUNT_EVERY, true);
    let spread = Duration::from_secs(daemon.parts.dice.below(SPREAD_SECS));
    // Days before this one are told.
    let mut told = None;
    loop {
        match tell_news(daemon, to, spread, &mut told).await {
            Ok(()) => {
                if !well {
                    tracing::info!("what became of mail is reported again");
                }
                (wait, well) = (COUNT_EVERY, true);
            }
            Err(error) => {
                ::metrics::counter!(super::metrics::SENDING_REPORTS_FAILED).increment(1);
                if well {
                    tracing::warn!(error, "what became of mail cannot be reported; it is kept and told later");
                }
                wait = if well { RETRY_FIRST } else { (wait * 2).min(RETRY_LAST) };
                well = false;
            }
        }
        tokio::time::sleep(wait).await;
    }
}

/// Counts, and looks through the sums when a day is over or one that was told has changed.
async fn tell_news(daemon: &Daemon, to: &impl Counterpart, spread: Duration, told: &mut Option<Day>) -> Result<(), String> {
    let changed = daemon.count_sending().await?;
    let now = daemon.now();
    let until = Day::of(now.checked_sub(spread).unwrap_or(now));
    let all_told = told.is_some_and(|told| until <= told && changed.is_none_or(|day| day >= told));
    if !all_told {
        *told = None;
        *told = daemon.report_sending(to, until).await?.then_some(until);
    }
    Ok(())
}
