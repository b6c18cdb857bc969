//! The tradewind MTA.

pub mod config;
pub mod control;
pub mod events;
pub mod policy;
pub mod queue;
pub mod sign;
