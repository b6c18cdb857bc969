//! What is kept in memory of a recipient domain's DNS, counted octet by octet.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::alloc::System;
use std::net::{SocketAddr, UdpSocket};

use hickory_resolver::proto::op::{Message, ResponseCode};
use hickory_resolver::proto::rr::rdata::{A, MX, SOA};
use hickory_resolver::proto::rr::{Name, RData, Record, RecordType};
use host::dns::{DnsError, Dnssec, Resolver};
use host::memory::{Counting, held};

/// What a domain's answers may take: its MX record, an address, and the absence of a second one and of a policy.
const DOMAIN_BYTES_MAX: usize = 1024;

#[global_allocator]
static ALLOCATOR: Counting<System> = Counting(System);

/// One host for each domain; nothing of any other kind.
fn name_server() -> SocketAddr {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    let address = socket.local_addr().unwrap();
    std::thread::spawn(move || {
        let mut octets = [0; 1500];
        loop {
            let (length, from) = socket.recv_from(&mut octets).unwrap();
            let query = Message::from_vec(&octets[..length]).unwrap();
            let question = query.queries[0].clone();
            let (name, kind) = (question.name().clone(), question.query_type());
            let mut message = Message::response(query.metadata.id, query.metadata.op_code);
            message.metadata.recursion_available = true;
            message.add_query(question);
            match kind {
                RecordType::MX => {
                    let host = Name::from_ascii("mx").unwrap().append_domain(&name).unwrap();
                    message.add_answer(Record::from_rdata(name, 3600, RData::MX(MX::new(10, host))));
                }
                RecordType::A => drop(message.add_answer(Record::from_rdata(name, 3600, RData::A(A::new(192, 0, 2, 1))))),
                _ => {
                    message.metadata.response_code = ResponseCode::NXDomain;
                    let zone = Name::from_ascii("test.").unwrap();
                    let soa = SOA::new(zone.clone(), zone.clone(), 1, 3600, 3600, 3600, 3600);
                    message.add_authority(Record::from_rdata(zone, 3600, RData::SOA(soa)));
                }
            }
            socket.send_to(&message.to_vec().unwrap(), from).unwrap();
        }
    });
    address
}

#[test]
fn a_domain_that_was_looked_up_costs_less_than_a_kibibyte() {
    let resolver = Resolver::with_nameservers(&[name_server()], Dnssec::Off).unwrap();
    host::run(&host::Io::Epoll, async {
        let look_up = async |domains: std::ops::Range<u32>| {
            for nth in domains {
                let domain = format!("recipients-{nth}.test");
                let mx = resolver.mx(&domain).await.unwrap();
                assert_eq!(resolver.host(&mx.records[0].exchange).await.unwrap().records.len(), 1);
                assert_eq!(resolver.txt(&format!("_mta-sts.{domain}")).await, Err(DnsError::NoSuchName));
            }
            held()
        };
        // Tables double now and then: between these two sizes they do so twice, as everywhere.
        let some = look_up(0..500).await;
        let more = look_up(500..2000).await;
        let each = (more - some) / 1500;
        println!("{each} octets a domain");
        assert!(each < DOMAIN_BYTES_MAX, "{each} octets a domain");
        assert!(each > 200, "{each} octets a domain: nothing is kept");
    })
    .unwrap();
}

#[test]
fn what_is_allocated_is_counted_until_it_is_freed_wherever_that_is() {
    // The other test moves a few megabytes meanwhile.
    let (before, few) = (held(), 16 << 20);
    let is_about = |more: usize| (before + more).abs_diff(held()) < few;
    let mut much = vec![0u8; 64 << 20];
    assert!(is_about(64 << 20));
    much.reserve_exact(32 << 20);
    assert!(is_about(96 << 20));
    std::thread::spawn(move || drop(much)).join().unwrap();
    assert!(is_about(0));
}
