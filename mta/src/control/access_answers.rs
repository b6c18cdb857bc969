//! What is said about operators: their tokens, who they are, and what they have done.

use std::fmt;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

pub use super::admin::Role;

/// Make an operator's token.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct AddToken {
    /// Whose it is: 1 to 64 letters, digits, and `.`, `_`, `-`, `@`. Events and the audit say it.
    pub name: String,
    /// What it may.
    pub role: Role,
}

/// A new token. Its secret is told here and never again.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct NewToken {
    /// What it is.
    #[serde(flatten)]
    pub row: TokenRow,
    /// For `Authorization: Bearer`, and for the form of the login.
    pub token: String,
}

impl fmt::Debug for NewToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NewToken").field("row", &self.row).finish_non_exhaustive()
    }
}

/// An operator's token, without its secret.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct TokenRow {
    /// Whose it is.
    pub name: String,
    /// What it may.
    pub role: Role,
    /// When it was made.
    pub made_at: String,
    /// Who made it.
    pub made_by: String,
}

/// Who asks.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Session {
    /// What the token is called; of a user of this machine `uid 1000`.
    pub name: String,
    /// What they may.
    pub role: Role,
    /// Of a browser's login: what `X-CSRF-Token` must say with every change.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub csrf: Option<String>,
}

impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Session({}, {})", self.name, self.role)
    }
}

/// Which changes to tell.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct AuditFilter {
    /// Those before this number: a former page's `next`.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub before: Option<u64>,
    /// At most so many, and at most [`PAGE_MAX`](super::api::PAGE_MAX). None: 100.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub limit: Option<usize>,
    /// Only of this operator.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub who: Option<String>,
    /// Only about what begins so, as `/v1/members`.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub about: Option<String>,
}

/// Some changes.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct AuditPage {
    /// The newest first.
    pub rows: Vec<AuditRow>,
    /// Give this as `before` to go on; none: that is all that fits, or all that one question looks at.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub next: Option<u64>,
}

/// A change, and what became of it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct AuditRow {
    /// Its place in the list.
    pub number: u64,
    /// When it was begun.
    pub at: String,
    /// Who.
    pub who: String,
    /// How that was shown: socket, token or login, and from which address.
    pub by: String,
    /// What: method and path, as the API has them.
    pub what: String,
    /// About what: the path whose answer changes.
    pub about: String,
    /// Why, as the operator said: `why` or `reason` in the body, else the field `X-Why`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub why: Option<String>,
    /// What was asked, secrets apart.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub asked: Option<Value>,
    /// What can be edited of it, before.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub before: Option<Value>,
    /// The same, after. None: it is gone, or it has nothing to look at.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub after: Option<Value>,
    /// The ETag before.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub before_version: Option<String>,
    /// The ETag after.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub after_version: Option<String>,
    /// done, refused, or begun: then the daemon ended before it was known what became of it.
    pub outcome: String,
    /// The status of the answer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub status: Option<u16>,
}
