//! The tradewind MTA.
pub mod events;
pub mod queue;
