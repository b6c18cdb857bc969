//! The tradewind MTA.

pub mod config;
