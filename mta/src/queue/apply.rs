//! What each request does to the tables, inside the batch's one transaction.
//!
//! A damaged row never fails the batch: the entry is set aside and the rest goes on. An error here
//! is one of the database, and undoes the whole batch.

use std::ops::Bound;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use heed::{PutFlags, RwTxn};
use scheduler::QueueId;

use super::codec::{Decoder, Encoder, cut, millis, time};
use super::duplicates::RecordChanges;
use super::handle::{Prepared, PreparedSettlement};
use super::keys::{
    PendingKey, delivery_from_key, delivery_key, held_key, last_number, ledger_key, ledger_prefix, member_key, message_key,
    story_key,
};
use super::rows::{DeliveryRow, MessageRow, PendingRow, Place};
use super::segments::Changes;
use super::tables::{Environment, Table, Tables};
use super::types::{Fate, LedgerCount, Next, QueueError, REPLY_BYTES_MAX, Recipient};
use super::usage::{UsageChanges, account};
use crate::events::{Event, What};

/// Ledger rows older than this leave when their source and provider get a new one. No plan of warmup
/// looks back so far.
const LEDGER_DAYS: u32 = 400;

/// Old events that a transaction removes at most, beside twice those that it adds: a lowered bound is
/// reached step by step.
const TRIM_MORE: u64 = 64;

/// First octet of rows in `ledger` and `aside`.
const VERSION: u8 = 1;

/// The events there are: `first..next`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct EventRange {
    pub(crate) first: u64,
    pub(crate) next: u64,
}

/// A batch's transaction.
pub(crate) struct Transaction<'e> {
    pub(crate) txn: RwTxn<'e>,
    pub(crate) tables: Tables,
    pub(crate) now: SystemTime,
    pub(crate) events: EventRange,
    /// Where the events began that this transaction adds.
    began: u64,
    pub(crate) changes: Changes,
    pub(crate) usage: UsageChanges,
    pub(crate) records: RecordChanges,
}

/// What a settlement led to.
pub(crate) struct Settled {
    /// Whose mail it was; 0 if that is not known any more.
    pub(crate) member: u32,
    /// None: the delivery is gone.
    pub(crate) next_due: Option<SystemTime>,
    /// Whether its DSN was queued.
    pub(crate) dsn: bool,
    /// Domains whose deliveries were set aside, because the entry turned out to be damaged.
    pub(crate) aside: Vec<Arc<str>>,
}

impl Settled {
    fn gone(aside: Vec<Arc<str>>) -> Self {
        Self { member: 0, next_due: None, dsn: false, aside }
    }
}

impl<'e> Transaction<'e> {
    pub(crate) fn begin(env: &'e Environment, tables: Tables, events: EventRange, now: SystemTime) -> Result<Self, QueueError> {
        Ok(Self {
            txn: env.write_txn()?,
            tables,
            now,
            events,
            began: events.next,
            changes: Changes::default(),
            usage: UsageChanges::default(),
            records: RecordChanges::default(),
        })
    }

    /// Puts a message with its deliveries into the queue. Ids rise, so rows are appended.
    pub(crate) fn insert(&mut self, new: &Prepared) -> Result<(), QueueError> {
        let message = &new.message;
        let row = MessageRow {
            member: message.member,
            credential: message.credential,
            reverse_path: message.reverse_path.as_str().to_owned(),
            parameters: message.parameters.clone(),
            lane: message.lane,
            received_at: message.received_at,
            delay_notice_at: message.delay_notice_at,
            deadline: message.deadline,
            recipients: new.recipients,
            // A delivery has a recipient, and those fit.
            open: new.deliveries.len() as u16,
            place: new.place,
        };
        let key = message_key(message.id);
        append(self.tables.messages, &mut self.txn, &key, &row.encode())?;
        self.tables.by_member.put(&mut self.txn, &member_key(message.member, message.id), &[])?;
        for delivery in &new.deliveries {
            let key = delivery_key(message.id, &delivery.domain);
            append(self.tables.deliveries, &mut self.txn, &key, &delivery.row)?;
            let key = PendingKey {
                domain: &delivery.domain,
                member: message.member,
                lane: message.lane,
                due_millis: millis(new.due),
                id: message.id,
            };
            let row = PendingRow {
                deadline: message.deadline,
                late_at: message.late_at(&delivery.recipients),
                attempts: 0,
                recipients: delivery.recipients.len() as u16,
                bytes: u32::try_from(message.octets.len()).unwrap_or(u32::MAX),
            };
            self.tables.pending.put(&mut self.txn, &key.encode(), &row.encode())?;
        }
        self.changes.born(new.place);
        self.usage.came(account(message.member, message.credential), new.place.length, new.admission.as_ref());
        if let Some(fingerprint) = new.admission.and_then(|admission| admission.fingerprint) {
            self.records.add(fingerprint, message.id, &mut self.txn, &self.tables)?;
        }
        self.event(Event { recipients: new.recipients, ..self.blank(What::Accepted, message.id, message.member) })
    }

