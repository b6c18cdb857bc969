//! The scheduler in virtual time: days pass in milliseconds, and nothing sleeps.
//!
//! `world` is a queue on disk, a resolver and scripted sites, with the delays and races of real ones; `check` looks at
//! everything that happens and counts for itself. Any failure names the seed that brings it back.

mod check;
mod lanes;
mod limits;
mod random;
mod routes;
mod trouble;
mod world;
