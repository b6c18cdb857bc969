//! What the labeler knows, in LMDB: attestations and what was found about each, when to look again, and the labels issued.
//!
//! | table | key → value |
//! |---|---|
//! | `attested` | DID, NUL, domain → [`Row`] (JSON) |
//! | `due` | when (ms), row id → key of `attested` |
//! | `log` | sequence number → signed label (DAG-CBOR); never changed, numbers never used twice |
//! | `current` | subject, NUL, value → sequence number of its newest label |
//! | `meta` | issuer, key, last sequence number, last row id, cursors |
//!
//! What belongs together commits together: a finding, the labels that follow from it, and when to look again are one transaction. So is a
//! cursor with what was seen up to it: a crash repeats work and loses none.

mod env;
mod query;
mod rows;
#[cfg(test)]
mod tests;

use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use atproto::Did;
use atproto::key::SigningKey;
use atproto::label::Label;
use atproto::lexicon::{CooperativeLabel, DOMAIN_CHARS_MAX};
use heed::{Env, RoTxn, RwTxn, WithoutTls};

use env::Table;
pub use query::{Page, Pattern};
pub use rows::{Found, Row, State, Task, Touch};

/// LMDB keys hold 511 octets: DID, NUL, domain. The DIDs of atproto's methods are far shorter (plc: 32).
pub const DID_BYTES_MAX: usize = 511 - 1 - DOMAIN_CHARS_MAX;
/// Attested domains of one DID; further ones are refused. Keeps one account from filling the store.
pub const DOMAINS_MAX: usize = 32;

/// The open store. Reads are snapshots and may be made from any thread; writes wait for one another and for the disk.
#[derive(Debug)]
pub struct Store {
    env: Env<WithoutTls>,
    meta: Table,
    attested: Table,
    due: Table,
    log: Table,
    current: Table,
    issuer: Did,
    _lock: std::fs::File,
}

/// Why the store cannot do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The disk or LMDB refuses: go on serving, take nothing in, tell the operator.
    #[error("store: {0}")]
    Lmdb(#[from] heed::Error),
    /// A row is not what we wrote: restore the store, or remove it and let it fill again.
    #[error("store: {0} is corrupt")]
    Corrupt(String),
    /// The store is another labeler's.
    #[error("the store holds the labels of {0}; use another data_dir, or that did")]
    OtherIssuer(String),
}

const ISSUER: &[u8] = b"issuer";
const KEY: &[u8] = b"key";
const SEQ: &[u8] = b"seq";
const ROW: &[u8] = b"row";
const CURSOR: &str = "cursor ";

impl Store {
    /// Opens or makes the store of `issuer`. If the signing key has changed since, the labels in force are signed again, with their old times.
    pub fn open(path: &Path, issuer: &Did, key: &SigningKey) -> Result<Self, StoreError> {
        let env::Opened { env, tables: [meta, attested, due, log, current], lock } =
            env::open(path, ["meta", "attested", "due", "log", "current"])?;
        let store = Self { env, meta, attested, due, log, current, issuer: issuer.clone(), _lock: lock };
        let mut txn = store.env.write_txn()?;
        match store.meta.get(&txn, ISSUER)? {
            Some(found) if found != issuer.as_str().as_bytes() => {
                return Err(StoreError::OtherIssuer(String::from_utf8_lossy(found).into_owned()));
            }
            _ => store.meta.put(&mut txn, ISSUER, issuer.as_str().as_bytes())?,
        }
        let did_key = key.verifying_key().did_key();
        let known = store.meta.get(&txn, KEY)?.map(<[u8]>::to_vec);
        if known.as_deref().is_some_and(|known| known != did_key.as_bytes()) {
            let again = store.sign_again(&mut txn, key)?;
            tracing::warn!(labels = again, key = did_key, "the signing key has changed: labels were signed again");
        }
        store.meta.put(&mut txn, KEY, did_key.as_bytes())?;
        txn.commit()?;
        Ok(store)
    }

    /// How far a stream was read.
    pub fn cursor(&self, stream: &str) -> Result<Option<i64>, StoreError> {
        let txn = self.env.read_txn()?;
        let cursor = self.meta.get(&txn, format!("{CURSOR}{stream}").as_bytes())?;
        Ok(cursor.and_then(|octets| octets.try_into().ok()).map(i64::from_be_bytes))
    }

    /// The stream was read up to here and nothing was in it for us; `None` forgets the place.
    pub fn set_cursor(&self, stream: &str, cursor: Option<i64>) -> Result<(), StoreError> {
        let mut txn = self.env.write_txn()?;
        self.put_cursor(&mut txn, stream, cursor)?;
        Ok(txn.commit()?)
    }

