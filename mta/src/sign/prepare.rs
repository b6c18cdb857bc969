//! What an MSA does to a message before it is signed (RFC 6409 §8): a trace field on top, Date and
//! Message-ID where they are missing, Bcc out, and the two fields by which receivers know our members.
//!
//! The body is never touched and never copied; the header section is copied only when something has to
//! come out of it.
//!
//! Not here: whose From it may be (`policy`), the signatures (`dkim.rs`).

use std::time::SystemTime;

use bytes::Bytes;
use smtp::reply::Reply;

use super::header::{Field, Header, Malformed};

/// RFC 5321 §6.3: no fewer than 100 before a loop is assumed.
pub const RECEIVED_MAX: usize = 100;

/// Longest name from EHLO that goes into the trace field (RFC 1035's limit for a domain).
const EHLO_BYTES_MAX: usize = 255;

/// What we know about a submission and write into the message.
#[derive(Debug, Clone, Copy)]
pub struct Trace<'a> {
    /// Our name.
    pub hostname: &'a str,
    /// What the client called itself. An address literal is not repeated: it would tell every recipient
    /// where the member's server stands.
    pub ehlo: &'a str,
    /// `ESMTPSA`, `ESMTP`, `UTF8SMTPSA` … (RFC 3848, RFC 6531).
    pub with: &'a str,
    /// Our id of the message; also the left side of a Message-ID that we add.
    pub id: &'a str,
    /// The forward-path, when it is the only one: more would show recipients to each other (RFC 5321 §7.2).
    pub only_recipient: Option<&'a str>,
    /// The domain of From, and whose member this is.
    pub domain: &'a str,
    /// The member's DID. None: a notice of our own (a DSN).
    pub did: Option<&'a str>,
    /// `otp`, `transactional`, `notice`.
    pub class: &'a str,
    /// When it was received.
    pub now: SystemTime,
}

/// A message ready to be signed: `head` and then `rest`.
#[derive(Debug, Clone)]
pub struct Prepared {
    /// Fields that we added, and, if one had to be taken out, the copied header section.
    pub head: Bytes,
    /// A slice of what was submitted.
    pub rest: Bytes,
    /// Where in `rest` the body begins.
    pub body_at: usize,
}

/// Why a message cannot be sent on.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PrepareError {
    /// `550 5.6.0`
    #[error("{0}")]
    Malformed(#[from] Malformed),
    /// `554 5.4.6`
    #[error("the message has {0} Received fields: it is going round in a loop")]
    Loop(usize),
}

impl PrepareError {
    /// What the client is told: the message itself has to change.
    pub fn reply(&self) -> Reply {
        match self {
            Self::Malformed(malformed) => Reply::new(550, (5, 6, 0), malformed.to_string()),
            // RFC 3463: routing loop detected.
            Self::Loop(_) => Reply::new(554, (5, 4, 6), self.to_string()),
        }
    }
}

/// Makes what will be signed out of what was submitted.
pub fn prepare(header: &Header, trace: &Trace<'_>) -> Result<Prepared, PrepareError> {
    let received = header.named("Received").count();
    if received > RECEIVED_MAX {
        return Err(PrepareError::Loop(received));
    }

    let mut head = Vec::with_capacity(1024);
    received_field(&mut head, trace);
    if let Some(did) = trace.did {
        field(&mut head, "X-Atmos-Member-Did", did);
        field(&mut head, "Feedback-ID", &feedback_id(trace.class, trace.domain, did));
    }
    if header.named("Date").next().is_none() {
        field(&mut head, "Date", &date(trace.now));
    }
    if header.named("Message-ID").next().is_none() {
        field(&mut head, "Message-ID", &format!("<{}@{}>", visible(trace.id), visible(trace.domain)));
    }

    let octets = header.octets();
    if header.fields().all(|field| is_kept(&field)) {
        return Ok(Prepared { head: head.into(), rest: octets.clone(), body_at: header.body_at() });
    }
    for field in header.fields().filter(is_kept) {
        head.extend_from_slice(field.octets);
    }
    // The empty line stays with the body: both are a slice of what came.
    let rest = octets.slice(header.fields_end()..);
    Ok(Prepared { head: head.into(), rest, body_at: header.body_at() - header.fields_end() })
}

