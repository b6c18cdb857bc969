//! Scripts with names: what large providers offer and say, and the ways in which hosts are slow or broken.
//!
//! The texts are the providers' own, from their documentation and from what senders publish; `{ip}` stands for the sender's
//! address. The rates are small, so that a test reaches them. Each is a beginning: set another field, or add a rule.

use std::time::Duration;

use super::script::{Act, Pace, Rule, Script, Stage};

const HOUR: Duration = Duration::from_secs(3600);

/// What a provider offers and says.
struct Manners {
    hostname: &'static str,
    chunking: bool,
    dsn: bool,
    message_bytes_max: u64,
    messages_per_connection_max: Option<u32>,
    /// Messages an hour from one address.
    hourly: u32,
    out_of_pace: &'static str,
    /// For `nobody@` of any domain.
    unknown: &'static str,
}

const GOOGLE: Manners = Manners {
    hostname: "mx.google.com",
    chunking: true,
    dsn: false,
    message_bytes_max: 157_286_400,
    messages_per_connection_max: Some(100),
    hourly: 60,
    out_of_pace: "421 4.7.28 [{ip}      15] Our system has detected an unusual rate of unsolicited mail originating from your IP \
                  address. To protect our users from spam, mail sent from your IP address has been temporarily rate limited.\n\
                  4.7.28 Please visit https://support.google.com/mail/?p=UnsolicitedRateLimitError to review our Bulk Email \
                  Senders Guidelines. a1-b2 - gsmtp",
    unknown: "550 5.1.1 The email account that you tried to reach does not exist. Please try\n5.1.1 double-checking the \
              recipient's email address for typos or\n5.1.1 unnecessary spaces. For more information, go to\n5.1.1  \
              https://support.google.com/mail/?p=NoSuchUser a1-b2 - gsmtp",
};

const MICROSOFT: Manners = Manners {
    hostname: "outlook-com.olc.protection.outlook.com",
    chunking: true,
    dsn: true,
    message_bytes_max: 49_283_072,
    messages_per_connection_max: None,
    hourly: 40,
    out_of_pace: "421 RP-001 (COL004-MC4F12) Unfortunately, some messages from {ip} weren't sent. Please try again. We have limits \
                  for how many messages can be sent per hour and per day.",
    unknown: "550 5.5.0 Requested action not taken: mailbox unavailable (S2017062302).",
};

const YAHOO: Manners = Manners {
    hostname: "mta5.am0.yahoodns.net",
    chunking: false,
    dsn: false,
    message_bytes_max: 41_943_040,
    messages_per_connection_max: Some(20),
    hourly: 50,
    out_of_pace: "421 4.7.0 [TSS04] Messages from {ip} temporarily deferred due to unexpected volume or user complaints - \
                  4.16.55.1; see https://postmaster.yahooinc.com/error-codes",
    unknown: "552 1 Requested mail action aborted, mailbox not found",
};

const GMX: Manners = Manners {
    hostname: "gmx.net (mxgmx016) Nemesis",
    chunking: false,
    dsn: false,
    message_bytes_max: 157_286_400,
    messages_per_connection_max: Some(50),
    hourly: 30,
    out_of_pace: "450 Requested mail action not taken: mailbox unavailable\nMail rate limit exceeded.\nFor explanation visit \
                  https://postmaster.gmx.net/en/error-messages?ip={ip}&c=rlip",
    unknown: "550 Requested action not taken: mailbox unavailable\nFor explanation visit \
              https://postmaster.gmx.net/en/error-messages?ip={ip}&c=r0103",
};

impl Script {
    /// Gmail: BDAT, a hundred messages a connection, 4.7.28 past its rate.
    pub fn google() -> Self {
        Self::of(&GOOGLE)
    }

    /// Microsoft's consumer mail: BDAT and DSN, RP-001 past its rate.
    pub fn microsoft() -> Self {
        Self::of(&MICROSOFT)
    }

    /// Yahoo: twenty messages a connection, TSS04 past its rate.
    pub fn yahoo() -> Self {
        Self::of(&YAHOO)
    }

    /// GMX and WEB.DE: 450 past their rate, and the connection lives on.
    pub fn gmx() -> Self {
        Self::of(&GMX)
    }

    /// The four above, by the names of their providers.
    pub fn providers() -> [(&'static str, Self); 4] {
        [("google", Self::google()), ("microsoft", Self::microsoft()), ("yahoo", Self::yahoo()), ("gmx", Self::gmx())]
    }

    fn of(manners: &Manners) -> Self {
        let pace = Pace { messages: manners.hourly, within: HOUR, reply: manners.out_of_pace.to_owned() };
        Self {
            hostname: manners.hostname.to_owned(),
            chunking: manners.chunking,
            dsn: manners.dsn,
            message_bytes_max: Some(manners.message_bytes_max),
            messages_per_connection_max: manners.messages_per_connection_max,
            pace: Some(pace),
            ..Self::default()
        }
        .with(Rule::new(Stage::Rcpt, Act::reply(manners.unknown)).to("nobody@"))
    }

    /// The same with STARTTLS; the listener must have a certificate.
    #[must_use]
    pub fn with_starttls(self) -> Self {
        Self { starttls: true, ..self }
    }

    /// Takes each message, never says so, and keeps the connection: whoever gives up sends a second copy (RFC 1047).
    pub fn accepts_and_hangs() -> Self {
        Self::default().with(Rule::new(Stage::EndOfData, Act::TakeAndHang))
    }

    /// Takes each message with 250, finds out later that it has no such mailbox, and tells the reverse-path.
    pub fn reports_later(after: Duration) -> Self {
        Self { reports_after: Some(after), ..Self::default() }
    }

    /// Reads messages no faster than this.
    pub fn drains_slowly(bytes_per_sec: u32) -> Self {
        Self { drain_bytes_per_sec: Some(bytes_per_sec), ..Self::default() }
    }

    /// Says everything octet by octet.
    pub fn tarpit(pause: Duration) -> Self {
        let stages = [Stage::Connect, Stage::Ehlo, Stage::Mail, Stage::Rcpt, Stage::Data, Stage::EndOfData];
        stages.into_iter().fold(Self::default(), |script, stage| script.with(Rule::new(stage, Act::Drip(pause))))
    }

    /// Offers STARTTLS, says 220, and answers the ClientHello with what is no TLS.
    pub fn breaks_tls() -> Self {
        Self::default().with_starttls().with(Rule::new(Stage::StartTls, Act::Retort(b"500 5.5.1 what?\r\n".to_vec())))
    }

    /// The same with a fatal alert, handshake_failure (RFC 8446 §6.2).
    pub fn alerts_in_handshake() -> Self {
        Self::default().with_starttls().with(Rule::new(Stage::StartTls, Act::Retort(vec![21, 3, 3, 0, 2, 2, 40])))
    }

    /// Offers STARTTLS and then refuses it.
    pub fn refuses_starttls() -> Self {
        let act = Act::reply("454 4.7.0 TLS not available due to temporary reason");
        Self::default().with_starttls().with(Rule::new(Stage::StartTls, act))
    }

    /// What is left when somebody on the way has taken STARTTLS out of the reply to EHLO.
    pub fn stripped_of_starttls() -> Self {
        Self { starttls: false, ..Self::default() }
    }
}
