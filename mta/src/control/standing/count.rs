//! What became of each member's mail, by day: events added up, in the table `sending`.
//!
//! Sums and the number of the last event that they hold commit together, so each event counts once, whatever happens in between.
//! A row's revision is the number of the last event in it: it rises with every change, over restarts too. Events that retention
//! dropped before they were counted are missing from the sums, and that is told.
//!
//! Key: the day (4 octets), the member (4 octets). The one row with a shorter key is the number.

use std::collections::BTreeMap;
use std::ops::Bound;

use atproto::sending::{Counts, DAYS_BACK_MAX, Day};
use heed::RwTxn;
use scheduler::ReplyClass;
use serde::{Deserialize, Serialize};
use smtp::{
    client::Stage,
    reply::{EnhancedCode, Reply},
};

use crate::{
    config::Config,
    control::daemon::Daemon,
    events::{Event, What},
    queue::{OWN, QueueError, Reader, Tables},
};

/// The row with the number of the last event that was counted.
const SEEN: &[u8] = b"at";
/// Events read at a time.
const AT_ONCE: usize = 2000;
/// Days that are kept: those that may be reported.
pub(super) const KEPT_DAYS: u32 = DAYS_BACK_MAX;

/// The sums of one member's day.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Sum {
    /// The number of the last event in it.
    pub(super) revision: u64,
    /// The revision that was reported.
    pub(super) reported: u64,
    /// The sums.
    pub(super) counts: Counts,
}

/// What some events add.
pub(super) type Added = BTreeMap<(Day, u32), (u64, Counts)>;

impl Daemon {
    /// Counts all events that there are. The first day that they changed, if any.
    pub(super) async fn count_sending(&self) -> Result<Option<Day>, String> {
        let mut first: Option<Day> = None;
        loop {
            let (changed, more) = self.count_some().await?;
            first = first.into_iter().chain(changed).min();
            if !more {
                return Ok(first);
            }
        }
    }

    /// Counts some: the first day that they changed, and whether there are more.
    async fn count_some(&self) -> Result<(Option<Day>, bool), String> {
        let (reader, config) = (self.parts.reader.clone(), self.config.load_full());
        let work = move || -> Result<_, QueueError> {
            let seen = seen(&reader)?;
            let found = reader.events(Some(seen), None, None, AT_ONCE)?;
            if seen > 0 && found.oldest > seen + 1 {
                tracing::warn!(lost = found.oldest - seen - 1, "events left before they were counted; [events] keep is short");
            }
            Ok((add(&found.events, |event| speaks_of_reputation(&config, event)), seen, found.next, found.more))
        };
        let told = |error: QueueError| error.to_string();
        let work = tokio::task::spawn_blocking(work).await.map_err(|error| error.to_string())?;
        let (added, seen, next, more) = work.map_err(told)?;
        if next == seen {
            return Ok((None, false));
        }
        let changed = added.keys().next().map(|(day, _)| *day);
        let written = self.parts.queue.transact(move |txn, tables| {
            for ((day, member), (revision, counts)) in &added {
                let key = key(*day, *member);
                let mut sum = tables.sending.get(txn, &key)?.map(read_sum).unwrap_or_default();
                sum.revision = *revision;
                sum.counts = plus(sum.counts, *counts);
                tables.sending.put(txn, &key, &write_sum(&sum)?)?;
            }
            Ok(tables.sending.put(txn, SEEN, &next.to_be_bytes())?)
        });
        written.await.map_err(told)?;
        Ok((changed, more))
    }

    /// Drops days that may not be reported any more.
    pub(super) async fn drop_old_sending(&self) -> Result<(), String> {
        let end = key(Day::of(self.now()).back(KEPT_DAYS), 0);
        let written = self.parts.queue.transact(move |txn, tables| {
            // The number stays: its key begins with a letter, which sorts behind every day.
            Ok(tables.sending.delete_range(txn, &(Bound::Unbounded, Bound::Excluded(&end[..])))?)
        });
        written.await.map(drop).map_err(|error| error.to_string())
    }
}

/// Forgets a member: what was counted, and what is doubted.
pub(crate) fn forget(txn: &mut RwTxn<'_>, tables: &Tables, member: u32, did: &str, today: Day) -> Result<(), QueueError> {
    for ago in 0..=KEPT_DAYS {
        tables.sending.delete(txn, &key(today.back(ago), member))?;
    }
    tables.standing.delete(txn, did.as_bytes())?;
    Ok(())
}

fn seen(reader: &Reader) -> Result<u64, QueueError> {
    reader.read(|txn, tables| {
        let row = tables.sending.get(txn, SEEN)?;
        Ok(row.and_then(|row| row.try_into().ok()).map_or(0, u64::from_be_bytes))
    })
}

/// Adds up. Mail of our own is nobody's.
pub(super) fn add(events: &[(u64, Event)], speaks_of_reputation: impl Fn(&Event) -> bool) -> Added {
    let mut added = Added::new();
    for (number, event) in events.iter().filter(|(_, event)| event.member != OWN) {
        let recipients = u64::from(event.recipients.max(1));
        let mut counts = Counts::default();
        match event.what {
            What::Delivered => counts.delivered = recipients,
            What::Failed => counts.failed = recipients,
            What::Expired => counts.expired = recipients,
            What::Deferred if speaks_of_reputation(event) => counts.deferred = recipients,
            _ => continue,
        }
        let (revision, sum) = added.entry((Day::of(event.at), event.member)).or_default();
        (*revision, *sum) = (*number, plus(*sum, counts));
    }
    added
}

fn plus(a: Counts, b: Counts) -> Counts {
    Counts {
        delivered: a.delivered.saturating_add(b.delivered),
        failed: a.failed.saturating_add(b.failed),
        expired: a.expired.saturating_add(b.expired),
        deferred: a.deferred.saturating_add(b.deferred),
        ..a
    }
}

/// By the same table that the scheduler goes by, from the reply as the event has it.
fn speaks_of_reputation(config: &Config, event: &Event) -> bool {
    let Some((code, text)) = event.reply.split_at_checked(3) else { return false };
    let Ok(code) = code.parse() else { return false };
    let text = text.trim_start_matches([' ', '-']);
    let reply = match EnhancedCode::split(text) {
        Some((enhanced, text)) => Reply::new(code, enhanced, text.to_owned()),
        None => Reply::plain(code, text.to_owned()),
    };
    let provider = config.shaped.providers.of(&event.host);
    let meaning = config.replies.classify(&provider, Stage::Rcpt, &reply);
    meaning.is_some_and(|meaning| meaning.class == ReplyClass::Reputation)
}

pub(super) fn key(day: Day, member: u32) -> Vec<u8> {
    [day.number().to_be_bytes(), member.to_be_bytes()].concat()
}

/// None: the row with the number.
pub(super) fn day_and_member(key: &[u8]) -> Option<(Day, u32)> {
    let (day, member) = key.split_first_chunk::<4>()?;
    Some((Day::from_number(u32::from_be_bytes(*day)), u32::from_be_bytes(member.try_into().ok()?)))
}

/// A damaged row counts as none: its days are few.
pub(super) fn read_sum(row: &[u8]) -> Sum {
    serde_json::from_slice(row).unwrap_or_default()
}

pub(super) fn write_sum(sum: &Sum) -> Result<Vec<u8>, QueueError> {
    serde_json::to_vec(sum).map_err(|_| QueueError::Invalid("sums cannot be written"))
}
