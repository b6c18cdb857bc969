//! The metrics: their names, what they mean, and how they are shown.
//!
//! Count on the control thread directly; a ring thread keeps plain counters and adds them up here in batches.

use metrics::{Unit, describe_counter, describe_gauge, describe_histogram};
use metrics_exporter_prometheus::{BuildError, Matcher, PrometheusBuilder, PrometheusHandle};

/// Messages that got their 250.
pub const ACCEPTED: &str = "mta_accepted_total";
/// Transactions and sessions that were refused, by the enhanced status of the reply: `status`.
pub const REFUSED: &str = "mta_refused_total";
/// Messages that a client submitted again, and that were not queued again.
pub const DUPLICATES: &str = "mta_duplicates_suppressed_total";
/// Commands refused because a member is at a limit of its tier, by `limit`: hour, burst, day, queue_messages, queue_bytes,
/// message_bytes.
pub const LIMITED: &str = "mta_limited_total";
/// Recipients delivered.
pub const DELIVERED: &str = "mta_delivered_total";
/// Attempts deferred, by `scope`: recipient, message, host, site, source.
pub const DEFERRED: &str = "mta_deferred_total";
/// Recipients given up.
pub const FAILED: &str = "mta_failed_total";
/// Recipients whose time ran out.
pub const EXPIRED: &str = "mta_expired_total";
/// Recipients that an operator cancelled.
pub const CANCELLED: &str = "mta_cancelled_total";
/// Automatic actions begun, by `kind`: leave_site, pause_site, narrow, pause_provider, pause_source, degrade_source,
/// other_source, hold_member.
pub const ACTIONS_STARTED: &str = "mta_actions_started_total";
/// Automatic actions that run, by `kind`.
pub const ACTIONS: &str = "mta_actions";
/// Attempts that met a refusal, by its `class` and the `provider`.
pub const REPLIES: &str = "mta_replies_total";
/// What a source may be accepted of at a provider today, by `source` and `provider`, in recipients; +Inf when it is warm.
pub const WARMUP_ALLOWANCE: &str = "mta_warmup_allowance";
/// Of them accepted.
pub const WARMUP_SPENT: &str = "mta_warmup_spent";
/// Of them under way.
pub const WARMUP_RESERVED: &str = "mta_warmup_reserved";
/// The stage of its plan, from 1, by `source` and `provider`.
pub const WARMUP_STAGE: &str = "mta_warmup_stage";
/// Decisions about warmup, by `source`, `provider` and `rule`: start, advance, finish, utilisation, deferred, refused, unknown,
/// code, cool, idle, operator, over.
pub const WARMUP_STEPS: &str = "mta_warmup_steps_total";
/// One-time codes accepted beyond an allowance, by `source` and `provider`. Any of them needs a person.
pub const WARMUP_OVER: &str = "mta_warmup_over_total";
/// Reports about TLS to other domains, by `result`: sent, dropped.
pub const TLS_REPORTS: &str = "mta_tls_reports_total";
/// Outcomes of TLS that no report counts, because more came at once than were counted.
pub const TLS_NOTES_LOST: &str = "mta_tls_notes_lost_total";
/// Sessions open with clients.
pub const SESSIONS: &str = "mta_sessions";
/// Octets that the daemon has allocated and not freed. What the system says beyond that (resident, anonymous) the allocator keeps,
/// or are stacks.
pub const HEAP_BYTES: &str = "mta_heap_bytes";
/// Messages in the queue.
pub const QUEUED: &str = "mta_queue_messages";
/// Of them those of our own, such as notices: no member's share counts them.
pub const OWN_QUEUED: &str = "mta_queue_own_messages";
/// Time of a commit of the queue.
pub const COMMIT_SECONDS: &str = "mta_commit_seconds";
/// Requests in a commit of the queue: messages, settlements, rows of others.
pub const COMMIT_REQUESTS: &str = "mta_commit_requests";
/// Time from the end of data to the 250.
pub const ACCEPT_SECONDS: &str = "mta_accept_seconds";
/// Messages that went out without the member's signature, because `signing.required` is false.
pub const UNSIGNED: &str = "mta_unsigned_total";
/// Messages of another class than they claim, by `reason`: unknown_category, not_allowed.
pub const CLASS_DOUBTED: &str = "mta_class_doubted_total";
/// 1: a source's name in the DNS is not as it should be; by `source`.
pub const SOURCE_NAME_TROUBLE: &str = "mta_source_name_trouble";
/// 1: a block list lists a source; by `source` and `zone`.
pub const SOURCE_LISTED: &str = "mta_source_listed";
/// Questions that a block list refused to answer; by `zone`.
pub const DNSBL_REFUSED: &str = "mta_dnsbl_refused_total";
/// Polls of the labeler that failed.
pub const LABEL_POLLS_FAILED: &str = "mta_label_polls_failed_total";
/// Labels that were not believed, by `reason`.
pub const LABELS_REFUSED: &str = "mta_labels_refused_total";
/// Labels whose signature was verified: new ones, changed ones, and all with a new key.
pub const LABELS_VERIFIED: &str = "mta_labels_verified_total";
/// When the labeler was last polled with success, in Unix time.
pub const LABELS_POLLED_AT: &str = "mta_labels_polled_timestamp_seconds";
/// Reports of a member's day that the labeler took.
pub const SENDING_REPORTED: &str = "mta_sending_reports_total";
/// Attempts to report that failed; what was not told is kept.
pub const SENDING_REPORTS_FAILED: &str = "mta_sending_reports_failed_total";
/// Reads of standing that failed; what was known counts until it is too old.
pub const STANDING_READS_FAILED: &str = "mta_standing_reads_failed_total";

