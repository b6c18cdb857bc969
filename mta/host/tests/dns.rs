//! The resolver against a name server on loopback whose answers are written here, octet by octet where it matters.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::time::Duration;

use hickory_resolver::proto::op::{Message, MessageType, ResponseCode};
use hickory_resolver::proto::rr::rdata::tlsa::{CertUsage, Matching, Selector};
use hickory_resolver::proto::rr::rdata::{A, CNAME, MX, SOA, TLSA, TXT};
use hickory_resolver::proto::rr::{Name, RData, Record, RecordType};
use host::dns::{DnsError, Dnssec, Mx, Resolver, Tlsa};

fn name_server() -> SocketAddr {
    serve(answer)
}

/// Answers on a port of its own until the test's process ends.
fn serve(answer: impl Fn(&Message) -> Message + Send + 'static) -> SocketAddr {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    let address = socket.local_addr().unwrap();
    std::thread::spawn(move || {
        let mut octets = [0; 1500];
        loop {
            let (length, from) = socket.recv_from(&mut octets).unwrap();
            let query = Message::from_vec(&octets[..length]).unwrap();
            socket.send_to(&answer(&query).to_vec().unwrap(), from).unwrap();
        }
    });
    address
}

fn answer(query: &Message) -> Message {
    let question = query.queries[0].clone();
    let (name, kind) = (question.name().clone(), question.query_type());
    let text = name.to_ascii().to_ascii_lowercase();
    let mut message = Message::response(query.metadata.id, query.metadata.op_code);
    message.metadata.message_type = MessageType::Response;
    message.metadata.recursion_available = true;
    message.metadata.recursion_desired = true;
    // A name server that validates says so to those who say that they understand it.
    message.metadata.authentic_data = query.metadata.authentic_data && !text.contains("plain");
    message.add_query(question);
    let mut records = Vec::new();
    let host = |text: &str| Name::from_ascii(text).unwrap();
    match (text.as_str(), kind) {
        ("example.org.", RecordType::MX) => {
            records.push(Record::from_rdata(name, 120, RData::MX(MX::new(10, host("MX1.Example.org.")))));
            records.push(Record::from_rdata(host("example.org."), 60, RData::MX(MX::new(20, host("mx2.example.org.")))));
        }
        ("null.example.", RecordType::MX) => records.push(Record::from_rdata(name, 60, RData::MX(MX::new(0, Name::root())))),
        ("alias.example.", RecordType::MX) => {
            records.push(Record::from_rdata(name, 60, RData::CNAME(CNAME(host("example.org.")))));
            records.push(Record::from_rdata(host("example.org."), 60, RData::MX(MX::new(10, host("mx1.example.org.")))));
        }
        ("mx1.plain.example.", RecordType::A) => records.push(Record::from_rdata(name, 30, RData::A(A::new(192, 0, 2, 3)))),
        ("_25._tcp.mx1.example.org.", RecordType::TLSA) => {
            let tlsa = TLSA::new(CertUsage::DaneEe, Selector::Spki, Matching::Sha256, vec![7; 32]);
            records.push(Record::from_rdata(name, 30, RData::TLSA(tlsa)));
        }
        ("mx1.example.org.", RecordType::A) => records.push(Record::from_rdata(name, 30, RData::A(A::new(192, 0, 2, 1)))),
        ("split.example.", RecordType::TXT) => {
            let pieces = vec!["v=spf1 ".to_owned(), "-all".to_owned()];
            records.push(Record::from_rdata(name, 30, RData::TXT(TXT::new(pieces))));
        }
        ("empty.example." | "mx1.example.org.", _) => {}
        ("half.example.", RecordType::A) => records.push(Record::from_rdata(name, 30, RData::A(A::new(192, 0, 2, 2)))),
        ("half.example." | "broken.example.", _) => message.metadata.response_code = ResponseCode::ServFail,
        _ => message.metadata.response_code = ResponseCode::NXDomain,
    }
    if records.is_empty() {
        let soa = SOA::new(host("ns.example."), host("root.example."), 1, 60, 60, 60, 60);
        message.add_authority(Record::from_rdata(host("example."), 60, RData::SOA(soa)));
    }
    message.add_answers(records);
    message
}

