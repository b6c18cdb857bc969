//! Events read again: by number, by message, by member.

use std::ops::Bound;
use std::sync::atomic::{AtomicU64, Ordering};

use scheduler::QueueId;
use tokio::sync::Notify;

use super::keys::{last_number, message_key, story_key};
use super::reader::{Reader, Txn};
use super::types::QueueError;
use crate::events::Event;

/// Events that one question looks at; one about a member that has few answers a short page that says where to go on.
const LOOKED_AT_MAX: usize = 20_000;

/// Events found.
#[derive(Debug, Clone, Default)]
pub struct EventsFound {
    /// Each with its number.
    pub events: Vec<(u64, Event)>,
    /// Everything up to this number has been looked at.
    pub next: u64,
    /// The oldest number that is kept.
    pub oldest: u64,
    /// Whether there is more to look at.
    pub more: bool,
}

/// Tells waiting readers that events were appended. The writer rings and goes on: nobody it rings for is waited for.
#[derive(Debug, Default)]
pub struct News {
    last: AtomicU64,
    bell: Notify,
}

impl News {
    /// Events up to this number are durable.
    pub(crate) fn ring(&self, last: u64) {
        if self.last.swap(last, Ordering::Release) != last {
            self.bell.notify_waiters();
        }
    }

    /// The number of the newest event.
    pub fn last(&self) -> u64 {
        self.last.load(Ordering::Acquire)
    }

    /// Resolves when there is an event after the one with number `seen`.
    pub async fn beyond(&self, seen: u64) {
        loop {
            let rung = self.bell.notified();
            if self.last.load(Ordering::Acquire) > seen {
                return;
            }
            rung.await;
        }
    }
}

impl Reader {
    /// Events after the one with number `seen` (0: from the oldest kept), each with its number. A
    /// first number above `seen + 1` says that some have been dropped by retention.
    pub fn events_after(&self, seen: u64, limit: usize) -> Result<Vec<(u64, Event)>, QueueError> {
        Ok(self.events(Some(seen), None, None, limit)?.events)
    }

    /// The first `limit` events after `seen`, or with None the last ones there are; perhaps only those of a member or of a
    /// message.
    pub fn events(
        &self,
        seen: Option<u64>,
        member: Option<u32>,
        id: Option<QueueId>,
        limit: usize,
    ) -> Result<EventsFound, QueueError> {
        let txn = self.env.read_txn()?;
        let number = |entry: Option<(&[u8], &[u8])>| entry.and_then(|(key, _)| last_number(key));
        let oldest = number(self.tables.events.first(&txn)?).unwrap_or(1);
        let newest = number(self.tables.events.last(&txn)?).unwrap_or(0);
        let mut found = EventsFound { next: seen.unwrap_or(newest), oldest, ..EventsFound::default() };
        let begin = seen.unwrap_or(0);
        let wanted = |event: &Event| member.is_none_or(|member| member == event.member);
        if let Some(id) = id {
            let (begin, prefix) = (story_key(id, begin), message_key(id));
            let range = (Bound::Excluded(&begin[..]), Bound::Unbounded);
            let entries = self.tables.story.range(&txn, &range)?;
            for entry in entries {
                let (key, _) = entry?;
                let Some(number) = last_number(key).filter(|_| key.starts_with(&prefix)) else { break };
                if seen.is_some() && found.events.len() >= limit {
                    found.more = true;
                    return Ok(found);
                }
                found.events.extend(self.event(&txn, number)?.filter(wanted).map(|event| (number, event)));
                found.next = number;
            }
            // All of them were looked at: nothing up to the newest is of interest.
            found.next = newest.max(found.next);
            if seen.is_none() {
                found.events.drain(..found.events.len().saturating_sub(limit));
            }
            return Ok(found);
        }
        let begin = begin.to_be_bytes();
        let range = (Bound::Excluded(&begin[..]), Bound::Unbounded);
        if seen.is_none() {
            for entry in self.tables.events.rev_iter(&txn)?.take(LOOKED_AT_MAX) {
                let (key, row) = entry?;
                found.events.extend(numbered(key, row).filter(|(_, event)| wanted(event)));
                if found.events.len() >= limit {
                    break;
                }
            }
            found.events.reverse();
            return Ok(found);
        }
        for (nth, entry) in self.tables.events.range(&txn, &range)?.enumerate() {
            let (key, row) = entry?;
            if found.events.len() >= limit || nth >= LOOKED_AT_MAX.max(limit) {
                found.more = true;
                break;
            }
            found.events.extend(numbered(key, row).filter(|(_, event)| wanted(event)));
            found.next = last_number(key).unwrap_or(found.next);
        }
        Ok(found)
    }

    /// The first `limit` events kept of one message, with their numbers.
    pub fn story(&self, id: QueueId, limit: usize) -> Result<Vec<(u64, Event)>, QueueError> {
        Ok(self.events(Some(0), None, Some(id), limit)?.events)
    }

    fn event(&self, txn: &Txn<'_>, number: u64) -> Result<Option<Event>, QueueError> {
        let key = number.to_be_bytes();
        Ok(self.tables.events.get(txn, &key)?.and_then(|row| numbered(&key, row)).map(|(_, event)| event))
    }
}

fn numbered(key: &[u8], row: &[u8]) -> Option<(u64, Event)> {
    match (last_number(key), Event::decode(row)) {
        (Some(number), Ok(event)) => Some((number, event)),
        _ => {
            tracing::error!("an event cannot be read and is left out");
            None
        }
    }
}
