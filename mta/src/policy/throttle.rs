//! Slowing down those who guess: failed AUTH, counted per client address and per user name.
//!
//! A failure is answered later and later, then with 421. An address past its limit is not listened to for a
//! while. A user name past its limit is only slowed: whoever fails on purpose with a member's name must not be
//! able to lock that member out, and a secret of 184 bits is not found by trying.
//!
//! Not here: waiting (the session's driver does), the secret (`members.rs`).

use std::collections::HashMap;
use std::hash::Hash;
use std::net::IpAddr;
use std::time::{Duration, SystemTime};

use smtp::reply::Reply;

/// Failures are forgotten after this long without another.
pub const MEMORY: Duration = Duration::from_secs(15 * 60);

/// Failures of one address after which it gets 421 at once.
pub const ADDRESS_FAILURES_MAX: u32 = 10;

/// Failures of one user name after which a failure closes the connection.
pub const USERNAME_FAILURES_MAX: u32 = 20;

/// The longest wait before a failure is answered. Clients give up after a minute or so.
pub const DELAY_MAX: Duration = Duration::from_secs(16);

/// Entries of each table, in two halves; when one is full the older half is forgotten.
const ENTRIES_MAX: usize = 1 << 16;

/// Longer user names are counted by their beginning.
const USERNAME_BYTES_MAX: usize = 128;

/// What to do about a failure.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Penalty {
    /// Answer 535 after this long.
    Delay(Duration),
    /// Say 421 after this long and close.
    Close(Duration, Reply),
}

/// Counts of failures.
#[derive(Debug, Default)]
pub struct Throttle {
    addresses: Table<IpAddr>,
    usernames: Table<String>,
}

impl Throttle {
    /// Before AUTH is looked at: an address with too many failures is told to go away.
    pub fn refuses(&self, now: SystemTime, peer: IpAddr) -> Option<Reply> {
        (self.addresses.failures(now, &network(peer)) >= ADDRESS_FAILURES_MAX).then(too_many)
    }

    /// AUTH failed.
    pub fn handle_failure(&mut self, now: SystemTime, peer: IpAddr, username: &str) -> Penalty {
        let by_address = self.addresses.add(now, network(peer));
        let by_username = self.usernames.add(now, account(username));
        let worst = by_address.max(by_username);
        // 0.5, 1, 2, 4 … seconds: a mistyped secret is answered soon.
        let delay = Duration::from_millis(500).saturating_mul(1 << (worst - 1).min(10)).min(DELAY_MAX);
        if by_address >= ADDRESS_FAILURES_MAX || by_username >= USERNAME_FAILURES_MAX {
            Penalty::Close(delay, too_many())
        } else {
            Penalty::Delay(delay)
        }
    }

    /// AUTH succeeded: the name's owner is back. The address keeps its count, or one valid credential would
    /// let its owner guess for ever.
    pub fn handle_success(&mut self, username: &str) {
        self.usernames.remove(&account(username));
    }

    /// How many entries are held, for display and tests.
    pub fn entries(&self) -> usize {
        self.addresses.len() + self.usernames.len()
    }
}

fn too_many() -> Reply {
    Reply::new(421, (4, 7, 0), format!("too many failed authentications; try again in {} minutes", MEMORY.as_secs() / 60))
}

/// One customer has a /64 of IPv6 (RFC 6177), so that is what counts.
fn network(peer: IpAddr) -> IpAddr {
    match peer.to_canonical() {
        IpAddr::V6(address) => IpAddr::V6((u128::from(address) >> 64 << 64).into()),
        v4 => v4,
    }
}

fn account(username: &str) -> String {
    let username = username.trim();
    username[..username.floor_char_boundary(USERNAME_BYTES_MAX)].to_ascii_lowercase()
}

#[derive(Debug, Clone, Copy)]
struct Entry {
    failures: u32,
    last: SystemTime,
}

/// Two generations: an entry that fails again moves into the young one; when that is full, it becomes the old
/// one and the old one is gone. Bounded, and never a scan.
#[derive(Debug)]
struct Table<K> {
    young: HashMap<K, Entry>,
    old: HashMap<K, Entry>,
}

impl<K> Default for Table<K> {
    fn default() -> Self {
        Self { young: HashMap::new(), old: HashMap::new() }
    }
}

impl<K: Hash + Eq> Table<K> {
    fn failures(&self, now: SystemTime, key: &K) -> u32 {
        let entry = self.young.get(key).or_else(|| self.old.get(key));
        // A clock that went back does not end a penalty.
        entry
            .filter(|entry| now.duration_since(entry.last).is_ok_and(|age| age < MEMORY) || now < entry.last)
            .map_or(0, |entry| entry.failures)
    }

    fn add(&mut self, now: SystemTime, key: K) -> u32 {
        let failures = self.failures(now, &key).saturating_add(1);
        self.old.remove(&key);
        if self.young.len() >= ENTRIES_MAX / 2 && !self.young.contains_key(&key) {
            self.old = std::mem::take(&mut self.young);
        }
        self.young.insert(key, Entry { failures, last: now });
        failures
    }

    fn remove(&mut self, key: &K) {
        self.young.remove(key);
        self.old.remove(key);
    }

    fn len(&self) -> usize {
        self.young.len() + self.old.len()
    }
}
