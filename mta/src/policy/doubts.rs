//! What the labeler doubts about members, and how long its word counts.
//!
//! Read beforehand by the control thread (`control::standing`); a session only looks it up. Who is doubted so much that new mail
//! should wait is put off with 451, not refused: a doubt ends by itself after some days, and a client that queues loses nothing.
//! When the labeler has not answered for long, its doubts count no more: mail never waits for it, and an old doubt is no better
//! than none.
//!
//! Not here: labels, which are public and say who may send at all (`standing.rs`).

use std::collections::HashMap;
use std::time::{Duration, SystemTime};

/// What is doubted about one member.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Doubted {
    /// When the labeler last answered about it.
    pub asked: SystemTime,
    /// Each doubt, for people.
    pub says: Vec<String>,
    /// That for which new mail should wait.
    pub pause: Option<String>,
}

/// Members about whom there are doubts.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Doubts(HashMap<String, Doubted>);

/// What is done about doubts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Caution {
    /// Whether new mail waits where it should. Otherwise doubts are only shown.
    pub defers: bool,
    /// How old the labeler's last answer may be.
    pub stale_after: Duration,
}

impl Doubts {
    /// From all that is known, by DID. Members without doubts are left out.
    pub fn new(all: impl IntoIterator<Item = (String, Doubted)>) -> Self {
        Self(all.into_iter().filter(|(_, it)| !it.says.is_empty()).collect())
    }

    /// What is doubted about `did`, while it counts.
    pub fn of(&self, did: &str, stale_after: Duration, now: SystemTime) -> Option<&Doubted> {
        // A clock that was set back makes an answer no older.
        self.0.get(did).filter(|it| now.duration_since(it.asked).map_or(true, |age| age < stale_after))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_doubt_counts_until_the_answer_is_too_old() {
        let at = |secs: u64| SystemTime::UNIX_EPOCH + Duration::from_secs(1_790_000_000 + secs);
        let doubted = |says: &[&str]| Doubted {
            asked: at(0),
            says: says.iter().map(|it| (*it).to_owned()).collect(),
            pause: says.first().map(|it| (*it).to_owned()),
        };
        let doubts = Doubts::new([("did:plc:a".to_owned(), doubted(&["x"])), ("did:plc:b".to_owned(), doubted(&[]))]);
        let of = |did, secs| doubts.of(did, Duration::from_secs(60), at(secs)).is_some();
        assert_eq!((of("did:plc:a", 0), of("did:plc:a", 59), of("did:plc:a", 60)), (true, true, false));
        assert_eq!((of("did:plc:b", 0), of("did:plc:c", 0)), (false, false));
        assert!(doubts.of("did:plc:a", Duration::from_secs(60), at(0) - Duration::from_secs(600)).is_some());
    }
}
