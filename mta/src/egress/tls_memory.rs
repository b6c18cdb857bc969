//! What is remembered about TLS over restarts: the policies of domains and what a day's sessions came to, in an LMDB
//! environment of its own beside the queue.
//!
//! The queue's environment has one writer, whose commits mail waits for; none of this is worth making it wait. Here the
//! resolver and the reporter write now and then, each a few rows. Losing all of it costs the protection of policies whose
//! records cannot be found just then, and a day's counts. Rows are octets; whoever owns a table encodes them.
//!
//! Calls block for as long as the disk takes; they belong on threads that mail in motion does not wait for.

use std::path::Path;

use heed::types::Bytes;
use heed::{CommitOrAbort, Database, Env, WithoutTls};

/// Octets that all of it may take; past it nothing is added, which is told in the log by whoever wanted to.
const MAP_BYTES: usize = 1 << 30;
/// Tables that there is room for.
const TABLES_MAX: u32 = 8;

/// Why something could not be kept or read.
#[derive(Debug, thiserror::Error)]
pub enum MemoryError {
    /// The folder cannot be made.
    #[error(transparent)]
    Io(#[from] std::io::Error),
    /// The database failed.
    #[error(transparent)]
    Database(#[from] heed::Error),
}

/// One table. Cheap to clone.
#[derive(Clone)]
pub struct Table {
    env: Env<WithoutTls>,
    rows: Database<'static, Bytes, Bytes>,
}

/// Both tables.
#[derive(Clone)]
pub struct Memory {
    /// Recipient domain → its policy (`sts/store.rs`).
    pub policies: Table,
    /// (day, recipient domain) → what its sessions came to (`tls_reports/tally.rs`).
    pub outcomes: Table,
}

impl Memory {
    /// Opens the environment in the folder `path`, made if it is not there. One opener a process.
    pub fn open(path: &Path) -> Result<Self, MemoryError> {
        host::disk::make_dir(path)?;
        let env = host::disk::open_env(path, MAP_BYTES, TABLES_MAX)?;
        let opened = env.create_databases_and_commit(env.write_txn()?, |opener, txn| -> heed::Result<_> {
            let policies = opener.create_database::<Bytes, Bytes>(txn, Some("policies"))?;
            let outcomes = opener.create_database::<Bytes, Bytes>(txn, Some("outcomes"))?;
            Ok(CommitOrAbort::<_, ()>::Commit((policies, outcomes)))
        })?;
        // The closure above says commit.
        let (policies, outcomes) = opened.commit().ok_or_else(|| std::io::Error::other("the tables could not be opened"))?;
        let table = |rows| Table { env: env.clone(), rows };
        Ok(Memory { policies: table(policies), outcomes: table(outcomes) })
    }
}

impl Table {
    /// The row of `key`.
    pub fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, MemoryError> {
        let txn = self.env.read_txn()?;
        Ok(self.rows.get(&txn, key)?.map(<[u8]>::to_vec))
    }

    /// Writes rows, and removes those that are none, in one commit.
    pub fn put<'a>(&self, rows: impl IntoIterator<Item = (&'a [u8], Option<&'a [u8]>)>) -> Result<(), MemoryError> {
        let mut txn = self.env.write_txn()?;
        for (key, row) in rows {
            match row {
                Some(row) => self.rows.put(&mut txn, key, row)?,
                None => drop(self.rows.delete(&mut txn, key)?),
            }
        }
        Ok(txn.commit()?)
    }

    /// Shows rows in the order of their keys until `see` has had enough and says false.
    pub fn each(&self, mut see: impl FnMut(&[u8], &[u8]) -> bool) -> Result<(), MemoryError> {
        let txn = self.env.read_txn()?;
        for row in self.rows.iter(&txn)? {
            let (key, row) = row?;
            if !see(key, row) {
                break;
            }
        }
        Ok(())
    }

    /// How many rows there are.
    pub fn len(&self) -> Result<u64, MemoryError> {
        let txn = self.env.read_txn()?;
        Ok(self.rows.len(&txn)?)
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> Result<bool, MemoryError> {
        Ok(self.len()? == 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_kept_replaced_removed_and_there_after_a_restart() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("tls");
        let memory = Memory::open(&path).unwrap();
        memory.policies.put([(&b"b"[..], Some(&b"1"[..])), (b"a", Some(b"2")), (b"c", Some(b"3"))]).unwrap();
        memory.policies.put([(&b"b"[..], None), (b"a", Some(&b"4"[..]))]).unwrap();
        assert!(memory.outcomes.is_empty().unwrap(), "the tables are apart");
        drop(memory);
        let memory = Memory::open(&path).unwrap();
        let mut seen = Vec::new();
        memory
            .policies
            .each(|key, row| {
                seen.push((key.to_vec(), row.to_vec()));
                true
            })
            .unwrap();
        assert_eq!(seen, [(b"a".to_vec(), b"4".to_vec()), (b"c".to_vec(), b"3".to_vec())]);
        assert_eq!(memory.policies.get(b"b").unwrap(), None);
    }
}
