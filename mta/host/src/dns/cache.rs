//! What the DNS said, for as long as it may be kept.
//!
//! Answers are kept as mail needs them, not as messages: a domain has four of them, and while hickory kept them they were three
//! quarters of what a site cost that had nothing to do (1,100 octets each; here it is some 170).
//!
//! Answers of one kind stand in a table of two halves. New ones, and old ones that are asked for again, go to the young half;
//! when that is full or an hour old it becomes the old half, and what was left in the old one is forgotten. So what goes first
//! is what nobody has asked for longest, and no list need be kept for it.
//!
//! Not here: failures (`failures.rs`).

use std::collections::HashMap;
use std::mem::size_of;
use std::net::IpAddr;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use super::{Answer, DnsError, Mx, Tlsa};

/// Octets that the answers of one kind may take, about. At 170 an answer these are 24,000.
const BYTES_MAX: usize = 4 << 20;
/// What nobody has asked for in this time may go, and has gone after twice of it.
const HALF_FOR: Duration = Duration::from_secs(3600);

/// Answers of one kind, by name.
pub(super) struct Cache<T>(Mutex<Halves<T>>);

struct Halves<T> {
    young: HashMap<Box<str>, Kept<T>>,
    old: HashMap<Box<str>, Kept<T>>,
    young_bytes: usize,
    young_since: Instant,
}

struct Kept<T> {
    until: Instant,
    found: Found<T>,
}

enum Found<T> {
    Records {
        records: Box<[T]>,
        secure: bool,
        /// Whose records they are, if aliases led there.
        name: Option<Box<str>>,
    },
    NoSuchName,
    NoRecords,
}

/// What can be kept.
pub(super) trait Record: Clone {
    /// Octets that it takes beside itself.
    fn more_bytes(&self) -> usize;
}

impl Record for Mx {
    fn more_bytes(&self) -> usize {
        self.exchange.capacity()
    }
}

impl Record for IpAddr {
    fn more_bytes(&self) -> usize {
        0
    }
}

impl Record for Tlsa {
    fn more_bytes(&self) -> usize {
        self.data.capacity()
    }
}

impl Record for String {
    fn more_bytes(&self) -> usize {
        self.capacity()
    }
}

impl<T> Default for Cache<T> {
    fn default() -> Self {
        let (young, old) = Default::default();
        Cache(Mutex::new(Halves { young, old, young_bytes: 0, young_since: Instant::now() }))
    }
}

impl<T: Record> Cache<T> {
    /// What is known of `name`, with the time that it may still be kept.
    pub(super) fn get(&self, name: &str) -> Option<Result<Answer<T>, DnsError>> {
        let now = Instant::now();
        let mut halves = self.halves();
        if !halves.young.contains_key(name) {
            let (name, kept) = halves.old.remove_entry(name)?;
            if kept.until > now {
                halves.insert(name, kept, now);
            }
        }
        let kept = halves.young.get(name).filter(|kept| kept.until > now)?;
        Some(match &kept.found {
            Found::Records { records, secure, name: alias } => Ok(Answer {
                records: records.to_vec(),
                ttl: kept.until - now,
                secure: *secure,
                name: alias.as_deref().unwrap_or(name).to_owned(),
            }),
            Found::NoSuchName => Err(DnsError::NoSuchName),
            Found::NoRecords => Err(DnsError::NoRecords),
        })
    }

    /// Keeps what was said of `name`. Failures are not kept.
    pub(super) fn put(&self, name: &str, said: &Result<Answer<T>, DnsError>, ttl: Duration) {
        let now = Instant::now();
        let found = match said {
            _ if ttl.is_zero() => return,
            Ok(answer) => Found::Records {
                records: answer.records.as_slice().into(),
                secure: answer.secure,
                name: Some(answer.name.as_str()).filter(|of| *of != name).map(Into::into),
            },
            Err(DnsError::NoSuchName) => Found::NoSuchName,
            Err(DnsError::NoRecords) => Found::NoRecords,
            Err(DnsError::Temporary(_) | DnsError::Bogus(_)) => return,
        };
        let mut halves = self.halves();
        halves.old.remove(name);
        halves.insert(name.into(), Kept { until: now + ttl, found }, now);
    }

