//! DANE: what the TLSA records of a host demand of a connection to it (RFC 7672 §2).
//!
//! They count where signatures vouch for the whole way to them: the MX records, the host's addresses, the records. A way
//! that is not signed demands nothing; one that cannot be seen now (no answer, signatures that do not hold) bars the host
//! until it can, because an attacker could hide the records like that.
//!
//! | what is found | what is demanded |
//! |---|---|
//! | MX or addresses unsigned, or no TLSA records there | nothing: opportunistic |
//! | records of which one can be used | a certificate that they vouch for |
//! | records of which none can be used | TLS, with any certificate (§2.2) |
//! | no answer, or a forged one | no mail to this host now (§2.1.2) |
//!
//! Not here: what a record vouches for (`host::tls`), what is done about demands (`link.rs`, `deliver.rs`).

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use host::dns::{Answer, DnsError, Resolver};
use scheduler::{Barred, Dane, Demand, Host, PolicyKind, TlsFailure, TlsPolicy, Tlsa};

/// A host that is barred is looked at again after this.
pub const BARRED_TTL: Duration = Duration::from_secs(60);

/// How the recipient domain led to its hosts.
#[derive(Clone, Debug)]
pub struct NextHop {
    /// Its MX records are signed, or it has none and is its own host.
    pub secure: bool,
    /// Its name, and the one that it is an alias of.
    pub names: Vec<Arc<str>>,
}

/// What is demanded of a host, and how long that holds, if it is shorter than what led there.
pub async fn demand(
    resolver: &Resolver,
    port: u16,
    next_hop: &NextHop,
    host: &str,
    addresses: &Answer<IpAddr>,
) -> (Demand, Option<Duration>) {
    if !next_hop.secure {
        return (Demand::Opportunistic, None);
    }
    match find(resolver, port, next_hop, host, addresses).await {
        Ok(Some((demand, ttl))) => (demand, Some(ttl)),
        Ok(None) => (Demand::Opportunistic, None),
        Err(barred) => (Demand::Barred(Arc::new(barred)), Some(BARRED_TTL)),
    }
}

async fn find(
    resolver: &Resolver,
    port: u16,
    next_hop: &NextHop,
    host: &str,
    addresses: &Answer<IpAddr>,
) -> Result<Option<(Demand, Duration)>, Barred> {
    for base in bases(resolver, host, addresses).await? {
        let name = format!("_{port}._tcp.{base}");
        match resolver.tlsa(&name).await {
            // An unsigned delegation below a signed name: nobody vouches for it, so it is as if it were not there (§2.1.1).
            Ok(answer) if !answer.secure => {}
            Ok(answer) => return Ok(Some((of_records(answer.records, base, next_hop), answer.ttl))),
            Err(DnsError::NoSuchName | DnsError::NoRecords) => {}
            Err(error) => return Err(unseen(&name, "TLSA records", &error)),
        }
    }
    Ok(None)
}

/// The TLSA base domains to try, in this order (§2.2.3): what the host is an alias of, and the host itself.
async fn bases(resolver: &Resolver, host: &str, addresses: &Answer<IpAddr>) -> Result<Vec<String>, Barred> {
    let is_alias = addresses.name != host;
    if addresses.secure {
        let own = is_alias.then(|| host.to_owned());
        return Ok([addresses.name.clone()].into_iter().chain(own).collect());
    }
    if !is_alias {
        return Ok(Vec::new());
    }
    // Led astray by an unsigned alias, or by a signed one to an unsigned name; in the second case the host may have records.
    match resolver.alias(host).await {
        Ok(alias) if alias.secure => Ok(vec![host.to_owned()]),
        Ok(_) | Err(DnsError::NoSuchName | DnsError::NoRecords) => Ok(Vec::new()),
        Err(error) => Err(unseen(host, "the alias", &error)),
    }
}

fn of_records(records: Vec<host::dns::Tlsa>, base: String, next_hop: &NextHop) -> Demand {
    let records: Vec<Tlsa> = host::dns::Tlsa::usable(records)
        .into_iter()
        .map(|it| Tlsa { usage: it.usage, selector: it.selector, matching: it.matching, data: it.data })
        .collect();
    if records.is_empty() {
        return Demand::Encrypted;
    }
    // A pinned certificate is asked for no name; without names, domains share connections to the host (§3.1.1).
    let by_name = records.iter().any(|record| record.usage == 2);
    let names = next_hop.names.iter().filter(|name| by_name && ***name != base).cloned().collect();
    Demand::Dane(Arc::new(Dane { base: base.into(), names, records }))
}

fn unseen(name: &str, what: &str, error: &DnsError) -> Barred {
    Barred { failure: TlsFailure::DnssecInvalid, text: format!("{what} of {name} cannot be seen: {error}").into() }
}

/// What the domain publishes, as far as it is DANE.
pub fn policy(port: u16, hosts: &[Host]) -> TlsPolicy {
    let promised = hosts.iter().any(|host| host.demand != Demand::Opportunistic);
    if !promised {
        return TlsPolicy::default();
    }
    let line = |dane: &Dane, record: &Tlsa| -> Arc<str> {
        let Tlsa { usage, selector, matching, data } = record;
        let data: String = data.iter().map(|octet| format!("{octet:02x}")).collect();
        format!("_{port}._tcp.{}. IN TLSA {usage} {selector} {matching} {data}", dane.base).into()
    };
    let of_host = |host: &Host| match &host.demand {
        Demand::Dane(dane) => dane.records.iter().map(|record| line(dane, record)).collect(),
        _ => Vec::new(),
    };
    TlsPolicy {
        kind: PolicyKind::Dane,
        testing: false,
        strings: hosts.iter().flat_map(of_host).collect(),
        hosts: hosts.iter().map(|host| host.name.clone()).collect(),
        // The route knows, and the policy's own search.
        signed: false,
        unknown: false,
    }
}

#[cfg(test)]
#[path = "dane_tests.rs"]
mod tests;
