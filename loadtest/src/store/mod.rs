//! The queue's storage under test, without a daemon in front of it: a directory, the queue's one writer on a thread of its
//! own, and messages to fill it with.
//!
//! [`crate::backlog`] fills a directory in this way and starts the daemon on it; [`crate::churn`] never starts one. Nobody
//! takes notes of the commits, as if the scheduler had gone.

mod bodies;

use std::path::Path;
use std::time::SystemTime;

use anyhow::{Result, anyhow};
use host::Clock;
use mta::queue::{NewMessage, NewRecipient, Next, Options, Parameters, Queue, QueueError, Reader, Settlement, Writer};
use scheduler::{Lane, QueueId};
use smtp::address::ReversePath;
use tokio::sync::mpsc;

pub(crate) use bodies::{Bodies, Sizes};

/// An open queue.
pub(crate) struct Store {
    pub(crate) queue: Queue,
    pub(crate) reader: Reader,
    writer: std::thread::JoinHandle<Result<(), QueueError>>,
}

impl Store {
    /// Opens the queue in `directory`, making it when absent.
    pub(crate) fn open(directory: &Path, options: Options) -> Result<Self> {
        let (notes, _) = mpsc::channel(1);
        let (writer, queue, reader) = Writer::open(directory, Clock::system(), options, notes)?;
        let writer = host::thread("queue", move || writer.run())?;
        Ok(Self { queue, reader, writer })
    }

    /// Commits what has arrived and ends.
    pub(crate) async fn close(self) -> Result<()> {
        self.queue.stop().await;
        Ok(self.writer.join().map_err(|_| anyhow!("the queue's writer panicked"))??)
    }

    /// Queues all of these at once; the writer makes batches of them.
    pub(crate) async fn enqueue_all(&self, messages: Vec<NewMessage>) -> Result<Vec<QueueId>, QueueError> {
        let waiting = messages.into_iter().map(|message| self.queue.enqueue(message));
        futures_util::future::join_all(waiting).await.into_iter().collect()
    }
}

/// A message to one mailbox of `domain`, with the number that [`crate::ledger`] looks for in its header.
pub(crate) fn message(bodies: &mut Bodies, number: u64, domain: &str, now: SystemTime) -> Result<NewMessage> {
    let mailbox = format!("user{number}@{domain}").parse().map_err(|error| anyhow!("a mailbox at {domain}: {error:?}"))?;
    let sender = format!("noreply@{}", crate::daemon::MEMBER_DOMAIN);
    let sender = sender.parse().map_err(|error| anyhow!("{sender}: {error:?}"))?;
    Ok(NewMessage {
        id: None,
        member: 1,
        credential: 1,
        admission: None,
        reverse_path: ReversePath::Mailbox(sender),
        parameters: Parameters::default(),
        lane: Lane::Transactional,
        received_at: now,
        due: now,
        delay_notice_at: None,
        deadline: now + LIFETIME,
        recipients: vec![NewRecipient { mailbox, notify: None, orcpt: None }],
        octets: bodies.next(number, domain),
    })
}

/// As long as the daemon gives mail that is not urgent; nothing expires while we measure.
const LIFETIME: std::time::Duration = std::time::Duration::from_secs(5 * 86_400);

/// What becomes of a delivery whose site was not there.
pub(crate) fn deferred(id: QueueId, domain: &str, until: SystemTime) -> Settlement {
    Settlement { next: Next::RetryAt(until), ..done(id, domain, "connect: timed out") }
}

/// The end of a delivery, without the fate of anybody: fill in what happened.
pub(crate) fn done(id: QueueId, domain: &str, reply: &str) -> Settlement {
    Settlement {
        id,
        domain: domain.into(),
        fates: Vec::new(),
        delay_told: Vec::new(),
        next: Next::Done,
        last_reply: reply.to_owned(),
        source: "ip-a".to_owned(),
        host: format!("mx.{domain}"),
        dsn: None,
        ledger: Vec::new(),
    }
}
