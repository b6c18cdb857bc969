//! What follows from a look at an attestation: how the row stands, which labels are issued, when to look again, and what the
//! member is told.
//!
//! A pass gives at once. A definite failure of DNS takes only when it was seen several times over some time, because zones are
//! broken for minutes while somebody works on them; what the account itself says, or a domain that names somebody else, counts
//! at once. Trouble on the way (name servers, a PDS or a directory that do not answer) takes nothing for days, since it is seldom
//! the member's; but whose domain nobody could confirm for so long is not vouched for any more ([`Patience::silent_for`]).

use std::io::{Read, Write};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use atproto::Did;
use atproto::key::SigningKey;
use atproto::label::Label;
use atproto::lexicon::CooperativeLabel;
use flate2::Compression;
use flate2::read::DeflateDecoder;
use flate2::write::DeflateEncoder;
use heed::RwTxn;
use serde::{Deserialize, Serialize};

use super::rows::row_key;
use super::{Found, Row, State, Store, StoreError, Task, millis, queue};
use crate::judge::{Check, Judgement, Kind, Verdict};

/// A check that was not passed is repeated after this, then after twice as long, and so on: a member who is putting records into
/// DNS sees the label soon.
const RETRY_FIRST: Duration = Duration::from_secs(1);
/// While labels are in question.
const RETRY_LAST: Duration = Duration::from_secs(3600);
/// While there are none: a hundred thousand attestations that will never be right cost five looks a second.
const RETRY_LAST_WITHOUT_LABELS: Duration = Duration::from_secs(6 * 3600);

/// A repository that could not be looked into so often, over two and a half days, is given up: nobody has said that it attests anything, and
/// when its server works again the stream says so.
const REPO_FAILURES_MAX: u32 = 24;

/// Looks without a pass, one at least, before silence takes labels: so few because a host with thousands of accounts that does not
/// answer is asked some five times a minute for all of them together.
const SILENT_LOOKS_MIN: u32 = 5;

/// How long is waited, and what is forgiven.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Patience {
    /// From a pass to the next look.
    pub interval: Duration,
    /// Definite failures in a row that take labels away,
    pub failures: u32,
    /// when so much time lies between the first and the last of them.
    pub failing_for: Duration,
    /// From the first look that did not confirm what was found before, when none has since, until labels are taken away although
    /// nothing definite was found. Days when nobody looked do not count: after a pause of half of it, it begins anew.
    pub silent_for: Duration,
}

/// What was found at the last look, for the member.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Checked {
    /// When, in milliseconds since 1970.
    pub at_ms: u64,
    /// What came of it.
    pub verdict: Verdict,
    /// Each check.
    pub checks: Vec<Check>,
}

impl Store {
    /// Writes down what was found, issues the labels that follow from it, and says when to look again.
    pub fn settle(
        &self,
        task: &Task,
        found: &Found,
        patience: Patience,
        now: SystemTime,
        key: &SigningKey,
    ) -> Result<Vec<Label>, StoreError> {
        self.settle_all(std::iter::once((task, found)), patience, now, key)
    }

