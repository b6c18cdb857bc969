//! What a scripted mailbox provider does: its extensions, its limits, and its misbehaviour by rules.

use std::net::IpAddr;
use std::time::Duration;

/// How a provider behaves. The default accepts everything, offers PIPELINING, 8BITMIME, SMTPUTF8 and SIZE, and no TLS.
#[derive(Clone, Debug)]
pub struct Script {
    /// Name in the greeting.
    pub hostname: String,
    /// Offer and understand PIPELINING (RFC 2920); without it, commands sent in one go are violations.
    pub pipelining: bool,
    /// Offer BDAT (RFC 3030).
    pub chunking: bool,
    /// Offer 8BITMIME and SMTPUTF8.
    pub eight_bit: bool,
    /// Offer STARTTLS; the sink must have been given a certificate.
    pub starttls: bool,
    /// Offer REQUIRETLS (RFC 8689) inside TLS.
    pub require_tls: bool,
    /// Largest message, offered as SIZE.
    pub message_bytes_max: Option<u64>,
    /// Recipients of one transaction; more get 452 4.5.3.
    pub recipients_max: Option<usize>,
    /// Announce `recipients_max` by LIMITS (RFC 9422).
    pub limits: bool,
    /// Offer DSN (RFC 3461), DELIVERBY (RFC 2852) and MT-PRIORITY (RFC 6710).
    pub dsn: bool,
    /// After so many messages on one connection: 421.
    pub messages_per_connection_max: Option<u32>,
    /// First attempt of an (address, reverse-path, recipient) gets 450 4.2.0 until this much time has passed.
    pub greylist: Option<Duration>,
    /// Offer AUTH PLAIN and require this user and password before MAIL.
    pub auth: Option<(String, String)>,
    /// So many messages from one address in a time; what is more is refused at MAIL.
    pub pace: Option<Pace>,
    /// Messages are read no faster than this.
    pub drain_bytes_per_sec: Option<u32>,
    /// Each message is taken, and so much later reported to its reverse-path as not delivered (RFC 3464), unless that is null. Who
    /// drives the provider sends the reports: [`super::post_to`], [`super::post_on`].
    pub reports_after: Option<Duration>,
    /// Misbehaviour; the first rule that applies decides.
    pub rules: Vec<Rule>,
}

impl Default for Script {
    fn default() -> Self {
        Self {
            hostname: "mx.sink.test".to_owned(),
            pipelining: true,
            chunking: false,
            eight_bit: true,
            starttls: false,
            require_tls: false,
            message_bytes_max: Some(50 * 1024 * 1024),
            recipients_max: None,
            limits: false,
            dsn: false,
            messages_per_connection_max: None,
            greylist: None,
            auth: None,
            pace: None,
            drain_bytes_per_sec: None,
            reports_after: None,
            rules: Vec::new(),
        }
    }
}

impl Script {
    /// The default: accepts everything.
    pub fn accepts_all() -> Self {
        Self::default()
    }

    /// Defers the first attempt of everything until `wait` has passed.
    pub fn greylists(wait: Duration) -> Self {
        Self { greylist: Some(wait), ..Self::default() }
    }

    /// This script with one more rule.
    #[must_use]
    pub fn with(mut self, rule: Rule) -> Self {
        self.rules.push(rule);
        self
    }

    /// This script, refusing one recipient (`user@domain`) or a domain's (`@domain`) with `550 5.1.1`.
    #[must_use]
    pub fn refuses(self, recipient: &str) -> Self {
        self.with(Rule::new(Stage::Rcpt, Act::reply("550 5.1.1 no such mailbox")).to(recipient))
    }

    /// This script, deferring each recipient's first `times` attempts.
    #[must_use]
    pub fn defers(self, times: u32) -> Self {
        self.with(Rule::new(Stage::Rcpt, Act::reply("451 4.3.0 try again")).first_of_each(times))
    }
}

/// How many messages a provider takes from one address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pace {
    /// So many
    pub messages: u32,
    /// within this time, any such span.
    pub within: Duration,
    /// What is said to the others; `{ip}` stands for the address. After 421 the connection is closed.
    pub reply: String,
}

/// Where in a session a rule applies.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Stage {
    /// Instead of the greeting.
    Connect,
    /// EHLO or HELO.
    Ehlo,
    /// STARTTLS.
    StartTls,
    /// MAIL.
    Mail,
    /// RCPT.
    Rcpt,
    /// DATA, or the first BDAT.
    Data,
    /// The first octets of a message, before its end.
    Body,
    /// The end of data: instead of the final reply.
    EndOfData,
    /// RSET, or the next MAIL after a message.
    Reset,
    /// QUIT.
    Quit,
}

/// What a rule does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Act {
    /// Say this instead (`\n` separates the lines of a multiline reply) and go on.
    Reply(String),
    /// Say this and close.
    ReplyAndClose(String),
    /// Close without a word; at the end of data the message does not count as accepted.
    Close,
    /// Never say anything again, but keep the connection.
    Hang,
    /// Wait, then behave.
    Delay(Duration),
    /// Say the usual, octet by octet with such a pause: a tarpit.
    Drip(Duration),
    /// At the end of data: take the message and close before the reply (RFC 1047's trouble).
    LoseReply,
    /// At the end of data: take the message and never say so, but keep the connection.
    TakeAndHang,
    /// Say the usual, answer what comes next with these octets, and close: at STARTTLS, a broken handshake.
    Retort(Vec<u8>),
}

impl Act {
    /// [`Act::Reply`].
    pub fn reply(text: &str) -> Self {
        Self::Reply(text.to_owned())
    }
}

/// One piece of misbehaviour.
#[derive(Clone, Debug)]
pub struct Rule {
    pub(super) stage: Stage,
    pub(super) to: Option<String>,
    pub(super) from: Option<IpAddr>,
    pub(super) first: Option<u32>,
    pub(super) of_each: bool,
    pub(super) act: Act,
}

impl Rule {
    /// Always, at this stage.
    pub fn new(stage: Stage, act: Act) -> Self {
        Self { stage, to: None, from: None, first: None, of_each: false, act }
    }

    /// Only for one recipient (`user@domain`), the recipients of a domain (`@domain`), or one of any domain (`user@`).
    /// Meaningful from RCPT on.
    #[must_use]
    pub fn to(mut self, recipient: &str) -> Self {
        self.to = Some(recipient.to_ascii_lowercase());
        self
    }

    /// Only to clients at this address.
    #[must_use]
    pub fn from(mut self, address: IpAddr) -> Self {
        self.from = Some(address);
        self
    }

    /// Only the first `times` times.
    #[must_use]
    pub fn first(mut self, times: u32) -> Self {
        self.first = Some(times);
        self
    }

    /// Only the first `times` times for each pair of reverse-path and recipients.
    #[must_use]
    pub fn first_of_each(mut self, times: u32) -> Self {
        self.first = Some(times);
        self.of_each = true;
        self
    }

    pub(super) fn concerns(&self, recipients: &[String]) -> bool {
        self.to.as_ref().is_none_or(|to| {
            recipients.iter().any(|recipient| {
                let recipient = recipient.to_ascii_lowercase();
                recipient == *to
                    || (to.starts_with('@') && recipient.ends_with(to.as_str()))
                    || (to.ends_with('@') && recipient.starts_with(to.as_str()))
            })
        })
    }
}
