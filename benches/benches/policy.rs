//! What limits and the memory of what was submitted cost a message of 4 KB. Floors: its SHA-256; one compare-and-swap.
#![allow(missing_docs, clippy::unwrap_used)]

use std::hint::black_box;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use criterion::{Criterion, criterion_group, criterion_main};
use mta::policy::rate::Rate;
use mta::policy::{Account, Tier, retry};
use mta::queue::Held;
use mta::sign::header::Header;
use smtp::address::ReversePath;

fn fingerprint(c: &mut Criterion) {
    let text = format!(
        "From: app@member.example\r\nTo: a@big.example\r\nSubject: hello\r\nMessage-ID: <1@member.example>\r\n\
         Date: Mon, 23 Nov 2026 09:42:19 +0000\r\n\r\n{}",
        "Seventy characters of ordinary text, as a mailer wraps its lines them.\r\n".repeat(56)
    );
    let octets = Bytes::from(text);
    let header = Header::parse(&octets).unwrap();
    let reverse_path = ReversePath::Mailbox("app@member.example".parse().unwrap());
    let mut group = c.benchmark_group("policy");
    group.bench_function("fingerprint of 4 KB", |b| {
        b.iter(|| {
            let submitted =
                retry::Submitted { member: 1, credential: 1, reverse_path: &reverse_path, envid: None, header: &header };
            let mut print = retry::begin(&submitted, std::iter::once("a@big.example")).unwrap();
            print.feed(&octets[header.body_at()..]);
            print.end()
        });
    });
    group.bench_function("floor: SHA-256 of 4 KB", |b| {
        b.iter(|| ring::digest::digest(&ring::digest::SHA256, black_box(&octets)));
    });
    let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_795_400_000);
    let tier = Tier {
        rate: Some(Rate::per_hour(1_000_000, 1_000)),
        messages_per_day: Some(1 << 30),
        queue_messages_max: Some(1 << 20),
        ..Tier::unlimited("bench")
    };
    let account = Account::new(Arc::new(tier), Arc::default());
    group.bench_function("a message's limits: two looks and a take", |b| {
        b.iter(|| {
            account.look(now, 1, 4096, Held::default()).unwrap();
            account.look(now, 1, 4096, Held::default()).unwrap();
            // Given back, so that it never runs short.
            drop(account.take(now, 1, 4096, Held::default).unwrap());
        });
    });
    let cell = AtomicU64::new(0);
    group.bench_function("floor: a compare-and-swap", |b| {
        b.iter(|| cell.compare_exchange(0, black_box(0), Ordering::Relaxed, Ordering::Relaxed));
    });
    group.finish();
}

criterion_group!(benches, fingerprint);
criterion_main!(benches);