    /// Writes one settlement down.
    pub(crate) fn settle(&mut self, prepared: &PreparedSettlement) -> Result<Settled, QueueError> {
        let settlement = &prepared.settlement;
        let (id, domain) = (settlement.id, &*settlement.domain);
        for count in &settlement.ledger {
            self.count(count)?;
        }
        let key = delivery_key(id, domain);
        let Some(row) = self.tables.deliveries.get(&self.txn, &key)? else { return Ok(Settled::gone(Vec::new())) };
        let Some(message) = self.tables.messages.get(&self.txn, &message_key(id))? else {
            return self.damaged(id, "the message's row is missing");
        };
        let (Ok(mut row), Ok(message)) = (DeliveryRow::decode(row), MessageRow::decode(message)) else {
            return self.damaged(id, "a row cannot be read");
        };
        row.attempts = row.attempts.saturating_add(1);
        row.last_reply = cut(&settlement.last_reply, REPLY_BYTES_MAX).to_owned();
        for found in &settlement.fates {
            self.decide(id, domain, &mut row, prepared, found.index, found.fate, &found.reply)?;
        }
        let rest = match settlement.next {
            Next::RetryAt(_) => None,
            Next::Cancelled => Some(Fate::Cancelled),
            Next::Done => Some(Fate::Failed),
        };
        if let Some(fate) = rest.filter(|_| row.open() > 0) {
            if fate == Fate::Failed {
                tracing::error!(%id, domain, "settled as done with open recipients: they fail");
            }
            let open = row.recipients.iter().filter(|recipient| recipient.fate.is_none());
            for index in open.map(|recipient| recipient.index).collect::<Vec<_>>() {
                self.decide(id, domain, &mut row, prepared, index, fate, &settlement.last_reply)?;
            }
        }
        for recipient in &mut row.recipients {
            recipient.delay_told |= settlement.delay_told.contains(&recipient.index);
        }
        let pending = PendingKey::of(&row, domain, id).encode();
        // Absent when the entry was set aside meanwhile: then it does not come back by itself.
        let waiting = self.tables.pending.get(&self.txn, &pending)?.map(PendingRow::decode);
        self.tables.pending.delete(&mut self.txn, &pending)?;
        let next_due = match settlement.next {
            Next::RetryAt(at) if row.open() > 0 => {
                let next_due = self.defer(id, domain, &mut row, waiting.and_then(Result::ok), at)?;
                self.event(Event {
                    recipients: row.open() as u16,
                    reply: settlement.last_reply.clone(),
                    ..self.about(What::Deferred, id, domain, &row, prepared)
                })?;
                next_due
            }
            _ => {
                self.remove(id, domain, &key, &message)?;
                None
            }
        };
        let mut dsn = false;
        if let Some(notice) = &prepared.dsn {
            if message.reverse_path.is_empty() {
                tracing::error!(%id, domain, "a DSN to a null reverse-path was asked for and is dropped");
            } else {
                self.insert(notice)?;
                dsn = true;
            }
        }
        Ok(Settled { member: row.member, next_due, dsn, aside: Vec::new() })
    }

    /// Gives a recipient its final fate, once, with its event.
    #[expect(clippy::too_many_arguments, reason = "one call site each; a struct would only rename them")]
    fn decide(
        &mut self,
        id: QueueId,
        domain: &str,
        row: &mut DeliveryRow,
        prepared: &PreparedSettlement,
        index: u16,
        fate: Fate,
        reply: &str,
    ) -> Result<(), QueueError> {
        let Ok(nth) = row.recipients.binary_search_by_key(&index, |recipient| recipient.index) else {
            tracing::error!(%id, domain, index, "a fate for a recipient that is not of this delivery");
            return Ok(());
        };
        if row.recipients[nth].fate.is_some() {
            return Ok(());
        }
        row.recipients[nth].fate = Some(fate);
        if fate != Fate::Delivered {
            self.records.forget(id, &mut self.txn, &self.tables)?;
        }
        let what = match fate {
            Fate::Delivered => What::Delivered,
            Fate::Failed => What::Failed,
            Fate::Expired => What::Expired,
            Fate::Cancelled => What::Cancelled,
        };
        self.event(Event {
            recipients: 1,
            recipient: row.recipients[nth].mailbox.as_str().to_owned(),
            reply: reply.to_owned(),
            ..self.about(what, id, domain, row, prepared)
        })
    }

