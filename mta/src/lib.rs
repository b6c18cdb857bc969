//! The tradewind MTA.
