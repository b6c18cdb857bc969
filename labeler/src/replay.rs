//! Which service auth tokens were used: a second use is refused (`jti`, atproto.com/specs/xrpc, "Inter-Service Authentication").
//!
//! A token holds for an hour at most, so what has to be remembered is bounded by time, and here by number too: of one caller, and of
//! all. Where there is no room, the token is refused and not the memory of another given up, since that one could then be used again.
//! Ask only after the token was verified and its caller is known to be allowed: whoever may not call shall not fill it.
//!
//! What is decided here in memory is kept by the store before the call is answered (`store::used`), and remembered when the labeler starts. Only a
//! copy that takes the store's place does not know what was used after it was made, for an hour; methods that write are idempotent besides.
//! Not here: whether a token is right (`atproto::jwt`).

use std::collections::{BTreeSet, HashMap};
use std::time::SystemTime;

use atproto::jwt::Caller;
use ring::digest::{Context, SHA256};

/// Tokens of one caller that hold at the same time; with a minute's lifetime that is some thirty calls a second.
pub const OF_CALLER_MAX: usize = 2048;
/// Tokens of all callers; some 10 MB.
pub const MAX: usize = 1 << 16;

/// The tokens that were used and could be used again.
#[derive(Debug, Default)]
pub struct Used {
    /// By digest of caller and `jti`.
    until: HashMap<Digest, SystemTime>,
    /// The same in the order in which they expire, each with the digest of its caller.
    order: BTreeSet<(SystemTime, Digest, Digest)>,
    of_caller: HashMap<Digest, usize>,
}

/// Half a SHA-256: to find a second token with the digest of a first takes 2^128 attempts.
pub type Digest = [u8; 16];

/// That a token was used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Mark {
    /// When it expires.
    pub until: SystemTime,
    /// Digest of caller and `jti`.
    pub token: Digest,
    /// Digest of the caller.
    pub of: Digest,
}

impl Mark {
    /// Of a verified token.
    pub fn of(caller: &Caller) -> Self {
        let of = digest(&[caller.did.as_str()]);
        Self { until: caller.expires, token: digest(&[caller.did.as_str(), &caller.jti]), of }
    }
}

/// Why a token may not be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ReplayError {
    /// It was used before. Answer 401.
    #[error("the token was used before")]
    Replayed,
    /// No more can be remembered, of this caller or of all. Answer 429.
    #[error("too many tokens at a time; try again when some have expired")]
    Full,
}

impl Used {
    /// Takes note that a verified token is used, at `now`, unless it was before.
    pub fn take(&mut self, caller: &Caller, now: SystemTime) -> Result<(), ReplayError> {
        self.forget(now);
        let Mark { until, token, of } = Mark::of(caller);
        if self.until.contains_key(&token) {
            return Err(ReplayError::Replayed);
        }
        if self.until.len() >= MAX || self.of_caller.get(&of).is_some_and(|count| *count >= OF_CALLER_MAX) {
            return Err(ReplayError::Full);
        }
        self.remember(Mark { until, token, of });
        Ok(())
    }

    /// A token that was taken before the labeler was started.
    pub fn remember(&mut self, Mark { until, token, of }: Mark) {
        if self.until.insert(token, until).is_none() {
            self.order.insert((until, token, of));
            *self.of_caller.entry(of).or_default() += 1;
        }
    }

    /// An expired token is refused for that, so it need not be known any more.
    fn forget(&mut self, now: SystemTime) {
        while let Some((until, token, of)) = self.order.first().copied()
            && until <= now
        {
            self.order.pop_first();
            self.until.remove(&token);
            if let Some(count) = self.of_caller.get_mut(&of) {
                *count -= 1;
                if *count == 0 {
                    self.of_caller.remove(&of);
                }
            }
        }
    }
}

/// A DID holds no zero, so where it ends is certain.
fn digest(parts: &[&str]) -> Digest {
    let mut context = Context::new(&SHA256);
    for part in parts {
        context.update(part.as_bytes());
        context.update(&[0]);
    }
    let mut digest = Digest::default();
    digest.copy_from_slice(&context.finish().as_ref()[..16]);
    digest
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, UNIX_EPOCH};

    use super::*;

    fn at(secs: u64) -> SystemTime {
        UNIX_EPOCH + Duration::from_secs(1_790_000_000 + secs)
    }

    fn caller(did: &str, jti: &str, expires: u64) -> Caller {
        Caller { did: did.parse().unwrap(), kid: "atproto".into(), jti: jti.into(), expires: at(expires) }
    }

    #[test]
    fn a_token_is_used_once_for_as_long_as_it_holds_and_each_caller_has_its_own_numbers() {
        let mut used = Used::default();
        let (mine, other) = (caller("did:plc:a", "one", 60), caller("did:plc:b", "one", 60));
        assert_eq!(used.take(&mine, at(0)), Ok(()));
        assert_eq!(used.take(&other, at(0)), Ok(()));
        for now in [0, 1, 59] {
            assert_eq!(used.take(&mine, at(now)), Err(ReplayError::Replayed));
        }
        // Another token with the same number is refused as well, though it holds longer.
        assert_eq!(used.take(&caller("did:plc:a", "one", 600), at(1)), Err(ReplayError::Replayed));
        assert_eq!(used.take(&caller("did:plc:a", "two", 600), at(1)), Ok(()));
        assert_eq!(used.take(&caller("did:plc:a", "three", 600), at(60)), Ok(()));
        assert_eq!(used.until.len(), 2, "what has expired is forgotten");
        assert_eq!(used.take(&caller("did:plc:a", "two", 600), at(599)), Err(ReplayError::Replayed));
    }

    #[test]
    fn a_caller_that_fills_its_share_hinders_nobody_else_and_nothing_is_given_up_for_want_of_room() {
        let mut used = Used::default();
        for nth in 0..OF_CALLER_MAX {
            assert_eq!(used.take(&caller("did:plc:a", &nth.to_string(), 60 + nth as u64 % 2), at(0)), Ok(()));
        }
        assert_eq!(used.take(&caller("did:plc:a", "more", 60), at(0)), Err(ReplayError::Full));
        assert_eq!(used.take(&caller("did:plc:a", "0", 60), at(0)), Err(ReplayError::Replayed), "the first is still known");
        assert_eq!(used.take(&caller("did:plc:b", "0", 60), at(0)), Ok(()));
        assert_eq!(used.take(&caller("did:plc:a", "more", 99), at(60)), Ok(()), "half have expired");
        assert_eq!(used.take(&caller("did:plc:a", "1", 99), at(60)), Err(ReplayError::Replayed));
        used.forget(at(99));
        assert!(used.until.is_empty() && used.order.is_empty() && used.of_caller.is_empty());
    }

    #[test]
    fn all_together_are_bounded() {
        let mut used = Used::default();
        for nth in 0..MAX {
            let did = format!("did:plc:m{}", nth / OF_CALLER_MAX);
            assert_eq!(used.take(&caller(&did, &nth.to_string(), 60), at(0)), Ok(()));
        }
        assert_eq!(used.take(&caller("did:plc:new", "x", 60), at(0)), Err(ReplayError::Full));
        assert_eq!(used.take(&caller("did:plc:m0", "0", 60), at(0)), Err(ReplayError::Replayed));
        assert_eq!(used.take(&caller("did:plc:new", "x", 99), at(60)), Ok(()));
        assert_eq!(used.until.len(), 1);
    }
}
