//! Durable enqueues, 64 waiting at a time, and one alone. Floor: one pwrite and one fdatasync of the same octets by hand.
//!
//! Alone, a message costs three flushes of the device: its body's, and two of LMDB's commit. `lone` tells how much of it the
//! first one is: LMDB commits a row, and LMDB commits a row with the body in it, which is what could be had instead.
#![allow(missing_docs, clippy::unwrap_used)]

use std::time::{Duration, SystemTime};

use bytes::Bytes;
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use host::Clock;
use mta::queue::{NewMessage, NewRecipient, Options, Parameters, Queue, Writer};
use scheduler::Lane;
use smtp::address::ReversePath;

const TOGETHER: usize = 64;

fn message(body: &Bytes) -> NewMessage {
    let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_795_400_000);
    NewMessage {
        id: None,
        member: 1,
        credential: 1,
        admission: None,
        reverse_path: ReversePath::Mailbox("app@member.example".parse().unwrap()),
        parameters: Parameters::default(),
        lane: Lane::Transactional,
        received_at: now,
        due: now,
        delay_notice_at: None,
        deadline: now + Duration::from_secs(86_400),
        recipients: vec![NewRecipient { mailbox: "a@big.example".parse().unwrap(), notify: None, orcpt: None }],
        octets: vec![body.clone()],
    }
}

async fn enqueue_together(queue: &Queue, body: &Bytes) {
    let tasks: Vec<_> = (0..TOGETHER)
        .map(|_| {
            let (queue, message) = (queue.clone(), message(body));
            tokio::spawn(async move { queue.enqueue(message).await.unwrap() })
        })
        .collect();
    for task in tasks {
        task.await.unwrap();
    }
}

fn enqueue(c: &mut Criterion) {
    let folder = tempfile::tempdir().unwrap();
    let body = Bytes::from(vec![b'x'; 4096]);
    let (notes, mut taken) = tokio::sync::mpsc::channel(64);
    let (writer, queue, _reader) = Writer::open(folder.path(), Clock::system(), Options::default(), notes).unwrap();
    host::thread("queue", move || writer.run()).map(drop).unwrap();
    host::thread("notes", move || async move { while taken.recv().await.is_some() {} }).map(drop).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let mut group = c.benchmark_group("queue");
    group.throughput(Throughput::Elements(TOGETHER as u64));
    group.bench_function("64 durable enqueues of 4 KB", |b| b.iter(|| runtime.block_on(enqueue_together(&queue, &body))));
    let file = host::disk::File::create(&folder.path().join("floor")).unwrap();
    let octets = vec![b'x'; 4096 * TOGETHER];
    file.write_all_at(&octets, 0).unwrap();
    group.bench_function("floor: write and fdatasync of 256 KB", |b| {
        b.iter(|| {
            file.write_all_at(&octets, 0).unwrap();
            file.sync_data().unwrap();
        });
    });
    group.finish();
}

fn lone(c: &mut Criterion) {
    let folder = tempfile::tempdir().unwrap();
    let body = Bytes::from(vec![b'x'; 4096]);
    let (notes, _) = tokio::sync::mpsc::channel(64);
    let (writer, queue, reader) = Writer::open(folder.path(), Clock::system(), Options::default(), notes).unwrap();
    host::thread("queue", move || writer.run()).map(drop).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let mut group = c.benchmark_group("lone");
    group.bench_function("one durable enqueue of 4 KB", |b| {
        b.iter(|| runtime.block_on(queue.enqueue(message(&body))).unwrap());
    });
    drop(reader);
    for (name, value) in [("LMDB commits a row", vec![b'x'; 200]), ("LMDB commits a row and 4 KB", vec![b'x'; 4296])] {
        let mut key = 0u64;
        group.bench_function(name, |b| {
            b.iter(|| {
                key += 1;
                let (key, value) = (key.to_be_bytes(), value.clone());
                runtime.block_on(queue.transact(move |txn, tables| Ok(tables.suppressions.put(txn, &key, &value)?))).unwrap();
            });
        });
    }
    let file = host::disk::File::create(&folder.path().join("floor")).unwrap();
    file.write_all_at(&vec![0; 64 << 20], 0).unwrap();
    file.sync_data().unwrap();
    let (octets, mut at) = (vec![b'x'; 4096], 0);
    group.bench_function("floor: write and fdatasync of 4 KB", |b| {
        b.iter(|| {
            at = (at + 4096) % (64 << 20);
            file.write_all_at(&octets, at).unwrap();
            file.sync_data().unwrap();
        });
    });
    group.finish();
}

criterion_group!(benches, enqueue, lone);
criterion_main!(benches);
