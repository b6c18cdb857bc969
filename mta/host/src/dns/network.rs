//! The DNS over the network: hickory, a client for each name server, and one cache before all of them (`dns/cache.rs`).
//!
//! Name servers are asked in the order of configuration: the next one when one does not answer, fails, or gives an answer
//! whose signatures do not hold. One that had to stand in is asked first for a minute, so that a dead one costs its timeout
//! once and not at every question.
//!
//! Signatures are checked by hickory from the trust anchor on, or the AD bit of a name server on loopback is believed. With
//! hickory 0.26.3 zones signed by RSASHA1 and RSASHA1-NSEC3-SHA1 are checked like the others, and what uses an algorithm or
//! a DS digest that it does not know counts as unsigned (RFC 4035 §5.2).
//!
//! The client is put together here from hickory's parts, because its `Resolver` keeps messages whole, and verdicts on a million
//! sets of records for each name server.
//!
//! Not here: what the answers mean (`egress/route`, `egress/dane`).

use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use hickory_resolver::caching_client::CachingClient;
use hickory_resolver::config::{ConnectionConfig, NameServerConfig, ResolverOpts};
use hickory_resolver::lookup::Lookup;
use hickory_resolver::net::dnssec::DnssecDnsHandle;
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use hickory_resolver::net::xfer::{DnsExchange, DnsHandle, RetryDnsHandle};
use hickory_resolver::net::{DnsError as ProtocolError, NetError};
use hickory_resolver::proto::dnssec::{Proof, TrustAnchors};
use hickory_resolver::proto::op::{DnsRequest, DnsRequestOptions, Query, ResponseCode};
use hickory_resolver::proto::rr::{Name, RData, RecordType};
use hickory_resolver::{ConnectionProvider, NameServerPool, PoolContext, TlsConfig, system_conf};
use tokio::time::Instant;

use super::cache::{Cache, Record};
use super::failures::Failures;
use super::pulse::Pulse;
use super::{ANSWERED, Answer, DnsError, Dnssec, Mx, Tlsa};

/// Sets of records of one name server whose signatures were looked at and need not be again; past it those not met for longest
/// go. It spares us to verify the keys of the root and of top-level domains each time; what is below is in the cache of answers.
const VALIDATED_MAX: usize = 4096;

/// No answer is kept for longer than a day, whatever it says of itself.
const TTL_MAX: Duration = Duration::from_secs(86_400);

/// "Not there" is believed for no longer than this.
const NEGATIVE_TTL_MAX: Duration = Duration::from_secs(300);

/// How long a name server that stood in for one before it is asked first.
const PREFERRED_FOR: Duration = Duration::from_secs(60);

/// Name servers, in the order to ask.
pub(super) struct Network {
    servers: Vec<Client>,
    dnssec: Dnssec,
    known: Known,
    failures: Failures,
    pulse: Arc<Pulse>,
    /// The one that stood in, and until when it is asked first.
    preferred: Mutex<Option<(usize, Instant)>>,
}

/// What was answered.
#[derive(Default)]
struct Known {
    mx: Cache<Mx>,
    v4: Cache<IpAddr>,
    v6: Cache<IpAddr>,
    tlsa: Cache<Tlsa>,
    alias: Cache<String>,
    txt: Cache<String>,
    ptr: Cache<String>,
}

/// One name server.
enum Client {
    Validating(CachingClient<DnssecDnsHandle<Pool>>, DnsRequestOptions),
    Believing(CachingClient<Pool>, DnsRequestOptions),
}

type Pool = RetryDnsHandle<NameServerPool<Asking>>;

impl Network {
    pub(super) fn of_system(dnssec: Dnssec, trust_anchor: Option<&Path>) -> Result<Self, DnsError> {
        let (config, _) =
            system_conf::read_system_conf().map_err(|error| DnsError::Temporary(format!("/etc/resolv.conf: {error}")))?;
        Self::build(config.name_servers().to_vec(), dnssec, trust_anchor, "/etc/resolv.conf names")
    }

    pub(super) fn of_servers(servers: &[SocketAddr], dnssec: Dnssec, trust_anchor: Option<&Path>) -> Result<Self, DnsError> {
        let servers = servers.iter().map(|server| {
            let mut connections = vec![ConnectionConfig::udp(), ConnectionConfig::tcp()];
            connections.iter_mut().for_each(|connection| connection.port = server.port());
            NameServerConfig::new(server.ip(), true, connections)
        });
        Self::build(servers.collect(), dnssec, trust_anchor, "the configuration names")
    }

