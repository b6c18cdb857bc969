//! What is said about operators: their tokens.

use std::fmt;

use serde::{Deserialize, Serialize};

pub use super::admin::Role;

/// Make an operator's token.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AddToken {
    /// Whose it is: 1 to 64 letters, digits, and `.`, `_`, `-`, `@`. Events and the audit say it.
    pub name: String,
    /// What it may.
    pub role: Role,
}

/// A new token. Its secret is told here and never again.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
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
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
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
