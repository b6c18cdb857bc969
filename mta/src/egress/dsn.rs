//! Delivery status notifications: telling a sender that mail did not arrive (RFC 3461, 3462, 3464).
//!
//! A notice has three parts: a sentence for a person, the per-recipient fields for a program, and
//! the header of the message it is about. The body is never sent back: it may hold a one-time code,
//! and the reverse-path may be read by others than the recipient.
//!
//! Pure: the caller says what time it is and signs the result. No notice is made for a null
//! reverse-path (RFC 5321 §6.1), which `settle` sees to.

use std::fmt::Write as _;
use std::time::SystemTime;

use jiff::Timestamp;
use jiff::fmt::rfc2822::DateTimePrinter;

/// The original's header is quoted up to this many octets; what is beyond is left out.
const HEADER_QUOTED_MAX: usize = 16 * 1024;
/// A header field in a notice stays below the line limit of RFC 5322 §2.1.1 (998 octets) with room for its name.
const FIELD_TEXT_MAX: usize = 900;

/// Everything that a notice says.
pub struct Notice<'a> {
    /// The host that gave up: our own name (RFC 3464 §2.2.2).
    pub reporting_mta: &'a str,
    /// The notice's own Message-ID, without angle brackets.
    pub message_id: &'a str,
    /// To whom it goes: the reverse-path of the message.
    pub to: &'a str,
    /// The queue id of the message.
    pub queue_id: &'a str,
    /// ENVID of the submission (RFC 3461 §4.4), if it had one.
    pub envid: Option<&'a str>,
    /// When the message was accepted.
    pub arrived: SystemTime,
    /// When this is written.
    pub now: SystemTime,
    /// Whom the message did not reach.
    pub recipients: &'a [Unreached],
    /// The message, or at least its header.
    pub original: &'a [u8],
}

/// One recipient that a message did not reach, and why.
#[derive(Clone, Debug)]
pub struct Unreached {
    /// The forward-path as it was submitted.
    pub recipient: String,
    /// ORCPT of the submission (RFC 3461 §4.2), in its own `type;address` form.
    pub original_recipient: Option<String>,
    /// `5.1.1` and the like (RFC 3463).
    pub status: String,
    /// The host that refused, if one was reached.
    pub remote_mta: Option<String>,
    /// The last reply, verbatim, or our own words where there was none.
    pub diagnostic: String,
    /// Whether `diagnostic` is an SMTP reply of the remote host.
    pub from_peer: bool,
}

