//! From what MTAs report of an account's mail to `clean-sender` and to doubts. Pure: reports come in, a ruling goes out.
//!
//! Two questions, asked of the same counts. **Is its mail wanted?** looks at [`WINDOW_DAYS`] days; a yes is the public label
//! `clean-sender`. It is granted below one bound and withdrawn at a higher one; in between what was said stands, so that an
//! account near a bound does not flicker. It rests on mail: when reports stop, it ends. **Is there reason to doubt it?** looks at
//! [`DOUBT_DAYS`] days, and the answer is for MTAs of the co-op only. A doubt ends by itself when its days are over, since who is
//! paused can prove nothing.
//!
//! Where the usual bounds come from:
//! - complaints 0.1 % and 0.3 %: Google's "Email sender guidelines" ask bulk senders to stay below 0.1 % and never to reach 0.3 %;
//!   Yahoo's sender best practices ask for less than 0.3 %. Both measure against mail that was delivered, and so do we.
//! - failures 5 % and 10 %: Amazon SES reviews an account at 5 % hard bounces and may pause it at 10 %; below 2 % is what it calls
//!   good.
//!
//! One recipient's complaint alone takes nothing: with a few hundred recipients it would be a share above any bound.
//!
//! Not here: where reports are kept (`store::sending`), who may report (`standing`).

use std::collections::{BTreeMap, BTreeSet};

use atproto::sending::{Counts, DAYS_BACK_MAX, Day, Doubt, DoubtKind, Severity};

/// Days, today among them, that `clean-sender` rests on: as many as may be reported.
pub const WINDOW_DAYS: u32 = DAYS_BACK_MAX;
/// Days, today among them, that doubts rest on.
pub const DOUBT_DAYS: u32 = 7;
/// Complaints below this take nothing, whatever share they are.
pub const COMPLAINTS_MIN: u64 = 2;
/// Complaints below this pause nobody.
pub const PAUSE_COMPLAINTS_MIN: u64 = 3;

/// A part of a whole, in millionths.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Share(pub u32);

/// All bounds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Rule {
    /// Of `clean-sender`.
    pub clean: CleanRule,
    /// Of doubts.
    pub doubt: DoubtRule,
}

/// When `clean-sender` is granted and withdrawn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CleanRule {
    /// Recipients that were delivered to or failed. It is withdrawn below half of it.
    pub mail_min: u64,
    /// Days with mail.
    pub days_min: u32,
    /// Days without any report after which it is withdrawn.
    pub silent_days: u32,
    /// Whether so much mail must have gone through MTAs that learn of complaints.
    pub complaints_required: bool,
    /// Granted below,
    pub complaints_below: Share,
    /// withdrawn from.
    pub complaints_from: Share,
    /// Granted below,
    pub failures_below: Share,
    /// withdrawn from.
    pub failures_from: Share,
}

/// When there are doubts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DoubtRule {
    /// Recipients below which failures are no ground.
    pub mail_min: u64,
    /// [`Severity::Watch`] from here.
    pub complaints_watch: Share,
    /// [`Severity::Pause`] from here.
    pub complaints_pause: Share,
    /// [`Severity::Watch`] from here.
    pub failures_watch: Share,
    /// [`Severity::Pause`] from here.
    pub failures_pause: Share,
}

/// What one MTA said of one day.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Told<'a> {
    /// The MTA's DID.
    pub by: &'a str,
    /// The day.
    pub day: Day,
    /// What it counted.
    pub counts: Counts,
}

/// Whether `clean-sender` is to stand, and why.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ruling {
    /// Its mail is wanted, as far as anybody can tell.
    Granted,
    /// It was granted, and nothing says otherwise.
    Kept,
    /// Nobody has reported for so long.
    Silent,
    /// An address that catches spam was sent to.
    SpamTraps,
    /// Too many complaints.
    Complaints,
    /// Nobody who reports learns of complaints.
    ComplaintsUnknown,
    /// Too many failures.
    Failures,
    /// Too little mail to tell.
    TooLittle,
    /// On too few days.
    TooFewDays,
}

impl Ruling {
    /// Whether the label is to stand.
    pub fn is_clean(self) -> bool {
        matches!(self, Self::Granted | Self::Kept)
    }
}

impl Default for CleanRule {
    fn default() -> Self {
        Self {
            mail_min: 500,
            days_min: 7,
            silent_days: 14,
            complaints_required: true,
            complaints_below: Share(1_000),
            complaints_from: Share(3_000),
            failures_below: Share(20_000),
            failures_from: Share(50_000),
        }
    }
}

impl Default for DoubtRule {
    fn default() -> Self {
        Self {
            mail_min: 200,
            complaints_watch: Share(1_000),
            complaints_pause: Share(3_000),
            failures_watch: Share(50_000),
            failures_pause: Share(100_000),
        }
    }
}

