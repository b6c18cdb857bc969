//! What the operator's command and the daemon say to each other: JSON over HTTP on `data_dir/admin.sock`.
//!
//! The table of paths, with the role that each needs, is `admin/table.rs`. The same is served on the admin port to whoever shows an
//! operator's token.
//!
//! `{member}` is a DID or a sending domain. What goes wrong is a [`Trouble`] with a status that fits.
//! Times are RFC 3339 in UTC.

use std::fmt;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub use super::access_answers::*;
pub use super::actions::{ActionFilter, ActionPage, ActionRow, ActionShown, ActionWish, SourceHealthRow};
pub use super::answers::*;
pub use super::detail_answers::*;
pub use super::overview_answers::*;
pub use super::plan_answers::*;
pub use super::shaping_answers::{ShapingChange, ShapingChecked, ShapingText, ShapingWish};
pub use super::warmup_answers::*;

/// The version that the paths begin with.
pub const VERSION: &str = "/v1";

/// Rows in one page of a list, at most and by default.
pub const PAGE_MAX: usize = 1000;

/// Enrol a member, or give an enrolled one another domain.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct AddMember {
    /// The member's DID.
    pub did: String,
    /// A domain that it sends from.
    pub domain: String,
    /// What mail of this credential is unless it says otherwise: the first counts. Empty: transactional.
    #[serde(default)]
    pub class: Vec<String>,
    /// The tier that the member is put into. None: the one that it is in, the default for a new one.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub tier: Option<String>,
}

/// Change what a member may.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SetMember {
    /// The tier that it is put into. None: as it is.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub tier: Option<String>,
    /// The pool that it is put into; empty: into none of its own. None: as it is.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub pool: Option<String>,
}

/// A new credential. The password is told here and never again.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Enrolled {
    /// The member's DID.
    pub did: String,
    /// The domain that the credential may send from.
    pub domain: String,
    /// For AUTH.
    pub username: String,
    /// For AUTH.
    pub password: String,
    /// Ready to paste as PDS_EMAIL_SMTP_URL.
    pub smtp_url: String,
    /// What to publish.
    pub dns_records: Vec<DnsRecord>,
}

impl fmt::Debug for Enrolled {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Enrolled").field("did", &self.did).field("domain", &self.domain).finish_non_exhaustive()
    }
}

/// A DNS record to publish.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct DnsRecord {
    /// Its full name.
    pub name: String,
    /// TXT, CNAME, …
    #[serde(rename = "type")]
    pub kind: String,
    /// Its text.
    pub value: String,
}

/// An enrolled member.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Member {
    /// Its DID.
    pub did: String,
    /// The domains it sends from.
    pub domains: Vec<String>,
    /// Whether the operator has suspended it.
    pub suspended: bool,
    /// The labels that are in force.
    pub labels: Vec<String>,
    /// What the labeler doubts about it, each with what that rests on and since which day. None, and where its last answer is too
    /// old: nothing.
    #[serde(default)]
    pub doubts: Vec<String>,
    /// When the labeler last answered about it, if it doubts something.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub doubted_at: Option<String>,
    /// The doubt for which its new mail is put off with 451 now.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub waits_for: Option<String>,
    /// Its tier.
    pub tier: String,
    /// The pool that all of its mail goes by. None: its classes'.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub pool: Option<String>,
    /// What it may send and has sent.
    pub spending: Spending,
    /// Whether its mail is accepted now.
    pub admitted: bool,
    /// If not: why.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub reason: Option<String>,
}

/// What a member has sent and has in the queue, beside what its tier gives it. None: no limit. Rates count recipients.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Spending {
    /// Deliveries in each of its turns at a site.
    pub weight: u16,
    /// On the long run.
    pub messages_per_hour: Option<u64>,
    /// At once.
    pub burst: Option<u64>,
    /// That it could send to now.
    pub available: Option<u64>,
    /// By the calendar of UTC.
    pub messages_per_day: Option<u64>,
    /// Of them.
    pub sent_today: u64,
    /// Messages in the queue.
    pub queue_messages: u64,
    /// Their limit.
    pub queue_messages_max: Option<u64>,
    /// Their octets.
    pub queue_bytes: u64,
    /// The limit of those.
    pub queue_bytes_max: Option<u64>,
}

/// Bring an own key.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ImportKey {
    /// The signing domain.
    pub domain: String,
    /// The selector.
    pub selector: String,
    /// PKCS #8 (RSA or Ed25519) or PKCS #1, as PEM.
    pub pem: String,
}

impl fmt::Debug for ImportKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ImportKey").field("domain", &self.domain).field("selector", &self.selector).finish_non_exhaustive()
    }
}

/// Make new keys for a domain.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RotateKeys {
    /// The signing domain.
    pub domain: String,
}

/// Which keys of a domain to remove; exactly one way of naming them.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RemoveKeys {
    /// The signing domain.
    pub domain: String,
    /// The one with this selector.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub selector: Option<String>,
    /// Those of this algorithm: rsa or ed25519.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub algorithm: Option<String>,
    /// All of them.
    #[serde(skip_serializing_if = "std::ops::Not::not", default)]
    pub all: bool,
}

