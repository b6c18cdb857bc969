//! Messages submitted lately, so that one submitted again is not queued again.
//!
//! A client whose connection broke before it read its `250` cannot know that we have the message, and sends it once
//! more (RFC 1047). Whoever submits gives the queue a [`Fingerprint`]; what it is made of is policy's to say. The record
//! of it commits in the transaction of its message, in the table `submitted` (id → fingerprint): append-only, so it costs
//! next to nothing, and as durable as the message, so it also knows what was committed by a process that was then killed
//! before it could answer.
//!
//! **The writer decides.** There is one, so of two that come at the same time it queues the first and answers both with
//! its id after the commit. **[`Recent`] spares work**: a table of atomics that ring threads look into without a lock,
//! before anything is signed. It forgets some of what the writer knows; whoever is not found in it is found by the writer.
//!
//! A message that could not be delivered is forgotten here when that is written down: its sender may try again.

use std::collections::HashMap;
use std::ops::Bound;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering, fence};
use std::time::{Duration, SystemTime};

use heed::{RoTxn, RwTxn, WithoutTls};
use scheduler::QueueId;

use super::codec::millis;
use super::handle::{Request, Stats};
use super::tables::Tables;
use super::types::QueueError;

/// Records kept; past it the oldest are forgotten before their time. Each takes about 100 octets of memory.
pub(crate) const RECORDS_MAX: usize = 1 << 18;

/// Records that a transaction removes at most, beside twice those that it adds.
const TRIM_MORE: usize = 64;

/// Entries that share a place in [`Recent`]; the oldest of them gives way.
const WAYS: usize = 4;

/// What a message is known by: half of a SHA-256.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Fingerprint(pub [u8; 16]);

/// What ring threads know of it. Cheap to clone.
#[derive(Clone)]
pub struct Recent(Arc<Shared>);

struct Shared {
    /// How long a message is remembered, in milliseconds; 0: nothing is looked for.
    window: AtomicU64,
    sets: Box<[[Way; WAYS]]>,
}

/// One record. `id` is 0 while the halves are being written, so a reader that finds the same id before and after has
/// read halves that belong to it: ids are never given twice.
#[derive(Default)]
struct Way {
    id: AtomicU64,
    halves: [AtomicU64; 2],
}

impl Fingerprint {
    fn halves(self) -> [u64; 2] {
        let [a, b] = [&self.0[..8], &self.0[8..]].map(|half| half.try_into().map_or(0, u64::from_be_bytes));
        [a, b]
    }
}

impl Recent {
    fn new(records: usize) -> Self {
        let sets = (records / WAYS).max(1).next_power_of_two();
        let sets = (0..sets).map(|_| Default::default()).collect();
        Self(Arc::new(Shared { window: AtomicU64::new(0), sets }))
    }

    /// How long a message is remembered from now on; zero: nothing is held to be a duplicate.
    pub fn set_window(&self, window: Duration) {
        self.0.window.store(u64::try_from(window.as_millis()).unwrap_or(u64::MAX), Ordering::Relaxed);
    }

    /// Whether anything is looked for: without it no fingerprint need be made.
    pub fn is_on(&self) -> bool {
        self.0.window.load(Ordering::Relaxed) > 0
    }

    /// The message that was durable before with this fingerprint, if it is remembered here.
    pub fn find(&self, fingerprint: Fingerprint, now: SystemTime) -> Option<QueueId> {
        let halves = fingerprint.halves();
        self.set(halves).iter().find_map(|way| {
            let id = way.id.load(Ordering::Acquire);
            let found = way.halves.each_ref().map(|half| half.load(Ordering::Relaxed));
            fence(Ordering::Acquire);
            let whole = id != 0 && found == halves && way.id.load(Ordering::Relaxed) == id;
            (whole && self.is_fresh(QueueId(id), now)).then_some(QueueId(id))
        })
    }

    /// Whether a message of that id came within the window. A clock that was set back does not end it.
    fn is_fresh(&self, id: QueueId, now: SystemTime) -> bool {
        let window = self.0.window.load(Ordering::Relaxed);
        window > 0 && millis(now).saturating_sub(millis(id.time())) <= window
    }

    /// Only the writer adds and removes.
    fn add(&self, fingerprint: Fingerprint, id: QueueId) {
        let halves = fingerprint.halves();
        let set = self.set(halves);
        let oldest = |way: &&Way| way.id.load(Ordering::Relaxed);
        let same = set.iter().find(|way| way.halves.each_ref().map(|half| half.load(Ordering::Relaxed)) == halves);
        let Some(way) = same.or_else(|| set.iter().min_by_key(oldest)) else { return };
        way.id.store(0, Ordering::Relaxed);
        fence(Ordering::Release);
        for (place, half) in way.halves.iter().zip(halves) {
            place.store(half, Ordering::Relaxed);
        }
        way.id.store(id.0, Ordering::Release);
    }

