//! What the scheduler decides about warmup, on its way to the queue: one batch at a time, tried again until it is written. What
//! waits is bounded: of rows the last word of each climb is kept, and of steps the last ones.

use scheduler::Scheduler;
use scheduler::warmup::ClimbNews;

use super::outbox::Outbox;
use crate::queue::Queue;

/// Steps that wait while the queue cannot write; past it the oldest are dropped.
const STEPS_MAX: usize = 16_384;

/// What is not written down yet.
#[derive(Default)]
pub(super) struct Climbs(Outbox<ClimbNews>);

impl Climbs {
    /// Takes all news.
    pub(super) fn hear(&mut self, scheduler: &mut Scheduler) {
        while let Some(news) = scheduler.poll_warmup() {
            match &news.step {
                Some(step) => tracing::info!(
                    source = %news.row.source,
                    provider = %news.row.provider,
                    state = %news.row.climb.state,
                    stage = news.row.climb.stage + 1,
                    rule = step.rule.as_str(),
                    reason = %step.reason,
                    by = step.by.as_deref(),
                    "warmup"
                ),
                // Without a step only the last word counts.
                None => self.0.news.retain(|other| {
                    other.step.is_some() || other.row.source != news.row.source || other.row.provider != news.row.provider
                }),
            }
            self.0.news.push(news);
        }
        if self.0.news.len() > STEPS_MAX {
            self.0.news.drain(..self.0.news.len() - STEPS_MAX);
        }
    }

    /// Hands over what waits, unless a batch is on its way.
    pub(super) fn flush(&mut self, queue: &Queue) {
        let queue = queue.clone();
        self.0.flush("steps of warmup", move |batch| {
            let queue = queue.clone();
            async move { queue.note_climbs(batch).await }
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
