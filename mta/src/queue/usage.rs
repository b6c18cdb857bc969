//! What each member has in the queue, and what it has sent today.
//!
//! One row a member in the table `usage`, written by the transactions that insert and remove messages: exact after any
//! crash, and read at start without a look at messages. The writer keeps the rows in memory, so a batch writes each
//! member's row once, however many of its messages come and go in it. Ring threads see the counts as of the last commit.
//!
//! Mail of our own (notices) is counted as that of account 0, which is nobody's: it is never refused for its number.
//!
//! Not here: what a member may have (`policy::account`).

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use arc_swap::ArcSwap;
use heed::{RoTxn, RwTxn, WithoutTls};

use super::codec::{Damaged, Decoder, Encoder, millis};
use super::rows::MessageRow;
use super::tables::{Environment, Tables};
use super::types::{Admission, QueueError};

/// The first octet of a row.
const VERSION: u8 = 1;

/// The account of our own mail. Members' numbers begin at 1.
pub const OWN: u32 = 0;

/// No estimate of when a message leaves is longer: mail is tried again at least as often, and a client that is told
/// more gives up.
const LEAVES_IN_MAX: Duration = Duration::from_secs(3600);

/// What an account has in the queue, as of the last commit.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Held {
    /// Messages.
    pub messages: u64,
    /// Octets of their bodies, as they are stored.
    pub bytes: u64,
    /// When the next message is likely to leave, going by those that left. None: too few have left since the start.
    pub leaves_in: Option<Duration>,
}

/// A row of `usage`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Usage {
    /// Messages in the queue.
    pub messages: u64,
    /// Octets of their bodies.
    pub bytes: u64,
    /// The last day of UTC, since 1970, on which something was sent.
    pub day: u32,
    /// Recipients sent to on that day.
    pub spent: u64,
}

impl Usage {
    fn encode(&self) -> Vec<u8> {
        let mut row = Encoder::new(VERSION);
        row.u64(self.messages).u64(self.bytes).u32(self.day).u64(self.spent);
        row.done()
    }

    fn decode(row: &[u8]) -> Result<Self, Damaged> {
        let mut fields = Decoder::new(row, VERSION)?;
        let usage = Self { messages: fields.u64()?, bytes: fields.u64()?, day: fields.u32()?, spent: fields.u64()? };
        fields.end()?;
        Ok(usage)
    }
}

/// Whose account a message is on.
pub(crate) fn account(member: u32, credential: u32) -> u32 {
    if credential == 0 { OWN } else { member }
}

/// The counts for those who only look. Cheap to clone.
#[derive(Clone, Default)]
pub(crate) struct Counts(Arc<ArcSwap<HashMap<u32, Arc<Count>>>>);

#[derive(Default)]
struct Count {
    messages: AtomicU64,
    bytes: AtomicU64,
    /// When a message left last, and how long it took from one to the next lately: milliseconds, 0 for not yet.
    left_at: AtomicU64,
    between: AtomicU64,
}

impl Counts {
    pub(crate) fn held(&self, account: u32, now: SystemTime) -> Held {
        let counts = self.0.load();
        let Some(count) = counts.get(&account) else { return Held::default() };
        let between = count.between.load(Ordering::Relaxed);
        // What has not left for a while is not expected the sooner for it.
        let since = millis(now).saturating_sub(count.left_at.load(Ordering::Relaxed));
        let wait = || Duration::from_millis(between.max(since)).clamp(Duration::from_secs(1), LEAVES_IN_MAX);
        Held {
            messages: count.messages.load(Ordering::Acquire),
            bytes: count.bytes.load(Ordering::Acquire),
            leaves_in: (between > 0).then(wait),
        }
    }

    fn of(&self, account: u32) -> Arc<Count> {
        if let Some(count) = self.0.load().get(&account) {
            return count.clone();
        }
        // Once for each account: only the writer adds.
        let mut counts = HashMap::clone(&self.0.load());
        let count = counts.entry(account).or_default().clone();
        self.0.store(Arc::new(counts));
        count
    }
}

