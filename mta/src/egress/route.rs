//! Routes: from a recipient's domain to the hosts that take its mail, in the order to try.
//!
//! RFC 5321 §5.1: the MX records, lowest preference first and in random order among equals; without
//! any, the domain's own addresses. A null MX (RFC 7505) means that the domain takes no mail. What
//! comes back is a `Routed` for the scheduler; domains with the same set of hosts form one site.
//!
//! Runs on the control thread: a slow name server holds up only the mail that waits for its answer.
//!
//! Not here: connecting (`deliver.rs`), what TLSA records demand (`dane.rs`).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use arc_swap::ArcSwap;
use futures_util::{StreamExt as _, stream};
use host::Dice;
use host::dns::{Answer, DnsError, Mx, Resolver};
use scheduler::{Demand, Host, Route, RouteTrouble, Routed, TlsPolicy, Verdict};

use super::dane::{self, NextHop};
use super::plan::Surroundings;
use super::provider::{OTHER, Providers};

/// Hosts of one site that are kept; a domain with more MX records than this loses the least preferred.
const HOSTS_MAX: usize = 16;
/// Addresses of one host that are tried.
const ADDRESSES_MAX: usize = 8;
/// A route is asked for again no later than this, and not sooner than `TTL_MIN`, whatever its TTL.
const TTL_MAX: Duration = Duration::from_secs(3600);
/// Records with a TTL of a few seconds would turn every delivery into a lookup.
const TTL_MIN: Duration = Duration::from_secs(60);

/// Hosts of one route that are looked up at the same time. What a name server that does not answer takes is waited for once by
/// each eight hosts, and one domain does not send a burst of questions.
const LOOKUPS_AT_ONCE: usize = 8;

/// Addresses, and what is demanded of connections there with how long that holds.
type Found = (Answer<IpAddr>, (Demand, Option<Duration>));

/// Finds routes. Cheap to clone.
#[derive(Clone)]
pub struct Router {
    /// Where names are looked up.
    pub resolver: Resolver,
    /// For the order among hosts of equal preference.
    pub dice: Dice,
    /// What changes when the settings are read again.
    pub surroundings: Arc<ArcSwap<Surroundings>>,
    /// Whether mail may go to loopback, private and other special addresses (tests).
    pub allow_private_addresses: bool,
    /// Where hosts listen: TLSA records are a port's.
    pub port: u16,
}

/// The address families that our sources have.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Families {
    /// At least one IPv4 source.
    pub v4: bool,
    /// At least one IPv6 source.
    pub v6: bool,
}

impl Families {
    fn has(self, address: &IpAddr) -> bool {
        match address {
            IpAddr::V4(_) => self.v4,
            IpAddr::V6(_) => self.v6,
        }
    }
}

impl Router {
    /// The route of `domain` (A-labels, or an address literal such as `[192.0.2.1]`).
    pub async fn route(&self, domain: &str, now: SystemTime) -> Routed {
        if let Some(literal) = domain.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
            return self.literal(literal, now);
        }
        let mut next_hop = NextHop { secure: true, names: vec![domain.into()] };
        let (mut exchanges, mut ttl) = match self.resolver.mx(domain).await {
            Ok(answer) => {
                if answer.name != domain {
                    next_hop.names.push(answer.name.into());
                }
                next_hop.secure = answer.secure;
                (answer.records, answer.ttl)
            }
            // RFC 5321 §5.1: no MX records, so the domain itself is the host.
            Err(DnsError::NoRecords) => (vec![Mx { preference: 0, exchange: domain.to_owned() }], TTL_MAX),
            Err(DnsError::NoSuchName) => return failed((5, 1, 2), format!("the domain {domain} does not exist")),
            Err(error @ (DnsError::Temporary(_) | DnsError::Bogus(_))) => return deferred(format!("MX of {domain}: {error}")),
        };
        if exchanges.iter().any(|mx| mx.exchange.trim_end_matches('.').is_empty()) {
            return failed((5, 1, 10), format!("{domain} accepts no mail (null MX, RFC 7505)"));
        }
        for mx in &mut exchanges {
            mx.exchange = mx.exchange.trim_end_matches('.').to_ascii_lowercase();
        }
        let surroundings = self.surroundings.load_full();
        // RFC 5321 §5.1: hosts as preferred as ourselves, or less, must not be tried: mail would loop.
        if let Some(own) =
            exchanges.iter().filter(|mx| surroundings.own_names.contains(&mx.exchange)).map(|mx| mx.preference).min()
        {
            exchanges.retain(|mx| mx.preference < own);
            if exchanges.is_empty() {
                return failed((5, 4, 6), format!("mail for {domain} loops back to this host"));
            }
        }
        self.dice.shuffle(&mut exchanges);
        exchanges.sort_by_key(|mx| mx.preference);
        exchanges.dedup_by(|a, b| a.exchange == b.exchange);
        exchanges.truncate(HOSTS_MAX);

