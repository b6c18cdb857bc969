//! The tradewind MTA.

pub mod policy;
pub mod sign;
