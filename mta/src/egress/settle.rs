//! Settling: what an attempt, an expiry or a missing route means for each recipient, as one settlement.
//!
//! Pure. A recipient gets its final fate once; whoever is told of it is told in the same transaction
//! that writes it down, so a crash can neither lose a notice nor send it twice. One notice covers all
//! recipients of a delivery that are settled together.
//!
//! Who is told what follows RFC 3461 §5.2. We hand mail to other hosts and keep no mailboxes, so our
//! notices say `failed`, `delayed` or `relayed`: `delivered` and `expanded` are said by those who
//! deliver, and a host that offers DSN has taken over the duty to say them.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use scheduler::{Cancellation, Cause, Lane, Next, Verdict};
use smtp::address::ReversePath;
use smtp::envelope::{ByMode, Notify, decode_xtext};

use super::deliver::Attempt;
use super::dsn::{self, Action, GivenUp, Report};
use crate::queue::{self, Fate, Recipient, RecipientFate, Settlement, StoredDelivery, StoredMessage, TlsWish};
use crate::sign::header::Header;

/// How long a notice is tried. Shorter than ordinary mail: news of a failure grows stale too.
pub const DSN_LIFETIME: Duration = Duration::from_secs(2 * 24 * 3600);

/// Why a delivery is settled, with what is known of the attempt.
pub struct Closing<'a> {
    /// The message and its recipients that are open.
    pub stored: &'a StoredDelivery,
    /// The scheduler's reason.
    pub cause: &'a Cause,
    /// The scheduler's decision for what stays open.
    pub next: Next,
    /// What the attempt brought; none where nothing was tried.
    pub attempt: Option<&'a Attempt>,
    /// The source of the attempt.
    pub source: &'a str,
    /// When this is decided.
    pub now: SystemTime,
}

/// A settlement without its notice, and what the sender has to be told.
pub fn settlement(closing: &Closing<'_>) -> (Settlement, Vec<Report>) {
    let message = &closing.stored.message;
    let mut reports = Vec::new();
    let cancelled = cancelled(closing);
    let host = closing.attempt.and_then(|attempt| attempt.host.as_deref()).unwrap_or_default();
    let mut settlement = Settlement {
        id: message.id,
        domain: closing.stored.domain.clone(),
        fates: Vec::new(),
        delay_told: Vec::new(),
        next: next(closing),
        last_reply: String::new(),
        source: closing.source.to_owned(),
        host: host.to_owned(),
        dsn: None,
        ledger: Vec::new(),
    };
    for recipient in &closing.stored.recipients {
        let outcome =
            closing.attempt.and_then(|attempt| attempt.outcomes.iter().find(|outcome| outcome.index == recipient.index));
        let (verdict, reply, status, from_peer) = match (closing.cause, outcome) {
            (Cause::Unroutable(trouble), _) => (Verdict::Failed, trouble.text.to_string(), Some(trouble.code), false),
            (_, Some(outcome)) => {
                let code = outcome.reply.enhanced().map(|code| (code.0, code.1, code.2));
                (outcome.verdict, outcome.reply.to_string(), code, outcome.from_peer)
            }
            (_, None) => (Verdict::Deferred, closing.stored.last_reply.clone(), None, false),
        };
        let fate = match verdict {
            Verdict::Delivered => Some(Fate::Delivered),
            Verdict::Failed => Some(Fate::Failed),
            Verdict::Deferred if closing.next == Next::Expired => Some(Fate::Expired),
            Verdict::Deferred if cancelled.is_some() => Some(Fate::Cancelled),
            Verdict::Deferred => None,
        };
        settlement.last_reply.clone_from(&reply);
        if let Some(action) = action(closing, recipient, fate) {
            reports.push(Report {
                recipient: recipient.mailbox.to_string(),
                original_recipient: recipient.orcpt.clone(),
                action,
                status: status_of(closing, fate, status),
                given_up: fate.and_then(|fate| match fate {
                    Fate::Expired => Some(GivenUp::Expired),
                    Fate::Cancelled => Some(GivenUp::Cancelled),
                    Fate::Delivered | Fate::Failed => None,
                }),
                remote_mta: (!host.is_empty()).then(|| host.to_owned()),
                diagnostic: reply.clone(),
                from_peer,
                last_attempt: closing.attempt.map(|_| closing.now),
                will_retry_until: (action == Action::Delayed).then_some(message.deadline),
            });
            if action == Action::Delayed {
                settlement.delay_told.push(recipient.index);
            }
        }
        let reply = cancelled.filter(|_| fate == Some(Fate::Cancelled)).map_or(reply, |wish| wish.by.to_string());
        settlement.fates.extend(fate.map(|fate| RecipientFate { index: recipient.index, fate, reply }));
    }
    (settlement, reports)
}

