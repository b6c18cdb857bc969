//! Telling a member what stands in the way of a label: `coop.tradewind.getStatus` and `checkDomain`, the page `/status/…`, and
//! the command `tradewind-labeler check`.
//!
//! Only public facts: what DNS, the directory and the repository say to anybody, and what was made of it. Doubts about what a
//! member sends are never said here.
//!
//! A dry run asks a stranger's name servers at another stranger's wish, so there are few of them at a time, and few in a minute
//! of one domain and of all together.

#[cfg(test)]
pub(crate) mod lexicons;
mod page;
#[cfg(test)]
mod tests;
mod xrpc;

use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, UNIX_EPOCH};

use atproto::label::{fold, read_query_labels};
use atproto::lexicon::{SELECTORS_MAX, canonical_domain, check_domain, is_selector};
use atproto::{Datetime, Did};
use rustls::ClientConfig;
use serde::{Deserialize, Serialize};
use tokio::sync::{Notify, Semaphore};

use crate::collect::{Collector, Subject, Views};
use crate::config::{Config, Dns, Identity, Verify};
use crate::fetch::{self, Fetcher, Greeter};
use crate::identity::{Resolver, Unresolved};
use crate::judge::{Check, Judgement, Kind, Verdict};
use crate::pace::{Pace, Rates};
use crate::store::{Pattern, State, Store, StoreError, Touch};
use crate::{dns, outside};
pub(crate) use xrpc::router;

/// Dry runs at a time. Further ones are refused.
const RUNS_MAX: usize = 16;
/// For one dry run: less than a request may take.
const TIME_MAX: Duration = Duration::from_secs(25);
/// RFC 5321 §4.5.4.2.
const MX_PORT: u16 = 25;
/// Accounts of one domain that a page names.
pub(crate) const ATTESTERS_MAX: usize = 10;

/// `coop.tradewind.getStatus`: what is known of an account.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Status {
    /// Whose.
    pub did: Did,
    /// Labels in force.
    pub labels: Vec<LabelStatus>,
    /// Each attested domain.
    pub domains: Vec<DomainStatus>,
}

/// `coop.tradewind.defs#labelStatus`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs, reason = "as the label has it")]
pub struct LabelStatus {
    pub val: String,
    pub cts: Datetime,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub exp: Option<Datetime>,
}

/// `coop.tradewind.defs#domainStatus`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct DomainStatus {
    /// In its one spelling.
    pub domain: String,
    /// The last finding.
    pub state: State,
    /// Whether the account's labels rest on it now.
    pub carries_labels: bool,
    /// Whether it asks for the relay.
    pub relay_member: bool,
    /// When it was looked at last.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub checked_at: Option<Datetime>,
    /// When it will be looked at next.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub next_check_at: Option<Datetime>,
    /// Looks in a row that did not pass.
    pub failures: u32,
    /// When the first of them was.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub unconfirmed_since: Option<Datetime>,
    /// What was seen.
    pub checks: Vec<Check>,
}

/// What a dry run is asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    /// As somebody wrote it.
    pub domain: String,
    /// Who would attest it. None: whom the domain names.
    pub did: Option<Did>,
    /// DKIM selectors. None: no keys are checked.
    pub selectors: Vec<String>,
    /// Whether the relay would be asked for.
    pub relay: bool,
}

