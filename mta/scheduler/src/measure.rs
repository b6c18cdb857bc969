//! Measures: what the scheduler does about trouble by itself, each with an id, a cause and an end. Operators call one an
//! action: `tradewind actions` lists, cancels and extends them.
//!
//! A measure comes from a rule (`Reaction`, counted in `react.rs`), from the suspension of a site or of a source there
//! (`health.rs`), or from a watch outside that found something about a source (`set_source_health`). It is news
//! (`MeasureNews`) when it starts and when it ends, so that the driver can write it down and a restart can bring it back.
//!
//! Not here: the table of those that run (`measures.rs`).

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use crate::types::QueueId;

/// What a reply speaks of, as the driver's table of replies has it. Scope and verdict say how wide and how lasting.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum ReplyClass {
    /// The recipient's mailbox: unknown, full, disabled.
    Mailbox,
    /// What the message contains, or looks like.
    Content,
    /// A rule of the receiver that is none of the others.
    Policy,
    /// What the receiver thinks of our address: listed, blocked, no good name.
    Reputation,
    /// Too many, too fast, too many connections.
    Rate,
    /// Come back later, from the same address (RFC 6647).
    Greylist,
    /// SPF, DKIM or DMARC of the sender's domain (RFC 7372).
    Auth,
    /// Encryption: missing, required, broken.
    Tls,
    /// The receiver's own trouble: overloaded, out of order, unreachable.
    Host,
}

impl ReplyClass {
    /// All of them.
    pub const ALL: [ReplyClass; 9] = [
        ReplyClass::Mailbox,
        ReplyClass::Content,
        ReplyClass::Policy,
        ReplyClass::Reputation,
        ReplyClass::Rate,
        ReplyClass::Greylist,
        ReplyClass::Auth,
        ReplyClass::Tls,
        ReplyClass::Host,
    ];

    /// The word for it in rules, lists and counters.
    pub fn as_str(self) -> &'static str {
        match self {
            ReplyClass::Mailbox => "mailbox",
            ReplyClass::Content => "content",
            ReplyClass::Policy => "policy",
            ReplyClass::Reputation => "reputation",
            ReplyClass::Rate => "rate",
            ReplyClass::Greylist => "greylist",
            ReplyClass::Auth => "auth",
            ReplyClass::Tls => "tls",
            ReplyClass::Host => "host",
        }
    }
}

impl fmt::Display for ReplyClass {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl FromStr for ReplyClass {
    type Err = ();

    fn from_str(text: &str) -> Result<ReplyClass, ()> {
        ReplyClass::ALL.into_iter().find(|class| class.as_str() == text).ok_or(())
    }
}

/// What a measure does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum MeasureKind {
    /// A site is left alone by all sources; then one delivery goes and sees.
    LeaveSite,
    /// One source leaves a site alone; then one delivery goes and sees.
    PauseSite,
    /// The window of a source at a site is no wider than it was halved to.
    Narrow,
    /// One source sends nothing to any site of a provider.
    PauseProvider,
    /// One source sends nothing at all.
    PauseSource,
    /// One source has a quarter of its share of the mail.
    DegradeSource,
    /// One delivery is tried from another source than before, once.
    OtherSource,
    /// Nothing of a member is sent.
    HoldMember,
}

impl MeasureKind {
    /// All of them, in the order of their numbers.
    pub const ALL: [MeasureKind; 8] = [
        MeasureKind::LeaveSite,
        MeasureKind::PauseSite,
        MeasureKind::Narrow,
        MeasureKind::PauseProvider,
        MeasureKind::PauseSource,
        MeasureKind::DegradeSource,
        MeasureKind::OtherSource,
        MeasureKind::HoldMember,
    ];

    /// The word for it in rules, lists and counters.
    pub fn as_str(self) -> &'static str {
        match self {
            MeasureKind::LeaveSite => "leave_site",
            MeasureKind::PauseSite => "pause_site",
            MeasureKind::Narrow => "narrow",
            MeasureKind::PauseProvider => "pause_provider",
            MeasureKind::PauseSource => "pause_source",
            MeasureKind::DegradeSource => "degrade_source",
            MeasureKind::OtherSource => "other_source",
            MeasureKind::HoldMember => "hold_member",
        }
    }
}

