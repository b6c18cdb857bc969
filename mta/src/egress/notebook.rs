//! The notebook: what the scheduler began or ended to do by itself, on its way to the queue.
//!
//! One batch is written at a time, and tried again until it is written. What comes meanwhile waits here, within a bound.

use std::collections::HashSet;
use std::time::Duration;

use scheduler::{Change, MeasureNews, Scheduler};
use tokio::task::JoinSet;

use crate::control::metrics as names;
use crate::queue::{Queue, QueueError};

/// News that wait while the queue cannot write. Past it only the last word about each measure is kept, and what began and ended
/// meanwhile is no event: some 16,384 run at most.
const NEWS_MAX: usize = 65_536;

/// A batch that cannot be written is tried again at this pace.
const WRITE_AGAIN: Duration = Duration::from_secs(1);

/// What is not written down yet.
#[derive(Default)]
pub(super) struct Notebook {
    news: Vec<MeasureNews>,
    writing: JoinSet<()>,
}

impl Notebook {
    /// What runs from before a restart is counted.
    pub(super) fn begin(scheduler: &Scheduler) -> Self {
        for measure in scheduler.measures() {
            metrics::gauge!(names::ACTIONS, "kind" => measure.kind.as_str()).increment(1);
        }
        Self::default()
    }

    /// Takes all news.
    pub(super) fn hear(&mut self, scheduler: &mut Scheduler) {
        while let Some(news) = scheduler.poll_measures() {
            let kind = news.measure.kind.as_str();
            match &news.change {
                Change::Started => metrics::gauge!(names::ACTIONS, "kind" => kind).increment(1),
                change if change.is_end() => metrics::gauge!(names::ACTIONS, "kind" => kind).decrement(1),
                // The last word about an end that moves is enough.
                Change::Again => self.news.retain(|other| other.measure.id != news.measure.id || other.change != Change::Again),
                Change::Extended(_) | Change::Cancelled(_) | Change::Expired => {}
            }
            self.news.push(news);
        }
        if self.news.len() > NEWS_MAX {
            shorten(&mut self.news);
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

/// Keeps the last word about each measure, and none about those that began and ended here.
fn shorten(news: &mut Vec<MeasureNews>) {
    let began: HashSet<u64> = news.iter().filter(|news| news.change == Change::Started).map(|news| news.measure.id).collect();
    let mut told = HashSet::new();
    let mut last: Vec<MeasureNews> = news.drain(..).rev().filter(|news| told.insert(news.measure.id)).collect();
    last.retain(|news| !(news.change.is_end() && began.contains(&news.measure.id)));
    last.reverse();
    *news = last;
}

async fn write(queue: Queue, batch: Vec<MeasureNews>) {
    let mut said = false;
    loop {
        match queue.note_actions(batch.clone()).await {
            Ok(()) | Err(QueueError::Stopped) => return,
            Err(error) => {
                if !said {
                    tracing::error!(%error, "actions cannot be written down; trying again every second");
                    said = true;
                }
                tokio::time::sleep(WRITE_AGAIN).await;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::UNIX_EPOCH;

    use scheduler::{Measure, MeasureKind, Object};

    use super::*;

    #[test]
    fn while_nothing_can_be_written_the_last_word_about_each_is_kept() {
        let news = |id, change| MeasureNews {
            measure: Measure {
                id,
                kind: MeasureKind::LeaveSite,
                object: Object::Site("mx".into()),
                class: None,
                rule: "suspend".into(),
                cause: "".into(),
                started: UNIX_EPOCH,
                expires: UNIX_EPOCH,
                again: 0,
                window: None,
            },
            change,
        };
        let mut all = vec![
            news(1, Change::Expired),
            news(2, Change::Started),
            news(3, Change::Started),
            news(2, Change::Expired),
            news(3, Change::Again),
        ];
        shorten(&mut all);
        let left: Vec<_> = all.iter().map(|news| (news.measure.id, news.change.clone())).collect();
        // The first is on disk and has to go; the second never came there; the third is written as it is now.
        assert_eq!(left, [(1, Change::Expired), (3, Change::Again)]);
    }
}
