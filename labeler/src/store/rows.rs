//! Attestations that were seen, what was found about each, and when each is looked at again.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use atproto::Did;
use atproto::lexicon::DOMAIN_CHARS_MAX;
use heed::{RoTxn, RwTxn};
use serde::{Deserialize, Serialize};

use super::{DID_BYTES_MAX, DOMAINS_MAX, KEY_BYTES_MAX, ROW, Store, StoreError, millis, queue};
use crate::judge::Judgement;

/// In place of a record key; none is empty.
const WHOLE_REPO: &str = "";

/// What is known of one attestation. What is as it is in a new row is not written: most rows are half as long for it, and the store is
/// mostly rows.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Row {
    /// Names the row in the `due` table; never used twice.
    pub id: u64,
    /// How often somebody pointed at the record. A check that began before the last time does not settle it.
    pub asked: u64,
    /// When to look again, in milliseconds since 1970.
    pub due_ms: u64,
    /// Revision of the repository that the record was last proven by. An older one is not believed.
    #[serde(default, skip_serializing_if = "is_default")]
    pub rev: Option<String>,
    /// The last definite finding: whether this domain carries its DID's labels. Trouble on the way does not change it.
    #[serde(default, skip_serializing_if = "is_default")]
    pub stands: bool,
    /// Whether the member asks for the relay.
    #[serde(default, skip_serializing_if = "is_default")]
    pub relay: bool,
    /// The last finding, definite or not.
    pub state: State,
    /// Why it is not `pass`: what was wrong and what to do.
    #[serde(default, skip_serializing_if = "is_default")]
    pub reasons: Vec<String>,
    /// When it was found.
    #[serde(default, skip_serializing_if = "is_default")]
    pub checked_ms: Option<u64>,
    /// Checks in a row that did not pass.
    #[serde(default, skip_serializing_if = "is_default")]
    pub failures: u32,
    /// Definite failures in a row, and when the first of them was seen.
    #[serde(default, skip_serializing_if = "is_default")]
    pub refused: u32,
    /// See `refused`.
    #[serde(default, skip_serializing_if = "is_default")]
    pub refused_since_ms: u64,
    /// The host that holds the account, as far as it is known; empty when it was looked for in vain.
    #[serde(default, skip_serializing_if = "is_default")]
    pub host: Option<String>,
    /// Since when it stands without a break. 0: since before this was written down.
    #[serde(default, skip_serializing_if = "is_default")]
    pub stands_since_ms: u64,
    /// The selectors of the record that was last found in order.
    #[serde(default, skip_serializing_if = "is_default")]
    pub selectors: Vec<String>,
    /// The server that showed the record last.
    #[serde(default, skip_serializing_if = "is_default")]
    pub pds: Option<String>,
    /// When the first look was that did not pass, of those since the last that did. 0: the last one did, or this was not written
    /// down yet; then it begins with the next.
    #[serde(default, skip_serializing_if = "is_default")]
    pub unconfirmed_since_ms: u64,
}

/// Which account carries the labels of a domain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Bearer {
    /// No one.
    None,
    /// This one.
    One(Did),
    /// Several, which cannot be for long.
    Several,
    /// So many attest it that not all were looked at, and those that were do not carry its labels.
    TooMany,
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
    /// Any record of a repository: the same, and it is looked into for attestations that nobody has named.
    Repo(Did),
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
    /// Its record key: the domain. Empty for the whole repository, whose attestations nobody has named yet.
    pub rkey: String,
    /// [`Row::rev`].
    pub rev: Option<String>,
    /// In which lane it waited.
    pub lane: Lane,
    /// [`Row::host`].
    pub host: Option<String>,
}

/// What a look at an attestation gave.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Found {
    /// The repository proves that there is no such record.
    Absent,
    /// The repository holds attestations of these domains, says who keeps it.
    Records(Vec<String>),
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

/// Where an attestation waits for its turn.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Lane {
    /// It carries labels, which are confirmed or taken back.
    Standing,
    /// It was looked at and was not in order.
    Waiting,
    /// Nobody has looked at it yet.
    Fresh,
}

impl Lane {
    /// All lanes, in the order of their numbers.
    pub const ALL: [Self; 3] = [Self::Standing, Self::Waiting, Self::Fresh];
}

impl Task {
    /// Whether the repository is to be looked into, and not one record.
    pub fn is_repo(&self) -> bool {
        self.rkey == WHOLE_REPO
    }
}

impl Row {
    /// Since when it stands without a break, as far as it is known.
    pub fn stands_since(&self) -> Option<SystemTime> {
        (self.stands && self.stands_since_ms > 0).then(|| UNIX_EPOCH + Duration::from_millis(self.stands_since_ms))
    }

    /// See [`Lane`].
    pub fn lane(&self) -> Lane {
        match (self.stands, &self.host) {
            (true, _) => Lane::Standing,
            (false, Some(_)) => Lane::Waiting,
            (false, None) => Lane::Fresh,
        }
    }
}