    fn halves(&self) -> MutexGuard<'_, Halves<T>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<T: Record> Halves<T> {
    fn insert(&mut self, name: Box<str>, kept: Kept<T>, now: Instant) {
        let bytes = bytes(&name, &kept);
        if self.young_bytes + bytes > BYTES_MAX / 2 || now.duration_since(self.young_since) > HALF_FOR {
            self.old = std::mem::take(&mut self.young);
            (self.young_bytes, self.young_since) = (0, now);
        }
        // What is written over stays counted until the halves change: the bound is kept a little early.
        self.young_bytes += bytes;
        self.young.insert(name, kept);
    }
}

/// With its place in a table that is half empty.
fn bytes<T: Record>(name: &str, kept: &Kept<T>) -> usize {
    let more = match &kept.found {
        Found::Records { records, name, .. } => {
            let alias = name.as_ref().map_or(0, |name| name.len());
            alias + records.iter().map(|record| size_of::<T>() + record.more_bytes()).sum::<usize>()
        }
        Found::NoSuchName | Found::NoRecords => 0,
    };
    2 * size_of::<(Box<str>, Kept<T>)>() + name.len() + more
}

#[cfg(test)]
mod tests {
    use super::*;

    const TTL: Duration = Duration::from_secs(300);

    fn answer(octet: u8, name: &str) -> Result<Answer<IpAddr>, DnsError> {
        Ok(Answer { records: vec![IpAddr::from([192, 0, 2, octet])], ttl: TTL, secure: true, name: name.to_owned() })
    }

    fn virtually(test: impl Future<Output = ()>) {
        tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap().block_on(test);
    }

    #[test]
    fn an_answer_is_kept_as_long_as_it_may_be_and_says_how_long() {
        virtually(async {
            let cache = Cache::default();
            cache.put("a.test", &answer(1, "b.test"), TTL);
            cache.put("none.test", &Err(DnsError::NoSuchName), TTL);
            cache.put("empty.test", &Err(DnsError::NoRecords), TTL);
            cache.put("failing.test", &Err(DnsError::Temporary("timeout".to_owned())), TTL);
            cache.put("forged.test", &Err(DnsError::Bogus("signature".to_owned())), TTL);
            cache.put("now.test", &answer(2, "now.test"), Duration::ZERO);
            tokio::time::advance(Duration::from_secs(299)).await;
            let ttl = Duration::from_secs(1);
            assert_eq!(cache.get("a.test"), Some(answer(1, "b.test").map(|answer| Answer { ttl, ..answer })));
            assert_eq!(cache.get("none.test"), Some(Err(DnsError::NoSuchName)));
            assert_eq!(cache.get("empty.test"), Some(Err(DnsError::NoRecords)));
            assert_eq!(
                ["failing.test", "forged.test", "now.test", "b.test"].map(|name| cache.get(name)),
                [None, None, None, None]
            );
            tokio::time::advance(ttl).await;
            assert_eq!(["a.test", "none.test", "empty.test"].map(|name| cache.get(name)), [None, None, None]);
        });
    }

    #[test]
    fn what_is_asked_for_stays_and_what_nobody_asks_for_goes() {
        virtually(async {
            let cache = Cache::default();
            let day = 24 * HALF_FOR;
            cache.put("wanted.test", &answer(1, "wanted.test"), day);
            cache.put("unwanted.test", &answer(2, "unwanted.test"), day);
            for _ in 0..5 {
                tokio::time::advance(HALF_FOR / 2 + Duration::from_secs(1)).await;
                assert!(cache.get("wanted.test").is_some());
                cache.put("other.test", &answer(3, "other.test"), TTL);
            }
            assert_eq!(cache.get("unwanted.test"), None);
        });
    }

    #[test]
    fn a_full_table_forgets_what_was_not_asked_for() {
        virtually(async {
            let cache = Cache::default();
            cache.put("first.test", &answer(1, "first.test"), TTL);
            cache.put("wanted.test", &answer(1, "wanted.test"), TTL);
            let many = 3 * BYTES_MAX / size_of::<Kept<IpAddr>>();
            for nth in 0..many {
                let name = format!("domain-{nth}.test");
                cache.put(&name, &answer(2, &name), TTL);
                let halves = cache.halves();
                let tables = halves.young.len() + halves.old.len();
                assert!(tables * 2 * size_of::<(Box<str>, Kept<IpAddr>)>() <= BYTES_MAX, "{tables} answers");
                drop(halves);
                assert!(cache.get("wanted.test").is_some());
            }
            assert_eq!(cache.get("first.test"), None);
            assert!(cache.get(&format!("domain-{}.test", many - 1)).is_some());
        });
    }
}
