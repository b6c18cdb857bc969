//! A small scripted DNS server: what the tests, the demo and the real peers ask instead of the internet.
//!
//! A [`Zone`] is a table of names and records that may be changed while a [`Server`] answers from it, over UDP and TCP
//! on one loopback port. A name may fail on purpose: SERVFAIL, REFUSED, NXDOMAIN in spite of its records, or silence.
//! `*.example.test` answers for every name below `example.test` that has no records of its own (RFC 4592, without its
//! finer points). Every query is counted. An answer that does not fit the UDP size that the client offered is
//! truncated, so the client comes again by TCP (RFC 7766).
//!
//! Not here: DNSSEC, zone transfers, updates. Set `dnssec = "off"` in what asks this server.

use std::collections::{BTreeMap, HashMap};
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use hickory_proto::op::{Edns, Message, MessageType, OpCode, ResponseCode};
use hickory_proto::rr::{Name, RData, Record as WireRecord, rdata};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UdpSocket};

pub use hickory_proto::rr::RecordType;

use crate::background::Background;

/// Seconds that answers may be cached, unless [`Zone::set_ttl`] says otherwise.
pub const TTL_DEFAULT_SECS: u32 = 60;
/// Links of a CNAME chain put into one answer: enough for honest chains, and an end for loops.
const CNAME_LINKS_MAX: usize = 8;
/// How long a TCP client may stay silent.
const TCP_IDLE: std::time::Duration = std::time::Duration::from_secs(10);

/// One record of a name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Record {
    /// IPv4 address.
    A(Ipv4Addr),
    /// IPv6 address.
    Aaaa(Ipv6Addr),
    /// Mail exchanger: preference and host. The host `.` is a null MX (RFC 7505).
    Mx(u16, String),
    /// Text; split into character-strings of 255 octets on the wire.
    Txt(String),
    /// Alias.
    Cname(String),
    /// Reverse name.
    Ptr(String),
}

impl Record {
    /// An A or AAAA record.
    pub fn address(address: IpAddr) -> Self {
        match address {
            IpAddr::V4(v4) => Self::A(v4),
            IpAddr::V6(v6) => Self::Aaaa(v6),
        }
    }

    /// Reads a record from its type and value as zone files and `tradewind member add` print them:
    /// `("MX", "10 mx.example")`, `("TXT", "v=spf1 -all")`.
    pub fn parse(kind: &str, value: &str) -> Option<Self> {
        let value = value.trim();
        Some(match kind.to_ascii_uppercase().as_str() {
            "A" => Self::A(value.parse().ok()?),
            "AAAA" => Self::Aaaa(value.parse().ok()?),
            "MX" => {
                let (preference, host) = value.split_once(' ')?;
                Self::Mx(preference.parse().ok()?, host.trim().to_owned())
            }
            // Long texts are printed as several quoted strings; on the wire they are one value again.
            "TXT" if value.starts_with('"') => Self::Txt(value.split('"').skip(1).step_by(2).collect::<Vec<_>>().concat()),
            "TXT" => Self::Txt(value.to_owned()),
            "CNAME" => Self::Cname(value.to_owned()),
            "PTR" => Self::Ptr(value.to_owned()),
            _ => return None,
        })
    }

    fn wire(&self) -> Option<RData> {
        let name = |host: &str| Name::from_ascii(absolute(host)).ok();
        Some(match self {
            Self::A(v4) => RData::A(rdata::A(*v4)),
            Self::Aaaa(v6) => RData::AAAA(rdata::AAAA(*v6)),
            Self::Mx(preference, host) => RData::MX(rdata::MX::new(*preference, name(host)?)),
            Self::Txt(text) => RData::TXT(rdata::TXT::from_bytes(text.as_bytes().chunks(255).collect())),
            Self::Cname(host) => RData::CNAME(rdata::CNAME(name(host)?)),
            Self::Ptr(host) => RData::PTR(rdata::PTR(name(host)?)),
        })
    }
}

