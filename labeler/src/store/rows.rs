//! Attestations that were seen, what was found about each, and when each is looked at again.

use std::collections::HashSet;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use atproto::Did;
use atproto::key::SigningKey;
use atproto::label::Label;
use atproto::lexicon::{CooperativeLabel, DOMAIN_CHARS_MAX};
use heed::{RoTxn, RwTxn};
use serde::{Deserialize, Serialize};

use super::{DID_BYTES_MAX, DOMAINS_MAX, ROW, Store, StoreError, millis};
use crate::judge::{Judgement, Verdict};

/// A failed or unmade check is repeated after this, then after twice as long, and so on: a member who is putting records into DNS sees the label soon.
const RETRY_FIRST: Duration = Duration::from_secs(1);
const RETRY_LAST: Duration = Duration::from_secs(3600);

/// What is known of one attestation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Row {
    /// Names the row in the `due` table; never used twice.
    pub id: u64,
    /// How often somebody pointed at the record. A check that began before the last time does not settle it.
    pub asked: u64,
    /// When to look again, in milliseconds since 1970.
    pub due_ms: u64,
    /// Revision of the repository that the record was last proven by. An older one is not believed.
    pub rev: Option<String>,
    /// The last definite finding: whether this domain carries its DID's labels. Trouble on the way does not change it.
    pub stands: bool,
    /// Whether the member asks for the relay.
    pub relay: bool,
    /// The last finding, definite or not.
    pub state: State,
    /// Why it is not `pass`: what was wrong and what to do.
    pub reasons: Vec<String>,
    /// When it was found.
    pub checked_ms: Option<u64>,
    /// Checks in a row that did not pass.
    pub failures: u32,
}

/// The last finding.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// Not looked at yet.
    New,
    /// All is well.
    Pass,
    /// Something is wrong.
    Fail,
    /// It could not be found out.
    Unknown,
}

/// Something that may have changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Touch {
    /// A record.
    Record(Did, String),
    /// Anything about an account: every attestation of it that we know is looked at again.
    Account(Did),
}

/// An attestation to look at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Task {
    /// Its row.
    pub id: u64,
    /// [`Row::asked`] when the task was taken.
    pub asked: u64,
    /// Whose.
    pub did: Did,
    /// Its record key: the domain.
    pub rkey: String,
    /// [`Row::rev`].
    pub rev: Option<String>,
}

/// What a look at an attestation gave.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Found {
    /// The repository proves that there is no such record.
    Absent,
    /// A judgement, of the record or of why there is none to judge.
    Judged {
        /// Pass, fail, or nothing definite, and each check.
        judgement: Judgement,
        /// Whether the record asks for the relay.
        relay: bool,
        /// The revision that proved it.
        rev: Option<String>,
    },
}

impl Store {
    /// Notes what to look at, and how far the stream was read that said so, in one transaction. Answers what is not even worth a look, and why.
    pub fn touch(&self, touched: &[Touch], cursor: Option<(&str, i64)>, now: SystemTime) -> Result<Vec<String>, StoreError> {
        let mut refused = Vec::new();
        let mut txn = self.env.write_txn()?;
        for touch in touched {
            match touch {
                Touch::Record(did, rkey) => refused.extend(self.touch_record(&mut txn, did, rkey, now)?),
                Touch::Account(did) => {
                    for (key, row) in self.rows_in(&txn, did)? {
                        self.ask(&mut txn, &key, row, now)?;
                    }
                }
            }
        }
        if let Some((stream, cursor)) = cursor {
            self.put_cursor(&mut txn, stream, Some(cursor))?;
        }
        txn.commit()?;
        Ok(refused)
    }

    fn touch_record(&self, txn: &mut RwTxn<'_>, did: &Did, rkey: &str, now: SystemTime) -> Result<Option<String>, StoreError> {
        if did.as_str().len() > DID_BYTES_MAX || rkey.len() > DOMAIN_CHARS_MAX || rkey.contains('\0') {
            return Ok(Some(format!("{}: a DID or record key that is too long to be a domain's", did.as_str())));
        }
        let key = row_key(did, rkey);
        let row = match self.row_in(txn, &key)? {
            Some(row) => row,
            None if self.rows_in(txn, did)?.len() >= DOMAINS_MAX => {
                return Ok(Some(format!("{} attests more than {DOMAINS_MAX} domains; {rkey} is not looked at", did.as_str())));
            }
            None => Row {
                id: self.next(txn, ROW)?,
                asked: 0,
                due_ms: 0,
                rev: None,
                stands: false,
                relay: false,
                state: State::New,
                reasons: Vec::new(),
                checked_ms: None,
                failures: 0,
            },
        };
        self.ask(txn, &key, row, now)?;
        Ok(None)
    }

