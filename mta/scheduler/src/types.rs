//! The words that the scheduler and its driver share: deliveries, routes, outcomes, actions.
//!
//! Nothing here decides anything. What the scheduler is told are `Delivery`, `Routed` and `Outcome`;
//! what it asks for is an `Action`. Strings are `Arc<str>`, because each is named in many messages.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::measure::ReplyClass;
use crate::shaping::Limits;
use crate::tls::{Demand, TlsPolicy};

/// Names one message in the queue: milliseconds since 1970 (44 bits), then a counter (20 bits).
///
/// The single writer of the queue hands them out in rising order, so an id also says when the message came. It is
/// written as 13 characters of Crockford's base 32 in lower case, which sorts as the number does.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct QueueId(pub u64);

impl QueueId {
    /// Bits of the counter inside one millisecond.
    pub const COUNTER_BITS: u32 = 20;

    /// The id of the `counter`th message that came at `time`; a counter too large runs over into the time.
    pub fn new(time: SystemTime, counter: u32) -> QueueId {
        let millis = time.duration_since(UNIX_EPOCH).unwrap_or_default().as_millis() as u64;
        QueueId((millis << Self::COUNTER_BITS) + u64::from(counter))
    }

    /// When the message came, to the millisecond.
    pub fn time(self) -> SystemTime {
        UNIX_EPOCH + Duration::from_millis(self.0 >> Self::COUNTER_BITS)
    }
}

/// Crockford's alphabet: no i, l, o, u, so that an id can be read out over the telephone.
const ALPHABET: &[u8; 32] = b"0123456789abcdefghjkmnpqrstvwxyz";
const ID_CHARS: usize = 13;

impl fmt::Display for QueueId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut text = [0u8; ID_CHARS];
        for (nth, octet) in text.iter_mut().enumerate() {
            let shift = 5 * (ID_CHARS - 1 - nth);
            *octet = ALPHABET[(self.0 >> shift) as usize & 31];
        }
        f.pad(std::str::from_utf8(&text).unwrap_or_default())
    }
}

impl fmt::Debug for QueueId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// The text is not a queue id.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct QueueIdError;

impl fmt::Display for QueueIdError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(
            "a queue id has 13 characters of 0-9 and a-z without i, l, o, u; take it from the 250 reply or from `queue list`",
        )
    }
}

impl std::error::Error for QueueIdError {}

impl FromStr for QueueId {
    type Err = QueueIdError;

    /// Accepts capitals and Crockford's look-alikes (o for 0, i and l for 1), because people type ids.
    fn from_str(text: &str) -> Result<QueueId, QueueIdError> {
        if text.len() != ID_CHARS {
            return Err(QueueIdError);
        }
        let mut number: u64 = 0;
        for octet in text.bytes() {
            let octet = match octet.to_ascii_lowercase() {
                b'o' => b'0',
                b'i' | b'l' => b'1',
                other => other,
            };
            let digit = ALPHABET.iter().position(|&c| c == octet).ok_or(QueueIdError)?;
            // Thirteen characters hold 65 bits; the first one may only use four of its five.
            number = number.checked_mul(32).ok_or(QueueIdError)? | digit as u64;
        }
        Ok(QueueId(number))
    }
}

/// Order inside a site's ready queue: the first lane that has mail goes first. Made from a message's class.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Lane {
    /// One-time codes and login links: worthless after minutes, so they overtake everything.
    Otp = 0,
    /// Mail that somebody waits for: password resets, verifications, receipts.
    Transactional = 1,
    /// Everything that may be late: digests, announcements, DSNs.
    Notice = 2,
}

impl Lane {
    /// All lanes, the most urgent first.
    pub const ALL: [Lane; 3] = [Lane::Otp, Lane::Transactional, Lane::Notice];

    /// 0 for the most urgent; used as the lane's octet in the queue's index.
    pub fn index(self) -> usize {
        self as usize
    }

    /// The lane of such an index, if there is one.
    pub fn from_index(index: usize) -> Option<Lane> {
        Lane::ALL.get(index).copied()
    }

