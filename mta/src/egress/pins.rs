//! Which source a greylisted delivery stays with, on its way from the scheduler to the queue: one batch at a time, tried again until it
//! is written. What waits is bounded.

use scheduler::{Pinned, Scheduler};

use super::outbox::Outbox;
use crate::queue::Queue;

/// News that wait while the queue cannot write. Past it the oldest are dropped: after a restart those deliveries may come from
/// another source, and wait once more.
const NEWS_MAX: usize = 32_768;

/// What is not written down yet.
#[derive(Default)]
pub(super) struct Pins(Outbox<Pinned>);

impl Pins {
    /// Takes all news.
    pub(super) fn hear(&mut self, scheduler: &mut Scheduler) {
        while let Some(news) = scheduler.poll_pins() {
            self.0.news.push(news);
        }
        if self.0.news.len() > NEWS_MAX {
            self.0.news.drain(..self.0.news.len() - NEWS_MAX);
        }
    }

    /// Hands over what waits, unless a batch is on its way.
    pub(super) fn flush(&mut self, queue: &Queue) {
        let queue = queue.clone();
        self.0.flush("the sources that deliveries stay with", move |batch| {
            let queue = queue.clone();
            async move { queue.note_pins(batch).await }
        });
    }

    /// Waits for a batch to be written; never without one.
    pub(super) async fn written(&mut self) -> Option<()> {
        self.0.written().await
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}
