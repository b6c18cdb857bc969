//! Delivery status notifications: telling a sender what became of mail (RFC 3461, 3464, 6522, 6533).
//!
//! A notice has three parts: sentences for a person, the per-recipient fields for a program, and the
//! header of the message it is about. The body comes back only where the sender asked for it with
//! RET=FULL, of mail that failed, and up to a bound: it may hold a one-time code, and the reverse-path
//! may be read by others than the recipient.
//!
//! Where an address is not ASCII, or the message was sent with SMTPUTF8, the parts are those of RFC 6533
//! (`message/global-delivery-status` and so on) and in UTF-8; all other notices are in ASCII.
//!
//! Pure: the caller says what time it is and signs the result. No notice is made for a null
//! reverse-path (RFC 5321 §6.1), which `settle` sees to.

use std::borrow::Cow;
use std::fmt::Write as _;
use std::time::SystemTime;

use smtp::envelope::{Ret, original_recipient};

/// The original's header is quoted up to this many octets; what is beyond is left out.
const HEADER_QUOTED_MAX: usize = 16 * 1024;
/// With RET=FULL a message up to this many octets comes back whole; of a larger one the header does
/// (RFC 3461 §4.3 leaves it to us).
const FULL_QUOTED_MAX: usize = 256 * 1024;
/// A header field in a notice stays below the line limit of RFC 5322 §2.1.1 (998 octets) with room for its name.
const FIELD_TEXT_MAX: usize = 900;

/// Everything that a notice says.
pub struct Notice<'a> {
    /// The host that reports: our own name (RFC 3464 §2.2.2).
    pub reporting_mta: &'a str,
    /// The notice's own Message-ID, without angle brackets.
    pub message_id: &'a str,
    /// To whom it goes: the reverse-path of the message.
    pub to: &'a str,
    /// The queue id of the message.
    pub queue_id: &'a str,
    /// ENVID of the submission (RFC 3461 §4.4) in plain characters, if it had one.
    pub envid: Option<&'a str>,
    /// When the message was accepted.
    pub arrived: SystemTime,
    /// When this is written.
    pub now: SystemTime,
    /// What became of whom.
    pub reports: &'a [Report],
    /// The message.
    pub original: &'a [u8],
    /// How much of it the sender wants back.
    pub ret: Option<Ret>,
    /// Whether the sender speaks SMTPUTF8.
    pub smtputf8: bool,
}

/// What became of one recipient, and why.
#[derive(Clone, Debug)]
pub struct Report {
    /// The forward-path as it was submitted.
    pub recipient: String,
    /// ORCPT of the submission (RFC 3461 §4.2), as it was written: `type;xtext`.
    pub original_recipient: Option<String>,
    /// What happened.
    pub action: Action,
    /// `5.1.1` and the like (RFC 3463).
    pub status: String,
    /// Why it failed, if not by the host's word.
    pub given_up: Option<GivenUp>,
    /// The host that answered, if one was reached.
    pub remote_mta: Option<String>,
    /// The last reply, verbatim, or our own words where there was none. May be empty.
    pub diagnostic: String,
    /// Whether `diagnostic` is an SMTP reply of the remote host.
    pub from_peer: bool,
    /// When it was last tried; none if that was not now.
    pub last_attempt: Option<SystemTime>,
    /// Until when it will be tried, if it will.
    pub will_retry_until: Option<SystemTime>,
}

/// Why we gave up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GivenUp {
    /// Its time was over.
    Expired,
    /// The operator said so.
    Cancelled,
}

/// RFC 3464 §2.3.3, as far as a host without mailboxes has something to say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Not delivered, and not tried again.
    Failed,
    /// Not delivered yet.
    Delayed,
    /// Handed to a host that will not confirm the delivery.
    Relayed,
}

impl Action {
    fn as_str(self) -> &'static str {
        match self {
            Action::Failed => "failed",
            Action::Delayed => "delayed",
            Action::Relayed => "relayed",
        }
    }

    fn subject(self) -> &'static str {
        match self {
            Action::Failed => "Undelivered mail returned to sender",
            Action::Delayed => "Mail is delayed and still being tried",
            Action::Relayed => "Mail was passed on",
        }
    }

    fn sentences(self) -> &'static str {
        match self {
            Action::Failed => "Your message could not be delivered to the recipients below. It will\r\nnot be tried again.\r\n",
            Action::Delayed => {
                "Your message has not been delivered to the recipients below yet. You need\r\n\
                 not do anything: it is still being tried.\r\n"
            }
            Action::Relayed => {
                "Your message was handed to the mail system of the recipients below, which\r\n\
                 does not confirm deliveries. Should it fail to deliver, it will say so itself.\r\n"
            }
        }
    }
}

