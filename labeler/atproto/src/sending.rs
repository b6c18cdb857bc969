//! What MTAs report of their members' mail, and what they are told of members: the bodies of `coop.tradewind.reportSending` and
//! `coop.tradewind.getStanding` (lexicons/coop/tradewind).
//!
//! Both daemons use these types. Only counts travel: no recipient, no domain of one, no message.
//!
//! Not here: what follows from the counts (the labeler's `judge::sending`), and who may call (`jwt`).

use std::fmt;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use crate::Did;

/// The procedure by which an MTA reports.
pub const REPORT_SENDING: &str = "coop.tradewind.reportSending";
/// The query by which an MTA reads doubts.
pub const GET_STANDING: &str = "coop.tradewind.getStanding";
/// The service of the labeler that both are asked of, as `aud` names it.
pub const SERVICE: &str = "atproto_labeler";
/// Reports in one call.
pub const REPORTS_MAX: usize = 200;
/// Accounts asked about in one call.
pub const DIDS_MAX: usize = 100;
/// Days back from today that a report may speak of; older ones would no longer count.
pub const DAYS_BACK_MAX: u32 = 30;
/// Of any one count: more recipients than anybody sends to in a day, and far from what sums could not hold.
pub const COUNT_MAX: u64 = 1_000_000_000;
/// The largest integer that JSON carries everywhere.
pub const REVISION_MAX: u64 = (1 << 53) - 1;

/// A day of UTC, written `2026-11-26`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Day(u32);

/// What became of one account's mail at one MTA in one day. Everything counts recipients, not messages.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Report {
    /// Whose mail.
    pub did: Did,
    /// When it became so.
    pub day: Day,
    /// Rises with each correction of the same day: of two reports the one with the higher number counts. At least 1.
    pub revision: u64,
    /// How much.
    #[serde(flatten)]
    pub counts: Counts,
}

/// The counts of a day.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Counts {
    /// A host took the mail over.
    pub delivered: u64,
    /// A host refused for good, or there was none.
    pub failed: u64,
    /// Nobody took it in time.
    pub expired: u64,
    /// Put off with words about the sender's reputation; each attempt counts.
    pub deferred: u64,
    /// Reports of spam by recipients. Absent: this MTA does not learn of them, which is not the same as none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub complaints: Option<u64>,
    /// Addresses that nobody has, and that are there to catch spam. Absent: this MTA does not learn of them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub spam_traps: Option<u64>,
    /// The MTA's operator had suspended the account when this was written.
    pub suspended: bool,
}

/// What the procedure is given.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sending {
    /// Up to [`REPORTS_MAX`].
    pub reports: Vec<Report>,
}

/// What the procedure answers.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reported {
    /// Reports that were new, or newer than what was known.
    pub taken: u64,
    /// Reports that were known already, or a newer one was.
    pub unchanged: u64,
    /// Reports that do not count.
    pub refused: Vec<RefusedReport>,
}

/// A report that does not count. The others of the same call do.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RefusedReport {
    /// Whose.
    pub did: Did,
    /// Of which day.
    pub day: Day,
    /// Why.
    pub reason: Wrong,
}

/// Why a report does not count.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Wrong {
    /// The labeler knows no attestation of this account: report no more of it.
    UnknownAccount,
    /// More than [`DAYS_BACK_MAX`] days ago.
    TooOld,
    /// The day has not begun: a clock is wrong.
    InTheFuture,
    /// A number is larger than its bound, or the revision is 0.
    OutOfRange,
}

/// What the query answers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Standings {
    /// One for each account asked about, in the order of the question.
    pub standings: Vec<Standing>,
}

/// Doubts about one account.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Standing {
    /// Whose.
    pub did: Did,
    /// None: nothing is known against it.
    pub doubts: Vec<Doubt>,
}

/// One doubt. What it rests on stands beside it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Doubt {
    /// What it is about.
    pub kind: DoubtKind,
    /// How serious it is.
    pub severity: Severity,
    /// The first day that it rests on.
    pub since: Day,
    /// Recipients that were counted.
    pub of: u64,
    /// So many of them.
    pub count: u64,
}

/// What a doubt is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum DoubtKind {
    /// Recipients call it spam.
    Complaints,
    /// Recipients do not exist, or their hosts refuse.
    Failures,
    /// Addresses that exist to catch spam.
    SpamTraps,
    /// The operator of some MTA has suspended the account.
    Suspended,
}

/// How serious a doubt is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Severity {
    /// Look at it.
    Watch,
    /// New mail should wait.
    Pause,
}

impl Report {
    /// Whether it can count, `today`. An MTA whose clock is a little ahead may have begun the next day already.
    pub fn check(&self, today: Day) -> Result<(), Wrong> {
        let Counts { delivered, failed, expired, deferred, complaints, spam_traps, suspended: _ } = self.counts;
        let all = [delivered, failed, expired, deferred, complaints.unwrap_or(0), spam_traps.unwrap_or(0)];
        if !(1..=REVISION_MAX).contains(&self.revision) || all.iter().any(|count| *count > COUNT_MAX) {
            return Err(Wrong::OutOfRange);
        }
        if self.day.0 > today.0.saturating_add(1) {
            return Err(Wrong::InTheFuture);
        }
        if self.day < today.back(DAYS_BACK_MAX) { Err(Wrong::TooOld) } else { Ok(()) }
    }
}

