//! The notebook: what the scheduler began or ended to do by itself, on its way to the queue.
//!
//! One batch is written at a time, and tried again until it is written. What comes meanwhile waits here, within a bound.

use std::collections::HashSet;

use scheduler::{Change, MeasureNews, Scheduler};

use super::outbox::Outbox;
use crate::control::metrics as names;
use crate::queue::Queue;

/// News that wait while the queue cannot write. Past it only the last word about each measure is kept, and what began and ended
/// meanwhile is no event: some 16,384 run at most.
const NEWS_MAX: usize = 65_536;

/// What is not written down yet.
#[derive(Default)]
pub(super) struct Notebook(Outbox<MeasureNews>);

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
                Change::Again => self.0.news.retain(|other| other.measure.id != news.measure.id || other.change != Change::Again),
                Change::Extended(_) | Change::Cancelled(_) | Change::Expired => {}
            }
            self.0.news.push(news);
        }
        if self.0.news.len() > NEWS_MAX {
            shorten(&mut self.0.news);
        }
    }

    /// Hands over what waits, unless a batch is on its way.
    pub(super) fn flush(&mut self, queue: &Queue) {
        let queue = queue.clone();
        self.0.flush("actions", move |batch| {
            let queue = queue.clone();
            async move { queue.note_actions(batch).await }
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

/// Keeps the last word about each measure, and none about those that began and ended here.
fn shorten(news: &mut Vec<MeasureNews>) {
    let began: HashSet<u64> = news.iter().filter(|news| news.change == Change::Started).map(|news| news.measure.id).collect();
    let mut told = HashSet::new();
    let mut last: Vec<MeasureNews> = news.drain(..).rev().filter(|news| told.insert(news.measure.id)).collect();
    last.retain(|news| !(news.change.is_end() && began.contains(&news.measure.id)));
    last.reverse();
    *news = last;
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
