//! Looking at one attestation: the identity, the record with its proof, then DNS (`collect`); what is found goes to the judge.
//!
//! Nothing that pointed here is believed. The record counts only as its repository proves it, by the key in the DID document as
//! it is now, and not in a state older than one that was proven before. A server that does not answer, or answers wrongly,
//! proves nothing either way.

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use atproto::Did;
use atproto::car::CAR_BYTES_MAX;
use atproto::did::Document;
use atproto::lexicon::{ATTESTATION, Attestation};
use atproto::proof;
use serde::Deserialize;
use url::Url;

use crate::collect::{Subject, Views};
use crate::fetch::From;
use crate::identity::{Resolver, Unresolved};
use crate::judge::{Check, Judgement, Kind, Verdict};
use crate::outside;
use crate::rounds::{Look, Looker, Turn};
use crate::store::{DOMAINS_MAX, Found, Lane, Task};

/// For everything about one attestation. Each step has its own, shorter limit.
const TIME_MAX: Duration = Duration::from_secs(45);
/// A hundred attestations, and whatever else strangers put into them.
const LIST_BYTES_MAX: usize = 1 << 20;
/// Clocks of servers that are further ahead are wrong.
const CLOCKS_DIFFER_MAX: Duration = Duration::from_secs(24 * 3600);

/// What a check needs.
#[derive(Clone)]
pub(crate) struct Verifier {
    pub(crate) resolver: Resolver,
    pub(crate) views: Arc<Views>,
}

impl Looker for Verifier {
    async fn look(&self, task: &Task, may: impl Fn(&str) -> Turn + Send + Sync) -> Look {
        let mut look = Look { host: None, outcome: Ok(Found::Absent), host_works: None };
        let outcome = tokio::time::timeout(TIME_MAX, self.try_look(task, &may, &mut look)).await;
        look.outcome = match outcome {
            Ok(Ok(found)) | Ok(Err(Stopped::Found(found))) => Ok(found),
            Ok(Err(Stopped::Later(until))) => Err(until),
            Err(_) => {
                Ok(unknown(Kind::Identity, task.did.as_str(), format!("the check took longer than {} s", TIME_MAX.as_secs())))
            }
        };
        look
    }
}

/// Why a look ends before its end.
enum Stopped {
    Found(Found),
    Later(SystemTime),
}

impl std::convert::From<Found> for Stopped {
    fn from(found: Found) -> Self {
        Self::Found(found)
    }
}

impl Verifier {
    async fn try_look(
        &self,
        task: &Task,
        may: &(impl Fn(&str) -> Turn + Send + Sync),
        look: &mut Look,
    ) -> Result<Found, Stopped> {
        let did = task.did.as_str();
        let document = self.resolver.resolve(&task.did).await.map_err(|error| match error {
            Unresolved::Gone(why) => failed(Kind::Identity, did, why),
            Unresolved::Unknown(why) => unknown(Kind::Identity, did, why),
        })?;
        let host = document.pds().and_then(|pds| Url::parse(&pds).ok()?.host_str().map(str::to_owned)).unwrap_or_default();
        let turn = may(&host);
        look.host = Some(host);
        if let Turn::Soon(until) | Turn::Later(until) = turn {
            return Err(Stopped::Later(until));
        }
        if task.is_repo() {
            let found = self.records(task, &document).await.unwrap_or_else(|why| why);
            look.host_works = Some(works(&found));
            return Ok(found);
        }
        let proof = self.record(&task.did, &task.rkey, task.rev.as_deref(), &document).await;
        // Whoever says that there is no such account has answered. Otherwise a spammer's accounts could speak ill of a host that
        // others are on.
        look.host_works = Some(proof.as_ref().err().is_none_or(works));
        let proof = proof?;
        let Some(record) = proof.record else { return Ok(Found::Absent) };
        let rev = Some(proof.rev);
        let attestation = Attestation::read(&record.octets, &task.rkey)
            .map_err(|error| judged(Check::fail(Kind::Record, uri(task), error.to_string()), rev.clone()))?;
        let subject = Subject {
            did,
            domain: &task.rkey,
            handle: document.handle(),
            selectors: &attestation.dkim_selectors,
            relay: attestation.wants_relay(),
        };
        let first = usize::try_from(task.id ^ task.asked).unwrap_or(0);
        let mut judgement = self.views.judge(&subject, first, task.lane == Lane::Standing).await;
        judgement.checks.splice(0..0, shown_by(did, &document));
        Ok(Found::Judged { judgement, relay: subject.relay, rev })
    }