    /// `otp`, `transactional`, `notice`.
    pub fn as_str(self) -> &'static str {
        match self {
            Lane::Otp => "otp",
            Lane::Transactional => "transactional",
            Lane::Notice => "notice",
        }
    }
}

impl fmt::Display for Lane {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// One message to one recipient domain, as it lies in the queue. Its key is (`id`, `domain`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Delivery {
    /// The message.
    pub id: QueueId,
    /// The recipients' domain: A-label, lower case.
    pub domain: Arc<str>,
    /// Its lane.
    pub lane: Lane,
    /// Whose mail it is: the queue's number of the member.
    pub member: u32,
    /// Not to be tried before.
    pub due: SystemTime,
    /// Never sent from here on; what is still open then has expired.
    pub deadline: SystemTime,
    /// The sender wants to be told then that it is still here. None: nobody wants it, or it was told.
    pub late_at: Option<SystemTime>,
    /// Tries that ended with something still open.
    pub attempts: u16,
    /// Recipients that are still open.
    pub recipients: u16,
    /// Length of the message as it will be sent.
    pub bytes: u32,
}

/// One mail exchanger of a route.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Host {
    /// Its name, for TLS and for logs.
    pub name: Arc<str>,
    /// MX preference; equal ones were put into random order by whoever resolved.
    pub preference: u16,
    /// Where it can be reached, in the order to try.
    pub addresses: Vec<IpAddr>,
    /// What mail for this route's domain demands of a connection to it.
    pub demand: Demand,
}

/// How mail for one recipient domain travels. What a domain demands (TLS policy) belongs here and never to the site.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Route {
    /// Name of the site: the sorted names of its MX hosts joined by `,`. Domains with the same site share windows.
    pub site: Arc<str>,
    /// Who operates the site: `google`, `microsoft`, …, `other`.
    pub provider: Arc<str>,
    /// In the order to try.
    pub hosts: Vec<Host>,
    /// What the domain publishes about TLS.
    pub tls: TlsPolicy,
    /// From then on the domain is resolved again.
    pub valid_until: SystemTime,
}

/// What became of an `Action::Resolve`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Routed {
    /// There is a way.
    Route(Arc<Route>),
    /// There is none now (`Verdict::Deferred`) or at all (`Verdict::Failed`).
    Trouble(RouteTrouble),
}

/// Why a domain has no route.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RouteTrouble {
    /// `Failed`: the domain takes no mail. Anything else: ask again later.
    pub verdict: Verdict,
    /// Enhanced status code (RFC 3463), such as 5.1.2 or 4.4.3.
    pub code: (u8, u16, u16),
    /// For the DSN and the operator.
    pub text: Arc<str>,
}

/// The widest thing that a reply speaks of: a refused connection is not a refused recipient.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Scope {
    /// This mailbox.
    Recipient,
    /// This message, to anybody.
    Message,
    /// The host that was tried last; the site's other hosts may be well.
    Host,
    /// The whole site, from whatever source.
    Site,
    /// The site's view of the source that we used.
    Source,
}

/// What a reply, or its absence, means for what it speaks of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Verdict {
    /// Accepted.
    Delivered,
    /// Try later.
    Deferred,
    /// Never.
    Failed,
}

/// How an attempt ended, as `egress/trouble` understood it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// What the verdict speaks of.
    pub scope: Scope,
    /// The verdict on that scope; `Delivered` when at least one recipient was accepted.
    pub verdict: Verdict,
    /// The peer named a time before which it does not want to see us again.
    pub retry_after: Option<Duration>,
    /// Recipients remain that were deferred: the delivery has to be tried again.
    pub open: bool,
    /// What the reply that decided the scope speaks of; None where nothing went wrong, or nobody knows.
    pub class: Option<ReplyClass>,
    /// Connections that were begun for it, also those that failed. None: nobody counted, and one is assumed where none was kept.
    pub connections: Option<u16>,
    /// No connection could be made to the addresses of the source's family, and the route has others.
    pub unconnected: bool,
}

