//! What an operator does to queued mail: hold, release, flush. Cancelling is a settlement (`Next::Cancelled`).
//!
//! Each call is one transaction's share of the work, at most [`CHANGED_MAX`] deliveries changed and some thousands looked
//! at, and says where to go on: mail is committed between the shares of a wish about a million deliveries.
//!
//! **What is held is due at its deadline.** Its row in `held` says that it is held; its row in `pending` moves to the
//! deadline, so that neither scheduler nor start-up need know of holding, and what is held too long expires on time.

use std::ops::Bound;
use std::sync::Arc;
use std::time::SystemTime;

use heed::{RoTxn, WithoutTls};
use scheduler::QueueId;

use super::apply::Transaction;
use super::codec::{millis, time};
use super::keys::{PendingKey, delivery_from_key, delivery_key, held_from_key, held_key, last_number, member_key, message_key};
use super::rows::{DeliveryRow, HeldRow, PendingRow};
use super::tables::Tables;
use super::types::QueueError;
use crate::events::{Event, What};

/// Deliveries looked at together.
const AT_ONCE: usize = 256;

/// Deliveries that one transaction changes at most.
pub(crate) const CHANGED_MAX: usize = 2 * AT_ONCE;

/// Rounds of looking in one transaction, where there is little to change.
const ROUNDS_MAX: usize = 16;

/// What is wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wish {
    /// Not tried until it is released. Its deadline stays: what is held then expires.
    Hold,
    /// No longer held, and due at once; what was never tried and was not to be tried yet is due as before.
    Release,
    /// What was deferred is due at once; what is held stays held.
    Flush,
}

/// Whose turn it is to be operated on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Which {
    /// One message's deliveries.
    Message(QueueId),
    /// All deliveries of a member.
    Member(u32),
    /// All deliveries to a recipient domain.
    Domain(String),
}

/// A wish about some of the queue.
#[derive(Debug, Clone)]
pub struct Operation {
    /// What is wanted.
    pub wish: Wish,
    /// Of which deliveries.
    pub which: Which,
    /// Who wants it, and why.
    pub by: String,
    /// Where to go on: a former answer's `next`.
    pub after: Option<Vec<u8>>,
}

/// What a share of the work came to.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Operated {
    /// Deliveries changed.
    pub changed: u64,
    /// Deliveries looked at that needed no change.
    pub unchanged: u64,
    /// Give this as `after` to go on. None: that was all.
    pub next: Option<Vec<u8>>,
}

/// What the scheduler must hear.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Moved {
    /// It waits until then.
    Until(QueueId, Arc<str>, u32, SystemTime),
    /// Something of this member may be due.
    Due(Arc<str>, u32, SystemTime),
}

/// Deliveries to look at, in order, each with the key to go on from; and whether that was all.
struct Candidates {
    found: Vec<(QueueId, Arc<str>, Vec<u8>)>,
    ended: bool,
}

impl Transaction<'_> {
    /// Does a share of what an operator wants.
    pub(crate) fn operate(&mut self, operation: &Operation) -> Result<(Operated, Vec<Moved>), QueueError> {
        let (mut done, mut moved) = (Operated::default(), Vec::new());
        let mut after = operation.after.clone().filter(|after| !after.is_empty());
        for _ in 0..ROUNDS_MAX {
            let Candidates { found, ended } = candidates(&self.txn, &self.tables, operation, after.as_deref())?;
            for (id, domain, key) in found {
                match self.operate_on(operation, id, &domain)? {
                    None => done.unchanged += 1,
                    Some(news) => moved.push(news),
                }
                after = Some(key);
            }
            if ended {
                after = None;
            }
            if ended || moved.len() >= AT_ONCE {
                break;
            }
        }
        (done.changed, done.next) = (moved.len() as u64, after);
        // One word about a member's mail to a domain is enough.
        let mut told = std::collections::HashSet::new();
        moved.retain(|news| match news {
            Moved::Until(..) => true,
            Moved::Due(domain, member, at) => told.insert((domain.clone(), *member, *at)),
        });
        Ok((done, moved))
    }

    /// None: there is nothing to do about it.
    fn operate_on(&mut self, operation: &Operation, id: QueueId, domain: &Arc<str>) -> Result<Option<Moved>, QueueError> {
        let (key, held) = (delivery_key(id, domain), held_key(domain, id));
        let Some(row) = self.tables.deliveries.get(&self.txn, &key)? else { return Ok(None) };
        // What is damaged is set aside when its turn comes.
        let Ok(mut row) = DeliveryRow::decode(row) else { return Ok(None) };
        let before = PendingKey::of(&row, domain, id).encode();
        // Not there: it was set aside.
        let Some(waiting) = self.tables.pending.get(&self.txn, &before)? else { return Ok(None) };
        let Ok(waiting) = PendingRow::decode(waiting) else { return Ok(None) };
        let is_held = self.tables.held.get(&self.txn, &held)?.map(HeldRow::decode);
        let now = time(millis(self.now));
        // What was never tried and is not due yet has its own reason to wait.
        let begins = |due: SystemTime| if row.attempts == 0 { due.max(now) } else { now };
        let (due, what) = match (operation.wish, is_held) {
            (Wish::Hold, None) => {
                let why = HeldRow { since: now, due: row.due, by: operation.by.clone() };
                self.tables.held.put(&mut self.txn, &held, &why.encode())?;
                (waiting.deadline, Some(What::Held))
            }
            (Wish::Release, Some(why)) => {
                self.tables.held.delete(&mut self.txn, &held)?;
                (why.map_or(now, |why| begins(why.due)), Some(What::Released))
            }
            (Wish::Flush, None) if begins(row.due) < row.due => (now, None),
            (Wish::Hold, Some(_)) | (Wish::Release, None) | (Wish::Flush, _) => return Ok(None),
        };
        row.due = due;
        self.tables.pending.delete(&mut self.txn, &before)?;
        self.tables.pending.put(&mut self.txn, &PendingKey::of(&row, domain, id).encode(), &waiting.encode())?;
        self.tables.deliveries.put(&mut self.txn, &key, &row.encode())?;
        if let Some(what) = what {
            self.event(Event {
                recipients: row.open() as u16,
                attempts: row.attempts,
                domain: domain.to_string(),
                reply: operation.by.clone(),
                ..self.blank(what, id, row.member)
            })?;
        }
        Ok(Some(match operation.wish {
            Wish::Hold => Moved::Until(id, domain.clone(), row.member, due),
            Wish::Release | Wish::Flush => Moved::Due(domain.clone(), row.member, due),
        }))
    }

    /// Whether an operator holds a delivery. Costs nothing while nothing is held.
    pub(crate) fn is_held(&self, id: QueueId, domain: &str) -> Result<bool, QueueError> {
        Ok(!self.tables.held.is_empty(&self.txn)? && self.tables.held.get(&self.txn, &held_key(domain, id))?.is_some())
    }
}

