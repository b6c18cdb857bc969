//! What an MSA does to a message before it is signed (RFC 6409 §8): a trace field on top, Date and
//! Message-ID where they are missing, Bcc out, and the two fields by which receivers know our members.
//!
//! The body is never touched and never copied; the header section is copied only when something has to
//! come out of it.
//!
//! Not here: whose From it may be (`policy`), the signatures (`dkim.rs`).

use std::time::SystemTime;

use bytes::Bytes;

use super::header::{Field, Header, Malformed};

/// RFC 5321 §6.3 asks for at least 100 before a loop is assumed; submissions have none or a few, so half of
/// that refuses a loop sooner and no real mail.
pub const RECEIVED_MAX: usize = 50;

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