    fn remove(&self, fingerprint: Fingerprint, id: QueueId) {
        if let Some(way) = self.set(fingerprint.halves()).iter().find(|way| way.id.load(Ordering::Relaxed) == id.0) {
            way.id.store(0, Ordering::Release);
        }
    }

    fn set(&self, [first, _]: [u64; 2]) -> &[Way; WAYS] {
        // A power of two.
        &self.0.sets[first as usize & (self.0.sets.len() - 1)]
    }
}

/// What one transaction changes.
#[derive(Default)]
pub(crate) struct RecordChanges {
    added: Vec<(Fingerprint, QueueId)>,
    removed: Vec<(Fingerprint, QueueId)>,
}

impl RecordChanges {
    /// A message is put in.
    pub(crate) fn add(
        &mut self,
        fingerprint: Fingerprint,
        id: QueueId,
        txn: &mut RwTxn<'_>,
        tables: &Tables,
    ) -> Result<(), QueueError> {
        super::apply::append(tables.submitted, txn, &id.0.to_be_bytes(), &fingerprint.0)?;
        self.added.push((fingerprint, id));
        Ok(())
    }

    /// A recipient of it will not get it: submitted again, it is not the same again.
    pub(crate) fn forget(&mut self, id: QueueId, txn: &mut RwTxn<'_>, tables: &Tables) -> Result<(), QueueError> {
        let key = id.0.to_be_bytes();
        let found = tables.submitted.get(txn, &key)?.and_then(fingerprint);
        if let Some(fingerprint) = found {
            tables.submitted.delete(txn, &key)?;
            self.removed.push((fingerprint, id));
        }
        Ok(())
    }
}

/// The records, as the writer keeps them.
pub(crate) struct Duplicates {
    known: HashMap<Fingerprint, QueueId>,
    records_max: usize,
    /// Rows of the table.
    rows: usize,
    recent: Recent,
}

impl Duplicates {
    pub(crate) fn open(txn: &RoTxn<'_, WithoutTls>, tables: &Tables, records_max: usize) -> Result<Self, QueueError> {
        let recent = Recent::new(records_max);
        let mut duplicates = Self { known: HashMap::new(), records_max, rows: 0, recent };
        for entry in tables.submitted.iter(txn)? {
            let (key, row) = entry?;
            duplicates.rows += 1;
            // A damaged record is one duplicate the more, and leaves with the others.
            let (Some(fingerprint), Some(id)) = (fingerprint(row), id(key)) else { continue };
            duplicates.known.insert(fingerprint, id);
            duplicates.recent.add(fingerprint, id);
        }
        Ok(duplicates)
    }

    pub(crate) fn recent(&self) -> Recent {
        self.recent.clone()
    }

    /// Takes out of a batch what was submitted before: what is durable is answered at once, what is in this batch with the first.
    pub(crate) fn sift(&self, batch: Vec<Request>, now: SystemTime, stats: &Stats) -> Vec<Request> {
        let mut kept: Vec<Request> = Vec::with_capacity(batch.len());
        let mut first: HashMap<Fingerprint, usize> = HashMap::new();
        for request in batch {
            let (message, answer) = match request {
                Request::Enqueue(message, answer) => (message, answer),
                other => {
                    kept.push(other);
                    continue;
                }
            };
            if let Some(fingerprint) = message.admission.and_then(|admission| admission.fingerprint) {
                if let Some(id) = self.find(fingerprint, now) {
                    Stats::add(&stats.duplicates, 1);
                    let _ = answer.send(Ok(id));
                    continue;
                }
                let nth = *first.entry(fingerprint).or_insert(kept.len());
                if let Some(Request::Enqueue(earlier, _)) = kept.get_mut(nth) {
                    Stats::add(&stats.duplicates, 1);
                    earlier.followers.push(answer);
                    continue;
                }
            }
            kept.push(Request::Enqueue(message, answer));
        }
        kept
    }

    /// The durable message of this fingerprint.
    fn find(&self, fingerprint: Fingerprint, now: SystemTime) -> Option<QueueId> {
        self.known.get(&fingerprint).copied().filter(|id| self.recent.is_fresh(*id, now))
    }

