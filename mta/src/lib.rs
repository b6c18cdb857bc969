//! The tradewind MTA.

pub mod config;
pub mod control;
pub mod policy;
pub mod sign;
