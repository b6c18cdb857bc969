//! The exchange of AUTH (RFC 4954): PLAIN (RFC 4616) and LOGIN, each with or without an initial response.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::Mechanism;
use crate::Secret;
use crate::reply::Reply;

/// What we wait for after a 334.
#[derive(Debug)]
pub(super) enum Exchange {
    Plain,
    LoginUsername,
    LoginPassword { username: String },
}

/// How an exchange goes on.
pub(super) enum Next {
    /// Say 334 and wait.
    Challenge(Exchange, &'static str),
    /// Ask whether it is true.
    Check { username: String, password: Secret, mechanism: Mechanism },
    /// It has ended.
    Refuse(Reply),
}

/// The argument of AUTH: `mechanism [initial-response]`.
pub(super) fn begin(argument: &str) -> Next {
    let mut words = argument.split(' ').filter(|word| !word.is_empty());
    let (mechanism, initial) = (words.next().unwrap_or(""), words.next());
    if mechanism.is_empty() || words.next().is_some() {
        return Next::Refuse(Reply::new(501, (5, 5, 4), "Syntax: AUTH mechanism [initial-response]"));
    }
    let (exchange, challenge) = if mechanism.eq_ignore_ascii_case("PLAIN") {
        (Exchange::Plain, "")
    } else if mechanism.eq_ignore_ascii_case("LOGIN") {
        (Exchange::LoginUsername, "VXNlcm5hbWU6") // "Username:"
    } else {
        return Next::Refuse(Reply::new(504, (5, 5, 4), "Mechanisms: PLAIN LOGIN"));
    };
    match initial {
        None => Next::Challenge(exchange, challenge),
        // RFC 4954 §4: how an empty initial response is written.
        Some("=") => respond(exchange, ""),
        Some(response) => respond(exchange, response),
    }
}

/// A line of the peer after a 334.
pub(super) fn respond(exchange: Exchange, line: &str) -> Next {
    if line == "*" {
        return Next::Refuse(Reply::new(501, (5, 7, 0), "Authentication cancelled"));
    }
    let malformed = || Next::Refuse(Reply::new(501, (5, 5, 2), "Malformed response; send base64 as the mechanism demands"));
    let Some(response) = STANDARD.decode(line).ok().and_then(|octets| String::from_utf8(octets).ok()) else {
        return malformed();
    };
    match exchange {
        Exchange::Plain => {
            let mut parts = response.split('\0');
            let (Some(identity), Some(username), Some(password), None) = (parts.next(), parts.next(), parts.next(), parts.next())
            else {
                return malformed();
            };
            if username.is_empty() || password.is_empty() {
                return malformed();
            }
            if !identity.is_empty() && identity != username {
                return Next::Refuse(Reply::new(535, (5, 7, 8), "To act for another user is not possible here"));
            }
            let password = Secret::new(password);
            Next::Check { username: username.to_owned(), password, mechanism: Mechanism::Plain }
        }
        Exchange::LoginUsername if response.is_empty() || response.contains('\0') => malformed(),
        Exchange::LoginUsername => Next::Challenge(Exchange::LoginPassword { username: response }, "UGFzc3dvcmQ6"), // "Password:"
        Exchange::LoginPassword { .. } if response.is_empty() || response.contains('\0') => malformed(),
        Exchange::LoginPassword { username } => {
            Next::Check { username, password: Secret::new(response), mechanism: Mechanism::Login }
        }
    }
}