/// How a name fails on purpose.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failure {
    /// RCODE 2: temporary trouble.
    ServFail,
    /// RCODE 5.
    Refused,
    /// RCODE 3 in spite of any records.
    NoSuchName,
    /// No answer at all.
    Silence,
}

/// The names and records that a [`Server`] answers from; clones share one table.
#[derive(Clone, Default)]
pub struct Zone(Arc<Mutex<Table>>);

struct Table {
    names: BTreeMap<String, Vec<Record>>,
    failures: HashMap<(String, Option<RecordType>), Failure>,
    queries: HashMap<(String, RecordType), u64>,
    queries_all: u64,
    ttl_secs: u32,
}

impl Default for Table {
    fn default() -> Self {
        Self {
            names: BTreeMap::new(),
            failures: HashMap::new(),
            queries: HashMap::new(),
            queries_all: 0,
            ttl_secs: TTL_DEFAULT_SECS,
        }
    }
}

impl Zone {
    /// An empty table: every name is NXDOMAIN.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds one record to a name.
    pub fn add(&self, name: &str, record: Record) -> &Self {
        self.table().names.entry(canonical(name)).or_default().push(record);
        self
    }

    /// Adds what [`Record::parse`] reads; false when it could not be read.
    pub fn add_text(&self, name: &str, kind: &str, value: &str) -> bool {
        Record::parse(kind, value).map(|record| self.add(name, record)).is_some()
    }

    /// Replaces all records of a name.
    pub fn set(&self, name: &str, records: Vec<Record>) -> &Self {
        self.table().names.insert(canonical(name), records);
        self
    }

    /// Removes a name and its failures: NXDOMAIN from now on.
    pub fn remove(&self, name: &str) -> &Self {
        let name = canonical(name);
        let mut table = self.table();
        table.names.remove(&name);
        table.failures.retain(|(of, _), _| *of != name);
        drop(table);
        self
    }

    /// A domain whose mail goes to `host` at `address`: an MX and an address record.
    pub fn mail_domain(&self, domain: &str, host: &str, address: IpAddr) -> &Self {
        let known = self.table().names.get(&canonical(host)).is_some_and(|r| r.contains(&Record::address(address)));
        if !known {
            self.add(host, Record::address(address));
        }
        self.add(domain, Record::Mx(10, host.to_owned()))
    }

    /// Makes a name fail for one record type, or for all with `None`.
    pub fn fail(&self, name: &str, kind: Option<RecordType>, failure: Failure) -> &Self {
        self.table().failures.insert((canonical(name), kind), failure);
        self
    }

    /// Ends what [`Zone::fail`] began.
    pub fn recover(&self, name: &str) -> &Self {
        let name = canonical(name);
        self.table().failures.retain(|(of, _), _| *of != name);
        self
    }

    /// Seconds that answers, positive and negative, may be cached from now on.
    pub fn set_ttl(&self, secs: u32) -> &Self {
        self.table().ttl_secs = secs;
        self
    }

    /// Queries answered so far (or met with silence), all names and types together.
    pub fn queries(&self) -> u64 {
        self.table().queries_all
    }

