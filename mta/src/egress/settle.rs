//! Settling: what an attempt, an expiry or a missing route means for each recipient, as one settlement.
//!
//! Pure. A recipient gets its final fate once; whoever is told of a failure is told in the same
//! transaction that writes it down, so a crash can neither lose a notice nor send it twice.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use scheduler::{Cause, Next, Verdict};
use smtp::address::ReversePath;

use super::deliver::Attempt;
use super::dsn::{self, Unreached};
use crate::queue::{self, Fate, RecipientFate, Settlement, StoredDelivery};

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
}

/// A settlement without a notice, and whom the sender has to be told about.
pub fn settlement(closing: &Closing<'_>) -> (Settlement, Vec<Unreached>) {
    let mut fates = Vec::new();
    let mut unreached = Vec::new();
    let mut last_reply = String::new();
    let cancelled = match closing.cause {
        Cause::Cancelled(wish) => Some(wish),
        Cause::Attempted | Cause::Unroutable(_) | Cause::Expired => None,
    };
    let host = closing.attempt.and_then(|attempt| attempt.host.as_deref()).unwrap_or_default();
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
        last_reply.clone_from(&reply);
        let Some(fate) = fate else { continue };
        // RFC 3461 §4.1: without NOTIFY, a failure is told.
        let told = match (fate, cancelled) {
            (Fate::Delivered, _) => false,
            // An operator who cancels says whether the sender is to hear of it.
            (Fate::Cancelled, Some(wish)) if !wish.notify => false,
            _ => recipient.notify.is_none_or(|notify| notify.failure),
        };
        if told && closing.stored.message.reverse_path != ReversePath::Null {
            unreached.push(Unreached {
                recipient: recipient.mailbox.to_string(),
                original_recipient: recipient.orcpt.clone(),
                status: status_of(fate, status),
                remote_mta: (!host.is_empty()).then(|| host.to_owned()),
                diagnostic: diagnostic(fate, &reply),
                from_peer,
            });
        }
        let reply = cancelled.filter(|_| fate == Fate::Cancelled).map_or(reply, |wish| wish.by.to_string());
        fates.push(RecipientFate { index: recipient.index, fate, reply });
    }
    let next = match closing.next {
        Next::Done if cancelled.is_some() => queue::Next::Cancelled,
        Next::Done | Next::Expired => queue::Next::Done,
        Next::RetryAt(at) => queue::Next::RetryAt(at),
    };
    let settlement = Settlement {
        id: closing.stored.message.id,
        domain: closing.stored.domain.clone(),
        fates,
        next,
        last_reply,
        source: closing.source.to_owned(),
        host: host.to_owned(),
        dsn: None,
        ledger: Vec::new(),
    };
    (settlement, unreached)
}

/// The notice about `unreached`, not yet signed. None for a message with a null reverse-path.
pub fn notice(stored: &StoredDelivery, unreached: &[Unreached], reporting_mta: &str, now: SystemTime) -> Option<Vec<u8>> {
    let ReversePath::Mailbox(to) = &stored.message.reverse_path else { return None };
    let id = stored.message.id.to_string();
    Some(dsn::write(&dsn::Notice {
        reporting_mta,
        message_id: &format!("dsn.{id}.{}@{reporting_mta}", digest(&stored.domain)),
        to: &to.to_string(),
        queue_id: &id,
        envid: stored.message.parameters.envid.as_deref(),
        arrived: stored.message.received_at,
        now,
        recipients: unreached,
        original: &stored.message.octets,
    }))
}

/// The notice as a message of ours, for the transaction that settles what it is about.
pub fn notice_message(stored: &StoredDelivery, octets: Vec<bytes::Bytes>, now: SystemTime) -> Option<queue::NewMessage> {
    let ReversePath::Mailbox(to) = &stored.message.reverse_path else { return None };
    Some(queue::NewMessage {
        id: None,
        member: stored.message.member,
        credential: 0,
        admission: None,
        reverse_path: ReversePath::Null,
        parameters: queue::Parameters { eight_bit: octets.iter().any(|part| !part.is_ascii()), ..Default::default() },
        lane: scheduler::Lane::Notice,
        received_at: now,
        deadline: now + DSN_LIFETIME,
        recipients: vec![queue::NewRecipient { mailbox: to.clone(), notify: None, orcpt: None }],
        octets,
    })
}

/// RFC 3464 §2.3.4 wants a code; where the peer gave none, or a transient one stands behind an
/// expiry, the general one is right (RFC 3463 §3.5: 4.4.7, delivery time expired).
fn status_of(fate: Fate, code: Option<(u8, u16, u16)>) -> String {
    match (fate, code) {
        (Fate::Expired, _) => "4.4.7".to_owned(),
        // RFC 3463 §3.4: what happened to it is the mail system's doing.
        (Fate::Cancelled, _) => "5.3.0".to_owned(),
        (_, Some((class, subject, detail))) => format!("{class}.{subject}.{detail}"),
        (_, None) => "5.0.0".to_owned(),
    }
}

fn diagnostic(fate: Fate, reply: &str) -> String {
    match fate {
        Fate::Expired if reply.is_empty() => "delivery time expired; it was never tried".to_owned(),
        Fate::Expired => format!("delivery time expired; the last answer was: {reply}"),
        Fate::Cancelled if reply.is_empty() => "cancelled by the operator; it was never tried".to_owned(),
        Fate::Cancelled => format!("cancelled by the operator; the last answer was: {reply}"),
        _ => reply.to_owned(),
    }
}

/// Tells the notices about one message's several domains apart.
fn digest(domain: &Arc<str>) -> String {
    format!("{:08x}", crc32fast::hash(domain.as_bytes()))
}
