//! What is said about queued mail, the ways it travels and what became of it; part of [`api`](super::api).

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::actions::SourceHealthRow;

/// Who could change something.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Layer {
    /// setting (of mta.toml), shipped or file:line (a file of shaping), built-in (no setting changes it yet), feedback (what the peer did), dns, queue (its own order
    /// and schedule) or operator.
    pub layer: String,
    /// The setting's name, where it has one.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub name: Option<String>,
}

/// What holds mail.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Held {
    /// In words.
    pub says: String,
    /// One word for it: `on_disk`, `resolving`, `unroutable`, `node_full`, `site_suspended`, `site_probed`, `no_source`,
    /// `source_retired`, `no_address`, `source_suspended`, `source_probed`, `source_paused`, `member_held`, `window_full`, …
    pub reason: String,
    /// Who set it.
    pub set_by: Layer,
    /// `at` a time, `with_next_answer` of something under way, or `by_change` of a setting or of DNS.
    pub clears: String,
    /// The time, if it is known.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub clears_at: Option<String>,
}

/// What would happen next: one of the two.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Would {
    /// It goes.
    Send {
        /// From this source.
        source: String,
        /// Over this of its connections to the site.
        slot: u16,
    },
    /// It waits.
    Hold(Held),
}

/// Why a message waits, or what became of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Why {
    /// The queue id.
    pub id: String,
    /// When this was true.
    pub asked_at: String,
    /// Whether it is in the queue. If not, `events` tell what became of it.
    pub queued: bool,
    /// The member's DID; none when it is no longer one.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub member: Option<String>,
    /// otp, transactional or notice.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub class: Option<String>,
    /// When what is still open is given up, held or not.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub expires_at: Option<String>,
    /// Its deliveries that are not settled: at most [`DELIVERIES_MAX`].
    pub deliveries: Vec<WhyDelivery>,
    /// Whether there are more deliveries.
    pub more: bool,
    /// What happened so far, as far as events are kept: at most [`STORY_MAX`] of them.
    pub events: Vec<EventRow>,
    /// What was last said with hosts that did not take it, one for each delivery, the newest last: as far as memory goes, which is
    /// 8 MiB for all messages, and since the start of the daemon.
    #[serde(default)]
    pub dialogues: Vec<DialogueRow>,
}

/// What was said in an attempt that did not end in 250, from the opening of the session on; a transaction that came before over the
/// same connection is left out. Neither secrets nor the message; at most some 2 KiB.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct DialogueRow {
    /// The recipient domain.
    pub domain: String,
    /// When the attempt ended.
    pub at: String,
    /// The source.
    pub source: String,
    /// The host.
    pub host: String,
    /// Where it was reached.
    pub address: String,
    /// The version of TLS. None: in clear text.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub tls: Option<String>,
    /// Line by line: behind `C: ` what we said, behind `S: ` what the host said, behind `* ` what neither did.
    pub lines: Vec<String>,
}

/// Deliveries of one message that `why` explains; `queue show` lists them all.
pub const DELIVERIES_MAX: usize = 50;

/// Events of one message that `why` tells.
pub const STORY_MAX: usize = 200;

/// Why one delivery waits.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct WhyDelivery {
    /// The recipient domain.
    pub domain: String,
    /// Recipients still open.
    pub recipients: u32,
    /// deferred (not due yet), on_disk (due, not loaded), waiting (in memory), in_flight, settling, held (by an operator)
    /// or set_aside (damaged).
    pub state: String,
    /// Since when it is in flight or held.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub since: Option<String>,
    /// In flight: the site. Else none.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub site: Option<String>,
    /// Deliveries of its member to its domain that wait in memory and go before it.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub ahead: Option<u64>,
    /// Waiting: the domain whose turn comes next at the site.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub turn: Option<String>,
    /// The member whose turn that is.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub turn_of: Option<String>,
    /// What would happen to the next delivery of its domain; in flight: where it has gone from.
    pub next: Would,
    /// An operator has cancelled it; it is in flight, and what that leaves open goes.
    #[serde(skip_serializing_if = "std::ops::Not::not", default)]
    pub cancelled: bool,
    /// Attempts made.
    pub attempts: u32,
    /// When it is due.
    pub due_at: String,
    /// The last reply or trouble, as it was given.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub last: Option<String>,
}

