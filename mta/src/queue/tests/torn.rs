//! What a disk may do to segments: sectors of a record lost or torn, and where the writer may write at all.

use std::collections::BTreeMap;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;

use host::sim;

use super::*;
use crate::queue::keys::message_key;
use crate::queue::rows::{MessageRow, Place};
use crate::queue::segments::{HEADER, record_bytes};

const SECTOR: u64 = 512;
const PAGE: u64 = 4096;

fn place(bench: &Bench, id: QueueId) -> Place {
    let row = |row: Option<&[u8]>| MessageRow::decode(row.unwrap()).unwrap().place;
    bench.reader.read(|txn, tables| Ok(row(tables.messages.get(txn, &message_key(id))?))).unwrap()
}

fn segment(dir: &TempDir, place: Place) -> PathBuf {
    dir.path().join(format!("segments/{:06}.seg", place.segment))
}

fn text(random: &mut Random, length: usize) -> String {
    (0..length).map(|_| char::from(b'a' + random.below(26) as u8)).collect()
}

#[tokio::test(start_paused = true)]
async fn a_record_of_which_any_sector_is_lost_or_torn_is_recognised() {
    let dir = TempDir::new().unwrap();
    let bench = Bench::open(&dir, options());
    let mut random = Random(11);
    for length in [1, 8, 479, 480, 481, 512, 3000, 4064, 4065, 9000, 20_000] {
        let body = text(&mut random, length);
        let id = bench.queue.enqueue(message(&["a@one.example"], &body)).await.unwrap();
        let place = place(&bench, id);
        let file = std::fs::File::options().read(true).write(true).open(segment(&dir, place)).unwrap();
        // What pads the record to eight octets is nobody's.
        let end = place.offset + HEADER + place.length;
        for at in (place.offset / SECTOR * SECTOR..end).step_by(SECTOR as usize) {
            let (from, to) = (at.max(place.offset), (at + SECTOR).min(end));
            let mut good = vec![0; (to - from) as usize];
            file.read_exact_at(&mut good, from).unwrap();
            let torn_at = random.below(good.len());
            let other = text(&mut random, good.len()).into_bytes();
            let half = [&good[..torn_at], &other[torn_at..]].concat();
            for shown in [vec![0; good.len()], other, half].into_iter().filter(|shown| *shown != good) {
                file.write_all_at(&shown, from).unwrap();
                let found = bench.reader.fetch(id, "one.example").map(|_| ());
                assert!(matches!(found, Err(QueueError::Corrupt(damaged)) if damaged == id), "{length} octets, sector at {at}");
            }
            file.write_all_at(&good, from).unwrap();
        }
        assert_eq!(octets_of(&bench.reader.fetch(id, "one.example").unwrap()), body);
    }
}

#[tokio::test(start_paused = true)]
async fn another_messages_record_in_its_place_is_not_taken_for_it() {
    let dir = TempDir::new().unwrap();
    let bench = Bench::open(&dir, options());
    let mut ids = Vec::new();
    for _ in 0..2 {
        ids.push(bench.queue.enqueue(message(&["a@one.example"], "the same text")).await.unwrap());
    }
    let [one, other] = [place(&bench, ids[0]), place(&bench, ids[1])];
    let file = std::fs::File::options().read(true).write(true).open(segment(&dir, one)).unwrap();
    let mut record = vec![0; record_bytes(other.length) as usize];
    file.read_exact_at(&mut record, other.offset).unwrap();
    file.write_all_at(&record, one.offset).unwrap();
    assert!(matches!(bench.reader.fetch(ids[0], "one.example"), Err(QueueError::Corrupt(_))));
    assert_eq!(octets_of(&bench.reader.fetch(ids[1], "one.example").unwrap()), "the same text");
}

