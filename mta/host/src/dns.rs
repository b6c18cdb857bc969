//! DNS: the few questions that mail asks, with answers that tell apart "no such name", "nothing of that kind" and "try later".
//!
//! Names are asked as they are, fully qualified: no search list, no hosts file. Answers carry the time that they may be kept.
//! Behind it is hickory with its bounded cache, or a [`Zone`] written by a test.
//!
//! Not here: preference, null MX, address fallback, private addresses: `egress/route` decides about those.

mod zone;

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use hickory_resolver::config::{ConnectionConfig, NameServerConfig, ResolveHosts, ResolverConfig};
use hickory_resolver::lookup::Lookup;
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use hickory_resolver::net::{DnsError as ProtocolError, NetError};
use hickory_resolver::proto::dnssec::Proof;
use hickory_resolver::proto::op::ResponseCode;
use hickory_resolver::proto::rr::{Name, RData, RecordType};
use hickory_resolver::{ResolverBuilder, TokioResolver};

pub use zone::Zone;

/// Answers kept in memory; past it the least useful go.
const CACHED_MAX: u64 = 32_768;

/// No answer is kept for longer than a day, whatever it says of itself.
const TTL_MAX: Duration = Duration::from_secs(86_400);

/// "Not there" is believed for no longer than this.
const NEGATIVE_TTL_MAX: Duration = Duration::from_secs(300);

/// One MX record. A null MX (RFC 7505) has the exchange `.`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Mx {
    /// Lower is tried first.
    pub preference: u16,
    /// The host's name, in lower case and without the final dot.
    pub exchange: String,
}

/// Why there is no answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DnsError {
    /// The name does not exist (NXDOMAIN), or cannot.
    NoSuchName,
    /// The name exists, without records of the kind asked for (NODATA).
    NoRecords,
    /// Nobody could say: ask again later. The text is for the operator.
    Temporary(String),
}

impl fmt::Display for DnsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoSuchName => f.write_str("no such name"),
            Self::NoRecords => f.write_str("no such records"),
            Self::Temporary(why) => write!(f, "no answer now: {why}"),
        }
    }
}

impl std::error::Error for DnsError {}

/// Who checks signatures.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Dnssec {
    /// We do, from the root on; forged answers are [`DnsError::Temporary`].
    #[default]
    Validate,
    /// The name server does, and is near enough to be believed: what it finds forged it does not answer.
    TrustAd,
    /// Nobody.
    Off,
}

/// Asks the DNS. Clones share the cache. Use all clones in one runtime, or in runtimes that live as long as each other.
#[derive(Clone)]
pub struct Resolver(Source);

#[derive(Clone)]
enum Source {
    Network(Arc<TokioResolver>),
    Scripted(Zone),
}

impl Resolver {
    /// With the name servers of /etc/resolv.conf.
    pub fn system(dnssec: Dnssec) -> Result<Self, DnsError> {
        let builder =
            TokioResolver::builder_tokio().map_err(|error| DnsError::Temporary(format!("/etc/resolv.conf: {error}")))?;
        Self::build(builder, dnssec)
    }

    /// With the name servers given, each by UDP and, for long answers, TCP.
    pub fn with_nameservers(nameservers: &[SocketAddr], dnssec: Dnssec) -> Result<Self, DnsError> {
        if nameservers.is_empty() {
            return Err(DnsError::Temporary("no name server is configured".to_owned()));
        }
        let servers = nameservers.iter().map(|server| {
            let mut connections = vec![ConnectionConfig::udp(), ConnectionConfig::tcp()];
            connections.iter_mut().for_each(|connection| connection.port = server.port());
            NameServerConfig::new(server.ip(), true, connections)
        });
        let config = ResolverConfig::from_name_servers(servers.collect());
        Self::build(TokioResolver::builder_with_config(config, TokioRuntimeProvider::default()), dnssec)
    }

    /// With answers written by a test.
    pub fn scripted(zone: Zone) -> Self {
        Self(Source::Scripted(zone))
    }

    fn build(mut builder: ResolverBuilder<TokioRuntimeProvider>, dnssec: Dnssec) -> Result<Self, DnsError> {
        let options = builder.options_mut();
        options.validate = dnssec == Dnssec::Validate;
        options.use_hosts_file = ResolveHosts::Never;
        options.cache_size = CACHED_MAX;
        // Three askings in nine seconds. A recursive server that needed longer has the answer by the next attempt.
        (options.timeout, options.attempts) = (Duration::from_secs(3), 2);
        options.positive_max_ttl = Some(TTL_MAX);
        // A name that was missing may be there in minutes; members wait for that while they set up their domain.
        options.negative_max_ttl = Some(NEGATIVE_TTL_MAX);
        // The bound of hickory's UDP sockets is theirs; this one is for questions that share a TCP connection.
        options.max_active_requests = 256;
        builder
            .build()
            .map(|resolver| Self(Source::Network(Arc::new(resolver))))
            .map_err(|error| DnsError::Temporary(error.to_string()))
    }

