//! The operator's listener: `/metrics` for Prometheus, `/healthz`. Not public, so it has an address of its own.
//!
//! What happens is counted where it happens, by relaxed atomics ([`Counts`]); whatever has a state (store, streams, subscribers) is
//! looked at when somebody scrapes. Labels are counted by who reads the log, as subscribers do: whatever issues one, it is counted once.
//! Without `[admin]` nothing of it runs but the atomics.

mod counts;
mod metrics;
mod settings;
#[cfg(test)]
mod tests;

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use atproto::stream::{Frame, read};
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::{Router, routing::get};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tower::ServiceExt;
use url::Url;

pub(crate) use counts::{Asked, Counted, Counts};
pub use metrics::{Kind, Metric, TABLE, page};
pub use settings::Admin;

use crate::ingest;
use crate::serve;
use crate::store::Store;

/// Whoever scrapes, and a person or two.
const CONNECTIONS_MAX: usize = 16;
/// Between two looks at how far streams are read.
const LOOK_EVERY: Duration = Duration::from_secs(5);
/// After the store has refused something.
const STORE_RETRY: Duration = Duration::from_secs(5);

/// What is shown.
pub(crate) struct Instruments {
    pub(crate) store: Arc<Store>,
    pub(crate) counts: Arc<Counts>,
    /// Each resolver with its name.
    pub(crate) resolvers: Vec<(String, Arc<Asked>)>,
    /// Streams open now.
    pub(crate) subscribers: Box<dyn Fn() -> u64 + Send + Sync>,
    pub(crate) streams: Mutex<Vec<Stream>>,
    pub(crate) clock: fn() -> SystemTime,
}

/// A stream that is read, and how far.
pub(crate) struct Stream {
    /// `firehose` or `jetstream`.
    pub(crate) name: &'static str,
    pub(crate) url: Url,
    /// The cursor is the time of the event, in microseconds since 1970.
    pub(crate) is_time: bool,
    /// The cursor as it was last written down, and since when it is that.
    pub(crate) at: Option<i64>,
    pub(crate) since: SystemTime,
}

impl Stream {
    /// One that nobody has looked at yet.
    pub(crate) fn new(kind: ingest::Kind, url: &Url, now: SystemTime) -> Self {
        let name = if kind == ingest::Kind::Firehose { "firehose" } else { "jetstream" };
        Self { name, url: url.clone(), is_time: kind == ingest::Kind::Jetstream, at: None, since: now }
    }
}

impl Instruments {
    fn look_at_streams(&self) {
        let now = (self.clock)();
        let mut streams = self.streams.lock().unwrap_or_else(PoisonError::into_inner);
        for stream in streams.iter_mut() {
            // A store that cannot be read is told by who needs it more.
            let Ok(at) = self.store.cursor(stream.url.as_str()) else { continue };
            if at != stream.at {
                (stream.at, stream.since) = (at, now);
            }
        }
    }

    /// Counts labels as they are issued.
    async fn follow_labels(&self) -> std::convert::Infallible {
        let mut news = self.store.news();
        let mut next = *news.borrow_and_update() + 1;
        loop {
            match self.store.frames(next) {
                Ok(page) if page.frames.is_empty() => {
                    // The sender lives in the store, which is ours.
                    let _ = news.changed().await;
                }
                Ok(page) => {
                    for frame in &page.frames {
                        let Ok(Frame::Labels { labels, .. }) = read(frame) else { continue };
                        labels.iter().flatten().for_each(|label| self.counts.label(&label.val, label.negates()));
                    }
                    next = page.next;
                }
                Err(error) => {
                    tracing::warn!(%error, "labels are not counted for now");
                    tokio::time::sleep(STORE_RETRY).await;
                }
            }
        }
    }
}

/// Serves until told to stop.
pub(crate) async fn run(listener: TcpListener, instruments: Arc<Instruments>, mut stop: watch::Receiver<bool>) {
    let router =
        Router::new().route("/metrics", get(scrape)).route("/healthz", get(async || "ok")).with_state(instruments.clone());
    let answer = move |_, request: axum::http::Request<hyper::body::Incoming>| router.clone().oneshot(request);
    let looks = async {
        loop {
            instruments.look_at_streams();
            tokio::time::sleep(LOOK_EVERY).await;
        }
    };
    let served = stop.clone();
    tokio::select! {
        _ = stop.wait_for(|stop| *stop) => {}
        () = looks => {}
        _ = instruments.follow_labels() => {}
        () = serve::accept_all(listener, CONNECTIONS_MAX, served, answer) => {}
    }
}

async fn scrape(State(instruments): State<Arc<Instruments>>) -> Response {
    // A scan of what is due, and pages that may lie on the disk.
    match tokio::task::spawn_blocking(move || metrics::render(&instruments)).await {
        Ok(Ok(text)) => ([(header::CONTENT_TYPE, "text/plain; version=0.0.4")], text).into_response(),
        Ok(Err(error)) => {
            tracing::error!(%error, "cannot show metrics");
            (StatusCode::INTERNAL_SERVER_ERROR, "the store cannot be read").into_response()
        }
        Err(panic) => std::panic::resume_unwind(panic.into_panic()),
    }
}
