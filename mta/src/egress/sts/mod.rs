//! MTA-STS (RFC 8461): what a domain promises about TLS at the hosts that take its mail.
//!
//! With each route the record at `_mta-sts.DOMAIN` is looked up. It says whether there is a policy and which; one that is not
//! known yet is fetched, and what was fetched holds until its age is over, whatever DNS and web say meanwhile (§5.1). What
//! follows for each host is its [`Demand`]; DANE is never weakened by it (§2).
//!
//! - [`record`]: the TXT record that says that there is a policy.
//! - [`policy`]: the policy file, and which hosts it allows.
//! - [`store`]: what was fetched, over restarts.
//! - this file: when what is asked for, and what follows.
//!
//! A policy host that is slow holds up its own domain only: after [`PATIENCE`] the route is answered with a deferral, and the
//! fetch goes on by itself.
//!
//! Not here: HTTPS (`control/web`), who keeps to the demand (`link.rs`), reports (`tls_reports`).

pub mod policy;
pub mod record;
pub mod store;
#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::future::Future;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use host::Clock;
use host::dns::{DnsError, Resolver};
use scheduler::{Barred, Demand, PolicyKind, Route, RouteTrouble, Routed, TlsFailure, TlsPolicy, Verdict};
use tokio::sync::watch;

use self::policy::{Mode, Policy};
use self::record::{Record, RecordError};
use self::store::{Kept, Store};
use super::tls_reports::notes::{Note, Notes};
use crate::control::web::{Web, WebError};

/// How long a look-up of a route waits for a policy. Then mail for the domain is tried later, with what came in the meantime.
const PATIENCE: Duration = Duration::from_secs(15);
/// After a failed fetch the same policy is not asked for again for so long (RFC 8461 §3.3: five minutes or longer).
const FAILED_WAIT: Duration = Duration::from_secs(300);
/// Failed fetches that are remembered; at the bound they are forgotten, and asked for again.
const FAILED_MAX: usize = 10_000;
/// Fetches at the same time. At the bound a domain whose policy is not known waits.
const FLIGHTS_MAX: usize = 128;
/// A route with a policy that runs out at once is good for so long all the same, as one with a short TTL.
const VALID_MIN: Duration = Duration::from_secs(60);
/// Kept policies are looked through at this pace, for those that should be fetched again before they run out.
const ROUND: Duration = Duration::from_secs(3600);
/// Of these so many are fetched, a few at the same time.
const ROUND_MAX: usize = 1000;
const ROUND_AT_ONCE: usize = 8;

/// Finds the policies of domains. Cheap to clone.
#[derive(Clone)]
pub struct Policies(Arc<Inner>);

struct Inner {
    dns: Resolver,
    web: Web,
    store: Store,
    clock: Clock,
    notes: Notes,
    flights: Mutex<HashMap<String, Flight>>,
    failed: Mutex<HashMap<String, (String, SystemTime)>>,
}

/// A fetch on its way, and what became of it.
type Flight = watch::Receiver<Option<Option<Kept>>>;

/// What is known of a domain's policy now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Sought {
    /// It has none.
    None,
    /// Nobody can say now: the DNS does not answer, or what it announces cannot be had. Mail goes as if there were none (RFC 8461
    /// §3.3, §5.1), unless its sender asks for more.
    Unknown,
    /// It has one, which is not here yet.
    Awaited,
    /// This one.
    Found(Box<Kept>),
}

/// What the DNS says of a domain's policy.
enum Announced {
    /// There is one.
    Yes(Record),
    /// There is none.
    No,
    /// Nothing.
    Unknown,
}

impl Policies {
    /// `notes` hears of policies that could not be had.
    pub fn new(dns: Resolver, web: Web, store: Store, clock: Clock, notes: Notes) -> Self {
        let (flights, failed) = Default::default();
        Policies(Arc::new(Inner { dns, web, store, clock, notes, flights, failed }))
    }

