//! Lists of deliveries, in pages, each by the index that fits its filter.

use std::ops::Bound;
use std::time::SystemTime;

use scheduler::{Lane, QueueId};

use super::codec::millis;
use super::keys::{PendingKey, delivery_from_key, delivery_key, held_from_key, held_key, message_key};
use super::operate::of_member;
use super::reader::{Reader, Txn};
use super::rows::{DeliveryRow, HeldRow, MessageRow};
use super::types::QueueError;

/// Rows that one page of a list looks at; a filter that matches little answers a short page that
/// says where to go on.
const LOOKED_AT_MAX: usize = 20_000;

/// Messages that are looked at for the oldest of a lane.
const AGED_MAX: usize = 5_000;

/// Which deliveries to list.
#[derive(Debug, Clone, Default)]
pub struct Filter {
    /// Only to this domain, by member, and each member's in the order of their turn (lane, due). None: by id.
    pub domain: Option<String>,
    /// Only of this member.
    pub member: Option<u32>,
    /// Only what an operator holds, by domain.
    pub held: bool,
}

/// A delivery in a list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Summary {
    /// The message.
    pub id: QueueId,
    /// The recipients' domain.
    pub domain: String,
    /// Whose mail it is.
    pub member: u32,
    /// Its lane.
    pub lane: Lane,
    /// When it is tried next.
    pub due: SystemTime,
    /// Attempts so far.
    pub attempts: u16,
    /// Recipients that are open.
    pub open: usize,
    /// What it waits for, in the peer's words.
    pub last_reply: String,
    /// An operator holds it, and `due` is its deadline.
    pub held: Option<Hold>,
}

/// Since when an operator holds something.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hold {
    /// Since then.
    pub since: SystemTime,
    /// Who, and why.
    pub by: String,
}

/// Part of a list.
#[derive(Debug, Clone, Default)]
pub struct Page {
    /// What was found.
    pub entries: Vec<Summary>,
    /// Give this as `after` to go on. None: that was all.
    pub next: Option<Vec<u8>>,
}

impl Reader {
    /// A page of at most `limit` deliveries; `after` is a former page's `next`.
    pub fn list(&self, filter: &Filter, after: Option<&[u8]>, limit: usize) -> Result<Page, QueueError> {
        let txn = self.env.read_txn()?;
        let after = after.filter(|after| !after.is_empty());
        let mut page = Page::default();
        let mut looked_at = 0;
        // What cannot be read is shown by `show`, which names the damage.
        let mut look = |key: &[u8], found: Option<Summary>| {
            looked_at += 1;
            let found = found.filter(|found| filter.member.is_none_or(|member| member == found.member));
            page.entries.extend(found);
            let enough = page.entries.len() >= limit || looked_at >= LOOKED_AT_MAX;
            if enough {
                page.next = Some(key.to_vec());
            }
            !enough
        };
        if let (false, None, Some(member)) = (filter.held, &filter.domain, filter.member) {
            of_member(&txn, &self.tables, member, after, |id, domain, key, row| {
                look(key, DeliveryRow::decode(row).ok().and_then(|row| self.summary(&txn, id, domain, &row).ok()))
            })?;
            return Ok(page);
        }
        let of_member = filter.member.filter(|_| !filter.held);
        let prefix = filter.domain.as_deref().map(|domain| PendingKey::prefix(domain, of_member)).unwrap_or_default();
        let begin = match after {
            Some(after) => Bound::Excluded(after),
            // LMDB knows no empty key.
            None if prefix.is_empty() => Bound::Unbounded,
            None => Bound::Included(&prefix[..]),
        };
        let table = match (filter.held, &filter.domain) {
            (true, _) => self.tables.held,
            (false, Some(_)) => self.tables.pending,
            (false, None) => self.tables.deliveries,
        };
        for entry in table.range(&txn, &(begin, Bound::Unbounded))? {
            let (key, _) = entry?;
            if !key.starts_with(&prefix) {
                break;
            }
            let delivery = match (filter.held, &filter.domain) {
                (true, _) => held_from_key(key).map(|(domain, id)| (id, domain)),
                (false, Some(_)) => PendingKey::decode(key).map(|key| (key.id, key.domain)),
                (false, None) => delivery_from_key(key),
            };
            let found = delivery.and_then(|(id, domain)| {
                let row = self.delivery(&txn, id, domain).ok()?;
                self.summary(&txn, id, domain, &row).ok()
            });
            if !look(key, found) {
                break;
            }
        }
        Ok(page)
    }

