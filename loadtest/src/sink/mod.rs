//! A scripted mailbox provider: an SMTP server that accepts, refuses, defers, hangs or hangs up as its script says, and
//! keeps its own account of what it was given.
//!
//! It shares no code with the daemon that it checks. [`session::Session`] is a state machine without IO;
//! [`Sink`] drives it on tokio sockets, [`listen_on`] on those of `host`. A [`Provider`] is one mailbox provider: its [`Script`] (which may change while
//! it runs), its greylist, and its record of messages, counts and violations of RFC 5321 by whoever delivered to it.

mod driver;
mod post;
mod presets;
mod provider;
mod script;
pub mod session;

pub use driver::{Sink, listen_on, serve};
pub use post::{Report, post_on, post_to};
pub use provider::{Counts, Keep, Message, Provider};
pub use script::{Act, Pace, Rule, Script, Stage};

#[cfg(test)]
mod tests;
