//! What goes into the queue, what comes out of it, and what can go wrong.
//!
//! A *message* is stored once; a *delivery* is that message to one recipient domain, and is what
//! the scheduler moves. A recipient's fate is written once and never changed.

use std::fmt;
use std::io;
use std::sync::Arc;
use std::time::SystemTime;

use bytes::Bytes;
use scheduler::{Delivery, Lane, QueueId};
use smtp::address::{Mailbox, ReversePath};
use smtp::envelope::ByMode;
pub use smtp::envelope::{Notify, Ret};

use super::duplicates::Fingerprint;

/// Recipients in one message; more is [`QueueError::Invalid`]. The dialogue's own limit is far lower.
pub const RECIPIENTS_MAX: usize = 20_000;

/// Octets of a peer's reply that are kept with a delivery; what is longer is cut.
pub const REPLY_BYTES_MAX: usize = 512;

/// The credential of members' mail that came in without one, from the trusted networks of a listener.
pub const LISTENER_CREDENTIAL: u32 = u32::MAX;

/// A message as it comes in, and a DSN that we make ourselves.
#[derive(Clone)]
pub struct NewMessage {
    /// From `Queue::next_id`, where the message itself already names it (its trace field). None: one is given
    /// at the commit.
    pub id: Option<QueueId>,
    /// Whose mail it is: the member's row number.
    pub member: u32,
    /// The credential it was submitted with; 0 for mail of our own, [`LISTENER_CREDENTIAL`] for a member's without one.
    pub credential: u32,
    /// What commits with it because a member submitted it; none for mail of our own.
    pub admission: Option<Admission>,
    /// Where notices about it go.
    pub reverse_path: ReversePath,
    /// The rest of the envelope that later hops must see.
    pub parameters: Parameters,
    /// Its place in each site's queue.
    pub lane: Lane,
    /// When it came in.
    pub received_at: SystemTime,
    /// Not to be sent before (RFC 4865); else `received_at`.
    pub due: SystemTime,
    /// When those who want to know are told that it is late. None: never.
    pub delay_notice_at: Option<SystemTime>,
    /// When what is still undelivered fails.
    pub deadline: SystemTime,
    /// Everybody it is for, in the order of the dialogue.
    pub recipients: Vec<NewRecipient>,
    /// The message as it will be sent, in pieces that follow each other (trace field, signatures,
    /// the rest). Never changed from here on.
    pub octets: Vec<Bytes>,
}

/// What is written down beside a message, in its transaction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Admission {
    /// The day of UTC, since 1970, whose allowance it was taken from.
    pub day: u32,
    /// Recipients taken from it.
    pub recipients: u32,
    /// What the same message, submitted again, is known by. None: it would be queued again.
    pub fingerprint: Option<Fingerprint>,
}

/// Parameters of `MAIL` that travel with the message.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Parameters {
    /// RFC 3461 §4.3: how much of the message a DSN returns.
    pub ret: Option<Ret>,
    /// RFC 3461 §4.4: the sender's own name for this transaction, as xtext.
    pub envid: Option<String>,
    /// RFC 6531: an address or a header field needs UTF-8.
    pub smtputf8: bool,
    /// RFC 6152: the body has octets above 127.
    pub eight_bit: bool,
    /// RFC 2852: by when the sender wants it delivered.
    pub deliver_by: Option<DeliverBy>,
    /// RFC 6710: -9 to 9.
    pub priority: Option<i8>,
    /// RFC 8689: what the sender says about TLS on the way.
    pub tls: TlsWish,
}

/// What a sender says about TLS on the way of a message (RFC 8689).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum TlsWish {
    /// Nothing: the policy of the recipient's domain decides.
    #[default]
    Policy,
    /// `REQUIRETLS`: every hop verifies the next one, or the message goes no further (§4.2.1).
    Required,
    /// `TLS-Required: No` in the header section: the policy of the recipient's domain is not enforced (§4.1).
    Waived,
}

/// `BY=` with the time that it named (RFC 2852 §4); later hops are told what is left of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DeliverBy {
    /// By when.
    pub at: SystemTime,
    /// What follows when it is late. The deadline and the time of the notice already say so for us.
    pub mode: ByMode,
    /// Every hop tells the sender that it has passed the message on.
    pub trace: bool,
}