    /// The same for many at once, in one transaction: the disk is waited for once.
    pub fn settle_all<'f>(
        &self,
        found: impl IntoIterator<Item = (&'f Task, &'f Found)>,
        patience: Patience,
        now: SystemTime,
        key: &SigningKey,
    ) -> Result<Vec<Label>, StoreError> {
        let mut txn = self.env.write_txn()?;
        let mut issued = Vec::new();
        for (task, found) in found {
            issued.extend(self.settle_in(&mut txn, task, found, patience, now, key)?);
        }
        txn.commit()?;
        self.tell();
        Ok(issued)
    }

    fn settle_in(
        &self,
        txn: &mut RwTxn<'_>,
        task: &Task,
        found: &Found,
        patience: Patience,
        now: SystemTime,
        key: &SigningKey,
    ) -> Result<Vec<Label>, StoreError> {
        let name = row_key(&task.did, &task.rkey);
        let mut rows = self.rows_in(txn, &task.did)?;
        let Some(at) = rows.iter().position(|(key, row)| *key == name && row.id == task.id) else {
            return Ok(Vec::new());
        };
        let (_, mut row) = rows.swap_remove(at);
        self.due.delete(txn, &queue::key(&row))?;
        row.host = Some(task.host.clone().or(row.host).unwrap_or_default());
        match found {
            Found::Absent => {
                (row.stands, row.relay, row.state, row.reasons) = (false, false, State::New, Vec::new());
            }
            Found::Records(rkeys) => {
                for rkey in rkeys {
                    if let Some(refused) = self.touch_record(txn, &task.did, rkey, now)? {
                        tracing::warn!(refused, "not looked at");
                    }
                }
            }
            Found::Judged { judgement, relay, rev } => {
                row.rev = rev.clone().max(row.rev);
                row.take(judgement, *relay, patience, now);
                row.keep_selectors(&task.rkey, judgement);
                self.put_checks(txn, &name, judgement, now)?;
            }
        }
        row.checked_ms = Some(millis(now));
        if row.asked != task.asked {
            // Somebody pointed at it again meanwhile: what was found may be old already.
            row.due_ms = millis(now);
            self.put_row(txn, &name, &row)?;
            rows.push((name, row));
        } else if matches!(found, Found::Absent | Found::Records(_)) || (task.is_repo() && row.failures >= REPO_FAILURES_MAX) {
            self.forget_row(txn, &name)?;
        } else {
            row.due_ms = millis(now + wait(&row, patience, now));
            self.put_row(txn, &name, &row)?;
            rows.push((name, row));
        }
        // Those that the repository turned out to hold stand for nothing before they were looked at.
        let mut wanted = Vec::new();
        if rows.iter().any(|(_, row)| row.stands) {
            wanted.push(CooperativeLabel::VerifiedMailOperator);
        }
        if rows.iter().any(|(_, row)| row.stands && row.relay) {
            wanted.push(CooperativeLabel::RelayMember);
        }
        self.issue(txn, &task.did, &wanted, now, key)
    }

    fn put_checks(&self, txn: &mut RwTxn<'_>, name: &[u8], judgement: &Judgement, now: SystemTime) -> Result<(), StoreError> {
        let checked = Checked { at_ms: millis(now), verdict: judgement.verdict, checks: judgement.checks.clone() };
        Ok(self.checks.put(txn, name, &packed(&checked))?)
    }

    /// What was found at the last look at this attestation.
    pub fn checked(&self, did: &Did, domain: &str) -> Result<Option<Checked>, StoreError> {
        let key = row_key(did, domain);
        if key.len() > super::KEY_BYTES_MAX {
            return Ok(None);
        }
        let txn = self.env.read_txn()?;
        self.checks.get(&txn, &key)?.map(unpacked).transpose()
    }
}

/// Before deflated checks; those that begin otherwise are JSON as it is, short or of an earlier version.
const DEFLATED: u8 = b'z';
const DEFLATED_BYTES_MIN: usize = 256;
/// More than any look finds.
const CHECKS_BYTES_MAX: u64 = 1 << 20;

/// Checks are the largest part of the store and mostly the same words for everybody: deflated they are less than half as
/// long. What is short stays as it is.
fn packed(checked: &Checked) -> Vec<u8> {
    let Ok(json) = serde_json::to_vec(checked) else { unreachable!("checks are numbers and strings") };
    if json.len() < DEFLATED_BYTES_MIN {
        return json;
    }
    let mut encoder = DeflateEncoder::new(vec![DEFLATED], Compression::fast());
    match encoder.write_all(&json).and_then(|()| encoder.finish()) {
        Ok(octets) => octets,
        Err(_) => unreachable!("memory takes everything"),
    }
}

fn unpacked(octets: &[u8]) -> Result<Checked, StoreError> {
    let read = match octets.split_first() {
        Some((&DEFLATED, deflated)) => {
            let mut json = Vec::new();
            let inflated = DeflateDecoder::new(deflated).take(CHECKS_BYTES_MAX).read_to_end(&mut json);
            inflated.map_err(serde_json::Error::io).and_then(|_| serde_json::from_slice(&json))
        }
        _ => serde_json::from_slice(octets),
    };
    read.map_err(|error| StoreError::Corrupt(format!("checks ({error})")))
}

impl Row {
    /// Which selectors were looked at and found in order, when all was.
    fn keep_selectors(&mut self, domain: &str, judgement: &Judgement) {
        if judgement.verdict == Verdict::Pass {
            let suffix = format!("._domainkey.{domain}");
            let keys = judgement.checks.iter().filter(|check| check.kind == Kind::Dkim);
            let selectors = keys.filter_map(|check| check.name.strip_suffix(&suffix));
            self.selectors = selectors.map(str::to_ascii_lowercase).collect();
        }
    }

