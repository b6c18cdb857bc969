//! TLS-RPT (RFC 8460): telling a domain, once a day, how its TLS policy fared with us.
//!
//! - [`record`]: where it wants to be told.

pub mod record;
