//! The metrics: one table of names, what they mean, and what their labels may say.
//!
//! From the table come the constants that the code counts with, the descriptions that are scraped, and `docs/metrics.md`; a test
//! finds whoever counts by another name or label. **Labels are bounded**: their values are words of the code or names of the
//! configuration, never a message, a recipient, a domain or a site. So the number of series ([`series_max`]) follows the
//! configuration and not the mail.
//!
//! Names follow Prometheus's conventions: prefix, base units (seconds, bytes), `_total` for what only grows.
//! Count on the control thread directly; a ring thread keeps plain counters and adds them up here in batches.

use std::fmt::Write;

use metrics::{Unit, describe_counter, describe_gauge, describe_histogram};
use metrics_exporter_prometheus::{BuildError, Matcher, PrometheusBuilder, PrometheusHandle};

/// A metric, as the table has it.
#[derive(Clone, Copy, Debug)]
pub struct Metric {
    /// What the code calls it.
    pub constant: &'static str,
    /// Its name.
    pub name: &'static str,
    /// How it moves.
    pub kind: Kind,
    /// What it is counted in; nothing: things.
    pub unit: Option<Unit>,
    help: &'static str,
    /// Its labels, and what each may say.
    pub labels: &'static [(&'static str, Values)],
}

/// How a metric moves.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Kind {
    /// It only grows, until the process ends.
    Counter,
    /// It goes up and down.
    Gauge,
    /// It counts by size, with these upper bounds and +Inf.
    Histogram(&'static [f64]),
}

/// What a label may say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Values {
    /// These words.
    Words(&'static [&'static str]),
    /// Our version.
    Version,
    /// The statuses of our own replies, of which there are fewer than [`STATUSES_MAX`].
    Statuses,
    /// The sources of the configuration.
    Sources,
    /// The providers of the configuration, and `other` for the long tail.
    Providers,
    /// The block lists that are asked.
    Zones,
    /// The source of a `[[climb]]`.
    Climbs,
    /// The provider of the same `[[climb]]`.
    OfClimb,
}

/// What the configuration holds, for [`series_max`].
#[derive(Clone, Copy, Debug)]
pub struct Sizes {
    /// Sources.
    pub sources: usize,
    /// Providers, the long tail among them.
    pub providers: usize,
    /// Block lists.
    pub zones: usize,
    /// Pairs of a source and a provider where it warms up.
    pub climbs: usize,
}

/// Enhanced statuses are literals of the code; so many there will not be.
pub const STATUSES_MAX: usize = 64;

/// From a fast disk's sync to a disk in trouble.
const SECONDS: [f64; 12] = [0.0002, 0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.5, 2.0, 10.0];
const BATCH: [f64; 9] = [1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 256.0, 1024.0];

macro_rules! kind {
    (counter) => {
        Kind::Counter
    };
    (gauge) => {
        Kind::Gauge
    };
    (histogram $bounds:ident) => {
        Kind::Histogram(&$bounds)
    };
}

macro_rules! unit {
    () => {
        None
    };
    ($unit:ident) => {
        Some(Unit::$unit)
    };
}

