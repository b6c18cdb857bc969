//! Logins of browsers: a cookie that stands for a token for some hours.
//!
//! Held in memory only, by a keyed hash: a restart ends all logins, and neither a copy of memory nor of the disk lets anybody in.

use std::collections::HashMap;
use std::time::{Duration, SystemTime};

/// A login that nobody has used for so long ends.
pub(super) const IDLE: Duration = Duration::from_secs(2 * 3600);

/// No login is longer, used or not.
pub(super) const LASTS: Duration = Duration::from_secs(12 * 3600);

/// Logins at the same time. With one more the one that was not used for longest ends.
pub(super) const SESSIONS_MAX: usize = 256;

/// All logins, by what is kept of their cookies.
#[derive(Debug, Default)]
pub(super) struct Sessions(HashMap<[u8; 32], Session>);

#[derive(Debug, Clone, Copy)]
struct Session {
    token: u32,
    began: SystemTime,
    seen: SystemTime,
}

impl Session {
    fn is_over(&self, now: SystemTime) -> bool {
        let longer = |since: SystemTime, most| now.duration_since(since).is_ok_and(|age| age >= most);
        longer(self.seen, IDLE) || longer(self.began, LASTS)
    }
}

impl Sessions {
    /// A login with the token of this number.
    pub(super) fn begin(&mut self, now: SystemTime, hash: [u8; 32], token: u32) {
        self.0.retain(|_, session| !session.is_over(now));
        if self.0.len() >= SESSIONS_MAX
            && let Some(oldest) = self.0.iter().min_by_key(|(_, session)| session.seen).map(|(hash, _)| *hash)
        {
            self.0.remove(&oldest);
        }
        self.0.insert(hash, Session { token, began: now, seen: now });
    }

    /// The token that a login stands for. It is used now.
    pub(super) fn find(&mut self, now: SystemTime, hash: &[u8; 32]) -> Option<u32> {
        let session = self.0.get_mut(hash)?;
        if session.is_over(now) {
            self.0.remove(hash);
            return None;
        }
        session.seen = now;
        Some(session.token)
    }

    /// One ends.
    pub(super) fn end(&mut self, hash: &[u8; 32]) {
        self.0.remove(hash);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(secs: u64) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(secs)
    }

    #[test]
    fn a_login_ends_when_it_rests_when_it_is_old_and_when_it_is_told_to() {
        let mut all = Sessions::default();
        all.begin(at(0), [1; 32], 7);
        let idle = IDLE.as_secs();
        assert_eq!(all.find(at(idle - 1), &[1; 32]), Some(7));
        assert_eq!(all.find(at(2 * idle - 2), &[1; 32]), Some(7), "it was used meanwhile");
        assert_eq!(all.find(at(3 * idle - 2), &[1; 32]), None, "it rested");
        assert_eq!(all.find(at(0), &[1; 32]), None, "and does not come back");
        all.begin(at(0), [2; 32], 7);
        let mut now = 0;
        while now + idle / 2 < LASTS.as_secs() {
            now += idle / 2;
            assert_eq!(all.find(at(now), &[2; 32]), Some(7), "{now}");
        }
        assert_eq!(all.find(at(LASTS.as_secs()), &[2; 32]), None, "however busy");
        all.begin(at(0), [3; 32], 7);
        all.end(&[3; 32]);
        assert_eq!(all.find(at(0), &[3; 32]), None);
    }

    #[test]
    fn logins_have_a_bound_and_the_idlest_ends_first() {
        let mut all = Sessions::default();
        let hash = |nth: usize| {
            let mut hash = [0; 32];
            hash[..8].copy_from_slice(&(nth as u64).to_be_bytes());
            hash
        };
        (0..SESSIONS_MAX).for_each(|nth| all.begin(at(nth as u64), hash(nth), 1));
        assert_eq!(all.find(at(1000), &hash(0)), Some(1));
        all.begin(at(1001), hash(SESSIONS_MAX), 1);
        assert_eq!(all.0.len(), SESSIONS_MAX);
        assert_eq!(all.find(at(1002), &hash(1)), None);
        assert_eq!(all.find(at(1002), &hash(0)), Some(1));
    }
}
