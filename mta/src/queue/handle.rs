//! The handle that everybody else holds: it prepares a request, sends it to the writer, and waits
//! for the commit.
//!
//! What can be done without the writer is done here, on the caller's thread: grouping recipients by
//! domain, encoding their rows, checksums. The writer is one thread; callers are many.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::SystemTime;

use bytes::{Bytes, BytesMut};
use heed::RwTxn;
use scheduler::{Lane, MeasureNews, QueueId};
use tokio::sync::{mpsc, oneshot};

use super::codec::{millis, time};
use super::duplicates::Recent;
use super::keys::DOMAIN_BYTES_MAX;
use super::operate::{Operated, Operation};
use super::rows::{DeliveryRow, Place};
use super::story::News;
use super::tables::Tables;
use super::types::{
    Admission, DeliverBy, NewMessage, NewRecipient, Parameters, QueueError, RECIPIENTS_MAX, Recipient, Settlement, StoredMessage,
};
use super::usage::{Counts, Held};

/// Requests that wait for the writer on each of its two ways in. When it is reached, callers
/// wait: sessions stop reading, which is felt by their peers as a slow server and not as an error.
const REQUESTS_MAX: usize = 1024;

/// The queue, for those who put into it. Cheap to clone.
#[derive(Clone)]
pub struct Queue {
    /// OTP mail does not stand in line behind anything else.
    urgent: mpsc::Sender<Request>,
    normal: mpsc::Sender<Request>,
    stats: Arc<Stats>,
    ids: Ids,
    counts: Counts,
    recent: Recent,
    expected: Arc<AtomicUsize>,
}

/// A message that will be queued soon, unless this is dropped.
#[must_use]
pub struct Expected(Arc<AtomicUsize>);

impl Drop for Expected {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Hands out queue ids: rising, and never one twice, whatever the clock does.
#[derive(Clone)]
pub(crate) struct Ids(Arc<AtomicU64>);

impl Ids {
    /// Continues after `last`.
    pub(crate) fn after(last: u64) -> Self {
        Self(Arc::new(AtomicU64::new(last)))
    }

    pub(crate) fn next(&self, now: SystemTime) -> QueueId {
        let least = millis(now) << QueueId::COUNTER_BITS;
        let step = |last: u64| Some(least.max(last + 1));
        // `step` never declines, so the last value read is what was replaced.
        let (Ok(last) | Err(last)) = self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, step);
        QueueId(least.max(last + 1))
    }

