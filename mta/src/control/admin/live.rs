//! `GET /v1/stream`: events as they come, as server-sent events (HTML Living Standard §9.2).
//!
//! The id of each is the event's number, so that a browser that was cut off says with `Last-Event-ID` where to go on, and misses
//! nothing that is still kept; what retention has removed meanwhile is counted in an event `missed`. It is pulled: a slow reader is
//! just behind, and holds nothing up. A stream ends after [`LASTS`], so that whoever is no longer an operator does not go on
//! reading: the browser comes again by itself, and shows again who it is.

use std::convert::Infallible;
use std::fmt::Write;
use std::sync::Arc;
use std::time::Duration;

use axum::{
    body::{Body, Bytes},
    extract::{Query, State, rejection::QueryRejection},
    http::{HeaderMap, header},
    response::{IntoResponse, Response},
};
use host::deadline_in;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, timeout_at};

use super::handlers::query;
use super::{Admin, Operations};
use crate::control::api::{EventFilter, Refusal, StreamFilter};

/// Streams at the same time; the connections of one listener are four times as many.
const STREAMS_MAX: usize = 16;

/// How long one lasts.
const LASTS: Duration = Duration::from_secs(600);

/// Seconds without news before something is said, so that nobody in between takes the connection for dead.
const SILENCE_SECS: u64 = 15;

/// Between two numbers of the newest event.
const PACE: Duration = Duration::from_secs(1);

/// Events in one piece.
const AT_ONCE: usize = 200;

/// Room for streams.
#[derive(Clone)]
pub(super) struct Room(Arc<Semaphore>);

impl Default for Room {
    fn default() -> Self {
        Room(Arc::new(Semaphore::new(STREAMS_MAX)))
    }
}

struct Live<O> {
    admin: Admin<O>,
    filter: StreamFilter,
    /// None: nothing was said yet.
    seen: Option<u64>,
    until: Instant,
    is_first: bool,
    _place: OwnedSemaphorePermit,
}

/// The handler.
pub(super) async fn stream<O: Operations>(
    State(admin): State<Admin<O>>,
    head: HeaderMap,
    filter: Result<Query<StreamFilter>, QueryRejection>,
) -> Result<Response, Refusal> {
    let filter = query(filter)?;
    let full = |_| Refusal::Unable(format!("{STREAMS_MAX} streams are open already; close one, or ask /v1/events"));
    let place = admin.room.0.clone().try_acquire_owned().map_err(full)?;
    let last = match head.get("last-event-id") {
        None => filter.after,
        Some(last) => {
            let last = last.to_str().ok().and_then(|last| last.trim().parse().ok());
            Some(last.ok_or_else(|| Refusal::Wrong("Last-Event-ID is no number of an event".to_owned()))?)
        }
    };
    let mut live = Live { admin, filter, seen: last, until: deadline_in(LASTS), is_first: true, _place: place };
    if live.seen.is_none() {
        // A wrong filter is told now, and not by a stream that ends.
        live.seen = Some(live.admin.operations.events(EventFilter { limit: Some(1), ..live.wanted() }).await?.next);
    }
    let pieces = futures_util::stream::unfold(live, |mut live| async move {
        let piece = live.next().await?;
        Some((Ok::<_, Infallible>(Bytes::from(piece)), live))
    });
    Ok(([(header::CONTENT_TYPE, "text/event-stream")], Body::from_stream(pieces)).into_response())
}

impl<O: Operations> Live<O> {
    async fn next(&mut self) -> Option<String> {
        if std::mem::take(&mut self.is_first) {
            return Some(format!("retry: 2000\nid: {}\n\n", self.seen.unwrap_or(0)));
        }
        let until = self.until;
        let piece =
            if self.filter.news_only { timeout_at(until, self.news()).await } else { timeout_at(until, self.page()).await };
        piece.ok()?
    }

    fn wanted(&self) -> EventFilter {
        let StreamFilter { member, id, .. } = self.filter.clone();
        EventFilter { after: self.seen, limit: Some(AT_ONCE), member, id, wait: None }
    }

    async fn page(&mut self) -> Option<String> {
        let wanted = EventFilter { wait: Some(SILENCE_SECS), ..self.wanted() };
        let page = self.admin.operations.events(wanted).await.ok()?;
        let mut piece = String::new();
        if page.missed > 0 {
            let _ = write!(piece, "event: missed\ndata: {{\"missed\":{}}}\n\n", page.missed);
        }
        for event in &page.events {
            // Without line breaks, as serde writes it.
            let data = serde_json::to_string(event).ok()?;
            let _ = write!(piece, "id: {}\nevent: {}\ndata: {data}\n\n", event.number, event.what);
        }
        self.seen = Some(page.next);
        if page.events.is_empty() {
            // Of others: an id without data is remembered and not told.
            let _ = write!(piece, ": nothing new\nid: {}\n\n", page.next);
        }
        Some(piece)
    }

    async fn news(&mut self) -> Option<String> {
        let seen = self.seen.unwrap_or(0);
        let newest = self.admin.operations.newest_event(seen, Duration::from_secs(SILENCE_SECS)).await.ok()?;
        if newest <= seen {
            return Some(": nothing new\n\n".to_owned());
        }
        self.seen = Some(newest);
        // The next one not before that; what comes meanwhile is in it.
        tokio::time::sleep(PACE).await;
        Some(format!("id: {newest}\nevent: news\ndata: {{\"newest\":{newest}}}\n\n"))
    }
}