    /// Queries for one name and type.
    pub fn queries_of(&self, name: &str, kind: RecordType) -> u64 {
        self.table().queries.get(&(canonical(name), kind)).copied().unwrap_or(0)
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The answer to one query, or `None` for silence. `udp_octets_max` is `None` over TCP.
    fn answer(&self, query: &[u8], over_udp: bool) -> Option<Vec<u8>> {
        let query = Message::from_vec(query).ok()?;
        if query.metadata.message_type != MessageType::Query {
            return None;
        }
        let mut reply = Message::response(query.metadata.id, query.metadata.op_code);
        reply.metadata.recursion_desired = query.metadata.recursion_desired;
        reply.metadata.recursion_available = true;
        reply.metadata.authoritative = true;
        let mut octets_max = 512;
        if let Some(edns) = &query.edns {
            octets_max = edns.max_payload().max(512);
            let mut ours = Edns::new();
            ours.set_max_payload(1232);
            reply.set_edns(ours);
        }
        match query.queries.first() {
            Some(question) if query.metadata.op_code == OpCode::Query => {
                reply.add_query(question.clone());
                let kind = question.query_type();
                self.table().fill(&mut reply, &canonical(&question.name().to_ascii()), kind)?;
            }
            _ => reply.metadata.response_code = ResponseCode::NotImp,
        }
        let octets = reply.to_vec().ok()?;
        if over_udp && octets.len() > usize::from(octets_max) {
            return reply.truncate().to_vec().ok();
        }
        Some(octets)
    }
}

impl Table {
    /// Puts the answer for a name into `reply`; `None` where silence was ordered.
    fn fill(&mut self, reply: &mut Message, asked: &str, kind: RecordType) -> Option<()> {
        self.queries_all += 1;
        *self.queries.entry((asked.to_owned(), kind)).or_default() += 1;
        let mut name = asked.to_owned();
        for _ in 0..CNAME_LINKS_MAX {
            match self.failures.get(&(name.clone(), Some(kind))).or_else(|| self.failures.get(&(name.clone(), None))) {
                Some(Failure::Silence) => return None,
                Some(failure) => {
                    reply.metadata.response_code = match failure {
                        Failure::Refused => ResponseCode::Refused,
                        Failure::NoSuchName => ResponseCode::NXDomain,
                        Failure::ServFail | Failure::Silence => ResponseCode::ServFail,
                    };
                    break;
                }
                None => {}
            }
            let Some(records) = self.records(&name) else {
                // A name with others below it exists and is empty: no error, no data (RFC 8020).
                if !self.names.keys().any(|other| other.ends_with(&format!(".{name}"))) {
                    reply.metadata.response_code = ResponseCode::NXDomain;
                }
                break;
            };
            let owner = Name::from_ascii(absolute(&name)).ok()?;
            let mut alias = None;
            for data in records.iter().filter_map(Record::wire) {
                let is_alias = data.record_type() == RecordType::CNAME && kind != RecordType::CNAME;
                if data.record_type() == kind || kind == RecordType::ANY || is_alias {
                    if let (true, RData::CNAME(target)) = (is_alias, &data) {
                        alias = Some(canonical(&target.0.to_ascii()));
                    }
                    reply.add_answer(WireRecord::from_rdata(owner.clone(), self.ttl_secs, data));
                }
            }
            match alias {
                Some(target) => name = target,
                None => break,
            }
        }
        if reply.answers.iter().all(|record| record.record_type() == RecordType::CNAME && kind != RecordType::CNAME) {
            self.add_negative_ttl(reply, &name);
        }
        Some(())
    }

    fn records(&self, name: &str) -> Option<&Vec<Record>> {
        self.names.get(name).or_else(|| {
            let mut below = name;
            while let Some((_, parent)) = below.split_once('.') {
                if let Some(found) = self.names.get(&format!("*.{parent}")) {
                    return Some(found);
                }
                below = parent;
            }
            None
        })
    }

