//! The durable queue: what was answered with 250 is here until its last recipient has a fate.
//!
//! ```text
//!  ingress ──enqueue──▶ ┌────────┐  bodies ─▶ segments/000001.seg …   1. written, synced
//!  egress  ──settle───▶ │ Writer │  state  ─▶ lmdb/                   2. one transaction, synced
//!  control ──transact─▶ └────────┘  answers, then notes to the scheduler's driver
//!                        Reader: short read transactions, anywhere
//! ```
//!
//! **One writer.** It takes what has arrived since the last commit, at once, and commits it
//! together: under load batches grow by themselves, and nobody waits for more to come. Everything
//! of one settlement (fates, ledger, event, DSN) is in one transaction.
//!
//! **Durable before 250.** Bodies are synced before LMDB commits, and [`Queue::enqueue`] resolves
//! after that. LMDB alone is the truth: a start replays nothing and scans no message; what waits is read page by
//! page, by flow, while mail comes in.
//!
//! **Full is not dead.** Without room for more, `enqueue` answers [`QueueError::Full`] while
//! settlements go on and make room: for them half of the map, a floor of free disk and a reserve
//! file are kept back.
//!
//! **Damage stays small.** A body or row that fails its check is [`QueueError::Corrupt`]: the driver
//! sets the entry aside, where the operator finds it, and goes on with the rest.
//!
//! Who looks where: `types` for what goes in and out, `writer` for the batch and its commit, `apply`
//! for what a request does to the tables, `operate` for what an operator does, `reader`, `list` and `story` for questions,
//! `rows` and `tables` for LMDB, `segments` for bodies, `usage` for whose they are, `duplicates` for what was submitted before,
//! `room` for what is left, `backup` for copies, `faults` for tests.
//!
//! ```no_run
//! # async fn example(message: mta::queue::NewMessage) -> Result<(), mta::queue::QueueError> {
//! use mta::queue::{Options, Writer};
//! let (notes, _to_the_scheduler) = tokio::sync::mpsc::channel(64);
//! let opened = Writer::open("data".as_ref(), host::Clock::system(), Options::default(), notes)?;
//! let (writer, queue, _reader) = opened;
//! # let writer_thread = async move {
//! writer.run().await
//! # };
//! # drop(writer_thread);
//! # async move {
//! let id = queue.enqueue(message).await?; // Durable: now say 250.
//! # drop(id); Ok(()) }.await
//! # }
//! ```

mod actions;
mod answering;
mod apply;
mod backup;
mod climbs;
pub(crate) mod codec;
mod duplicates;
mod faults;
mod handle;
mod keys;
mod list;
mod operate;
mod options;
mod pins;
mod reader;
mod room;
mod rows;
mod segments;
mod story;
mod tables;
#[cfg(test)]
mod tests;
mod types;
mod usage;
mod writer;

pub use backup::{BackupError, backup};
pub use climbs::ClimbName;
pub use duplicates::{Fingerprint, Recent};
pub use faults::{Fault, Faults};
pub use handle::{Expected, Queue, Stats};
pub use list::{Filter, Hold, Page, Summary};
pub use operate::{Operated, Operation, Which, Wish};
pub use options::Options;
pub use reader::{Backlog, Counts, Reader, Shown, ShownDelivery};
pub use story::{EventsFound, News};
pub use tables::{Environment, Table, Tables};
pub use types::{
    Admission, DeliverBy, Fate, LISTENER_CREDENTIAL, LedgerCount, NewMessage, NewRecipient, Next, Note, Notify, Parameters,
    QueueError, RECIPIENTS_MAX, REPLY_BYTES_MAX, Recipient, RecipientFate, Ret, Settlement, StoredDelivery, StoredMessage,
    TlsWish,
};
pub use usage::{Held, OWN, Usage};
pub use writer::Writer;
