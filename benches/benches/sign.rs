//! Three signatures (member RSA-2048, member Ed25519, co-op RSA-2048) on a 4 KB message, body hashed once.
//! Floor: hashing the body once. Nearly all of the rest is the private-key operations themselves.
#![allow(missing_docs, clippy::unwrap_used)]

use std::time::{Duration, SystemTime};

use bytes::Bytes;
use criterion::{Criterion, criterion_group, criterion_main};
use mta::sign::header::Header;
use mta::sign::{Algorithm, Job, KeyRing, SigningKey, Trace, prepare, signers};

fn job(text: &str) -> Job {
    let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_795_400_000);
    let header = Header::parse(&Bytes::from(text.to_owned())).unwrap();
    let trace = Trace {
        hostname: "relay.example",
        ehlo: "pds.example",
        with: "ESMTPSA",
        id: "0000000000000",
        only_recipient: Some("a@big.example"),
        domain: "member.example",
        did: Some("did:plc:bench"),
        class: "transactional",
        now,
    };
    let message = prepare::prepare(&header, &trace).unwrap();
    Job { urgent: false, message, domain: Some("member.example".into()), now }
}

fn signatures(c: &mut Criterion) {
    let text = format!(
        "From: app@member.example\r\nTo: a@big.example\r\nSubject: hello\r\nMessage-ID: <1@member.example>\r\n\
         Date: Mon, 23 Nov 2026 09:42:19 +0000\r\n\r\n{}",
        "Seventy characters of ordinary text, as a mailer wraps its lines them.\r\n".repeat(56)
    );
    let key = |domain, selector, algorithm| SigningKey::generate(domain, selector, algorithm).unwrap();
    let keys = || {
        [
            key("member.example", "r", Algorithm::Rsa),
            key("member.example", "e", Algorithm::Ed25519),
            key("relay.example", "coop", Algorithm::Rsa),
        ]
    };
    let ring = KeyRing::new(keys(), Some(("relay.example", "coop")));
    let rsa_only = KeyRing::new(keys().into_iter().filter(|key| key.selector() == "r"), None);
    let job = job(&text);
    let mut group = c.benchmark_group("sign");
    group.bench_function("three signatures", |b| b.iter(|| signers::sign(&ring, true, job.clone()).unwrap().signatures));
    group.bench_function("one RSA", |b| b.iter(|| signers::sign(&rsa_only, true, job.clone()).unwrap().signatures));
    group.bench_function("floor: hash of the body", |b| {
        b.iter(|| ring::digest::digest(&ring::digest::SHA256, std::hint::black_box(text.as_bytes())));
    });
    group.finish();
}

criterion_group!(benches, signatures);
criterion_main!(benches);