impl fmt::Display for MeasureKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// What a measure is about. Names and not numbers, because it outlives a restart.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Object {
    /// A site, from whatever source.
    Site(Arc<str>),
    /// A source at a site.
    AtSite {
        /// The source's name.
        source: Arc<str>,
        /// The site's name.
        site: Arc<str>,
    },
    /// A source at all sites of a provider.
    AtProvider {
        /// The source's name.
        source: Arc<str>,
        /// The provider's name.
        provider: Arc<str>,
    },
    /// A source, everywhere.
    Source(Arc<str>),
    /// A member: the queue's number.
    Member(u32),
    /// One delivery, and the source that it is not to be tried from.
    Delivery {
        /// The message.
        id: QueueId,
        /// The recipient domain.
        domain: Arc<str>,
        /// The source to avoid.
        source: Arc<str>,
    },
}

/// Something that is being done, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Measure {
    /// Never given twice.
    pub id: u64,
    /// What is done.
    pub kind: MeasureKind,
    /// About what.
    pub object: Object,
    /// The class of the reply that led to it, if it was one that the table knows.
    pub class: Option<ReplyClass>,
    /// The rule that asked for it; `suspend` for what the scheduler does without rules, `watch` for what came from outside.
    pub rule: Arc<str>,
    /// The reply, verbatim, or our own words where there was none.
    pub cause: Arc<str>,
    /// Since when.
    pub started: SystemTime,
    /// Until when.
    pub expires: SystemTime,
    /// How often the cause came again and moved the end.
    pub again: u32,
    /// `Narrow`: the widest that the window may be.
    pub window: Option<u16>,
}

/// What happened to a measure.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// It began.
    Started,
    /// Its cause came again: the end moved, by itself.
    Again,
    /// An operator moved the end; who and why.
    Extended(Arc<str>),
    /// It ended before its time: who wanted that, and why.
    Cancelled(Arc<str>),
    /// Its time is over, or what it waited for is well again.
    Expired,
}

impl Change {
    /// Nothing follows.
    pub fn is_end(&self) -> bool {
        matches!(self, Change::Cancelled(_) | Change::Expired)
    }
}

/// To be written down by the driver.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MeasureNews {
    /// As it is now.
    pub measure: Measure,
    /// What happened.
    pub change: Change,
}

/// How a source stands with a provider, or as a whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum SourceHealth {
    /// Nothing is known against it.
    Healthy,
    /// It sends less than its share, or leaves some sites alone.
    Degraded,
    /// It sends nothing.
    Paused,
}

impl SourceHealth {
    /// The word for it.
    pub fn as_str(self) -> &'static str {
        match self {
            SourceHealth::Healthy => "healthy",
            SourceHealth::Degraded => "degraded",
            SourceHealth::Paused => "paused",
        }
    }
}

/// When a rule acts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Threshold {
    /// After so many such replies within the interval.
    Count(u32),
    /// When such replies are so many per cent of all attempts within the interval, of at least so many.
    Share {
        /// 1 to 100.
        percent: u8,
        /// Attempts below which nothing is concluded.
        sample: u32,
    },
}

/// What is to be done about replies of a class. Counted by what the kind of measure is about: the source at the site, the
/// source at the provider, the member.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reaction {
    /// Its name, for the record.
    pub name: Arc<str>,
    /// Replies of this class.
    pub class: ReplyClass,
    /// Only of this provider. None: of any.
    pub provider: Option<Arc<str>>,
    /// When it acts. `OtherSource` acts on each such reply.
    pub threshold: Threshold,
    /// The interval that is counted.
    pub within: Duration,
    /// `Narrow`, `PauseSite`, `PauseProvider`, `OtherSource` or `HoldMember`; others are never asked for by rules.
    pub act: MeasureKind,
    /// How long what it does lasts.
    pub lasts: Duration,
    /// How long a pause lasts where the pool has no other source for the provider: then the mail waits, and does not go elsewhere.
    pub alone: Option<Duration>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn classes_read_back_and_words_differ() {
        for class in ReplyClass::ALL {
            assert_eq!(class.as_str().parse(), Ok(class));
        }
        assert_eq!("spam".parse::<ReplyClass>(), Err(()));
        let words: std::collections::BTreeSet<_> = MeasureKind::ALL.iter().map(|kind| kind.as_str()).collect();
        assert_eq!(words.len(), MeasureKind::ALL.len());
    }
}
