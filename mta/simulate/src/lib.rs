//! What would a warmup plan do? The real scheduler in virtual time against models of receivers.
//!
//! A `Trial` says which plan, how much mail, which receivers; `run` lets the days pass and gives a `Report`: a row for each
//! day, with the engine's decisions in its own words, and the simulation's own count of what the receivers took. `table.rs` and
//! `chart.rs` show one report or two side by side; `outlook.rs` says what that means for the volume there is.
//!
//! Not here: reading plans and other files (the caller does), the daemon (it is not asked).
#![forbid(unsafe_code)]

mod chart;
mod luck;
mod outlook;
mod receiver;
mod report;
mod table;
mod tally;
mod trial;
mod volume;
mod world;

pub use chart::{chart, range_chart};
pub use receiver::Model;
pub use report::{Day, Report};
pub use scheduler::warmup::{Plan, Stages};
pub use table::{range_table, table};
pub use trial::{DELIVERIES_A_DAY, PROVIDERS_MAX, SOURCES_MAX, Trial};
pub use volume::Volume;
