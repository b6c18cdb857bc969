//! The scheduler in virtual time: days pass in milliseconds, and nothing sleeps.
//!
//! `world` is a queue on disk, a resolver and scripted sites, with the delays and races of real ones; `check` looks at
//! everything that happens and counts for itself. Any failure names the seed that brings it back.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that meets the impossible has failed")]
#![allow(unreachable_pub, reason = "one crate, and nobody uses it")]

mod actions;
mod check;
mod fairness;
mod lanes;
mod limits;
mod operate;
mod races;
mod random;
mod routes;
mod shaping;
mod trouble;
mod warmup;
mod warmup_world;
mod world;
