//! DNS: the few questions that mail asks, with answers that tell apart "no such name", "nothing of that kind" and "try later".
//!
//! Names are asked as they are, fully qualified: no search list, no hosts file. Answers carry the time that they may be kept.
//! Behind it is hickory (`dns/network.rs`) and a bounded cache, or a [`Zone`] written by a test.
//!
//! Not here: preference, null MX, address fallback, private addresses: `egress/route` decides about those.

mod cache;
mod failures;
mod network;
mod pulse;
mod zone;

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use network::Network;
use pulse::Pulse;

pub use crate::tls::Tlsa;
pub use pulse::Health;
pub use zone::Zone;

/// How a [`DnsError::Temporary`] begins where a name server did answer.
const ANSWERED: &str = "the name server answered ";

/// One MX record. A null MX (RFC 7505) has the exchange `.`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Mx {
    /// Lower is tried first.
    pub preference: u16,
    /// The host's name, in lower case and without the final dot.
    pub exchange: String,
}

/// What was asked for, and what is known of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer<T> {
    /// At least one.
    pub records: Vec<T>,
    /// How long they may be kept.
    pub ttl: Duration,
    /// Whether signatures vouch for all of it, from a trust anchor on, every alias on the way included.
    pub secure: bool,
    /// The name whose records these are: the one asked for, or the last of the aliases that it led to.
    pub name: String,
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
    /// There was an answer whose signatures do not hold: it is forged, or badly signed. Ask again later, and do not act as if
    /// there were no records.
    Bogus(String),
}

impl fmt::Display for DnsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoSuchName => f.write_str("no such name"),
            Self::NoRecords => f.write_str("no such records"),
            Self::Temporary(why) => write!(f, "no answer now: {why}"),
            Self::Bogus(why) => write!(f, "forged, or badly signed: {why}"),
        }
    }
}

impl std::error::Error for DnsError {}

/// Who checks signatures.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Dnssec {
    /// We do, from the root on; forged answers are [`DnsError::Bogus`].
    #[default]
    Validate,
    /// The name server does, and says so by the AD bit (RFC 6840 §5.8). It must be on loopback: whoever stands between could
    /// set the bit. What it finds forged it does not answer, so that this is [`DnsError::Temporary`] to us.
    TrustAd,
    /// Nobody.
    Off,
}

/// Asks the DNS. Clones share the cache. Use all clones in one runtime, or in runtimes that live as long as each other.
#[derive(Clone)]
pub struct Resolver {
    source: Source,
    pulse: Arc<Pulse>,
}

#[derive(Clone)]
enum Source {
    Network(Arc<Network>),
    Scripted(Zone),
}

impl Resolver {
    /// With the name servers of /etc/resolv.conf.
    pub fn system(dnssec: Dnssec) -> Result<Self, DnsError> {
        Network::of_system(dnssec, None).map(Self::over)
    }

    /// With the name servers given, each by UDP and, for long answers, TCP. The first is asked; the next when it does not
    /// answer, fails, or answers what its signatures belie.
    pub fn with_nameservers(nameservers: &[SocketAddr], dnssec: Dnssec) -> Result<Self, DnsError> {
        Network::of_servers(nameservers, dnssec, None).map(Self::over)
    }

    /// The same, checking signatures from the DNSKEY records of a file on, in place of the root's. Without name servers
    /// those of /etc/resolv.conf.
    pub fn with_trust_anchor(nameservers: Option<&[SocketAddr]>, trust_anchor: &Path) -> Result<Self, DnsError> {
        let network = match nameservers {
            Some(nameservers) => Network::of_servers(nameservers, Dnssec::Validate, Some(trust_anchor)),
            None => Network::of_system(Dnssec::Validate, Some(trust_anchor)),
        };
        network.map(Self::over)
    }

    /// With answers written by a test.
    pub fn scripted(zone: Zone) -> Self {
        Self { source: Source::Scripted(zone), pulse: Arc::default() }
    }

    fn over(network: Network) -> Self {
        let pulse = network.pulse();
        Self { source: Source::Network(Arc::new(network)), pulse }
    }

    /// What became of questions in the last minutes.
    pub fn health(&self) -> Health {
        self.pulse.health()
    }

    fn counted<T>(&self, found: Result<T, DnsError>) -> Result<T, DnsError> {
        self.pulse.note(&found);
        found
    }

    /// The MX records of `domain`, in no order.
    pub async fn mx(&self, domain: &str) -> Result<Answer<Mx>, DnsError> {
        match &self.source {
            Source::Network(network) => network.mx(domain).await,
            Source::Scripted(zone) => self.counted(zone.mx_of(domain).await),
        }
    }

    /// The addresses of `host`, IPv4 first. An answer for one family is an answer, even if the other's is missing.
    pub async fn host(&self, host: &str) -> Result<Answer<IpAddr>, DnsError> {
        match &self.source {
            Source::Network(network) => network.host(host).await,
            Source::Scripted(zone) => self.counted(zone.host_of(host).await),
        }
    }

    /// The same, for those who do not ask whether it is signed.
    pub async fn addresses(&self, host: &str) -> Result<(Vec<IpAddr>, Duration), DnsError> {
        self.host(host).await.map(|answer| (answer.records, answer.ttl))
    }

    /// The TLSA records of `name`, such as `_25._tcp.mx.example.org`. They mean something only where the answer is secure.
    pub async fn tlsa(&self, name: &str) -> Result<Answer<Tlsa>, DnsError> {
        match &self.source {
            Source::Network(network) => network.tlsa(name).await,
            Source::Scripted(zone) => self.counted(zone.tlsa_of(name).await),
        }
    }

    /// The name that `name` is an alias of, and no further. [`DnsError::NoRecords`]: it is none.
    pub async fn alias(&self, name: &str) -> Result<Answer<String>, DnsError> {
        match &self.source {
            Source::Network(network) => network.alias(name).await,
            Source::Scripted(zone) => self.counted(zone.alias_of(name).await),
        }
    }

    /// The TXT records of `name`, each with its pieces joined. Octets that are not UTF-8 are replaced.
    pub async fn txt(&self, name: &str) -> Result<(Vec<String>, Duration), DnsError> {
        let answer = match &self.source {
            Source::Network(network) => network.txt(name).await,
            Source::Scripted(zone) => self.counted(zone.txt_of(name).await),
        };
        answer.map(|answer| (answer.records, answer.ttl))
    }

    /// The names that `address` claims to have.
    pub async fn ptr(&self, address: IpAddr) -> Result<(Vec<String>, Duration), DnsError> {
        let answer = match &self.source {
            Source::Network(network) => network.ptr(address).await,
            Source::Scripted(zone) => self.counted(zone.ptr_of(address).await),
        };
        answer.map(|answer| (answer.records, answer.ttl))
    }
}

impl fmt::Debug for Resolver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.source {
            Source::Network(_) => "Resolver",
            Source::Scripted(_) => "Resolver::scripted",
        })
    }
}
