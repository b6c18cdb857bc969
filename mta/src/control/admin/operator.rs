//! Who asks, and what they may: the frame that every request to the admin API goes through.
//!
//! A request comes in by one of two ways. On the operator's socket the kernel says which user is at the other end; whoever may
//! open that socket is [`Role::Admin`]. On the admin port a request shows an operator's token (`Authorization: Bearer twop_…`) or
//! the cookie that `POST /login` gave for one. [`gate`](super::gate) finds out which and puts an [`Operator`] into the request;
//! a handler that wants to know takes it as an argument:
//!
//! ```ignore
//! async fn suspend<O: Operations>(State(admin): State<Admin<O>>, operator: Operator, …) -> Answer<Member>
//! ```
//!
//! What a route needs stands in one table ([`table`](super::table)): method, path, role, handler. The routes are made from it, and
//! the role is looked at before the handler runs, so a handler never does. `Display` of an operator is what events, histories and
//! the audit say of who did something.

use std::convert::Infallible;
use std::fmt;
use std::str::FromStr;

use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use serde::{Deserialize, Serialize};

use crate::control::api::Refusal;

/// What an operator may do. Each may what those before it may.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// Look at everything but secrets.
    Read,
    /// Steer what is there: the queue, automatic actions, warmup; suspend and resume a member.
    Operate,
    /// Say who may send and with what: members, credentials, keys, plans, operators.
    Admin,
}

impl Role {
    /// All of them.
    pub const ALL: [Role; 3] = [Role::Read, Role::Operate, Role::Admin];

    /// As in requests and rows.
    pub fn as_str(self) -> &'static str {
        match self {
            Role::Read => "read",
            Role::Operate => "operate",
            Role::Admin => "admin",
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Role {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let found = Role::ALL.into_iter().find(|role| role.as_str() == text);
        found.ok_or_else(|| format!("{text:?} is no role; there are: read, operate, admin"))
    }
}

/// How somebody has shown who they are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum By {
    /// The kernel said so: the user of the process at the other end of the operator's socket.
    Socket {
        /// Its number.
        uid: u32,
    },
    /// By a token with this number.
    Token(u32),
    /// By the cookie of a login with this token.
    Login(u32),
}

/// Who asks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Operator {
    /// What the token is called; of a user of this machine `uid 1000`.
    pub name: String,
    /// What they may.
    pub role: Role,
    /// How that was shown.
    pub by: By,
}

impl Operator {
    /// A user of this machine.
    pub fn of_socket(uid: u32) -> Operator {
        Operator { name: format!("uid {uid}"), role: Role::Admin, by: By::Socket { uid } }
    }

    /// Whether the request came over the network.
    pub fn is_remote(&self) -> bool {
        !matches!(self.by, By::Socket { .. })
    }

    /// Whether a browser carries the proof by itself, so that another page could make it ask.
    pub fn is_browser(&self) -> bool {
        matches!(self.by, By::Login(_))
    }

    /// Whether they may what needs `role`.
    pub fn check(&self, role: Role) -> Result<(), Refusal> {
        if self.role >= role {
            return Ok(());
        }
        Err(Refusal::Forbidden(format!("this needs role {role}; {} has {}", self.name, self.role)))
    }
}

impl fmt::Display for Operator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)
    }
}

impl<S: Send + Sync> FromRequestParts<S> for Operator {
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Refusal> {
        parts.extensions.get::<Operator>().cloned().ok_or_else(unknown)
    }
}

/// A page that shows itself to those who are not known, too, takes `MaybeOperator`.
#[derive(Debug, Clone)]
pub struct MaybeOperator(pub Option<Operator>);

impl<S: Send + Sync> FromRequestParts<S> for MaybeOperator {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Infallible> {
        Ok(MaybeOperator(parts.extensions.get::<Operator>().cloned()))
    }
}

/// The same words for whatever is wrong with a proof: nobody learns which half was right.
pub(super) fn unknown() -> Refusal {
    Refusal::Unproven
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_role_may_what_lesser_ones_may_and_says_what_it_lacks() {
        for (has, role) in Role::ALL.into_iter().enumerate() {
            let operator = Operator { name: "anna".into(), role, by: By::Token(1) };
            for (needs, wanted) in Role::ALL.into_iter().enumerate() {
                assert_eq!(operator.check(wanted).is_ok(), has >= needs, "{role} for {wanted}");
            }
            assert_eq!(role.to_string().parse(), Ok(role));
        }
        let reader = Operator { name: "anna".into(), role: Role::Read, by: By::Token(1) };
        let says = reader.check(Role::Admin).unwrap_err().to_string();
        assert_eq!(says, "this needs role admin; anna has read");
        assert!("root".parse::<Role>().is_err());
    }
}