impl Standing {
    /// The doubt for which new mail should wait.
    pub fn pause(&self) -> Option<&Doubt> {
        self.doubts.iter().find(|doubt| doubt.severity == Severity::Pause)
    }
}

impl DoubtKind {
    /// As JSON has it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Complaints => "complaints",
            Self::Failures => "failures",
            Self::SpamTraps => "spam-traps",
            Self::Suspended => "suspended",
        }
    }
}

impl fmt::Display for Doubt {
    /// For people: `complaints: 12 of 3000 since 2026-11-20`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { kind, since, of, count, .. } = self;
        match kind {
            DoubtKind::Suspended => write!(f, "suspended elsewhere since {since}"),
            kind => write!(f, "{}: {count} of {of} since {since}", kind.as_str()),
        }
    }
}

impl Day {
    /// The last that every time of it can be written of.
    pub const MAX: Self = Self(2_932_894);

    /// The day of an instant.
    pub fn of(at: SystemTime) -> Self {
        let secs = at.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
        Self(u32::try_from(secs / 86_400).unwrap_or(u32::MAX)).min(Self::MAX)
    }

    /// Counted from 1970.
    pub fn from_number(number: u32) -> Self {
        Self(number).min(Self::MAX)
    }

    /// Counted from 1970.
    pub fn number(self) -> u32 {
        self.0
    }

    /// So many days before.
    #[must_use]
    pub fn back(self, days: u32) -> Self {
        Self(self.0.saturating_sub(days))
    }

    /// When it begins.
    pub fn begin(self) -> SystemTime {
        UNIX_EPOCH + Duration::from_secs(u64::from(self.0) * 86_400)
    }
}

impl fmt::Display for Day {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = crate::datetime(self.begin());
        f.write_str(text.as_str().split('T').next().unwrap_or_default())
    }
}

impl std::str::FromStr for Day {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        const RIGHT: &str = "not a day such as 2026-11-26";
        if text.len() != 10 {
            return Err(RIGHT);
        }
        let date: jiff::civil::Date = text.parse().map_err(|_| RIGHT)?;
        let begin = date.to_zoned(jiff::tz::TimeZone::UTC).map_err(|_| RIGHT)?.timestamp().as_second();
        u32::try_from(begin / 86_400).map(Self).map_err(|_| RIGHT)
    }
}

impl Serialize for Day {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Day {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TODAY: Day = Day(20_783);

    fn report(day: u32, revision: u64, delivered: u64) -> Report {
        let counts = Counts { delivered, ..Counts::default() };
        Report { did: "did:plc:a".parse().unwrap(), day: Day(day), revision, counts }
    }

    #[test]
    fn a_day_is_written_and_read_as_a_date_of_utc() {
        assert_eq!(TODAY.to_string(), "2026-11-26");
        assert_eq!("2026-11-26".parse(), Ok(TODAY));
        assert_eq!(Day::of(TODAY.begin() + Duration::from_secs(86_399)), TODAY);
        assert_eq!(Day::of(TODAY.begin() + Duration::from_secs(86_400)), Day(20_784));
        assert_eq!(Day::MAX.to_string().parse(), Ok(Day::MAX));
        for wrong in ["", "2026-11-31", "2026-1-1", "20261126", "2026-11-26T", "1969-12-31", "+02026-1-1", "2026-11-2é"] {
            assert!(wrong.parse::<Day>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_report_counts_from_thirty_days_ago_until_tomorrow_and_within_its_bounds() {
        let today = TODAY.number();
        for (report, expected) in [
            (report(today, 1, 0), Ok(())),
            (report(today + 1, 1, 0), Ok(())),
            (report(today + 2, 1, 0), Err(Wrong::InTheFuture)),
            (report(today - 30, 1, 0), Ok(())),
            (report(today - 31, 1, 0), Err(Wrong::TooOld)),
            (report(today, 0, 0), Err(Wrong::OutOfRange)),
            (report(today, REVISION_MAX, COUNT_MAX), Ok(())),
            (report(today, REVISION_MAX + 1, 0), Err(Wrong::OutOfRange)),
            (report(today, 1, COUNT_MAX + 1), Err(Wrong::OutOfRange)),
        ] {
            assert_eq!(report.check(TODAY), expected, "{report:?}");
        }
    }

    #[test]
    fn what_is_not_known_is_left_out_and_is_not_nothing() {
        let written = serde_json::to_string(&report(20_783, 7, 3)).unwrap();
        assert_eq!(
            written,
            "{\"did\":\"did:plc:a\",\"day\":\"2026-11-26\",\"revision\":7,\"delivered\":3,\"failed\":0,\"expired\":0,\"deferred\":0,\
             \"suspended\":false}"
        );
        let read: Report = serde_json::from_str(&written).unwrap();
        assert_eq!(read.counts.complaints, None);
        for wrong in [written.replace(":3", ":-3"), written.replace(":3", ":3.5"), written.replace(":3", ":\"3\"")] {
            assert!(serde_json::from_str::<Report>(&wrong).is_err(), "{wrong}");
        }
    }
}