    fn ask(&self, txn: &mut RwTxn<'_>, key: &[u8], mut row: Row, now: SystemTime) -> Result<(), StoreError> {
        self.due.delete(txn, &due_key(&row))?;
        (row.asked, row.due_ms) = (row.asked + 1, millis(now));
        self.put_row(txn, key, &row)
    }

    /// Makes every attestation due now; says how many there are.
    pub(super) fn ask_all(&self, txn: &mut RwTxn<'_>, now: SystemTime) -> Result<usize, StoreError> {
        let keys = self.attested.iter(txn)?.map(|entry| Ok(entry?.0.to_vec())).collect::<Result<Vec<_>, StoreError>>()?;
        for key in &keys {
            if let Some(row) = self.row_in(txn, key)? {
                self.ask(txn, key, row, now)?;
            }
        }
        Ok(keys.len())
    }

    fn put_row(&self, txn: &mut RwTxn<'_>, key: &[u8], row: &Row) -> Result<(), StoreError> {
        let Ok(json) = serde_json::to_vec(row) else { unreachable!("a row is numbers, flags and strings") };
        self.attested.put(txn, key, &json)?;
        Ok(self.due.put(txn, &due_key(row), key)?)
    }

    /// Up to `max` attestations that are due, without those being looked at.
    pub fn due(&self, now: SystemTime, busy: &HashSet<u64>, max: usize) -> Result<Vec<Task>, StoreError> {
        let txn = self.env.read_txn()?;
        let mut tasks = Vec::new();
        for entry in self.due.iter(&txn)? {
            let (due, key) = entry?;
            if tasks.len() >= max || due_of(due) > millis(now) {
                break;
            }
            let row = self.row_in(&txn, key)?.ok_or_else(|| StoreError::Corrupt("the due table".into()))?;
            if busy.contains(&row.id) {
                continue;
            }
            let (did, rkey) = names(key)?;
            tasks.push(Task { id: row.id, asked: row.asked, did, rkey, rev: row.rev });
        }
        Ok(tasks)
    }

    /// When the next attestation is due that nobody looks at.
    pub fn next_due(&self, busy: &HashSet<u64>) -> Result<Option<SystemTime>, StoreError> {
        let txn = self.env.read_txn()?;
        for entry in self.due.iter(&txn)? {
            let (due, _) = entry?;
            if !busy.contains(&due_id(due)) {
                return Ok(Some(UNIX_EPOCH + Duration::from_millis(due_of(due))));
            }
        }
        Ok(None)
    }

    /// Writes down what was found, issues the labels that follow from it, and says when to look again.
    pub fn settle(
        &self,
        task: &Task,
        found: &Found,
        interval: Duration,
        now: SystemTime,
        key: &SigningKey,
    ) -> Result<Vec<Label>, StoreError> {
        self.settle_all(std::iter::once((task, found)), interval, now, key)
    }

