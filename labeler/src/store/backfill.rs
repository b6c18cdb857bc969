//! How far the list of those who attest was read, and whom it named.

use std::time::SystemTime;

use atproto::Did;
use heed::RwTxn;

use super::{Store, StoreError};

/// How far a relay's list was read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Backfill {
    /// Not begun.
    Never,
    /// To the place that the relay calls so.
    At(String),
    /// To its end.
    Done,
}

/// What cannot be a cursor.
const DONE: &[u8] = b"";

impl Store {
    /// How far the list of `relay` was read.
    pub fn backfill(&self, relay: &str) -> Result<Backfill, StoreError> {
        let txn = self.env.read_txn()?;
        match self.meta.get(&txn, &key(relay))? {
            None => Ok(Backfill::Never),
            Some(DONE) => Ok(Backfill::Done),
            Some(cursor) => Ok(Backfill::At(String::from_utf8_lossy(cursor).into_owned())),
        }
    }

    /// Sets it.
    pub fn set_backfill(&self, relay: &str, place: &Backfill) -> Result<(), StoreError> {
        let mut txn = self.env.write_txn()?;
        self.put_backfill(&mut txn, relay, place)?;
        Ok(txn.commit()?)
    }

    /// Notes the repositories of these accounts to be looked into, and how far the list was read that named them, in one transaction.
    pub fn touch_listed(&self, dids: Vec<Did>, relay: &str, place: &Backfill, now: SystemTime) -> Result<(), StoreError> {
        let mut txn = self.env.write_txn()?;
        for did in dids {
            self.touch_repo(&mut txn, &did, now)?;
        }
        self.put_backfill(&mut txn, relay, place)?;
        Ok(txn.commit()?)
    }

    fn put_backfill(&self, txn: &mut RwTxn<'_>, relay: &str, place: &Backfill) -> Result<(), StoreError> {
        match place {
            Backfill::Never => drop(self.meta.delete(txn, &key(relay))?),
            Backfill::At(cursor) => self.meta.put(txn, &key(relay), cursor.as_bytes())?,
            Backfill::Done => self.meta.put(txn, &key(relay), DONE)?,
        }
        Ok(())
    }
}

/// LMDB's keys are bounded, URLs are not.
fn key(relay: &str) -> Vec<u8> {
    let name = format!("backfill {relay}").into_bytes();
    name.into_iter().take(super::KEY_BYTES_MAX).collect()
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;
    use std::time::Duration;

    use atproto::key::SigningKey;

    use super::*;
    use crate::store::{Found, Lane, Patience, Terms, Touch};

    #[test]
    fn a_listed_account_is_looked_into_once_and_is_no_domain() {
        let (folder, key) = (tempfile::tempdir().unwrap(), SigningKey::from_octets(&[0x11; 32]).unwrap());
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000);
        let open = || Store::open(folder.path(), &"did:web:l.example".parse().unwrap(), &key, Terms::default(), now).unwrap();
        let (store, alice, relay): (_, Did, _) = (open(), "did:plc:alice".parse().unwrap(), "https://relay.example/");
        assert_eq!(store.backfill(relay).unwrap(), Backfill::Never);
        store.touch_listed(vec![alice.clone()], relay, &Backfill::At("7".into()), now).unwrap();
        drop(store);

        let store = open();
        assert_eq!(store.backfill(relay).unwrap(), Backfill::At("7".into()), "a restart goes on from there");
        assert_eq!(store.rows(&alice).unwrap(), []);
        assert!(store.knows(&alice).unwrap(), "events of the account concern us");
        let due = || store.due(Lane::Fresh, now, &HashSet::new(), 100, false).unwrap();
        let task = due().remove(0);
        assert!(task.is_repo());
        let found = Found::Records(vec!["a.example".into(), "b.example".into(), String::new(), "x".repeat(300)]);
        let patience = Patience {
            interval: Duration::from_secs(86_400),
            failures: 1,
            failing_for: Duration::ZERO,
            silent_for: Duration::from_secs(7 * 86_400),
        };
        assert!(store.settle(&task, &found, patience, now, &key).unwrap().is_empty());
        let domains: Vec<String> = due().into_iter().map(|task| task.rkey).collect();
        assert_eq!(domains, ["a.example", "b.example"]);
        assert_eq!(store.rows(&alice).unwrap().len(), 2);

        // A stream that names a record without a key does not make us look into repositories.
        assert_eq!(store.touch(&[Touch::Record(alice.clone(), String::new())], None, now).unwrap().len(), 1);
        for place in [Backfill::Done, Backfill::Never] {
            store.touch_listed(Vec::new(), relay, &place, now).unwrap();
            assert_eq!(store.backfill(relay).unwrap(), place);
        }
    }
}