    /// Which attestations there are, as the PDS says. A hint, as the streams are: each is looked at with its proof.
    async fn records(&self, task: &Task, document: &Document) -> Result<Found, Found> {
        #[derive(Deserialize)]
        struct Listed {
            records: Vec<Record>,
        }
        #[derive(Deserialize)]
        struct Record {
            uri: String,
        }
        let did = task.did.as_str();
        let pds = document.pds().ok_or_else(|| failed(Kind::Identity, did, "the DID document names no PDS".into()))?;
        let query = [("repo", did), ("collection", ATTESTATION), ("limit", "100")];
        let url = Url::parse_with_params(&format!("{pds}/xrpc/com.atproto.repo.listRecords"), query);
        let url = url.map_err(|error| failed(Kind::Identity, did, format!("the PDS in the DID document: {error}")))?;
        let answer = self.resolver.fetcher.get(&url, From::Stranger, LIST_BYTES_MAX).await;
        let answer = answer.map_err(|why| unknown(Kind::Pds, &pds, why))?;
        match answer.status {
            200 => {}
            // A PDS says so of accounts that it does not serve at the time.
            400 | 403 | 404 => return Err(failed(Kind::Pds, &pds, format!("the PDS lists no records: {}", answer.status))),
            status => return Err(unknown(Kind::Pds, &pds, format!("the PDS answers {status}"))),
        }
        let listed: Listed = serde_json::from_slice(&answer.body)
            .map_err(|error| unknown(Kind::Pds, &pds, format!("{pds} gives a list that is none: {error}")))?;
        let own = format!("at://{did}/{ATTESTATION}/");
        let rkeys = listed.records.iter().filter_map(|record| record.uri.strip_prefix(&own).map(str::to_owned));
        Ok(Found::Records(rkeys.take(DOMAINS_MAX).collect()))
    }

    /// The record as its repository proves it, in a state not older than `known`.
    pub(crate) async fn record(
        &self,
        owner: &Did,
        rkey: &str,
        known: Option<&str>,
        document: &Document,
    ) -> Result<proof::Proof, Found> {
        let did = owner.as_str();
        let key = document.atproto_key().map_err(|error| failed(Kind::Identity, did, error.to_string()))?;
        let pds = document.pds().ok_or_else(|| failed(Kind::Identity, did, "the DID document names no PDS".into()))?;
        let query = [("did", did), ("collection", ATTESTATION), ("rkey", rkey)];
        let url = Url::parse_with_params(&format!("{pds}/xrpc/com.atproto.sync.getRecord"), query);
        let url = url.map_err(|error| failed(Kind::Identity, did, format!("the PDS in the DID document: {error}")))?;
        let answer =
            self.resolver.fetcher.get(&url, From::Stranger, CAR_BYTES_MAX).await.map_err(|why| unknown(Kind::Pds, &pds, why))?;
        if answer.status != 200 {
            return Err(refused(&pds, answer.status, &answer.body));
        }
        let proof = proof::verify(&answer.body, owner, &key, ATTESTATION, rkey)
            .map_err(|error| unknown(Kind::Pds, &pds, format!("{pds} gives a proof that is none: {error}")))?;
        // Revisions are times. One that the future has written would make every honest one after it too old.
        if revised(&proof.rev).is_some_and(|at| at > outside::now() + CLOCKS_DIFFER_MAX) {
            return Err(unknown(Kind::Pds, &pds, format!("{pds} shows revision {}, which lies in the future", proof.rev)));
        }
        match known {
            // Revisions are timestamps that sort as text: an older state is a PDS that lags, or one that replays.
            Some(known) if proof.rev.as_str() < known => {
                Err(unknown(Kind::Pds, &pds, format!("{pds} shows revision {}, older than {known}", proof.rev)))
            }
            _ => Ok(proof),
        }
    }
}

