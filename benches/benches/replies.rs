//! What a refusal speaks of: texts of large providers through the whole table. Floor: one look for one word.
#![allow(missing_docs, clippy::unwrap_used)]

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use mta::egress::replies::Replies;
use smtp::client::Stage;
use smtp::reply::Reply;

/// Provider, codes, text.
type Row = (&'static str, u16, (u8, u16, u16), &'static str);

const TEXTS: [Row; 4] = [
    ("google", 421, (4, 7, 28), "Our system has detected an unusual rate of unsolicited mail originating from your IP address."),
    ("microsoft", 550, (5, 7, 1), "Unfortunately, messages from [192.0.2.1] weren't sent; on our block list (S3150)."),
    ("other", 550, (5, 1, 1), "<b@example.net>: Recipient address rejected: User unknown in virtual mailbox table"),
    ("other", 451, (4, 3, 0), "quite another thing, in words that no entry of the table knows"),
];

fn classes(c: &mut Criterion) {
    let replies = Replies::shipped();
    let refusals = TEXTS.map(|(provider, code, enhanced, text)| (provider, Reply::new(code, enhanced, text)));
    let mut group = c.benchmark_group("replies");
    group.throughput(Throughput::Elements(TEXTS.len() as u64));
    group.bench_function("classify", |bencher| {
        bencher.iter(|| refusals.each_ref().map(|(provider, reply)| replies.classify(provider, Stage::Rcpt, reply)));
    });
    group.bench_function("floor: one word", |bencher| {
        bencher.iter(|| TEXTS.map(|(_, _, _, text)| text.contains("blocked")));
    });
    group.finish();
}

criterion_group!(benches, classes);
criterion_main!(benches);