    /// The route of `domain`, which is being looked up, with what its policy demands. The record is looked up meanwhile.
    pub async fn apply(&self, domain: &str, route: impl Future<Output = Routed>) -> Routed {
        // Address literals publish nothing.
        if domain.starts_with('[') {
            return route.await;
        }
        let (routed, record) = tokio::join!(route, self.record(domain));
        let Routed::Route(route) = routed else { return routed };
        // Where DANE speaks for every host there is nothing left to demand.
        if !route.hosts.iter().any(|host| matches!(host.demand, Demand::Opportunistic | Demand::Encrypted)) {
            return Routed::Route(route);
        }
        match self.of(domain, record).await {
            Sought::None => Routed::Route(route),
            Sought::Unknown => Routed::Route(Arc::new(unknown(&route, self.0.clock.now()))),
            Sought::Awaited => Routed::Trouble(RouteTrouble {
                verdict: Verdict::Deferred,
                code: (4, 7, 5),
                text: format!("{domain} has a policy of MTA-STS, and its host mta-sts.{domain} has not answered yet").into(),
            }),
            Sought::Found(kept) => Routed::Route(Arc::new(demanded(&route, domain, &kept, self.0.clock.now()))),
        }
    }

    /// The policy of a domain with this record (RFC 8461 §5.1).
    async fn of(&self, domain: &str, record: Announced) -> Sought {
        let now = self.0.clock.now();
        let kept = self.0.store.get(domain, now);
        let id = match record {
            Announced::Yes(record) => record.id,
            Announced::No => return kept.map_or(Sought::None, found),
            Announced::Unknown => return kept.map_or(Sought::Unknown, found),
        };
        match kept {
            Some(kept) if kept.id == id => {
                if kept.is_stale(now) && !self.has_failed(domain, &id, now) {
                    self.flight(domain, &id);
                }
                found(kept)
            }
            // Known to be out of reach: what we have still holds.
            kept if self.has_failed(domain, &id, now) => kept.map_or(Sought::Unknown, found),
            kept => match self.fetched(domain, &id).await {
                Some(Some(fresh)) => found(fresh),
                Some(None) => kept.map_or(Sought::Unknown, found),
                None => kept.map_or(Sought::Awaited, found),
            },
        }
    }

    /// The record, if there is one that counts.
    async fn record(&self, domain: &str) -> Announced {
        let texts = match self.0.dns.txt(&format!("_mta-sts.{domain}")).await {
            Ok((texts, _)) => texts,
            Err(DnsError::NoSuchName | DnsError::NoRecords) => return Announced::No,
            Err(error @ (DnsError::Temporary(_) | DnsError::Bogus(_))) => {
                tracing::info!(domain, %error, "the record of MTA-STS cannot be looked up; what is kept holds");
                return Announced::Unknown;
            }
        };
        match Record::find(texts.iter().map(String::as_str)) {
            Ok(record) => Announced::Yes(record),
            Err(RecordError::None) => Announced::No,
            Err(error) => {
                self.0.notes.say(Note::of_policy(domain, TlsFailure::StsPolicyInvalid, error.to_string()));
                tracing::info!(domain, %error, "the record of MTA-STS does not count");
                Announced::No
            }
        }
    }

    /// What a fetch brings. None: nothing in time.
    async fn fetched(&self, domain: &str, id: &str) -> Option<Option<Kept>> {
        let mut flight = self.flight(domain, id)?;
        let landed = async { flight.wait_for(Option::is_some).await.ok().and_then(|landed| landed.clone()) };
        tokio::time::timeout(PATIENCE, landed).await.ok().flatten()
    }

    /// Fetches, or joins who does so already. None: too many do.
    fn flight(&self, domain: &str, id: &str) -> Option<Flight> {
        let mut flights = self.flights();
        if let Some(flight) = flights.get(domain) {
            return Some(flight.clone());
        }
        if flights.len() >= FLIGHTS_MAX {
            return None;
        }
        let (sender, flight) = watch::channel(None);
        flights.insert(domain.to_owned(), flight.clone());
        drop(flights);
        let (policies, domain, id) = (self.clone(), domain.to_owned(), id.to_owned());
        host::spawn_local(async move {
            let landed = policies.fetch(&domain, &id).await;
            policies.flights().remove(&domain);
            sender.send_replace(Some(landed));
        });
        Some(flight)
    }