/// Whether `clean-sender` is to stand `today`; `granted`: it stands now.
pub fn rule(rule: &CleanRule, granted: bool, today: Day, told: &[Told<'_>]) -> Ruling {
    let window = || within(told, today, WINDOW_DAYS);
    let last = window().map(|it| it.day).max();
    if last.is_none_or(|last| today.number().saturating_sub(last.number()) >= rule.silent_days) {
        return Ruling::Silent;
    }
    let sums = Sums::of(window());
    if sums.trapped > 0 {
        return Ruling::SpamTraps;
    }
    let complained = sums.complaints >= COMPLAINTS_MIN && rule.complaints_from.reached(sums.complaints, sums.measured);
    if complained {
        return Ruling::Complaints;
    }
    if rule.failures_from.reached(sums.failed, sums.mail()) {
        return Ruling::Failures;
    }
    let mail_min = if granted { rule.mail_min / 2 } else { rule.mail_min };
    if sums.mail() < mail_min {
        return Ruling::TooLittle;
    }
    if rule.complaints_required && sums.measured < mail_min / 2 {
        return Ruling::ComplaintsUnknown;
    }
    if granted {
        return Ruling::Kept;
    }
    if sums.days < rule.days_min {
        return Ruling::TooFewDays;
    }
    if rule.complaints_below.reached(sums.complaints, sums.measured) {
        return Ruling::Complaints;
    }
    if rule.failures_below.reached(sums.failed, sums.mail()) { Ruling::Failures } else { Ruling::Granted }
}

/// What speaks against an account `today`, at most one of each kind.
pub fn doubts(rule: &DoubtRule, today: Day, told: &[Told<'_>]) -> Vec<Doubt> {
    let window = || within(told, today, DOUBT_DAYS);
    let sums = Sums::of(window());
    let since = |counts: fn(&Counts) -> bool| window().filter(|it| counts(&it.counts)).map(|it| it.day).min().unwrap_or(today);
    let mut doubts = Vec::new();
    let complaints = match (sums.complaints, sums.measured) {
        (count @ PAUSE_COMPLAINTS_MIN.., of) if rule.complaints_pause.reached(count, of) => Some(Severity::Pause),
        (count @ COMPLAINTS_MIN.., of) if rule.complaints_watch.reached(count, of) => Some(Severity::Watch),
        _ => None,
    };
    doubts.extend(complaints.map(|severity| Doubt {
        kind: DoubtKind::Complaints,
        severity,
        since: since(|it| it.complaints.is_some_and(|count| count > 0)),
        of: sums.measured,
        count: sums.complaints,
    }));
    let failures = match (sums.failed, sums.mail()) {
        (_, mail) if mail < rule.mail_min => None,
        (count, of) if rule.failures_pause.reached(count, of) => Some(Severity::Pause),
        (count, of) if rule.failures_watch.reached(count, of) => Some(Severity::Watch),
        _ => None,
    };
    doubts.extend(failures.map(|severity| Doubt {
        kind: DoubtKind::Failures,
        severity,
        since: since(|it| it.failed > 0),
        of: sums.mail(),
        count: sums.failed,
    }));
    if sums.trapped > 0 {
        doubts.push(Doubt {
            kind: DoubtKind::SpamTraps,
            severity: Severity::Watch,
            since: since(|it| it.spam_traps.is_some_and(|count| count > 0)),
            of: sums.mail(),
            count: sums.trapped,
        });
    }
    // Only watched: were it a reason to pause elsewhere, two MTAs could hold an account for ever on each other's word.
    let mut latest: BTreeMap<&str, Told<'_>> = BTreeMap::new();
    for it in window() {
        let newest = latest.entry(it.by).or_insert(*it);
        if it.day > newest.day {
            *newest = *it;
        }
    }
    let suspended: Vec<Day> = latest.values().filter(|it| it.counts.suspended).map(|it| it.day).collect();
    if let Some(first) = suspended.iter().min() {
        let (of, count) = (latest.len() as u64, suspended.len() as u64);
        doubts.push(Doubt { kind: DoubtKind::Suspended, severity: Severity::Watch, since: *first, of, count });
    }
    doubts
}

/// The last `days` days, and what an MTA whose clock is ahead says of tomorrow.
fn within<'t, 'a>(told: &'t [Told<'a>], today: Day, days: u32) -> impl Iterator<Item = &'t Told<'a>> {
    let from = today.back(days.saturating_sub(1));
    told.iter().filter(move |it| it.day >= from)
}

impl Share {
    /// Whether `count` is at least this share of `of`. Something of nothing is all of it.
    pub fn reached(self, count: u64, of: u64) -> bool {
        count > 0 && u128::from(count) * 1_000_000 >= u128::from(self.0) * u128::from(of)
    }
}

/// What all MTAs together saw.
#[derive(Debug, Default)]
struct Sums {
    delivered: u64,
    failed: u64,
    /// Delivered by MTAs that learn of complaints.
    measured: u64,
    complaints: u64,
    trapped: u64,
    /// With mail.
    days: u32,
}

impl Sums {
    fn of<'t, 'a: 't>(told: impl Iterator<Item = &'t Told<'a>>) -> Self {
        let (mut sums, mut days) = (Self::default(), BTreeSet::new());
        for Told { day, counts, .. } in told {
            sums.delivered = sums.delivered.saturating_add(counts.delivered);
            sums.failed = sums.failed.saturating_add(counts.failed);
            if let Some(complaints) = counts.complaints {
                sums.measured = sums.measured.saturating_add(counts.delivered);
                sums.complaints = sums.complaints.saturating_add(complaints);
            }
            sums.trapped = sums.trapped.saturating_add(counts.spam_traps.unwrap_or(0));
            if counts.delivered > 0 || counts.failed > 0 {
                days.insert(*day);
            }
        }
        sums.days = u32::try_from(days.len()).unwrap_or(u32::MAX);
        sums
    }

    fn mail(&self) -> u64 {
        self.delivered.saturating_add(self.failed)
    }
}

#[cfg(test)]
#[path = "sending_tests.rs"]
mod tests;