/// `coop.tradewind.checkDomain`: what a dry run found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DryRun {
    /// In its one spelling.
    pub domain: String,
    /// Who would attest it, as far as it is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub did: Option<Did>,
    /// Whether an attestation would be followed by a label.
    pub verdict: Verdict,
    /// Whether there is one already.
    pub attested: bool,
    /// What was seen.
    pub checks: Vec<Check>,
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Refusal {
    /// What was asked cannot be.
    #[error("{0}")]
    Invalid(String),
    /// Too much of it.
    #[error("too many checks; try again in {} s", .0.as_secs().max(1))]
    TooMany(Duration),
    /// The store, most likely.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Makes dry runs, without a store.
#[derive(Clone)]
pub(crate) struct Checker {
    pub(crate) resolver: Resolver,
    pub(crate) views: Arc<Views>,
}

/// Answers everybody.
pub(crate) struct Explainer {
    pub(crate) store: Arc<Store>,
    pub(crate) checker: Checker,
    /// Rung when something new is due.
    pub(crate) bell: Arc<Notify>,
    room: Semaphore,
    pace: Mutex<Pace>,
}

impl Explainer {
    pub(crate) fn new(store: Arc<Store>, checker: Checker, bell: Arc<Notify>) -> Self {
        Self { store, checker, bell, room: Semaphore::new(RUNS_MAX), pace: Mutex::new(Pace::new(Rates::DRY_RUNS)) }
    }

    /// What is known of an account.
    pub(crate) fn status(&self, did: &Did) -> Result<Status, StoreError> {
        let mut labels = Vec::new();
        if let Ok(pattern) = Pattern::parse(did.as_str()) {
            let page = self.store.query(&[pattern], None, 250)?;
            let page = read_query_labels(&page).map_err(|error| StoreError::Corrupt(error.to_string()))?;
            labels = fold(&page.labels, outside::now()).into_iter().cloned().collect();
        }
        let labels = labels.into_iter().map(|label| LabelStatus { val: label.val, cts: label.cts, exp: label.exp }).collect();
        let mut domains = Vec::new();
        for (domain, row) in self.store.rows(did)? {
            let checks = self.store.checked(did, &domain)?.map(|checked| checked.checks).unwrap_or_default();
            domains.push(DomainStatus {
                domain,
                state: row.state,
                carries_labels: row.stands,
                relay_member: row.relay,
                checked_at: row.checked_ms.map(datetime),
                next_check_at: (row.due_ms > 0).then(|| datetime(row.due_ms)),
                failures: row.failures,
                unconfirmed_since: (row.unconfirmed_since_ms > 0).then(|| datetime(row.unconfirmed_since_ms)),
                checks,
            });
        }
        Ok(Status { did: did.clone(), labels, domains })
    }

    /// Makes every check of a domain now, if nobody has had it made too often, or for `client`.
    pub(crate) async fn check(&self, request: Request, client: Option<IpAddr>) -> Result<DryRun, Refusal> {
        let request = sound(request).map_err(Refusal::Invalid)?;
        let busy = |_| Refusal::TooMany(Duration::from_secs(1));
        let _place = self.room.try_acquire().map_err(busy)?;
        let turn = self.pace.lock().unwrap_or_else(PoisonError::into_inner).take(outside::now(), Some(&request.domain), client);
        turn.map_err(Refusal::TooMany)?;
        let mut run = self.checker.run(&request).await;
        let Some(did) = &run.did else { return Ok(run) };
        let row = self.store.rows(did)?.into_iter().find(|(domain, _)| *domain == run.domain);
        if let Some((domain, row)) = row {
            run.attested = true;
            if run.verdict == Verdict::Pass && row.state != State::Pass {
                // It has become right: the member need not wait for the next look.
                self.store.touch(&[Touch::Record(did.clone(), domain)], None, outside::now())?;
                self.bell.notify_one();
            }
        }
        Ok(run)
    }
}

impl Checker {
    /// With the resolvers of the settings.
    pub(crate) fn new(identity: &Identity, dns: &Dns, verify: &Verify, tls: &Arc<ClientConfig>) -> Result<Self, String> {
        let allow_private = identity.allows_private_addresses();
        let sources: Arc<[IpAddr]> = verify.sources.as_slice().into();
        let greeter = verify.mx_connect.then(|| Greeter::new(MX_PORT));
        let fetcher = |dns: &dns::Dns| Fetcher::new(dns.clone(), tls.clone(), allow_private);
        let open = |servers: Option<&[SocketAddr]>| dns::Dns::new(servers).map_err(|error| error.to_string());
        let first = open(dns.nameservers.as_deref())?;
        let mut resolvers = vec![("nameservers".to_owned(), first.clone())];
        for vantage in &dns.vantage {
            resolvers.push((vantage.name.clone(), open(Some(&vantage.nameservers))?));
        }
        let collectors = resolvers.into_iter().map(|(name, dns)| {
            let (sources, greeter) = (sources.clone(), greeter.clone());
            let collector = Collector { fetcher: fetcher(&dns), dns, sources, greeter };
            (name, collector)
        });
        let views = Views::new(collectors.collect(), dns.quorum());
        let resolver = Resolver { fetcher: fetcher(&first), plc_url: identity.plc_url.clone() };
        Ok(Self { resolver, views: Arc::new(views) })
    }

    /// `request` is sound.
    pub(crate) async fn run(&self, request: &Request) -> DryRun {
        let did = match &request.did {
            Some(did) => Some(did.clone()),
            None => self.views.named(&request.domain).await,
        };
        let judgement = match tokio::time::timeout(TIME_MAX, self.judge(request, did.as_ref())).await {
            Ok(judgement) => judgement,
            Err(_) => {
                let why = format!("the check took longer than {} s", TIME_MAX.as_secs());
                Judgement::only(Check::unknown(Kind::Resolvers, &request.domain, why))
            }
        };
        let (domain, Judgement { verdict, checks }) = (request.domain.clone(), judgement);
        DryRun { domain, did, verdict, attested: false, checks }
    }

    async fn judge(&self, request: &Request, did: Option<&Did>) -> Judgement {
        let mut first = Vec::new();
        let mut handle = None;
        if let Some(did) = did {
            match self.resolver.resolve(did).await {
                Ok(document) => {
                    handle = document.handle().map(str::to_owned);
                    first.push(match document.pds() {
                        Some(pds) => Check::pass(Kind::Identity, did.as_str()).seeing([&pds]),
                        None => Check::fail(Kind::Identity, did.as_str(), "the DID document names no PDS"),
                    });
                }
                Err(Unresolved::Gone(why)) => first.push(Check::fail(Kind::Identity, did.as_str(), why)),
                Err(Unresolved::Unknown(why)) => first.push(Check::unknown(Kind::Identity, did.as_str(), why)),
            }
        }
        let subject = Subject {
            did: did.map_or("<your DID>", |did| did.as_str()),
            domain: &request.domain,
            handle: handle.as_deref(),
            selectors: &request.selectors,
            relay: request.relay,
        };
        let judgement = self.views.judge(&subject, 0, false).await;
        if request.selectors.is_empty() {
            let name = format!("<selector>._domainkey.{}", request.domain);
            first.push(Check::note_of(Kind::Dkim, name, "no selector was given, so that no key was looked at"));
        }
        let verdict = judgement.verdict;
        first.extend(judgement.checks);
        let whole = Judgement::of(first);
        // What the resolvers agreed on is not made anew from the checks of one of them.
        let verdict = if whole.verdict == Verdict::Pass { verdict } else { whole.verdict };
        Judgement { verdict, checks: whole.checks }
    }
}

/// The command `tradewind-labeler check`: a dry run without a labeler, with its settings or, without any, with the system's
/// resolver and the public directory.
pub async fn check(config: Option<&Config>, request: Request) -> Result<DryRun, String> {
    let request = sound(request)?;
    let tls = fetch::tls().map_err(|error| error.to_string())?;
    let checker = match config {
        Some(config) => Checker::new(&config.identity, &config.dns, &config.verify, &tls)?,
        None => Checker::new(&Identity::default(), &Dns::default(), &Verify::default(), &tls)?,
    };
    Ok(checker.run(&request).await)
}

/// The request with its domain in its one spelling, or what is wrong with it.
pub(crate) fn sound(mut request: Request) -> Result<Request, String> {
    let shown = || request.domain.chars().take(100).collect::<String>();
    let domain = canonical_domain(&request.domain).ok_or_else(|| format!("{:?} is not a domain", shown()))?;
    check_domain(&domain).map_err(|error| error.to_string())?;
    if request.selectors.len() > SELECTORS_MAX {
        return Err(format!("at most {SELECTORS_MAX} selectors"));
    }
    if let Some(wrong) = request.selectors.iter().find(|selector| !is_selector(selector)) {
        return Err(format!("{:?} cannot be a selector", wrong.chars().take(100).collect::<String>()));
    }
    request.domain = domain;
    Ok(request)
}

fn datetime(at_ms: u64) -> Datetime {
    atproto::datetime(UNIX_EPOCH + Duration::from_millis(at_ms))
}