/// A DKIM key, without its private part.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Key {
    /// The signing domain.
    pub domain: String,
    /// The selector.
    pub selector: String,
    /// rsa or ed25519.
    pub algorithm: String,
    /// Of the public key.
    pub bits: usize,
    /// What to publish for it.
    pub dns_record: DnsRecord,
}

/// Which deliveries to list.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct QueueFilter {
    /// Those to this recipient domain.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub site: Option<String>,
    /// The same.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub domain: Option<String>,
    /// Only what an operator holds.
    #[serde(skip_serializing_if = "std::ops::Not::not", default)]
    pub held: bool,
    /// Where to go on: a former page's `next`.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub after: Option<String>,
    /// Those of this member: DID or sending domain.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub member: Option<String>,
    /// Rows wanted, at most [`PAGE_MAX`].
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub limit: Option<usize>,
}

/// Part of the queue.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct QueuePage {
    /// The rows: by id, or with a domain in the order of their turn. A page may be short and yet not the last.
    pub deliveries: Vec<QueuedDelivery>,
    /// Whether there are more than were listed.
    pub more: bool,
    /// Give this as `after` to go on.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub next: Option<String>,
}

/// One message to one recipient domain.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct QueuedDelivery {
    /// The queue id.
    pub id: String,
    /// The recipient domain.
    pub domain: String,
    /// The member's DID; none when it is no longer one, and for our own notices.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub member: Option<String>,
    /// otp, transactional or notice.
    pub class: String,
    /// Recipients still open.
    pub recipients: u32,
    /// Attempts made.
    pub attempts: u32,
    /// When it is due next; held: when it expires.
    pub due_at: String,
    /// Since when an operator holds it.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub held_since: Option<String>,
    /// Who holds it, and why.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub held_by: Option<String>,
    /// The last reply or trouble.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub last: Option<String>,
}

/// One message with what became of each recipient. Neither subject nor body: a one-time code often stands there.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct QueuedMessage {
    /// The queue id.
    pub id: String,
    /// The reverse-path; empty for a DSN.
    pub reverse_path: String,
    /// Octets of the message as it will be sent.
    pub bytes: u64,
    /// The member's DID; none when it is no longer one, and for our own notices.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub member: Option<String>,
    /// otp, transactional or notice.
    pub class: String,
    /// When it was accepted.
    pub accepted_at: String,
    /// When what is still open is given up.
    pub expires_at: String,
    /// Why it was set aside, if it was: it is damaged, and not tried any more.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub set_aside: Option<String>,
    /// Its deliveries that are not settled.
    pub deliveries: Vec<QueuedDelivery>,
    /// Its recipients.
    pub recipients: Vec<QueuedRecipient>,
}

/// What became of one recipient.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct QueuedRecipient {
    /// The forward-path.
    pub address: String,
    /// open, delivered, failed, expired or cancelled.
    pub fate: String,
    /// The last reply or trouble.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub last: Option<String>,
}

/// How the daemon is.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Status {
    /// Of the program.
    pub version: String,
    /// The name in the greeting.
    pub hostname: String,
    /// The back end in use: uring or epoll.
    pub io: String,
    /// Members enrolled.
    pub members: u64,
    /// Members whose mail is accepted now.
    pub members_admitted: u64,
    /// Messages in the queue.
    pub messages: u64,
    /// Deliveries in the queue.
    pub deliveries: u64,
    /// The labeler; none when labels are not consulted.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub labeler: Option<LabelerStatus>,
}

/// How the labeler is, seen from here.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct LabelerStatus {
    /// Its DID.
    pub did: String,
    /// The last poll that went well.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub polled_at: Option<String>,
    /// Whether that is longer ago than `stale_after`.
    pub stale: bool,
    /// What went wrong since.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub trouble: Option<String>,
}

/// Why a request was not done.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Trouble {
    /// What to do about it is in the words.
    pub error: String,
    /// 412: what was changed since the version that was named, the newest first.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub since: Vec<AuditRow>,
}

impl Trouble {
    /// Words alone.
    pub fn of(error: impl Into<String>) -> Trouble {
        Trouble { error: error.into(), since: Vec::new() }
    }
}

/// The same inside the daemon; its variant chooses the HTTP status.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// 400: the request makes no sense.
    #[error("{0}")]
    Wrong(String),
    /// 401: who asks is not known. The same words whatever was wrong.
    #[error("this needs an operator's token; `tradewind token add` makes one")]
    Unproven,
    /// 403: who asks may not.
    #[error("{0}")]
    Forbidden(String),
    /// 429: too many logins have failed.
    #[error("too many logins have failed; try again later, or use the token itself")]
    TooMany,
    /// 405: not by this method.
    #[error("this path does not take that method")]
    NotSo,
    /// 413.
    #[error("the request is too large")]
    TooLarge,
    /// 415.
    #[error("the body must be JSON: Content-Type: application/json")]
    NotJson,
    /// 404: there is no such thing.
    #[error("{0}")]
    Unknown(String),
    /// 409: it is there already, or in the way.
    #[error("{0}")]
    Conflict(String),
    /// 503: our side cannot do it now.
    #[error("{0}")]
    Unable(String),
}