        let mut hosts: Vec<Host> = Vec::with_capacity(exchanges.len());
        let mut problems = Vec::new();
        let mut transient = false;
        let mut found = stream::iter(exchanges.into_iter().map(|mx| self.look_up(mx, &next_hop))).buffered(LOOKUPS_AT_ONCE);
        while let Some((mx, found)) = found.next().await {
            match found {
                Ok((answer, _)) if answer.records.iter().any(|address| surroundings.own_addresses.contains(address)) => {
                    hosts.retain(|host| host.preference < mx.preference);
                    if hosts.is_empty() && !transient {
                        return failed((5, 4, 6), format!("mail for {domain} loops back to this host as {}", mx.exchange));
                    }
                    problems.push(format!("{} is this host", mx.exchange));
                    break;
                }
                Ok((answer, (demand, demand_ttl))) => {
                    let usable: Vec<IpAddr> =
                        answer.records.iter().filter(|a| self.may_use(a)).take(ADDRESSES_MAX).copied().collect();
                    if usable.is_empty() {
                        problems.push(format!("{} has no address that may be used", mx.exchange));
                    } else {
                        ttl = ttl.min(answer.ttl).min(demand_ttl.unwrap_or(TTL_MAX));
                        hosts.push(Host { name: mx.exchange.into(), preference: mx.preference, addresses: usable, demand });
                    }
                }
                Err(error @ (DnsError::Temporary(_) | DnsError::Bogus(_))) => {
                    transient = true;
                    problems.push(format!("addresses of {}: {error}", mx.exchange));
                }
                Err(DnsError::NoSuchName | DnsError::NoRecords) => problems.push(format!("{} has no address", mx.exchange)),
            }
        }
        if hosts.is_empty() {
            let text = format!("no host takes mail for {domain}: {}", problems.join("; "));
            return if transient { deferred(text) } else { failed((5, 4, 4), text) };
        }
        let tls = TlsPolicy { signed: next_hop.secure, ..dane::policy(self.port, &hosts) };
        Routed::Route(Arc::new(assemble(hosts, tls, &surroundings.providers, now + ttl.clamp(TTL_MIN, TTL_MAX))))
    }

    /// The addresses of a host, and what it demands if any of them may be used.
    async fn look_up(&self, mx: Mx, next_hop: &NextHop) -> (Mx, Result<Found, DnsError>) {
        let answer = match self.resolver.host(&mx.exchange).await {
            Ok(answer) => answer,
            Err(error) => return (mx, Err(error)),
        };
        let demand = match answer.records.iter().any(|address| self.may_use(address)) {
            true => dane::demand(&self.resolver, self.port, next_hop, &mx.exchange, &answer).await,
            false => (Demand::Opportunistic, None),
        };
        (mx, Ok((answer, demand)))
    }

    fn literal(&self, literal: &str, now: SystemTime) -> Routed {
        let surroundings = self.surroundings.load_full();
        let text = literal.strip_prefix("IPv6:").or_else(|| literal.strip_prefix("ipv6:")).unwrap_or(literal);
        match text.parse::<IpAddr>() {
            Ok(address) if surroundings.own_addresses.contains(&address) => {
                failed((5, 4, 6), format!("[{literal}] is this host"))
            }
            Ok(address) if self.may_use(&address) => {
                let name: Arc<str> = format!("[{literal}]").into();
                let host = Host { name, preference: 0, addresses: vec![address], demand: Demand::Opportunistic };
                Routed::Route(Arc::new(assemble(
                    vec![host],
                    TlsPolicy::default(),
                    &self.surroundings.load().providers,
                    now + TTL_MAX,
                )))
            }
            Ok(_) => failed((5, 4, 4), format!("[{literal}] is not an address that mail may be sent to")),
            Err(_) => failed((5, 1, 3), format!("[{literal}] is not an address literal")),
        }
    }

    fn may_use(&self, address: &IpAddr) -> bool {
        self.surroundings.load().families.has(address) && (self.allow_private_addresses || is_public(address))
    }
}

