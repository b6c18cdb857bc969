//! The client's side of the dialogue (RFC 5321), as a machine that says what to do next.
//!
//! ```text
//! loop {
//!     match session.poll() {
//!         // Same `phase` as before: keep the deadline. Another: now + `within`. Out of time, or an error of any
//!         // step: `handle_broken(reason)`.
//!         Step::Read { phase, within } => session.handle_octets(read(phase, within)), // empty: end of stream
//!         Step::Write(octets) => write(octets), // failed: `handle_unwritten(what the peer had said by then, reason)`
//!         Step::StartTls => { handshake(); session.handle_tls() }
//!         Step::Ready => match next_transaction() { Some(it) => session.begin(it), None => session.quit() },
//!         Step::Done(fates) => settle(fates), // one for each recipient, in their order
//!         Step::Close => break, // see `trouble()` if it was never Ready
//!     }
//! }
//! ```
//!
//! With PIPELINING (RFC 2920) a transaction costs two turns, with CHUNKING (RFC 3030) too only one. But where all is sent at
//! once, a reply too many lets the reply to RCPT stand in the place of the one to the message, which would then count as
//! delivered and may be lost; with DATA the 354 in between can be no other command's. So BDAT is used once a transaction by DATA
//! has shown, over the same connection, that the peer's enhanced codes (RFC 3463) tell the two apart, and a reply to BDAT counts
//! as success only if it has a code that speaks of no address.
//!
//! Files: `session.rs` the machine · `transaction.rs` one transaction's commands, replies and fates ·
//! `replies.rs` octets to replies · `extensions.rs` what EHLO told · `dialogue.rs` what was said, for people.
//!
//! Not here: which host, when to try again, what a reply means for the site, whether a certificate is good.

mod dialogue;
mod extensions;
mod replies;
mod session;
mod transaction;

use std::fmt;
use std::time::Duration;

use bytes::Bytes;

use crate::Secret;
use crate::address::{Mailbox, ReversePath};
use crate::envelope::{DeliverBy, Notify, Ret};
use crate::reply::Reply;

pub use extensions::Extensions;
pub use session::Session;

/// RFC 5321 §4.5.3.2.1: for the greeting.
pub const GREETING_WAIT: Duration = Duration::from_secs(300);
/// For EHLO, HELO, STARTTLS and AUTH, of which RFC 5321 says nothing: as for MAIL.
pub const COMMAND_WAIT: Duration = Duration::from_secs(300);
/// RFC 5321 §4.5.3.2.2: for the reply to MAIL.
pub const MAIL_WAIT: Duration = Duration::from_secs(300);
/// RFC 5321 §4.5.3.2.3: for the reply to RCPT; longer where mailing lists are expanded.
pub const RCPT_WAIT: Duration = Duration::from_secs(300);
/// RFC 5321 §4.5.3.2.4: for the 354 to DATA.
pub const DATA_WAIT: Duration = Duration::from_secs(120);
/// RFC 5321 §4.5.3.2.5: for a write of ours to be taken.
pub const DATA_BLOCK_WAIT: Duration = Duration::from_secs(180);
/// RFC 5321 §4.5.3.2.6. Giving up sooner sends a second copy: the peer may have the first (RFC 1047).
pub const DATA_DONE_WAIT: Duration = Duration::from_secs(600);
/// For the reply to QUIT. Nothing hangs on it any more.
pub const QUIT_WAIT: Duration = Duration::from_secs(10);

/// How long to wait for a peer. The defaults are the constants of this module.
#[derive(Debug, Clone)]
pub struct Timeouts {
    /// [`GREETING_WAIT`].
    pub greeting: Duration,
    /// [`COMMAND_WAIT`].
    pub command: Duration,
    /// [`MAIL_WAIT`].
    pub mail: Duration,
    /// [`RCPT_WAIT`].
    pub rcpt: Duration,
    /// [`DATA_WAIT`].
    pub data: Duration,
    /// [`DATA_BLOCK_WAIT`]: the driver's deadline for any [`Step::Write`].
    pub data_block: Duration,
    /// [`DATA_DONE_WAIT`].
    pub data_done: Duration,
    /// [`QUIT_WAIT`].
    pub quit: Duration,
}

impl Default for Timeouts {
    fn default() -> Self {
        Self {
            greeting: GREETING_WAIT,
            command: COMMAND_WAIT,
            mail: MAIL_WAIT,
            rcpt: RCPT_WAIT,
            data: DATA_WAIT,
            data_block: DATA_BLOCK_WAIT,
            data_done: DATA_DONE_WAIT,
            quit: QUIT_WAIT,
        }
    }
}

/// How a session is to be led.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The argument of EHLO: the name of the source (RFC 5321 §4.1.1.1).
    pub ehlo: String,
    /// Use STARTTLS where it is offered (RFC 3207, RFC 7435).
    pub starttls: bool,
    /// Without TLS there is no transaction: the session ends with [`Session::trouble`] at [`Stage::StartTls`].
    pub require_tls: bool,
    /// The session starts inside TLS (RFC 8314 §3).
    pub implicit_tls: bool,
    /// Authenticate by AUTH PLAIN (RFC 4616), inside TLS only.
    pub credentials: Option<Credentials>,
    /// Use CHUNKING where it is offered together with PIPELINING (RFC 3030) and ENHANCEDSTATUSCODES, and replies can be told apart.
    pub chunking: bool,
    /// How long to wait.
    pub timeouts: Timeouts,
}

