//! `com.atproto.label.subscribeLabels`: the log as a stream of frames.
//!
//! | cursor | what comes |
//! |---|---|
//! | none | what is issued from now on |
//! | 0 | everything that is kept, then what is new |
//! | a number that was sent | that frame again (spec: "greater or equal"), what came after, what is new |
//! | older than what was forgotten | `#info` `OutdatedCursor`, then everything from there on that is kept |
//! | beyond the last number | error `FutureCursor`, and the end |
//!
//! A stream reads the log a page at a time and holds no queue: who reads slowly is simply behind, and costs a page. Who takes nothing for
//! [`Patience::stall`] is told `ConsumerTooSlow` and let go. Who is silent is pinged, and let go when that is not answered either.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use atproto::stream::{CONSUMER_TOO_SLOW, FUTURE_CURSOR, OUTDATED_CURSOR, error_frame, info_frame};
use axum::extract::ws::rejection::WebSocketUpgradeRejection;
use axum::extract::ws::{CloseFrame, Message, WebSocket, WebSocketUpgrade, close_code};
use axum::extract::{RawQuery, State};
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::Response;
use axum::{Error, Extension};
use bytes::Bytes;
use futures_util::{FutureExt, Sink, SinkExt, Stream, StreamExt};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::time::timeout;

use super::front::{Asker, network};
use super::{Answers, error};
use crate::config::Serve;
use crate::store::Store;

/// A subscriber says nothing of length.
const READ_BUFFER_BYTES: usize = 1 << 10;
const MESSAGE_BYTES_MAX: usize = 4 << 10;
/// Frames are gathered into writes of this size. A thousand subscribers have a thousand of it.
const WRITE_BUFFER_BYTES: usize = 16 << 10;
/// For the last words.
const FAREWELL_MAX: Duration = Duration::from_secs(2);

/// What is put up with.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Patience {
    /// For a page of frames to be taken.
    pub(crate) stall: Duration,
    /// Without anything to send, until a ping.
    pub(crate) ping: Duration,
    /// Pings in a row that nothing came back after.
    pub(crate) pings: u32,
}

const PATIENCE: Patience = Patience { stall: Duration::from_secs(30), ping: Duration::from_secs(30), pings: 2 };

/// Who is subscribed, and how many may be.
pub(crate) struct Subscribers {
    room: Arc<Semaphore>,
    max: u32,
    of_address: Arc<Mutex<HashMap<IpAddr, u32>>>,
    of_address_max: u32,
    stop: watch::Receiver<bool>,
}

/// A place among the subscribers, free again when dropped.
struct Place {
    address: IpAddr,
    of_address: Arc<Mutex<HashMap<IpAddr, u32>>>,
    _room: OwnedSemaphorePermit,
}

impl Subscribers {
    pub(super) fn new(settings: &Serve, stop: watch::Receiver<bool>) -> Self {
        let max = settings.subscribers_max;
        let room = Arc::new(Semaphore::new(usize::try_from(max).unwrap_or(usize::MAX)));
        Self { room, max, of_address: Arc::default(), of_address_max: settings.subscriptions_per_address, stop }
    }

    fn place(&self, asker: Asker) -> Option<Place> {
        let room = self.room.clone().try_acquire_owned().ok()?;
        let address = network(asker.0);
        let mut of_address = self.of_address.lock().unwrap_or_else(PoisonError::into_inner);
        let count = of_address.entry(address).or_default();
        if *count >= self.of_address_max {
            return None;
        }
        *count += 1;
        Some(Place { address, of_address: self.of_address.clone(), _room: room })
    }

    /// How many there are, for who wants to know later.
    pub(crate) fn count(&self) -> impl Fn() -> u64 + Send + Sync + 'static {
        let (room, max) = (self.room.clone(), u64::from(self.max));
        move || max.saturating_sub(room.available_permits() as u64)
    }

    /// Returns when the last one has gone.
    pub(super) async fn gone(&self) {
        let _ = self.room.acquire_many(self.max).await;
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut of_address = self.of_address.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = of_address.get_mut(&self.address) {
            *count -= 1;
            if *count == 0 {
                of_address.remove(&self.address);
            }
        }
    }
}

pub(super) async fn subscribe_labels(
    State(answers): State<Arc<Answers>>,
    Extension(asker): Extension<Asker>,
    RawQuery(query): RawQuery,
    upgrade: Result<WebSocketUpgrade, WebSocketUpgradeRejection>,
) -> Response {
    let cursor = match cursor(query.as_deref().unwrap_or_default()) {
        Ok(cursor) => cursor,
        Err(why) => return error(StatusCode::BAD_REQUEST, "InvalidRequest", why),
    };
    let Ok(upgrade) = upgrade else {
        // RFC 9110 §15.5.22.
        let mut response = error(StatusCode::UPGRADE_REQUIRED, "InvalidRequest", "this is a stream over a WebSocket");
        response.headers_mut().insert(header::UPGRADE, HeaderValue::from_static("websocket"));
        response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
        return response;
    };
    let Some(place) = answers.subscribers.place(asker) else {
        return error(StatusCode::TOO_MANY_REQUESTS, "RateLimitExceeded", "too many streams, of this address or of all");
    };
    let (store, mut stop) = (answers.store.clone(), answers.subscribers.stop.clone());
    upgrade
        .read_buffer_size(READ_BUFFER_BYTES)
        .write_buffer_size(WRITE_BUFFER_BYTES)
        .max_write_buffer_size(4 * WRITE_BUFFER_BYTES)
        .max_message_size(MESSAGE_BYTES_MAX)
        .max_frame_size(MESSAGE_BYTES_MAX)
        .on_upgrade(move |mut socket: WebSocket| async move {
            let end = tokio::select! {
                biased;
                _ = stop.wait_for(|stop| *stop) => End::Stopping,
                end = follow(&mut socket, &store, cursor, PATIENCE) => end,
            };
            // The store is let go first: whoever stops us may open it again.
            drop(store);
            let _ = timeout(FAREWELL_MAX, farewell(&mut socket, end)).await;
            drop(place);
        })
}