/// A line of the table is a constant too; its comment is the help text.
macro_rules! table {
    ($($(#[doc = $help:literal])+ $constant:ident = $name:literal: $kind:ident $(($bounds:ident))? $([$unit:ident])?
       $({ $($label:literal: $values:expr),+ })?;)+) => {
        $($(#[doc = $help])+ pub const $constant: &str = $name;)+

        /// All metrics.
        pub const TABLE: &[Metric] = &[$(Metric {
            constant: stringify!($constant),
            name: $name,
            kind: kind!($kind $($bounds)?),
            unit: unit!($($unit)?),
            help: concat!($($help),+),
            labels: &[$($(($label, $values)),+)?],
        }),+];
    };
}

use Values::{Climbs, OfClimb, Providers, Sources, Statuses, Version, Words, Zones};

const KINDS: Values = Words(&[
    "leave_site",
    "pause_site",
    "narrow",
    "pause_provider",
    "pause_source",
    "degrade_source",
    "other_source",
    "hold_member",
]);
const CLASSES: Values = Words(&["mailbox", "content", "policy", "reputation", "rate", "greylist", "auth", "tls", "host"]);
const RULES: Values = Words(&[
    "start",
    "advance",
    "finish",
    "utilisation",
    "deferred",
    "refused",
    "unknown",
    "code",
    "cool",
    "idle",
    "operator",
    "over",
    "complained",
]);
const LANES: Values = Words(&["otp", "transactional", "notice"]);
const LIMITS: Values = Words(&["hour", "burst", "day", "queue_messages", "queue_bytes", "message_bytes"]);
const DISBELIEF: Values = Words(&["issuer", "signature", "unsigned", "version", "malformed", "subject"]);

table! {
    /// Messages that got their 250.
    ACCEPTED = "mta_accepted_total": counter;
    /// Transactions and sessions that were refused, by the enhanced status of the reply.
    REFUSED = "mta_refused_total": counter { "status": Statuses };
    /// Messages that a client submitted again, and that were not queued again.
    DUPLICATES = "mta_duplicates_suppressed_total": counter;
    /// Commands refused because a member is at a limit of its tier.
    LIMITED = "mta_limited_total": counter { "limit": LIMITS };
    /// Time from the end of data to the 250.
    ACCEPT_SECONDS = "mta_accept_seconds": histogram(SECONDS) [Seconds];
    /// Messages that went out without the member's signature, because `signing.required` is false.
    UNSIGNED = "mta_unsigned_total": counter;
    /// Messages of another class than they claim.
    CLASS_DOUBTED = "mta_class_doubted_total": counter { "reason": Words(&["unknown_category", "not_allowed"]) };
    /// Recipients delivered.
    DELIVERED = "mta_delivered_total": counter;
    /// Attempts deferred, by the widest thing that the reply speaks of.
    DEFERRED = "mta_deferred_total": counter { "scope": Words(&["recipient", "message", "host", "site", "source"]) };
    /// Recipients given up.
    FAILED = "mta_failed_total": counter;
    /// Recipients whose time ran out.
    EXPIRED = "mta_expired_total": counter;
    /// Recipients that an operator cancelled.
    CANCELLED = "mta_cancelled_total": counter;
    /// Attempts that met a refusal, by what it is about and who said it.
    REPLIES = "mta_replies_total": counter { "class": CLASSES, "provider": Providers };
    /// Automatic actions begun.
    ACTIONS_STARTED = "mta_actions_started_total": counter { "kind": KINDS };
    /// Automatic actions that run.
    ACTIONS = "mta_actions": gauge { "kind": KINDS };
    /// Recipients that a source may be accepted of at a provider today; +Inf when it is warm.
    WARMUP_ALLOWANCE = "mta_warmup_allowance": gauge { "source": Climbs, "provider": OfClimb };
    /// Recipients of the allowance that were accepted today.
    WARMUP_SPENT = "mta_warmup_spent": gauge { "source": Climbs, "provider": OfClimb };
    /// Recipients of the allowance that are under way.
    WARMUP_RESERVED = "mta_warmup_reserved": gauge { "source": Climbs, "provider": OfClimb };
    /// The stage of its plan where a source is, from 1.
    WARMUP_STAGE = "mta_warmup_stage": gauge { "source": Climbs, "provider": OfClimb };
    /// The stage of its plan where a source would be had every day gone well, from 1; one beyond the last: it would be warm.
    WARMUP_PLANNED_STAGE = "mta_warmup_planned_stage": gauge { "source": Climbs, "provider": OfClimb };
    /// Decisions about warmup, by the rule that made them.
    WARMUP_STEPS = "mta_warmup_steps_total": counter { "source": Climbs, "provider": OfClimb, "rule": RULES };
    /// One-time codes accepted beyond an allowance. Any of them needs a person.
    WARMUP_OVER = "mta_warmup_over_total": counter { "source": Climbs, "provider": OfClimb };
    /// Whether a source's name in the DNS is not as it should be; 1: it is not.
    SOURCE_NAME_TROUBLE = "mta_source_name_trouble": gauge { "source": Sources };
    /// Whether a block list lists a source; 1: it does.
    SOURCE_LISTED = "mta_source_listed": gauge { "source": Sources, "zone": Zones };
    /// Questions that a block list refused to answer.
    DNSBL_REFUSED = "mta_dnsbl_refused_total": counter { "zone": Zones };
    /// Reports about TLS to other domains.
    TLS_REPORTS = "mta_tls_reports_total": counter { "result": Words(&["sent", "dropped"]) };
    /// Outcomes of TLS that no report counts, because more came at once than were counted.
    TLS_NOTES_LOST = "mta_tls_notes_lost_total": counter;
    /// Messages in the queue.
    QUEUED = "mta_queue_messages": gauge;
    /// Messages in the queue that are our own, such as notices: no member's share counts them.
    OWN_QUEUED = "mta_queue_own_messages": gauge;
    /// Age of the oldest message of a class in the queue; 0: there is none, NaN: too much waits to look for it.
    OLDEST_SECONDS = "mta_queue_oldest_seconds": gauge [Seconds] { "class": LANES };
    /// Deliveries in the queue: a message's recipients of one domain.
    DELIVERIES = "mta_queue_deliveries": gauge;
    /// Deliveries in the queue that an operator holds.
    HELD = "mta_queue_held_deliveries": gauge;
    /// Messages that are damaged and were set aside. Any of them needs a person.
    ASIDE = "mta_queue_aside_messages": gauge;
    /// Bodies that wait, headers included.
    BODIES_BYTES = "mta_queue_bodies_bytes": gauge [Bytes];
    /// Segment files that bodies lie in.
    SEGMENTS_BYTES = "mta_queue_segments_bytes": gauge [Bytes];
    /// The part of the queue's database that is in use; at half of its size new mail is refused.
    DATABASE_USED_BYTES = "mta_queue_database_used_bytes": gauge [Bytes];
    /// Size of the queue's database (LMDB's map).
    DATABASE_SIZE_BYTES = "mta_queue_database_size_bytes": gauge [Bytes];
    /// Free space of the queue's disk; below 256 MiB new mail is refused.
    DISK_FREE_BYTES = "mta_queue_disk_free_bytes": gauge [Bytes];
    /// Time of a commit of the queue.
    COMMIT_SECONDS = "mta_commit_seconds": histogram(SECONDS) [Seconds];
    /// Requests in a commit of the queue: messages, settlements, rows of others.
    COMMIT_REQUESTS = "mta_commit_requests": histogram(BATCH);
    /// Sessions open with clients.
    SESSIONS = "mta_sessions": gauge;
    /// Operations on sockets that were begun and have not ended. With nothing to do it falls to what listeners and sessions wait for.
    OPERATIONS = "mta_operations_in_flight": gauge;
    /// Octets that the daemon has allocated and not freed. What the system says beyond that (resident, anonymous) the allocator
    /// keeps, or are stacks.
    HEAP_BYTES = "mta_heap_bytes": gauge [Bytes];
    /// Which tradewind this is; always 1.
    BUILD_INFO = "mta_build_info": gauge { "version": Version };
    /// When the labeler was last polled with success, in Unix time.
    LABELS_POLLED_AT = "mta_labels_polled_timestamp_seconds": gauge [Seconds];
    /// Polls of the labeler that failed.
    LABEL_POLLS_FAILED = "mta_label_polls_failed_total": counter;
    /// Labels that were not believed.
    LABELS_REFUSED = "mta_labels_refused_total": counter { "reason": DISBELIEF };
    /// Labels whose signature was verified: new ones, changed ones, and all with a new key.
    LABELS_VERIFIED = "mta_labels_verified_total": counter;
    /// Reports of a member's day that the labeler took.
    SENDING_REPORTED = "mta_sending_reports_total": counter;
    /// Attempts to report what became of mail that failed; what was not told is kept.
    SENDING_REPORTS_FAILED = "mta_sending_reports_failed_total": counter;
    /// Reads of standing that failed; what was known counts until it is too old.
    STANDING_READS_FAILED = "mta_standing_reads_failed_total": counter;
}

/// Makes this process's recorder and describes every metric. Once per process; a second call is an error.
pub fn install() -> Result<PrometheusHandle, BuildError> {
    let handle = builder()?.install_recorder()?;
    describe();
    Ok(handle)
}

/// How metrics are shown: the bounds of histograms are the table's.
pub fn builder() -> Result<PrometheusBuilder, BuildError> {
    TABLE.iter().try_fold(PrometheusBuilder::new(), |builder, metric| match metric.kind {
        Kind::Histogram(bounds) => builder.set_buckets_for_metric(Matcher::Full(metric.name.to_owned()), bounds),
        Kind::Counter | Kind::Gauge => Ok(builder),
    })
}

/// Tells the recorder of every metric's meaning.
pub fn describe() {
    for metric in TABLE {
        let (name, unit, help) = (metric.name, metric.unit.unwrap_or(Unit::Count), metric.help());
        match metric.kind {
            Kind::Counter => describe_counter!(name, unit, help),
            Kind::Gauge => describe_gauge!(name, unit, help),
            Kind::Histogram(_) => describe_histogram!(name, unit, help),
        }
    }
}

impl Metric {
    /// What it means, in a line.
    pub fn help(&self) -> &'static str {
        self.help.trim()
    }

    /// Series that it has at the most; a histogram has one for each bound, for +Inf, sum and count.
    pub fn series_max(&self, sizes: Sizes) -> usize {
        let each = match self.kind {
            Kind::Histogram(bounds) => bounds.len() + 3,
            Kind::Counter | Kind::Gauge => 1,
        };
        self.labels.iter().fold(each, |series, (_, values)| series * values.count(sizes))
    }
}

impl Values {
    fn count(self, sizes: Sizes) -> usize {
        match self {
            Words(words) => words.len(),
            Version | OfClimb => 1,
            Statuses => STATUSES_MAX,
            Sources => sizes.sources,
            Providers => sizes.providers,
            Zones => sizes.zones,
            Climbs => sizes.climbs,
        }
    }

    fn says(self) -> String {
        match self {
            Words(words) => words.join(", "),
            Version => "the version".to_owned(),
            Statuses => format!("a status of our own replies, fewer than {STATUSES_MAX}"),
            Sources => "a `[[source]]`".to_owned(),
            Providers => "a provider that the configuration names, or other".to_owned(),
            Zones => "a zone of `[dnsbl]`".to_owned(),
            Climbs => "a source that warms up".to_owned(),
            OfClimb => "the provider where it does".to_owned(),
        }
    }
}

/// Series that one daemon has at the most, however much mail it sends and to however many sites.
pub fn series_max(sizes: Sizes) -> usize {
    TABLE.iter().map(|metric| metric.series_max(sizes)).sum()
}

/// `docs/metrics.md`.
pub fn page() -> String {
    let small = Sizes { sources: 4, providers: 33, zones: 4, climbs: 16 };
    let large = Sizes { sources: 16, providers: 33, zones: 8, climbs: 16 * 33 };
    let mut page = format!(
        "# Metrics\n\n\
        `GET /metrics` on the admin port shows these. `mta/monitoring` has rules of alerts and a dashboard that use them.\n\n\
        Labels say words of the program or names of the configuration, never a message, a recipient, a domain or a site. So the number of\n\
        series does not grow with mail: at most {} with 4 sources, 4 block lists, the 32 providers that are shipped and 16 pairs of source and\n\
        provider that warm up; at most {} with 16 sources, 8 block lists and all of their {} pairs. A series begins when there is something to\n\
        count.\n\n\
        This page is made from the table in `mta/src/control/metrics.rs`; a test holds them equal.\n\n\
        | name | kind | meaning | labels | series |\n|---|---|---|---|---|\n",
        series_max(small),
        series_max(large),
        large.climbs,
    );
    for metric in TABLE {
        let kind = match metric.kind {
            Kind::Counter => "counter",
            Kind::Gauge => "gauge",
            Kind::Histogram(_) => "histogram",
        };
        let labels: Vec<String> = metric.labels.iter().map(|(name, values)| format!("`{name}`: {}", values.says())).collect();
        // Writing to a string does not fail.
        let _ = writeln!(
            page,
            "| `{}` | {kind} | {} | {} | {} |",
            metric.name,
            metric.help(),
            labels.join("; "),
            metric.series_max(small)
        );
    }
    page
}

#[cfg(test)]
mod tests {
    use scheduler::{Lane, MeasureKind, ReplyClass};

    use super::*;

    fn words(values: Values) -> &'static [&'static str] {
        match values {
            Words(words) => words,
            other => panic!("{other:?} are not words"),
        }
    }

    #[test]
    fn labels_say_the_words_that_the_code_has() {
        assert_eq!(words(KINDS), MeasureKind::ALL.map(MeasureKind::as_str));
        assert_eq!(words(CLASSES), ReplyClass::ALL.map(ReplyClass::as_str));
        assert_eq!(words(LANES), Lane::ALL.map(|lane| lane.as_str()));
    }

    #[test]
    fn names_and_units_follow_the_conventions() {
        for (nth, metric) in TABLE.iter().enumerate() {
            let name = metric.name;
            assert!(TABLE[..nth].iter().all(|other| other.name != name), "{name} is there twice");
            assert!(name.starts_with("mta_") && name.bytes().all(|it| it.is_ascii_lowercase() || it == b'_'), "{name}");
            assert_eq!(name.ends_with("_total"), metric.kind == Kind::Counter, "{name}");
            assert_eq!(name.ends_with("_seconds"), metric.unit == Some(Unit::Seconds), "{name}");
            assert_eq!(name.ends_with("_bytes"), metric.unit == Some(Unit::Bytes), "{name}");
            assert!(metric.help().len() > 10 && !metric.help().contains('|'), "{name}: {}", metric.help());
        }
    }
}
