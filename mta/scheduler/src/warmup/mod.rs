//! Warmup: how much mail a young source may still send to a provider today.
//!
//! A source earns its reputation slowly, and with each provider by itself. A *plan* (`plan.rs`) names each stage's allowance for
//! a day and what must be true before the next one; the *climb* (`climb.rs`) is where one source stands with one provider;
//! `decide.rs` says at a day's end, from that day's figures alone, whether it goes on, waits or goes back. Days are those of a
//! zone (`zone.rs`). `outlook.rs` says what the mail that there is leads to. `table.rs` holds all climbs for the scheduler.
//!
//! # How it is counted
//! A recipient is reserved before anything is connected, spent when the provider accepts it, and given back when it does not. What is spent
//! is charged to the day on which it was reserved, so no day ever has more than its allowance; the driver writes it down with the
//! settlement. Neither a restart nor a clock that is stepped begins a day again: a climb's day never goes back.
//!
//! Not here: plan files (`mta/src/config`), the ledger (`mta/src/queue`), rates and windows (`shaping.rs`).

mod climb;
mod decide;
mod outlook;
mod plan;
mod table;
#[cfg(test)]
mod tests;
mod zone;

pub use climb::*;
pub use decide::{Decision, Rule, decide, strike};
pub use outlook::*;
pub use plan::*;
pub use table::{Assignment, ClimbNews, ClimbRow, ClimbView, Pacing, Remembered, Spent, Step, Stop};
pub(crate) use table::{Entry, Reservation, Warmup};
pub use zone::*;
