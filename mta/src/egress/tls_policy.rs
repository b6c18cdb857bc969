//! TLS policy: how well a connection to a host must be protected before a delivery may cross it, and the TLS clients that
//! see to it.
//!
//! What a recipient domain demands of a host comes with the route; what a message demands besides is added here. Each
//! demand has a client of its own with a memory of sessions of its own, so that nothing is resumed under one demand that
//! was verified under another.
//!
//! Not here: where a domain's demands come from (`route.rs`), what is done when they are not met (`deliver.rs`, `link.rs`).

use std::cell::RefCell;
use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;

use host::tls;
use scheduler::{Barred, Dane, Demand, Host, PolicyKind, TlsFailure, TlsNeed, TlsPolicy, Tlsa};

use super::Job;
use super::sts::policy::Pattern;
use crate::queue::TlsWish;

/// Sets of TLSA records whose sessions are remembered; past it all are forgotten and hands are shaken in full again.
const DANE_CLIENTS_MAX: usize = 128;

/// What `job` demands of a connection to `host`: what the domain demands, and what the sender says to that (RFC 8689); and not
/// less than what our own shaping says, whatever they say.
pub fn demand(job: &Job, host: &Host) -> Demand {
    at_least(job.limits.tls, demanded(job.stored.message.parameters.tls, &job.route.tls, host))
}

fn at_least(floor: TlsNeed, demand: Demand) -> Demand {
    match (floor, demand) {
        (TlsNeed::Required, Demand::Opportunistic) => Demand::Encrypted,
        (TlsNeed::Required | TlsNeed::Opportunistic, demand) => demand,
    }
}

fn demanded(wish: TlsWish, policy: &TlsPolicy, host: &Host) -> Demand {
    match (wish, &host.demand) {
        // §4.1: the message is worth more to its sender than its secrecy.
        (TlsWish::Waived, _) => Demand::Opportunistic,
        // The domain's signed MX record names the host, but no TLSA record vouches for it: then an authority must.
        (TlsWish::Required, Demand::Encrypted) => Demand::Verified,
        // §4.2.1: the name of the host must be the domain's own word, by DNSSEC or by its policy. A policy that is only
        // tested says as much as one that is enforced.
        (TlsWish::Required, Demand::Opportunistic) if policy.signed => Demand::Verified,
        (TlsWish::Required, Demand::Opportunistic) if policy.kind == PolicyKind::Sts && names(policy, &host.name) => {
            Demand::Verified
        }
        // It may be, and is looked for again (`deliver::barred`).
        (TlsWish::Required, Demand::Opportunistic) if policy.unknown => Demand::Barred(Arc::new(Barred {
            failure: TlsFailure::StsPolicyFetchError,
            text: "the message has REQUIRETLS, and whether a policy of MTA-STS names this host cannot be found out now".into(),
        })),
        (TlsWish::Required, Demand::Opportunistic) => Demand::Barred(Arc::new(Barred {
            failure: TlsFailure::ValidationFailure,
            text: "the message has REQUIRETLS, and neither DNSSEC nor MTA-STS says that this is the domain's host".into(),
        })),
        (TlsWish::Policy | TlsWish::Required, demand) => demand.clone(),
    }
}

/// Whether a policy by RFC 8461 names this host.
pub fn names(policy: &TlsPolicy, host: &str) -> bool {
    policy.hosts.iter().any(|pattern| Pattern::parse(pattern).is_some_and(|pattern| pattern.allows(host)))
}

/// A demand as `where` says it.
pub fn in_words(demand: &Demand) -> String {
    match demand {
        Demand::Barred(barred) => format!("barred ({}): {}", barred.failure.as_str(), barred.text),
        Demand::Dane(dane) => {
            let records: Vec<_> = dane.records.iter().map(|it| format!("{} {} {}", it.usage, it.selector, it.matching)).collect();
            format!("dane ({} of {})", records.join(", "), dane.base)
        }
        other => other.name().to_owned(),
    }
}

/// How TLS went with one host in one attempt: what TLS-RPT counts (RFC 8460 §4).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsResult {
    /// The host.
    pub host: Arc<str>,
    /// Its address; none when it was not spoken to.
    pub address: Option<IpAddr>,
    /// What failed and how. None: TLS as it was demanded.
    pub failure: Option<(TlsFailure, String)>,
}

/// The TLS clients of one thread.
pub struct Clients {
    opportunistic: tls::Client,
    verified: Option<tls::Client>,
    dane: RefCell<HashMap<Arc<Dane>, tls::Client>>,
}