    /// Keeps what is open for a later attempt.
    fn defer(
        &mut self,
        id: QueueId,
        domain: &str,
        row: &mut DeliveryRow,
        waiting: Option<PendingRow>,
        at: SystemTime,
    ) -> Result<Option<SystemTime>, QueueError> {
        // What is held waits for its deadline, whatever an attempt says that was under way.
        let held = waiting.filter(|_| self.is_held(id, domain).unwrap_or(false));
        row.due = held.map_or(time(millis(at)), |waiting| waiting.deadline);
        self.tables.deliveries.put(&mut self.txn, &delivery_key(id, domain), &row.encode())?;
        let Some(waiting) = waiting else { return Ok(None) };
        let late_at = waiting.late_at.filter(|_| row.recipients.iter().any(Recipient::waits_for_delay_notice));
        let waiting = PendingRow { attempts: row.attempts, recipients: row.open() as u16, late_at, ..waiting };
        self.tables.pending.put(&mut self.txn, &PendingKey::of(row, domain, id).encode(), &waiting.encode())?;
        Ok(Some(row.due))
    }

    /// Removes a delivery, and with the last one the message.
    fn remove(&mut self, id: QueueId, domain: &str, delivery: &[u8], message: &MessageRow) -> Result<(), QueueError> {
        self.tables.deliveries.delete(&mut self.txn, delivery)?;
        if !self.tables.held.is_empty(&self.txn)? {
            self.tables.held.delete(&mut self.txn, &held_key(domain, id))?;
        }
        let open = message.open.saturating_sub(1);
        if open > 0 {
            let row = MessageRow { open, ..message.clone() };
            self.tables.messages.put(&mut self.txn, &message_key(id), &row.encode())?;
            return Ok(());
        }
        self.tables.messages.delete(&mut self.txn, &message_key(id))?;
        self.tables.aside.delete(&mut self.txn, &message_key(id))?;
        self.tables.by_member.delete(&mut self.txn, &member_key(message.member, id))?;
        self.changes.died(message.place);
        self.usage.left(account(message.member, message.credential), message.place.length);
        Ok(())
    }

    /// Lets a message's row name the place that its body was copied to. What was settled meanwhile stays gone.
    pub(crate) fn relocate(&mut self, id: QueueId, from: Place, to: Place) -> Result<(), QueueError> {
        let row = self.tables.messages.get(&self.txn, &message_key(id))?.map(MessageRow::decode);
        let Some(Ok(row)) = row.filter(|row| row.as_ref().is_ok_and(|row| row.place == from)) else { return Ok(()) };
        let row = MessageRow { place: to, ..row };
        self.tables.messages.put(&mut self.txn, &message_key(id), &row.encode())?;
        self.changes.died(from);
        self.changes.born(to);
        Ok(())
    }

    fn damaged(&mut self, id: QueueId, reason: &str) -> Result<Settled, QueueError> {
        Ok(Settled::gone(self.set_aside(id, reason)?.unwrap_or_default()))
    }

    /// Takes all deliveries of a message out of `pending` and remembers why. Answers their domains, or
    /// None when there is nothing by that id.
    pub(crate) fn set_aside(&mut self, id: QueueId, reason: &str) -> Result<Option<Vec<Arc<str>>>, QueueError> {
        let mut found: Vec<(Arc<str>, Option<DeliveryRow>)> = Vec::new();
        for entry in self.tables.deliveries.prefix_iter(&self.txn, &message_key(id))? {
            let (key, row) = entry?;
            if let Some((_, domain)) = delivery_from_key(key) {
                found.push((domain.into(), DeliveryRow::decode(row).ok()));
            }
        }
        if found.is_empty() && self.tables.messages.get(&self.txn, &message_key(id))?.is_none() {
            return Ok(None);
        }
        tracing::error!(%id, reason, "a damaged queue entry is set aside; see `tradewind queue show`");
        let member = found.iter().find_map(|(_, row)| row.as_ref()).map_or(0, |row| row.member);
        for (domain, row) in &found {
            let key = match row {
                Some(row) => Some(PendingKey::of(row, domain, id).encode()),
                None => self.find_pending(domain, id)?,
            };
            if let Some(key) = key {
                self.tables.pending.delete(&mut self.txn, &key)?;
            }
        }
        let mut row = Encoder::new(VERSION);
        row.time(self.now).text(cut(reason, REPLY_BYTES_MAX));
        self.tables.aside.put(&mut self.txn, &message_key(id), &row.done())?;
        self.event(Event { reply: reason.to_owned(), ..self.blank(What::SetAside, id, member) })?;
        Ok(Some(found.into_iter().map(|(domain, _)| domain).collect()))
    }

    /// Finds a row of `pending` without knowing when it is due: by looking at all of its domain's.
    fn find_pending(&self, domain: &str, id: QueueId) -> Result<Option<Vec<u8>>, QueueError> {
        for entry in self.tables.pending.prefix_iter(&self.txn, &PendingKey::prefix(domain, None))? {
            let (key, _) = entry?;
            if PendingKey::decode(key).is_some_and(|found| found.id == id) {
                return Ok(Some(key.to_vec()));
            }
        }
        Ok(None)
    }

