//! What a reply speaks of, through the whole table: an acceptance, some texts of large providers, all of the samples that the
//! table is tested with, and the worst that a host can send. Floor: one look for one word.
//!
//! An acceptance is most replies, and should cost next to nothing; a refusal a few microseconds, the worst one less than the
//! write to disk that it is followed by.
#![allow(missing_docs, clippy::unwrap_used)]

use std::hint::black_box;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use mta::egress::deliver::Attempt;
use mta::egress::replies::Replies;
use mta::egress::trouble::{judge, summarize, weigh};
use smtp::client::{Fate, Stage};
use smtp::reply::{EnhancedCode, Reply};

/// Provider, codes, text.
type Row = (&'static str, u16, (u8, u16, u16), &'static str);

const TEXTS: [Row; 4] = [
    ("google", 421, (4, 7, 28), "Our system has detected an unusual rate of unsolicited mail originating from your IP address."),
    ("microsoft", 550, (5, 7, 1), "Unfortunately, messages from [192.0.2.1] weren't sent; on our block list (S3150)."),
    ("other", 550, (5, 1, 1), "<b@example.net>: Recipient address rejected: User unknown in virtual mailbox table"),
    ("other", 451, (4, 3, 0), "quite another thing, in words that no entry of the table knows"),
];

/// provider | stage | class | verdict | text, a line each.
const SAMPLES: &str = include_str!("../../mta/src/egress/replies/samples.txt");

/// The provider and the reply of each sample.
fn samples() -> Vec<(&'static str, Reply)> {
    let lines = SAMPLES.lines().filter(|line| !line.starts_with('#') && !line.is_empty());
    let read = |line: &'static str| {
        let fields: Vec<&str> = line.splitn(5, '|').map(str::trim).collect();
        let (code, rest) = (fields[4][..3].parse().unwrap(), &fields[4][4..]);
        let reply = match EnhancedCode::split(rest) {
            Some((enhanced, rest)) => Reply::new(code, enhanced, rest.to_owned()),
            None => Reply::plain(code, rest.to_owned()),
        };
        (fields[0], reply)
    };
    lines.map(read).collect()
}

/// As much text as is looked at: the beginnings of all samples, none of them to its end.
fn beginnings() -> String {
    let words = samples().into_iter().flat_map(|(_, reply)| {
        let text = reply.to_string();
        let words: Vec<String> = text.split(' ').skip(1).map(str::to_owned).collect();
        words.iter().take(words.len().min(5) / 2).cloned().collect::<Vec<_>>()
    });
    words.collect::<Vec<_>>().join(" ").chars().filter(char::is_ascii).take(1024).collect()
}

fn attempt(fate: &Fate) -> Attempt {
    let outcomes = vec![judge(0, fate)];
    let (scope, verdict) = summarize(&outcomes);
    Attempt::of(outcomes, scope, verdict)
}

fn classes(c: &mut Criterion) {
    let replies = Replies::shipped();
    let mut group = c.benchmark_group("replies");
    group.throughput(Throughput::Elements(1));
    group.bench_function("accepted", |bencher| {
        let mut attempt = attempt(&Fate::Accepted(Reply::new(250, (2, 0, 0), "OK: queued as 4cXyz1abc")));
        bencher.iter(|| weigh(black_box(&mut attempt), "google", &replies));
    });
    for (provider, code, enhanced, text) in TEXTS {
        let reply = Reply::new(code, enhanced, text);
        group.bench_function(format!("refused: {provider} {code}"), |bencher| {
            bencher.iter(|| replies.classify(provider, Stage::Rcpt, black_box(&reply)));
        });
    }
    group.bench_function("refused, with all that follows", |bencher| {
        let (_, code, enhanced, text) = TEXTS[0];
        let mut attempt = attempt(&Fate::Refused { reply: Reply::new(code, enhanced, text), stage: Stage::Rcpt });
        bencher.iter(|| weigh(black_box(&mut attempt), "google", &replies));
    });
    let worst = Reply::new(450, (4, 7, 0), beginnings());
    group.bench_function("worst: 1,024 octets that nearly fit", |bencher| {
        bencher.iter(|| replies.classify("other", Stage::Rcpt, black_box(&worst)));
    });
    // With so many texts in a row the automaton has to forget and work out again, if ever.
    let samples = samples();
    group.throughput(Throughput::Elements(samples.len() as u64));
    group.bench_function("all samples", |bencher| {
        bencher.iter(|| {
            let found = samples.iter().filter_map(|(provider, reply)| replies.classify(provider, Stage::Rcpt, reply));
            black_box(found.count())
        });
    });
    group.throughput(Throughput::Elements(TEXTS.len() as u64));
    group.bench_function("floor: one word", |bencher| {
        bencher.iter(|| TEXTS.map(|(_, _, _, text)| text.contains(black_box("blocked"))));
    });
    group.finish();
}

criterion_group!(benches, classes);
criterion_main!(benches);
