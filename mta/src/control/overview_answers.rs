//! What is said at a glance: counts of the day and of its hours, ages, and what needs a person.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::api::LabelerStatus;

/// How everything goes, on one page.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Overview {
    /// When this was true.
    pub asked_at: String,
    /// Since midnight by UTC, as far as events are kept and were counted after the last start.
    pub today: CountsRow,
    /// Hour by hour, the oldest first: the last 25, the one that runs among them.
    pub hours: Vec<HourRow>,
    /// Today by who operates the host that answered, the busiest first. `accepted` is 0: who accepts says nothing of receivers.
    pub providers: Vec<CountsOf>,
    /// Today by member (its DID; `own` is mail of our own), the busiest first, at most [`MEMBERS_MAX`].
    pub members: Vec<CountsOf>,
    /// Messages in the queue.
    pub messages: u64,
    /// Deliveries in the queue.
    pub deliveries: u64,
    /// Of these, held by an operator.
    pub held: u64,
    /// The oldest message of each class.
    pub ages: Vec<AgeRow>,
    /// The labeler; none when labels are not consulted.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub labeler: Option<LabelerStatus>,
    /// Whether name servers answer.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub resolver: Option<ResolverHealth>,
    /// What the DNS says of our sources' names, and whether block lists answer: how many are as they should be.
    pub dns: DnsHealth,
    /// What a person should look at now, the worst first.
    pub attention: Vec<Attention>,
}

/// Members that an overview counts by themselves.
pub const MEMBERS_MAX: usize = 100;

/// Recipients.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct CountsRow {
    /// Of messages that got their 250.
    pub accepted: u64,
    /// Taken over by a host.
    pub delivered: u64,
    /// Left open by an attempt, each time.
    pub deferred: u64,
    /// Refused for good, or given up when their time was over.
    pub failed: u64,
}

/// One hour.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct HourRow {
    /// When it began.
    pub at: String,
    /// What it came to.
    #[serde(flatten)]
    pub counts: CountsRow,
}

/// What one came to.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct CountsOf {
    /// Whose.
    pub name: String,
    /// What it came to.
    #[serde(flatten)]
    pub counts: CountsRow,
}

/// The oldest message of a class.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct AgeRow {
    /// otp, transactional or notice.
    pub class: String,
    /// When the oldest one that still waits was accepted. None: none waits.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub oldest_at: Option<String>,
    /// Seconds since then.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub age_secs: Option<u64>,
    /// false: so much older mail of other classes waits that there may be an older one.
    pub sure: bool,
}

/// What became of questions to name servers lately; what is answered from memory is not counted.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ResolverHealth {
    /// validate, trust-ad or off: `[dns] dnssec`.
    pub dnssec: String,
    /// Counted over so many minutes.
    pub minutes: u64,
    /// There were records.
    pub answered: u64,
    /// There are no such records, or there is no such name.
    pub absent: u64,
    /// Every name server failed, the first by an answer such as SERVFAIL.
    pub failed: u64,
    /// Every name server failed, and from the first there was no answer in time.
    pub silent: u64,
    /// Signatures did not hold.
    pub bogus: u64,
    /// The last that went wrong in that time.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub trouble: Option<String>,
}

/// What the watch over our sources finds.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct DnsHealth {
    /// Sources that were looked at.
    pub sources_seen: u64,
    /// Of these, with a name as it should be.
    pub names_good: u64,
    /// Block lists that list a source, counted by source.
    pub listed: u64,
    /// Block lists that do not answer us, or could not be asked, counted by source.
    pub unanswered: u64,
    /// When they were looked at last.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub seen_at: Option<String>,
}

/// Something that a person should look at.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Attention {
    /// labeler, dns, source, otp, damaged, warmup, action or member.
    pub kind: String,
    /// What it is, and what to do.
    pub says: String,
    /// The path of the API that tells more.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub path: Option<String>,
}

/// Which events to stream.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct StreamFilter {
    /// Those after this number; the field `Last-Event-ID` goes before. None: those that come from now on.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub after: Option<u64>,
    /// Only of this member: DID or sending domain.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub member: Option<String>,
    /// Only of this message.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub id: Option<String>,
    /// Not each event, but once a second at most the number of the newest: for a page that then asks for what it shows.
    #[serde(skip_serializing_if = "std::ops::Not::not", default)]
    pub news_only: bool,
}
