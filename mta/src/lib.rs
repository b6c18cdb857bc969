//! The tradewind MTA.

pub mod config;
pub mod control;
