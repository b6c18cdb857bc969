//! What may be sent next, from where, how fast: no IO, no clock.
#![forbid(unsafe_code)]

mod attend;
mod config;
mod dice;
mod domain;
mod evaluate;
mod health;
mod machine;
mod retry;
mod send;
mod site;
mod slab;
mod source;
mod time;
mod types;
mod view;
mod window;

pub use config::*;
pub use domain::{WINDOW_LOW, WINDOW_MAX};
pub use evaluate::{Clears, Decision, Hold, Reason, SetBy};
pub use machine::Scheduler;
pub use types::*;
pub use view::*;