/// When a revision was made: atproto's TID, 53 bits of microseconds and 10 of a clock's number in base32-sortable. `None` for
/// what is no TID.
fn revised(rev: &str) -> Option<SystemTime> {
    const LETTERS: &[u8] = b"234567abcdefghijklmnopqrstuvwxyz";
    if rev.len() != 13 {
        return None;
    }
    let value = rev.bytes().try_fold(0_u64, |value, octet| {
        let digit = LETTERS.iter().position(|letter| *letter == octet)?;
        Some(value << 5 | u64::try_from(digit).ok()?)
    })?;
    Some(UNIX_EPOCH + Duration::from_micros(value >> 10))
}

/// Who the account is and which server showed its record, for the member.
fn shown_by(did: &str, document: &Document) -> [Check; 2] {
    let handle = document.handle().map(|handle| format!("at://{handle}"));
    [Check::pass(Kind::Identity, did).seeing(&handle), Check::pass(Kind::Pds, document.pds().unwrap_or_default())]
}

/// What a PDS means by an answer that is no proof: its word counts for its own accounts, as far as it is about whether it serves
/// them.
fn refused(pds: &str, status: u16, body: &[u8]) -> Found {
    #[derive(Deserialize)]
    struct XrpcError {
        error: String,
    }
    let name = serde_json::from_slice(body).map(|XrpcError { error }| error).unwrap_or_default();
    match (status, name.as_str()) {
        (400 | 403 | 404, "RepoNotFound" | "RepoTakendown" | "RepoDeactivated" | "RepoSuspended" | "RecordNotFound") => {
            failed(Kind::Pds, pds, format!("the PDS does not serve the record: {name}"))
        }
        _ => unknown(Kind::Pds, pds, format!("the PDS answers {status} {}", name.chars().take(60).collect::<String>())),
    }
}

/// Whether the PDS did its part.
fn works(found: &Found) -> bool {
    !matches!(found, Found::Judged { judgement, .. } if judgement.verdict == Verdict::Unknown)
}

fn failed(kind: Kind, name: &str, why: String) -> Found {
    judged(Check::fail(kind, name, why), None)
}

fn unknown(kind: Kind, name: &str, why: String) -> Found {
    judged(Check::unknown(kind, name, why), None)
}

/// Over before any record of the domain was looked at.
fn judged(check: Check, rev: Option<String>) -> Found {
    Found::Judged { judgement: Judgement::only(check), relay: false, rev }
}

fn uri(task: &Task) -> String {
    format!("at://{}/{ATTESTATION}/{}", task.did.as_str(), task.rkey)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_revision_says_when_it_was_made() {
        // Of the atproto specification: 2023-06-30, about.
        let at = revised("3jzfcijpj2z2a").unwrap().duration_since(UNIX_EPOCH).unwrap().as_secs();
        assert!((1_688_000_000..1_689_000_000).contains(&at), "{at}");
        for rubbish in ["", "3jzfcijpj2z2", "3jzfcijpj2z21", "3JZFCIJPJ2Z2A", "0000000000000"] {
            assert_eq!(revised(rubbish), None, "{rubbish}");
        }
        assert!(revised("jzzzzzzzzzzzz").unwrap() > outside::now() + CLOCKS_DIFFER_MAX);
    }
}
