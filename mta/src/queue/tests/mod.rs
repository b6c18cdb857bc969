//! The queue, tried: what it promises, what damage does to it, and what a crash leaves.
//!
//! `model` plays random games against a plain map; `crash` kills real processes. Checkers keep
//! their own books and only ask the queue for what it holds.

mod backup;
mod basics;
mod crash;
mod model;
mod operate;
mod story;
mod stragglers;
mod torn;
mod trouble;
mod usage;

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use host::Clock;
use scheduler::{Lane, QueueId};
use smtp::address::{Mailbox, ReversePath};
use smtp::envelope::ByMode;
use tempfile::TempDir;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use super::*;

/// When the simulated clock starts.
fn start() -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(1_790_000_000)
}

fn later(secs: u64) -> SystemTime {
    start() + Duration::from_secs(secs)
}

/// Small segments, so that tests see many; no demands on the disk of the test machine.
fn options() -> Options {
    Options { map_bytes: 64 << 20, segment_bytes: 64 << 10, free_bytes_floor: 0, submitted_max: 4096, ..Options::default() }
}

/// A queue with its writer running as a task.
struct Bench {
    queue: Queue,
    reader: Reader,
    backlog: Backlog,
    notes: mpsc::Receiver<Vec<Note>>,
    writer: JoinHandle<Result<(), QueueError>>,
}

impl Bench {
    fn open(dir: &TempDir, options: Options) -> Self {
        Self::open_at(dir.path(), options, start())
    }

    fn open_at(dir: &Path, options: Options, start: SystemTime) -> Self {
        let (to_scheduler, notes) = mpsc::channel(1 << 16);
        let opened = Writer::open(dir, Clock::simulated(start), options, to_scheduler);
        let (writer, queue, reader) = opened.unwrap();
        let backlog = reader.backlog().unwrap();
        Self { queue, reader, backlog, notes, writer: tokio::spawn(writer.run()) }
    }

    /// An orderly end.
    async fn close(self) {
        drop(self.queue);
        self.writer.await.unwrap().unwrap();
    }

    /// The writer is gone from one moment to the next.
    async fn crash(self) {
        self.writer.abort();
        let _ = self.writer.await;
    }

    /// Everything noted so far.
    fn notes(&mut self) -> Vec<Note> {
        let mut notes = Vec::new();
        while let Ok(batch) = self.notes.try_recv() {
            notes.extend(batch);
        }
        notes
    }

    fn commits(&self) -> u64 {
        self.queue.stats().commits.load(Ordering::Relaxed)
    }

    fn events(&self) -> Vec<crate::events::Event> {
        self.reader.events_after(0, usize::MAX).unwrap().into_iter().map(|(_, event)| event).collect()
    }

    /// Everything in the queue, page by page.
    fn list(&self, filter: &Filter) -> Vec<Summary> {
        let (mut all, mut after) = (Vec::new(), None);
        loop {
            let page = self.reader.list(filter, after.as_deref(), 7).unwrap();
            all.extend(page.entries);
            match page.next {
                Some(next) => after = Some(next),
                None => return all,
            }
        }
    }
}

fn message(recipients: &[&str], octets: &str) -> NewMessage {
    let recipient = |mailbox: &&str| NewRecipient { mailbox: mailbox.parse().unwrap(), notify: None, orcpt: None };
    NewMessage {
        id: None,
        member: 1,
        credential: 2,
        admission: None,
        reverse_path: ReversePath::Mailbox("sender@member.example".parse().unwrap()),
        parameters: Parameters::default(),
        lane: Lane::Transactional,
        received_at: start(),
        due: start(),
        delay_notice_at: Some(later(14_400)),
        deadline: later(86_400),
        recipients: recipients.iter().map(recipient).collect(),
        octets: vec![Bytes::copy_from_slice(octets.as_bytes())],
    }
}

fn fate(index: u16, fate: Fate) -> RecipientFate {
    RecipientFate { index, fate, reply: "250 2.0.0 taken".to_owned() }
}

fn settlement(id: QueueId, domain: &str, fates: Vec<RecipientFate>, next: Next) -> Settlement {
    Settlement {
        id,
        domain: domain.into(),
        fates,
        delay_told: Vec::new(),
        next,
        last_reply: "451 4.7.1 come back".to_owned(),
        source: "ip-a".to_owned(),
        host: "mx.example".to_owned(),
        dsn: None,
        ledger: Vec::new(),
    }
}

fn delivered(id: QueueId, domain: &str) -> Settlement {
    settlement(id, domain, vec![fate(0, Fate::Delivered)], Next::Done)
}

fn octets_of(stored: &StoredDelivery) -> &str {
    std::str::from_utf8(&stored.message.octets).unwrap()
}

fn mailboxes(stored: &StoredDelivery) -> Vec<&str> {
    stored.recipients.iter().map(|recipient: &Recipient| Mailbox::as_str(&recipient.mailbox)).collect()
}

fn due_of(found: &[scheduler::Delivery]) -> Vec<(Lane, SystemTime)> {
    found.iter().map(|delivery| (delivery.lane, delivery.due)).collect()
}

/// Numbers by seed (SplitMix64).
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, n: usize) -> usize {
        (self.next() % n as u64) as usize
    }

    /// Octets that no other body has.
    fn octets(&mut self, length: usize) -> Bytes {
        let mut octets = Vec::with_capacity(length + 8);
        while octets.len() < length {
            octets.extend_from_slice(&self.next().to_le_bytes());
        }
        octets.truncate(length);
        octets.into()
    }
}

/// Segment files on disk: how many, and how long together.
fn segment_files(dir: &TempDir) -> (usize, u64) {
    let files = std::fs::read_dir(dir.path().join("segments")).unwrap();
    files.fold((0, 0), |(count, bytes), file| (count + 1, bytes + file.unwrap().metadata().unwrap().len()))
}

/// How often some octets lie in the segment files.
fn written_octets(dir: &TempDir, octets: &[u8]) -> usize {
    let files = std::fs::read_dir(dir.path().join("segments")).unwrap();
    files.map(|file| memchr::memmem::find_iter(&std::fs::read(file.unwrap().path()).unwrap(), octets).count()).sum()
}

/// Shared names are cheap to make here.
fn name(text: &str) -> Arc<str> {
    text.into()
}
