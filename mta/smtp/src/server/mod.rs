//! The server's side of the dialogue (RFC 5321), as a machine that asks and is answered.
//!
//! The driver's whole duty:
//!
//! ```text
//! loop {
//!     match session.poll() {
//!         // Same `phase` as before: keep the deadline. Another: now + `within`.
//!         Step::Read { phase, within } => session.handle_octets(read(phase, within)), // empty: end of stream
//!         Step::Write(octets) => write(octets),
//!         Step::Ask(ask) => session.handle_answer(policy(ask)),
//!         Step::StartTls => { handshake(); session.handle_tls() }
//!         Step::Close => return,
//!     }
//! }
//! ```
//!
//! A read that times out is told by `handle_deadline`. Replies to pipelined commands are gathered into one
//! write (RFC 2920 §3.2). Nobody gets more than one deadline for a phase, however slowly the octets come:
//! a phase is one command line, or one block of a message that must arrive at a least rate ([`Timeouts`]).
//!
//! Where FUTURERELEASE is offered the driver also tells the time, by `handle_time` before it polls.
//!
//! Files: `session.rs` the machine · `command.rs` command lines · `data.rs` message octets · `auth.rs` AUTH.
//!
//! Not here: who may send what (the driver answers [`Ask`]), trace fields and loops (the message is handed
//! over as it came, dot-unstuffed), and delays for guessers of passwords (the driver has the clock).

mod auth;
mod command;
mod data;
mod session;

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::Bytes;

use crate::Secret;
use crate::address::{Mailbox, ReversePath};
use crate::envelope::{DeliverBy, Notify, Ret};
use crate::reply::Reply;

pub use session::Session;

/// What a listener's role decides about its sessions. Shared by all of them.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Our name in the greeting and the reply to EHLO (RFC 5321 §4.3.1); the domain of `<postmaster>`.
    pub hostname: String,
    /// Offer STARTTLS (RFC 3207).
    pub starttls: bool,
    /// The session starts inside TLS (RFC 8314 §3): no STARTTLS.
    pub implicit_tls: bool,
    /// Who must authenticate.
    pub auth: Auth,
    /// Offer CHUNKING: `BDAT` beside `DATA` (RFC 3030).
    pub chunking: bool,
    /// Offer DSN: `RET` and `ENVID` of MAIL, `NOTIFY` and `ORCPT` of RCPT (RFC 3461).
    pub dsn: bool,
    /// Offer DELIVERBY (RFC 2852) to those who also have `dsn`: a message that is returned needs a notice.
    /// The shortest time in seconds after which a message can be returned; zero announces none.
    pub deliver_by: Option<u32>,
    /// Offer FUTURERELEASE (RFC 4865) to those who have authenticated, once the driver has told the time: the
    /// longest hold. Zero is none.
    pub hold_max: Duration,
    /// Offer MT-PRIORITY (RFC 6710).
    pub mt_priority: bool,
    /// Offer REQUIRETLS (RFC 8689) inside TLS.
    pub require_tls: bool,
    /// The bounds of a session.
    pub limits: Limits,
}

impl Settings {
    /// No TLS, no AUTH, CHUNKING, none of the extensions about notices and time, default limits.
    pub fn new(hostname: impl Into<String>) -> Self {
        Self {
            hostname: hostname.into(),
            starttls: false,
            implicit_tls: false,
            auth: Auth::Never,
            chunking: true,
            dsn: false,
            deliver_by: None,
            hold_max: Duration::ZERO,
            mt_priority: false,
            require_tls: false,
            limits: Limits::default(),
        }
    }
}

/// Whether a session may or must authenticate (RFC 4954).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Auth {
    /// AUTH is not offered, and is answered 502.
    Never,
    /// MAIL before AUTH is answered 530 5.7.0. AUTH is offered and accepted only inside TLS.
    Required,
}

