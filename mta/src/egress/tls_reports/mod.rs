//! TLS-RPT (RFC 8460): telling a domain, once a day, how its TLS policy fared with us.
//!
//! - [`record`]: where it wants to be told.
//! - [`notes`]: what there is to count, from those who meet it.
//! - [`tally`]: the counts, as they are kept over restarts.
//! - [`report`]: what is said.
//! - [`send`]: how it is handed over.
//! - [`actor`] says when.

pub mod actor;
pub mod notes;
pub mod record;
pub mod report;
pub mod send;
pub mod tally;
