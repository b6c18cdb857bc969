//! What is done to a whole store when it is opened: an older version's tables are made anew, a copy is asked about again from the beginning,
//! a new key signs everything.
//!
//! Each goes through a table in parts, a transaction each, because LMDB holds every page that a transaction writes in memory of its own, and
//! keeps that memory: a hundred thousand members in one transaction would cost some 200 MiB for as long as the labeler runs. What says that the work
//! is done is written last, and all of it may be done twice: after a crash it begins again.

use std::ops::Bound;
use std::time::SystemTime;

use atproto::key::SigningKey;
use heed::RwTxn;

use super::current::seq_of;
use super::env::Table;
use super::rows::by_domain;
use super::{COPY, COPY_GAP, FILE, FORMAT, FORMAT_NOW, ISSUER, KEY, RESTORED, SEQ, Store, StoreError, env, millis, queue};

/// Rows of a part. In tests there are fewer rows, and still several parts.
const PART: usize = if cfg!(test) { 7 } else { 2000 };
/// Octets of the map that stay in memory between two parts.
const MAPPED_BYTES_MAX: u64 = 64 << 20;

impl Store {
    /// Makes the store one of this issuer, version, file and key.
    pub(super) fn begin(&mut self, file: [u8; env::IDENTITY_BYTES], key: &SigningKey, now: SystemTime) -> Result<(), StoreError> {
        let mut txn = self.env.write_txn()?;
        match self.meta.get(&txn, ISSUER)? {
            Some(found) if found != self.issuer.as_str().as_bytes() => {
                return Err(StoreError::OtherIssuer(String::from_utf8_lossy(found).into_owned()));
            }
            _ => self.meta.put(&mut txn, ISSUER, self.issuer.as_str().as_bytes())?,
        }
        let other_format = self.counter(&txn, FORMAT)? != FORMAT_NOW;
        let other_file = self.meta.get(&txn, FILE)?.is_some_and(|known| known != file);
        let copy = other_file || self.meta.get(&txn, COPY)?.is_some();
        let did_key = key.verifying_key().did_key();
        let other_key = self.meta.get(&txn, KEY)?.is_some_and(|known| known != did_key.as_bytes());
        if copy {
            // Numbers go on far beyond before any is used.
            let seq = self.counter(&txn, SEQ)? + COPY_GAP;
            self.meta.put(&mut txn, SEQ, &seq.to_be_bytes())?;
            self.meta.put(&mut txn, RESTORED, &millis(now).to_be_bytes())?;
        }
        self.restored_ms = self.counter(&txn, RESTORED)?;
        txn.commit()?;
        if other_format {
            self.rebuild()?;
        }
        if copy {
            let due = self.ask_all(now)?;
            tracing::warn!(
                attestations = due,
                "the store is a copy: all is looked at and said again, and numbers go on far beyond"
            );
        }
        if other_key {
            let again = self.sign_again(key, now)?;
            tracing::warn!(labels = again, key = did_key, "the signing key has changed: labels were signed again");
        }
        let mut txn = self.env.write_txn()?;
        self.meta.put(&mut txn, FORMAT, &FORMAT_NOW.to_be_bytes())?;
        self.meta.put(&mut txn, FILE, &file)?;
        self.meta.delete(&mut txn, COPY)?;
        self.meta.put(&mut txn, KEY, did_key.as_bytes())?;
        Ok(txn.commit()?)
    }

    /// An older version kept less in `current` and `renew`, and ordered `due` otherwise.
    fn rebuild(&self) -> Result<(), StoreError> {
        self.in_parts(self.current, |txn, _, row| {
            let seq = seq_of(row)?;
            let label = self.label(txn, seq)?;
            self.put_current(txn, seq, &label)
        })?;
        let mut txn = self.env.write_txn()?;
        self.due.clear(&mut txn)?;
        txn.commit()?;
        self.in_parts(self.attested, |txn, name, _| {
            if let Some(row) = self.row_in(txn, name)? {
                self.due.put(txn, &queue::key(&row), name)?;
                self.domains.put(txn, &by_domain(name), &[])?;
            }
            Ok(())
        })?;
        Ok(())
    }

    /// Makes every attestation due now; says how many there are.
    fn ask_all(&self, now: SystemTime) -> Result<usize, StoreError> {
        self.in_parts(self.attested, |txn, name, _| match self.row_in(txn, name)? {
            Some(row) => self.ask(txn, name, row, now),
            None => Ok(()),
        })
    }

    /// The same statements with the same times under the new key (label spec, "Key rotation").
    fn sign_again(&self, key: &SigningKey, now: SystemTime) -> Result<usize, StoreError> {
        self.in_parts(self.current, |txn, _, row| {
            let mut label = self.label(txn, seq_of(row)?)?;
            label.sign(key);
            self.append(txn, &label, now)
        })
    }

    /// Does something for each row of a table; says how many there were. It may write the row, and none before it.
    fn in_parts(
        &self,
        table: Table,
        mut each: impl FnMut(&mut RwTxn<'_>, &[u8], &[u8]) -> Result<(), StoreError>,
    ) -> Result<usize, StoreError> {
        let (mut done, mut after) = (0, Vec::new());
        loop {
            let mut txn = self.env.write_txn()?;
            let from = if after.is_empty() { Bound::Unbounded } else { Bound::Excluded(&after[..]) };
            let range: (Bound<&[u8]>, Bound<&[u8]>) = (from, Bound::Unbounded);
            let rows = table.range(&txn, &range)?.take(PART);
            let rows = rows.map(|entry| entry.map(|(key, value)| (key.to_vec(), value.to_vec())));
            let rows = rows.collect::<Result<Vec<_>, _>>()?;
            for (key, value) in &rows {
                each(&mut txn, key, value)?;
            }
            txn.commit()?;
            done += rows.len();
            let Some((last, _)) = rows.into_iter().next_back() else { return Ok(done) };
            after = last;
            self.let_go(MAPPED_BYTES_MAX)?;
        }
    }
}