/// Bounds of one session. Each says what happens at the bound.
#[derive(Debug, Clone)]
pub struct Limits {
    /// Octets of a message, as announced by SIZE (RFC 1870). Above: 552 5.3.4, at MAIL if it was declared.
    /// A peer that goes on to more than twice as much is closed upon.
    pub message_bytes_max: usize,
    /// Octets of a line of a message with its CRLF. RFC 5321 §4.5.3.1.6 demands 1000; more is common in
    /// HTML mail, so more is taken by default. Above: 550 5.6.0.
    pub text_line_bytes_max: usize,
    /// Recipients of a transaction, announced as `RCPTMAX` (RFC 9422); RFC 5321 §4.5.3.1.8 demands 100.
    /// Above: 452 4.5.3. Ten times as many RCPT commands in a transaction: 421.
    pub recipients_max: usize,
    /// Messages of a session, announced as `MAILMAX` (RFC 9422). Above: 421 4.7.0.
    pub messages_max: u32,
    /// Refused commands since the last accepted message. At the bound: 421 4.7.0.
    pub errors_max: u32,
    /// Commands that bring no message forward (NOOP, RSET, VRFY, MAIL without a message …) since the last
    /// accepted message. At the bound: 421 4.7.0.
    pub idle_commands_max: u32,
    /// How long a peer may take.
    pub timeouts: Timeouts,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            message_bytes_max: 50 << 20,
            text_line_bytes_max: 64 << 10,
            recipients_max: 1000,
            messages_max: 1000,
            errors_max: 20,
            idle_commands_max: 100,
            timeouts: Timeouts::default(),
        }
    }
}

/// How long a peer may take for a phase, after which the driver calls [`Session::handle_deadline`].
#[derive(Debug, Clone)]
pub struct Timeouts {
    /// For a whole command line. RFC 5321 §4.5.3.2.7: at least 5 minutes.
    pub command: Duration,
    /// For a block of a message. RFC 5321 §4.5.3.2.5 gives the sender 3 minutes for each of its writes.
    pub data_block: Duration,
    /// Octets per second of a message, at least: a block is `data_block × data_rate_min` octets, and each must
    /// arrive within `data_block`. So a short message may take its 3 minutes, and the longest one at most
    /// `message_bytes_max / data_rate_min`, however it is dribbled.
    pub data_rate_min: u32,
    /// For a write of ours to be taken; the driver's deadline for [`Step::Write`].
    pub write: Duration,
}

impl Default for Timeouts {
    fn default() -> Self {
        Self {
            command: Duration::from_secs(300),
            data_block: Duration::from_secs(180),
            data_rate_min: 4096,
            write: Duration::from_secs(120),
        }
    }
}

impl Timeouts {
    fn block_bytes(&self) -> u64 {
        self.data_block.as_secs().max(1) * u64::from(self.data_rate_min.max(1))
    }
}

/// What the driver is to do next.
#[derive(Debug)]
pub enum Step {
    /// Read, and call `handle_octets`. The deadline is `within` after `phase` was first seen: octets that
    /// dribble in do not move it.
    Read {
        /// Another number is another phase.
        phase: u64,
        /// How long the whole phase may take.
        within: Duration,
    },
    /// Write these octets within [`Timeouts::write`], then poll again.
    Write(Bytes),
    /// Decide, then call `handle_answer`.
    Ask(Ask),
    /// Shake hands as TLS server, then call `handle_tls`. Within [`Timeouts::command`].
    StartTls,
    /// Close the connection. Polling again gives the same.
    Close,
}

/// A question to the policy.
#[derive(Debug)]
pub enum Ask {
    /// Is this them? `Accept` is 235 2.7.0; the refusal for a wrong password is 535 5.7.8 (RFC 4954 §6).
    Auth {
        /// As the peer wrote it.
        username: String,
        /// Not shown by `Debug`.
        password: Secret,
        /// How it came.
        mechanism: Mechanism,
    },
    /// May this reverse-path send? `Accept` is 250 2.1.0.
    Mail {
        /// Whose mail it is.
        path: ReversePath,
        /// What was declared about it.
        parameters: MailParameters,
    },
    /// Is this forward-path taken? `Accept` is 250 2.1.5.
    Recipient {
        /// To whom.
        path: Mailbox,
        /// What was declared about it.
        parameters: RcptParameters,
    },
    /// The message is complete. `Accept` is 250 2.0.0, to be given when it is durable: from then on it is
    /// our duty (RFC 5321 §4.2.5).
    Message {
        /// From whom, to whom.
        envelope: Envelope,
        /// Lines ending in CRLF, dots unstuffed, no bare CR or LF.
        octets: Bytes,
    },
}

