//! The clerk: reads the queue's disk for the dispatcher, and writes the notices that need a body read.
//!
//! A thread of its own, because a page that is not in memory takes a millisecond, and neither the
//! scheduler's decisions nor the sessions of a ring thread may wait for it.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use host::Clock;
use scheduler::{Cause, Delivery, Next, QueueId};
use tokio::sync::mpsc;

use super::deliver::Attempt;
use super::settle::{self, Closing};
use crate::queue::{Backlog, LedgerCount, Queue, QueueError, Reader, Settlement, StoredDelivery};
use crate::sign::{Job as SignJob, Prepared, Signers};

/// Errands that the clerk has before it, enough to be never idle. The others wait with the dispatcher, where what somebody
/// waits for now overtakes them.
pub const AT_HAND: usize = 32;

/// What the dispatcher wants read.
pub enum Errand {
    /// What has waited since before the start: the flows from this key on.
    Flows(Vec<u8>),
    /// The next deliveries of a member to a domain.
    Load {
        /// Recipient domain.
        domain: Arc<str>,
        /// Whose mail.
        member: u32,
        /// At most so many.
        max: usize,
    },
    /// The message of a delivery that may go now.
    Fetch {
        /// The message.
        id: QueueId,
        /// Recipient domain.
        domain: Arc<str>,
    },
    /// A settlement, with its notice if one is due.
    Close(Box<Close>),
}

/// What is known about a delivery that is to be settled.
pub struct Close {
    /// The message.
    pub id: QueueId,
    /// Recipient domain.
    pub domain: Arc<str>,
    /// At hand, or to be read.
    pub stored: Option<Arc<StoredDelivery>>,
    /// Why.
    pub cause: Cause,
    /// What follows.
    pub next: Next,
    /// What was tried.
    pub attempt: Option<Attempt>,
    /// Name of the source that was used.
    pub source: Arc<str>,
    /// What was spent of an allowance of warmup.
    pub ledger: Option<LedgerCount>,
}

/// What the clerk brings back.
pub enum Errands {
    /// What is past its deadline or late, as the disk knows it. Nobody asked for it.
    Overdue(Vec<Delivery>),
    /// Flows with their earliest due times, and the key to go on from.
    Flows(Backlog, Option<Vec<u8>>),
    /// For `Scheduler::handle_window`.
    Window {
        /// Recipient domain.
        domain: Arc<str>,
        /// Whose mail.
        member: u32,
        /// The deliveries that are due.
        window: Vec<Delivery>,
        /// The earliest due time among those that are not in `window`.
        next_due: Option<SystemTime>,
    },
    /// What was found of a delivery that may go now.
    Fetched {
        /// The message.
        id: QueueId,
        /// Recipient domain.
        domain: Arc<str>,
        /// The message.
        found: Found,
    },
    /// To be committed.
    Settlement(Box<Settlement>),
}

/// A look into the queue.
pub enum Found {
    /// Here it is.
    Stored(Arc<StoredDelivery>),
    /// Cancelled meanwhile, or damaged and set aside: there is nothing to settle.
    Gone,
    /// The disk did not answer; it may the next time.
    Unreadable,
}

/// When a delivery that has to be settled is looked at again if it cannot be read.
const READ_AGAIN: Duration = Duration::from_secs(600);

/// The clerk looks through what waits at this pace, for what is past its deadline or late and not in memory.
const SWEEP: Duration = Duration::from_secs(5);
/// A round through all of it takes about so many sweeps, so such mail is noticed within a minute.
const SWEEPS_A_ROUND: u64 = 12;
/// Rows of a sweep, at least and at most: a few milliseconds, for which errands wait. Beyond a million deliveries a
/// round takes longer.
const SWEEP_ROWS: std::ops::RangeInclusive<u64> = 10_000..=100_000;
/// Overdue deliveries that a sweep gives on; the next one goes on there. Each costs the clerk a read and a notice, so
/// while so many errands wait there is no sweep.
const OVERDUE_AT_ONCE: usize = 256;