impl Settings {
    /// STARTTLS and CHUNKING where offered, no AUTH, the RFC's timeouts.
    pub fn new(ehlo: impl Into<String>) -> Self {
        Self {
            ehlo: ehlo.into(),
            starttls: true,
            require_tls: false,
            implicit_tls: false,
            credentials: None,
            chunking: true,
            timeouts: Timeouts::default(),
        }
    }
}

/// Who we are for a submission server (RFC 4954).
#[derive(Debug, Clone)]
pub struct Credentials {
    /// The authentication identity.
    pub username: String,
    /// Not shown by `Debug`.
    pub password: Secret,
}

/// One message for recipients of one site (RFC 5321 §3.3).
#[derive(Clone)]
pub struct Transaction {
    /// Where reports go.
    pub reverse_path: ReversePath,
    /// Whom it is for. More than the peer's RCPTMAX, or of more domains than its RCPTDOMAINMAX (RFC 9422), remain
    /// [`Fate::Untried`].
    pub recipients: Vec<Recipient>,
    /// The message: lines ending in CRLF, no dots stuffed.
    pub octets: Bytes,
    /// It has octets above 127, so it needs 8BITMIME (RFC 6152).
    pub eight_bit: bool,
    /// Its header fields have UTF-8, so it needs SMTPUTF8 (RFC 6531). Needed by its addresses: seen here.
    pub smtputf8: bool,
    /// What else MAIL tells a peer that offers to hear it.
    pub parameters: Parameters,
}

/// One forward-path and what RCPT tells about it a peer that offers DSN (RFC 3461 §5.2.1).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Recipient {
    /// To whom.
    pub mailbox: Mailbox,
    /// `NOTIFY=`, if the sender gave it.
    pub notify: Option<Notify>,
    /// `ORCPT=`, if the sender gave it, as it was written.
    pub orcpt: Option<String>,
}

impl From<Mailbox> for Recipient {
    fn from(mailbox: Mailbox) -> Self {
        Self { mailbox, notify: None, orcpt: None }
    }
}

/// Parameters of MAIL that are sent where the peer offers their extension, and left out elsewhere: whether it did
/// is seen in [`Session::peer_extensions`].
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Parameters {
    /// `RET=` (RFC 3461 §4.3).
    pub ret: Option<Ret>,
    /// `ENVID=` (RFC 3461 §4.4), as xtext.
    pub envid: Option<String>,
    /// `BY=` (RFC 2852): what is left of the time. Less than the peer's least is kept from it.
    pub deliver_by: Option<DeliverBy>,
    /// `MT-PRIORITY=` (RFC 6710).
    pub priority: Option<i8>,
    /// `REQUIRETLS` (RFC 8689). This one is never left out: a peer that does not offer it inside TLS does not get the
    /// message, and that is told as 550 5.7.30 of [`Stage::Local`].
    pub require_tls: bool,
}

impl fmt::Debug for Transaction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let recipients: Vec<_> = self.recipients.iter().map(|recipient| &recipient.mailbox).collect();
        write!(f, "Transaction({} to {recipients:?}, {} octets)", self.reverse_path, self.octets.len())
    }
}

/// What the driver is to do next.
#[derive(Debug)]
pub enum Step {
    /// Read, and call `handle_octets`. The deadline is `within` after `phase` was first seen: octets that
    /// dribble in do not move it. Out of time: `handle_broken`.
    Read {
        /// Another number is another phase.
        phase: u64,
        /// How long the whole phase may take.
        within: Duration,
    },
    /// Write these octets within [`Timeouts::data_block`], then poll again.
    Write(Bytes),
    /// Shake hands as TLS client, then call `handle_tls`.
    StartTls,
    /// Nothing to do: call `begin` or `quit`, or keep the session for later.
    Ready,
    /// The transaction has ended: a fate for each of its recipients, in their order. Polling again gives
    /// `Ready` if the session can be used again.
    Done(Vec<Fate>),
    /// Close the connection. Polling again gives the same.
    Close,
}

/// What became of a recipient.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fate {
    /// The peer has taken it over (RFC 5321 §4.2.5).
    Accepted(Reply),
    /// Refused for now (4yz) or for good (5yz), as the reply says.
    Refused {
        /// The peer's reply; at [`Stage::Local`] our own.
        reply: Reply,
        /// What it answered.
        stage: Stage,
    },
    /// The dialogue broke off. At [`Stage::Body`] the peer may have the message nevertheless (RFC 1047).
    Broken {
        /// How far we had come.
        stage: Stage,
        /// In words, for a log.
        reason: String,
    },
    /// Not offered, because it was above the peer's RCPTMAX or RCPTDOMAINMAX (RFC 9422), or answered that it was one too many
    /// (RFC 5321 §4.5.3.1.10). It can begin another transaction at once.
    Untried,
}

/// How far a dialogue has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Stage {
    /// Before the greeting was read.
    Greeting,
    /// EHLO or HELO.
    Ehlo,
    /// STARTTLS and the handshake.
    StartTls,
    /// AUTH.
    Auth,
    /// Nothing was sent: what the message needs is not offered (SIZE, 8BITMIME, SMTPUTF8), or it is malformed.
    Local,
    /// MAIL.
    Mail,
    /// RCPT.
    Rcpt,
    /// DATA, and the message up to its end.
    Data,
    /// After the end of the message was sent.
    Body,
}

impl fmt::Display for Stage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Greeting => "greeting",
            Self::Ehlo => "EHLO",
            Self::StartTls => "STARTTLS",
            Self::Auth => "AUTH",
            Self::Local => "local",
            Self::Mail => "MAIL",
            Self::Rcpt => "RCPT",
            Self::Data => "DATA",
            Self::Body => "end of data",
        })
    }
}