impl Clients {
    /// Without `trust` nothing can be verified, and mail that demands it waits.
    pub fn new(trust: Option<tls::Trust>) -> Result<Self, tls::Error> {
        let opportunistic = match &trust {
            Some(trust) => tls::Client::opportunistic_noting(trust)?,
            None => tls::Client::opportunistic()?,
        };
        let verified = trust.as_ref().map(tls::Client::verifying).transpose()?;
        Ok(Clients { opportunistic, verified, dane: RefCell::default() })
    }

    /// The client that sees to `demand`; an error says why there is none.
    pub fn of(&self, demand: &Demand) -> Result<tls::Client, String> {
        match demand {
            Demand::Opportunistic | Demand::Encrypted => Ok(self.opportunistic.clone()),
            Demand::Verified => self.verified.clone().ok_or_else(|| "there are no trust anchors to verify it by".to_owned()),
            Demand::Dane(dane) => self.dane(dane).map_err(|error| error.to_string()),
            Demand::Barred(barred) => Err(barred.text.to_string()),
        }
    }

    fn dane(&self, dane: &Arc<Dane>) -> Result<tls::Client, tls::Error> {
        let mut known = self.dane.borrow_mut();
        if let Some(client) = known.get(dane) {
            return Ok(client.clone());
        }
        let records = dane.records.iter().map(|it| {
            let Tlsa { usage, selector, matching, data } = it.clone();
            tls::Tlsa { usage, selector, matching, data }
        });
        let names = [&dane.base].into_iter().chain(&dane.names).map(ToString::to_string);
        let client = tls::Client::dane(records.collect(), names.collect())?;
        if known.len() >= DANE_CLIENTS_MAX {
            known.clear();
        }
        known.insert(dane.clone(), client.clone());
        Ok(client)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shaping_only_ever_raises_a_demand() {
        assert_eq!(at_least(TlsNeed::Required, Demand::Opportunistic), Demand::Encrypted);
        assert_eq!(at_least(TlsNeed::Opportunistic, Demand::Opportunistic), Demand::Opportunistic);
        for need in [TlsNeed::Opportunistic, TlsNeed::Required] {
            for demand in [Demand::Encrypted, Demand::Verified] {
                assert_eq!(at_least(need, demand.clone()), demand);
            }
        }
    }

    #[test]
    fn what_the_sender_says_counts_beside_what_the_domain_demands() {
        let barred: Demand = Demand::Barred(Arc::new(Barred { failure: TlsFailure::DnssecInvalid, text: "bogus".into() }));
        let sts = TlsPolicy { kind: PolicyKind::Sts, testing: true, hosts: ["*.example".into()].into(), ..Default::default() };
        let host = |demand: &Demand| Host { name: "mx.example".into(), preference: 0, addresses: vec![], demand: demand.clone() };
        let of = |wish, policy: &TlsPolicy, demand: &Demand| demanded(wish, policy, &host(demand));
        let none = TlsPolicy::default();
        for demand in [Demand::Opportunistic, Demand::Encrypted, Demand::Verified, barred.clone()] {
            assert_eq!(of(TlsWish::Policy, &none, &demand), demand);
            assert_eq!(of(TlsWish::Waived, &sts, &demand), Demand::Opportunistic);
        }
        assert_eq!(of(TlsWish::Required, &none, &Demand::Verified), Demand::Verified);
        assert_eq!(of(TlsWish::Required, &none, &Demand::Encrypted), Demand::Verified);
        assert_eq!(of(TlsWish::Required, &none, &barred), barred);
        assert_eq!(of(TlsWish::Required, &sts, &Demand::Opportunistic), Demand::Verified);
        let signed = TlsPolicy { signed: true, ..TlsPolicy::default() };
        assert_eq!(of(TlsWish::Required, &signed, &Demand::Opportunistic), Demand::Verified);
        let unknown = TlsPolicy { unknown: true, ..TlsPolicy::default() };
        let failure = |policy: &TlsPolicy| match of(TlsWish::Required, policy, &Demand::Opportunistic) {
            Demand::Barred(barred) => barred.failure,
            other => panic!("{other:?}"),
        };
        assert_eq!(failure(&unknown), TlsFailure::StsPolicyFetchError);
        assert_eq!(failure(&none), TlsFailure::ValidationFailure);
        assert_eq!(of(TlsWish::Policy, &unknown, &Demand::Opportunistic), Demand::Opportunistic);
        let other = TlsPolicy { hosts: ["mx.other".into()].into(), ..sts };
        for policy in [none, other] {
            assert!(matches!(of(TlsWish::Required, &policy, &Demand::Opportunistic), Demand::Barred(_)));
        }
    }
}