/// Bcc must not be seen (RFC 5322 §3.6.3); the others are ours to say: a member could name another one.
/// Return-Path is written at delivery only (RFC 5321 §4.4).
fn is_kept(field: &Field<'_>) -> bool {
    !["Bcc", "X-Atmos-Member-Did", "Feedback-ID", "Return-Path"].iter().any(|name| field.is(name))
}

/// RFC 5321 §4.4.
fn received_field(head: &mut Vec<u8>, trace: &Trace<'_>) {
    let literal = trace.ehlo.starts_with('[');
    let plain = trace.ehlo.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_'));
    let from = match trace.ehlo {
        name if !name.is_empty() && !literal && plain && name.len() <= EHLO_BYTES_MAX => name,
        _ => trace.domain,
    };
    let note = if trace.with.ends_with('A') { " (authenticated)" } else { "" };
    let mut value = format!("from {from}{note}\r\n\tby {} with {} id {}", trace.hostname, trace.with, visible(trace.id));
    if let Some(recipient) = trace.only_recipient {
        value.push_str(&format!("\r\n\tfor <{}>", visible(recipient)));
    }
    value.push_str(&format!(";\r\n\t{}", date(trace.now)));
    field(head, "Received", &value);
}

/// Google's feedback loop: three fields of the sender's choice and the sender itself, kept for all its mail.
fn feedback_id(class: &str, domain: &str, did: &str) -> String {
    let member = did.strip_prefix("did:").unwrap_or(did).replace(':', ".");
    format!("{class}:{domain}:{member}:tradewind")
}

fn field(head: &mut Vec<u8>, name: &str, value: &str) {
    head.extend_from_slice(name.as_bytes());
    head.extend_from_slice(b": ");
    head.extend_from_slice(value.as_bytes());
    head.extend_from_slice(b"\r\n");
}

/// RFC 5322 §3.3, in UTC.
fn date(now: SystemTime) -> String {
    let zoned = jiff::Timestamp::try_from(now).unwrap_or_default().to_zoned(jiff::tz::TimeZone::UTC);
    jiff::fmt::rfc2822::to_string(&zoned).unwrap_or_else(|_| "Thu, 01 Jan 1970 00:00:00 +0000".to_owned())
}