/// The next deliveries that a wish may be about.
fn candidates(
    txn: &RoTxn<'_, WithoutTls>,
    tables: &Tables,
    operation: &Operation,
    after: Option<&[u8]>,
) -> Result<Candidates, QueueError> {
    match &operation.which {
        Which::Message(id) => of_message(txn, tables, *id, after),
        Which::Member(member) => {
            let mut found = Vec::new();
            let ended = of_member(txn, tables, *member, after, |id, domain, key, _| {
                found.push((id, domain.into(), key.to_vec()));
                found.len() < AT_ONCE
            })?;
            Ok(Candidates { found, ended })
        }
        Which::Domain(domain) if operation.wish == Wish::Release => {
            in_domain(txn, tables.held, domain, after, |key| held_from_key(key).map(|(_, id)| id))
        }
        Which::Domain(domain) => in_domain(txn, tables.pending, domain, after, |key| PendingKey::decode(key).map(|key| key.id)),
    }
}

fn of_message(txn: &RoTxn<'_, WithoutTls>, tables: &Tables, id: QueueId, after: Option<&[u8]>) -> Result<Candidates, QueueError> {
    let prefix = message_key(id);
    let begin = after.map_or(Bound::Included(&prefix[..]), Bound::Excluded);
    let mut found = Vec::new();
    for entry in tables.deliveries.range(txn, &(begin, Bound::Unbounded))? {
        let (key, _) = entry?;
        let Some((_, domain)) = delivery_from_key(key).filter(|(of, _)| *of == id) else { break };
        found.push((id, domain.into(), key.to_vec()));
        if found.len() >= AT_ONCE {
            return Ok(Candidates { found, ended: false });
        }
    }
    Ok(Candidates { found, ended: true })
}

fn in_domain(
    txn: &RoTxn<'_, WithoutTls>,
    table: super::tables::Table,
    domain: &str,
    after: Option<&[u8]>,
    id: impl Fn(&[u8]) -> Option<QueueId>,
) -> Result<Candidates, QueueError> {
    let (prefix, name): (_, Arc<str>) = (PendingKey::prefix(domain, None), domain.into());
    let begin = after.map_or(Bound::Included(&prefix[..]), Bound::Excluded);
    let mut found = Vec::new();
    for entry in table.range(txn, &(begin, Bound::Unbounded))? {
        let (key, _) = entry?;
        if !key.starts_with(&prefix) {
            break;
        }
        found.extend(id(key).map(|id| (id, name.clone(), key.to_vec())));
        if found.len() >= AT_ONCE {
            return Ok(Candidates { found, ended: false });
        }
    }
    Ok(Candidates { found, ended: true })
}

/// Shows the deliveries of a member by id, after the key `after` of `deliveries`, until `look` has seen enough (false).
/// True: that was all.
pub(crate) fn of_member(
    txn: &RoTxn<'_, WithoutTls>,
    tables: &Tables,
    member: u32,
    after: Option<&[u8]>,
    mut look: impl FnMut(QueueId, &str, &[u8], &[u8]) -> bool,
) -> Result<bool, QueueError> {
    // A message may be half done with: its other deliveries are looked at first.
    let first = after.and_then(delivery_from_key).map_or(QueueId(0), |(id, _)| id);
    let (from, to) = (member_key(member, first), member_key(member, QueueId(u64::MAX)));
    let range = (Bound::Included(&from[..]), Bound::Included(&to[..]));
    for entry in tables.by_member.range(txn, &range)? {
        let Some(id) = last_number(entry?.0).map(QueueId) else { continue };
        let prefix = message_key(id);
        let begin = after.filter(|after| after.starts_with(&prefix)).map_or(Bound::Included(&prefix[..]), Bound::Excluded);
        for entry in tables.deliveries.range(txn, &(begin, Bound::Unbounded))? {
            let (key, row) = entry?;
            let Some((_, domain)) = delivery_from_key(key).filter(|(of, _)| *of == id) else { break };
            if !look(id, domain, key, row) {
                return Ok(false);
            }
        }
    }
    Ok(true)
}
