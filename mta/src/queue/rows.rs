//! The queue's own rows.
//!
//! A row holds what its readers need together, so that loading a window is one scan of `pending`
//! and settling an attempt reads one row of `deliveries`.

use std::time::SystemTime;

use scheduler::Lane;
use smtp::address::{Mailbox, ReversePath};
use smtp::envelope::ByMode;

use super::codec::{Damaged, Decoder, Encoder, cut};
use super::types::{DeliverBy, Fate, Notify, Parameters, REPLY_BYTES_MAX, Recipient, Ret, TlsWish};

/// The first octet of each row below but those of `messages` and `pending`.
const VERSION: u8 = 1;
/// Theirs. Rows of version 1 end before the time of the delay notice, and those of version 2 before what was said about TLS;
/// both are still read.
const MESSAGE_VERSION: u8 = 3;
const PENDING_VERSION: u8 = 2;

pub(super) fn lane_number(lane: Lane) -> u8 {
    // There are three.
    lane.index() as u8
}

pub(super) fn lane_from(number: u8) -> Result<Lane, Damaged> {
    Lane::from_index(usize::from(number)).ok_or(Damaged)
}

/// Where a body lies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) segment: u32,
    /// Of its record's header.
    pub(crate) offset: u64,
    /// Octets of the body alone.
    pub(crate) length: u64,
}

/// `messages`: id → everything but the recipients and the octets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct MessageRow {
    pub(crate) member: u32,
    pub(crate) credential: u32,
    /// Empty: null.
    pub(crate) reverse_path: String,
    pub(crate) parameters: Parameters,
    pub(crate) lane: Lane,
    pub(crate) received_at: SystemTime,
    pub(crate) delay_notice_at: Option<SystemTime>,
    pub(crate) deadline: SystemTime,
    pub(crate) recipients: u16,
    /// Deliveries that are not settled for good; at zero the message leaves.
    pub(crate) open: u16,
    pub(crate) place: Place,
}

impl MessageRow {
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut row = Encoder::new(MESSAGE_VERSION);
        row.u32(self.member).u32(self.credential).text(&self.reverse_path);
        row.u8(match self.parameters.ret {
            None => 0,
            Some(Ret::Full) => 1,
            Some(Ret::Headers) => 2,
        });
        row.text_or_none(self.parameters.envid.as_deref());
        row.u8(u8::from(self.parameters.smtputf8)).u8(u8::from(self.parameters.eight_bit));
        row.u8(lane_number(self.lane)).time(self.received_at).time(self.deadline);
        row.u16(self.recipients).u16(self.open);
        row.u32(self.place.segment).u64(self.place.offset).u64(self.place.length);
        row.time_or_none(self.delay_notice_at);
        row.time_or_none(self.parameters.deliver_by.map(|by| by.at));
        if let Some(DeliverBy { mode, trace, .. }) = self.parameters.deliver_by {
            row.u8(u8::from(mode == ByMode::Return)).u8(u8::from(trace));
        }
        // -9 to 9 as 1 to 19.
        row.u8(self.parameters.priority.map_or(0, |priority| priority.saturating_add(10).unsigned_abs()));
        row.u8(match self.parameters.tls {
            TlsWish::Policy => 0,
            TlsWish::Required => 1,
            TlsWish::Waived => 2,
        });
        row.done()
    }

    pub(crate) fn decode(row: &[u8]) -> Result<Self, Damaged> {
        let version = row.first().copied().filter(|version| (VERSION..MESSAGE_VERSION).contains(version));
        let version = version.unwrap_or(MESSAGE_VERSION);
        let mut fields = Decoder::new(row, version)?;
        let mut row = Self {
            member: fields.u32()?,
            credential: fields.u32()?,
            reverse_path: fields.text()?.to_owned(),
            parameters: Parameters {
                ret: match fields.u8()? {
                    0 => None,
                    1 => Some(Ret::Full),
                    2 => Some(Ret::Headers),
                    _ => return Err(Damaged),
                },
                envid: fields.text_or_none()?.map(str::to_owned),
                smtputf8: fields.flag()?,
                eight_bit: fields.flag()?,
                deliver_by: None,
                priority: None,
                tls: TlsWish::Policy,
            },
            lane: lane_from(fields.u8()?)?,
            received_at: fields.time()?,
            delay_notice_at: None,
            deadline: fields.time()?,
            recipients: fields.u16()?,
            open: fields.u16()?,
            place: Place { segment: fields.u32()?, offset: fields.u64()?, length: fields.u64()? },
        };
        if version >= 2 {
            row.delay_notice_at = fields.time_or_none()?;
            if let Some(at) = fields.time_or_none()? {
                let mode = if fields.flag()? { ByMode::Return } else { ByMode::Notify };
                row.parameters.deliver_by = Some(DeliverBy { at, mode, trace: fields.flag()? });
            }
            row.parameters.priority = match fields.u8()? {
                0 => None,
                number @ 1..=19 => Some(number as i8 - 10),
                _ => return Err(Damaged),
            };
        }
        if version >= 3 {
            row.parameters.tls = match fields.u8()? {
                0 => TlsWish::Policy,
                1 => TlsWish::Required,
                2 => TlsWish::Waived,
                _ => return Err(Damaged),
            };
        }
        fields.end()?;
        Ok(row)
    }

    pub(crate) fn reverse_path(&self) -> Result<ReversePath, Damaged> {
        if self.reverse_path.is_empty() {
            return Ok(ReversePath::Null);
        }
        mailbox(&self.reverse_path).map(ReversePath::Mailbox)
    }
}

