//! Tokens of service auth that were used and hold still (`replay`), so that neither a restart nor another reading of the settings lets one be
//! used again.
//!
//! Rows of `meta`, in the order in which they expire: a prefix, when (ms), the token's digest → its caller's digest. `replay` bounds how many
//! there are; each write takes away some that have expired. A copy of the store (`backup`) knows those that were used before it was made.

use std::ops::Bound;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::{Store, StoreError, millis};
use crate::replay::{Digest, Mark};

const PREFIX: &[u8] = b"used ";
/// Taken away by one write: more than it adds.
const FORGOTTEN_MAX: usize = 16;

impl Store {
    /// Keeps a token that is used at `now`. It is on disk when this returns.
    pub fn keep_used(&self, mark: &Mark, now: SystemTime) -> Result<(), StoreError> {
        let mut txn = self.env.write_txn()?;
        let (from, to) = (place(0, &[]), place(millis(now), &[u8::MAX; size_of::<Digest>()]));
        let range: (Bound<&[u8]>, Bound<&[u8]>) = (Bound::Included(&from), Bound::Included(&to));
        let expired = self.meta.range(&txn, &range)?.take(FORGOTTEN_MAX);
        let expired = expired.map(|entry| Ok(entry?.0.to_vec())).collect::<Result<Vec<_>, StoreError>>()?;
        for key in &expired {
            self.meta.delete(&mut txn, key)?;
        }
        self.meta.put(&mut txn, &place(millis(mark.until), &mark.token), &mark.of)?;
        Ok(txn.commit()?)
    }

    /// Those that were used and hold still.
    pub fn used(&self, now: SystemTime) -> Result<Vec<Mark>, StoreError> {
        let txn = self.env.read_txn()?;
        let mut marks = Vec::new();
        for entry in self.meta.prefix_iter(&txn, PREFIX)? {
            let (key, of) = entry?;
            let corrupt = || StoreError::Corrupt("a token that was used".into());
            let (until, token) = key.get(PREFIX.len()..).and_then(|rest| rest.split_first_chunk()).ok_or_else(corrupt)?;
            let until = UNIX_EPOCH + Duration::from_millis(u64::from_be_bytes(*until));
            if until > now {
                let (token, of) = (token.try_into().map_err(|_| corrupt())?, of.try_into().map_err(|_| corrupt())?);
                marks.push(Mark { until, token, of });
            }
        }
        Ok(marks)
    }
}

fn place(until_ms: u64, token: &[u8]) -> Vec<u8> {
    [PREFIX, &until_ms.to_be_bytes(), token].concat()
}

#[cfg(test)]
mod tests {
    use atproto::key::SigningKey;

    use super::*;
    use crate::replay::{ReplayError, Used};
    use crate::store::Terms;

    #[test]
    fn what_was_used_is_known_after_a_restart_for_as_long_as_it_holds() {
        let (folder, key) = (tempfile::tempdir().unwrap(), SigningKey::from_octets(&[0x11; 32]).unwrap());
        let start = UNIX_EPOCH + Duration::from_secs(1_800_000_000);
        let at = |secs: u64| start + Duration::from_secs(secs);
        let open = || Store::open(folder.path(), &"did:web:l.example".parse().unwrap(), &key, Terms::default(), start).unwrap();
        let caller = |jti: u64, until: u64| {
            let did = "did:plc:a".parse().unwrap();
            atproto::jwt::Caller { did, kid: "atproto".into(), jti: jti.to_string(), expires: at(until) }
        };
        let store = open();
        for nth in 0..100 {
            store.keep_used(&Mark::of(&caller(nth, 60 + nth)), at(0)).unwrap();
        }
        drop(store);
        let store = open();
        let mut used = Used::default();
        store.used(at(70)).unwrap().into_iter().for_each(|mark| used.remember(mark));
        for nth in 0..100 {
            let expected = if 60 + nth > 70 { Err(ReplayError::Replayed) } else { Ok(()) };
            assert_eq!(used.take(&caller(nth, 60 + nth), at(70)), expected, "{nth}");
        }
        // What has expired goes as others come.
        let rows = |store: &Store| store.meta.prefix_iter(&store.env.read_txn().unwrap(), PREFIX).unwrap().count();
        for nth in 0..20 {
            store.keep_used(&Mark::of(&caller(1000 + nth, 10_000)), at(200)).unwrap();
        }
        assert_eq!(rows(&store), 20);
        assert_eq!(store.used(at(10_000)).unwrap(), []);
        assert_eq!(store.cursor("x").unwrap(), None, "nothing else of the table is touched");
        assert_eq!(store.last_seq().unwrap(), 0);
    }
}
