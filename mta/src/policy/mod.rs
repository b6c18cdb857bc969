//! Policy: who may send, from which domain, and what a refusal says. Pure answers: everything is decided from
//! a snapshot ([`Directory`]) that the control thread replaces as a whole, so no session waits for anything.
//!
//! [`members`] are the rows on disk · [`directory`] finds who a user name means · [`standing`] is what labels say ·
//! [`admit`] answers the dialogue's questions · [`class`] says what a message is for · [`from`] reads the From field as
//! strictly as the strictest receiver · [`throttle`] slows those who guess · [`dns`] lists what a member publishes ·
//! [`tier`] is what members may do, [`account`] what one of them has spent of it, by [`rate`] and by day ([`today`]) ·
//! [`retry`] knows a message that is submitted a second time.
//!
//! Not here: polling labels and changing members (`control`), keys (`sign`), how fast sites are sent to (`scheduler`).

pub mod account;
pub mod admit;
pub mod class;
pub mod directory;
pub mod dns;
pub mod doubts;
pub mod from;
pub mod members;
pub mod rate;
pub mod retry;
pub mod standing;
pub mod throttle;
pub mod tier;
pub mod today;

#[cfg(test)]
mod tests;

pub use account::{Account, Meter};
pub use admit::Sender;
pub use directory::{Directory, Requirement, SharedDirectory};
pub use dns::{DnsRecord, dns_records};
pub use doubts::{Caution, Doubts};
pub use members::{Class, Credential, CredentialKey, Member};
pub use standing::{Label, Standing};
pub use throttle::Throttle;
pub use tier::{Tier, Tiers};