fn mailbox(text: &str) -> Result<Mailbox, Damaged> {
    // It was allowed when it came in; whether UTF-8 was announced is no longer the question.
    Mailbox::parse(text, true).map_err(|_| Damaged)
}

/// `deliveries`: (id, domain) → how it went so far.
#[derive(Clone)]
pub(crate) struct DeliveryRow {
    pub(crate) member: u32,
    pub(crate) lane: Lane,
    /// Together with member and lane it finds the row in `pending`.
    pub(crate) due: SystemTime,
    pub(crate) attempts: u16,
    pub(crate) last_reply: String,
    pub(crate) recipients: Vec<Recipient>,
}

impl DeliveryRow {
    pub(crate) fn open(&self) -> usize {
        self.recipients.iter().filter(|recipient| recipient.fate.is_none()).count()
    }

    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut row = Encoder::new(VERSION);
        row.u32(self.member).u8(lane_number(self.lane)).time(self.due).u16(self.attempts);
        row.text(cut(&self.last_reply, REPLY_BYTES_MAX));
        row.u32(u32::try_from(self.recipients.len()).unwrap_or(u32::MAX));
        for recipient in &self.recipients {
            row.u16(recipient.index).text(recipient.mailbox.as_str());
            let notify = recipient.notify.map_or(NOTIFY_NOT_GIVEN, |notify| {
                u8::from(notify.success) | u8::from(notify.failure) << 1 | u8::from(notify.delay) << 2
            });
            row.u8(notify | if recipient.delay_told { DELAY_TOLD } else { 0 });
            row.text_or_none(recipient.orcpt.as_deref());
            row.u8(match recipient.fate {
                None => 0,
                Some(Fate::Delivered) => 1,
                Some(Fate::Failed) => 2,
                Some(Fate::Expired) => 3,
                Some(Fate::Cancelled) => 4,
            });
        }
        row.done()
    }

    pub(crate) fn decode(row: &[u8]) -> Result<Self, Damaged> {
        let mut fields = Decoder::new(row, VERSION)?;
        let mut row = Self {
            member: fields.u32()?,
            lane: lane_from(fields.u8()?)?,
            due: fields.time()?,
            attempts: fields.u16()?,
            last_reply: fields.text()?.to_owned(),
            recipients: Vec::new(),
        };
        let count = fields.count(RECIPIENT_BYTES_MIN)?;
        row.recipients.reserve_exact(count);
        for _ in 0..count {
            let (index, mailbox, notify) = (fields.u16()?, mailbox(fields.text()?)?, fields.u8()?);
            row.recipients.push(Recipient {
                index,
                mailbox,
                delay_told: notify & DELAY_TOLD != 0,
                notify: match notify & !DELAY_TOLD {
                    NOTIFY_NOT_GIVEN => None,
                    bits if bits < 8 => Some(Notify { success: bits & 1 != 0, failure: bits & 2 != 0, delay: bits & 4 != 0 }),
                    _ => return Err(Damaged),
                },
                orcpt: fields.text_or_none()?.map(str::to_owned),
                fate: match fields.u8()? {
                    0 => None,
                    1 => Some(Fate::Delivered),
                    2 => Some(Fate::Failed),
                    3 => Some(Fate::Expired),
                    4 => Some(Fate::Cancelled),
                    _ => return Err(Damaged),
                },
            });
        }
        fields.end()?;
        Ok(row)
    }
}