/// One forward-path with its parameters.
#[derive(Clone)]
pub struct NewRecipient {
    /// The forward-path.
    pub mailbox: Mailbox,
    /// None when `NOTIFY` was not given: failure, and perhaps delay.
    pub notify: Option<Notify>,
    /// RFC 3461 §4.2: the recipient as first named, `type;xtext`.
    pub orcpt: Option<String>,
}

/// A message as the queue holds it, with its octets.
pub struct StoredMessage {
    /// Its name.
    pub id: QueueId,
    /// Whose mail it is.
    pub member: u32,
    /// The credential it was submitted with; 0 for mail of our own.
    pub credential: u32,
    /// Where notices about it go.
    pub reverse_path: ReversePath,
    /// The rest of the envelope.
    pub parameters: Parameters,
    /// Its place in each site's queue.
    pub lane: Lane,
    /// When it came in.
    pub received_at: SystemTime,
    /// When those who want to know are told that it is late. None: never.
    pub delay_notice_at: Option<SystemTime>,
    /// When what is still undelivered fails.
    pub deadline: SystemTime,
    /// The message as it is sent.
    pub octets: Bytes,
}

impl StoredMessage {
    /// When the sender is to be told that it is late for these recipients; none when nobody is to be told.
    pub(crate) fn late_at(&self, recipients: &[Recipient]) -> Option<SystemTime> {
        let told = self.reverse_path != ReversePath::Null && recipients.iter().any(Recipient::waits_for_delay_notice);
        self.delay_notice_at.filter(|_| told)
    }
}

/// Subjects and bodies never reach a log, so `Debug` leaves them out.
impl fmt::Debug for StoredMessage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let bytes = self.octets.len();
        f.debug_struct("StoredMessage").field("id", &self.id).field("bytes", &bytes).finish_non_exhaustive()
    }
}

/// One recipient of a stored message.
#[derive(Clone)]
pub struct Recipient {
    /// Its place among all recipients of the message; fates name it by this.
    pub index: u16,
    /// The forward-path.
    pub mailbox: Mailbox,
    /// When the sender wants to hear about it.
    pub notify: Option<Notify>,
    /// The recipient as first named.
    pub orcpt: Option<String>,
    /// The sender was told that it is late, which happens once.
    pub delay_told: bool,
    /// None while it is open.
    pub fate: Option<Fate>,
}

impl Recipient {
    /// Whether the sender is still to be told when it is late (RFC 3461 §5.2.5).
    pub fn waits_for_delay_notice(&self) -> bool {
        self.fate.is_none() && !self.delay_told && self.notify.is_none_or(|notify| notify.delay)
    }
}

/// What an attempt needs: the message, and who at this domain still waits for it.
#[derive(Clone)]
pub struct StoredDelivery {
    /// The message, shared by its deliveries.
    pub message: Arc<StoredMessage>,
    /// The domain of every recipient below.
    pub domain: Arc<str>,
    /// Attempts so far.
    pub attempts: u16,
    /// The last reply, empty before the first attempt.
    pub last_reply: String,
    /// The open recipients.
    pub recipients: Vec<Recipient>,
}

/// What finally became of a recipient.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    /// A host of its domain took it over.
    Delivered,
    /// It was refused for good.
    Failed,
    /// Its deadline passed.
    Expired,
    /// An operator cancelled it.
    Cancelled,
}

/// A recipient's fate, as an attempt found it.
#[derive(Debug, Clone)]
pub struct RecipientFate {
    /// [`Recipient::index`].
    pub index: u16,
    /// What became of it. One that has a fate already keeps it.
    pub fate: Fate,
    /// The reply that decided it, verbatim on one line.
    pub reply: String,
}

/// What follows for what is still open.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Next {
    /// Nothing is open. Should something be, it fails with [`Settlement::last_reply`]: mail ends
    /// with an event, never in silence.
    Done,
    /// Try again then. With nothing open this is `Done`. What an operator holds stays held.
    RetryAt(SystemTime),
    /// An operator wants it gone: what is open is cancelled, each recipient with its event.
    Cancelled,
}