    pub(crate) fn last(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// What the writer has done since it started.
#[derive(Debug, Default)]
pub struct Stats {
    /// Transactions committed.
    pub commits: AtomicU64,
    /// Messages that became durable, DSNs included.
    pub enqueued: AtomicU64,
    /// Settlements that became durable.
    pub settled: AtomicU64,
    /// Messages that were queued already when they were submitted again.
    pub duplicates: AtomicU64,
    /// Messages refused for want of room.
    pub refused_full: AtomicU64,
    /// Octets of bodies copied forward, so that a segment could be used again.
    pub copied_bytes: AtomicU64,
    /// Rings when events were appended.
    pub events: News,
    /// Batches that failed by an error of disk or database.
    pub failed: AtomicU64,
}

impl Stats {
    pub(crate) fn add(counter: &AtomicU64, n: usize) {
        counter.fetch_add(n as u64, Ordering::Relaxed);
    }
}

pub(crate) type Answer<T> = oneshot::Sender<Result<T, QueueError>>;

pub(crate) enum Request {
    Enqueue(Box<Prepared>, Answer<QueueId>),
    Settle(Vec<PreparedSettlement>, Answer<()>),
    SetAside(QueueId, String, Answer<()>),
    Operate(Operation, Answer<Operated>),
    NoteActions(Vec<MeasureNews>, Answer<()>),
    Work(Box<dyn Work>),
    Stop,
}

/// A message, ready to be given an id and a place.
pub(crate) struct Prepared {
    /// Its id is not yet true while it is 0.
    pub(crate) message: StoredMessage,
    pub(crate) due: SystemTime,
    pub(crate) admission: Option<Admission>,
    /// The same message submitted again meanwhile: whoever waits for it is answered with this one's id.
    pub(crate) followers: Vec<Answer<QueueId>>,
    pub(crate) checksum: u32,
    /// Not yet true either.
    pub(crate) place: Place,
    pub(crate) recipients: u16,
    /// In the order of the domains, which is LMDB's.
    pub(crate) deliveries: Vec<PreparedDelivery>,
}

pub(crate) struct PreparedDelivery {
    pub(crate) domain: Arc<str>,
    pub(crate) recipients: Vec<Recipient>,
    pub(crate) row: Vec<u8>,
}

pub(crate) struct PreparedSettlement {
    pub(crate) settlement: Settlement,
    /// Taken out of the settlement.
    pub(crate) dsn: Option<Prepared>,
}

/// Somebody else's part in a transaction.
pub(crate) trait Work: Send {
    fn apply(&mut self, txn: &mut RwTxn<'_>, tables: &Tables) -> Result<(), QueueError>;
    /// Answers; `committed` is what became of the batch.
    fn finish(self: Box<Self>, committed: Result<(), QueueError>);
}

struct TypedWork<F, R> {
    work: Option<F>,
    done: Option<Result<R, QueueError>>,
    answer: Answer<R>,
}

impl<F, R> Work for TypedWork<F, R>
where
    F: FnOnce(&mut RwTxn<'_>, &Tables) -> Result<R, QueueError> + Send,
    R: Send,
{
    fn apply(&mut self, txn: &mut RwTxn<'_>, tables: &Tables) -> Result<(), QueueError> {
        // A batch is tried again when it did not fit; the closure has been used by then.
        let Some(work) = self.work.take() else { return Err(TRY_AGAIN) };
        let done = work(txn, tables);
        let outcome = done.as_ref().map(|_| ()).map_err(QueueError::clone);
        self.done = Some(done);
        outcome
    }

    fn finish(self: Box<Self>, committed: Result<(), QueueError>) {
        let done = match (self.done, committed) {
            (Some(Err(error)), _) | (_, Err(error)) => Err(error),
            (Some(done), Ok(())) => done,
            (None, Ok(())) => Err(TRY_AGAIN),
        };
        // Whoever asked may have gone.
        let _ = self.answer.send(done);
    }
}

const TRY_AGAIN: QueueError = QueueError::Full("the batch was cut down to settlements");

impl Queue {
    pub(crate) fn new(
        stats: Arc<Stats>,
        ids: Ids,
        counts: Counts,
        recent: Recent,
        expected: Arc<AtomicUsize>,
    ) -> (Self, mpsc::Receiver<Request>, mpsc::Receiver<Request>) {
        let (urgent, urgent_requests) = mpsc::channel(REQUESTS_MAX);
        let (normal, normal_requests) = mpsc::channel(REQUESTS_MAX);
        (Self { urgent, normal, stats, ids, counts, recent, expected }, urgent_requests, normal_requests)
    }

    /// An id for a message that must name it before it is queued. One that is never used leaves a gap.
    pub fn next_id(&self, now: SystemTime) -> QueueId {
        self.ids.next(now)
    }

    /// Says that a message is being made ready, for as long as that takes: while many are, the writer gathers larger
    /// batches.
    pub fn expect(&self) -> Expected {
        self.expected.fetch_add(1, Ordering::Relaxed);
        Expected(self.expected.clone())
    }

    /// What a member has in the queue, as of the last commit; [`OWN`](super::OWN) for mail of our own. Waits for nobody.
    pub fn held(&self, member: u32, now: SystemTime) -> Held {
        self.counts.held(member, now)
    }

    /// Messages submitted lately, as any thread can look for them.
    pub fn recent(&self) -> &Recent {
        &self.recent
    }

    /// Takes a message. When this resolves with an id, the message is durable: say 250. A caller that
    /// stops waiting may find it delivered all the same (RFC 1047).
    ///
    /// Another id than the message's own: it was queued before under that one, and is not queued again.
    pub async fn enqueue(&self, message: NewMessage) -> Result<QueueId, QueueError> {
        let prepared = Box::new(Prepared::new(message)?);
        let way = if prepared.message.lane == Lane::Otp { &self.urgent } else { &self.normal };
        ask(way, |answer| Request::Enqueue(prepared, answer)).await
    }

    /// Writes down the ends of attempts: all of this call or, with an error, none of it. A damaged
    /// entry is set aside on the way, which is not an error of the call.
    pub async fn settle(&self, settlements: Vec<Settlement>) -> Result<(), QueueError> {
        let prepare = |mut settlement: Settlement| {
            let dsn = settlement.dsn.take().map(Prepared::new).transpose()?;
            Ok(PreparedSettlement { settlement, dsn })
        };
        let settlements = settlements.into_iter().map(prepare).collect::<Result<_, QueueError>>()?;
        ask(&self.normal, |answer| Request::Settle(settlements, answer)).await
    }

    /// Takes a damaged message out of the scheduler's sight and keeps it for the operator.
    pub async fn set_aside(&self, id: QueueId, reason: &str) -> Result<(), QueueError> {
        ask(&self.normal, |answer| Request::SetAside(id, reason.to_owned(), answer)).await
    }

    /// Does a share of what an operator wants; the answer says where to go on.
    pub async fn operate(&self, operation: Operation) -> Result<Operated, QueueError> {
        ask(&self.normal, |answer| Request::Operate(operation, answer)).await
    }

    pub(super) async fn note(&self, news: Vec<MeasureNews>) -> Result<(), QueueError> {
        ask(&self.normal, |answer| Request::NoteActions(news, answer)).await
    }

    /// Runs `work` in the next transaction and resolves with its value after the commit. An error of
    /// `work` undoes what it did, and nothing else. It runs on the writer's thread: read and write
    /// tables, nothing slower.
    pub async fn transact<R: Send + 'static>(
        &self,
        work: impl FnOnce(&mut RwTxn<'_>, &Tables) -> Result<R, QueueError> + Send + 'static,
    ) -> Result<R, QueueError> {
        ask(&self.normal, |answer| Request::Work(Box::new(TypedWork { work: Some(work), done: None, answer }))).await
    }

    /// Lets the writer commit what has arrived, then end. Later requests are answered `Stopped`.
    pub async fn stop(&self) {
        // When it has ended already, that is what was wanted.
        let _ = self.normal.send(Request::Stop).await;
    }

    /// What the writer has done.
    pub fn stats(&self) -> &Stats {
        &self.stats
    }
}

async fn ask<T>(way: &mpsc::Sender<Request>, request: impl FnOnce(Answer<T>) -> Request) -> Result<T, QueueError> {
    let (answer, answered) = oneshot::channel();
    way.send(request(answer)).await.map_err(|_| QueueError::Stopped)?;
    answered.await.unwrap_or(Err(QueueError::Stopped))
}

impl Prepared {
    pub(crate) fn new(new: NewMessage) -> Result<Self, QueueError> {
        if new.recipients.is_empty() {
            return Err(QueueError::Invalid("a message needs a recipient"));
        }
        if new.recipients.len() > RECIPIENTS_MAX {
            return Err(QueueError::Invalid("too many recipients in one message"));
        }
        let mut domains: BTreeMap<Arc<str>, Vec<Recipient>> = BTreeMap::new();
        let mut recipients = 0;
        for (index, NewRecipient { mailbox, notify, orcpt }) in (0u16..).zip(new.recipients) {
            let domain = mailbox.domain();
            if domain.is_empty() || domain.len() > DOMAIN_BYTES_MAX || domain.contains('\0') {
                return Err(QueueError::Invalid("a recipient's domain cannot be a key"));
            }
            match domains.get_mut(domain) {
                Some(others) => others.push(Recipient { index, mailbox, notify, orcpt, delay_told: false, fate: None }),
                None => {
                    let domain = domain.into();
                    domains.insert(domain, vec![Recipient { index, mailbox, notify, orcpt, delay_told: false, fate: None }]);
                }
            }
            recipients += 1;
        }
        // As the rows will say it: what is handed on from memory must not differ from what is read.
        let whole = |at: SystemTime| time(millis(at));
        let (received_at, due, deadline) = (whole(new.received_at), whole(new.due), whole(new.deadline));
        let delay_notice_at = new.delay_notice_at.map(whole);
        let deliver_by = new.parameters.deliver_by.map(|by| DeliverBy { at: whole(by.at), ..by });
        let deliveries = domains
            .into_iter()
            .map(|(domain, recipients)| {
                let row =
                    DeliveryRow { member: new.member, lane: new.lane, due, attempts: 0, last_reply: String::new(), recipients };
                PreparedDelivery { domain, row: row.encode(), recipients: row.recipients }
            })
            .collect();
        let octets = join(new.octets);
        let message = StoredMessage {
            id: new.id.unwrap_or(QueueId(0)),
            member: new.member,
            credential: new.credential,
            reverse_path: new.reverse_path,
            parameters: Parameters { deliver_by, ..new.parameters },
            lane: new.lane,
            received_at,
            delay_notice_at,
            deadline,
            octets,
        };
        let place = Place { segment: 0, offset: 0, length: 0 };
        Ok(Self {
            checksum: crc32fast::hash(&message.octets),
            message,
            admission: new.admission,
            followers: Vec::new(),
            due,
            place,
            recipients,
            deliveries,
        })
    }

    /// Rows that it writes, roughly: the measure of a transaction.
    pub(crate) fn rows(&self) -> usize {
        2 + 2 * self.deliveries.len()
    }
}

/// One piece: egress sends it as one, and a copy costs less than carrying the pieces on.
fn join(mut pieces: Vec<Bytes>) -> Bytes {
    if pieces.len() == 1 {
        return pieces.swap_remove(0);
    }
    let mut whole = BytesMut::with_capacity(pieces.iter().map(Bytes::len).sum());
    for piece in pieces {
        whole.extend_from_slice(&piece);
    }
    whole.freeze()
}
