//! Rows and snapshots as the operator sees them, and what all answers share.

use std::time::SystemTime;

use scheduler::QueueId;

use super::api::{DnsRecord, Key, QueuedDelivery, QueuedMessage, QueuedRecipient, Refusal};
use super::daemon::Daemon;
use crate::{
    policy::{self, Directory},
    queue::{Fate, Shown, Summary},
    sign::SigningKey,
};

impl From<policy::DnsRecord> for DnsRecord {
    fn from(record: policy::DnsRecord) -> Self {
        DnsRecord { name: record.name, kind: record.kind.to_owned(), value: record.value }
    }
}

pub(super) fn view_key(key: &SigningKey) -> Result<Key, Refusal> {
    let value = key.dns_value().map_err(|error| Refusal::Unable(error.to_string()))?;
    Ok(Key {
        domain: key.domain().to_owned(),
        selector: key.selector().to_owned(),
        algorithm: key.algorithm().to_string(),
        bits: key.bits(),
        dns_record: DnsRecord { name: key.dns_name(), kind: "TXT".to_owned(), value },
    })
}

pub(super) fn view_delivery(directory: &Directory, it: &Summary) -> QueuedDelivery {
    QueuedDelivery {
        id: it.id.to_string(),
        domain: it.domain.clone(),
        member: directory.member(it.member).map(|member| member.did.clone()),
        class: it.lane.as_str().to_owned(),
        recipients: it.open as u32,
        attempts: it.attempts.into(),
        due_at: time(it.due),
        held_since: it.held.as_ref().map(|held| time(held.since)),
        held_by: it.held.as_ref().map(|held| held.by.clone()),
        last: Some(it.last_reply.clone()).filter(|reply| !reply.is_empty()),
    }
}

pub(super) fn view_message(directory: &Directory, it: &Shown) -> QueuedMessage {
    let mut recipients: Vec<_> =
        it.deliveries.iter().flat_map(|delivery| delivery.recipients.iter().map(move |one| (one, delivery))).collect();
    recipients.sort_by_key(|(recipient, _)| recipient.index);
    let recipients = recipients.into_iter().map(|(recipient, delivery)| QueuedRecipient {
        address: recipient.mailbox.to_string(),
        fate: match recipient.fate {
            None => "open",
            Some(Fate::Delivered) => "delivered",
            Some(Fate::Failed) => "failed",
            Some(Fate::Expired) => "expired",
            Some(Fate::Cancelled) => "cancelled",
        }
        .to_owned(),
        last: Some(delivery.summary.last_reply.clone()).filter(|reply| !reply.is_empty()),
    });
    QueuedMessage {
        id: it.id.to_string(),
        reverse_path: it.reverse_path.clone(),
        member: directory.member(it.member).map(|member| member.did.clone()),
        class: it.lane.as_str().to_owned(),
        bytes: it.bytes,
        accepted_at: time(it.received_at),
        expires_at: time(it.deadline),
        set_aside: it.aside.clone(),
        recipients: recipients.collect(),
        deliveries: it.deliveries.iter().map(|delivery| view_delivery(directory, &delivery.summary)).collect(),
    }
}

/// RFC 3339 in UTC.
pub(super) fn time(at: SystemTime) -> String {
    atproto::datetime(at).as_str().to_owned()
}

/// Key files and pages of the queue are read beside the control thread's own work, which serves others meanwhile.
pub(super) async fn blocking<R: Send + 'static>(
    daemon: &Daemon,
    work: impl FnOnce(&Daemon) -> R + Send + 'static,
) -> Result<R, Refusal> {
    let daemon = daemon.clone();
    tokio::task::spawn_blocking(move || work(&daemon)).await.map_err(unable)
}

pub(super) fn queue_id(id: &str) -> Result<QueueId, Refusal> {
    id.parse().map_err(|_| Refusal::Wrong(format!("{id:?} is not a queue id; `tradewind queue list` shows them")))
}

pub(super) fn unable(error: impl std::fmt::Display) -> Refusal {
    Refusal::Unable(error.to_string())
}
