//! Labels: issued, issued again before they run out, signed again with a new key, and forgotten when long superseded.
//!
//! What is said of a subject is said once, and again when
//! - it has changed, or half of its time has passed (`renew` has the hour): so the word of a labeler that is dead ends by itself;
//! - the store came out of a backup since: consumers may have heard something else in between, which only a later `cts` can outdo;
//! - the key was changed: then with the old times, since nothing new is said (label spec, "Key rotation").
//!
//! A label that a newer one has superseded stays in the log for [`Terms::history`]; with the newest of each key always there, a consumer who
//! comes later than that still ends with the same labels as everybody.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use atproto::Did;
use atproto::key::SigningKey;
use atproto::label::{self, Label};
use atproto::lexicon::CooperativeLabel;
use atproto::stream::SEQ_MAX;
use heed::{RoTxn, RwTxn};

use super::current::{self, seq_of};
use super::{FLOOR, SEQ, Store, StoreError, current_key, millis, number};

/// Labels issued again, or forgotten, in one transaction: others who write wait no longer than this takes.
const UPKEEP_BATCH: usize = 1000;

/// How long labels hold, and how long superseded ones are kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Terms {
    /// From `cts` to `exp`. Half of it later the label is issued again.
    pub expires_after: Duration,
    /// How long a superseded label stays in the log.
    pub history: Duration,
}

impl Default for Terms {
    fn default() -> Self {
        Self { expires_after: Duration::from_secs(7 * 86_400), history: Duration::from_secs(30 * 86_400) }
    }
}

/// What [`Store::upkeep`] did.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Upkeep {
    /// Labels that were issued again.
    pub renewed: usize,
    /// Superseded labels that were forgotten.
    pub forgotten: usize,
    /// There is more to do at once.
    pub more: bool,
}

impl Store {
    /// Issues what is to be said of `did` now, where it differs from what was said. `clean-sender` is only taken back here, from who is not
    /// verified any more: it is granted by what MTAs report ([`Store::report`]).
    pub(super) fn issue(
        &self,
        txn: &mut RwTxn<'_>,
        did: &Did,
        wanted: &[CooperativeLabel],
        now: SystemTime,
        key: &SigningKey,
    ) -> Result<Vec<Label>, StoreError> {
        let mut issued = Vec::new();
        for value in [CooperativeLabel::VerifiedMailOperator, CooperativeLabel::RelayMember] {
            issued.extend(self.say(txn, did, value, wanted.contains(&value), now, key)?);
        }
        let clean = self.newest(txn, did.as_str(), CooperativeLabel::CleanSender.as_str())?;
        if clean.is_some_and(|label| !label.negates()) && !wanted.contains(&CooperativeLabel::VerifiedMailOperator) {
            issued.extend(self.say(txn, did, CooperativeLabel::CleanSender, false, now, key)?);
        }
        Ok(issued)
    }

    /// Grants `clean-sender` to a verified operator, or takes it back. Nothing is issued when that was said already, or the operator is not verified.
    pub fn set_clean_sender(
        &self,
        did: &Did,
        clean: bool,
        now: SystemTime,
        key: &SigningKey,
    ) -> Result<Option<Label>, StoreError> {
        let mut txn = self.env.write_txn()?;
        let issued = self.set_clean_in(&mut txn, did, clean, now, key)?;
        txn.commit()?;
        self.tell();
        Ok(issued)
    }

    pub(super) fn set_clean_in(
        &self,
        txn: &mut RwTxn<'_>,
        did: &Did,
        clean: bool,
        now: SystemTime,
        key: &SigningKey,
    ) -> Result<Option<Label>, StoreError> {
        let verified = self.newest(txn, did.as_str(), CooperativeLabel::VerifiedMailOperator.as_str())?;
        if clean && !verified.is_some_and(|label| label.in_force(now)) {
            return Ok(None);
        }
        self.say(txn, did, CooperativeLabel::CleanSender, clean, now, key)
    }

    fn say(
        &self,
        txn: &mut RwTxn<'_>,
        did: &Did,
        value: CooperativeLabel,
        holds: bool,
        now: SystemTime,
        key: &SigningKey,
    ) -> Result<Option<Label>, StoreError> {
        let newest = self.newest(txn, did.as_str(), value.as_str())?;
        let restored = UNIX_EPOCH + Duration::from_millis(self.restored_ms);
        let said = match &newest {
            None => !holds,
            Some(label) if holds => label.in_force(now) && label.exp.is_some() && atproto::instant(&label.cts) >= restored,
            Some(label) => label.negates() && atproto::instant(&label.cts) >= restored,
        };
        if said {
            return Ok(None);
        }
        let subject = Label::account(self.issuer.clone(), did, value.as_str(), atproto::datetime(now));
        self.say_again(txn, subject, newest.as_ref(), holds, now, key).map(Some)
    }

    /// Issues a statement anew: later than the last one about the same, whatever the clock says, since consumers keep the newest `cts`.
    fn say_again(
        &self,
        txn: &mut RwTxn<'_>,
        mut label: Label,
        newest: Option<&Label>,
        holds: bool,
        now: SystemTime,
        key: &SigningKey,
    ) -> Result<Label, StoreError> {
        let after = newest.map_or(UNIX_EPOCH, |newest| atproto::instant(&newest.cts) + Duration::from_millis(1));
        label.cts = atproto::datetime(now.max(after));
        label.neg = (!holds).then_some(true);
        label.exp = holds.then(|| atproto::datetime(atproto::instant(&label.cts) + self.terms.expires_after));
        label.sign(key);
        self.append(txn, &label, now)?;
        Ok(label)
    }