    fn build(servers: Vec<NameServerConfig>, dnssec: Dnssec, trust_anchor: Option<&Path>, who: &str) -> Result<Self, DnsError> {
        if servers.is_empty() {
            return Err(DnsError::Temporary("no name server is configured".to_owned()));
        }
        let far = servers.iter().find(|server| !server.ip.is_loopback());
        if let (Dnssec::TrustAd, Some(far)) = (dnssec, far) {
            let text = format!("{who} {}, which is not on loopback: its AD bit cannot be trusted; use \"validate\"", far.ip);
            return Err(DnsError::Temporary(text));
        }
        let anchors = trust_anchor.map(read_anchors).transpose()?;
        let servers = servers.into_iter().map(|server| Client::new(server, dnssec, anchors.clone())).collect::<Result<_, _>>()?;
        let (known, failures, pulse, preferred) = Default::default();
        Ok(Network { servers, dnssec, known, failures, pulse, preferred })
    }

    pub(super) fn pulse(&self) -> Arc<Pulse> {
        self.pulse.clone()
    }

    pub(super) async fn mx(&self, domain: &str) -> Result<Answer<Mx>, DnsError> {
        self.lookup(&self.known.mx, name(domain)?, RecordType::MX, |data| match data {
            RData::MX(mx) => Some(Mx { preference: mx.preference, exchange: text(&mx.exchange) }),
            _ => None,
        })
        .await
    }

    pub(super) async fn host(&self, host: &str) -> Result<Answer<IpAddr>, DnsError> {
        let name = name(host)?;
        let four = self.lookup(&self.known.v4, name.clone(), RecordType::A, |data| match data {
            RData::A(address) => Some(IpAddr::V4(address.0)),
            _ => None,
        });
        let six = self.lookup(&self.known.v6, name, RecordType::AAAA, |data| match data {
            RData::AAAA(address) => Some(IpAddr::V6(address.0)),
            _ => None,
        });
        match tokio::join!(four, six) {
            (Ok(mut found), Ok(more)) => {
                found.records.extend(more.records);
                found.ttl = found.ttl.min(more.ttl);
                found.secure &= more.secure;
                Ok(found)
            }
            (Ok(found), Err(_)) | (Err(_), Ok(found)) => Ok(found),
            // What may be there later outweighs what is not there now.
            (Err(error @ DnsError::Bogus(_)), _) | (_, Err(error @ DnsError::Bogus(_))) => Err(error),
            (Err(error @ DnsError::Temporary(_)), _) | (_, Err(error @ DnsError::Temporary(_))) => Err(error),
            (Err(DnsError::NoSuchName), _) | (_, Err(DnsError::NoSuchName)) => Err(DnsError::NoSuchName),
            (Err(error), Err(_)) => Err(error),
        }
    }

    pub(super) async fn tlsa(&self, of: &str) -> Result<Answer<Tlsa>, DnsError> {
        self.lookup(&self.known.tlsa, name(of)?, RecordType::TLSA, |data| match data {
            RData::TLSA(tlsa) => Some(Tlsa {
                usage: tlsa.cert_usage.into(),
                selector: tlsa.selector.into(),
                matching: tlsa.matching.into(),
                data: tlsa.cert_data.clone(),
            }),
            _ => None,
        })
        .await
    }

    pub(super) async fn alias(&self, of: &str) -> Result<Answer<String>, DnsError> {
        self.lookup(&self.known.alias, name(of)?, RecordType::CNAME, |data| match data {
            RData::CNAME(target) => Some(text(target)),
            _ => None,
        })
        .await
    }

    pub(super) async fn txt(&self, of: &str) -> Result<Answer<String>, DnsError> {
        self.lookup(&self.known.txt, name(of)?, RecordType::TXT, |data| match data {
            RData::TXT(text) => Some(String::from_utf8_lossy(&text.txt_data.concat()).into_owned()),
            _ => None,
        })
        .await
    }

    pub(super) async fn ptr(&self, address: IpAddr) -> Result<Answer<String>, DnsError> {
        self.lookup(&self.known.ptr, Name::from(address), RecordType::PTR, |data| match data {
            RData::PTR(name) => Some(text(name)),
            _ => None,
        })
        .await
    }

    async fn lookup<T: Record>(
        &self,
        known: &Cache<T>,
        name: Name,
        kind: RecordType,
        pick: impl Fn(&RData) -> Option<T>,
    ) -> Result<Answer<T>, DnsError> {
        let asked = text(&name);
        if let Some(known) = known.get(&asked) {
            return known;
        }
        if let Some(error) = self.failures.get(&asked, kind) {
            return Err(error);
        }
        let (found, ttl) = self.ask(name, kind, pick).await;
        self.pulse.note(&found);
        known.put(&asked, &found, ttl);
        self.failures.put(&asked, kind, &found);
        found
    }