/// The operator's wish, if that is why.
fn cancelled<'a>(closing: &Closing<'a>) -> Option<&'a Cancellation> {
    match closing.cause {
        Cause::Cancelled(wish) => Some(wish),
        Cause::Attempted | Cause::Unroutable(_) | Cause::Expired | Cause::Late => None,
    }
}

/// What the sender is to be told about a recipient, if anything (RFC 3461 §5.2). Nothing where the reverse-path
/// is null (RFC 5321 §4.5.5).
fn action(closing: &Closing<'_>, recipient: &Recipient, fate: Option<Fate>) -> Option<Action> {
    let message = &closing.stored.message;
    let (told, action) = match fate {
        Some(Fate::Delivered) => (relay_is_told(message, recipient, closing.attempt), Action::Relayed),
        // An operator who cancels says whether the sender is to hear of it.
        Some(Fate::Cancelled) if cancelled(closing).is_some_and(|wish| !wish.notify) => return None,
        Some(Fate::Failed | Fate::Expired | Fate::Cancelled) => {
            (recipient.notify.is_none_or(|notify| notify.failure), Action::Failed)
        }
        None => {
            let late = message.delay_notice_at.is_some_and(|at| at <= closing.now);
            (late && matches!(closing.next, Next::RetryAt(_)) && recipient.waits_for_delay_notice(), Action::Delayed)
        }
    };
    (told && message.reverse_path != ReversePath::Null).then_some(action)
}

/// Whether handing a recipient over is something to tell: where success was to be told and the host will not do it
/// (RFC 3461 §5.2.2 b), and where every hop was to be told (RFC 2852 §4).
fn relay_is_told(message: &StoredMessage, recipient: &Recipient, attempt: Option<&Attempt>) -> bool {
    let untold = attempt.is_some_and(|attempt| !attempt.dsn) && recipient.notify.is_some_and(|notify| notify.success);
    let traced = message.parameters.deliver_by.is_some_and(|by| by.trace) && recipient.notify != Some(Notify::NEVER);
    untold || traced
}

/// Whether nothing has to be said about a delivery that was made to all of its recipients: the common end.
pub fn ends_in_silence(stored: &StoredDelivery, attempt: &Attempt) -> bool {
    let delivered = attempt.outcomes.iter().all(|outcome| outcome.verdict == Verdict::Delivered);
    let told = |recipient: &Recipient| relay_is_told(&stored.message, recipient, Some(attempt));
    delivered && (stored.message.reverse_path == ReversePath::Null || !stored.recipients.iter().any(told))
}

/// What follows for what is open. What is to be reported late comes due no later than that, so that the notice comes
/// when it was promised: the scheduler watches what is due.
fn next(closing: &Closing<'_>) -> queue::Next {
    let at = match closing.next {
        Next::Done if cancelled(closing).is_some() => return queue::Next::Cancelled,
        Next::Done | Next::Expired => return queue::Next::Done,
        Next::RetryAt(at) => at,
    };
    let message = &closing.stored.message;
    let late = message.late_at(&closing.stored.recipients).filter(|late| *late > closing.now);
    queue::Next::RetryAt(late.map_or(at, |late| at.min(late)))
}

