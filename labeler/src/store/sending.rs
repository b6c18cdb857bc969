//! What MTAs reported of accounts' mail, and what was ruled about it. Private: nothing of it is served but to MTAs.
//!
//! A report replaces an older one of the same MTA, account and day, so repeating it changes nothing and sums never double. What
//! follows from it commits with it: the label `clean-sender` too. Because a ruling changes by time alone, [`Store::rule_some`]
//! goes round.
//!
//! What is kept is bounded: by the MTAs that may report, the accounts that attest something, and [`WINDOW_DAYS`]. Of an account
//! that carries no labels for [`FORGET_AFTER`] everything is forgotten, however that came: it was deleted, or it withdrew its
//! attestations. Not at once, or whoever is doubted would withdraw and attest anew.

use std::ops::Bound;
use std::time::{Duration, SystemTime};

use atproto::Did;
use atproto::key::SigningKey;
use atproto::label::Label;
use atproto::lexicon::CooperativeLabel;
use atproto::sending::{Counts, Day, Doubt, RefusedReport, Report, Reported, Wrong};
use heed::{RoTxn, RwTxn};
use serde::{Deserialize, Serialize};

use super::rows::row_key;
use super::{DID_BYTES_MAX, Store, StoreError, millis};
use crate::judge::sending::{DOUBT_DAYS, Rule, Ruling, Told, WINDOW_DAYS, doubts, rule};

/// Octets of an MTA's DID: with an account's and a day it is a key of LMDB.
pub const MTA_BYTES_MAX: usize = 240;
/// How long after its last label what was reported of an account is kept: as long as doubts last.
pub const FORGET_AFTER: Duration = Duration::from_secs(DOUBT_DAYS as u64 * 86_400);
/// Accounts that one transaction rules about: others who write wait no longer than this takes.
const RULED_AT_ONCE: usize = 100;

/// A row of `sending`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Kept {
    revision: u64,
    counts: Counts,
}

/// A row of `standing`: that there is something about the account in `sending`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Known {
    /// Since when it has carried no labels, in milliseconds since 1970.
    unlabelled_ms: Option<u64>,
}

/// What [`Store::rule_some`] did.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Ruled {
    /// Labels that were issued.
    pub issued: Vec<Label>,
    /// Accounts of which everything was forgotten.
    pub forgotten: usize,
    /// Where to go on; none: that was the end.
    pub next: Option<Vec<u8>>,
}

impl Store {
    /// Takes an MTA's reports, and issues what follows from them, in one transaction.
    pub fn report(
        &self,
        mta: &Did,
        reports: &[Report],
        by: &Rule,
        now: SystemTime,
        key: &SigningKey,
    ) -> Result<(Reported, Vec<Label>), StoreError> {
        let today = Day::of(now);
        let (mut done, mut touched, mut issued) = (Reported::default(), Vec::new(), Vec::new());
        let mut txn = self.env.write_txn()?;
        for report in reports {
            let wrong = match report.check(today) {
                Ok(()) if !self.attests_in(&txn, &report.did)? => Err(Wrong::UnknownAccount),
                checked => checked,
            };
            if let Err(reason) = wrong {
                done.refused.push(RefusedReport { did: report.did.clone(), day: report.day, reason });
                continue;
            }
            let name = key_of(&report.did, report.day, mta);
            let known = self.sending.get(&txn, &name)?.map(read::<Kept>).transpose()?;
            if known.is_some_and(|known| known.revision >= report.revision) {
                done.unchanged += 1;
                continue;
            }
            self.sending.put(&mut txn, &name, &json(&Kept { revision: report.revision, counts: report.counts }))?;
            done.taken += 1;
            if !touched.contains(&&report.did) {
                touched.push(&report.did);
            }
        }
        for did in touched {
            if self.standing.get(&txn, did.as_str().as_bytes())?.is_none() {
                self.standing.put(&mut txn, did.as_str().as_bytes(), &json(&Known::default()))?;
            }
            issued.extend(self.rule_on(&mut txn, did, by, now, key)?);
        }
        if done.taken > 0 {
            txn.commit()?;
            self.tell();
        }
        Ok((done, issued))
    }

    /// Doubts about each of these accounts.
    pub fn doubts(&self, dids: &[Did], by: &Rule, now: SystemTime) -> Result<Vec<Vec<Doubt>>, StoreError> {
        let (today, txn) = (Day::of(now), self.env.read_txn()?);
        let mut all = Vec::with_capacity(dids.len());
        for did in dids {
            let told = self.told(&txn, did, today.back(DOUBT_DAYS))?;
            all.push(doubts(&by.doubt, today, &borrowed(&told)));
        }
        Ok(all)
    }

