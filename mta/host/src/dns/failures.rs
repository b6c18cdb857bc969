//! Who could not say, so that a zone which does not answer is not asked again by every message.
//!
//! RFC 9520 §3.2 wants a failure kept for a second at least and five minutes at most. Here it is five seconds, and twice as long with
//! each further failure in a row, up to a minute: a route that failed is looked up again sooner than mail comes back.
//!
//! Not here: what is known not to be there (`cache.rs`).

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use hickory_resolver::proto::rr::RecordType;
use tokio::time::Instant;

use super::DnsError;

/// Failures that are kept; past it what is long over is dropped, and when nothing is, a new one is not kept.
const KEPT_MAX: usize = 4096;
/// What is long over is looked for no more often than this.
const SWEEP: Duration = Duration::from_secs(1);
/// The first failure, and the most that further ones make of it.
const FIRST: Duration = Duration::from_secs(5);
const LONGEST: Duration = Duration::from_secs(60);
/// A failure so long after the last one is a first one again.
const FORGOTTEN: Duration = Duration::from_secs(300);

/// What is kept.
#[derive(Default)]
pub(super) struct Failures(Mutex<Table>);

#[derive(Default)]
struct Table {
    kept: HashMap<(Box<str>, RecordType), Kept>,
    swept: Option<Instant>,
}

struct Kept {
    error: DnsError,
    until: Instant,
    /// How long it is kept, for the next one.
    wait: Duration,
}

impl Failures {
    /// Why there is no use in asking.
    pub(super) fn get(&self, name: &str, kind: RecordType) -> Option<DnsError> {
        let table = self.table();
        if table.kept.is_empty() {
            return None;
        }
        let now = Instant::now();
        table.kept.get(&(name.into(), kind)).filter(|kept| now < kept.until).map(|kept| kept.error.clone())
    }

    /// What became of a question.
    pub(super) fn put<T>(&self, name: &str, kind: RecordType, said: &Result<T, DnsError>) {
        let (now, mut table) = (Instant::now(), self.table());
        let Table { kept, swept } = &mut *table;
        let Err(error @ (DnsError::Temporary(_) | DnsError::Bogus(_))) = said else {
            if !kept.is_empty() {
                kept.remove(&(name.into(), kind));
            }
            return;
        };
        if kept.len() >= KEPT_MAX && swept.is_none_or(|swept| now >= swept + SWEEP) {
            kept.retain(|_, kept| now < kept.until + FORGOTTEN);
            *swept = Some(now);
        }
        let key = (name.into(), kind);
        let before = kept.get(&key).filter(|kept| now < kept.until + FORGOTTEN).map_or(Duration::ZERO, |kept| kept.wait);
        if kept.len() < KEPT_MAX || kept.contains_key(&key) {
            let wait = (before * 2).clamp(FIRST, LONGEST);
            kept.insert(key, Kept { error: error.clone(), until: now + wait, wait });
        }
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);
    const MX: RecordType = RecordType::MX;

    fn silent() -> Result<(), DnsError> {
        Err(DnsError::Temporary("SERVFAIL".to_owned()))
    }

    #[tokio::test(start_paused = true)]
    async fn failures_in_a_row_are_kept_longer_and_no_longer_than_a_minute() {
        let failures = Failures::default();
        let lasts = async || {
            failures.put("a.test", MX, &silent());
            let mut secs = 0;
            while failures.get("a.test", MX).is_some() {
                tokio::time::advance(SECOND).await;
                secs += 1;
            }
            secs
        };
        for expected in [5, 10, 20, 40, 60, 60] {
            assert_eq!(lasts().await, expected);
        }
        tokio::time::advance(FORGOTTEN).await;
        assert_eq!(lasts().await, 5, "long ago is another trouble");
    }

    #[tokio::test(start_paused = true)]
    async fn an_answer_ends_it_and_other_names_and_kinds_are_asked() {
        let failures = Failures::default();
        failures.put("a.test", MX, &silent());
        assert_eq!((failures.get("b.test", MX), failures.get("a.test", RecordType::TXT)), (None, None));
        assert_eq!(failures.get("a.test", MX), silent().err());
        failures.put("a.test", MX, &Err::<(), _>(DnsError::NoRecords));
        assert_eq!(failures.get("a.test", MX), None);
        failures.put("a.test", MX, &Err::<(), _>(DnsError::Bogus("forged".to_owned())));
        assert_eq!(failures.get("a.test", MX), Some(DnsError::Bogus("forged".to_owned())));
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_kept_is_bounded_and_makes_room_when_it_is_over() {
        let failures = Failures::default();
        for nth in 0..KEPT_MAX + 10 {
            failures.put(&format!("{nth}.test"), MX, &silent());
        }
        assert_eq!(failures.get(&format!("{}.test", KEPT_MAX + 1), MX), None);
        tokio::time::advance(FIRST + FORGOTTEN).await;
        failures.put("new.test", MX, &silent());
        assert!(failures.get("new.test", MX).is_some());
        assert_eq!(failures.table().kept.len(), 1);
    }
}
