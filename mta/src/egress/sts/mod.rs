//! MTA-STS (RFC 8461): what a domain promises about TLS at the hosts that take its mail.
//!
//! - [`record`]: the TXT record that says that there is a policy.
//! - [`policy`]: the policy file, and which hosts it allows.

pub mod policy;
pub mod record;