    async fn fetch(&self, domain: &str, id: &str) -> Option<Kept> {
        let answer = self.0.web.policy(domain).await;
        let now = self.0.clock.now();
        let (failure, why) = match answer.map(|octets| Policy::parse(&octets)) {
            Ok(Ok(policy)) => {
                tracing::info!(domain, id, mode = policy.mode.as_str(), "fetched a policy of MTA-STS");
                let kept = Kept { id: id.to_owned(), fetched: now, wanted: now, policy };
                self.0.store.put(domain, &kept, now);
                self.failed().remove(domain);
                return Some(kept);
            }
            Ok(Err(error)) => (TlsFailure::StsPolicyInvalid, error.to_string()),
            Err(error @ WebError::Certificate(_)) => (TlsFailure::StsWebpkiInvalid, error.to_string()),
            Err(error) => (TlsFailure::StsPolicyFetchError, error.to_string()),
        };
        tracing::warn!(domain, id, why, "the policy of MTA-STS cannot be had; what is kept of it holds");
        let mut failed = self.failed();
        if failed.len() >= FAILED_MAX {
            failed.clear();
        }
        failed.insert(domain.to_owned(), (id.to_owned(), now + FAILED_WAIT));
        drop(failed);
        self.0.notes.say(Note::of_policy(domain, failure, why));
        None
    }

    fn has_failed(&self, domain: &str, id: &str, now: SystemTime) -> bool {
        self.failed().get(domain).is_some_and(|(failed, until)| failed == id && now < *until)
    }

    /// Fetches again, round after round, what would run out although mail asks for it. Never returns.
    pub async fn keep_fresh(&self) {
        loop {
            tokio::time::sleep(ROUND).await;
            let now = self.0.clock.now();
            let stale = self.0.store.stale(now, ROUND_MAX).unwrap_or_default();
            for some in stale.chunks(ROUND_AT_ONCE) {
                let mut flights = Vec::with_capacity(some.len());
                for (domain, kept_id) in some {
                    // Under a new id, if there is one; without a record the file itself is asked.
                    let id = match self.record(domain).await {
                        Announced::Yes(record) => record.id,
                        Announced::No | Announced::Unknown => kept_id.clone(),
                    };
                    if !self.has_failed(domain, &id, now) {
                        flights.extend(self.flight(domain, &id));
                    }
                }
                for mut flight in flights {
                    let _ = flight.wait_for(Option::is_some).await;
                }
            }
            if let Err(error) = self.0.store.sweep(self.0.clock.now()) {
                tracing::error!(%error, "policies of MTA-STS cannot be looked through");
            }
        }
    }

    fn flights(&self) -> MutexGuard<'_, HashMap<String, Flight>> {
        self.0.flights.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn failed(&self) -> MutexGuard<'_, HashMap<String, (String, SystemTime)>> {
        self.0.failed.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn found(kept: Kept) -> Sought {
    match kept.policy.mode {
        // RFC 8461 §5: as if there were none. It is kept so that it is not fetched with every message.
        Mode::None => Sought::None,
        Mode::Enforce | Mode::Testing => Sought::Found(Box::new(kept)),
    }
}

/// A route of which it is not known what the domain promises: it is asked for again when the policy is.
fn unknown(route: &Route, now: SystemTime) -> Route {
    let tls = TlsPolicy { unknown: true, ..route.tls.clone() };
    Route { tls, valid_until: route.valid_until.min(now + FAILED_WAIT), ..route.clone() }
}

/// What follows from a policy for the hosts of a route. A host that DANE speaks for, or that is ruled out, stays as it is.
fn demanded(route: &Route, domain: &str, kept: &Kept, now: SystemTime) -> Route {
    let (policy, mut route) = (&kept.policy, route.clone());
    let testing = policy.mode == Mode::Testing;
    for host in &mut route.hosts {
        host.demand = match &host.demand {
            Demand::Opportunistic | Demand::Encrypted if testing => continue,
            Demand::Opportunistic | Demand::Encrypted if policy.allows(&host.name) => Demand::Verified,
            Demand::Opportunistic | Demand::Encrypted => Demand::Barred(Arc::new(Barred {
                failure: TlsFailure::ValidationFailure,
                text: format!("the policy of MTA-STS of {domain} does not name this host").into(),
            })),
            Demand::Verified | Demand::Dane(_) | Demand::Barred(_) => continue,
        };
    }
    if route.tls.kind == PolicyKind::None {
        let (kind, strings) = (PolicyKind::Sts, policy.lines().into_iter().map(Into::into).collect());
        let hosts = policy.mx.iter().map(|pattern| pattern.to_string().into()).collect();
        route.tls = TlsPolicy { kind, testing, strings, hosts, ..route.tls };
    }
    route.valid_until = route.valid_until.min(kept.expires().max(now + VALID_MIN));
    route
}