/// Plays for a while: messages come and go, some in one batch, syncs fail, the power goes. The book says what got an id
/// and is not settled; the disk says where was written.
async fn play(seed: u64) -> (u64, u64) {
    let dir = TempDir::new().unwrap();
    let mut random = Random(seed);
    let mut alive: BTreeMap<QueueId, String> = BTreeMap::new();
    let (mut looked_at, mut lives) = (0, 0);
    while lives < 4 {
        lives += 1;
        let disk = sim::Disk::new(seed << 8 | lives);
        let bench = Bench::open(&dir, Options { faults: Faults::of_disk(disk.clone()), ..options() });
        // Everything that was acknowledged before is there, whatever the disk did.
        for (id, body) in &alive {
            assert_eq!(octets_of(&bench.reader.fetch(*id, "one.example").unwrap()), body, "seed {seed}, {id}");
        }
        disk.cut_in(20 + random.below(40) as u64);
        while !disk.is_off() {
            if random.below(8) == 0 {
                disk.fail_sync_in(1);
            }
            disk.take_written();
            let before: BTreeMap<QueueId, Place> = alive.keys().map(|id| (*id, place(&bench, *id))).collect();
            // Some come and some go, in one batch or in several.
            let bodies: Vec<String> = (0..1 + random.below(4))
                .map(|_| {
                    let length = [40, 700, 4000, 9000, 30_000][random.below(5)];
                    text(&mut random, length)
                })
                .collect();
            let coming = bodies.iter().map(|body| bench.queue.enqueue(message(&["a@one.example"], body)));
            let going: Vec<QueueId> = alive.keys().copied().filter(|_| random.below(4) == 0).collect();
            let settled = bench.queue.settle(going.iter().map(|id| delivered(*id, "one.example")).collect());
            let (came, settled) = tokio::join!(futures(coming), settled);
            // Without an answer a settlement is durable or not: it is of no use as a witness any more.
            for id in going {
                let body = alive.remove(&id);
                if settled.is_err() && bench.reader.fetch(id, "one.example").is_ok() {
                    alive.extend(body.map(|body| (id, body)));
                }
            }
            let written = disk.take_written();
            for (id, before) in &before {
                // Those that were settled or moved have left their pages to others.
                if !alive.contains_key(id) || place(&bench, *id) != *before {
                    continue;
                }
                let pages = before.offset / PAGE..(before.offset + record_bytes(before.length)).div_ceil(PAGE);
                for write in written.iter().filter(|write| write.path == segment(&dir, *before)) {
                    let touched = write.offset / PAGE..(write.offset + write.length).div_ceil(PAGE);
                    let apart = touched.end <= pages.start || pages.end <= touched.start;
                    assert!(apart, "seed {seed}: {id} lies in pages {pages:?}, and {touched:?} were written");
                    looked_at += 1;
                }
            }
            for (came, body) in came.into_iter().zip(bodies) {
                alive.extend(came.ok().map(|id| (id, body)));
            }
        }
        bench.crash().await;
        disk.show().unwrap();
    }
    (looked_at, alive.len() as u64)
}

/// All of them at once, in order.
async fn futures<F: Future>(of: impl Iterator<Item = F>) -> Vec<F::Output> {
    let mut waiting: Vec<_> = of.map(|future| (Box::pin(future), None)).collect();
    std::future::poll_fn(move |context| {
        for (future, done) in waiting.iter_mut().filter(|(_, done)| done.is_none()) {
            if let std::task::Poll::Ready(output) = future.as_mut().poll(context) {
                *done = Some(output);
            }
        }
        match waiting.iter().all(|(_, done)| done.is_some()) {
            true => std::task::Poll::Ready(waiting.drain(..).filter_map(|(_, done)| done).collect()),
            false => std::task::Poll::Pending,
        }
    })
    .await
}

#[tokio::test(start_paused = true)]
async fn a_page_that_holds_an_acknowledged_body_is_never_written_again() {
    let (mut looked_at, mut left) = (0, 0);
    for seed in 0..12 {
        let (more, alive) = play(seed).await;
        looked_at += more;
        left += alive;
    }
    assert!(looked_at > 1000 && left > 0, "{looked_at} pairs of a body and a write to its segment; {left} bodies at the end");
}
