//! Events: what became of mail, in the order in which it became durable.
//!
//! One is appended by the very transaction that it tells of, so the list is never ahead of the
//! queue nor behind it. Each recipient has exactly one final event ([`What::is_final`]). Log line,
//! counter ([`render`]) and stream are renderings of these; a reader keeps the sequence number it has seen and
//! asks for what follows (`queue::Reader::events_after`).
//!
//! The list is bounded: beyond `queue::Options::events_max`, and past `events_age_max`, the oldest leave. No event
//! carries a subject or a body.

pub mod redact;
pub mod render;
pub mod tally;

use std::time::SystemTime;

use scheduler::QueueId;

use crate::queue::codec::{Damaged, Decoder, Encoder, cut};

/// Octets of a reply kept in an event; what is longer is cut.
const REPLY_BYTES_MAX: usize = 512;

/// The first octet of each row.
const VERSION: u8 = 1;

/// What happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum What {
    /// A message is durable in the queue.
    Accepted,
    /// An attempt left recipients open; they are tried again.
    Deferred,
    /// A host of the recipient's domain took the message over. Final.
    Delivered,
    /// The recipient was refused for good. Final.
    Failed,
    /// The recipient's deadline passed. Final.
    Expired,
    /// An entry is damaged and waits for the operator.
    SetAside,
    /// An operator cancelled what was open. Final.
    Cancelled,
    /// An operator holds a delivery; `reply` says who and why.
    Held,
    /// An operator let a delivery go again.
    Released,
    /// The scheduler does something about trouble by itself. Of these four `id` is the action's number, `recipient` its kind,
    /// `host` the site or provider, and `reply` the cause, or who ended or prolonged it and why.
    ActionStarted,
    /// An operator moved the end of an action.
    ActionExtended,
    /// An operator, or news from outside, ended an action.
    ActionCancelled,
    /// The time of an action is over, or what it waited for is well again.
    ActionExpired,
}

impl What {
    /// Nothing follows for this recipient.
    pub fn is_final(self) -> bool {
        matches!(self, Self::Delivered | Self::Failed | Self::Expired | Self::Cancelled)
    }

    /// It tells of an automatic action and not of mail.
    pub fn is_action(self) -> bool {
        matches!(self, Self::ActionStarted | Self::ActionExtended | Self::ActionCancelled | Self::ActionExpired)
    }

    /// The word for it in logs, metrics and streams.
    pub fn name(self) -> &'static str {
        match self {
            Self::Accepted => "accepted",
            Self::Deferred => "deferred",
            Self::Delivered => "delivered",
            Self::Failed => "failed",
            Self::Expired => "expired",
            Self::SetAside => "set_aside",
            Self::Cancelled => "cancelled",
            Self::Held => "held",
            Self::Released => "released",
            Self::ActionStarted => "action_started",
            Self::ActionExtended => "action_extended",
            Self::ActionCancelled => "action_cancelled",
            Self::ActionExpired => "action_expired",
        }
    }

    fn number(self) -> u8 {
        match self {
            Self::Accepted => 0,
            Self::Deferred => 1,
            Self::Delivered => 2,
            Self::Failed => 3,
            Self::Expired => 4,
            Self::SetAside => 5,
            Self::Cancelled => 6,
            Self::Held => 7,
            Self::Released => 8,
            Self::ActionStarted => 9,
            Self::ActionExtended => 10,
            Self::ActionCancelled => 11,
            Self::ActionExpired => 12,
        }
    }

    fn from_number(number: u8) -> Result<Self, Damaged> {
        Ok(match number {
            0 => Self::Accepted,
            1 => Self::Deferred,
            2 => Self::Delivered,
            3 => Self::Failed,
            4 => Self::Expired,
            5 => Self::SetAside,
            6 => Self::Cancelled,
            7 => Self::Held,
            8 => Self::Released,
            9 => Self::ActionStarted,
            10 => Self::ActionExtended,
            11 => Self::ActionCancelled,
            12 => Self::ActionExpired,
            _ => return Err(Damaged),
        })
    }
}

/// One line of the story.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// When it was written down.
    pub at: SystemTime,
    /// What happened.
    pub what: What,
    /// To which message.
    pub id: QueueId,
    /// Whose mail it is.
    pub member: u32,
    /// How many recipients it speaks of: all of an accepted message, those left open by a
    /// deferral, one for a final event.
    pub recipients: u16,
    /// Attempts at this delivery so far, this one included.
    pub attempts: u16,
    /// The recipients' domain; empty when it speaks of the whole message.
    pub domain: String,
    /// The recipient of a final event; else empty.
    pub recipient: String,
    /// The name of the source that it was sent from; empty without an attempt.
    pub source: String,
    /// The host that answered; empty when none did.
    pub host: String,
    /// The reply, or our own reason, on one line.
    pub reply: String,
}

impl Event {
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut row = Encoder::new(VERSION);
        row.time(self.at).u8(self.what.number()).u64(self.id.0).u32(self.member);
        row.u16(self.recipients).u16(self.attempts);
        row.text(&self.domain).text(&self.recipient).text(&self.source).text(&self.host);
        row.text(cut(&self.reply, REPLY_BYTES_MAX));
        row.done()
    }

    pub(crate) fn decode(row: &[u8]) -> Result<Self, Damaged> {
        let mut fields = Decoder::new(row, VERSION)?;
        let event = Self {
            at: fields.time()?,
            what: What::from_number(fields.u8()?)?,
            id: QueueId(fields.u64()?),
            member: fields.u32()?,
            recipients: fields.u16()?,
            attempts: fields.u16()?,
            domain: fields.text()?.to_owned(),
            recipient: fields.text()?.to_owned(),
            source: fields.text()?.to_owned(),
            host: fields.text()?.to_owned(),
            reply: fields.text()?.to_owned(),
        };
        fields.end()?;
        Ok(event)
    }

    /// When it was written down and about which message, without reading the rest.
    pub(crate) fn at_and_id_of(row: &[u8]) -> Result<(SystemTime, QueueId), Damaged> {
        let mut fields = Decoder::new(row, VERSION)?;
        let at = fields.time()?;
        fields.u8()?;
        Ok((at, QueueId(fields.u64()?)))
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, UNIX_EPOCH};

    use super::*;

    #[test]
    fn every_kind_of_event_reads_back_as_it_was_written() {
        for number in 0..13 {
            let event = Event {
                at: UNIX_EPOCH + Duration::from_millis(1_790_000_000_001),
                what: What::from_number(number).unwrap(),
                id: QueueId(77 << 20),
                member: 9,
                recipients: 3,
                attempts: 2,
                domain: "example.org".to_owned(),
                recipient: "b@example.org".to_owned(),
                source: "ip-a".to_owned(),
                host: "mx.example.org".to_owned(),
                reply: "451 4.7.1 later".to_owned(),
            };
            assert_eq!(Event::at_and_id_of(&event.encode()), Ok((event.at, event.id)));
            assert_eq!(Event::decode(&event.encode()), Ok(event));
        }
        assert_eq!(What::from_number(13), Err(Damaged));
    }
}
