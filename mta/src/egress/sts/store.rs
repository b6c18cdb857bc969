//! The cache of policies (RFC 8461 §5.1), kept over restarts: what was fetched stays in force until its `max_age` has passed,
//! whatever the DNS or the web say meanwhile.
//!
//! A row is the policy as text, under a line that says which one it is and since when. One that cannot be read is as good as
//! none, and is told in the log.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::policy::Policy;
use crate::egress::tls_memory::{MemoryError, Table};

/// Domains whose policies are kept. At the bound those that have run out go; if that makes no room, new ones are not kept,
/// and are fetched again when they are needed.
const KEPT_MAX: u64 = 100_000;
/// A policy is looked at again, by HTTPS, after half of its age, but no later than this (RFC 8461 §3.3 and §10.2 ask for
/// a look well before it runs out; the record's id cannot be trusted to change).
const FRESH_MAX: Duration = Duration::from_secs(24 * 3600);
/// A domain that no mail was for in this time is left to run out.
const WANTED_MAX: Duration = Duration::from_secs(30 * 24 * 3600);
/// "Wanted" is written down again after this, not with every message.
const WANTED_AGAIN: Duration = Duration::from_secs(24 * 3600);

/// A policy, and since when we have it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Kept {
    /// The id of the record that announced it.
    pub id: String,
    /// When it was fetched last.
    pub fetched: SystemTime,
    /// When mail last asked for it, to a day.
    pub wanted: SystemTime,
    /// What it says.
    pub policy: Policy,
}

impl Kept {
    /// When it runs out.
    pub fn expires(&self) -> SystemTime {
        self.fetched + self.policy.max_age
    }

    /// Whether it is time to look for a newer one.
    pub fn is_stale(&self, now: SystemTime) -> bool {
        now >= self.fetched + (self.policy.max_age / 2).min(FRESH_MAX)
    }

    fn encode(&self) -> Vec<u8> {
        let secs = |time: SystemTime| time.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        let mut row = format!("1 {} {} {}\n", self.id, secs(self.fetched), secs(self.wanted));
        row.push_str(&self.policy.lines().join("\n"));
        row.into_bytes()
    }

    fn decode(row: &[u8]) -> Option<Self> {
        let at = memchr::memchr(b'\n', row)?;
        let mut words = std::str::from_utf8(&row[..at]).ok()?.split(' ');
        let (version, id) = (words.next()?, words.next()?.to_owned());
        let mut time = || UNIX_EPOCH.checked_add(Duration::from_secs(words.next()?.parse().ok()?));
        let (fetched, wanted) = (time()?, time()?);
        let policy = Policy::parse(&row[at + 1..]).ok()?;
        (version == "1" && words.next().is_none()).then_some(Kept { id, fetched, wanted, policy })
    }
}

/// The table.
#[derive(Clone)]
pub struct Store(Table);

impl Store {
    /// Over a table of the memory.
    pub fn new(table: Table) -> Self {
        Store(table)
    }

    /// The policy of a domain that holds at `now`. That it was wanted is noted.
    pub fn get(&self, domain: &str, now: SystemTime) -> Option<Kept> {
        let row = self.0.get(domain.as_bytes()).unwrap_or_else(|error| {
            tracing::error!(%error, "policies of MTA-STS cannot be read");
            None
        })?;
        let Some(kept) = Kept::decode(&row) else {
            tracing::warn!(domain, "a kept policy of MTA-STS is damaged; it is fetched again");
            return None;
        };
        if kept.expires() <= now {
            return None;
        }
        if kept.wanted + WANTED_AGAIN <= now {
            self.put(domain, &Kept { wanted: now, ..kept.clone() }, now);
        }
        Some(kept)
    }