/// A last line of defence for what stands between angle brackets in a field of ours.
fn visible(text: &str) -> String {
    text.chars().filter(|c| !c.is_control() && !matches!(c, ' ' | '<' | '>')).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn trace() -> Trace<'static> {
        Trace {
            hostname: "relay.example.test",
            ehlo: "pds.member.example",
            with: "ESMTPSA",
            id: "06abc",
            only_recipient: Some("alice@example.org"),
            domain: "member.example",
            did: Some("did:plc:abc"),
            class: "otp",
            now: SystemTime::UNIX_EPOCH + Duration::from_secs(1_795_426_939),
        }
    }

    fn run(message: &str, trace: &Trace<'_>) -> (String, Prepared) {
        let octets = Bytes::copy_from_slice(message.as_bytes());
        let prepared = prepare(&Header::parse(&octets).unwrap(), trace).unwrap();
        let whole = [&prepared.head[..], &prepared.rest[..]].concat();
        (String::from_utf8(whole).unwrap(), prepared)
    }

    const WHOLE: &str = "From: a@member.example\r\nDate: today\r\nMessage-ID: <1@member.example>\r\n\r\nbody\r\n";

    #[test]
    fn what_an_msa_adds_stands_on_top_and_the_rest_is_not_copied() {
        let (text, prepared) = run(WHOLE, &trace());
        assert_eq!(
            text,
            "Received: from pds.member.example (authenticated)\r\n\
             \tby relay.example.test with ESMTPSA id 06abc\r\n\
             \tfor <alice@example.org>;\r\n\
             \tMon, 23 Nov 2026 09:42:19 +0000\r\n\
             X-Atmos-Member-Did: did:plc:abc\r\n\
             Feedback-ID: otp:member.example:plc.abc:tradewind\r\n"
                .to_owned()
                + WHOLE
        );
        assert_eq!(&prepared.rest[prepared.body_at..], b"body\r\n");
    }

    #[test]
    fn the_submitted_octets_are_shared_not_copied() {
        let octets = Bytes::copy_from_slice(WHOLE.as_bytes());
        let prepared = prepare(&Header::parse(&octets).unwrap(), &trace()).unwrap();
        assert_eq!(prepared.rest.as_ptr(), octets.as_ptr());
        let octets = Bytes::copy_from_slice(format!("Bcc: x@y.example\r\n{WHOLE}").as_bytes());
        let prepared = prepare(&Header::parse(&octets).unwrap(), &trace()).unwrap();
        assert_eq!(&prepared.rest[..], b"\r\nbody\r\n");
        assert_eq!(prepared.rest.as_ptr(), octets[octets.len() - 8..].as_ptr());
        assert_eq!(&prepared.rest[prepared.body_at..], b"body\r\n");
    }

    #[test]
    fn date_and_message_id_are_added_where_they_are_missing() {
        let (text, _) = run("From: a@member.example\r\n\r\nbody\r\n", &trace());
        assert!(text.contains("\r\nDate: Mon, 23 Nov 2026 09:42:19 +0000\r\n"));
        assert!(text.contains("\r\nMessage-ID: <06abc@member.example>\r\n"));
        let (text, _) = run("from: a@member.example\r\ndate: x\r\nmessage-id: <y@z>\r\n\r\nbody\r\n", &trace());
        assert_eq!((text.matches("ate: ").count(), text.to_lowercase().matches("message-id").count()), (1, 1));
    }

    #[test]
    fn what_must_not_be_seen_or_forged_comes_out() {
        let message = "Bcc: secret@example.org,\r\n other@example.org\r\nFrom: a@member.example\r\nx-atmos-member-did: did:plc:victim\r\n\
                       Feedback-ID: forged\r\nRETURN-PATH: <x@y>\r\nBcc: third@example.org\r\nSubject: Bcc: stays\r\n\r\nBcc: body\r\n";
        let (text, _) = run(message, &trace());
        for gone in ["secret", "other@", "victim", "forged", "RETURN-PATH", "third"] {
            assert!(!text.contains(gone), "{gone} in {text}");
        }
        assert!(text.ends_with("\r\nFrom: a@member.example\r\nSubject: Bcc: stays\r\n\r\nBcc: body\r\n"), "{text}");
    }

    #[test]
    fn the_trace_field_tells_no_address_and_no_second_recipient() {
        for ehlo in ["[192.0.2.9]", "[IPv6:2001:db8::1]", "", "evil\r\nX-Injected: 1", "a b", &"a".repeat(300)] {
            let (text, _) = run(WHOLE, &Trace { ehlo, only_recipient: None, ..trace() });
            assert!(text.starts_with("Received: from member.example (authenticated)\r\n\tby relay"), "{text}");
            assert!(!text.contains("\tfor <") && !text.contains("Injected"), "{text}");
        }
        let (text, _) = run(WHOLE, &Trace { with: "ESMTP", ..trace() });
        assert!(text.starts_with("Received: from pds.member.example\r\n\tby relay.example.test with ESMTP id"), "{text}");
    }

    #[test]
    fn a_message_without_a_body_stays_one() {
        let (text, prepared) = run("From: a@member.example\r\nBcc: x@y\r\n", &trace());
        assert!(text.ends_with("From: a@member.example\r\n") && prepared.rest.is_empty());
    }

    #[test]
    fn a_loop_is_refused() {
        let check = |count: usize| {
            let octets = Bytes::from("Received: from x by y; z\r\n".repeat(count) + WHOLE);
            prepare(&Header::parse(&octets).unwrap(), &trace()).map(|_| ())
        };
        assert_eq!(check(RECEIVED_MAX), Ok(()));
        let error = check(RECEIVED_MAX + 1).unwrap_err();
        assert_eq!(error, PrepareError::Loop(RECEIVED_MAX + 1));
        assert!(error.reply().to_string().starts_with("554 5.4.6 "));
    }
}