/// What one transaction changes.
#[derive(Default)]
pub(crate) struct UsageChanges(HashMap<u32, Change>);

#[derive(Default)]
struct Change {
    came: u64,
    came_bytes: u64,
    left: u64,
    left_bytes: u64,
    /// Day and recipients, of the latest day that occurred.
    spent: Option<(u32, u64)>,
}

impl UsageChanges {
    /// A message is put in.
    pub(crate) fn came(&mut self, account: u32, bytes: u64, admission: Option<&Admission>) {
        let change = self.0.entry(account).or_default();
        change.came += 1;
        change.came_bytes += bytes;
        if let Some(Admission { day, recipients, .. }) = admission {
            change.spent = match change.spent {
                Some((latest, spent)) if latest == *day => Some((latest, spent + u64::from(*recipients))),
                // It was admitted before midnight: that day is over.
                Some((latest, spent)) if latest > *day => Some((latest, spent)),
                _ => Some((*day, u64::from(*recipients))),
            };
        }
    }

    /// A message is taken out.
    pub(crate) fn left(&mut self, account: u32, bytes: u64) {
        let change = self.0.entry(account).or_default();
        change.left += 1;
        change.left_bytes += bytes;
    }
}

/// The rows, as the writer keeps them.
pub(crate) struct Usages {
    rows: HashMap<u32, Usage>,
    counts: Counts,
}

impl Usages {
    /// Reads one row an account. In a queue that is older than this table the messages are counted, once.
    pub(crate) fn open(env: &Environment, tables: &Tables) -> Result<Self, QueueError> {
        let txn = env.read_txn()?;
        let mut usages = Self { rows: read(&txn, tables)?.collect::<Result<_, _>>()?, counts: Counts::default() };
        if usages.rows.is_empty() {
            for entry in tables.messages.iter(&txn)? {
                let Ok(row) = MessageRow::decode(entry?.1) else { continue };
                let usage = usages.rows.entry(account(row.member, row.credential)).or_default();
                usage.messages += 1;
                usage.bytes += row.place.length;
            }
            drop(txn);
            let mut txn = env.write_txn()?;
            for (account, row) in &usages.rows {
                tables.usage.put(&mut txn, &account.to_be_bytes(), &row.encode())?;
            }
            txn.commit()?;
        }
        // All at once: the map is copied for each account that is added later.
        usages.counts.0.store(Arc::new(usages.rows.keys().map(|account| (*account, Arc::default())).collect()));
        for (account, row) in &usages.rows {
            usages.publish(*account, row);
        }
        Ok(usages)
    }

    pub(crate) fn counts(&self) -> Counts {
        self.counts.clone()
    }

    /// Writes the rows that change and answers them, for [`Self::commit`].
    pub(crate) fn write(
        &self,
        changes: &UsageChanges,
        txn: &mut RwTxn<'_>,
        tables: &Tables,
    ) -> Result<Vec<(u32, Usage)>, QueueError> {
        let mut rows = Vec::with_capacity(changes.0.len());
        for (account, change) in &changes.0 {
            let mut row = self.rows.get(account).copied().unwrap_or_default();
            let less = |have: u64, come: u64, leave: u64| {
                // Less than nothing is a message that left without having come: our own mistake, to be heard of.
                if have + come < leave {
                    tracing::error!(account, "more leaves the queue than was counted");
                }
                (have + come).saturating_sub(leave)
            };
            row.messages = less(row.messages, change.came, change.left);
            row.bytes = less(row.bytes, change.came_bytes, change.left_bytes);
            match change.spent {
                Some((day, spent)) if day > row.day => (row.day, row.spent) = (day, spent),
                Some((day, spent)) if day == row.day => row.spent += spent,
                _ => {}
            }
            tables.usage.put(txn, &account.to_be_bytes(), &row.encode())?;
            rows.push((*account, row));
        }
        Ok(rows)
    }