/// Writes the notice: a whole message with CRLF line ends, ready to be signed.
pub fn write(notice: &Notice<'_>) -> Vec<u8> {
    let global = notice.smtputf8 || !notice.to.is_ascii() || notice.reports.iter().any(|it| !it.recipient.is_ascii());
    let boundary = format!("=_{}_dsn", notice.queue_id);
    let has = |action| notice.reports.iter().any(|report| report.action == action);
    // The worst news is the subject.
    let actions = [Action::Failed, Action::Delayed, Action::Relayed].into_iter().filter(|action| has(*action));
    let actions: Vec<Action> = actions.collect();
    let (original, whole) = returned(notice, has(Action::Failed), global);
    let mut out = String::with_capacity(2048 + 512 * notice.reports.len() + original.len());
    let _ = write!(
        out,
        "From: Mail Delivery System <postmaster@{host}>\r\nTo: <{to}>\r\nSubject: {subject}\r\n\
         Date: {date}\r\nMessage-ID: <{id}>\r\nAuto-Submitted: auto-replied\r\nMIME-Version: 1.0\r\n\
         Content-Type: multipart/report; report-type={global}delivery-status;\r\n boundary=\"{boundary}\"\r\n\r\n\
         This is a MIME message in the form of RFC 3464.\r\n\r\n--{boundary}\r\n\
         Content-Type: text/plain; charset={charset}\r\n\r\n\
         This is the mail system at {host}.\r\n",
        host = notice.reporting_mta,
        to = notice.to,
        subject = actions.first().copied().unwrap_or(Action::Failed).subject(),
        date = rfc2822(notice.now),
        id = notice.message_id,
        global = if global { "global-" } else { "" },
        charset = if global { "utf-8\r\nContent-Transfer-Encoding: 8bit" } else { "us-ascii" },
    );
    for action in actions {
        let _ = write!(out, "\r\n{}", action.sentences());
        for report in notice.reports.iter().filter(|report| report.action == action) {
            tell(&mut out, report, global);
        }
    }
    let encoding = if global { "Content-Transfer-Encoding: 8bit\r\n" } else { "" };
    let _ = write!(
        out,
        "\r\n--{boundary}\r\nContent-Type: message/{}delivery-status\r\n{encoding}\r\nReporting-MTA: dns; {}\r\n",
        if global { "global-" } else { "" },
        notice.reporting_mta
    );
    if let Some(envid) = notice.envid {
        let _ = write!(out, "Original-Envelope-Id: {}\r\n", line(envid, global));
    }
    let _ = write!(out, "X-Queue-Id: {}\r\nArrival-Date: {}\r\n", notice.queue_id, rfc2822(notice.arrived));
    for report in notice.reports {
        out.push_str("\r\n");
        fields(&mut out, report, notice.queue_id, global);
    }
    let kind = match (whole, global) {
        (true, true) => "message/global",
        (true, false) => "message/rfc822",
        (false, true) => "message/global-headers",
        (false, false) => "text/rfc822-headers",
    };
    let encoding = if original.is_ascii() { "" } else { "Content-Transfer-Encoding: 8bit\r\n" };
    let _ = write!(out, "\r\n--{boundary}\r\nContent-Type: {kind}\r\n{encoding}\r\n");
    let mut octets = out.into_bytes();
    octets.extend_from_slice(&original);
    if !octets.ends_with(b"\r\n") {
        octets.extend_from_slice(b"\r\n");
    }
    octets.extend_from_slice(format!("\r\n--{boundary}--\r\n").as_bytes());
    octets
}

/// What a person reads about one recipient.
fn tell(out: &mut String, report: &Report, global: bool) {
    let diagnostic = line(&report.diagnostic, global);
    let _ = write!(out, "\r\n<{}>:\r\n", line(&report.recipient, global));
    out.push_str(match report.given_up {
        Some(GivenUp::Expired) => "    It was tried until its time was over.\r\n",
        Some(GivenUp::Cancelled) => "    The operator of this mail system cancelled it.\r\n",
        None => "",
    });
    match &report.remote_mta {
        _ if diagnostic.is_empty() && report.given_up.is_some() => out.push_str("    No host ever answered.\r\n"),
        _ if diagnostic.is_empty() => {}
        Some(host) if report.from_peer => {
            let _ = write!(out, "    {} answered:\r\n    {diagnostic}\r\n", line(host, global));
        }
        _ => {
            let _ = write!(out, "    {diagnostic}\r\n");
        }
    }
    if let Some(until) = report.will_retry_until {
        let _ = write!(out, "    It will be tried until {}.\r\n", rfc2822(until));
    }
}