    fn take(&mut self, judgement: &Judgement, relay: bool, patience: Patience, now: SystemTime) {
        self.reasons = judgement.reasons();
        if let Some(pds) = judgement.pds() {
            self.pds = Some(pds.to_owned());
        }
        match judgement.verdict {
            Verdict::Pass => {
                if !self.stands {
                    self.stands_since_ms = millis(now);
                }
                (self.stands, self.relay, self.state) = (true, relay, State::Pass);
                (self.failures, self.refused, self.unconfirmed_since_ms) = (0, 0, 0);
            }
            Verdict::Fail => {
                self.state = State::Fail;
                let silent = self.is_silent(patience, now);
                if self.refused == 0 {
                    self.refused_since_ms = millis(now);
                }
                self.refused = self.refused.saturating_add(1);
                let long = millis(now).saturating_sub(self.refused_since_ms) >= whole_millis(patience.failing_for);
                let often = self.refused >= patience.failures;
                if judgement.is_decisive(self.pds.as_deref()) || patience.failures <= 1 || (often && long) || silent {
                    (self.stands, self.relay) = (false, relay);
                }
            }
            // Not a failure, and no end of a row of them either.
            Verdict::Unknown => {
                self.state = State::Unknown;
                if self.is_silent(patience, now) {
                    self.stands = false;
                    let since = atproto::datetime(UNIX_EPOCH + Duration::from_millis(self.unconfirmed_since_ms));
                    self.reasons
                        .push(format!("no look has confirmed it since {}, which is too long to vouch for it", since.as_str()));
                }
            }
        }
    }

    /// Counts a look that did not pass, and says whether it is one too many, whatever it found.
    fn is_silent(&mut self, patience: Patience, now: SystemTime) -> bool {
        let (now, days) = (millis(now), whole_millis(patience.silent_for));
        let away = now.saturating_sub(self.checked_ms.unwrap_or(0)) >= days / 2;
        if self.unconfirmed_since_ms == 0 || (away && self.stands) {
            self.unconfirmed_since_ms = now;
        }
        self.failures = self.failures.saturating_add(1);
        self.failures >= SILENT_LOOKS_MIN && now.saturating_sub(self.unconfirmed_since_ms) >= days
    }
}

/// After a pass the interval, a little less for some than for others so that they spread; otherwise doubling from a second.
fn wait(row: &Row, patience: Patience, now: SystemTime) -> Duration {
    let spread =
        |whole: Duration| whole - whole / 10 * u32::try_from((row.id ^ u64::from(row.failures)) % 100).unwrap_or(0) / 100;
    if row.failures == 0 {
        return spread(patience.interval);
    }
    let last = if row.stands { RETRY_LAST } else { RETRY_LAST_WITHOUT_LABELS };
    let doubled = RETRY_FIRST.saturating_mul(1 << (row.failures - 1).min(20)).min(last).min(patience.interval);
    let wait = if doubled == RETRY_FIRST { doubled } else { spread(doubled) };
    if !row.stands || row.refused == 0 {
        return wait;
    }
    // Labels are in question: decided no later than when they may be.
    let decided = row.refused_since_ms.saturating_add(whole_millis(patience.failing_for));
    let left = Duration::from_millis(decided.saturating_sub(millis(now)));
    match (left.is_zero(), row.state) {
        (false, _) => wait.min(left),
        // Nothing can be decided as long as nobody answers.
        (true, State::Unknown) => wait,
        (true, _) => wait.min(RETRY_FIRST),
    }
}

fn whole_millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn checks_are_read_deflated_and_as_earlier_versions_wrote_them_and_rubbish_is_an_error() {
        let checks = vec![Check::fail(crate::judge::Kind::Mx, "m.example", "there is none"); 20];
        let checked = Checked { at_ms: 7, verdict: Verdict::Fail, checks };
        let (octets, json) = (packed(&checked), serde_json::to_vec(&checked).unwrap());
        assert!(octets.len() * 4 < json.len(), "{} {}", octets.len(), json.len());
        for octets in [&octets, &json] {
            assert_eq!(unpacked(octets).unwrap(), checked);
        }
        for rubbish in [&[][..], &octets[..octets.len() / 2], &octets[1..], b"z", b"zz", b"{"] {
            assert!(unpacked(rubbish).is_err(), "{rubbish:?}");
        }
    }
}