    /// What the name servers say, and for how long it may be kept.
    async fn ask<T>(
        &self,
        name: Name,
        kind: RecordType,
        pick: impl Fn(&RData) -> Option<T>,
    ) -> (Result<Answer<T>, DnsError>, Duration) {
        let (count, first) = (self.servers.len(), self.first());
        let mut error = None;
        for step in 0..count {
            let nth = (first + step) % count;
            let (found, ttl) = match self.servers[nth].lookup(name.clone(), kind).await {
                Ok(lookup) => {
                    let found = self.answer(&lookup, &name, kind, &pick);
                    let ttl = found.as_ref().map_or(Duration::ZERO, |answer| answer.ttl);
                    (found, ttl)
                }
                Err(error) => {
                    let (why, ttl) = reason(error);
                    (Err(why), ttl)
                }
            };
            match found {
                // The first one's words are told: it is the one that should have known.
                Err(why @ (DnsError::Temporary(_) | DnsError::Bogus(_))) => drop(error.get_or_insert(why)),
                found => {
                    if step > 0 {
                        *self.preferred.lock().unwrap_or_else(PoisonError::into_inner) =
                            Some((nth, Instant::now() + PREFERRED_FOR));
                    }
                    return (found, ttl);
                }
            }
        }
        (Err(error.unwrap_or_else(|| DnsError::Temporary("no name server is configured".to_owned()))), Duration::ZERO)
    }

    fn first(&self) -> usize {
        let preferred = *self.preferred.lock().unwrap_or_else(PoisonError::into_inner);
        preferred.filter(|(_, until)| Instant::now() < *until).map_or(0, |(nth, _)| nth)
    }

    fn answer<T>(
        &self,
        lookup: &Lookup,
        asked: &Name,
        kind: RecordType,
        pick: impl Fn(&RData) -> Option<T>,
    ) -> Result<Answer<T>, DnsError> {
        // Beside what was asked for, the answer holds the aliases that led there, and signatures.
        let of_kind = || lookup.answers().iter().filter(|record| record.record_type() == kind);
        let records: Vec<T> = of_kind().filter_map(|record| pick(&record.data)).collect();
        let Some(first) = of_kind().next().filter(|_| !records.is_empty()) else {
            return Err(DnsError::NoRecords);
        };
        let secure = match self.dnssec {
            Dnssec::Off => false,
            // Of an answer that was put together from several the bit speaks of the last one only.
            Dnssec::TrustAd => lookup.message().metadata.authentic_data && lookup.query().name() == asked,
            Dnssec::Validate => {
                let counts = |kind| matches!(kind, RecordType::CNAME | RecordType::DNAME);
                let mut records = lookup.answers().iter().filter(|it| it.record_type() == kind || counts(it.record_type()));
                records.all(|record| record.proof == Proof::Secure)
            }
        };
        let ttl = lookup.valid_until().saturating_duration_since(std::time::Instant::now()).min(TTL_MAX);
        Ok(Answer { records, ttl, secure, name: text(&first.name) })
    }
}

impl Client {
    fn new(server: NameServerConfig, dnssec: Dnssec, anchors: Option<Arc<TrustAnchors>>) -> Result<Self, DnsError> {
        let mut options = ResolverOpts::default();
        options.validate = dnssec == Dnssec::Validate;
        // Three askings in nine seconds. A recursive server that needed longer has the answer by the next attempt.
        (options.timeout, options.attempts) = (Duration::from_secs(3), 2);
        // The bound of hickory's UDP sockets is theirs; this one is for questions that share a TCP connection.
        options.max_active_requests = 256;
        // As hickory's own `Resolver` asks.
        let mut request = DnsRequestOptions::default();
        request.recursion_desired = options.recursion_desired;
        request.use_edns = options.edns0 || options.validate;
        request.edns_payload_len = options.edns_payload_len;
        request.edns_set_dnssec_ok = options.validate;
        request.case_randomization = options.case_randomization;
        let (attempts, validate) = (options.attempts, options.validate);
        let tls = TlsConfig::new().map_err(|error| DnsError::Temporary(error.to_string()))?;
        let context = Arc::new(PoolContext::new(options, tls));
        let pool = RetryDnsHandle::new(NameServerPool::from_config([server], context, Asking::default()), attempts);
        // Nothing is kept there; and whether an alias on the way is signed must be seen.
        let (kept, aliases) = (0, true);
        if !validate {
            return Ok(Client::Believing(CachingClient::new(kept, pool, aliases), request));
        }
        let validating = match anchors {
            Some(anchors) => DnssecDnsHandle::with_trust_anchor(pool, anchors),
            None => DnssecDnsHandle::new(pool),
        };
        let validating = validating.validation_cache_size(VALIDATED_MAX);
        Ok(Client::Validating(CachingClient::new(kept, validating, aliases), request))
    }