/// In the octet of NOTIFY. Older rows have 0xff, and so count as told.
const NOTIFY_NOT_GIVEN: u8 = 0xef;
/// In the same octet: the sender was told of the delay.
const DELAY_TOLD: u8 = 16;

/// Index, a mailbox's length, notify, no orcpt, fate.
const RECIPIENT_BYTES_MIN: usize = 7;

/// `pending`: what the scheduler must know beside the key, so that a window is loaded by one scan.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct PendingRow {
    pub(crate) deadline: SystemTime,
    pub(crate) late_at: Option<SystemTime>,
    pub(crate) attempts: u16,
    pub(crate) recipients: u16,
    pub(crate) bytes: u32,
}

impl PendingRow {
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut row = Encoder::new(PENDING_VERSION);
        row.time(self.deadline).u16(self.attempts).u16(self.recipients).u32(self.bytes).time_or_none(self.late_at);
        row.done()
    }

    pub(crate) fn decode(row: &[u8]) -> Result<Self, Damaged> {
        let old = row.first() == Some(&VERSION);
        let mut fields = Decoder::new(row, if old { VERSION } else { PENDING_VERSION })?;
        let (deadline, attempts, recipients, bytes) = (fields.time()?, fields.u16()?, fields.u16()?, fields.u32()?);
        let late_at = if old { None } else { fields.time_or_none()? };
        let row = Self { deadline, late_at, attempts, recipients, bytes };
        fields.end()?;
        Ok(row)
    }
}

/// `held`: (domain, id) → since when, by whom, and when it would have been due.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct HeldRow {
    pub(crate) since: SystemTime,
    /// For what was never tried and was not to be tried before.
    pub(crate) due: SystemTime,
    pub(crate) by: String,
}

impl HeldRow {
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut row = Encoder::new(VERSION);
        row.time(self.since).time(self.due).text(cut(&self.by, BY_BYTES_MAX));
        row.done()
    }

    pub(crate) fn decode(row: &[u8]) -> Result<Self, Damaged> {
        let mut fields = Decoder::new(row, VERSION)?;
        let row = Self { since: fields.time()?, due: fields.time()?, by: fields.text()?.to_owned() };
        fields.end()?;
        Ok(row)
    }
}

/// Octets kept of who did something; what is longer is cut.
const BY_BYTES_MAX: usize = 200;

/// `segments`: number → how full, and how much of it is alive.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct SegmentRow {
    pub(crate) capacity: u64,
    /// Where the next batch begins.
    pub(crate) append: u64,
    pub(crate) live_bytes: u64,
    pub(crate) live_count: u64,
}