/// The end of one attempt (or of the wish to make one): everything in it is one transaction.
#[derive(Clone)]
pub struct Settlement {
    /// Which message.
    pub id: QueueId,
    /// Which of its deliveries. One that is no longer queued (cancelled meanwhile) is left alone;
    /// its ledger counts, because what was spent is spent.
    pub domain: Arc<str>,
    /// Recipients that have their final fate now.
    pub fates: Vec<RecipientFate>,
    /// Recipients that are still open, and that `dsn` says are late.
    pub delay_told: Vec<u16>,
    /// What follows for the others.
    pub next: Next,
    /// Shown to the operator as the reason of waiting.
    pub last_reply: String,
    /// The source's name; empty when nothing was attempted.
    pub source: String,
    /// The host that answered; empty when none did.
    pub host: String,
    /// A notice to the sender, queued by the same transaction. None is sent about a message whose
    /// reverse-path is null (RFC 5321 §4.5.5): one given here is dropped.
    pub dsn: Option<NewMessage>,
    /// What the attempt spent.
    pub ledger: Vec<LedgerCount>,
}

/// Messages sent from one source to one provider within an hour.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LedgerCount {
    /// The source's name.
    pub source: Arc<str>,
    /// The provider's name.
    pub provider: Arc<str>,
    /// Days since 1970 in the plan's zone.
    pub day: u32,
    /// Hour of that day.
    pub hour: u8,
    /// How many more.
    pub count: u64,
}

/// What the scheduler's driver hears after a commit, one batch a commit, OTP first.
pub enum Note {
    /// New, and here with its octets, so that a fresh message is sent without a read.
    Enqueued {
        /// For the scheduler.
        delivery: Delivery,
        /// For egress; drop it when the scheduler does not keep the delivery in its window.
        stored: Arc<StoredDelivery>,
    },
    /// A settlement is durable.
    Settled {
        /// Which message.
        id: QueueId,
        /// Which of its deliveries.
        domain: Arc<str>,
        /// Whose mail it is; 0 where the entry is gone and could not say.
        member: u32,
        /// Still queued, due then. None: gone.
        next_due: Option<SystemTime>,
    },
    /// An operator made some of a member's mail for a domain due.
    Due {
        /// The recipients' domain.
        domain: Arc<str>,
        /// Whose mail.
        member: u32,
        /// From when on.
        at: SystemTime,
    },
}

/// Each variant says what to do next. Cloned to everybody whose request was in a failed batch.
#[derive(Debug, Clone, thiserror::Error)]
pub enum QueueError {
    /// Answer 452 4.3.1 and go on delivering: settlements still work, and make room.
    #[error("the queue is full: {0}")]
    Full(&'static str),
    /// The disk refused. Answer 451 4.3.0, tell the operator; the next batch tries afresh.
    #[error("the queue cannot write: {0}")]
    Unwritable(Arc<io::Error>),
    /// The entry is damaged. Set it aside with `Queue::set_aside`, tell the operator, go on.
    #[error("queue entry {0} is damaged")]
    Corrupt(QueueId),
    /// No such entry (any more): forget it.
    #[error("queue entry {0} is not in the queue")]
    Unknown(QueueId),
    /// The request cannot be stored: the caller should not have made it.
    #[error("{0}")]
    Invalid(&'static str),
    /// The database failed. Answer 451 4.3.0; when it repeats, restart the daemon.
    #[error("the queue's database failed: {0}")]
    Database(Arc<heed::Error>),
    /// The writer has stopped: the daemon is going down. Answer 421.
    #[error("the queue has stopped")]
    Stopped,
}

impl From<heed::Error> for QueueError {
    fn from(error: heed::Error) -> Self {
        match error {
            heed::Error::Mdb(heed::MdbError::MapFull) => Self::Full("the database has reached its size limit"),
            heed::Error::Io(error) => Self::from(error),
            error => Self::Database(Arc::new(error)),
        }
    }
}

impl From<io::Error> for QueueError {
    fn from(error: io::Error) -> Self {
        use io::ErrorKind::{QuotaExceeded, ReadOnlyFilesystem, StorageFull};
        match error.kind() {
            StorageFull | QuotaExceeded => Self::Full("no space is left on the disk"),
            ReadOnlyFilesystem => Self::Full("the file system is read-only"),
            _ => Self::Unwritable(Arc::new(error)),
        }
    }
}