fn ask<T>(question: impl AsyncFnOnce(Resolver) -> T) -> T {
    let resolver = Resolver::with_nameservers(&[name_server()], Dnssec::Off).unwrap();
    host::run(&host::Io::Epoll, question(resolver)).unwrap()
}

#[test]
fn mx_records_come_with_the_shortest_ttl() {
    let answer = ask(async |dns| dns.mx("example.org").await).unwrap();
    let (mut found, ttl) = (answer.records, answer.ttl);
    found.sort_by_key(|mx| mx.preference);
    let mx = |preference, exchange: &str| Mx { preference, exchange: exchange.to_owned() };
    assert_eq!(found, [mx(10, "mx1.example.org"), mx(20, "mx2.example.org")]);
    assert!(ttl <= Duration::from_secs(60) && ttl > Duration::from_secs(50), "{ttl:?}");
}

#[test]
fn a_null_mx_is_a_dot() {
    assert_eq!(ask(async |dns| dns.mx("null.example").await).unwrap().records[0].exchange, ".");
}

#[test]
fn an_alias_leads_to_the_records_of_its_target() {
    assert_eq!(ask(async |dns| dns.mx("alias.example").await).unwrap().records[0].exchange, "mx1.example.org");
}

#[test]
fn absence_emptiness_and_failure_are_told_apart() {
    ask(async |dns| {
        assert_eq!(dns.mx("nowhere.example").await, Err(DnsError::NoSuchName));
        assert_eq!(dns.mx("empty.example").await, Err(DnsError::NoRecords));
        assert!(matches!(dns.mx("broken.example").await, Err(DnsError::Temporary(_))));
        assert_eq!(dns.addresses("nowhere.example").await, Err(DnsError::NoSuchName));
        assert_eq!(dns.addresses("empty.example").await, Err(DnsError::NoRecords));
        assert!(matches!(dns.addresses("broken.example").await, Err(DnsError::Temporary(_))));
        assert_eq!(dns.mx("two..dots").await, Err(DnsError::NoSuchName));
        assert_eq!(dns.mx(&"a".repeat(64)).await, Err(DnsError::NoSuchName));
    });
}

#[test]
fn one_family_answering_is_an_answer() {
    let address = |text: &str| vec![text.parse::<IpAddr>().unwrap()];
    ask(async |dns| {
        assert_eq!(dns.addresses("mx1.example.org").await.unwrap().0, address("192.0.2.1"));
        assert_eq!(dns.addresses("half.example").await.unwrap().0, address("192.0.2.2"));
    });
}

#[test]
fn the_pieces_of_a_txt_record_are_joined() {
    assert_eq!(ask(async |dns| dns.txt("split.example").await).unwrap().0, ["v=spf1 -all"]);
}

#[test]
fn what_was_answered_is_not_asked_again_nor_what_failed_a_moment_ago() {
    let (count, asked) = std::sync::mpsc::channel();
    let counting = serve(move |query| {
        count.send(query.queries[0].name().to_ascii()).unwrap();
        answer(query)
    });
    let resolver = Resolver::with_nameservers(&[counting], Dnssec::Off).unwrap();
    let asked = || asked.try_iter().collect::<Vec<_>>();
    host::run(&host::Io::Epoll, async {
        for times in [1, 0] {
            let (mx, host) = (resolver.mx("Alias.example").await.unwrap(), resolver.host("mx1.example.org").await.unwrap());
            assert_eq!((&*mx.name, mx.records[0].exchange.as_str()), ("example.org", "mx1.example.org"));
            assert!(host.records.len() == 1 && host.ttl <= Duration::from_secs(30) && host.ttl > Duration::from_secs(20));
            assert_eq!(resolver.mx("empty.example").await, Err(DnsError::NoRecords));
            assert_eq!(resolver.txt("nowhere.example").await, Err(DnsError::NoSuchName));
            // Two of them for the addresses.
            assert_eq!(asked().len(), 5 * times);
        }
        for fresh in [true, false] {
            assert!(matches!(resolver.mx("broken.example").await, Err(DnsError::Temporary(_))));
            assert_eq!(!asked().is_empty(), fresh);
        }
    })
    .unwrap();
}