/// From a fast disk's sync to a disk in trouble.
const SECONDS: [f64; 12] = [0.0002, 0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.5, 2.0, 10.0];
const BATCH: [f64; 9] = [1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 256.0, 1024.0];

/// Makes this process's recorder and describes every metric. Once per process; a second call is an error.
pub fn install() -> Result<PrometheusHandle, BuildError> {
    let builder = PrometheusBuilder::new()
        .set_buckets_for_metric(Matcher::Suffix("_seconds".into()), &SECONDS)?
        .set_buckets_for_metric(Matcher::Full(COMMIT_REQUESTS.into()), &BATCH)?;
    let handle = builder.install_recorder()?;
    describe();
    Ok(handle)
}

fn describe() {
    describe_counter!(ACCEPTED, "Messages that got their 250.");
    describe_counter!(REFUSED, "Transactions and sessions refused, by enhanced status.");
    describe_counter!(DUPLICATES, "Messages submitted again by a client and not queued again.");
    describe_counter!(LIMITED, "Commands refused because a member is at a limit of its tier, by limit.");
    describe_counter!(DELIVERED, "Recipients delivered.");
    describe_counter!(DEFERRED, "Attempts deferred, by the widest thing the reply speaks of.");
    describe_counter!(FAILED, "Recipients given up.");
    describe_counter!(EXPIRED, "Recipients whose time ran out.");
    describe_counter!(CANCELLED, "Recipients that an operator cancelled.");
    describe_counter!(ACTIONS_STARTED, "Automatic actions begun, by kind.");
    describe_gauge!(ACTIONS, "Automatic actions that run, by kind.");
    describe_counter!(REPLIES, "Attempts that met a refusal, by class and provider.");
    describe_gauge!(WARMUP_ALLOWANCE, "Recipients that may be accepted today, by source and provider; +Inf when it is warm.");
    describe_gauge!(WARMUP_SPENT, "Recipients accepted today within the allowance, by source and provider.");
    describe_gauge!(WARMUP_RESERVED, "Recipients under way within the allowance, by source and provider.");
    describe_gauge!(WARMUP_STAGE, "Stage of the plan of warmup, from 1, by source and provider.");
    describe_counter!(WARMUP_STEPS, "Decisions about warmup, by source, provider and rule.");
    describe_counter!(WARMUP_OVER, "One-time codes accepted beyond an allowance, by source and provider; needs a person.");
    describe_gauge!(SOURCE_NAME_TROUBLE, "Whether a source's name in the DNS is not as it should be.");
    describe_gauge!(SOURCE_LISTED, "Whether a block list lists a source.");
    describe_counter!(DNSBL_REFUSED, "Questions that a block list refused to answer.");
    describe_gauge!(SESSIONS, "Sessions open with clients.");
    describe_gauge!(HEAP_BYTES, Unit::Bytes, "Octets allocated and not freed.");
    describe_gauge!(QUEUED, "Messages in the queue.");
    describe_gauge!(OWN_QUEUED, "Messages in the queue that are our own, such as notices.");
    describe_histogram!(COMMIT_SECONDS, Unit::Seconds, "Time of a commit of the queue.");
    describe_histogram!(COMMIT_REQUESTS, "Requests in a commit of the queue: messages, settlements, rows of others.");
    describe_histogram!(ACCEPT_SECONDS, Unit::Seconds, "Time from the end of data to the 250.");
    describe_counter!(UNSIGNED, "Messages sent without the member's signature.");
    describe_counter!(CLASS_DOUBTED, "Messages of another class than they claim, by reason.");
    describe_counter!(LABEL_POLLS_FAILED, "Polls of the labeler that failed.");
    describe_counter!(LABELS_REFUSED, "Labels not believed, by reason.");
    describe_counter!(LABELS_VERIFIED, "Labels whose signature had to be verified.");
    describe_counter!(SENDING_REPORTED, "Reports of a member's day that the labeler took.");
    describe_counter!(SENDING_REPORTS_FAILED, "Attempts to report what became of mail that failed.");
    describe_counter!(STANDING_READS_FAILED, "Reads of standing that failed.");
    describe_gauge!(LABELS_POLLED_AT, Unit::Seconds, "When the labeler was last polled with success, in Unix time.");
}
