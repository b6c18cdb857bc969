//! The control thread: everything that speaks HTTP.
//!
//! Ordinary tokio. Mail never waits for it: what it provides is read from snapshots that it publishes.
//!
//! - [`admin`]: the operator's socket and the admin port.
//! - [`api`]: what is said there.
//! - [`fetch`]: what is asked of others.
//! - [`labels`]: who vouches for our members.
//! - [`metrics`]: what is counted.

pub mod admin;
pub mod api;
pub mod fetch;
mod http;
pub mod labels;
pub mod metrics;
mod page;