    /// The same for many at once, in one transaction: the disk is waited for once.
    pub fn settle_all<'f>(
        &self,
        found: impl IntoIterator<Item = (&'f Task, &'f Found)>,
        interval: Duration,
        now: SystemTime,
        key: &SigningKey,
    ) -> Result<Vec<Label>, StoreError> {
        let mut txn = self.env.write_txn()?;
        let mut issued = Vec::new();
        for (task, found) in found {
            issued.extend(self.settle_in(&mut txn, task, found, interval, now, key)?);
        }
        txn.commit()?;
        self.tell();
        Ok(issued)
    }

    fn settle_in(
        &self,
        txn: &mut RwTxn<'_>,
        task: &Task,
        found: &Found,
        interval: Duration,
        now: SystemTime,
        key: &SigningKey,
    ) -> Result<Vec<Label>, StoreError> {
        let name = row_key(&task.did, &task.rkey);
        let Some(mut row) = self.row_in(txn, &name)?.filter(|row| row.id == task.id) else {
            return Ok(Vec::new());
        };
        self.due.delete(txn, &due_key(&row))?;
        row.checked_ms = Some(millis(now));
        match found {
            Found::Absent => (row.stands, row.relay, row.state, row.reasons) = (false, false, State::New, Vec::new()),
            Found::Judged { judgement, relay, rev } => {
                row.reasons = judgement.reasons();
                row.rev = rev.clone().max(row.rev);
                row.failures = if judgement.verdict == Verdict::Pass { 0 } else { row.failures.saturating_add(1) };
                match judgement.verdict {
                    Verdict::Pass => (row.stands, row.relay, row.state) = (true, *relay, State::Pass),
                    Verdict::Fail => (row.stands, row.relay, row.state) = (false, *relay, State::Fail),
                    Verdict::Unknown => row.state = State::Unknown,
                }
            }
        }
        if row.asked != task.asked {
            // Somebody pointed at it again meanwhile: what was found may be old already.
            row.due_ms = millis(now);
            self.put_row(txn, &name, &row)?;
        } else if *found == Found::Absent {
            self.attested.delete(txn, &name)?;
        } else {
            row.due_ms = millis(now + wait(&row, interval));
            self.put_row(txn, &name, &row)?;
        }
        let rows = self.rows_in(txn, &task.did)?;
        let mut wanted = Vec::new();
        if rows.iter().any(|(_, row)| row.stands) {
            wanted.push(CooperativeLabel::VerifiedMailOperator);
        }
        if rows.iter().any(|(_, row)| row.stands && row.relay) {
            wanted.push(CooperativeLabel::RelayMember);
        }
        self.issue(txn, &task.did, &wanted, now, key)
    }

    /// Whether any attestation of `did` is known.
    pub fn knows(&self, did: &Did) -> Result<bool, StoreError> {
        if did.as_str().len() > DID_BYTES_MAX {
            return Ok(false);
        }
        let txn = self.env.read_txn()?;
        Ok(self.attested.prefix_iter(&txn, &row_key(did, ""))?.next().transpose()?.is_some())
    }

    /// The attestations of `did` that are known, by domain.
    pub fn rows(&self, did: &Did) -> Result<Vec<(String, Row)>, StoreError> {
        let txn = self.env.read_txn()?;
        let rows = self.rows_in(&txn, did)?;
        rows.into_iter().map(|(key, row)| Ok((names(&key)?.1, row))).collect()
    }

    fn rows_in(&self, txn: &RoTxn<'_>, did: &Did) -> Result<Vec<(Vec<u8>, Row)>, StoreError> {
        let prefix = row_key(did, "");
        let mut rows = Vec::new();
        for entry in self.attested.prefix_iter(txn, &prefix)? {
            let (key, octets) = entry?;
            rows.push((key.to_vec(), read(octets)?));
        }
        Ok(rows)
    }

    fn row_in(&self, txn: &RoTxn<'_>, key: &[u8]) -> Result<Option<Row>, StoreError> {
        self.attested.get(txn, key)?.map(read).transpose()
    }
}

/// After a pass the interval, a little less for some than for others so that they spread; otherwise doubling from a second.
fn wait(row: &Row, interval: Duration) -> Duration {
    if row.failures == 0 {
        let tenth = interval / 10;
        return interval - tenth * u32::try_from(row.id % 100).unwrap_or(0) / 100;
    }
    let doubled = RETRY_FIRST.saturating_mul(1 << (row.failures - 1).min(20));
    doubled.min(RETRY_LAST).min(interval)
}

fn read(octets: &[u8]) -> Result<Row, StoreError> {
    serde_json::from_slice(octets).map_err(|error| StoreError::Corrupt(format!("an attestation ({error})")))
}

fn row_key(did: &Did, rkey: &str) -> Vec<u8> {
    [did.as_str().as_bytes(), b"\0", rkey.as_bytes()].concat()
}

fn names(key: &[u8]) -> Result<(Did, String), StoreError> {
    let corrupt = || StoreError::Corrupt("the name of an attestation".into());
    let (did, rkey) = std::str::from_utf8(key).ok().and_then(|key| key.split_once('\0')).ok_or_else(corrupt)?;
    Ok((did.parse().map_err(|_| corrupt())?, rkey.to_owned()))
}

fn due_key(row: &Row) -> [u8; 16] {
    (u128::from(row.due_ms) << 64 | u128::from(row.id)).to_be_bytes()
}

fn due_of(key: &[u8]) -> u64 {
    key.first_chunk().copied().map_or(0, u64::from_be_bytes)
}

fn due_id(key: &[u8]) -> u64 {
    key.last_chunk().copied().map_or(0, u64::from_be_bytes)
}