    /// Goes on ruling from behind `after` (empty: from the beginning), about some accounts: what is too old is dropped, labels
    /// are granted, withdrawn, or said again after a restore, and accounts are forgotten.
    pub fn rule_some(&self, after: &[u8], by: &Rule, now: SystemTime, key: &SigningKey) -> Result<Ruled, StoreError> {
        let mut ruled = Ruled::default();
        let mut txn = self.env.write_txn()?;
        let begin = if after.is_empty() { Bound::Unbounded } else { Bound::Excluded(after) };
        let page = self.standing.range(&txn, &(begin, Bound::Unbounded))?.take(RULED_AT_ONCE);
        let page = page.map(|entry| entry.map(|(name, row)| (name.to_vec(), row.to_vec()))).collect::<Result<Vec<_>, _>>()?;
        for (name, row) in &page {
            let corrupt = || StoreError::Corrupt("the name of a standing".into());
            let did: Did = std::str::from_utf8(name).ok().and_then(|did| did.parse().ok()).ok_or_else(corrupt)?;
            self.drop_until(&mut txn, &did, Day::of(now).back(WINDOW_DAYS))?;
            ruled.issued.extend(self.rule_on(&mut txn, &did, by, now, key)?);
            let known = read::<Known>(row)?;
            let labelled = self.rows_in(&txn, &did)?.iter().any(|(_, row)| row.stands);
            let since = known.unlabelled_ms.unwrap_or(millis(now));
            let long = millis(now).saturating_sub(since) >= u64::try_from(FORGET_AFTER.as_millis()).unwrap_or(u64::MAX);
            if !labelled && long {
                self.drop_until(&mut txn, &did, Day::MAX)?;
            }
            if self.sending.prefix_iter(&txn, &row_key(&did, ""))?.next().transpose()?.is_none() {
                self.standing.delete(&mut txn, name)?;
                ruled.forgotten += 1;
                continue;
            }
            let unlabelled_ms = (!labelled).then_some(since);
            if known.unlabelled_ms != unlabelled_ms {
                self.standing.put(&mut txn, name, &json(&Known { unlabelled_ms }))?;
            }
        }
        ruled.next = page.last().filter(|_| page.len() == RULED_AT_ONCE).map(|(name, _)| name.clone());
        txn.commit()?;
        if !ruled.issued.is_empty() {
            self.tell();
        }
        Ok(ruled)
    }

    fn rule_on(
        &self,
        txn: &mut RwTxn<'_>,
        did: &Did,
        by: &Rule,
        now: SystemTime,
        key: &SigningKey,
    ) -> Result<Option<Label>, StoreError> {
        let today = Day::of(now);
        let told = self.told(txn, did, today.back(WINDOW_DAYS))?;
        let stands = self.newest(txn, did.as_str(), CooperativeLabel::CleanSender.as_str())?;
        let granted = stands.is_some_and(|label| label.in_force(now));
        let ruling = rule(&by.clean, granted, today, &borrowed(&told));
        let issued = self.set_clean_in(txn, did, ruling.is_clean(), now, key)?;
        if let Some(label) = &issued {
            // The reason stays here: the world is told only that it is so.
            tracing::info!(did = did.as_str(), granted = !label.negates(), ?ruling, "clean-sender is said anew");
        } else if granted != ruling.is_clean() && ruling == Ruling::Granted {
            tracing::debug!(did = did.as_str(), "clean-sender is earned by whom no label verifies");
        }
        Ok(issued)
    }

    fn told(&self, txn: &RoTxn<'_>, did: &Did, from: Day) -> Result<Vec<(String, Day, Counts)>, StoreError> {
        let prefix = row_key(did, "");
        let mut told = Vec::new();
        if did.as_str().len() > DID_BYTES_MAX {
            return Ok(told);
        }
        for entry in self.sending.prefix_iter(txn, &prefix)? {
            let (name, row) = entry?;
            let corrupt = || StoreError::Corrupt("the name of a report".into());
            let (day, by) = name.get(prefix.len()..).and_then(|rest| rest.split_first_chunk::<4>()).ok_or_else(corrupt)?;
            let day = Day::from_number(u32::from_be_bytes(*day));
            if day >= from {
                let by = String::from_utf8(by.to_vec()).map_err(|_| corrupt())?;
                told.push((by, day, read::<Kept>(row)?.counts));
            }
        }
        Ok(told)
    }

    /// Drops what was reported of the days before `until`; all of it for the last day that there is.
    fn drop_until(&self, txn: &mut RwTxn<'_>, did: &Did, until: Day) -> Result<(), StoreError> {
        let from = row_key(did, "");
        let to = if until == Day::MAX { [did.as_str().as_bytes(), b"\x01"].concat() } else { day_key(did, until) };
        let range: (Bound<&[u8]>, Bound<&[u8]>) = (Bound::Included(&from), Bound::Excluded(&to));
        self.sending.delete_range(txn, &range)?;
        Ok(())
    }
}

fn borrowed(told: &[(String, Day, Counts)]) -> Vec<Told<'_>> {
    told.iter().map(|(by, day, counts)| Told { by, day: *day, counts: *counts }).collect()
}

/// DID, NUL, day: by day, since the oldest go first.
fn day_key(did: &Did, day: Day) -> Vec<u8> {
    [&row_key(did, "")[..], &day.number().to_be_bytes()].concat()
}

fn key_of(did: &Did, day: Day, mta: &Did) -> Vec<u8> {
    [&day_key(did, day)[..], mta.as_str().as_bytes()].concat()
}

fn json(row: &impl Serialize) -> Vec<u8> {
    let Ok(json) = serde_json::to_vec(row) else { unreachable!("a row is numbers and flags") };
    json
}

fn read<T: for<'de> Deserialize<'de>>(octets: &[u8]) -> Result<T, StoreError> {
    serde_json::from_slice(octets).map_err(|error| StoreError::Corrupt(format!("what was reported ({error})")))
}