#[test]
fn a_name_server_that_is_not_there_is_a_temporary_failure() {
    let nobody = UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let resolver = Resolver::with_nameservers(&[nobody], Dnssec::Off).unwrap();
    let found = host::run(&host::Io::Epoll, async { resolver.mx("example.org").await }).unwrap();
    assert!(matches!(found, Err(DnsError::Temporary(_))), "{found:?}");
    assert!(Resolver::with_nameservers(&[], Dnssec::Off).is_err());
}

#[test]
fn unsigned_answers_where_signatures_are_due_are_not_believed() {
    // The root is signed: an unsigned answer below it, without proof that the zone is unsigned, is forged.
    let resolver = Resolver::with_nameservers(&[name_server()], Dnssec::Validate).unwrap();
    let found = host::run(&host::Io::Epoll, async { resolver.mx("example.org").await }).unwrap();
    assert!(matches!(found, Err(DnsError::Bogus(_))), "{found:?}");
}

#[test]
fn the_ad_bit_counts_only_where_it_is_trusted_and_only_from_loopback() {
    let asked = |dnssec| {
        let resolver = Resolver::with_nameservers(&[name_server()], dnssec).unwrap();
        host::run(&host::Io::Epoll, async {
            let secure = async |name: &str| resolver.host(name).await.unwrap().secure;
            let mx = resolver.mx("alias.example").await.unwrap();
            let tlsa = resolver.tlsa("_25._tcp.mx1.example.org").await.unwrap();
            let record = Tlsa { usage: 3, selector: 1, matching: 1, data: vec![7; 32] };
            assert_eq!((&*mx.name, tlsa.records), ("example.org", vec![record]));
            (secure("mx1.example.org").await, secure("mx1.plain.example").await, mx.secure, tlsa.secure)
        })
        .unwrap()
    };
    assert_eq!(asked(Dnssec::TrustAd), (true, false, true, true));
    assert_eq!(asked(Dnssec::Off), (false, false, false, false));
    let far = ["192.0.2.53:53".parse().unwrap()];
    assert!(Resolver::with_nameservers(&far, Dnssec::TrustAd).is_err());
    assert!(Resolver::with_nameservers(&far, Dnssec::Validate).is_ok());
}

#[test]
fn the_second_name_server_is_asked_when_the_first_fails() {
    let (broken, nobody) = (broken_name_server(), UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap());
    for first in [broken, nobody] {
        let resolver = Resolver::with_nameservers(&[first, name_server()], Dnssec::Off).unwrap();
        host::run(&host::Io::Epoll, async {
            assert_eq!(resolver.mx("alias.example").await.unwrap().records[0].exchange, "mx1.example.org");
            assert_eq!(resolver.mx("empty.example").await, Err(DnsError::NoRecords));
        })
        .unwrap();
    }
}

/// Answers everything with SERVFAIL.
fn broken_name_server() -> SocketAddr {
    serve(|query| {
        let mut message = Message::response(query.metadata.id, query.metadata.op_code);
        message.metadata.response_code = ResponseCode::ServFail;
        message.add_query(query.queries[0].clone());
        message
    })
}

#[test]
fn a_trust_anchor_that_cannot_be_read_is_told_by_its_file() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("anchor.key");
    let error = |text: &str| {
        std::fs::write(&path, text).unwrap();
        Resolver::with_trust_anchor(Some(&[name_server()]), &path).err().map(|error| error.to_string())
    };
    assert!(error("").unwrap().contains("anchor.key: holds no DNSKEY record"));
    assert!(error(". 3600 IN DNSKEY what").unwrap().contains("anchor.key: is not a list"));
    let key =
        ". 3600 IN DNSKEY 257 3 13 mdsswUyr3DPW132mOi8V9xESWE8jTo0dxCjjnopKl+GqJxpVXckHAeF+KkxLbxILfDLUT0rAK9iUzy1L53eKGQ==";
    assert_eq!(error(key), None);
}