    /// Without an SOA a resolver may not cache that there is nothing (RFC 2308 §5).
    fn add_negative_ttl(&self, reply: &mut Message, name: &str) {
        let zone = name.split_once('.').map_or(name, |(_, parent)| parent);
        if let Ok(zone) = Name::from_ascii(absolute(zone)) {
            let soa = rdata::SOA::new(zone.clone(), zone.clone(), 1, 3600, 600, 86400, self.ttl_secs);
            reply.add_authority(WireRecord::from_rdata(zone, self.ttl_secs, RData::SOA(soa)));
        }
    }
}

/// Lower case, without the final dot.
fn canonical(name: &str) -> String {
    name.trim_end_matches('.').to_ascii_lowercase()
}

fn absolute(name: &str) -> String {
    format!("{}.", name.trim_end_matches('.'))
}

/// A running DNS server on its own thread; it stops when dropped.
pub struct Server {
    address: SocketAddr,
    zone: Zone,
    _running: Background,
}

impl Server {
    /// Binds UDP and TCP on one address (port 0: any free one) and answers from `zone`.
    pub fn start(address: SocketAddr, zone: Zone) -> io::Result<Self> {
        let (udp, tcp) = bind_both(address)?;
        let address = udp.local_addr()?;
        let table = zone.clone();
        let running = Background::start("dns", move || async move {
            let udp = UdpSocket::from_std(udp)?;
            let tcp = TcpListener::from_std(tcp)?;
            tokio::try_join!(serve_udp(udp, table.clone()), serve_tcp(tcp, table)).map(drop)
        })?;
        Ok(Self { address, zone, _running: running })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The table that it answers from.
    pub fn zone(&self) -> &Zone {
        &self.zone
    }
}

/// The TCP port that belongs to a free UDP port may be taken: try another pair.
fn bind_both(address: SocketAddr) -> io::Result<(std::net::UdpSocket, std::net::TcpListener)> {
    let mut attempts = 0;
    loop {
        let udp = std::net::UdpSocket::bind(address)?;
        match std::net::TcpListener::bind(udp.local_addr()?) {
            Ok(tcp) => {
                udp.set_nonblocking(true)?;
                tcp.set_nonblocking(true)?;
                return Ok((udp, tcp));
            }
            Err(error) if address.port() != 0 || attempts == 20 => return Err(error),
            Err(_) => attempts += 1,
        }
    }
}

async fn serve_udp(socket: UdpSocket, zone: Zone) -> io::Result<()> {
    let mut query = vec![0; 4096];
    loop {
        // A closed client port comes back as an error of the next receive: not ours to die of.
        let Ok((octets, peer)) = socket.recv_from(&mut query).await else { continue };
        if let Some(reply) = zone.answer(&query[..octets], true) {
            let _ = socket.send_to(&reply, peer).await;
        }
    }
}

async fn serve_tcp(listener: TcpListener, zone: Zone) -> io::Result<()> {
    loop {
        let (stream, _) = listener.accept().await?;
        let zone = zone.clone();
        tokio::task::spawn_local(async move {
            let _ = serve_stream(stream, zone).await;
        });
    }
}

async fn serve_stream(mut stream: TcpStream, zone: Zone) -> io::Result<()> {
    loop {
        let octets = tokio::time::timeout(TCP_IDLE, stream.read_u16()).await??;
        let mut query = vec![0; usize::from(octets)];
        tokio::time::timeout(TCP_IDLE, stream.read_exact(&mut query)).await??;
        if let Some(reply) = zone.answer(&query, false) {
            let mut framed = u16::try_from(reply.len()).map_err(io::Error::other)?.to_be_bytes().to_vec();
            framed.extend(reply);
            stream.write_all(&framed).await?;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use hickory_proto::op::Query;

    fn ask(zone: &Zone, name: &str, kind: RecordType, over_udp: bool) -> Option<Message> {
        let mut query = Message::query();
        query.add_query(Query::query(Name::from_ascii(absolute(name)).unwrap(), kind));
        Some(Message::from_vec(&zone.answer(&query.to_vec().unwrap(), over_udp)?).unwrap())
    }

    fn rcode(zone: &Zone, name: &str, kind: RecordType) -> ResponseCode {
        ask(zone, name, kind, true).unwrap().metadata.response_code
    }

    #[test]
    fn a_mail_domain_has_an_mx_and_its_host_an_address() {
        let zone = Zone::new();
        zone.mail_domain("a.test", "mx.test", "127.0.0.9".parse().unwrap());
        zone.mail_domain("b.test", "mx.test", "127.0.0.9".parse().unwrap());
        let reply = ask(&zone, "B.Test", RecordType::MX, true).unwrap();
        assert_eq!(reply.answers.len(), 1);
        assert_eq!(ask(&zone, "mx.test", RecordType::A, true).unwrap().answers.len(), 1, "the host is added once");
        assert_eq!(zone.queries_of("b.test", RecordType::MX), 1);
        assert_eq!(zone.queries(), 2);
    }

    #[test]
    fn what_is_missing_is_either_no_name_or_no_data_and_may_be_cached() {
        let zone = Zone::new();
        zone.add("mx.a.test", Record::A(Ipv4Addr::LOCALHOST));
        assert_eq!(rcode(&zone, "b.test", RecordType::MX), ResponseCode::NXDomain);
        assert_eq!(rcode(&zone, "a.test", RecordType::MX), ResponseCode::NoError, "an empty name above a real one");
        let reply = ask(&zone, "mx.a.test", RecordType::MX, true).unwrap();
        assert_eq!((reply.metadata.response_code, reply.answers.len()), (ResponseCode::NoError, 0));
        assert!(matches!(reply.authorities[0].data, RData::SOA(_)));
    }

    #[test]
    fn aliases_are_followed_and_loops_end() {
        let zone = Zone::new();
        zone.add("www.test", Record::Cname("host.test".into())).add("host.test", Record::A(Ipv4Addr::LOCALHOST));
        zone.add("x.test", Record::Cname("y.test".into())).add("y.test", Record::Cname("x.test".into()));
        assert_eq!(ask(&zone, "www.test", RecordType::A, true).unwrap().answers.len(), 2);
        assert_eq!(ask(&zone, "x.test", RecordType::A, true).unwrap().answers.len(), CNAME_LINKS_MAX);
    }

    #[test]
    fn names_fail_as_told_until_they_recover() {
        let zone = Zone::new();
        zone.add("a.test", Record::Txt("hello".into())).fail("a.test", Some(RecordType::TXT), Failure::ServFail);
        assert_eq!(rcode(&zone, "a.test", RecordType::TXT), ResponseCode::ServFail);
        assert_eq!(rcode(&zone, "a.test", RecordType::MX), ResponseCode::NoError);
        zone.fail("a.test", None, Failure::Silence).recover("none.test");
        assert!(ask(&zone, "a.test", RecordType::MX, true).is_none());
        zone.recover("a.test");
        assert_eq!(rcode(&zone, "a.test", RecordType::TXT), ResponseCode::NoError);
    }

    #[test]
    fn a_wildcard_answers_for_names_that_have_nothing_of_their_own() {
        let zone = Zone::new();
        zone.add("*.w.test", Record::Mx(5, "mx.test".into())).add("own.w.test", Record::Txt("mine".into()));
        assert_eq!(ask(&zone, "any.w.test", RecordType::MX, true).unwrap().answers.len(), 1);
        assert_eq!(ask(&zone, "own.w.test", RecordType::MX, true).unwrap().answers.len(), 0);
    }

    #[test]
    fn long_texts_travel_whole_by_tcp_after_truncation_by_udp() {
        let text = "k".repeat(900);
        let server = Server::start("127.0.0.1:0".parse().unwrap(), Zone::new()).unwrap();
        assert!(server.zone().add_text("t.test", "TXT", &format!("\"{}\" \"{}\"", &text[..255], &text[255..])));
        let mut query = Message::query();
        query.add_query(Query::query(Name::from_ascii("t.test.").unwrap(), RecordType::TXT));
        let octets = query.to_vec().unwrap();

        let udp = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        udp.send_to(&octets, server.address()).unwrap();
        let mut buffer = [0; 4096];
        let received = udp.recv(&mut buffer).unwrap();
        assert!(Message::from_vec(&buffer[..received]).unwrap().metadata.truncation);

        use std::io::{Read, Write};
        let mut tcp = std::net::TcpStream::connect(server.address()).unwrap();
        tcp.write_all(&u16::try_from(octets.len()).unwrap().to_be_bytes()).unwrap();
        tcp.write_all(&octets).unwrap();
        let mut length = [0; 2];
        tcp.read_exact(&mut length).unwrap();
        let mut reply = vec![0; usize::from(u16::from_be_bytes(length))];
        tcp.read_exact(&mut reply).unwrap();
        let reply = Message::from_vec(&reply).unwrap();
        let RData::TXT(txt) = &reply.answers[0].data else { panic!("no TXT: {reply:?}") };
        assert_eq!(txt.txt_data.concat(), text.as_bytes());
    }
}
