//! What one member has spent of what its tier gives, and whether a message still fits.
//!
//! Recipients are what counts: providers see recipients, and a message to a hundred of them is no smaller a burst for
//! having been submitted once. MAIL and RCPT only look, so a transaction that leads nowhere costs nothing and an open
//! session holds nothing back. At the end of data all is taken at once or nothing is, and given back if the message does
//! not become durable.
//!
//! Ring threads share the counts: each is one atomic, taken by compare-and-swap, so together they spend no more than
//! one would. Between two counts a thread may for a moment be refused what another is about to give back; never the
//! other way round. What is being committed may for that moment be counted twice in the queue's share.
//!
//! Not here: the counts themselves (`rate.rs`, `today.rs`; messages in the queue: `queue::usage`).

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use smtp::reply::Reply;

use super::rate::{self, Bucket, Short};
use super::tier::Tier;
use super::today::Today;
use crate::queue::Held;

/// Octets that signing and tracing add to a message; what it grows beyond is over the share once.
const ADDED_BYTES: u64 = 4096;

/// What one member has spent; kept while its tier and the settings change.
#[derive(Debug, Default)]
pub struct Meter {
    bucket: Bucket,
    today: Today,
    /// Admitted and not yet durable.
    messages: AtomicU64,
    bytes: AtomicU64,
}

/// A member's meter under the limits of its tier.
#[derive(Debug, Clone)]
pub struct Account {
    /// What it may.
    pub tier: Arc<Tier>,
    meter: Arc<Meter>,
}

/// The limit that a message does not fit under.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Limit {
    /// Recipients an hour.
    Hour {
        /// Of them so many.
        max: u64,
        /// There will be room after this.
        wait: Duration,
    },
    /// Recipients at once: more than this are never taken in one message.
    Burst(u64),
    /// Recipients a day.
    Day {
        /// Of them so many.
        max: u64,
        /// The next day begins after this.
        wait: Duration,
    },
    /// Messages in the queue.
    QueueMessages {
        /// Of them so many.
        max: u64,
        /// When one is likely to leave.
        leaves_in: Option<Duration>,
    },
    /// Octets in the queue.
    QueueBytes {
        /// Of them so many.
        max: u64,
        /// When a message is likely to leave.
        leaves_in: Option<Duration>,
    },
    /// The message alone is larger than the share.
    TooLarge(u64),
}

/// What a message took. Unless it is [kept](Spent::keep), all of it is given back when this is dropped.
#[derive(Debug)]
#[must_use = "dropped, it is given back"]
pub struct Spent {
    meter: Arc<Meter>,
    rate: Option<rate::Taken>,
    day: u32,
    recipients: u64,
    bytes: u64,
}

impl Meter {
    /// Goes on where the row on disk ends.
    pub fn resume(day: u32, spent: u64) -> Self {
        Self { today: Today::resume(day, spent), ..Self::default() }
    }
}

impl Account {
    /// The same meter under another tier's limits goes on counting.
    pub fn new(tier: Arc<Tier>, meter: Arc<Meter>) -> Self {
        Self { tier, meter }
    }

    /// Whether a message of `bytes` to `recipients` would be taken now.
    pub fn look(&self, now: SystemTime, recipients: u64, bytes: u64, held: Held) -> Result<(), Limit> {
        if let Some(rate) = &self.tier.rate {
            rate.look(&self.meter.bucket, now, recipients).map_err(|short| hour(rate, short))?;
        }
        if let Some(max) = self.tier.messages_per_day {
            self.meter.today.look(now, recipients, max).map_err(|wait| day(max, wait, recipients))?;
        }
        let (messages, waiting) = (self.meter.messages.load(Ordering::Acquire), self.meter.bytes.load(Ordering::Acquire));
        self.share(messages + 1, waiting + bytes, bytes, held)
    }

    /// Takes what a message needs, or nothing. `held` is asked after the message has been added to those on their way:
    /// whichever it meets, a message just committed is seen on one side at least.
    pub fn take(&self, now: SystemTime, recipients: u64, bytes: u64, held: impl FnOnce() -> Held) -> Result<Spent, Limit> {
        let rate = self.tier.rate.as_ref();
        let taken = rate.map(|rate| rate.take(&self.meter.bucket, now, recipients).map_err(|short| hour(rate, short)));
        let rate = taken.transpose()?;
        let max = self.tier.messages_per_day.unwrap_or(u64::MAX);
        let day = match self.meter.today.take(now, recipients, max) {
            Ok(day) => day,
            Err(wait) => {
                rate.into_iter().for_each(|taken| self.meter.bucket.give_back(taken));
                return Err(day(max, wait, recipients));
            }
        };
        let stored = bytes.saturating_add(ADDED_BYTES);
        // From here on dropping `spent` gives everything back.
        let messages = self.meter.messages.fetch_add(1, Ordering::AcqRel) + 1;
        let waiting = self.meter.bytes.fetch_add(stored, Ordering::AcqRel).saturating_add(stored);
        let spent = Spent { meter: self.meter.clone(), rate, day, recipients, bytes: stored };
        self.share(messages, waiting, bytes, held())?;
        Ok(spent)
    }

