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