/// How a domain's mail travels.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Where {
    /// The recipient domain.
    pub domain: String,
    /// When this was true.
    pub asked_at: String,
    /// known (to the scheduler), looked_up (for this question), sought (being looked up) or trouble.
    pub route: String,
    /// The site: its hosts' names. None without a route.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub site: Option<String>,
    /// Who operates it.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub provider: Option<String>,
    /// Its hosts, in the order to try.
    pub hosts: Vec<WhereHost>,
    /// When the route is looked up again.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub valid_until: Option<String>,
    /// Why there is no route.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub trouble: Option<String>,
    /// What the domain publishes about TLS: `opportunistic` (nothing), `dane`, `sts-enforce`, `sts-testing`; `unknown`
    /// without a route.
    pub tls_policy: String,
    /// The pool.
    pub pool: String,
    /// Its sources.
    pub sources: Vec<WhereSource>,
    /// Deliveries that are being tried at the site.
    pub site_in_flight: u64,
    /// The site is left alone until then.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub site_suspended_until: Option<String>,
    /// Failures of the site in a row.
    pub site_failures: u32,
    /// The domain's mail.
    pub mail: WhereMail,
    /// What bounds sending, windows of sources apart.
    pub limits: Vec<WhereLimit>,
    /// For each class: what would happen to a message that came now.
    pub would: Vec<WhereWould>,
}

/// A host of a route.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct WhereHost {
    /// Its name.
    pub name: String,
    /// MX preference.
    pub preference: u16,
    /// Where it is reached.
    pub addresses: Vec<String>,
    /// What is demanded of a connection to it: `opportunistic`, `encrypted`, `verified`, `dane`, or why no mail may go there.
    #[serde(default)]
    pub demand: String,
}

/// One of our sources at a site.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct WhereSource {
    /// Its name.
    pub name: String,
    /// Its address.
    pub address: String,
    /// Its share of the mail.
    pub weight: u32,
    /// How many deliveries at once the site bears from it.
    pub window: u16,
    /// Deliveries being tried.
    pub in_flight: u16,
    /// What shaping says of it there.
    #[serde(default)]
    pub shaping: Vec<WhereLimit>,
    /// Left alone until then.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub suspended_until: Option<String>,
    /// What stops it; none: it is free.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub held: Option<Held>,
}

/// How much mail a domain has here.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct WhereMail {
    /// Deliveries in the queue, held ones included; see `counted_all`.
    pub queued: u64,
    /// Of these, held by an operator.
    pub held: u64,
    /// Whether that is all: counting stops after some hundred thousand.
    pub counted_all: bool,
    /// Waiting in memory: otp, transactional, notice.
    pub in_memory: [u64; 3],
    /// Being tried.
    pub in_flight: u64,
    /// Being settled.
    pub settling: u64,
    /// When the first of what lies only on disk is due.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub next_due_at: Option<String>,
}

/// Something that bounds sending.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct WhereLimit {
    /// What is bounded.
    pub name: String,
    /// How far.
    pub value: String,
    /// Whose word it is.
    pub set_by: Layer,
}

/// One of our sources.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct SourceRow {
    /// Its name.
    pub name: String,
    /// Its address.
    pub address: String,
    /// Its name in EHLO.
    pub ehlo: String,
    /// The pools that it is in.
    pub pools: Vec<SourceInPool>,
    /// What the DNS says of its name: good, nameless, unconfirmed, other_name, ehlo_elsewhere, loopback, unknown; `unseen` before it
    /// was looked at.
    pub ptr: String,
    /// What is wrong with it, and what would be right.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub trouble: Option<String>,
    /// What each block list says.
    pub zones: Vec<ZoneRow>,
    /// When it was looked at.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub seen_at: Option<String>,
    /// How it stands as a whole, and with each provider that something is known about.
    pub health: Vec<SourceHealthRow>,
}

/// A source's part in a pool.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct SourceInPool {
    /// The pool.
    pub pool: String,
    /// Its share of the mail there.
    pub weight: u32,
}

