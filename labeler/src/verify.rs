//! Looking at one attestation: the identity, the record with its proof, then DNS; what is found goes to the judge.
//!
//! Nothing that pointed here is believed. The record counts only as its repository proves it, by the key in the DID document as it is now, and
//! not in a state older than one that was proven before. A server that does not answer, or answers wrongly, proves nothing either way.

use std::time::Duration;

use atproto::car::CAR_BYTES_MAX;
use atproto::did::Document;
use atproto::lexicon::{ATTESTATION, Attestation};
use atproto::proof;
use futures_util::future::{join, join_all, join4};
use serde::Deserialize;
use url::Url;

use crate::dns::Dns;
use crate::fetch::From;
use crate::identity::{Resolver, Unresolved};
use crate::judge::{Answer, Facts, Verdict, judge};
use crate::store::{Found, Task};

/// For everything about one attestation. Each step has its own, shorter limit.
const TIME_MAX: Duration = Duration::from_secs(45);
/// A DID, with space around it.
const WELL_KNOWN_BYTES_MAX: usize = 4 << 10;

/// What a check needs.
#[derive(Clone)]
pub(crate) struct Verifier {
    pub(crate) resolver: Resolver,
    pub(crate) dns: Dns,
}

impl Verifier {
    pub(crate) async fn look(&self, task: &Task) -> Found {
        match tokio::time::timeout(TIME_MAX, self.try_look(task)).await {
            Ok(Ok(found) | Err(found)) => found,
            Err(_) => unknown(format!("the check took longer than {} s", TIME_MAX.as_secs())),
        }
    }

    async fn try_look(&self, task: &Task) -> Result<Found, Found> {
        let document = self.resolver.resolve(&task.did).await.map_err(|error| match error {
            Unresolved::Gone(why) => failed(why, None),
            Unresolved::Unknown(why) => unknown(why),
        })?;
        let proof = self.record(task, &document).await?;
        let Some(record) = proof.record else { return Ok(Found::Absent) };
        let rev = Some(proof.rev);
        let attestation =
            Attestation::read(&record.octets, &task.rkey).map_err(|error| failed(format!("record: {error}"), rev.clone()))?;
        let facts = self.facts(task, &document, &attestation).await;
        let (verdict, reasons) = judge(&facts);
        Ok(Found::Judged { verdict, reasons, relay: attestation.wants_relay(), rev })
    }

    /// The record as its repository proves it.
    async fn record(&self, task: &Task, document: &Document) -> Result<proof::Proof, Found> {
        let key = document.atproto_key().map_err(|error| failed(format!("identity: {error}"), None))?;
        let pds = document.pds().ok_or_else(|| failed("identity: the DID document names no PDS".into(), None))?;
        let query = [("did", task.did.as_str()), ("collection", ATTESTATION), ("rkey", &task.rkey)];
        let url = Url::parse_with_params(&format!("{pds}/xrpc/com.atproto.sync.getRecord"), query);
        let url = url.map_err(|error| failed(format!("identity: the PDS in the DID document: {error}"), None))?;
        let answer =
            self.resolver.fetcher.get(&url, From::Stranger, CAR_BYTES_MAX).await.map_err(|why| unknown(format!("pds: {why}")))?;
        if answer.status != 200 {
            return Err(refused(answer.status, &answer.body));
        }
        let proof = proof::verify(&answer.body, &task.did, &key, ATTESTATION, &task.rkey)
            .map_err(|error| unknown(format!("pds: {pds} gives a proof that is none: {error}")))?;
        match &task.rev {
            // Revisions are timestamps that sort as text: an older state is a PDS that lags, or one that replays.
            Some(known) if proof.rev < *known => {
                Err(unknown(format!("pds: {pds} shows revision {}, older than {known}", proof.rev)))
            }
            _ => Ok(proof),
        }
    }

    /// Everything at once: the slowest answer decides how long a member waits.
    async fn facts(&self, task: &Task, document: &Document, attestation: &Attestation) -> Facts {
        let domain = &task.rkey;
        let (control_name, dmarc_name) = (format!("_atproto.{domain}"), format!("_dmarc.{domain}"));
        let keys = attestation
            .dkim_selectors
            .iter()
            .map(|selector| async move { (selector.clone(), self.dns.txt(&format!("{selector}._domainkey.{domain}")).await) });
        let rest = join4(self.dns.txt(&control_name), self.dns.mx(domain), self.dns.txt(domain), self.dns.txt(&dmarc_name));
        let ((control, mx, spf, dmarc), dkim) = join(rest, join_all(keys)).await;
        let handle = document.handle().map(str::to_owned);
        let named = matches!(&control, Answer::Found(texts) if texts.iter().any(|text| text.starts_with("did=")));
        let may_say_so = handle.as_deref().is_some_and(|handle| handle.eq_ignore_ascii_case(domain));
        let well_known = match (&control, named, may_say_so) {
            (Answer::Unknown(_), ..) | (_, true, _) | (.., false) => Answer::Absent,
            _ => self.well_known(domain).await,
        };
        Facts { did: task.did.as_str().into(), domain: domain.clone(), handle, control, well_known, mx, spf, dkim, dmarc }
    }

    /// atproto handle spec, "HTTPS well-known Method".
    async fn well_known(&self, domain: &str) -> Answer<String> {
        let Ok(url) = Url::parse(&format!("https://{domain}/.well-known/atproto-did")) else { return Answer::Absent };
        match self.resolver.fetcher.get(&url, From::Stranger, WELL_KNOWN_BYTES_MAX).await {
            Ok(answer) if answer.status == 200 => Answer::Found(vec![String::from_utf8_lossy(&answer.body).into_owned()]),
            Ok(answer) if answer.status >= 500 => Answer::Unknown(format!("it answers {}", answer.status)),
            Ok(_) => Answer::Absent,
            Err(why) => Answer::Unknown(why),
        }
    }
}

/// What a PDS means by an answer that is no proof: its word counts for its own accounts, as far as it is about whether it serves them.
fn refused(status: u16, body: &[u8]) -> Found {
    #[derive(Deserialize)]
    struct XrpcError {
        error: String,
    }
    let name = serde_json::from_slice(body).map(|XrpcError { error }| error).unwrap_or_default();
    match (status, name.as_str()) {
        (400 | 403 | 404, "RepoNotFound" | "RepoTakendown" | "RepoDeactivated" | "RepoSuspended" | "RecordNotFound") => {
            failed(format!("pds: the PDS does not serve the record: {name}"), None)
        }
        _ => unknown(format!("pds: the PDS answers {status} {}", name.chars().take(60).collect::<String>())),
    }
}

fn failed(reason: String, rev: Option<String>) -> Found {
    Found::Judged { verdict: Verdict::Fail, reasons: vec![reason], relay: false, rev }
}

fn unknown(reason: String) -> Found {
    Found::Judged { verdict: Verdict::Unknown, reasons: vec![reason], relay: false, rev: None }
}
