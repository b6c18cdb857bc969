//! The control thread: everything that speaks HTTP.
//!
//! Ordinary tokio. Mail never waits for it: what it provides is read from snapshots that it publishes.
//!
//! - [`admin`]: the operator's socket and the admin port.
//! - [`api`]: what is said there.
//! - [`daemon`]: members and keys, and the snapshots that other threads read of them.
//! - [`fetch`]: what is asked of others.
//! - `handles`: what members are called.
//! - [`labels`]: who vouches for our members.
//! - [`metrics`]: what is counted.
//! - [`run`]: the thread itself.
//! - `tiers`: what members may send and have sent.

pub mod admin;
pub mod api;
pub mod daemon;
pub mod fetch;
mod handles;
mod http;
pub mod labels;
pub mod metrics;
mod operations;
mod page;
pub mod run;
mod tiers;
mod views;

pub use run::{Control, start};