    /// Removes what is too old or too much, the oldest first, some at a time.
    pub(crate) fn trim(
        &self,
        changes: &mut RecordChanges,
        now: SystemTime,
        txn: &mut RwTxn<'_>,
        tables: &Tables,
    ) -> Result<(), QueueError> {
        if changes.added.is_empty() {
            return Ok(());
        }
        let rows = (self.rows + changes.added.len()).saturating_sub(changes.removed.len());
        let (mut surplus, mut last) = (rows.saturating_sub(self.records_max), None);
        for entry in tables.submitted.iter(txn)?.take(TRIM_MORE + 2 * changes.added.len()) {
            let (key, row) = entry?;
            let Some(id) = id(key) else { break };
            if surplus == 0 && self.recent.is_fresh(id, now) {
                break;
            }
            surplus = surplus.saturating_sub(1);
            last = Some(id);
            changes.removed.extend(fingerprint(row).map(|fingerprint| (fingerprint, id)));
        }
        if let Some(last) = last {
            let last = last.0.to_be_bytes();
            tables.submitted.delete_range(txn, &(Bound::Unbounded, Bound::Included(&last[..])))?;
        }
        Ok(())
    }

    /// The changes are durable.
    pub(crate) fn commit(&mut self, changes: RecordChanges) {
        self.rows = (self.rows + changes.added.len()).saturating_sub(changes.removed.len());
        for (fingerprint, id) in changes.added {
            self.known.insert(fingerprint, id);
            self.recent.add(fingerprint, id);
        }
        for (fingerprint, id) in changes.removed {
            // A later message of the same fingerprint stays.
            if self.known.get(&fingerprint) == Some(&id) {
                self.known.remove(&fingerprint);
            }
            self.recent.remove(fingerprint, id);
        }
    }
}

fn fingerprint(row: &[u8]) -> Option<Fingerprint> {
    row.try_into().ok().map(Fingerprint)
}

fn id(key: &[u8]) -> Option<QueueId> {
    key.try_into().ok().map(|key| QueueId(u64::from_be_bytes(key)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn print(n: u64) -> Fingerprint {
        let mut octets = [0; 16];
        octets[..8].copy_from_slice(&n.to_be_bytes());
        octets[8..].copy_from_slice(&n.wrapping_mul(0x9e37_79b9_7f4a_7c15).to_be_bytes());
        Fingerprint(octets)
    }

    fn id(millis: u64) -> QueueId {
        QueueId(millis << QueueId::COUNTER_BITS)
    }

    fn at(millis: u64) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_millis(millis)
    }

    #[test]
    fn a_message_is_remembered_for_the_window_and_a_clock_set_back_does_not_end_it() {
        let recent = Recent::new(64);
        recent.add(print(1), id(5_000));
        assert_eq!(recent.find(print(1), at(5_000)), None, "nothing is looked for yet");
        recent.set_window(Duration::from_secs(10));
        assert_eq!(recent.find(print(1), at(15_000)), Some(id(5_000)));
        assert_eq!(recent.find(print(1), at(1_000)), Some(id(5_000)));
        assert_eq!(recent.find(print(1), at(15_001)), None);
        assert_eq!(recent.find(print(2), at(5_000)), None);
    }

    #[test]
    fn in_a_full_set_the_oldest_gives_way_and_what_is_removed_is_gone() {
        let recent = Recent::new(WAYS);
        recent.set_window(Duration::from_secs(100));
        for n in 1..=WAYS as u64 + 1 {
            recent.add(print(n), id(n));
        }
        let found: Vec<bool> = (1..=WAYS as u64 + 1).map(|n| recent.find(print(n), at(9)).is_some()).collect();
        assert_eq!(found, [false, true, true, true, true]);
        recent.remove(print(3), id(2));
        assert_eq!(recent.find(print(3), at(9)), Some(id(3)), "another message's record is not taken");
        recent.remove(print(3), id(3));
        assert_eq!(recent.find(print(3), at(9)), None);
    }

    #[test]
    fn readers_beside_a_busy_writer_find_the_right_id_or_none() {
        let recent = Recent::new(16);
        recent.set_window(Duration::from_secs(1 << 30));
        (1..=40).for_each(|n| recent.add(print(n), QueueId(n)));
        std::thread::scope(|scope| {
            let looks = (0..8).map(|_| {
                let recent = recent.clone();
                scope.spawn(move || {
                    let mut found = 0;
                    for _ in 0..2_000 {
                        for n in 1..=40 {
                            if let Some(id) = recent.find(print(n), at(0)) {
                                assert_eq!(id.0 % 40, n % 40, "a record of another message");
                                found += 1;
                            }
                        }
                    }
                    found
                })
            });
            let looks: Vec<_> = looks.collect();
            for round in 1..2_000 {
                for n in 1..=40 {
                    recent.add(print(n), QueueId(round * 40 + n));
                }
            }
            let found: u32 = looks.into_iter().map(|look| look.join().unwrap()).sum();
            assert!(found > 0, "nothing was ever found: nothing was tested");
        });
    }
}