/// Writes the notice: a whole message with CRLF line ends, ready to be signed.
pub fn write(notice: &Notice<'_>) -> Vec<u8> {
    let boundary = format!("=_{}_dsn", notice.queue_id);
    let header = header_of(notice.original);
    let eight_bit = !header.is_ascii();
    let mut out = String::with_capacity(2048 + header.len());
    let _ = write!(
        out,
        "From: Mail Delivery System <postmaster@{host}>\r\nTo: <{to}>\r\nSubject: Undelivered mail returned to sender\r\n\
         Date: {date}\r\nMessage-ID: <{id}>\r\nAuto-Submitted: auto-replied\r\nMIME-Version: 1.0\r\n\
         Content-Type: multipart/report; report-type=delivery-status;\r\n boundary=\"{boundary}\"\r\n\r\n\
         This is a MIME message in the form of RFC 3464.\r\n\r\n--{boundary}\r\n\
         Content-Type: text/plain; charset=us-ascii\r\n\r\n\
         This is the mail system at {host}.\r\n\r\n\
         Your message could not be delivered to the recipients below. It will\r\nnot be tried again.\r\n\r\n",
        host = notice.reporting_mta,
        to = notice.to,
        date = rfc2822(notice.now),
        id = notice.message_id,
    );
    for unreached in notice.recipients {
        let _ = write!(out, "<{}>:\r\n    {}\r\n", ascii(&unreached.recipient), ascii(&unreached.diagnostic));
    }
    let _ = write!(
        out,
        "\r\n--{boundary}\r\nContent-Type: message/delivery-status\r\n\r\nReporting-MTA: dns; {host}\r\n",
        host = notice.reporting_mta
    );
    if let Some(envid) = notice.envid {
        let _ = write!(out, "Original-Envelope-Id: {}\r\n", ascii(envid));
    }
    let _ = write!(out, "X-Queue-Id: {}\r\nArrival-Date: {}\r\n", notice.queue_id, rfc2822(notice.arrived));
    for unreached in notice.recipients {
        out.push_str("\r\n");
        if let Some(original) = &unreached.original_recipient {
            let _ = write!(out, "Original-Recipient: {}\r\n", ascii(original));
        }
        let _ = write!(
            out,
            "Final-Recipient: rfc822; {}\r\nAction: failed\r\nStatus: {}\r\n",
            ascii(&unreached.recipient),
            ascii(&unreached.status)
        );
        if let Some(remote) = &unreached.remote_mta {
            let _ = write!(out, "Remote-MTA: dns; {}\r\n", ascii(remote));
        }
        // RFC 3464 §2.3.6: `smtp` says that these are a peer's words; ours are marked as ours.
        let kind = if unreached.from_peer { "smtp" } else { "x-tradewind" };
        let _ = write!(out, "Diagnostic-Code: {kind}; {}\r\n", ascii(&unreached.diagnostic));
    }
    let encoding = if eight_bit { "Content-Transfer-Encoding: 8bit\r\n" } else { "" };
    let _ = write!(out, "\r\n--{boundary}\r\nContent-Type: text/rfc822-headers\r\n{encoding}\r\n");
    let mut octets = out.into_bytes();
    octets.extend_from_slice(header);
    if !octets.ends_with(b"\r\n") {
        octets.extend_from_slice(b"\r\n");
    }
    octets.extend_from_slice(format!("\r\n--{boundary}--\r\n").as_bytes());
    octets
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

/// One line of printable ASCII: a peer's text must not break out of its field.
fn ascii(text: &str) -> String {
    text.chars().map(|c| if c.is_ascii_graphic() || c == ' ' { c } else { '?' }).take(FIELD_TEXT_MAX).collect()
}

/// `Mon, 23 Nov 2026 09:42:19 +0000` (RFC 5322 §3.3).
pub fn rfc2822(time: SystemTime) -> String {
    static PRINTER: DateTimePrinter = DateTimePrinter::new();
    Timestamp::try_from(time)
        .ok()
        .and_then(|timestamp| PRINTER.timestamp_to_string(&timestamp).ok())
        .unwrap_or_else(|| "Thu, 1 Jan 1970 00:00:00 +0000".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn sample(original: &[u8], diagnostic: &str) -> String {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_795_426_939);
        let recipients = [Unreached {
            recipient: "bob@dest.example".into(),
            original_recipient: Some("rfc822;bob@dest.example".into()),
            status: "5.1.1".into(),
            remote_mta: Some("mx.dest.example".into()),
            diagnostic: diagnostic.into(),
            from_peer: true,
        }];
        let octets = write(&Notice {
            reporting_mta: "relay.example",
            message_id: "1@relay.example",
            to: "alice@member.example",
            queue_id: "abc",
            envid: Some("QQ314159"),
            arrived: now,
            now,
            recipients: &recipients,
            original,
        });
        String::from_utf8(octets).unwrap()
    }

    #[test]
    fn a_notice_quotes_the_header_and_never_the_body() {
        let text = sample(b"From: a@member.example\r\nSubject: hello\r\n\r\nYour code is 123456\r\n", "550 5.1.1 no such user");
        assert!(text.contains("Subject: hello\r\n"), "{text}");
        assert!(!text.contains("123456"), "{text}");
        assert!(text.contains("Diagnostic-Code: smtp; 550 5.1.1 no such user\r\n"), "{text}");
        assert!(text.contains("Final-Recipient: rfc822; bob@dest.example\r\nAction: failed\r\nStatus: 5.1.1\r\n"), "{text}");
        assert!(text.ends_with("--=_abc_dsn--\r\n"));
    }

    #[test]
    fn a_peer_s_reply_cannot_add_lines() {
        let text = sample(b"From: a@member.example\r\n\r\n", "550 no\r\nBcc: evil@example.org\r\n\r\nbody");
        assert!(!text.contains("\r\nBcc:"), "{text}");
        assert!(text.split("\r\n").all(|line| line.len() <= 998 && !line.contains(['\r', '\n'])));
    }

    #[test]
    fn a_parser_of_mail_sees_a_report() {
        let text = sample(b"From: a@member.example\r\nSubject: hello\r\n\r\nbody", "550 5.1.1 no");
        let message = mail_parser::MessageParser::default().parse(text.as_bytes()).unwrap();
        assert!(message.date().is_some());
        assert_eq!(message.attachments().count() + message.text_body_count(), 3);
    }
}
