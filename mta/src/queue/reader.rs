//! Questions to the queue, from any thread: each is a short read transaction, none waits for the writer.
//!
//! All of them block on the disk at worst. An answer is true as of the last commit. Lists are read
//! in pages, and what a page may look at is bounded, so that a question about a million entries
//! costs what a page costs.

use std::ops::Bound;
use std::sync::Arc;
use std::time::SystemTime;

use bytes::Bytes;
use heed::{RoTxn, WithoutTls};
use scheduler::{Delivery, Lane, QueueId};

use super::apply::{aside_reason, ledger_count};
use super::keys::{PendingKey, delivery_from_key, delivery_key, ledger_key, message_key};
use super::list::Summary;
use super::rows::{DeliveryRow, MessageRow, PendingRow, SegmentRow};
use super::segments::{self, Files};
use super::tables::{Environment, Tables};
use super::types::{Parameters, QueueError, Recipient, StoredDelivery, StoredMessage};
use super::usage::{self, Usage};

/// Index entries that one page of flows looks at. On a cold disk each is a read, and others wait for the same thread.
const FLOWS_LOOKED_AT_MAX: usize = 128;

/// The queue, for those who look. Cheap to clone.
#[derive(Clone)]
pub struct Reader {
    pub(super) env: Environment,
    pub(super) tables: Tables,
    files: Files,
}

/// What waited when it was asked.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Backlog {
    /// Each member's mail to each domain, and when the first of it is due.
    pub flows: Vec<(Arc<str>, u32, SystemTime)>,
    /// Messages in the queue.
    pub messages: u64,
    /// Deliveries in the queue.
    pub deliveries: u64,
    /// Index entries that were looked at: one for each lane of each flow, whatever the messages.
    pub looked_at: u64,
}

/// Sizes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    /// Messages in the queue.
    pub messages: u64,
    /// Deliveries in the queue, those set aside included.
    pub deliveries: u64,
    /// Deliveries that the scheduler can see.
    pub pending: u64,
    /// Of these, deliveries that an operator holds.
    pub held: u64,
    /// Messages set aside.
    pub aside: u64,
    /// Events kept.
    pub events: u64,
    /// Segment files.
    pub segments: u64,
    /// Octets of bodies that wait, headers included.
    pub live_bytes: u64,
    /// Octets of all segment files.
    pub segment_bytes: u64,
    /// Octets of the database in use.
    pub database_bytes: u64,
    /// The most that the database may hold.
    pub database_bytes_max: u64,
}

/// All about a message but its octets.
#[derive(Debug, Clone)]
pub struct Shown {
    /// Its name.
    pub id: QueueId,
    /// Whose mail it is.
    pub member: u32,
    /// The credential it was submitted with.
    pub credential: u32,
    /// The reverse-path; empty when it is null.
    pub reverse_path: String,
    /// The rest of the envelope.
    pub parameters: Parameters,
    /// Its lane.
    pub lane: Lane,
    /// When it came in.
    pub received_at: SystemTime,
    /// When it expires.
    pub deadline: SystemTime,
    /// Octets of its body.
    pub bytes: u64,
    /// Recipients when it came in.
    pub recipients: u16,
    /// Why it was set aside, if it was.
    pub aside: Option<String>,
    /// Deliveries that are not done.
    pub deliveries: Vec<ShownDelivery>,
}

/// All about a delivery.
#[derive(Clone)]
pub struct ShownDelivery {
    /// As in lists.
    pub summary: Summary,
    /// Every recipient, those with a fate too.
    pub recipients: Vec<Recipient>,
}

impl std::fmt::Debug for ShownDelivery {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.summary.fmt(f)
    }
}

pub(super) type Txn<'a> = RoTxn<'a, WithoutTls>;

impl Reader {
    pub(crate) fn new(env: Environment, tables: Tables, files: Files) -> Self {
        Self { env, tables, files }
    }