    async fn lookup(&self, name: Name, kind: RecordType) -> Result<Lookup, NetError> {
        let query = Query::query(name, kind);
        match self {
            Client::Validating(client, request) => client.lookup(query, *request).await,
            Client::Believing(client, request) => client.lookup(query, *request).await,
        }
    }
}

fn read_anchors(path: &Path) -> Result<Arc<TrustAnchors>, DnsError> {
    let fail = |why: String| DnsError::Temporary(format!("{}: {why}", path.display()));
    let text = std::fs::read_to_string(path).map_err(|error| fail(error.to_string()))?;
    // hickory keeps anchors of other names without letting anybody count them, so records are looked for here.
    if !text.lines().any(|line| !line.trim_start().starts_with(';') && line.contains("DNSKEY")) {
        return Err(fail("holds no DNSKEY record; write lines such as \". 3600 IN DNSKEY 257 3 8 AwEAA…\"".to_owned()));
    }
    text.parse().map(Arc::new).map_err(|error| fail(format!("is not a list of DNSKEY records: {error}")))
}

/// A name that DNS cannot carry (an empty label, one of 64 octets) does not exist in it.
fn name(text: &str) -> Result<Name, DnsError> {
    let mut name = Name::from_ascii(text).map_err(|_| DnsError::NoSuchName)?;
    name.set_fqdn(true);
    Ok(name)
}

/// A name as the rest of the daemon writes it. The root stays `.`: that is the null MX.
fn text(name: &Name) -> String {
    let text = name.to_ascii().to_ascii_lowercase();
    match text.strip_suffix('.') {
        Some("") | None => text,
        Some(stripped) => stripped.to_owned(),
    }
}

/// Why there are no records, and for how long that may be believed: as the zone's SOA record says (RFC 2308 §5).
fn reason(error: NetError) -> (DnsError, Duration) {
    let missing = |code, ttl: Option<u32>| {
        let error = if code == ResponseCode::NXDomain { DnsError::NoSuchName } else { DnsError::NoRecords };
        (error, Duration::from_secs(ttl.unwrap_or(0).into()).min(NEGATIVE_TTL_MAX))
    };
    let failed = |error| (error, Duration::ZERO);
    match error {
        NetError::Dns(ProtocolError::NoRecordsFound(none)) => match none.response_code {
            code @ (ResponseCode::NXDomain | ResponseCode::NoError) => {
                // Of an unsigned zone hickory does not tell it where it validates.
                let of_soa = none.soa.as_ref().map(|soa| soa.ttl.min(soa.data.minimum));
                missing(code, none.negative_ttl.or(of_soa))
            }
            code => failed(DnsError::Temporary(format!("{ANSWERED}{code}"))),
        },
        NetError::Dns(ProtocolError::Nsec { response, proof, .. }) if proof != Proof::Bogus => {
            missing(response.response_code, response.negative_ttl())
        }
        NetError::Dns(error @ (ProtocolError::Nsec { .. } | ProtocolError::DnssecBogus)) => {
            failed(DnsError::Bogus(error.to_string()))
        }
        other => failed(DnsError::Temporary(other.to_string())),
    }
}

/// Connections to name servers over which every question says by the AD bit that we understand that bit in the answer
/// (RFC 6840 §5.7). hickory sets it only where it validates itself.
#[derive(Clone, Default)]
struct Asking(TokioRuntimeProvider);

impl ConnectionProvider for Asking {
    type Conn = AskingConnection;
    type FutureConn = Pin<Box<dyn Future<Output = Result<AskingConnection, NetError>> + Send>>;
    type RuntimeProvider = TokioRuntimeProvider;

    fn new_connection(&self, ip: IpAddr, config: &ConnectionConfig, cx: &PoolContext) -> Result<Self::FutureConn, NetError> {
        let connection = ConnectionProvider::new_connection(&self.0, ip, config, cx)?;
        Ok(Box::pin(async move { connection.await.map(AskingConnection) }))
    }

    fn runtime_provider(&self) -> &TokioRuntimeProvider {
        &self.0
    }
}

#[derive(Clone)]
struct AskingConnection(DnsExchange<TokioRuntimeProvider>);

impl DnsHandle for AskingConnection {
    type Response = <DnsExchange<TokioRuntimeProvider> as DnsHandle>::Response;
    type Runtime = TokioRuntimeProvider;

    fn send(&self, mut request: DnsRequest) -> Self::Response {
        request.metadata.authentic_data = true;
        self.0.send(request)
    }
}
