//! Limits and second tries, as a session meets them: policy is asked with what the queue says, and what it answers is
//! counted.
//!
//! Not here: what the limits are (`policy::account`), what makes two submissions the same (`policy::retry`).

use bytes::Bytes;
use scheduler::QueueId;
use smtp::reply::Reply;
use smtp::server::Envelope;

use super::Shared;
use crate::control::metrics as names;
use crate::policy::account::{Limit, Spent};
use crate::policy::{Account, Sender, retry};
use crate::queue::{Fingerprint, LISTENER_CREDENTIAL};
use crate::sign::header::Header;

/// Octets of a body that are hashed before other sessions of the thread have their turn: a fraction of a millisecond.
const HASHED_AT_ONCE: usize = 256 << 10;

/// Whether a message of `bytes` to so many recipients would be taken now; nothing is taken.
pub(super) fn look(shared: &Shared, sender: &Sender, recipients: usize, bytes: u64) -> Result<(), Reply> {
    let (now, account) = (shared.clock.now(), account(shared, sender)?);
    let held = shared.queue.held(sender.member.id, now);
    account.look(now, recipients as u64, bytes, held).map_err(|limit| refuse(sender, limit))
}

/// Takes what a message needs. What is not kept is given back when the answer is dropped.
pub(super) fn take(shared: &Shared, sender: &Sender, recipients: usize, bytes: usize) -> Result<Spent, Reply> {
    let (now, account) = (shared.clock.now(), account(shared, sender)?);
    let held = || shared.queue.held(sender.member.id, now);
    account.take(now, recipients as u64, bytes as u64, held).map_err(|limit| refuse(sender, limit))
}

/// The credential's number in the queue's rows.
pub(super) fn credential(sender: &Sender) -> u32 {
    sender.credential.as_ref().map_or(LISTENER_CREDENTIAL, |credential| credential.id)
}

/// What the message is known by should it come again; none when nobody asks or it cannot be told from others.
pub(super) async fn fingerprint(
    shared: &Shared,
    sender: &Sender,
    envelope: &Envelope,
    envid: Option<&str>,
    header: &Header,
    octets: &Bytes,
) -> Option<Fingerprint> {
    if !shared.queue.recent().is_on() {
        return None;
    }
    let submitted = retry::Submitted {
        member: sender.member.id,
        credential: credential(sender),
        reverse_path: &envelope.reverse_path,
        envid,
        header,
    };
    let mut print = retry::begin(&submitted, envelope.recipients.iter().map(|(mailbox, _)| mailbox.as_str()))?;
    if envelope.parameters.require_tls {
        // A promise that the first of two did not ask for is not kept by sending that one.
        print.feed(b"REQUIRETLS");
    }
    for (nth, piece) in octets[header.body_at()..].chunks(HASHED_AT_ONCE).enumerate() {
        if nth > 0 {
            tokio::task::yield_now().await;
        }
        print.feed(piece);
    }
    Some(print.end())
}

/// A message that was queued before: it gets the first one's answer, and is told and counted.
pub(super) fn note_duplicate(shared: &Shared, sender: &Sender, id: QueueId) -> Reply {
    tracing::info!(%id, member = %sender.member.did, "submitted again; it is queued once");
    shared.count.duplicates.increment(1);
    Reply::new(250, (2, 0, 0), format!("queued as {id}"))
}

fn account(shared: &Shared, sender: &Sender) -> Result<Account, Reply> {
    // Read anew: the tier may have changed since this session began.
    let account = shared.directory.load().account(sender.member.id).cloned();
    account.ok_or_else(|| Reply::new(550, (5, 7, 1), format!("{} is no longer a member", sender.member.did)))
}

fn refuse(sender: &Sender, limit: Limit) -> Reply {
    metrics::counter!(names::LIMITED, "limit" => limit.name()).increment(1);
    limit.reply(sender.domains().first().unwrap_or(&sender.member.did))
}
