//! An outbox: news from the scheduler on its way to the queue. One batch is written at a time, and tried again until it is
//! written; what comes meanwhile waits.
//!
//! Not here: which news is kept when too much waits; that is for whoever puts it in.

use std::time::Duration;

use tokio::task::JoinSet;

use crate::queue::QueueError;

/// A batch that cannot be written is tried again at this pace.
const WRITE_AGAIN: Duration = Duration::from_secs(1);

/// What is not written down yet.
pub(super) struct Outbox<T> {
    /// What waits. Its owner bounds it.
    pub(super) news: Vec<T>,
    writing: JoinSet<()>,
}

impl<T> Default for Outbox<T> {
    fn default() -> Self {
        Outbox { news: Vec::new(), writing: JoinSet::new() }
    }
}

impl<T: Clone + 'static> Outbox<T> {
    /// Hands over what waits, unless a batch is on its way. `what` it is, for the log.
    pub(super) fn flush<W>(&mut self, what: &'static str, write: impl Fn(Vec<T>) -> W + 'static)
    where
        W: Future<Output = Result<(), QueueError>> + 'static,
    {
        if self.writing.is_empty() && !self.news.is_empty() {
            self.writing.spawn_local(deliver(what, std::mem::take(&mut self.news), write));
        }
    }

    /// Waits for a batch to be written; never without one.
    pub(super) async fn written(&mut self) -> Option<()> {
        self.writing.join_next().await.map(drop)
    }

    /// Nothing waits, and nothing is on its way.
    pub(super) fn is_empty(&self) -> bool {
        self.writing.is_empty() && self.news.is_empty()
    }
}

async fn deliver<T: Clone, W>(what: &'static str, batch: Vec<T>, write: impl Fn(Vec<T>) -> W)
where
    W: Future<Output = Result<(), QueueError>>,
{
    let mut said = false;
    loop {
        match write(batch.clone()).await {
            Ok(()) | Err(QueueError::Stopped) => return,
            Err(error) => {
                if !said {
                    tracing::error!(%error, "{what} cannot be written down; trying again every second");
                    said = true;
                }
                tokio::time::sleep(WRITE_AGAIN).await;
            }
        }
    }
}