    /// Keeps a policy in the place of an older one. One that cannot be kept serves for now.
    pub fn put(&self, domain: &str, kept: &Kept, now: SystemTime) {
        let write = || -> Result<(), MemoryError> {
            if self.0.len()? >= KEPT_MAX && self.0.get(domain.as_bytes())?.is_none() {
                self.sweep(now)?;
                if self.0.len()? >= KEPT_MAX {
                    tracing::warn!(domain, "too many policies of MTA-STS to keep another one");
                    return Ok(());
                }
            }
            self.0.put([(domain.as_bytes(), Some(&kept.encode()[..]))])
        };
        if let Err(error) = write() {
            tracing::error!(domain, %error, "a policy of MTA-STS cannot be kept");
        }
    }

    /// Removes what has run out.
    pub fn sweep(&self, now: SystemTime) -> Result<(), MemoryError> {
        let mut over = Vec::new();
        self.0.each(|domain, row| {
            if Kept::decode(row).is_none_or(|kept| kept.expires() <= now) {
                over.push(domain.to_vec());
            }
            true
        })?;
        if over.is_empty() { Ok(()) } else { self.0.put(over.iter().map(|domain| (&domain[..], None))) }
    }

    /// Up to `max` domains whose policies should be looked at again, each with the id that it has.
    pub fn stale(&self, now: SystemTime, max: usize) -> Result<Vec<(String, String)>, MemoryError> {
        let mut found = Vec::new();
        self.0.each(|domain, row| {
            if let (Ok(domain), Some(kept)) = (std::str::from_utf8(domain), Kept::decode(row))
                && kept.is_stale(now)
                && kept.expires() > now
                && kept.wanted + WANTED_MAX > now
            {
                found.push((domain.to_owned(), kept.id));
            }
            found.len() < max
        })?;
        Ok(found)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::egress::tls_memory::Memory;

    fn at(secs: u64) -> SystemTime {
        UNIX_EPOCH + Duration::from_secs(1_795_000_000 + secs)
    }

    fn kept(max_age: u64) -> Kept {
        let text = format!("version: STSv1\nmode: enforce\nmx: *.example.org\nmax_age: {max_age}");
        Kept { id: "abc".into(), fetched: at(0), wanted: at(0), policy: Policy::parse(text.as_bytes()).unwrap() }
    }

    #[test]
    fn a_policy_is_kept_over_a_restart_until_its_age_is_over() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::new(Memory::open(dir.path()).unwrap().policies);
        store.put("example.org", &kept(1000), at(0));
        drop(store);
        let store = Store::new(Memory::open(dir.path()).unwrap().policies);
        assert_eq!(store.get("example.org", at(999)), Some(kept(1000)));
        assert_eq!(store.get("example.org", at(1000)), None);
        assert_eq!(store.get("other.example", at(0)), None);
        store.sweep(at(1000)).unwrap();
        assert!(store.0.is_empty().unwrap());
    }

    #[test]
    fn what_is_kept_for_long_is_looked_at_again_daily_while_it_is_wanted() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::new(Memory::open(dir.path()).unwrap().policies);
        const DAY: u64 = 24 * 3600;
        store.put("long.example", &kept(365 * DAY), at(0));
        store.put("short.example", &kept(1000), at(0));
        let stale = |now| store.stale(at(now), 10).unwrap().into_iter().map(|(domain, _)| domain).collect::<Vec<_>>();
        assert_eq!(stale(499), [""; 0]);
        assert_eq!(stale(500), ["short.example"]);
        assert_eq!(stale(1000), [""; 0], "it has run out");
        assert_eq!(stale(DAY), ["long.example"]);
        assert_eq!(stale(31 * DAY), [""; 0], "nobody has wanted it");
        store.get("long.example", at(31 * DAY)).unwrap();
        assert_eq!(stale(32 * DAY), ["long.example"]);
    }

    #[test]
    fn a_damaged_row_is_no_policy() {
        for row in [&b""[..], b"1 abc 1 1", b"2 abc 1795000000 1795000000\nversion: STSv1", b"1 abc x 1\nx", b"\xff\n"] {
            assert_eq!(Kept::decode(row), None, "{row:?}");
        }
        assert_eq!(Kept::decode(&kept(5).encode()), Some(kept(5)));
    }
}
