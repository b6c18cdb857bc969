//! What may be sent next, from where, how fast: no IO, no clock.
#![forbid(unsafe_code)]

mod config;
mod machine;
mod types;

pub use config::*;
pub use machine::Scheduler;
pub use types::*;