impl Store {
    /// Notes what to look at, and how far the stream was read that said so, in one transaction. Answers what is not even worth a look, and why.
    pub fn touch(&self, touched: &[Touch], cursor: Option<(&str, i64)>, now: SystemTime) -> Result<Vec<String>, StoreError> {
        let mut refused = Vec::new();
        let mut txn = self.env.write_txn()?;
        for touch in touched {
            match touch {
                Touch::Record(did, rkey) => refused.extend(self.touch_record(&mut txn, did, rkey, now)?),
                Touch::Account(did) => self.ask_account(&mut txn, did, now)?,
                Touch::Repo(did) => {
                    self.touch_repo(&mut txn, did, now)?;
                    self.ask_account(&mut txn, did, now)?;
                }
            }
        }
        if let Some((stream, cursor)) = cursor {
            self.put_cursor(&mut txn, stream, Some(cursor))?;
        }
        txn.commit()?;
        Ok(refused)
    }

    fn ask_account(&self, txn: &mut RwTxn<'_>, did: &Did, now: SystemTime) -> Result<(), StoreError> {
        for (key, row) in self.rows_in(txn, did)? {
            self.ask(txn, &key, row, now)?;
        }
        Ok(())
    }

    /// Notes that somebody may have attestations that nobody has named yet.
    pub(super) fn touch_repo(&self, txn: &mut RwTxn<'_>, did: &Did, now: SystemTime) -> Result<(), StoreError> {
        if did.as_str().len() > DID_BYTES_MAX {
            return Ok(());
        }
        let key = row_key(did, WHOLE_REPO);
        let row = match self.row_in(txn, &key)? {
            Some(row) => row,
            None => self.new_row(txn, &key)?,
        };
        self.ask(txn, &key, row, now)
    }

    pub(super) fn touch_record(
        &self,
        txn: &mut RwTxn<'_>,
        did: &Did,
        rkey: &str,
        now: SystemTime,
    ) -> Result<Option<String>, StoreError> {
        if rkey == WHOLE_REPO {
            return Ok(Some(format!("{}: a record without a key", did.as_str())));
        }
        if did.as_str().len() > DID_BYTES_MAX || rkey.len() > DOMAIN_CHARS_MAX || rkey.contains('\0') {
            return Ok(Some(format!("{}: a DID or record key that is too long to be a domain's", did.as_str())));
        }
        let key = row_key(did, rkey);
        let row = match self.row_in(txn, &key)? {
            Some(row) => row,
            None if self.rows_in(txn, did)?.iter().filter(|(key, _)| !is_repo(key)).count() >= DOMAINS_MAX => {
                return Ok(Some(format!("{} attests more than {DOMAINS_MAX} domains; {rkey} is not looked at", did.as_str())));
            }
            None => self.new_row(txn, &key)?,
        };
        self.ask(txn, &key, row, now)?;
        Ok(None)
    }

    /// A row that is not written yet; its domain is.
    fn new_row(&self, txn: &mut RwTxn<'_>, key: &[u8]) -> Result<Row, StoreError> {
        self.domains.put(txn, &by_domain(key), &[])?;
        Ok(Row {
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
            refused: 0,
            refused_since_ms: 0,
            host: None,
            stands_since_ms: 0,
            selectors: Vec::new(),
            pds: None,
            unconfirmed_since_ms: 0,
        })
    }

    pub(super) fn ask(&self, txn: &mut RwTxn<'_>, key: &[u8], mut row: Row, now: SystemTime) -> Result<(), StoreError> {
        self.due.delete(txn, &queue::key(&row))?;
        (row.asked, row.due_ms) = (row.asked + 1, millis(now));
        self.put_row(txn, key, &row)
    }

    pub(super) fn put_row(&self, txn: &mut RwTxn<'_>, key: &[u8], row: &Row) -> Result<(), StoreError> {
        let Ok(json) = serde_json::to_vec(row) else { unreachable!("a row is numbers, flags and strings") };
        self.attested.put(txn, key, &json)?;
        Ok(self.due.put(txn, &queue::key(row), key)?)
    }

    /// Whether any attestation of `did` is known.
    pub fn knows(&self, did: &Did) -> Result<bool, StoreError> {
        if did.as_str().len() > DID_BYTES_MAX {
            return Ok(false);
        }
        let txn = self.env.read_txn()?;
        Ok(self.attested.prefix_iter(&txn, &row_key(did, ""))?.next().transpose()?.is_some())
    }

    /// Whether an attestation of `did` was named, and not only its repository.
    pub fn attests(&self, did: &Did) -> Result<bool, StoreError> {
        let txn = self.env.read_txn()?;
        self.attests_in(&txn, did)
    }