/// The policy's answer to [`Ask`].
#[derive(Debug)]
pub enum Answer {
    /// Yes, with the usual reply.
    Accept,
    /// Yes, with this reply: 235 for AUTH, otherwise 250.
    AcceptWith(Reply),
    /// No. A reply with code 421 closes the session (RFC 5321 §3.8).
    Refuse(Reply),
    /// No, and the session is over. The reply is best a 421.
    RefuseAndClose(Reply),
}

/// SASL mechanisms that we take (RFC 4954).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mechanism {
    /// RFC 4616.
    Plain,
    /// draft-murchison-sasl-login; nothing else is spoken by some clients.
    Login,
}

/// What MAIL declared (RFC 5321 §4.1.1.11).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct MailParameters {
    /// `SIZE=` (RFC 1870): never more than we take.
    pub size: Option<u64>,
    /// `BODY=` (RFC 6152).
    pub body: Body,
    /// `SMTPUTF8` (RFC 6531): addresses and header fields may be in UTF-8.
    pub smtputf8: bool,
    /// `RET=` (RFC 3461 §4.3).
    pub ret: Option<Ret>,
    /// `ENVID=` (RFC 3461 §4.4): the sender's own name for this transaction, as xtext.
    pub envid: Option<String>,
    /// `BY=` (RFC 2852). A returning one never comes with a null reverse-path.
    pub deliver_by: Option<DeliverBy>,
    /// `HOLDFOR=` or `HOLDUNTIL=` (RFC 4865): not to be sent before. It may have passed already.
    pub hold_until: Option<SystemTime>,
    /// `MT-PRIORITY=` (RFC 6710): -9 to 9.
    pub priority: Option<i8>,
    /// `REQUIRETLS` (RFC 8689): every hop verifies the next one, or the message goes no further.
    pub require_tls: bool,
}

/// `BODY=` of MAIL (RFC 6152).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Body {
    /// Nothing declared, or `7BIT`. Octets above 127 may come nevertheless; they are kept.
    #[default]
    SevenBit,
    /// `8BITMIME`.
    EightBitMime,
}

/// What RCPT declared (RFC 3461).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RcptParameters {
    /// `NOTIFY=`. None: not given, which is not the same as any value of it (RFC 3461 §5.2.1).
    pub notify: Option<Notify>,
    /// `ORCPT=`: the recipient as first named, `type;xtext`, in ASCII.
    pub orcpt: Option<String>,
}

/// How the peer introduced itself (RFC 5321 §4.1.1.1).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Greeted {
    /// The argument of EHLO or HELO, as claimed; printable ASCII.
    pub name: String,
    /// EHLO rather than HELO.
    pub esmtp: bool,
}

/// An accepted reverse-path and the accepted forward-paths of one message (RFC 5321 §2.3.1), and what its
/// trace field says of the session (RFC 5321 §4.4).
#[derive(Debug, Clone)]
pub struct Envelope {
    /// Where reports go.
    pub reverse_path: ReversePath,
    /// What MAIL declared.
    pub parameters: MailParameters,
    /// In the order they were accepted; never empty. A peer may have named one twice.
    pub recipients: Vec<(Mailbox, RcptParameters)>,
    /// Whom the peer said to be.
    pub greeted: Arc<Greeted>,
    /// Whether it came inside TLS.
    pub tls: bool,
    /// Whether the session had authenticated.
    pub authenticated: bool,
}

impl Envelope {
    /// The `with` of the trace field (RFC 3848, RFC 6531 §4.3): `ESMTPSA` and its kin.
    pub fn with_protocol(&self) -> &'static str {
        match (self.greeted.esmtp, self.parameters.smtputf8, self.tls, self.authenticated) {
            (false, false, false, _) => "SMTP",
            (_, true, false, false) => "UTF8SMTP",
            (_, true, false, true) => "UTF8SMTPA",
            (_, true, true, false) => "UTF8SMTPS",
            (_, true, true, true) => "UTF8SMTPSA",
            (true, false, false, false) => "ESMTP",
            (true, false, false, true) => "ESMTPA",
            (_, false, true, false) => "ESMTPS",
            (_, false, true, true) => "ESMTPSA",
        }
    }
}

impl fmt::Display for Mechanism {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Plain => "PLAIN",
            Self::Login => "LOGIN",
        })
    }
}