    pub(super) fn append(&self, txn: &mut RwTxn<'_>, label: &Label, now: SystemTime) -> Result<(), StoreError> {
        assert!(label::is_value(&label.val), "only values of the lexicon are issued, which are words");
        let seq = self.next(txn, SEQ)?;
        if seq > SEQ_MAX {
            return Err(StoreError::Corrupt("the last sequence number".into()));
        }
        let name = current_key(&label.uri, &label.val);
        if let Some(row) = self.current.get(txn, &name)? {
            let key = [millis(now).to_be_bytes(), seq_of(row)?.to_be_bytes()].concat();
            self.superseded.put(txn, &key, b"")?;
        }
        self.log.put(txn, &seq.to_be_bytes(), &label.to_cbor())?;
        self.put_current(txn, seq, label)
    }

    pub(super) fn put_current(&self, txn: &mut RwTxn<'_>, seq: u64, label: &Label) -> Result<(), StoreError> {
        let name = current_key(&label.uri, &label.val);
        self.current.put(txn, &name, &current::row(seq, label, self.issuer.as_str(), &name))?;
        if let (Some(exp), false) = (&label.exp, label.negates()) {
            // An eighth of the time is spread over, by number: what was issued together is not renewed all at once.
            let (half, eighth) = (self.terms.expires_after / 2, self.terms.expires_after / 8);
            let at = atproto::instant(exp).checked_sub(half + eighth * u32::try_from(seq % 64).unwrap_or(0) / 64);
            let key = [millis(at.unwrap_or(UNIX_EPOCH)).to_be_bytes(), seq.to_be_bytes()].concat();
            self.renew.put(txn, &key, &name)?;
        }
        Ok(())
    }

    /// The newest label about `subject` with this value.
    pub(super) fn newest(&self, txn: &RoTxn<'_>, subject: &str, val: &str) -> Result<Option<Label>, StoreError> {
        match self.current.get(txn, &current_key(subject, val))? {
            None => Ok(None),
            Some(row) => self.label(txn, seq_of(row)?).map(Some),
        }
    }

    pub(super) fn label(&self, txn: &RoTxn<'_>, seq: u64) -> Result<Label, StoreError> {
        let corrupt = || StoreError::Corrupt(format!("label {seq}"));
        Label::from_cbor(self.log.get(txn, &seq.to_be_bytes())?.ok_or_else(corrupt)?).map_err(|_| corrupt())
    }

    /// Issues again what will run out, forgets what was superseded long ago; a bounded part of it. Call it again at once if there is more,
    /// otherwise after a while.
    pub fn upkeep(&self, now: SystemTime, key: &SigningKey) -> Result<Upkeep, StoreError> {
        let mut done = Upkeep::default();
        let mut txn = self.env.write_txn()?;
        let due = first_until(self.renew.iter(&txn)?, millis(now))?;
        for (at, name) in &due {
            self.renew.delete(&mut txn, at)?;
            let seq = seq_at(at)?;
            // Another label has taken its place, or has been renewed already: that one has an entry of its own.
            if self.current.get(&txn, name)?.map(seq_of).transpose()? != Some(seq) {
                continue;
            }
            let label = self.label(&txn, seq)?;
            self.say_again(&mut txn, label.clone(), Some(&label), true, now, key)?;
            done.renewed += 1;
        }
        let since = now.checked_sub(self.terms.history).unwrap_or(UNIX_EPOCH);
        let old = first_until(self.superseded.iter(&txn)?, millis(since))?;
        let mut floor = self.counter(&txn, FLOOR)?;
        for (at, _) in &old {
            let seq = seq_at(at)?;
            self.superseded.delete(&mut txn, at)?;
            self.log.delete(&mut txn, &seq.to_be_bytes())?;
            floor = floor.max(seq);
        }
        done.forgotten = old.len();
        done.more = due.len() == UPKEEP_BATCH || old.len() == UPKEEP_BATCH;
        if !due.is_empty() || !old.is_empty() {
            self.meta.put(&mut txn, FLOOR, &floor.to_be_bytes())?;
            txn.commit()?;
            self.tell();
        }
        Ok(done)
    }
}

/// Key and value.
type Entry = (Vec<u8>, Vec<u8>);

/// Entries whose time, the first eight octets of the key, has come.
fn first_until<'t>(
    entries: impl Iterator<Item = heed::Result<(&'t [u8], &'t [u8])>>,
    until_ms: u64,
) -> Result<Vec<Entry>, StoreError> {
    let mut found = Vec::new();
    for entry in entries.take(UPKEEP_BATCH) {
        let (key, value) = entry?;
        if key.first_chunk().copied().map_or(0, u64::from_be_bytes) > until_ms {
            break;
        }
        found.push((key.to_vec(), value.to_vec()));
    }
    Ok(found)
}

/// The number in a key of `renew` or `superseded`.
fn seq_at(key: &[u8]) -> Result<u64, StoreError> {
    number(key.get(8..).unwrap_or_default())
}