/// What a block list says of a source.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ZoneRow {
    /// Which.
    pub zone: String,
    /// clean, listed, refused (it does not answer us) or unknown.
    pub says: String,
    /// Its answer, or what went wrong.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub answer: Option<String>,
    /// Listed since then, as far as we know.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub since: Option<String>,
}

/// A value of shaping, of a pool or of a provider's list, as it holds.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
pub struct ShapingRow {
    /// Of what: `provider google`, `domain example.org from source ip-a`, `everywhere`, `pool default`, …
    pub of: String,
    /// The setting.
    pub key: String,
    /// Its value.
    pub value: String,
    /// `shipped`, or the file and line where it stands.
    pub by: String,
}

/// What would happen to a message of a class.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct WhereWould {
    /// otp, transactional or notice.
    pub class: String,
    /// It goes, or it waits.
    pub would: Would,
}

/// Which queued deliveries something is done to; exactly one way of naming them.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct QueueWish {
    /// Those of this message.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub id: Option<String>,
    /// Those of this member: DID or sending domain.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub member: Option<String>,
    /// Those to this recipient domain.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub domain: Option<String>,
    /// Those to every domain that is known to lead to this site; a recipient domain stands for itself.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub site: Option<String>,
    /// Only with cancel: the sender is told.
    #[serde(skip_serializing_if = "std::ops::Not::not", default)]
    pub notify: bool,
    /// Why, for the record.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub reason: Option<String>,
    /// Where to go on: a former answer's `next`.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub after: Option<String>,
}

/// What was done. A wish about much mail is done in parts: ask again with `next` until there is none.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct QueueDone {
    /// Deliveries changed.
    pub changed: u64,
    /// Deliveries that needed no change.
    pub unchanged: u64,
    /// Of those named, deliveries in flight: they end by themselves, and their outcome counts.
    pub in_flight: u64,
    /// With flush: sites whose suspension was lifted; one delivery goes first and sees.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub lifted: Vec<String>,
    /// Give this as `after` to go on.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub next: Option<String>,
}

/// Which events to tell.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct EventFilter {
    /// Those after this number. None: the newest.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub after: Option<u64>,
    /// At most so many, and at most [`PAGE_MAX`](super::api::PAGE_MAX).
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub limit: Option<usize>,
    /// Only of this member: DID or sending domain.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub member: Option<String>,
    /// Only of this message.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub id: Option<String>,
    /// Seconds to wait for something new, at most [`EVENTS_WAIT_MAX`]. Only with `after`.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub wait: Option<u64>,
}

/// Seconds that a question about events waits at most: shorter than any answer may take.
pub const EVENTS_WAIT_MAX: u64 = 20;

/// Some events.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct EventPage {
    /// In the order in which they became durable.
    pub events: Vec<EventRow>,
    /// Give this as `after` to go on.
    pub next: u64,
    /// The oldest number that is kept.
    pub oldest: u64,
    /// Events between `after` and `oldest` that retention has removed unread.
    pub missed: u64,
    /// Whether more are there already.
    pub more: bool,
}

/// One event. Neither subject nor body.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct EventRow {
    /// Its place in the list.
    pub number: u64,
    /// When it was written down.
    pub at: String,
    /// accepted, deferred, delivered, failed, expired, cancelled, set_aside, held or released; action_started,
    /// action_extended, action_cancelled or action_expired.
    pub what: String,
    /// Nothing follows for its recipient.
    #[serde(rename = "final")]
    pub is_final: bool,
    /// The queue id; the number of an action in events of actions.
    pub id: String,
    /// Events of actions: the action's kind. `host` is then the site or provider, and `reply` the cause, or who ended or
    /// extended it and why.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub action: Option<String>,
    /// The member's DID; none when it is no longer one.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub member: Option<String>,
    /// How many recipients it speaks of.
    pub recipients: u16,
    /// Attempts at the delivery so far.
    pub attempts: u16,
    /// The recipients' domain, unless it speaks of the whole message.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub domain: Option<String>,
    /// The recipient of a final event.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub recipient: Option<String>,
    /// The source it was sent from.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub source: Option<String>,
    /// The host that answered.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub host: Option<String>,
    /// The reply, or our own reason.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub reply: Option<String>,
}
