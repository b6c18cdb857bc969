//! What is said about one thing in detail: a site, a member's credentials, what hosts said.

use std::fmt;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::answers::Where;

/// A site, and who leads there.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct SiteShown {
    /// Its name: its hosts' names.
    pub site: String,
    /// Domains with mail here that lead there.
    pub count: u64,
    /// Of these, at most 200.
    pub domains: Vec<String>,
    /// How the mail of the first of them travels: hosts, TLS policy, sources with windows, limits with the layer of each.
    pub how: Where,
}

/// Which sites to tell.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SitesFilter {
    /// Only those with this in their name, which is their hosts' names, or in their provider's.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub find: Option<String>,
    /// Where to go on: a former answer's `next`.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub after: Option<u32>,
    /// At most so many, and at most [`SITES_MAX`].
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub limit: Option<usize>,
}

/// Sites on a page, at most and by default.
pub const SITES_MAX: usize = 100;

/// Deliveries of a site that a list counts; what is beyond is said to be more.
pub const SITE_COUNTED_MAX: usize = 1000;

/// Some sites. The table changes while one reads: a site that comes meanwhile may be on no page, and none is on two.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct SitesPage {
    /// In no order that means something.
    pub sites: Vec<SiteRow>,
    /// Give this as `after` to go on. None: that was all.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub next: Option<u32>,
}

/// A site that has mail now, or had some lately.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct SiteRow {
    /// Its name: its hosts' names.
    pub site: String,
    /// Who operates it.
    pub provider: String,
    /// One of the domains that lead there; the last one, where all mail lies on disk.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub domain: Option<String>,
    /// How many are known to do so now.
    pub domains: u64,
    /// Deliveries in the queue to some twenty of them, or to the last one, held ones included; counting stops at [`SITE_COUNTED_MAX`].
    pub queued: u64,
    /// Whether that is all.
    pub counted_all: bool,
    /// When the first of what lies only on disk is due.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub next_due_at: Option<String>,
    /// Deliveries being tried, each over a connection of its own.
    pub in_flight: u64,
    /// Attempts that delivered in this hour and the one before, by the clock.
    pub delivered: u64,
    /// Attempts that were deferred.
    pub deferred: u64,
    /// Failures of the site in a row.
    pub failures: u32,
    /// It is left alone until then.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub suspended_until: Option<String>,
    /// Our sources that have sent there.
    pub sources: Vec<SiteSource>,
}

/// One of our sources at a site.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct SiteSource {
    /// Its name.
    pub source: String,
    /// How many deliveries at once the site bears from it.
    pub window: u16,
    /// Deliveries being tried.
    pub in_flight: u16,
    /// Left alone until then.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub suspended_until: Option<String>,
}

/// A credential, without its secret.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct CredentialRow {
    /// Its number.
    pub id: u32,
    /// The only domain that it may send from; it is the user name too.
    pub domain: String,
    /// What its mail is unless it says otherwise.
    pub class: String,
    /// What the operator allowed; empty: anything.
    pub classes: Vec<String>,
    /// Another one when the secret was rotated. Says nothing about the secret.
    pub mark: String,
}

/// A new secret. It is told here and never again.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct NewSecret {
    /// Of this credential.
    #[serde(flatten)]
    pub row: CredentialRow,
    /// For AUTH.
    pub username: String,
    /// For AUTH.
    pub password: String,
    /// Ready to paste as PDS_EMAIL_SMTP_URL.
    pub smtp_url: String,
}

impl fmt::Debug for NewSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NewSecret").field("row", &self.row).finish_non_exhaustive()
    }
}

/// Which replies to tell.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RepliesFilter {
    /// Only of this class: mailbox, content, policy, reputation, rate, greylist, auth, tls, host; `none`: our own reasons.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub class: Option<String>,
    /// Only of this provider's hosts.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub provider: Option<String>,
    /// Only to this source.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub source: Option<String>,
}

/// What hosts said lately when they did not take mail.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct RepliesPage {
    /// From the newest events since then.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub since: Option<String>,
    /// Replies that fit.
    pub replies: u64,
    /// The most frequent first, at most 500.
    pub groups: Vec<ReplyGroup>,
    /// Whether there are more kinds of words than are told.
    pub more: bool,
}

/// Replies of one kind.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ReplyGroup {
    /// What it speaks of.
    pub class: String,
    /// Whose host said it.
    pub provider: String,
    /// The entry of the table of replies that says so. None: the code alone.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub entry: Option<String>,
    /// How often.
    pub count: u64,
    /// Of these, for good.
    pub failed: u64,
    /// The newest, without recipients, cut.
    pub text: String,
    /// When it came.
    pub last_at: String,
    /// The host that said it; empty: none did.
    pub host: String,
    /// The message, for `why`.
    pub id: String,
    /// The sources that it was said to, at most 16.
    pub sources: Vec<String>,
}