    fn count(&mut self, spent: &LedgerCount) -> Result<(), QueueError> {
        let LedgerCount { source, provider, day, hour, count } = spent;
        let key = ledger_key(source, provider, *day, *hour);
        let before = match self.tables.ledger.get(&self.txn, &key)? {
            Some(row) => ledger_count(row),
            None => {
                let oldest = ledger_key(source, provider, day.saturating_sub(LEDGER_DAYS), 0);
                let old = ledger_prefix(source, provider);
                let range = (Bound::Included(&old[..]), Bound::Excluded(&oldest[..]));
                self.tables.ledger.delete_range(&mut self.txn, &range)?;
                0
            }
        };
        let mut row = Encoder::new(VERSION);
        row.u64(before.saturating_add(*count));
        Ok(self.tables.ledger.put(&mut self.txn, &key, &row.done())?)
    }

    pub(crate) fn event(&mut self, event: Event) -> Result<(), QueueError> {
        let key = self.events.next.to_be_bytes();
        self.tables.events.put_with_flags(&mut self.txn, PutFlags::APPEND, &key, &event.encode())?;
        self.tables.story.put(&mut self.txn, &story_key(event.id, self.events.next), &[])?;
        self.events.next += 1;
        Ok(())
    }

    pub(crate) fn blank(&self, what: What, id: QueueId, member: u32) -> Event {
        Event {
            at: self.now,
            what,
            id,
            member,
            recipients: 0,
            attempts: 0,
            domain: String::new(),
            recipient: String::new(),
            source: String::new(),
            host: String::new(),
            reply: String::new(),
        }
    }

    fn about(&self, what: What, id: QueueId, domain: &str, row: &DeliveryRow, prepared: &PreparedSettlement) -> Event {
        Event {
            attempts: row.attempts,
            domain: domain.to_owned(),
            source: prepared.settlement.source.clone(),
            host: prepared.settlement.host.clone(),
            ..self.blank(what, id, row.member)
        }
    }

    /// Removes events beyond `max` and those older than `age_max`, the oldest first, some at a time.
    pub(crate) fn trim_events(&mut self, max: u64, age_max: Option<Duration>) -> Result<(), QueueError> {
        let EventRange { first, next } = self.events;
        let too_many = next.saturating_sub(max.max(1));
        let too_old = age_max.and_then(|age| self.now.checked_sub(age));
        let until = first + TRIM_MORE + 2 * (next - self.began);
        if too_many <= first && too_old.is_none() {
            return Ok(());
        }
        let (from, to) = (first.to_be_bytes(), until.to_be_bytes());
        let range = (Bound::Included(&from[..]), Bound::Excluded(&to[..]));
        let mut leave = Vec::new();
        for entry in self.tables.events.range(&self.txn, &range)? {
            let (key, row) = entry?;
            let Some(number) = last_number(key) else { continue };
            let read = Event::at_and_id_of(row).ok();
            // The newest stays, however old: it keeps the numbers rising over a restart.
            let old = number + 1 < next && read.zip(too_old).is_some_and(|((at, _), too_old)| at < too_old);
            if number >= too_many && !old {
                break;
            }
            leave.push((number, read.map(|(_, id)| id)));
        }
        for (number, id) in leave {
            self.tables.events.delete(&mut self.txn, &number.to_be_bytes())?;
            if let Some(id) = id {
                self.tables.story.delete(&mut self.txn, &story_key(id, number))?;
            }
            self.events.first = number + 1;
        }
        Ok(())
    }
}

/// Puts a row behind all others, where it nearly always belongs: a full page is then left full instead of
/// being split. Ids are handed out before the commit, so a message may also come after a later one.
pub(crate) fn append(table: Table, txn: &mut RwTxn<'_>, key: &[u8], row: &[u8]) -> Result<(), heed::Error> {
    match table.put_with_flags(txn, PutFlags::APPEND, key, row) {
        Err(heed::Error::Mdb(heed::MdbError::KeyExist)) => table.put(txn, key, row),
        done => done,
    }
}

/// A count of the ledger; a damaged one counts as nothing spent.
pub(crate) fn ledger_count(row: &[u8]) -> u64 {
    Decoder::new(row, VERSION).and_then(|mut fields| fields.u64()).unwrap_or(0)
}

/// Why an entry was set aside.
pub(crate) fn aside_reason(row: &[u8]) -> String {
    let read = || {
        let mut fields = Decoder::new(row, VERSION)?;
        fields.time()?;
        fields.text()
    };
    read().unwrap_or("the reason cannot be read").to_owned()
}
