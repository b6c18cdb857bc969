//! How much there is in the store, for who scrapes metrics.

use std::collections::HashSet;
use std::ops::Bound;
use std::time::{Duration, SystemTime};

use super::{Lane, Store, StoreError, queue};

/// Attestations that are due are counted up to here: it is a scan, and past it nobody needs the figure to know that they are many.
pub const DUE_COUNTED_MAX: u64 = 100_000;

/// What [`Store::measure`] finds.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Measures {
    /// Attestations, and repositories that are to be looked into.
    pub attestations: u64,
    /// Pairs of an account and a value that a label was ever issued for.
    pub statements: u64,
    /// Labels that are kept.
    pub kept: u64,
    /// The last number of the stream.
    pub last_seq: u64,
    /// By lane: attestations that are due, up to [`DUE_COUNTED_MAX`].
    pub due: [u64; Lane::ALL.len()],
    /// By lane: for how long the one that has waited longest is due.
    pub late: [Duration; Lane::ALL.len()],
    /// Octets of the map that are in use.
    pub used_bytes: u64,
    /// Octets of the map; when they are full nothing is taken in.
    pub size_bytes: u64,
}

impl Store {
    /// Looks. Takes no lock that anybody waits for.
    pub fn measure(&self, now: SystemTime) -> Result<Measures, StoreError> {
        let txn = self.env.read_txn()?;
        let mut measures = Measures {
            attestations: self.attested.len(&txn)?,
            statements: self.current.len(&txn)?,
            kept: self.log.len(&txn)?,
            last_seq: self.counter(&txn, super::SEQ)?,
            size_bytes: self.env.info().map_size as u64,
            ..Measures::default()
        };
        let tables = [
            &self.meta,
            &self.attested,
            &self.due,
            &self.log,
            &self.current,
            &self.renew,
            &self.superseded,
            &self.checks,
            &self.domains,
            &self.sending,
            &self.standing,
        ];
        for table in tables {
            measures.used_bytes += table.stat(&txn)?.non_free_page_size() as u64;
        }
        for (nth, lane) in Lane::ALL.into_iter().enumerate() {
            let (from, to) = queue::until(lane, now);
            let range: (Bound<&[u8]>, Bound<&[u8]>) = (Bound::Included(&from), Bound::Included(&to));
            for entry in self.due.range(&txn, &range)? {
                entry?;
                measures.due[nth] += 1;
                if measures.due[nth] == DUE_COUNTED_MAX {
                    break;
                }
            }
        }
        drop(txn);
        for (nth, lane) in Lane::ALL.into_iter().enumerate() {
            let first = self.next_due(lane, &HashSet::new())?;
            measures.late[nth] = first.and_then(|first| now.duration_since(first).ok()).unwrap_or_default();
        }
        Ok(measures)
    }
}
