//! Events for whoever asks: a page after a number, and a wait for what comes next.
//!
//! A reader keeps the number that it has seen. It reads the table in short transactions, so it never holds up the writer;
//! a slow one is just behind, and when retention has overtaken it, it is told how much it missed.

use std::time::Duration;

use super::{
    answers::{EVENTS_WAIT_MAX, EventFilter, EventPage},
    api::{PAGE_MAX, Refusal},
    daemon::Daemon,
    explain::event_row,
    views::{blocking, queue_id, unable},
};

impl Daemon {
    /// Events after a number, or the newest.
    pub(super) async fn tell_events(&self, filter: EventFilter) -> Result<EventPage, Refusal> {
        let member = filter.member.as_deref().map(|member| self.find(member)).transpose()?.map(|member| member.id);
        let id = filter.id.as_deref().map(queue_id).transpose()?;
        let limit = filter.limit.unwrap_or(PAGE_MAX).clamp(1, PAGE_MAX);
        let wait = Duration::from_secs(filter.wait.unwrap_or(0).min(EVENTS_WAIT_MAX));
        let news = &self.parts.queue.stats().events;
        let look = |after: Option<u64>| blocking(self, move |daemon| daemon.parts.reader.events(after, member, id, limit));
        let mut found = look(filter.after).await?.map_err(unable)?;
        if let Some(after) = filter.after
            && found.events.is_empty()
            && !wait.is_zero()
        {
            let more = async {
                let mut seen = found.next.max(after);
                loop {
                    news.beyond(seen).await;
                    let page = look(Some(seen)).await?.map_err(unable)?;
                    if !page.events.is_empty() {
                        return Ok::<_, Refusal>(page);
                    }
                    // Others' news.
                    seen = page.next.max(seen);
                }
            };
            // With nothing new the page stays empty, and its cursor good.
            if let Ok(page) = tokio::time::timeout(wait, more).await {
                found = page?;
            }
        }
        let directory = self.directory.load();
        Ok(EventPage {
            missed: filter.after.map_or(0, |after| found.oldest.saturating_sub(after.saturating_add(1))),
            events: found.events.iter().map(|(number, event)| event_row(&directory, *number, event)).collect(),
            next: found.next,
            oldest: found.oldest,
            more: found.more,
        })
    }
}