impl Outcome {
    /// All recipients were accepted.
    pub const ACCEPTED: Outcome = Outcome {
        scope: Scope::Recipient,
        verdict: Verdict::Delivered,
        retry_after: None,
        open: false,
        class: None,
        connections: None,
        unconnected: false,
    };
}

/// Index of a source, given by the scheduler in the order of configuration and kept over reloads by the source's name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SourceId(pub u16);

/// Why a delivery is settled.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Cause {
    /// It was tried, and the driver knows what came of it.
    Attempted,
    /// Its domain takes no mail: every open recipient fails with this.
    Unroutable(RouteTrouble),
    /// Its deadline has passed.
    Expired,
    /// It is late, and the sender is to be told; it is tried on.
    Late,
    /// An operator wants it gone.
    Cancelled(Cancellation),
}

/// An operator's wish that a delivery be gone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cancellation {
    /// Who wants it, and why.
    pub by: Arc<str>,
    /// The sender is told.
    pub notify: bool,
}

/// What the queue is to write down about a delivery.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// Nothing is open any more: remove it.
    Done,
    /// Keep what is open and count an attempt; due again then. Never later than the deadline.
    RetryAt(SystemTime),
    /// Give up: what is still open fails as expired.
    Expired,
}

/// What the driver has to do. Each but `Settle` holds a place until it is answered, so each must be answered once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Find the route of a domain; answer with `handle_route`.
    Resolve {
        /// Recipient domain.
        domain: Arc<str>,
    },
    /// Read the first `max` deliveries of the member to the domain that are due now, in the order (lane, due, id); answer
    /// with `handle_window`. The answer may contain deliveries that are known already, in flight or being settled.
    Load {
        /// Recipient domain.
        domain: Arc<str>,
        /// Whose mail.
        member: u32,
        /// At most so many, known ones included.
        max: usize,
    },
    /// Try it now; answer with `handle_outcome`, always.
    Deliver {
        /// The message.
        id: QueueId,
        /// Recipient domain.
        domain: Arc<str>,
        /// Its lane, for the lines that it has still to pass.
        lane: Lane,
        /// Where to.
        route: Arc<Route>,
        /// Where from.
        source: SourceId,
        /// Lowest free number of (site, source): names the ring thread and the cached connection.
        slot: u16,
        /// What holds there.
        limits: Arc<Limits>,
        /// At most so many of its recipients; the others stay open.
        recipients: u16,
    },
    /// Write it down; answer with `handle_settled` after the commit.
    Settle {
        /// The message.
        id: QueueId,
        /// Recipient domain.
        domain: Arc<str>,
        /// Why.
        cause: Cause,
        /// What is to become of it.
        next: Next,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_queue_id_is_written_in_thirteen_characters_that_sort_and_read_back() {
        let time = UNIX_EPOCH + Duration::from_millis(1_760_000_000_123);
        let (first, second) = (QueueId::new(time, 7), QueueId::new(time, 8));
        assert_eq!(first.to_string().len(), 13);
        assert!(first.to_string() < second.to_string());
        assert_eq!(first.to_string().parse(), Ok(first));
        assert_eq!(first.to_string().to_uppercase().parse(), Ok(first));
        assert_eq!(first.time(), time);
        assert_eq!(QueueId(u64::MAX).to_string().parse(), Ok(QueueId(u64::MAX)));
        assert_eq!(QueueId(0).to_string(), "0000000000000");
        assert_eq!("ooooooooooooL".parse(), Ok(QueueId(1)));
    }

    #[test]
    fn what_is_no_queue_id_is_refused() {
        for text in [
            "",
            "000000000000",
            "00000000000000",
            "g000000000000",
            "zzzzzzzzzzzzz",
            "000000000000u",
            "000000000000é",
            "é00000000000",
        ] {
            assert_eq!(text.parse::<QueueId>(), Err(QueueIdError), "{text}");
        }
    }
}