    pub(super) fn attests_in(&self, txn: &RoTxn<'_>, did: &Did) -> Result<bool, StoreError> {
        if did.as_str().len() > DID_BYTES_MAX {
            return Ok(false);
        }
        // The repository's own row comes first, having no domain.
        for entry in self.attested.prefix_iter(txn, &row_key(did, ""))?.take(2) {
            if !is_repo(entry?.0) {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// The attestations of `did` that are known, by domain.
    pub fn rows(&self, did: &Did) -> Result<Vec<(String, Row)>, StoreError> {
        let txn = self.env.read_txn()?;
        let rows = self.rows_in(&txn, did)?;
        rows.into_iter().filter(|(key, _)| !is_repo(key)).map(|(key, row)| Ok((names(&key)?.1, row))).collect()
    }

    /// Who attests a domain, the first few.
    pub fn attesters(&self, domain: &str, max: usize) -> Result<Vec<Did>, StoreError> {
        let prefix = format!("{domain}\0");
        if prefix.len() > KEY_BYTES_MAX {
            return Ok(Vec::new());
        }
        let txn = self.env.read_txn()?;
        let mut dids = Vec::new();
        for entry in self.domains.prefix_iter(&txn, prefix.as_bytes())?.take(max) {
            let (key, _) = entry?;
            let did = key.get(prefix.len()..).and_then(|did| std::str::from_utf8(did).ok()?.parse().ok());
            dids.push(did.ok_or_else(|| StoreError::Corrupt("the name of an attestation".into()))?);
        }
        Ok(dids)
    }

    /// Whose labels rest on a domain, among the first `max` that attest it.
    pub fn bearer(&self, domain: &str, max: usize) -> Result<Bearer, StoreError> {
        let prefix = format!("{domain}\0");
        if prefix.len() > KEY_BYTES_MAX {
            return Ok(Bearer::None);
        }
        let txn = self.env.read_txn()?;
        let mut found = Bearer::None;
        for (nth, entry) in self.domains.prefix_iter(&txn, prefix.as_bytes())?.enumerate() {
            let (key, _) = entry?;
            if nth == max {
                return Ok(if found == Bearer::None { Bearer::TooMany } else { found });
            }
            let did = key.get(prefix.len()..).unwrap_or_default();
            let Some(row) = self.row_in(&txn, &[did, b"\0", domain.as_bytes()].concat())? else { continue };
            if row.stands {
                let did = std::str::from_utf8(did).ok().and_then(|did| did.parse().ok());
                let did = did.ok_or_else(|| StoreError::Corrupt("the name of an attestation".into()))?;
                found = if found == Bearer::None { Bearer::One(did) } else { return Ok(Bearer::Several) };
            }
        }
        Ok(found)
    }

    /// Takes a row out of every table; its `due` row is gone already.
    pub(super) fn forget_row(&self, txn: &mut RwTxn<'_>, key: &[u8]) -> Result<(), StoreError> {
        self.attested.delete(txn, key)?;
        self.domains.delete(txn, &by_domain(key))?;
        self.checks.delete(txn, key)?;
        Ok(())
    }

    pub(super) fn rows_in(&self, txn: &RoTxn<'_>, did: &Did) -> Result<Vec<(Vec<u8>, Row)>, StoreError> {
        let prefix = row_key(did, "");
        let mut rows = Vec::new();
        for entry in self.attested.prefix_iter(txn, &prefix)? {
            let (key, octets) = entry?;
            rows.push((key.to_vec(), read(octets)?));
        }
        Ok(rows)
    }

    pub(super) fn row_in(&self, txn: &RoTxn<'_>, key: &[u8]) -> Result<Option<Row>, StoreError> {
        self.attested.get(txn, key)?.map(read).transpose()
    }
}

fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

fn read(octets: &[u8]) -> Result<Row, StoreError> {
    serde_json::from_slice(octets).map_err(|error| StoreError::Corrupt(format!("an attestation ({error})")))
}

fn is_repo(key: &[u8]) -> bool {
    key.ends_with(b"\0")
}

/// The key of `domains` for a key of `attested`.
pub(super) fn by_domain(key: &[u8]) -> Vec<u8> {
    let end = key.iter().position(|octet| *octet == 0).unwrap_or(key.len());
    let (did, domain) = (key.get(..end).unwrap_or_default(), key.get(end + 1..).unwrap_or_default());
    [domain, b"\0", did].concat()
}

pub(super) fn row_key(did: &Did, rkey: &str) -> Vec<u8> {
    [did.as_str().as_bytes(), b"\0", rkey.as_bytes()].concat()
}

pub(super) fn names(key: &[u8]) -> Result<(Did, String), StoreError> {
    let corrupt = || StoreError::Corrupt("the name of an attestation".into());
    let (did, rkey) = std::str::from_utf8(key).ok().and_then(|key| key.split_once('\0')).ok_or_else(corrupt)?;
    Ok((did.parse().map_err(|_| corrupt())?, rkey.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_is_read_as_earlier_versions_wrote_it_and_written_without_what_says_nothing() {
        let earlier = br#"{"id":7,"asked":1,"due_ms":9,"rev":null,"stands":false,"relay":false,"state":"new","reasons":[],
            "checked_ms":null,"failures":0}"#;
        let row = read(earlier).unwrap();
        let written = serde_json::to_string(&row).unwrap();
        assert_eq!(written, r#"{"id":7,"asked":1,"due_ms":9,"state":"new"}"#);
        assert_eq!(read(written.as_bytes()).unwrap(), row);
        let full = Row { stands: true, relay: true, refused: 2, selectors: vec!["s1".into()], host: Some(String::new()), ..row };
        assert_eq!(read(&serde_json::to_vec(&full).unwrap()).unwrap(), full);
    }
}