    /// The MX records of `domain`, in no order.
    pub async fn mx(&self, domain: &str) -> Result<(Vec<Mx>, Duration), DnsError> {
        match &self.0 {
            Source::Network(resolver) => {
                lookup(resolver, name(domain)?, RecordType::MX, |data| match data {
                    RData::MX(mx) => Some(Mx { preference: mx.preference, exchange: host(&mx.exchange) }),
                    _ => None,
                })
                .await
            }
            Source::Scripted(zone) => zone.mx_of(domain).await,
        }
    }

    /// The addresses of `host`, IPv4 first. An answer for one family is an answer, even if the other's is missing.
    pub async fn addresses(&self, host: &str) -> Result<(Vec<IpAddr>, Duration), DnsError> {
        let resolver = match &self.0 {
            Source::Network(resolver) => resolver,
            Source::Scripted(zone) => return zone.addresses_of(host).await,
        };
        let name = name(host)?;
        let four = lookup(resolver, name.clone(), RecordType::A, |data| match data {
            RData::A(address) => Some(IpAddr::V4(address.0)),
            _ => None,
        });
        let six = lookup(resolver, name, RecordType::AAAA, |data| match data {
            RData::AAAA(address) => Some(IpAddr::V6(address.0)),
            _ => None,
        });
        match tokio::join!(four, six) {
            (Ok((mut addresses, ttl)), Ok((more, other_ttl))) => {
                addresses.extend(more);
                Ok((addresses, ttl.min(other_ttl)))
            }
            (Ok(found), Err(_)) | (Err(_), Ok(found)) => Ok(found),
            // What may be there later outweighs what is not there now.
            (Err(error @ DnsError::Temporary(_)), _) | (_, Err(error @ DnsError::Temporary(_))) => Err(error),
            (Err(DnsError::NoSuchName), _) | (_, Err(DnsError::NoSuchName)) => Err(DnsError::NoSuchName),
            (Err(error), Err(_)) => Err(error),
        }
    }

    /// The TXT records of `name`, each with its pieces joined. Octets that are not UTF-8 are replaced.
    pub async fn txt(&self, domain: &str) -> Result<(Vec<String>, Duration), DnsError> {
        match &self.0 {
            Source::Network(resolver) => {
                lookup(resolver, name(domain)?, RecordType::TXT, |data| match data {
                    RData::TXT(text) => Some(String::from_utf8_lossy(&text.txt_data.concat()).into_owned()),
                    _ => None,
                })
                .await
            }
            Source::Scripted(zone) => zone.txt_of(domain).await,
        }
    }

    /// The names that `address` claims to have.
    pub async fn ptr(&self, address: IpAddr) -> Result<(Vec<String>, Duration), DnsError> {
        match &self.0 {
            Source::Network(resolver) => {
                lookup(resolver, Name::from(address), RecordType::PTR, |data| match data {
                    RData::PTR(name) => Some(host(name)),
                    _ => None,
                })
                .await
            }
            Source::Scripted(zone) => zone.ptr_of(address).await,
        }
    }
}

impl fmt::Debug for Resolver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.0 {
            Source::Network(_) => "Resolver",
            Source::Scripted(_) => "Resolver::scripted",
        })
    }
}

/// A name that DNS cannot carry (an empty label, one of 64 octets) does not exist in it.
fn name(text: &str) -> Result<Name, DnsError> {
    let mut name = Name::from_ascii(text).map_err(|_| DnsError::NoSuchName)?;
    name.set_fqdn(true);
    Ok(name)
}

/// A name as the rest of the daemon writes it. The root stays `.`: that is the null MX.
fn host(name: &Name) -> String {
    let text = name.to_ascii().to_ascii_lowercase();
    match text.strip_suffix('.') {
        Some("") | None => text,
        Some(stripped) => stripped.to_owned(),
    }
}

async fn lookup<T>(
    resolver: &TokioResolver,
    name: Name,
    kind: RecordType,
    pick: impl Fn(&RData) -> Option<T>,
) -> Result<(Vec<T>, Duration), DnsError> {
    let lookup: Lookup = resolver.lookup(name, kind).await.map_err(reason)?;
    // Beside what was asked for, the answer holds the CNAMEs that led there, and signatures.
    let found: Vec<T> = lookup.answers().iter().filter_map(|record| pick(&record.data)).collect();
    if found.is_empty() {
        return Err(DnsError::NoRecords);
    }
    Ok((found, lookup.valid_until().saturating_duration_since(std::time::Instant::now())))
}

fn reason(error: NetError) -> DnsError {
    let missing = |code| if code == ResponseCode::NXDomain { DnsError::NoSuchName } else { DnsError::NoRecords };
    match error {
        NetError::Dns(ProtocolError::NoRecordsFound(none)) => match none.response_code {
            code @ (ResponseCode::NXDomain | ResponseCode::NoError) => missing(code),
            code => DnsError::Temporary(format!("the name server answered {code}")),
        },
        NetError::Dns(ProtocolError::Nsec { response, proof, .. }) if proof != Proof::Bogus => missing(response.response_code),
        other => DnsError::Temporary(other.to_string()),
    }
}
