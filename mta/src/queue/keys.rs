//! The keys that the queue's rows stand under: what is read together lies together.

use std::time::SystemTime;

use scheduler::{Lane, QueueId};

use super::codec::{cut, millis, time};
use super::rows::{DeliveryRow, lane_from, lane_number};

/// Longest domain that a key holds. DNS allows 253; an address literal is shorter.
pub(crate) const DOMAIN_BYTES_MAX: usize = 255;

/// Key of `messages`, and the prefix of all deliveries of a message.
pub(crate) fn message_key(id: QueueId) -> [u8; 8] {
    id.0.to_be_bytes()
}

/// Key of `deliveries`.
pub(crate) fn delivery_key(id: QueueId, domain: &str) -> Vec<u8> {
    [&message_key(id)[..], domain.as_bytes()].concat()
}

/// Takes a key of `deliveries` apart.
pub(crate) fn delivery_from_key(key: &[u8]) -> Option<(QueueId, &str)> {
    let (id, domain) = key.split_first_chunk::<8>()?;
    Some((QueueId(u64::from_be_bytes(*id)), std::str::from_utf8(domain).ok()?))
}

/// Key of `pending`. What a member has for a domain lies together, by lane and due time: one scan loads its window, and
/// one step leads past it to the next member, however much it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct PendingKey<'a> {
    /// It contains no NUL, so one domain's keys lie together and in order.
    pub(crate) domain: &'a str,
    pub(crate) member: u32,
    pub(crate) lane: Lane,
    pub(crate) due_millis: u64,
    pub(crate) id: QueueId,
}

impl<'a> PendingKey<'a> {
    /// Of a delivery row.
    pub(crate) fn of(row: &DeliveryRow, domain: &'a str, id: QueueId) -> Self {
        Self { domain, member: row.member, lane: row.lane, due_millis: millis(row.due), id }
    }

    /// The first key that a member's lane may have.
    pub(crate) fn first(domain: &'a str, member: u32, lane: Lane) -> Self {
        Self { domain, member, lane, due_millis: 0, id: QueueId(0) }
    }

    pub(crate) fn due(&self) -> SystemTime {
        time(self.due_millis)
    }

    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut key = Self::prefix(self.domain, Some(self.member));
        key.push(lane_number(self.lane));
        key.extend_from_slice(&self.due_millis.to_be_bytes());
        key.extend_from_slice(&self.id.0.to_be_bytes());
        key
    }

    pub(crate) fn decode(key: &'a [u8]) -> Option<Self> {
        let (rest, id) = key.split_last_chunk::<8>()?;
        let (rest, due) = rest.split_last_chunk::<8>()?;
        let (&lane, rest) = rest.split_last()?;
        let (rest, member) = rest.split_last_chunk::<4>()?;
        let (&0, domain) = rest.split_last()? else { return None };
        Some(Self {
            domain: std::str::from_utf8(domain).ok()?,
            member: u32::from_be_bytes(*member),
            lane: lane_from(lane).ok()?,
            due_millis: u64::from_be_bytes(*due),
            id: QueueId(u64::from_be_bytes(*id)),
        })
    }

    /// What all keys of a domain begin with, or those of one member there.
    pub(crate) fn prefix(domain: &str, member: Option<u32>) -> Vec<u8> {
        let mut key = Vec::with_capacity(domain.len() + 22);
        key.extend_from_slice(domain.as_bytes());
        key.push(0);
        key.extend(member.iter().flat_map(|member| member.to_be_bytes()));
        key
    }

    /// Where to go on after everything in this key's lane: before the member's next lane, the next member, the next domain.
    pub(crate) fn after_lane(&self) -> Vec<u8> {
        let mut key = Self::prefix(self.domain, Some(self.member));
        key.push(lane_number(self.lane) + 1);
        key
    }
}

/// Key of `held`: one domain's keys lie together.
pub(crate) fn held_key(domain: &str, id: QueueId) -> Vec<u8> {
    let mut key = PendingKey::prefix(domain, None);
    key.extend_from_slice(&message_key(id));
    key
}

/// Takes a key of `held` apart.
pub(crate) fn held_from_key(key: &[u8]) -> Option<(&str, QueueId)> {
    let (rest, id) = key.split_last_chunk::<8>()?;
    let (&0, domain) = rest.split_last()? else { return None };
    Some((std::str::from_utf8(domain).ok()?, QueueId(u64::from_be_bytes(*id))))
}

/// Key of `by_member`, whose rows are empty: one for each message.
pub(crate) fn member_key(member: u32, id: QueueId) -> [u8; 12] {
    let mut key = [0; 12];
    key[..4].copy_from_slice(&member.to_be_bytes());
    key[4..].copy_from_slice(&message_key(id));
    key
}

/// Key of `story`, whose rows are empty: one for each event, by message.
pub(crate) fn story_key(id: QueueId, number: u64) -> [u8; 16] {
    let mut key = [0; 16];
    key[..8].copy_from_slice(&message_key(id));
    key[8..].copy_from_slice(&number.to_be_bytes());
    key
}

/// The last eight octets of a key of `by_member` or of `story`.
pub(crate) fn last_number(key: &[u8]) -> Option<u64> {
    key.last_chunk::<8>().map(|number| u64::from_be_bytes(*number))
}

/// Key of `ledger`. Names hold no NUL (the configuration refuses control characters).
pub(crate) fn ledger_key(source: &str, provider: &str, day: u32, hour: u8) -> Vec<u8> {
    let mut key = ledger_prefix(source, provider);
    key.extend_from_slice(&day.to_be_bytes());
    key.push(hour);
    key
}

/// What all ledger keys of a source at a provider begin with.
pub(crate) fn ledger_prefix(source: &str, provider: &str) -> Vec<u8> {
    // A key has 511 octets at most.
    let mut key = cut(source, 200).as_bytes().to_vec();
    key.push(0);
    key.extend_from_slice(cut(provider, 200).as_bytes());
    key.push(0);
    key
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_sort_by_domain_member_lane_and_due_and_come_apart_again() {
        let key = |domain, member, lane, due_millis| PendingKey { domain, member, lane, due_millis, id: QueueId(9 << 20) };
        let keys = [
            key("a.example", 1, Lane::Otp, 500),
            key("a.example", 1, Lane::Transactional, 3),
            PendingKey { id: QueueId(1), ..key("a.example", 1, Lane::Transactional, 4) },
            key("a.example", 256, Lane::Otp, 0),
            key("a.example", u32::MAX, Lane::Notice, u64::MAX),
            key("a.example.org", 0, Lane::Otp, 0),
        ];
        assert!(keys.map(|key| key.encode()).is_sorted());
        for (nth, key) in keys.iter().enumerate() {
            assert_eq!(PendingKey::decode(&key.encode()), Some(*key));
            let next =
                keys[nth + 1..].iter().find(|next| (next.domain, next.member, next.lane) != (key.domain, key.member, key.lane));
            assert!(key.encode() < key.after_lane() && next.is_none_or(|next| key.after_lane() <= next.encode()));
        }
        assert_eq!(PendingKey::decode(b"short"), None);
        let id = QueueId(9 << 20);
        assert_eq!(delivery_from_key(&delivery_key(id, "a.example")), Some((id, "a.example")));
    }
}