    /// Recipients that could be sent to now; None: as many as it likes.
    pub fn available(&self, now: SystemTime) -> Option<u64> {
        let at_once = self.tier.rate.as_ref().map(|rate| rate.available(&self.meter.bucket, now));
        let today = self.tier.messages_per_day.map(|max| max.saturating_sub(self.spent_today(now)));
        at_once.into_iter().chain(today).min()
    }

    /// Recipients sent to today.
    pub fn spent_today(&self, now: SystemTime) -> u64 {
        self.meter.today.spent(now)
    }

    /// `messages` and `waiting` are on their way, this message of `bytes` among them.
    fn share(&self, messages: u64, waiting: u64, bytes: u64, held: Held) -> Result<(), Limit> {
        let leaves_in = held.leaves_in;
        if let Some(max) = self.tier.queue_messages_max
            && held.messages.saturating_add(messages) > max
        {
            return Err(Limit::QueueMessages { max, leaves_in });
        }
        match self.tier.queue_bytes_max {
            Some(max) if bytes > max => Err(Limit::TooLarge(max)),
            // A message that fits the share is taken by an empty queue, whatever we add to it.
            Some(max) if held.bytes.saturating_add(waiting) > max && held.messages + messages > 1 => {
                Err(Limit::QueueBytes { max, leaves_in })
            }
            _ => Ok(()),
        }
    }
}

fn hour(rate: &rate::Rate, short: Short) -> Limit {
    match short {
        Short::For(wait) => Limit::Hour { max: rate.hourly(), wait },
        Short::Ever => Limit::Burst(rate.burst()),
    }
}

fn day(max: u64, wait: Duration, recipients: u64) -> Limit {
    if recipients > max { Limit::Burst(max) } else { Limit::Day { max, wait } }
}

impl Spent {
    /// The day of UTC, since 1970, whose allowance it was taken from.
    pub fn day(&self) -> u32 {
        self.day
    }

    /// The message is durable: what was sent is sent. Its place in the queue is the queue's to count from now on.
    pub fn keep(mut self) {
        self.rate = None;
        self.recipients = 0;
    }
}

impl Drop for Spent {
    fn drop(&mut self) {
        if let Some(taken) = self.rate.take() {
            self.meter.bucket.give_back(taken);
        }
        if self.recipients > 0 {
            self.meter.today.give_back(self.day, self.recipients);
        }
        self.meter.messages.fetch_sub(1, Ordering::AcqRel);
        self.meter.bytes.fetch_sub(self.bytes, Ordering::AcqRel);
    }
}

impl Limit {
    /// The word for it in metrics.
    pub fn name(self) -> &'static str {
        match self {
            Self::Hour { .. } => "hour",
            Self::Burst(_) => "burst",
            Self::Day { .. } => "day",
            Self::QueueMessages { .. } => "queue_messages",
            Self::QueueBytes { .. } => "queue_bytes",
            Self::TooLarge(_) => "message_bytes",
        }
    }

    /// What the client of `whose` mail is told: the limit, and when to come back.
    pub fn reply(self, whose: &str) -> Reply {
        let queued = |what: String, leaves_in: Option<Duration>| {
            let when = match leaves_in {
                Some(wait) => format!("the next is likely to leave in {}", in_words(wait)),
                None => "come back when some are delivered".to_owned(),
            };
            Reply::new(452, (4, 3, 1), format!("{whose} may have {what} in the queue, and has; {when}"))
        };
        match self {
            Self::Hour { max, wait } => {
                Reply::new(451, (4, 7, 1), format!("{whose} may send {max} an hour; room again in {}", in_words(wait)))
            }
            // RFC 5321 §4.5.3.1.10: the client sends to those accepted, and to the others afterwards.
            Self::Burst(max) => Reply::new(
                452,
                (4, 5, 3),
                format!("{whose} may send to {max} recipients at once; send the rest in another transaction"),
            ),
            Self::Day { max, wait } => {
                Reply::new(451, (4, 7, 1), format!("{whose} may send {max} a day; room again in {}", in_words(wait)))
            }
            Self::QueueMessages { max, leaves_in } => queued(format!("{max} messages"), leaves_in),
            Self::QueueBytes { max, leaves_in } => queued(format!("{max} octets"), leaves_in),
            Self::TooLarge(max) => Reply::new(
                552,
                (5, 3, 4),
                format!("the message is larger than all that {whose} may have in the queue: {max} octets"),
            ),
        }
    }
}

/// Rounded up, so that whoever comes back then finds room.
fn in_words(wait: Duration) -> String {
    let secs = wait.as_secs() + u64::from(wait.subsec_nanos() > 0);
    match secs {
        0..=1 => "1 s".to_owned(),
        2..=119 => format!("{secs} s"),
        120..=7199 => format!("{} min", secs.div_ceil(60)),
        _ => format!("{} h", secs.div_ceil(3600)),
    }
}

#[cfg(test)]
#[path = "account_tests.rs"]
mod tests;
