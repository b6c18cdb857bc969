//! Who vouches for a message? For mail clients, filters and experiments with encrypted mail; `tradewind verify` and the labeler's
//! `coop.tradewind.verifyMessage` are thin around it.
//!
//! Pure: it opens no socket and reads no clock. Whoever asks brings what DNS and a labeler say, in three steps:
//!
//! 1. [`Message::read`] takes the message apart and says which DKIM keys it wants from DNS ([`Message::keys`]).
//! 2. [`Message::verify`] checks each signature and says what it has to know of whom ([`Claim::question`]): which account speaks
//!    for that domain, and which labels a labeler has given it.
//! 3. [`Claim::report`] puts both together.
//!
//! A message is *vouched* for when a DKIM signature that can be relied on (RFC 6376, RFC 8301, RFC 8463) was made by the domain
//! of its only author or by a parent of it within the same organization; when that domain is attested by one account, with the signature's selector; when the
//! message names no other account in a field that the signature covers; and when the labeler's `verified-mail-operator` is in
//! force and was so when the message was signed, as far as that is known. Everything else that a reader should know is said
//! beside it ([`Report::does_not_prove`]).
//!
//! | file | what is in it |
//! |---|---|
//! | `message` | the header section and the author, read so that they have one reading |
//! | `tags` | tag lists of signatures and keys |
//! | `dkim` | one signature: is it sound, and is it good for anything? |
//! | `report` | the answer |
//! | `organization` | whose a name is: public suffixes |
//!
//! Nothing of a message is kept or shown but its author's address, the names of its fields, and what its signatures say.

mod dkim;
mod message;
pub mod organization;
mod report;
mod tags;
#[cfg(test)]
mod tests;

use std::time::{Duration, SystemTime};

use atproto::Did;

pub use message::{MESSAGE_BYTES_MAX, Message, Refused};
pub use report::{Account, Attested, Binding, Bound, LabelSeen, NamedBy, Outcome, Report, SignatureReport, Verdict, When};

/// By which the MTA names the member, covered by its signatures.
pub const DID_FIELD: &str = "X-Atmos-Member-Did";
/// Signatures that are looked at: those of the author's domain first, then from the top. Further ones are only counted.
pub const SIGNATURES_MAX: usize = 8;
/// Clocks of honest servers differ by less.
pub const CLOCKS_DIFFER_MAX: Duration = Duration::from_secs(300);

/// What DNS says of the TXT records at a name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// These, each joined from its strings.
    Found(Vec<String>),
    /// There are none, and somebody who knows says so.
    Absent,
    /// Nobody could say, and why.
    Unknown(String),
}

/// What the message itself proves, before anybody is asked about an account.
#[derive(Debug, Clone)]
pub struct Claim {
    report: Report,
    question: Option<Question>,
}

/// What is to be found out about an account.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Question {
    /// The signing domain, which an account has to attest.
    pub domain: String,
    /// Which account, if the message names one in a field that the signature covers; otherwise, which account is it?
    pub did: Option<Did>,
    /// Selectors of the good signatures of that domain; the attestation has to name one of them.
    pub selectors: Vec<String>,
    /// When the newest of these signatures says that it was made.
    pub signed_at: Option<SystemTime>,
}

impl Claim {
    /// What to find out next. None: nothing that could change the answer.
    pub fn question(&self) -> Option<&Question> {
        self.question.as_ref()
    }
}
