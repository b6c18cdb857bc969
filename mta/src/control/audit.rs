//! The audit: who changed what, from what to what, why and when. Kept in the table `audit`, a row a change, the newest
//! [`ROWS_MAX`] of them.
//!
//! Not here: what is written down of a change (`admin/changes.rs`).

use serde_json::Value;

use super::api::{AuditFilter, AuditPage, AuditRow, PAGE_MAX, Refusal};
use super::daemon::Daemon;
use super::views::{blocking, time, unable};
use crate::queue::{QueueError, Table};

/// Rows kept. With the next change the oldest leaves. A row has about 1 KiB, and at most some 30.
const ROWS_MAX: u64 = 20_000;

/// Rows that one question looks at.
const LOOKED_AT_MAX: usize = 20_000;

/// Changes that one who saw an old version is told.
const SINCE_MAX: usize = 20;

const DAMAGED: QueueError = QueueError::Invalid("a row of the audit cannot be written");

impl Daemon {
    /// Writes down that something is about to be done. Answers its number.
    pub(super) async fn write_audit(&self, mut row: AuditRow) -> Result<u64, Refusal> {
        row.at = time(self.now());
        let work = self.parts.queue.transact(move |txn, tables| {
            let number = tables.audit.last(txn)?.and_then(|(key, _)| number(key)).unwrap_or(0) + 1;
            row.number = number;
            put(tables.audit, txn, &row)?;
            if let Some(oldest) = number.checked_sub(ROWS_MAX) {
                let old = (std::ops::Bound::Unbounded, std::ops::Bound::Included(&oldest.to_be_bytes()[..]));
                tables.audit.delete_range(txn, &old)?;
            }
            Ok(number)
        });
        work.await.map_err(|error| Refusal::Unable(format!("nothing was done, because it cannot be written down: {error}")))
    }

    /// Writes down what became of it.
    pub(super) async fn finish_audit(&self, end: AuditRow) -> Result<(), Refusal> {
        let work = self.parts.queue.transact(move |txn, tables| {
            let Some(row) = tables.audit.get(txn, &end.number.to_be_bytes())? else { return Ok(()) };
            let mut row: AuditRow = serde_json::from_slice(row).map_err(|_| DAMAGED)?;
            (row.outcome, row.status) = (end.outcome, end.status);
            (row.after, row.after_version) = (end.after, end.after_version);
            put(tables.audit, txn, &row)
        });
        work.await.map_err(unable)
    }

    /// A page of it, the newest first.
    pub(super) async fn list_audit(&self, filter: AuditFilter) -> Result<AuditPage, Refusal> {
        let limit = filter.limit.unwrap_or(100).clamp(1, PAGE_MAX);
        let before = filter.before.unwrap_or(u64::MAX);
        let fits = move |row: &AuditRow| {
            let is = |wanted: &Option<String>, has: &str| wanted.as_deref().is_none_or(|wanted| wanted == has);
            is(&filter.who, &row.who) && filter.about.as_deref().is_none_or(|about| row.about.starts_with(about))
        };
        let rows = self.newest_audit(before, LOOKED_AT_MAX, move |row, found| {
            if found.len() > limit {
                return false;
            }
            if fits(&row) {
                found.push(row);
            }
            true
        });
        let mut rows = rows.await?;
        let more = rows.len() > limit;
        rows.truncate(limit);
        Ok(AuditPage { next: rows.last().filter(|_| more).map(|row| row.number), rows })
    }

    /// What was changed about something since it had one of these versions, the newest first. When that is longer ago than is
    /// kept: the last changes.
    pub(super) async fn list_audit_since(&self, about: &str, versions: &[&str]) -> Result<Vec<AuditRow>, Refusal> {
        let about = about.to_owned();
        let versions: Vec<String> = versions.iter().map(|it| (*it).to_owned()).collect();
        let had = move |version: &Option<String>| version.as_ref().is_some_and(|version| versions.contains(version));
        self.newest_audit(u64::MAX, LOOKED_AT_MAX, move |row, found| {
            if row.about != about || row.before_version == row.after_version {
                return true;
            }
            if had(&row.after_version) {
                return false;
            }
            let was_seen = had(&row.before_version);
            found.push(row);
            !was_seen && found.len() < SINCE_MAX
        })
        .await
    }

    async fn newest_audit(
        &self,
        before: u64,
        most: usize,
        mut take: impl FnMut(AuditRow, &mut Vec<AuditRow>) -> bool + Send + 'static,
    ) -> Result<Vec<AuditRow>, Refusal> {
        let read = blocking(self, move |daemon| {
            daemon.parts.reader.read(|txn, tables| {
                let mut found = Vec::new();
                let until = before.to_be_bytes();
                let range = (std::ops::Bound::Unbounded, std::ops::Bound::Excluded(&until[..]));
                for entry in tables.audit.rev_range(txn, &range)?.take(most) {
                    match serde_json::from_slice(entry?.1) {
                        Ok(row) => {
                            if !take(row, &mut found) {
                                break;
                            }
                        }
                        Err(error) => tracing::error!(%error, "a row of the audit cannot be read"),
                    }
                }
                Ok(found)
            })
        });
        read.await?.map_err(unable)
    }
}

fn put(table: Table, txn: &mut heed::RwTxn<'_>, row: &AuditRow) -> Result<(), QueueError> {
    let octets = serde_json::to_vec(row).map_err(|_| DAMAGED)?;
    Ok(table.put(txn, &row.number.to_be_bytes(), &octets)?)
}

fn number(key: &[u8]) -> Option<u64> {
    key.try_into().ok().map(u64::from_be_bytes)
}

impl AuditRow {
    /// In a sentence: what changed, by whom, when and why.
    pub fn says(&self) -> String {
        let AuditRow { who, what, at, why, .. } = self;
        let why = why.as_deref().map_or(String::new(), |why| format!(" ({why})"));
        let fields = changed(self.before.as_ref(), self.after.as_ref());
        let fields = if fields.is_empty() { what.clone() } else { fields };
        format!("{fields}, by {who} at {at}{why}")
    }
}

/// `tier: "small" → "large"`.
fn changed(before: Option<&Value>, after: Option<&Value>) -> String {
    let (Some(Value::Object(before)), Some(Value::Object(after))) = (before, after) else { return String::new() };
    let mut fields: Vec<&String> = before.keys().chain(after.keys()).collect();
    fields.sort();
    fields.dedup();
    // A whole text says nothing in one line; the rows have it.
    let shown = |value: Option<&Value>| match value {
        None => "nothing".to_owned(),
        Some(Value::String(text)) if text.contains('\n') => format!("{} lines", text.lines().count()),
        Some(value) => value.to_string(),
    };
    let changed = fields.into_iter().filter(|field| before.get(*field) != after.get(*field));
    changed
        .map(|field| format!("{field}: {} → {}", shown(before.get(field)), shown(after.get(field))))
        .collect::<Vec<_>>()
        .join(", ")
}