    /// The rows are durable.
    pub(crate) fn commit(&mut self, rows: Vec<(u32, Usage)>, changes: &UsageChanges, now: SystemTime) {
        for (account, row) in rows {
            self.rows.insert(account, row);
            self.publish(account, &row);
            let left = changes.0.get(&account).map_or(0, |change| change.left);
            if left > 0 {
                self.pace(account, left, millis(now));
            }
        }
    }

    fn publish(&self, account: u32, row: &Usage) {
        let count = self.counts.of(account);
        count.messages.store(row.messages, Ordering::Release);
        count.bytes.store(row.bytes, Ordering::Release);
    }

    /// How long it takes lately from one message's leaving to the next one's.
    fn pace(&self, account: u32, left: u64, now: u64) {
        let count = self.counts.of(account);
        let before = count.left_at.swap(now, Ordering::Relaxed);
        if before == 0 {
            return;
        }
        let each = (now.saturating_sub(before) / left).max(1);
        let between = match count.between.load(Ordering::Relaxed) {
            0 => each,
            between => (7 * between + each).div_ceil(8),
        };
        count.between.store(between, Ordering::Relaxed);
    }
}

/// Every account's row; a damaged one is told and counts as nothing.
pub(crate) fn read<'t>(
    txn: &'t RoTxn<'_, WithoutTls>,
    tables: &Tables,
) -> Result<impl Iterator<Item = Result<(u32, Usage), QueueError>> + 't, QueueError> {
    let rows = tables.usage.iter(txn)?.map(|entry| {
        let (key, row) = entry?;
        let account = <[u8; 4]>::try_from(key).map(u32::from_be_bytes);
        match (account, Usage::decode(row)) {
            (Ok(account), Ok(row)) => Ok((account, row)),
            (account, _) => {
                tracing::error!(?account, "a row of the table `usage` cannot be read; this account counts from nothing");
                Ok((account.unwrap_or(OWN), Usage::default()))
            }
        }
    });
    Ok(rows)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn admitted(day: u32, recipients: u32) -> Option<Admission> {
        Some(Admission { day, recipients, fingerprint: None })
    }

    #[test]
    fn rows_read_back_as_they_were_written() {
        let row = Usage { messages: 1, bytes: 2, day: 3, spent: 4 };
        assert_eq!(Usage::decode(&row.encode()), Ok(row));
        assert_eq!(Usage::decode(b"\x02nonsense"), Err(Damaged));
    }

    #[test]
    fn within_a_batch_the_later_day_counts() {
        let mut changes = UsageChanges::default();
        for (day, recipients) in [(7, 1), (8, 2), (7, 4), (8, 8)] {
            changes.came(1, 10, admitted(day, recipients).as_ref());
        }
        let change = &changes.0[&1];
        assert_eq!((change.came, change.came_bytes, change.spent), (4, 40, Some((8, 10))));
    }

    #[test]
    fn when_the_next_leaves_is_guessed_from_the_last_ones() {
        let usages = Usages { rows: HashMap::new(), counts: Counts::default() };
        let at = |millis| SystemTime::UNIX_EPOCH + Duration::from_millis(millis);
        usages.pace(1, 1, 1_000_000);
        assert_eq!(usages.counts.held(1, at(1_000_000)).leaves_in, None, "one says nothing");
        usages.pace(1, 2, 1_020_000);
        assert_eq!(usages.counts.held(1, at(1_020_000)).leaves_in, Some(Duration::from_secs(10)));
        assert_eq!(usages.counts.held(1, at(1_050_000)).leaves_in, Some(Duration::from_secs(30)));
        assert_eq!(usages.counts.held(1, at(99_000_000)).leaves_in, Some(LEAVES_IN_MAX));
    }
}