    /// Asks tables that others keep. Copy what is needed out of the transaction and return: pages that
    /// a reader still sees are not used again.
    pub fn read<R>(&self, ask: impl FnOnce(&Txn<'_>, &Tables) -> Result<R, QueueError>) -> Result<R, QueueError> {
        ask(&self.env.read_txn()?, &self.tables)
    }

    /// The first `max` deliveries of `member` to `domain` that are due, in the order (lane, due, id), and when the
    /// first of those not returned is due: not after `now` if `max` was reached.
    pub fn load(
        &self,
        domain: &str,
        member: u32,
        now: SystemTime,
        max: usize,
    ) -> Result<(Vec<Delivery>, Option<SystemTime>), QueueError> {
        let txn = self.env.read_txn()?;
        let name: Arc<str> = domain.into();
        let (mut found, mut next_due) = (Vec::new(), None);
        for lane in Lane::ALL {
            let first = PendingKey::first(domain, member, lane);
            let (begin, end) = (first.encode(), first.after_lane());
            let range = (Bound::Included(&begin[..]), Bound::Excluded(&end[..]));
            for entry in self.tables.pending.range(&txn, &range)? {
                let (key, row) = entry?;
                let Some(key) = PendingKey::decode(key) else { continue };
                let (id, due) = (key.id, key.due());
                if due > now || found.len() >= max {
                    next_due = Some(next_due.map_or(due, |earlier: SystemTime| earlier.min(due)));
                    break;
                }
                let Ok(PendingRow { deadline, late_at, attempts, recipients, bytes }) = PendingRow::decode(row) else {
                    tracing::error!(%id, domain, "a row of `pending` cannot be read");
                    continue;
                };
                let domain = name.clone();
                found.push(Delivery { id, domain, lane, member, due, deadline, late_at, attempts, recipients, bytes });
            }
        }
        Ok((found, next_due))
    }

    /// Looks at `rows` rows of what waits, from behind `after` on (empty: from the beginning), and gives those that are
    /// past their deadline or late, at most `max`. Also where to go on; none: that was the end.
    pub fn overdue(
        &self,
        after: &[u8],
        now: SystemTime,
        rows: usize,
        max: usize,
    ) -> Result<(Vec<Delivery>, Option<Vec<u8>>), QueueError> {
        let txn = self.env.read_txn()?;
        let begin = if after.is_empty() { Bound::Unbounded } else { Bound::Excluded(after) };
        let mut found = Vec::new();
        for (looked_at, entry) in self.tables.pending.range(&txn, &(begin, Bound::Unbounded))?.enumerate() {
            let (octets, row) = entry?;
            let (key, row) = (PendingKey::decode(octets), PendingRow::decode(row));
            if let (Some(key), Ok(row)) = (key, row)
                && (row.deadline <= now || row.late_at.is_some_and(|late| late <= now))
            {
                let PendingRow { deadline, late_at, attempts, recipients, bytes } = row;
                let (domain, due) = (key.domain.into(), key.due());
                let PendingKey { id, lane, member, .. } = key;
                found.push(Delivery { id, domain, lane, member, due, deadline, late_at, attempts, recipients, bytes });
            }
            if looked_at + 1 >= rows || found.len() >= max {
                return Ok((found, Some(octets.to_vec())));
            }
        }
        Ok((found, None))
    }

    /// Deliveries that wait.
    pub fn pending(&self) -> Result<u64, QueueError> {
        let txn = self.env.read_txn()?;
        Ok(self.tables.pending.len(&txn)?)
    }

    /// What an attempt at a delivery needs. `Corrupt`: have it set aside. `Unknown`: it is done.
    pub fn fetch(&self, id: QueueId, domain: &str) -> Result<StoredDelivery, QueueError> {
        let mut seen = None;
        loop {
            let (message, delivery) = {
                let txn = self.env.read_txn()?;
                (self.message(&txn, id)?, self.delivery(&txn, id, domain)?)
            };
            if let Some(octets) = segments::read(&self.files, id, message.place)? {
                return stored(id, domain, message, delivery, octets).ok_or(QueueError::Corrupt(id));
            }
            // Settled and overwritten, or moved, since we looked? Then the rows say so now.
            if seen.replace(message.place) == Some(message.place) {
                return Err(QueueError::Corrupt(id));
            }
        }
    }

    fn message(&self, txn: &Txn<'_>, id: QueueId) -> Result<MessageRow, QueueError> {
        let row = self.tables.messages.get(txn, &message_key(id))?.ok_or(QueueError::Unknown(id))?;
        MessageRow::decode(row).map_err(|_| QueueError::Corrupt(id))
    }

    pub(super) fn delivery(&self, txn: &Txn<'_>, id: QueueId, domain: &str) -> Result<DeliveryRow, QueueError> {
        let row = self.tables.deliveries.get(txn, &delivery_key(id, domain))?.ok_or(QueueError::Unknown(id))?;
        DeliveryRow::decode(row).map_err(|_| QueueError::Corrupt(id))
    }

    /// Everything that waits, by flow.
    pub fn backlog(&self) -> Result<Backlog, QueueError> {
        let mut backlog = Backlog::default();
        let mut from = Some(Vec::new());
        while let Some(begin) = from.take() {
            from = self.flows(begin, &mut backlog)?;
        }
        let txn = self.env.read_txn()?;
        backlog.messages = self.tables.messages.len(&txn)?;
        backlog.deliveries = self.tables.deliveries.len(&txn)?;
        Ok(backlog)
    }

    /// A page of flows, behind those that `backlog` has: each member's mail to each domain, by skipping from one to the
    /// next. Messages are not looked at. `from` is empty at first, then what the former page answered; None: that was all.
    pub fn flows(&self, mut from: Vec<u8>, backlog: &mut Backlog) -> Result<Option<Vec<u8>>, QueueError> {
        let txn = self.env.read_txn()?;
        let pending = self.tables.pending;
        for _ in 0..FLOWS_LOOKED_AT_MAX {
            let found = match from.as_slice() {
                [] => pending.first(&txn)?,
                from => pending.get_greater_than_or_equal_to(&txn, from)?,
            };
            let Some((key, _)) = found else { return Ok(None) };
            backlog.looked_at += 1;
            let Some(first) = PendingKey::decode(key) else {
                tracing::error!("a key of `pending` cannot be read");
                from = [key, &[0]].concat();
                continue;
            };
            match backlog.flows.last_mut() {
                // A slower lane may have something that is due sooner.
                Some((domain, member, due)) if **domain == *first.domain && *member == first.member => {
                    *due = first.due().min(*due)
                }
                Some((domain, ..)) if **domain == *first.domain => {
                    let domain = domain.clone();
                    backlog.flows.push((domain, first.member, first.due()));
                }
                _ => backlog.flows.push((first.domain.into(), first.member, first.due())),
            }
            from = first.after_lane();
        }
        Ok(Some(from))
    }

    /// All about one message. None: it is not in the queue (any more).
    pub fn show(&self, id: QueueId) -> Result<Option<Shown>, QueueError> {
        let txn = self.env.read_txn()?;
        let row = match self.message(&txn, id) {
            Err(QueueError::Unknown(_)) => return Ok(None),
            row => row?,
        };
        let mut deliveries = Vec::new();
        for entry in self.tables.deliveries.prefix_iter(&txn, &message_key(id))? {
            let (key, row) = entry?;
            let row = DeliveryRow::decode(row).map_err(|_| QueueError::Corrupt(id))?;
            let Some((_, domain)) = delivery_from_key(key) else { return Err(QueueError::Corrupt(id)) };
            let summary = self.summary(&txn, id, domain, &row)?;
            deliveries.push(ShownDelivery { summary, recipients: row.recipients });
        }
        Ok(Some(Shown {
            id,
            member: row.member,
            credential: row.credential,
            reverse_path: row.reverse_path,
            parameters: row.parameters,
            lane: row.lane,
            received_at: row.received_at,
            deadline: row.deadline,
            bytes: row.place.length,
            recipients: row.recipients,
            aside: self.tables.aside.get(&txn, &message_key(id))?.map(aside_reason),
            deliveries,
        }))
    }

    /// Sizes, without counting: LMDB keeps them.
    pub fn counts(&self) -> Result<Counts, QueueError> {
        let txn = self.env.read_txn()?;
        let mut counts = Counts {
            messages: self.tables.messages.len(&txn)?,
            deliveries: self.tables.deliveries.len(&txn)?,
            pending: self.tables.pending.len(&txn)?,
            held: self.tables.held.len(&txn)?,
            aside: self.tables.aside.len(&txn)?,
            events: self.tables.events.len(&txn)?,
            segments: self.tables.segments.len(&txn)?,
            database_bytes: self.tables.used_bytes(&txn)? as u64,
            database_bytes_max: self.env.info().map_size as u64,
            ..Counts::default()
        };
        for entry in self.tables.segments.iter(&txn)? {
            if let Ok(row) = SegmentRow::decode(entry?.1) {
                counts.live_bytes += row.live_bytes;
                counts.segment_bytes += row.capacity;
            }
        }
        Ok(counts)
    }

    /// What every account has in the queue and has sent today, [`OWN`](super::OWN) among them.
    pub fn usages(&self) -> Result<Vec<(u32, Usage)>, QueueError> {
        usage::read(&self.env.read_txn()?, &self.tables)?.collect()
    }

    /// What a source has sent to a provider, hour by hour, from `day` on: (day, hour, count).
    pub fn ledger(&self, source: &str, provider: &str, day: u32) -> Result<Vec<(u32, u8, u64)>, QueueError> {
        let txn = self.env.read_txn()?;
        let (begin, end) = (ledger_key(source, provider, day, 0), ledger_key(source, provider, u32::MAX, u8::MAX));
        let range = (Bound::Included(&begin[..]), Bound::Included(&end[..]));
        let mut counts = Vec::new();
        for entry in self.tables.ledger.range(&txn, &range)? {
            let (key, row) = entry?;
            if let Some((hour, rest)) = key.split_last()
                && let Some((_, day)) = rest.split_last_chunk::<4>()
            {
                counts.push((u32::from_be_bytes(*day), *hour, ledger_count(row)));
            }
        }
        Ok(counts)
    }
}

fn stored(id: QueueId, domain: &str, row: MessageRow, delivery: DeliveryRow, octets: Bytes) -> Option<StoredDelivery> {
    let reverse_path = row.reverse_path().ok()?;
    let message = StoredMessage {
        id,
        member: row.member,
        credential: row.credential,
        reverse_path,
        parameters: row.parameters,
        lane: row.lane,
        received_at: row.received_at,
        delay_notice_at: row.delay_notice_at,
        deadline: row.deadline,
        octets,
    };
    let open = delivery.recipients.into_iter().filter(|recipient| recipient.fate.is_none());
    Some(StoredDelivery {
        message: Arc::new(message),
        domain: domain.into(),
        attempts: delivery.attempts,
        last_reply: delivery.last_reply,
        recipients: open.collect(),
    })
}