/// The notice with these `reports`, not yet signed. None for a message with a null reverse-path.
pub fn notice(stored: &StoredDelivery, reports: &[Report], reporting_mta: &str, now: SystemTime) -> Option<Vec<u8>> {
    let message = &stored.message;
    let ReversePath::Mailbox(to) = &message.reverse_path else { return None };
    let id = message.id.to_string();
    let kind = if reports.iter().all(|report| report.action == Action::Delayed) { "delay" } else { "dsn" };
    let tls = message.parameters.tls;
    Some(dsn::write(&dsn::Notice {
        reporting_mta,
        // A notice that is made again after a crash is named as before, and no two others are named alike.
        message_id: &format!("{kind}.{id}.{}.{}@{reporting_mta}", digest(&stored.domain), stored.attempts),
        to: to.as_str(),
        queue_id: &id,
        envid: message.parameters.envid.as_deref().and_then(decode_xtext).as_deref(),
        arrived: message.received_at,
        now,
        reports,
        original: &returnable(tls, &message.octets),
        ret: message.parameters.ret.filter(|_| tls != TlsWish::Required),
        smtputf8: message.parameters.smtputf8,
    }))
}

/// What may come back of a message. Of one with REQUIRETLS the header section is protected as the message is, and hardly any
/// host on the way back would carry that; what names it is left, so that the notice may go by any way (RFC 8689 §5).
fn returnable(tls: TlsWish, octets: &bytes::Bytes) -> bytes::Bytes {
    if tls != TlsWish::Required {
        return octets.clone();
    }
    let Ok(header) = Header::parse(octets) else { return bytes::Bytes::new() };
    let names = header.fields().filter(|field| field.is("Message-ID") || field.is("Date"));
    names.flat_map(|field| field.octets.to_vec()).collect()
}

/// The notice as a message of ours, for the transaction that settles what it is about. A failure is news that
/// somebody waits for; a delay is not worth overtaking anything.
pub fn notice_message(
    stored: &StoredDelivery,
    reports: &[Report],
    octets: Vec<bytes::Bytes>,
    now: SystemTime,
) -> Option<queue::NewMessage> {
    let ReversePath::Mailbox(to) = &stored.message.reverse_path else { return None };
    let failed = reports.iter().any(|report| report.action == Action::Failed);
    Some(queue::NewMessage {
        id: None,
        member: stored.message.member,
        credential: 0,
        admission: None,
        reverse_path: ReversePath::Null,
        parameters: queue::Parameters {
            eight_bit: octets.iter().any(|part| !part.is_ascii()),
            smtputf8: !to.is_ascii(),
            ..Default::default()
        },
        lane: if failed { Lane::Transactional } else { Lane::Notice },
        received_at: now,
        due: now,
        delay_notice_at: None,
        deadline: now + DSN_LIFETIME,
        recipients: vec![queue::NewRecipient { mailbox: to.clone(), notify: None, orcpt: None }],
        octets,
    })
}

/// RFC 3464 §2.3.4 wants a code. Where the peer gave none, or a transient one stands behind an expiry, the general one
/// is right (RFC 3463 §3.5: X.4.7, delivery time expired); the time of a returning BY expires for good (RFC 2852 §4).
fn status_of(closing: &Closing<'_>, fate: Option<Fate>, code: Option<(u8, u16, u16)>) -> String {
    let returned = |by: queue::DeliverBy| by.mode == ByMode::Return && by.at <= closing.stored.message.deadline;
    match (fate, code) {
        (Some(Fate::Expired), _) if closing.stored.message.parameters.deliver_by.is_some_and(returned) => "5.4.7".to_owned(),
        (Some(Fate::Expired), _) => "4.4.7".to_owned(),
        // RFC 3463 §3.4: what happened to it is the mail system's doing.
        (Some(Fate::Cancelled), _) => "5.3.0".to_owned(),
        (_, Some((class, subject, detail))) => format!("{class}.{subject}.{detail}"),
        (Some(Fate::Delivered), None) => "2.0.0".to_owned(),
        (Some(Fate::Failed), None) => "5.0.0".to_owned(),
        (None, None) => "4.0.0".to_owned(),
    }
}

/// Tells the notices about one message's several domains apart.
fn digest(domain: &Arc<str>) -> String {
    format!("{:08x}", crc32fast::hash(domain.as_bytes()))
}

#[cfg(test)]
#[path = "settle_tests.rs"]
mod tests;