    pub(super) fn summary(&self, txn: &Txn<'_>, id: QueueId, domain: &str, row: &DeliveryRow) -> Result<Summary, QueueError> {
        let held = match self.tables.held.is_empty(txn)? {
            true => None,
            false => self.tables.held.get(txn, &held_key(domain, id))?.map(HeldRow::decode),
        };
        Ok(Summary {
            id,
            domain: domain.to_owned(),
            member: row.member,
            lane: row.lane,
            due: row.due,
            attempts: row.attempts,
            open: row.open(),
            last_reply: row.last_reply.clone(),
            held: match held {
                None => None,
                Some(Ok(row)) => Some(Hold { since: row.since, by: row.by }),
                Some(Err(_)) => Some(Hold { since: row.due, by: String::new() }),
            },
        })
    }

    /// A page of a message's deliveries.
    pub fn deliveries_of(&self, id: QueueId, after: Option<&[u8]>, limit: usize) -> Result<Page, QueueError> {
        let txn = self.env.read_txn()?;
        let prefix = message_key(id);
        let begin = after.map_or(Bound::Included(&prefix[..]), Bound::Excluded);
        let mut page = Page::default();
        for entry in self.tables.deliveries.range(&txn, &(begin, Bound::Unbounded))? {
            let (key, row) = entry?;
            let Some((_, domain)) = delivery_from_key(key).filter(|(of, _)| *of == id) else { break };
            if let Ok(row) = DeliveryRow::decode(row) {
                page.entries.push(self.summary(&txn, id, domain, &row)?);
            }
            if page.entries.len() >= limit {
                page.next = Some(key.to_vec());
                break;
            }
        }
        Ok(page)
    }

    /// When the oldest message of a lane that is in the queue was accepted, and whether that is certain: of the messages since
    /// `since` (none: of all) no more than [`AGED_MAX`] are looked at.
    pub fn oldest(&self, lane: Lane, since: Option<SystemTime>) -> Result<(Option<SystemTime>, bool), QueueError> {
        let txn = self.env.read_txn()?;
        // Ids begin with the time. What is older than its lifetime is about to leave.
        let first = since.map_or(0, |since| millis(since) << QueueId::COUNTER_BITS).to_be_bytes();
        let range = (Bound::Included(&first[..]), Bound::Unbounded);
        for (nth, entry) in self.tables.messages.range(&txn, &range)?.enumerate() {
            if nth >= AGED_MAX {
                return Ok((None, false));
            }
            if let Ok(row) = MessageRow::decode(entry?.1)
                && row.lane == lane
            {
                return Ok((Some(row.received_at), true));
            }
        }
        Ok((None, true))
    }

    /// Whether the queue has this delivery.
    pub fn has_delivery(&self, id: QueueId, domain: &str) -> Result<bool, QueueError> {
        let txn = self.env.read_txn()?;
        Ok(self.tables.deliveries.get(&txn, &delivery_key(id, domain))?.is_some())
    }

    /// How many deliveries a domain has in the queue, how many of them an operator holds, and whether that is all: no more
    /// than `max` are counted.
    pub fn count_domain(&self, domain: &str, max: usize) -> Result<(u64, u64, bool), QueueError> {
        let txn = self.env.read_txn()?;
        let prefix = PendingKey::prefix(domain, None);
        let mut counts = [0, 0];
        for (count, table) in counts.iter_mut().zip([self.tables.pending, self.tables.held]) {
            for entry in table.prefix_iter(&txn, &prefix)?.take(max) {
                entry?;
                *count += 1;
            }
        }
        Ok((counts[0], counts[1], counts.iter().all(|count| *count < max as u64)))
    }
}
