//! What the scheduler decides about warmup, on its way to the queue: one batch at a time, tried again until it is written. What
//! waits is bounded: of rows the last word of each climb is kept, and of steps the last ones.

use std::time::Duration;

use scheduler::Scheduler;
use scheduler::warmup::ClimbNews;
use tokio::task::JoinSet;

use crate::queue::{Queue, QueueError};

/// Steps that wait while the queue cannot write; past it the oldest are dropped.
const STEPS_MAX: usize = 16_384;

/// A batch that cannot be written is tried again at this pace.
const WRITE_AGAIN: Duration = Duration::from_secs(1);

/// What is not written down yet.
#[derive(Default)]
pub(super) struct Climbs {
    news: Vec<ClimbNews>,
    writing: JoinSet<()>,
}

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
                    "warmup"
                ),
                // Without a step only the last word counts.
                None => self.news.retain(|other| {
                    other.step.is_some() || other.row.source != news.row.source || other.row.provider != news.row.provider
                }),
            }
            self.news.push(news);
        }
        if self.news.len() > STEPS_MAX {
            self.news.drain(..self.news.len() - STEPS_MAX);
        }
    }

    /// Hands over what waits, unless a batch is on its way.
    pub(super) fn flush(&mut self, queue: &Queue) {
        if self.writing.is_empty() && !self.news.is_empty() {
            self.writing.spawn_local(write(queue.clone(), std::mem::take(&mut self.news)));
        }
    }

    /// Waits for a batch to be written; never without one.
    pub(super) async fn written(&mut self) -> Option<()> {
        self.writing.join_next().await.map(drop)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.writing.is_empty() && self.news.is_empty()
    }
}

async fn write(queue: Queue, batch: Vec<ClimbNews>) {
    let mut said = false;
    loop {
        match queue.note_climbs(batch.clone()).await {
            Ok(()) | Err(QueueError::Stopped) => return,
            Err(error) => {
                if !said {
                    tracing::error!(%error, "steps of warmup cannot be written down; trying again every second");
                    said = true;
                }
                tokio::time::sleep(WRITE_AGAIN).await;
            }
        }
    }
}
