//! The server's dialogue: one pipelined transaction with a 4 KB message. Floor: copying those octets once.
#![allow(missing_docs, clippy::unwrap_used)]

use std::sync::Arc;

use bytes::Bytes;
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use smtp::server::{Answer, Session, Settings, Step};

fn message(bytes: usize) -> Vec<u8> {
    let mut text = b"From: app@member.example\r\nTo: a@big.example\r\nSubject: hello\r\n\r\n".to_vec();
    while text.len() < bytes {
        text.extend_from_slice(b"Seventy characters of ordinary text, as a mailer wraps its lines them.\r\n");
    }
    text
}

/// Answers yes to everything; gives the octets of the message that came through.
fn drive(session: &mut Session, input: &mut impl Iterator<Item = Bytes>) -> usize {
    let mut taken = 0;
    loop {
        match session.poll() {
            Step::Read { .. } => match input.next() {
                Some(octets) => session.handle_octets(octets),
                None => return taken,
            },
            Step::Ask(ask) => {
                if let smtp::server::Ask::Message { octets, .. } = ask {
                    taken = octets.len();
                }
                session.handle_answer(Answer::Accept);
            }
            Step::Write(octets) => drop(std::hint::black_box(octets)),
            Step::StartTls | Step::Close => return taken,
        }
    }
}

fn transaction(c: &mut Criterion) {
    let text = message(4096);
    let envelope = Bytes::from_static(b"MAIL FROM:<app@member.example>\r\nRCPT TO:<a@big.example>\r\nDATA\r\n");
    let data = Bytes::from([&text[..], b".\r\n"].concat());
    let settings = Arc::new(Settings::new("relay.example"));
    let mut group = c.benchmark_group("dialogue");
    group.throughput(Throughput::Bytes(text.len() as u64));
    group.bench_function("transaction of 4 KB", |b| {
        let mut session = Session::new(settings.clone());
        drive(&mut session, &mut [Bytes::from_static(b"EHLO bench.example\r\n")].into_iter());
        let mut sent = 0;
        b.iter(|| {
            // A session takes a bounded number of messages.
            sent += 1;
            if sent == 500 {
                session = Session::new(settings.clone());
                drive(&mut session, &mut [Bytes::from_static(b"EHLO bench.example\r\n")].into_iter());
                sent = 0;
            }
            assert_eq!(drive(&mut session, &mut [envelope.clone(), data.clone()].into_iter()), text.len());
        });
    });
    group.bench_function("floor: one copy", |b| b.iter(|| std::hint::black_box(text.clone()).len()));
    group.finish();
}

criterion_group!(benches, transaction);
criterion_main!(benches);