/// The actor.
pub struct Clerk {
    /// For setting damaged entries aside, and for the ids of notices.
    pub queue: Queue,
    /// The queue's reading side.
    pub reader: Reader,
    /// For notices.
    pub signers: Signers,
    /// What time it is.
    pub clock: Clock,
    /// Our name in notices.
    pub hostname: Arc<str>,
    /// What is to be done.
    pub errands: mpsc::Receiver<Errand>,
    /// Back to the dispatcher. As large as everything that can be asked for, so that it never fills.
    pub done: mpsc::Sender<Errands>,
}

impl Clerk {
    /// Runs errands until the dispatcher is gone.
    pub async fn run(mut self) {
        let mut sweeps = tokio::time::interval(SWEEP);
        sweeps.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut swept = Vec::new();
        loop {
            let errand = tokio::select! {
                biased;
                _ = sweeps.tick() => {
                    let found = if self.errands.len() < OVERDUE_AT_ONCE { self.sweep(&mut swept) } else { Vec::new() };
                    if !found.is_empty() && self.done.send(Errands::Overdue(found)).await.is_err() {
                        return;
                    }
                    continue;
                }
                errand = self.errands.recv() => errand,
            };
            let Some(errand) = errand else { return };
            let answer = match errand {
                Errand::Flows(from) => match self.flows(from) {
                    Some(answer) => answer,
                    None => continue,
                },
                Errand::Load { domain, member, max } => self.load(domain, member, max),
                Errand::Fetch { id, domain } => self.fetch(id, domain),
                Errand::Close(mut close) => {
                    let ledger = close.ledger.take();
                    let mut settlement = self.close(*close).await;
                    // Whatever became of the message: what was spent is spent.
                    settlement.ledger.extend(ledger);
                    Errands::Settlement(Box::new(settlement))
                }
            };
            if self.done.send(answer).await.is_err() {
                return;
            }
        }
    }

    /// A part of what waits; `swept` is where the last one ended.
    fn sweep(&self, swept: &mut Vec<u8>) -> Vec<Delivery> {
        let look = || {
            let rows = (self.reader.pending()? / SWEEPS_A_ROUND).clamp(*SWEEP_ROWS.start(), *SWEEP_ROWS.end());
            let rows = usize::try_from(rows).unwrap_or(usize::MAX);
            self.reader.overdue(swept, self.clock.now(), rows, OVERDUE_AT_ONCE)
        };
        match look() {
            Ok((found, next)) => {
                *swept = next.unwrap_or_default();
                found
            }
            Err(error) => {
                tracing::error!(%error, "what waits in the queue cannot be looked through; trying again");
                Vec::new()
            }
        }
    }

    fn load(&self, domain: Arc<str>, member: u32, max: usize) -> Errands {
        match self.reader.load(&domain, member, self.clock.now(), max) {
            Ok((window, next_due)) => Errands::Window { domain, member, window, next_due },
            Err(error) => {
                tracing::error!(domain = %domain, %error, "the queue cannot be read; trying again in a minute");
                let again = self.clock.now() + Duration::from_secs(60);
                Errands::Window { domain, member, window: Vec::new(), next_due: Some(again) }
            }
        }
    }

    /// None: the disk did not answer, and the answer comes later.
    fn flows(&self, from: Vec<u8>) -> Option<Errands> {
        let mut backlog = Backlog::default();
        match self.reader.flows(from.clone(), &mut backlog) {
            Ok(next) => Some(Errands::Flows(backlog, next)),
            Err(error) => {
                tracing::error!(%error, "what waits in the queue cannot be read; trying again in a minute");
                let done = self.done.clone();
                host::spawn_local(async move {
                    tokio::time::sleep(Duration::from_secs(60)).await;
                    // The dispatcher may have gone meanwhile.
                    let _ = done.send(Errands::Flows(Backlog::default(), Some(from))).await;
                });
                None
            }
        }
    }

