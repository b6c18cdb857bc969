//! What the scheduler decides about warmup, on its way to the queue: one batch at a time, tried again until it is written. What
//! waits is bounded: of rows the last word of each climb is kept, and of steps the last ones.

use scheduler::Scheduler;
use scheduler::warmup::{ClimbNews, ClimbRow, Rule, Step};

use super::outbox::Outbox;
use crate::control::metrics as names;
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
            if news.over > 0 {
                let (source, provider) = (news.row.source.to_string(), news.row.provider.to_string());
                metrics::counter!(names::WARMUP_OVER, "source" => source, "provider" => provider).increment(news.over);
            }
            match &news.step {
                Some(step) => tell(&news.row, step),
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

/// An event: its line in the log, and its count. What needs a person is a warning.
fn tell(row: &ClimbRow, step: &Step) {
    let (source, provider, rule) = (row.source.to_string(), row.provider.to_string(), step.rule.as_str());
    metrics::counter!(names::WARMUP_STEPS, "source" => source, "provider" => provider, "rule" => rule).increment(1);
    let Step { reason, by, from, to, allowance, figures, .. } = step;
    macro_rules! line {
        ($level:ident, $says:literal) => {
            tracing::$level!(
                source = %row.source,
                provider = %row.provider,
                rule,
                %reason,
                by = by.as_deref(),
                state_before = %from.0,
                state = %to.0,
                stage_before = from.1 + 1,
                stage = to.1 + 1,
                allowance,
                spent = figures.spent,
                over = figures.over,
                tried = figures.tried,
                deferred = figures.deferred,
                refused = figures.refused,
                unknown = figures.unknown,
                complained = figures.complained,
                $says
            )
        };
    }
    match step.rule {
        Rule::Over => line!(warn, "warmup: more than the allowance was sent"),
        _ => line!(info, "warmup"),
    }
}
