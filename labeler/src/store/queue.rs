//! What is due, on disk, in lanes ordered by time. No number of attestations costs memory.
//!
//! The `due` table has one row for each attestation: its lane, when, its number. Nobody looks further into a lane than there are
//! places.

use std::collections::HashSet;
use std::ops::Bound;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::rows::{names, row_key};
use super::{Lane, Row, Store, StoreError, Task, millis};

const KEY_BYTES: usize = 17;

impl Store {
    /// Up to `max` attestations of a lane that are due, without those being looked at; the oldest first, or the newest.
    pub fn due(
        &self,
        lane: Lane,
        now: SystemTime,
        busy: &HashSet<u64>,
        max: usize,
        newest: bool,
    ) -> Result<Vec<Task>, StoreError> {
        let txn = self.env.read_txn()?;
        let (from, to) = until(lane, now);
        let range: (Bound<&[u8]>, Bound<&[u8]>) = (Bound::Included(&from), Bound::Included(&to));
        let mut tasks = Vec::new();
        let mut take = |at: &[u8], key: &[u8]| -> Result<bool, StoreError> {
            if !busy.contains(&id_of(at)) {
                let row = self.row_in(&txn, key)?.ok_or_else(|| StoreError::Corrupt("the due table".into()))?;
                let (did, rkey) = names(key)?;
                tasks.push(Task { id: row.id, asked: row.asked, did, rkey, rev: row.rev, lane, host: row.host });
            }
            Ok(tasks.len() < max)
        };
        if max == 0 {
            return Ok(Vec::new());
        }
        if newest {
            for entry in self.due.rev_range(&txn, &range)? {
                let (at, key) = entry?;
                if !take(at, key)? {
                    break;
                }
            }
        } else {
            for entry in self.due.range(&txn, &range)? {
                let (at, key) = entry?;
                if !take(at, key)? {
                    break;
                }
            }
        }
        Ok(tasks)
    }

    /// When the next attestation of a lane is due that nobody looks at.
    pub fn next_due(&self, lane: Lane, busy: &HashSet<u64>) -> Result<Option<SystemTime>, StoreError> {
        let txn = self.env.read_txn()?;
        for entry in self.due.prefix_iter(&txn, &[lane as u8])? {
            let (at, _) = entry?;
            if !busy.contains(&id_of(at)) {
                return Ok(Some(UNIX_EPOCH + Duration::from_millis(due_of(at))));
            }
        }
        Ok(None)
    }

    /// These have to wait until then. What was found out about their host is kept.
    pub fn postpone(&self, tasks: &[(Task, SystemTime)]) -> Result<(), StoreError> {
        let mut txn = self.env.write_txn()?;
        for (task, until) in tasks {
            let name = row_key(&task.did, &task.rkey);
            let Some(mut row) = self.row_in(&txn, &name)?.filter(|row| row.id == task.id) else { continue };
            self.due.delete(&mut txn, &key(&row))?;
            if task.host.is_some() {
                row.host.clone_from(&task.host);
            }
            row.due_ms = millis(*until);
            self.put_row(&mut txn, &name, &row)?;
        }
        Ok(txn.commit()?)
    }
}

/// Where a row stands in the table.
pub(super) fn key(row: &Row) -> [u8; KEY_BYTES] {
    place(row.lane(), row.due_ms, row.id)
}

/// The first and the last place of what is due in a lane.
pub(super) fn until(lane: Lane, now: SystemTime) -> ([u8; KEY_BYTES], [u8; KEY_BYTES]) {
    (place(lane, 0, 0), place(lane, millis(now), u64::MAX))
}

fn place(lane: Lane, due_ms: u64, id: u64) -> [u8; KEY_BYTES] {
    let mut key = [lane as u8; KEY_BYTES];
    key[1..9].copy_from_slice(&due_ms.to_be_bytes());
    key[9..].copy_from_slice(&id.to_be_bytes());
    key
}

fn due_of(key: &[u8]) -> u64 {
    key.get(1..).and_then(|rest| rest.first_chunk()).copied().map_or(0, u64::from_be_bytes)
}

fn id_of(key: &[u8]) -> u64 {
    key.last_chunk().copied().map_or(0, u64::from_be_bytes)
}