    fn fetch(&self, id: QueueId, domain: Arc<str>) -> Errands {
        let found = self.read(id, &domain);
        Errands::Fetched { id, domain, found }
    }

    fn read(&self, id: QueueId, domain: &Arc<str>) -> Found {
        match self.reader.fetch(id, domain) {
            Ok(stored) => Found::Stored(Arc::new(stored)),
            Err(QueueError::Unknown(_)) => Found::Gone,
            Err(error @ QueueError::Corrupt(_)) => {
                tracing::error!(%id, "the queue entry is damaged; it is set aside and the rest goes on");
                let queue = self.queue.clone();
                host::spawn_local(async move {
                    if let Err(trouble) = queue.set_aside(id, &error.to_string()).await {
                        tracing::error!(%id, error = %trouble, "the damaged entry cannot be set aside");
                    }
                });
                Found::Gone
            }
            Err(error) => {
                tracing::error!(%id, %error, "a queue entry cannot be read; trying again later");
                Found::Unreadable
            }
        }
    }

    async fn close(&self, close: Close) -> Settlement {
        let found = match close.stored {
            Some(stored) => Found::Stored(stored),
            None => self.read(close.id, &close.domain),
        };
        let stored = match found {
            Found::Stored(stored) => stored,
            // The operator's wish holds for a damaged entry too; there is nothing to make a notice of.
            Found::Gone if matches!(close.cause, Cause::Cancelled(_)) => {
                let by = if let Cause::Cancelled(wish) = &close.cause { wish.by.to_string() } else { String::new() };
                let gone = nothing(close.id, close.domain, self.clock.now());
                let cancelled = crate::queue::Next::Cancelled;
                return Settlement { next: cancelled, last_reply: by, ..gone };
            }
            // Nobody may lose mail, or a notice, because a disk was slow to answer.
            Found::Gone | Found::Unreadable => {
                return nothing(close.id, close.domain, self.clock.now());
            }
        };
        let closing = Closing {
            stored: &stored,
            cause: &close.cause,
            next: close.next,
            attempt: close.attempt.as_ref(),
            source: &close.source,
            now: self.clock.now(),
        };
        let (mut settlement, reports) = settle::settlement(&closing);
        if !reports.is_empty() {
            settlement.dsn = self.notice(&stored, &reports).await;
        }
        settlement
    }

    async fn notice(&self, stored: &StoredDelivery, reports: &[super::dsn::Report]) -> Option<crate::queue::NewMessage> {
        let now = self.clock.now();
        let octets = Bytes::from(settle::notice(stored, reports, &self.hostname, now)?);
        let body_at = memchr::memmem::find(&octets, b"\r\n\r\n").map_or(octets.len(), |at| at + 4);
        let message = Prepared { head: Bytes::new(), rest: octets.clone(), body_at };
        let parts = match self.signers.sign(SignJob { urgent: false, message, domain: None, now }).await {
            Ok(signed) => vec![signed.head, signed.rest],
            Err(error) => {
                // A sender who hears nothing is worse off than one who gets an unsigned notice.
                tracing::warn!(id = %stored.message.id, %error, "the notice goes out unsigned");
                vec![octets]
            }
        };
        settle::notice_message(stored, reports, parts, now)
    }
}

/// A settlement that decides about no recipient, for an entry that is gone or cannot be read. To the queue it is a later
/// try: what was cancelled stays gone, what was set aside stays aside for the operator, and all else comes again.
pub(super) fn nothing(id: QueueId, domain: Arc<str>, now: SystemTime) -> Settlement {
    let next = crate::queue::Next::RetryAt(now + READ_AGAIN);
    Settlement {
        id,
        domain,
        fates: Vec::new(),
        delay_told: Vec::new(),
        next,
        last_reply: "the queue entry could not be read".to_owned(),
        source: String::new(),
        host: String::new(),
        dsn: None,
        ledger: Vec::new(),
    }
}
