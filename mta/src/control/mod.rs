//! The control thread: everything that speaks HTTP.
//!
//! Ordinary tokio. Mail never waits for it: what it provides is read from snapshots that it publishes.
//!
//! - [`admin`]: the operator's socket and the admin port: who may ask for what.
//! - [`api`]: what is said there; [`answers`] has what is said about queued mail.
//! - `audit`: who changed what.
//! - `console`: the pages.
//! - [`daemon`]: members and keys, and the snapshots that other threads read of them.
//! - `explain`, `wishes`, `stream`: why mail waits, what an operator does about it, and what became of it.
//! - [`fetch`]: what is asked of others.
//! - `handles`: what members are called.
//! - [`labels`]: who vouches for our members.
//! - `members`: members and their rows.
//! - [`metrics`]: what is counted.
//! - `overview`: how everything goes, on one page.
//! - `plans`, `shaping`: texts that operators keep, applied and undone; `kept` has what they share.
//! - `replies`, `sites`, `credentials`: one thing in detail.
//! - [`run`]: the thread itself.
//! - `sources`: our own addresses, and what is found about them.
//! - `standing`: what the labeler is told of mail, and what it doubts.
//! - `tiers`: what members may send and have sent.
//! - `warmup`: where young sources stand, and what an operator does about it.
//! - `tokens`: operators' tokens, made and revoked.
//! - [`web`]: what is asked of hosts that others name.

mod access_answers;
pub mod actions;
pub mod admin;
pub mod answers;
pub mod api;
mod audit;
mod console;
mod credentials;
pub mod daemon;
mod detail_answers;
mod explain;
pub mod fetch;
mod handles;
mod http;
mod kept;
pub mod labels;
mod members;
pub mod metrics;
mod operations;
mod overview;
mod overview_answers;
mod plan_answers;
mod plans;
mod replies;
pub mod run;
mod shaping;
mod shaping_answers;
mod sites;
mod sources;
mod standing;
mod stream;
mod tiers;
mod tokens;
mod trials;
mod verified;
mod views;
mod warmup;
pub mod warmup_answers;
mod warmup_outlook;
pub mod web;
mod wishes;

pub use run::{Control, start};
pub use wishes::Verb;
