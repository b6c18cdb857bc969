//! Policy: who may send, from which domain, and what a refusal says. Pure answers: everything is decided from
//! a snapshot ([`Directory`]) that the control thread replaces as a whole, so no session waits for anything.
//!
//! [`members`] are the rows on disk · [`directory`] finds who a user name means · [`standing`] is what labels say ·
//! [`admit`] answers the dialogue's questions · [`from`] reads the From field as strictly as the strictest receiver ·
//! [`throttle`] slows those who guess · [`dns`] lists what a member publishes.
//!
//! Not here: polling labels and changing members (`control`), keys (`sign`), rates and budgets (`scheduler`).

pub mod admit;
pub mod directory;
pub mod dns;
pub mod from;
pub mod members;
pub mod standing;
pub mod throttle;

#[cfg(test)]
mod tests;

pub use admit::Sender;
pub use directory::{Directory, Requirement, SharedDirectory};
pub use dns::{DnsRecord, dns_records};
pub use members::{Class, Credential, CredentialKey, Member};
pub use standing::{Label, Standing};
pub use throttle::Throttle;
