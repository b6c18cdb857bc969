//! The SMTP dialogue (RFC 5321), server and client, without IO.
//!
//! Both sides are state machines that ask and are answered: a driver calls `poll`, does what the
//! [`server::Step`] or [`client::Step`] says (read, write, start TLS, ask the policy) and tells the
//! session what came of it by one of its `handle_*` methods. There is no socket, clock, dice or
//! async runtime here, so a whole dialogue is a text file in `tests/transcripts`.
//!
//! - [`address`]: mailboxes, reverse-paths and forward-paths in canonical form.
//! - [`envelope`]: what MAIL and RCPT declare beside them, for notices, deadlines and priority.
//! - [`reply`]: replies with enhanced status codes, written and read.
//! - [`server`]: what we answer; PIPELINING, SIZE, 8BITMIME, SMTPUTF8, ENHANCEDSTATUSCODES,
//!   STARTTLS, AUTH, CHUNKING, LIMITS, DSN, DELIVERBY, FUTURERELEASE, MT-PRIORITY.
//! - [`client`]: how we deliver; a fate for each forward-path.
//!
//! Promises held in this crate: no bare CR or LF is accepted or sent, no buffer grows with what a
//! peer sends beyond a stated bound, and no octets of a peer make it panic.

pub mod address;
pub mod client;
pub mod envelope;
#[cfg(any(test, feature = "fuzz"))]
pub mod fuzz;
mod instant;
pub mod reply;
mod secret;
pub mod server;

pub use secret::Secret;
