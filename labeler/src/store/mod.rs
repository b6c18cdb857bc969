//! What the labeler knows, in LMDB: attestations and what was found about each, when to look again, and the labels issued.
//!
//! | table | key → value |
//! |---|---|
//! | `attested` | DID, NUL, domain → [`Row`] (JSON); without a domain: the repository is to be looked into |
//! | `due` | lane, when (ms), row id → key of `attested` |
//! | `domains` | domain, NUL, DID → nothing: who attests a domain |
//! | `checks` | DID, NUL, domain → [`Checked`] (JSON, deflated): what was found at the last look |
//! | `log` | sequence number → signed label (DAG-CBOR); never changed, numbers never used twice |
//! | `current` | subject, NUL, value → sequence number of its newest label, and what its JSON is made of |
//! | `renew` | when (ms), sequence number → key of `current`: what will run out |
//! | `superseded` | since when (ms), sequence number → nothing: what may be forgotten |
//! | `sending` | DID, NUL, day, MTA → what that MTA counted that day (JSON, `sending`); private |
//! | `standing` | DID → that there is something of it in `sending`, and since when it has no labels; private |
//! | `meta` | issuer, key, last sequence number, last row id, cursors, how far lists were read, tokens that were used (`used`), which file this is |
//!
//! What belongs together commits together: a finding, the labels that follow from it, and when to look again are one transaction. So is a
//! cursor with what was seen up to it: a crash repeats work and loses none.
//!
//! **No sequence number is used twice**, not even when an old copy of the store takes the place of a newer one, whose numbers it does not know. A copy made
//! by [`Store::backup`] says that it is one, and any other is found out by its file being another; then numbers go on far beyond (they may
//! have gaps), everything is looked at again, and what is found is said again, later than whatever was said meanwhile.

mod backfill;
mod backup;
mod current;
mod env;
mod labels;
mod log;
mod measures;
mod opening;
#[cfg(test)]
mod patience_tests;
mod query;
mod queue;
mod resident;
mod rows;
mod sending;
#[cfg(test)]
mod sending_tests;
mod settle;
#[cfg(test)]
mod tests;
mod used;

use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use atproto::Did;
use atproto::key::SigningKey;
use atproto::lexicon::DOMAIN_CHARS_MAX;
use heed::{Env, RoTxn, RwTxn, WithoutTls};
use tokio::sync::watch;

pub use backfill::Backfill;
pub use backup::{BackupError, backup, restore};
use env::Table;
pub use labels::{Terms, Upkeep};
pub use log::LogPage;
pub use measures::{DUE_COUNTED_MAX, Measures};
use query::KEY_BYTES_MAX;
pub use query::{Cursor, Pattern};
pub use rows::{Bearer, Found, Lane, Row, State, Task, Touch};
pub use sending::{FORGET_AFTER, MTA_BYTES_MAX, Ruled};
pub use settle::{Checked, Patience};

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
    renew: Table,
    superseded: Table,
    checks: Table,
    domains: Table,
    sending: Table,
    standing: Table,
    issuer: Did,
    terms: Terms,
    /// What was said before is said again: [`RESTORED`].
    restored_ms: u64,
    news: watch::Sender<u64>,
    pages: log::Pages,
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
const FORMAT: &[u8] = b"format";
/// Of the tables, as this version writes them.
const FORMAT_NOW: u64 = 3;
/// Which file this is.
const FILE: &[u8] = b"file";
/// Present in a copy that was not opened yet.
const COPY: &[u8] = b"copy";
/// When this store was last found to be a copy, in milliseconds since 1970.
const RESTORED: &[u8] = b"restored";
/// The highest number that was forgotten.
const FLOOR: &[u8] = b"floor";
const CURSOR: &str = "cursor ";
/// How far numbers go on beyond a copy's: more labels than were issued after it was made, and two million times below 2^53.
const COPY_GAP: u64 = 1 << 32;

impl Store {
    /// Opens or makes the store of `issuer`. If the signing key has changed since, the labels are signed again, with their old times; if
    /// this is a copy, numbers go on beyond those of the original, and everything is due.
    pub fn open(path: &Path, issuer: &Did, key: &SigningKey, terms: Terms, now: SystemTime) -> Result<Self, StoreError> {
        let env::Opened { env, tables, lock } = env::open(path, env::TABLES)?;
        let file = env::file_identity(path)?;
        let [meta, attested, due, log, current, renew, superseded, checks, domains, sending, standing] = tables;
        let (news, _) = watch::channel(0);
        let pages = log::Pages::default();
        let issuer = issuer.clone();
        let mut store = Self {
            env,
            meta,
            attested,
            due,
            log,
            current,
            renew,
            superseded,
            checks,
            domains,
            sending,
            standing,
            issuer,
            terms,
            restored_ms: 0,
            news,
            pages,
            _lock: lock,
        };
        store.begin(file, key, now)?;
        store.tell();
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