    fn put_cursor(&self, txn: &mut RwTxn<'_>, stream: &str, cursor: Option<i64>) -> Result<(), StoreError> {
        let key = format!("{CURSOR}{stream}");
        match cursor {
            Some(cursor) => self.meta.put(txn, key.as_bytes(), &cursor.to_be_bytes())?,
            None => drop(self.meta.delete(txn, key.as_bytes())?),
        }
        Ok(())
    }

    /// The last sequence number that was given to a label.
    pub fn last_seq(&self) -> Result<u64, StoreError> {
        let txn = self.env.read_txn()?;
        self.counter(&txn, SEQ)
    }

    fn counter(&self, txn: &RoTxn<'_>, name: &[u8]) -> Result<u64, StoreError> {
        match self.meta.get(txn, name)? {
            None => Ok(0),
            Some(octets) => number(octets),
        }
    }

    fn next(&self, txn: &mut RwTxn<'_>, name: &[u8]) -> Result<u64, StoreError> {
        let next = self.counter(txn, name)? + 1;
        self.meta.put(txn, name, &next.to_be_bytes())?;
        Ok(next)
    }

    /// The newest label about `subject` with this value.
    fn newest(&self, txn: &RoTxn<'_>, subject: &str, val: &str) -> Result<Option<Label>, StoreError> {
        match self.current.get(txn, &current_key(subject, val))? {
            None => Ok(None),
            Some(seq) => self.label(txn, seq).map(Some),
        }
    }

    fn label(&self, txn: &RoTxn<'_>, seq: &[u8]) -> Result<Label, StoreError> {
        let corrupt = || StoreError::Corrupt(format!("label {seq:?}"));
        Label::from_cbor(self.log.get(txn, seq)?.ok_or_else(corrupt)?).map_err(|_| corrupt())
    }

    /// Issues what is to be said of `did` now, where it differs from what was said. `clean-sender` is not ours to touch here.
    fn issue(
        &self,
        txn: &mut RwTxn<'_>,
        did: &Did,
        wanted: &[CooperativeLabel],
        now: SystemTime,
        key: &SigningKey,
    ) -> Result<Vec<Label>, StoreError> {
        let mut issued = Vec::new();
        for value in [CooperativeLabel::VerifiedMailOperator, CooperativeLabel::RelayMember] {
            let newest = self.newest(txn, did.as_str(), value.as_str())?;
            let said = newest.as_ref().is_some_and(|label| !label.negates());
            let wanted = wanted.contains(&value);
            if said == wanted {
                continue;
            }
            // Consumers keep the newest `cts`, so a clock that stands still or goes back must not hide this one.
            let after = newest.map_or(UNIX_EPOCH, |label| atproto::instant(&label.cts) + Duration::from_millis(1));
            let mut label = Label::account(self.issuer.clone(), did, value.as_str(), atproto::datetime(now.max(after)));
            label.neg = (!wanted).then_some(true);
            label.sign(key);
            self.append(txn, &label)?;
            issued.push(label);
        }
        Ok(issued)
    }

    fn append(&self, txn: &mut RwTxn<'_>, label: &Label) -> Result<(), StoreError> {
        let seq = self.next(txn, SEQ)?.to_be_bytes();
        self.log.put(txn, &seq, &label.to_cbor())?;
        self.current.put(txn, &current_key(&label.uri, &label.val), &seq)?;
        Ok(())
    }

    /// atproto label spec, "Key rotation": the same statements with the same times under the new key.
    fn sign_again(&self, txn: &mut RwTxn<'_>, key: &SigningKey) -> Result<usize, StoreError> {
        let seqs = self.current.iter(txn)?.map(|entry| entry.map(|(_, seq)| seq.to_vec())).collect::<Result<Vec<_>, _>>()?;
        for seq in &seqs {
            let mut label = self.label(txn, seq)?;
            label.sign(key);
            self.append(txn, &label)?;
        }
        Ok(seqs.len())
    }
}

fn current_key(subject: &str, val: &str) -> Vec<u8> {
    [subject.as_bytes(), b"\0", val.as_bytes()].concat()
}

fn number(octets: &[u8]) -> Result<u64, StoreError> {
    octets.try_into().map(u64::from_be_bytes).map_err(|_| StoreError::Corrupt("a number".into()))
}

fn millis(at: SystemTime) -> u64 {
    at.duration_since(UNIX_EPOCH).map_or(0, |since| u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}