impl SegmentRow {
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut row = Encoder::new(VERSION);
        row.u64(self.capacity).u64(self.append).u64(self.live_bytes).u64(self.live_count);
        row.done()
    }

    pub(crate) fn decode(row: &[u8]) -> Result<Self, Damaged> {
        let mut fields = Decoder::new(row, VERSION)?;
        let row = Self { capacity: fields.u64()?, append: fields.u64()?, live_bytes: fields.u64()?, live_count: fields.u64()? };
        fields.end()?;
        Ok(row)
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, UNIX_EPOCH};

    use super::*;

    fn message() -> MessageRow {
        MessageRow {
            member: 7,
            credential: 8,
            reverse_path: "a@member.example".to_owned(),
            parameters: Parameters {
                ret: Some(Ret::Full),
                envid: Some("x".to_owned()),
                smtputf8: true,
                eight_bit: false,
                deliver_by: Some(DeliverBy {
                    at: UNIX_EPOCH + Duration::from_millis(1_790_000_005_000),
                    mode: ByMode::Notify,
                    trace: true,
                }),
                priority: Some(-9),
                tls: TlsWish::Required,
            },
            lane: Lane::Notice,
            received_at: UNIX_EPOCH + Duration::from_millis(1_790_000_000_000),
            delay_notice_at: Some(UNIX_EPOCH + Duration::from_millis(1_790_000_005_000)),
            deadline: UNIX_EPOCH + Duration::from_millis(1_790_000_009_000),
            recipients: 3,
            open: 2,
            place: Place { segment: 4, offset: 4096, length: 1000 },
        }
    }

    fn delivery() -> DeliveryRow {
        let recipient = |index, notify, fate| Recipient {
            index,
            mailbox: "b@one.example".parse().unwrap(),
            notify,
            orcpt: Some("rfc822;c@d".to_owned()),
            delay_told: notify.is_none(),
            fate,
        };
        let notify = Notify { success: true, failure: false, delay: true };
        DeliveryRow {
            member: 7,
            lane: Lane::Otp,
            due: UNIX_EPOCH + Duration::from_millis(1_790_000_000_000),
            attempts: 3,
            last_reply: "451 4.7.1 später".to_owned(),
            recipients: vec![recipient(0, Some(notify), None), recipient(5, None, Some(Fate::Expired))],
        }
    }

    #[test]
    fn rows_read_back_as_they_were_written() {
        assert_eq!(MessageRow::decode(&message().encode()), Ok(message()));
        let (row, found) = (delivery(), DeliveryRow::decode(&delivery().encode()).unwrap());
        assert_eq!((found.lane, found.due, found.attempts, &found.last_reply), (row.lane, row.due, 3, &row.last_reply));
        assert_eq!((found.open(), found.recipients[1].index, found.recipients[1].fate), (1, 5, Some(Fate::Expired)));
        for (found, row) in found.recipients.iter().zip(&row.recipients) {
            assert_eq!((found.notify, found.delay_told), (row.notify, row.delay_told));
        }
    }

    #[test]
    fn message_rows_of_older_versions_are_read_without_what_they_did_not_say() {
        let mut row = message().encode();
        row.pop();
        row[0] = 2;
        let mut expected = message();
        expected.parameters.tls = TlsWish::Policy;
        assert_eq!(MessageRow::decode(&row), Ok(expected.clone()));
        // Two times with a flag before each, two flags, and the priority.
        row.truncate(row.len() - (9 + 9 + 2 + 1));
        row[0] = 1;
        expected.delay_notice_at = None;
        (expected.parameters.deliver_by, expected.parameters.priority) = (None, None);
        assert_eq!(MessageRow::decode(&row), Ok(expected));
        row[0] = 4;
        assert_eq!(MessageRow::decode(&row), Err(Damaged));
    }

    #[test]
    fn rows_cut_are_damaged_and_rows_turned_at_any_octet_never_panic() {
        type Reads = fn(&[u8]) -> bool;
        let tries: [(Vec<u8>, Reads); 2] = [
            (message().encode(), |row| MessageRow::decode(row).is_ok_and(|row| row.reverse_path().is_ok())),
            (delivery().encode(), |row| DeliveryRow::decode(row).is_ok()),
        ];
        for (row, reads) in tries {
            assert!(reads(&row));
            for at in 0..row.len() {
                assert!(!reads(&row[..at]), "cut at {at}");
                for bit in 0..8 {
                    let mut turned = row.clone();
                    turned[at] ^= 1 << bit;
                    // Some still mean something, though not the same: a row has no checksum, LMDB's pages are trusted.
                    reads(&turned);
                }
            }
        }
    }
}
