//! What labels say about members' DIDs, and when an old answer still counts.
//!
//! The labeler's word is fetched beforehand by the control thread; a session only looks it up. While the
//! labeler is away, what it said last still serves, until each label's own expiry. What it did not say then
//! is another matter: past `stale_after` we no longer know, so a member without labels waits (451) instead of
//! being refused (550).
//!
//! Not here: signatures, negation and newest-wins (`atproto`), which are settled before a [`Label`] is made.

use std::collections::{BTreeMap, HashMap};
use std::time::{Duration, SystemTime};

use serde::{Deserialize, Serialize};

/// A label that holds: verified, newest of its kind, not negated.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Label {
    /// About whom.
    pub did: String,
    /// `verified-mail-operator`, `relay-member`, …
    pub val: String,
    /// It holds before this. None: until negated.
    #[serde(default)]
    pub exp: Option<SystemTime>,
}

/// What is known of one DID.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Known {
    /// When the labeler last answered about this DID.
    asked: Option<SystemTime>,
    labels: BTreeMap<String, Option<SystemTime>>,
}

/// The answer for one DID.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Judgement {
    /// Every required label holds.
    Good,
    /// This one does not, and we know it: refuse.
    Missing(String),
    /// We have not been able to ask, or not lately: let it wait.
    Unknown,
}

/// What labels say about every DID we asked about.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Standing(HashMap<String, Known>);

impl Standing {
    /// The labeler answered at `now` about `asked`: all labels that these DIDs have are in `labels`.
    /// What it said earlier about others stays.
    pub fn handle_answer(
        &mut self,
        now: SystemTime,
        asked: impl IntoIterator<Item = String>,
        labels: impl IntoIterator<Item = Label>,
    ) {
        let mut fresh: HashMap<String, Known> =
            asked.into_iter().map(|did| (did, Known { asked: Some(now), labels: BTreeMap::new() })).collect();
        for label in labels {
            // About whom we did not ask, we do not remember: the answer does not decide how much we hold.
            if let Some(known) = fresh.get_mut(&label.did) {
                known.labels.insert(label.val, label.exp);
            }
        }
        self.0.extend(fresh);
    }

    /// Forgets those who are no longer members.
    pub fn retain(&mut self, is_member: impl Fn(&str) -> bool) {
        self.0.retain(|did, _| is_member(did));
    }

    /// Whether `did` bears every label of `required`.
    pub fn judge(&self, did: &str, required: &[String], stale_after: Duration, now: SystemTime) -> Judgement {
        if required.is_empty() {
            return Judgement::Good;
        }
        let Some(known) = self.0.get(did) else { return Judgement::Unknown };
        let holds = |val: &&String| known.labels.get(*val).is_some_and(|exp| exp.is_none_or(|exp| now < exp));
        let Some(missing) = required.iter().find(|val| !holds(val)) else { return Judgement::Good };
        let fresh = known.asked.is_some_and(|asked| now < asked + stale_after);
        if fresh { Judgement::Missing(missing.clone()) } else { Judgement::Unknown }
    }

    /// The labels of one DID that hold, for display.
    pub fn labels(&self, did: &str, now: SystemTime) -> impl Iterator<Item = &str> {
        let labels = self.0.get(did).into_iter().flat_map(|known| &known.labels);
        labels.filter(move |(_, exp)| exp.is_none_or(|exp| now < exp)).map(|(val, _)| val.as_str())
    }

    /// When the labeler last answered about this DID.
    pub fn asked(&self, did: &str) -> Option<SystemTime> {
        self.0.get(did).and_then(|known| known.asked)
    }

    /// As it is kept: the last known labels serve after a restart too.
    pub fn encode(&self) -> Result<Vec<u8>, super::members::RowError> {
        Ok(serde_json::to_vec(self)?)
    }

    /// Reads what was kept.
    pub fn decode(row: &[u8]) -> Result<Self, super::members::RowError> {
        Ok(serde_json::from_slice(row)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STALE: Duration = Duration::from_secs(6 * 3600);

    fn at(hours: u64) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(hours * 3600)
    }

    fn label(did: &str, val: &str, exp: Option<SystemTime>) -> Label {
        Label { did: did.into(), val: val.into(), exp }
    }

    fn world() -> (Standing, Vec<String>) {
        let mut standing = Standing::default();
        let asked = ["did:plc:good", "did:plc:half", "did:plc:none"].map(str::to_owned);
        let labels = [
            label("did:plc:good", "verified-mail-operator", None),
            label("did:plc:good", "relay-member", Some(at(100))),
            label("did:plc:half", "verified-mail-operator", None),
            label("did:plc:stranger", "relay-member", None),
        ];
        standing.handle_answer(at(10), asked, labels);
        (standing, vec!["verified-mail-operator".into(), "relay-member".into()])
    }

    #[test]
    fn last_known_labels_serve_and_the_unlabelled_wait_once_the_labeler_is_away_too_long() {
        let (standing, required) = world();
        let missing = |val: &str| Judgement::Missing(val.into());
        for (did, hour, expected) in [
            ("did:plc:good", 10, Judgement::Good),
            ("did:plc:good", 99, Judgement::Good),
            ("did:plc:good", 100, Judgement::Unknown), // Its own expiry ends it, however long the labeler is away.
            ("did:plc:half", 15, missing("relay-member")),
            ("did:plc:half", 16, Judgement::Unknown),
            ("did:plc:none", 10, missing("verified-mail-operator")),
            ("did:plc:none", 17, Judgement::Unknown),
            ("did:plc:new", 10, Judgement::Unknown),
            ("did:plc:stranger", 10, Judgement::Unknown),
        ] {
            assert_eq!(standing.judge(did, &required, STALE, at(hour)), expected, "{did} at {hour} h");
        }
        assert_eq!(standing.judge("did:plc:new", &[], STALE, at(10)), Judgement::Good);
    }

    #[test]
    fn a_later_answer_replaces_an_earlier_one() {
        let (mut standing, required) = world();
        standing.handle_answer(at(11), ["did:plc:good".to_owned()], [label("did:plc:good", "verified-mail-operator", None)]);
        assert_eq!(standing.judge("did:plc:good", &required, STALE, at(11)), Judgement::Missing("relay-member".into()));
        assert_eq!(standing.judge("did:plc:half", &required, STALE, at(11)), Judgement::Missing("relay-member".into()));
        standing.retain(|did| did != "did:plc:half");
        assert_eq!(standing.judge("did:plc:half", &required, STALE, at(11)), Judgement::Unknown);
    }

    #[test]
    fn a_standing_survives_a_restart() {
        let (standing, _) = world();
        assert_eq!(Standing::decode(&standing.encode().unwrap()).unwrap(), standing);
        assert_eq!(standing.labels("did:plc:good", at(100)).collect::<Vec<_>>(), ["verified-mail-operator"]);
    }
}