/// The fields of one recipient (RFC 3464 §2.3, RFC 6533 §4).
fn fields(out: &mut String, report: &Report, queue_id: &str, global: bool) {
    if let Some((kind, address)) = report.original_recipient.as_deref().and_then(original_recipient) {
        // Beyond ASCII it goes into a report in ASCII as it came, in the form that is made for it.
        let as_written = || report.original_recipient.as_deref().and_then(|it| it.split_once(';')).map_or("", |(_, it)| it);
        let address = if address.is_ascii() || global { &address } else { as_written() };
        let _ = write!(out, "Original-Recipient: {kind}; {}\r\n", line(address, global));
    }
    let kind = if report.recipient.is_ascii() { "rfc822" } else { "utf-8" };
    let _ = write!(
        out,
        "Final-Recipient: {kind}; {}\r\nAction: {}\r\nStatus: {}\r\n",
        line(&report.recipient, global),
        report.action.as_str(),
        line(&report.status, global)
    );
    if let Some(remote) = &report.remote_mta {
        let _ = write!(out, "Remote-MTA: dns; {}\r\n", line(remote, global));
    }
    if !report.diagnostic.is_empty() {
        // RFC 3464 §2.3.6: `smtp` says that these are a peer's words; ours are marked as ours.
        let kind = if report.from_peer { "smtp" } else { "x-tradewind" };
        let _ = write!(out, "Diagnostic-Code: {kind}; {}\r\n", line(&report.diagnostic, global));
    }
    if let Some(at) = report.last_attempt {
        let _ = write!(out, "Last-Attempt-Date: {}\r\n", rfc2822(at));
    }
    let _ = write!(out, "Final-Log-ID: {queue_id}\r\n");
    if let Some(until) = report.will_retry_until {
        let _ = write!(out, "Will-Retry-Until: {}\r\n", rfc2822(until));
    }
}

/// What comes back of the message, and whether that is all of it. RET is about failures; otherwise the header is
/// enough (RFC 3461 §4.3).
fn returned<'a>(notice: &Notice<'a>, failed: bool, global: bool) -> (Cow<'a, [u8]>, bool) {
    if failed && notice.ret == Some(Ret::Full) && notice.original.len() <= FULL_QUOTED_MAX {
        return (Cow::Borrowed(notice.original), true);
    }
    let header = header_of(notice.original);
    if global || header.is_ascii() {
        return (Cow::Borrowed(header), false);
    }
    // A notice that only some hosts would take is worth less than one with a few question marks in it.
    (header.iter().map(|octet| if octet.is_ascii() { *octet } else { b'?' }).collect(), false)
}

/// The header block, without the empty line, cut at a line end if it is too long.
fn header_of(message: &[u8]) -> &[u8] {
    let end = memchr::memmem::find(message, b"\r\n\r\n").map_or(message.len(), |at| at + 2);
    let header = &message[..end];
    if header.len() <= HEADER_QUOTED_MAX {
        return header;
    }
    let cut = memchr::memmem::rfind(&header[..HEADER_QUOTED_MAX], b"\r\n").map_or(0, |at| at + 2);
    &header[..cut]
}

/// One line of printable text: a peer's words must not break out of their field. ASCII unless the notice is `global`.
fn line(text: &str, global: bool) -> String {
    let fits = |c: char| c.is_ascii_graphic() || c == ' ' || (global && !c.is_ascii() && !c.is_control());
    let mut text: String = text.chars().map(|c| if fits(c) { c } else { '?' }).collect();
    text.truncate(text.floor_char_boundary(FIELD_TEXT_MAX));
    text
}

/// `Mon, 23 Nov 2026 09:42:19 +0000` (RFC 5322 §3.3).
pub fn rfc2822(time: SystemTime) -> String {
    // Of a zone, because a time without one is written as -0000: somewhere.
    let zoned = jiff::Timestamp::try_from(time).unwrap_or_default().to_zoned(jiff::tz::TimeZone::UTC);
    jiff::fmt::rfc2822::to_string(&zoned).unwrap_or_else(|_| "Thu, 1 Jan 1970 00:00:00 +0000".to_owned())
}

#[cfg(test)]
#[path = "dsn_tests.rs"]
mod tests;
