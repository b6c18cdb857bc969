//! What may be sent next, from where, how fast: no IO, no clock.
//!
//! A `Scheduler` is a state machine. The driver tells it what happened (`handle_*`, each with the time), asks it what to
//! do (`poll`, until it says nothing), does that, and tells it how it went. Between inputs it sleeps until
//! `next_timeout`. Every decision about sending is made here, in one place and on one thread, so none needs a lock, and
//! a month of mail can be tried out in milliseconds.
//!
//! # The words
//! A *delivery* is one message to one recipient domain. What one member has for one domain is a *flow*: it lies on disk
//! under domain and member, and what is due of it is brought into memory in small windows (`flow.rs`, `domain.rs`). Only
//! DNS tells to which *site* a domain's mail travels: domains with the same set of MX hosts share a site (`site.rs`), with
//! a *window* for each of our *sources* that feedback moves (`window.rs`). There members take *turns* by weight
//! (`turns.rs`), as they do for lookups and loads (`line.rs`), and no one of them fills the memory (`memory.rs`).
//! The mail of each *pool* of sources has its turns apart (`pools.rs`, `berth.rs`, `moor.rs`). What receivers bear is data in
//! layers (`shaping.rs`), merged once for the sites that it fits (`shape.rs`) and counted by `bucket.rs` and `provider.rs`.
//! A site in trouble is left alone, and then probed by one delivery (`health.rs`). Rules act on what replies speak of
//! (`react.rs`, counted in `tally.rs`); whatever stops mail by itself is a *measure* with an id, a cause and an end (`measure.rs`,
//! `measures.rs`). A young source sends what its plan of warmup allows (`warmup/`, `ration.rs`). A delivery may remember a source to stay with or to avoid (`pin.rs`). `evaluate.rs` decides whether
//! something may go, or says why not; `send.rs` starts it and learns from the outcome; `retry.rs` knows when to try
//! again; `attend.rs` keeps everything in order; `machine.rs` joins the parts. `view.rs` and `explain.rs` tell an operator
//! what is going on and why, `operate.rs` does what he wants done.
//!
//! # What the driver promises
//! - Every `Resolve`, `Load` and `Deliver` is answered once, also when it failed; every `Settle` after its commit.
//!   Nothing is sent twice and nothing is lost however long that takes, but each unanswered one holds its place.
//! - Commits are told in their order: a delivery's `handle_enqueued` before its `handle_settled`. A `Load` may see the disk
//!   as it was at any time after it was asked for.
//! - After a restart, `handle_measures` first, with what `poll_measures` told, and `handle_backlog` for each flow that has mail,
//!   in any order and at leisure; nothing else needs to be remembered.
//!
//! # What it promises
//! - A delivery is settled exactly once, is never tried before it is due, after its deadline, or twice at a time.
//! - Windows, slots and the bounds of `Config` hold at every moment. Nothing waits while it may go.
//! - One-time codes overtake all other mail of their site, in every line, and a window that is full of other mail has one
//!   more place for them. Trouble of a site costs only the delivery that met it an attempt.
//! - A member's mail, however much it is and wherever it lies, delays another member's by no more than one turn: as many
//!   deliveries as its weight says.
//! - Its memory follows what is active: 1,000,000 deferred deliveries of 50,000 domains are 50,000 names, and a time for
//!   each member that has mail there. What is expired or late is noticed at once while it is in memory, otherwise when it is loaded or
//!   the driver finds it (`handle_overdue`).
//!
//! Not here: MX and TLS policy (`egress/route`, `egress/tls_policy`), what a reply means (`egress/trouble`), the queue.
#![forbid(unsafe_code)]

mod attend;
mod berth;
mod bucket;
mod config;
mod dice;
mod domain;
mod evaluate;
mod explain;
mod flow;
mod health;
mod line;
mod machine;
mod measure;
mod measures;
mod memory;
mod moor;
mod operate;
mod pin;
mod pools;
mod provider;
mod ration;
mod react;
mod retry;
mod ring;
mod send;
mod shape;
mod shaping;
mod site;
mod slab;
mod source;
mod tally;
mod time;
mod tls;
mod turns;
mod types;
mod view;
pub mod warmup;
mod weights;
mod window;

pub use config::*;
pub use evaluate::{Clears, Decision, Hold, Reason, SetBy};
pub use explain::*;
pub use flow::{WINDOW_LOW, WINDOW_MAX};
pub use machine::Scheduler;
pub use measure::*;
pub use operate::*;
pub use pin::Pinned;
pub use pools::MemberPools;
pub use ration::ClimbWish;
pub use react::SourceHealthView;
pub use shaping::*;
pub use tls::*;
pub use types::*;
pub use view::*;
pub use weights::Weights;