/// The only parameter.
fn cursor(query: &str) -> Result<Option<u64>, &'static str> {
    match url::form_urlencoded::parse(query.as_bytes()).find(|(name, _)| name == "cursor") {
        Some((_, value)) => value.parse().map(Some).map_err(|_| "cursor is a number of a frame"),
        None => Ok(None),
    }
}

/// Why a stream ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    Future,
    TooSlow,
    Stopping,
    /// The store cannot be read.
    Store,
    /// The subscriber is gone, or might as well be.
    Gone,
}

async fn farewell<S: Sink<Message, Error = Error> + Unpin>(socket: &mut S, end: End) -> Result<(), Error> {
    let (code, error) = match end {
        End::Future => (close_code::POLICY, Some((FUTURE_CURSOR, "the cursor is beyond everything that was sent"))),
        End::TooSlow => (close_code::POLICY, Some((CONSUMER_TOO_SLOW, "the stream is not read fast enough"))),
        End::Stopping => (close_code::AWAY, None),
        End::Store => (close_code::ERROR, Some(("InternalServerError", "the labels cannot be read"))),
        End::Gone => return Ok(()),
    };
    if let Some((name, message)) = error {
        socket.send(Message::Binary(error_frame(name, message).into())).await?;
    }
    socket.send(Message::Close(Some(CloseFrame { code, reason: error.map_or("", |(name, _)| name).into() }))).await
}

/// Sends until the subscriber, or its patience, is at an end.
async fn follow<S>(socket: &mut S, store: &Store, cursor: Option<u64>, patience: Patience) -> End
where
    S: Stream<Item = Result<Message, Error>> + Sink<Message, Error = Error> + Unpin,
{
    let mut news = store.news();
    let (last, Ok(floor)) = (*news.borrow_and_update(), store.floor()) else { return End::Store };
    let mut next = match cursor {
        None => last + 1,
        Some(cursor) if cursor > last => return End::Future,
        Some(cursor) => cursor,
    };
    if next > 0 && next <= floor {
        let info = info_frame(OUTDATED_CURSOR, "newer labels have superseded some that were sent since; those are gone");
        if socket.send(Message::Binary(info.into())).await.is_err() {
            return End::Gone;
        }
    }
    let mut unanswered = 0;
    loop {
        // What the subscriber has said meanwhile; pings are answered by the socket itself.
        while let Some(said) = socket.next().now_or_never() {
            match said {
                Some(Ok(Message::Close(_)) | Err(_)) | None => return End::Gone,
                Some(Ok(_)) => unanswered = 0,
            }
        }
        let page = match store.frames(next) {
            Ok(page) => page,
            Err(why) => {
                tracing::error!(error = %why, "cannot read the log of labels");
                return End::Store;
            }
        };
        if page.frames.is_empty() {
            match wait(socket, &mut news, &mut unanswered, patience).await {
                Ok(()) => {}
                Err(end) => return end,
            }
            continue;
        }
        match timeout(patience.stall, send(socket, &page.frames)).await {
            Ok(Ok(())) => next = page.next,
            Ok(Err(_)) => return End::Gone,
            Err(_) => return End::TooSlow,
        }
    }
}

async fn send<S: Sink<Message, Error = Error> + Unpin>(socket: &mut S, frames: &[Bytes]) -> Result<(), Error> {
    for frame in frames {
        socket.feed(Message::Binary(frame.clone())).await?;
    }
    socket.flush().await
}

/// Until there is news, or the subscriber has said something, or it was time for a ping.
async fn wait<S>(socket: &mut S, news: &mut watch::Receiver<u64>, unanswered: &mut u32, patience: Patience) -> Result<(), End>
where
    S: Stream<Item = Result<Message, Error>> + Sink<Message, Error = Error> + Unpin,
{
    tokio::select! {
        changed = news.changed() => changed.map_err(|_| End::Gone),
        said = socket.next() => match said {
            Some(Ok(Message::Close(_)) | Err(_)) | None => Err(End::Gone),
            Some(Ok(_)) => {
                *unanswered = 0;
                Ok(())
            }
        },
        () = tokio::time::sleep(patience.ping) => {
            if *unanswered >= patience.pings {
                return Err(End::Gone);
            }
            *unanswered += 1;
            match timeout(patience.stall, socket.send(Message::Ping(Bytes::new()))).await {
                Ok(sent) => sent.map_err(|_| End::Gone),
                Err(_) => Err(End::TooSlow),
            }
        }
    }
}

#[cfg(test)]
#[path = "subscribe_tests.rs"]
mod tests;