/// One site from its hosts: the name is the sorted set of host names, so that every domain with
/// the same set lands in the same site, whatever order its records came in.
fn assemble(hosts: Vec<Host>, tls: TlsPolicy, providers: &Providers, valid_until: SystemTime) -> Route {
    let mut names: Vec<&str> = hosts.iter().map(|host| &*host.name).collect();
    names.sort_unstable();
    let site: Arc<str> = names.join(",").into();
    // The most preferred host tells who operates the site; backup hosts are often someone else's.
    let provider: Arc<str> = hosts.first().map_or_else(|| OTHER.into(), |host| providers.of(&host.name));
    Route { site, provider, hosts, tls, valid_until }
}

fn failed(code: (u8, u16, u16), text: String) -> Routed {
    Routed::Trouble(RouteTrouble { verdict: Verdict::Failed, code, text: text.into() })
}

fn deferred(text: String) -> Routed {
    Routed::Trouble(RouteTrouble { verdict: Verdict::Deferred, code: (4, 4, 3), text: text.into() })
}

/// Whether mail on the public Internet may be at this address: not loopback, private, link-local,
/// shared, documentation, multicast or reserved space (RFC 6890). An MX record that names such an
/// address would have us speak to our own network.
pub fn is_public(address: &IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => is_public_v4(v4),
        IpAddr::V6(v6) => match v6.to_ipv4_mapped() {
            Some(v4) => is_public_v4(&v4),
            None => is_public_v6(v6),
        },
    }
}

fn is_public_v4(a: &Ipv4Addr) -> bool {
    let o = a.octets();
    let shared = o[0] == 100 && (64..128).contains(&o[1]); // RFC 6598
    let benchmark = o[0] == 198 && (18..20).contains(&o[1]); // RFC 2544
    let special = o[0] == 0 || o[0] >= 240 || (o[0] == 192 && o[1] == 0 && o[2] == 0);
    !(a.is_loopback()
        || a.is_private()
        || a.is_link_local()
        || a.is_multicast()
        || a.is_documentation()
        || shared
        || benchmark
        || special)
}

fn is_public_v6(a: &Ipv6Addr) -> bool {
    let s = a.segments();
    // Global unicast is 2000::/3; documentation lies inside it (RFC 3849, RFC 9637), and so do the
    // transition prefixes that carry an IPv4 address: 2002::/16 and Teredo.
    s[0] & 0xe000 == 0x2000 && !(s[0] == 0x2001 && (s[1] == 0xdb8 || s[1] == 0)) && s[0] != 0x2002 && s[0] != 0x3fff
}

#[cfg(test)]
#[path = "route_tests.rs"]
mod tests;
