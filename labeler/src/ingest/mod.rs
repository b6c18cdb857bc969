//! Watching for attestations: a firehose, a Jetstream, or both.
//!
//! Both are hints of where to look: nothing they say is believed, everything is fetched again with its proof. What is seen is written down together with how
//! far the stream was read, so that a crash repeats and loses nothing. A stream that breaks off is taken up where it was, after a pause that doubles.
//!
//! Of a stranger's repository whose state the stream does not spell out (`#sync`, `tooBig`) nobody knows whether it attests anything. It is looked into
//! with the newcomers, so many an hour (`strangers`), and whoever is passed over is found by the list of a relay later.
//!
//! A stream that is read for the first time is read from the oldest event that it still has. Attestations older than that, and those that a stream
//! has forgotten while we were away, are found by the list of a relay (`backfill`).

mod backfill;
pub(crate) mod jetstream;
mod strangers;

use std::sync::Arc;
use std::time::Duration;

use atproto::firehose::{self, Change, FRAME_BYTES_MAX, Frame};
use atproto::lexicon::ATTESTATION;
use futures_util::{SinkExt, StreamExt};
use rustls::ClientConfig;
use tokio::sync::{Notify, watch};
use tokio::time::{MissedTickBehavior, interval, sleep, timeout};
use tokio_tungstenite::tungstenite::http::Response;
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;
use tokio_tungstenite::tungstenite::{Error as Refused, Message};
use tokio_tungstenite::{Connector, connect_async_tls_with_config};
use url::Url;

pub(crate) use backfill::Backfilling;
pub(crate) use jetstream::V2 as JETSTREAM_V2;
pub(crate) use strangers::Strangers;

use crate::outside;
use crate::store::{Store, StoreError, Touch};

const CONNECT_MAX: Duration = Duration::from_secs(15);
const PAUSE_FIRST: Duration = Duration::from_millis(250);
const PAUSE_LAST: Duration = Duration::from_secs(60);
/// How often the place in the stream is written down when there was nothing for us, and the server pinged.
const TICK: Duration = Duration::from_secs(5);
/// Without a sign of life (our pings are answered) for so long, the connection is dead.
const SILENCE_MAX: Duration = Duration::from_secs(30);

/// What kind of stream it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// `com.atproto.sync.subscribeRepos`.
    Firehose,
    /// Jetstream version 1: JSON, the cursor in microseconds.
    Jetstream,
    /// Jetstream version 2: JSON in frames, the cursor a number.
    JetstreamV2,
}

impl Kind {
    /// Of a Jetstream, by its URL's path.
    pub(crate) fn of_jetstream(url: &Url) -> Self {
        if url.path() == jetstream::V2 { Self::JetstreamV2 } else { Self::Jetstream }
    }
}

/// One stream and where its hints go.
pub(crate) struct Ingest {
    pub(crate) kind: Kind,
    pub(crate) url: Url,
    pub(crate) store: Arc<Store>,
    pub(crate) bell: Arc<Notify>,
    /// Rung when the stream has forgotten what we did not read.
    pub(crate) missed: Arc<Notify>,
    pub(crate) tls: Arc<ClientConfig>,
    pub(crate) strangers: Strangers,
}

/// What one message says.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Seen {
    Event { cursor: i64, touched: Vec<Touch> },
    Info(String),
    Error(String),
    Nothing,
}

#[derive(Debug, thiserror::Error)]
enum Broken {
    #[error("{0}")]
    Stream(String),
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl Ingest {
    pub(crate) async fn run(mut self, mut stop: watch::Receiver<bool>) {
        let mut pause = PAUSE_FIRST;
        loop {
            let began = outside::moment();
            tokio::select! {
                _ = stop.changed() => return,
                Err(why) = self.watch() => tracing::warn!(url = %self.url, %why, "the stream broke off; it is taken up again"),
            }
            // A stream that held for a while earns a quick return.
            pause = if began.elapsed() > PAUSE_LAST { PAUSE_FIRST } else { (pause * 2).min(PAUSE_LAST) };
            tokio::select! {
                _ = stop.changed() => return,
                () = sleep(pause) => {}
            }
        }
    }

    /// Reads the stream until it breaks.
    async fn watch(&mut self) -> Result<std::convert::Infallible, Broken> {
        let mut written = self.store.cursor(self.url.as_str())?;
        let limits = WebSocketConfig::default().max_message_size(Some(FRAME_BYTES_MAX)).max_frame_size(Some(FRAME_BYTES_MAX));
        let tls = Connector::Rustls(self.tls.clone());
        let url = self.address(written);
        let connecting = connect_async_tls_with_config(url.as_str(), Some(limits), true, Some(tls));
        let (mut socket, _) = match timeout(CONNECT_MAX, connecting).await.map_err(broken)? {
            Err(Refused::Http(answer)) if written.is_some() && is_too_old(&answer) => {
                // Only version 2 of Jetstream says so here: what came after our place is forgotten.
                self.store.set_cursor(self.url.as_str(), None)?;
                self.missed.notify_one();
                return Err(Broken::Stream("the server has forgotten what came after our cursor".into()));
            }
            connected => connected.map_err(broken)?,
        };
        tracing::info!(url = %self.url, cursor = written, "watching");
        let mut seen = written;
        let mut heard = outside::moment();
        let mut tick = interval(TICK);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                message = socket.next() => {
                    heard = outside::moment();
                    let message = message.ok_or_else(|| Broken::Stream("the server closed".into()))?.map_err(broken)?;
                    match self.read(&message) {
                        // Cursors of version 2 are inclusive: the last one comes again.
                        Seen::Event { cursor, .. } if self.kind == Kind::JetstreamV2 && seen.is_some_and(|seen| cursor <= seen) => {}
                        Seen::Event { cursor, touched } => {
                            seen = Some(cursor);
                            if self.note(touched, cursor).await? {
                                written = seen;
                            }
                        }
                        Seen::Info(name) => {
                            tracing::warn!(url = %self.url, name, "the stream remarks");
                            if name == "OutdatedCursor" && written.is_some() {
                                self.missed.notify_one();
                            }
                        }
                        Seen::Error(name) => {
                            if name == "FutureCursor" {
                                // The server was reset: its numbers are not ours. From the beginning; what was seen before is only looked at again.
                                self.store.set_cursor(self.url.as_str(), None)?;
                                self.missed.notify_one();
                            }
                            return Err(Broken::Stream(format!("the server says {name}")));
                        }
                        Seen::Nothing => {}
                    }
                }
                _ = tick.tick() => {
                    if heard.elapsed() > SILENCE_MAX {
                        return Err(Broken::Stream("no sign of life".into()));
                    }
                    socket.send(Message::Ping(bytes::Bytes::new())).await.map_err(broken)?;
                    if seen != written {
                        self.store.set_cursor(self.url.as_str(), seen)?;
                        written = seen;
                    }
                }
            }
        }
    }

    /// Writes down what is worth a look; true when the cursor was written with it.
    async fn note(&mut self, mut touched: Vec<Touch>, cursor: i64) -> Result<bool, Broken> {
        let (mut known, now) = (Ok(()), outside::now());
        touched.retain(|touch| {
            let worth = match touch {
                Touch::Record(..) => Ok(true),
                Touch::Account(did) => self.store.knows(did),
                Touch::Repo(did) => self.store.attests(did).map(|attests| attests || self.strangers.take(now)),
            };
            worth.unwrap_or_else(|error| {
                known = Err(error);
                false
            })
        });
        known?;
        if self.strangers.is_list_wanted(now) {
            tracing::warn!(url = %self.url, "so many repositories of strangers have changed that some were passed over; the list is read again");
            self.missed.notify_one();
        }
        if touched.is_empty() {
            return Ok(false);
        }
        let (store, stream) = (self.store.clone(), self.url.to_string());
        let noted = tokio::task::spawn_blocking(move || store.touch(&touched, Some((&stream, cursor)), now)).await;
        for refused in noted.unwrap_or_else(|panic| std::panic::resume_unwind(panic.into_panic()))? {
            tracing::warn!(refused, "not looked at");
        }
        self.bell.notify_one();
        Ok(true)
    }

    /// The URL with the cursor, and with the path and filters that the kind needs.
    fn address(&self, cursor: Option<i64>) -> Url {
        let mut url = self.url.clone();
        match self.kind {
            Kind::Firehose => {
                if matches!(url.path(), "" | "/") {
                    url.set_path("/xrpc/com.atproto.sync.subscribeRepos");
                }
                url.query_pairs_mut().append_pair("cursor", &cursor.unwrap_or(0).to_string());
            }
            Kind::Jetstream => jetstream::ask_v1(&mut url, cursor),
            Kind::JetstreamV2 => jetstream::ask_v2(&mut url, cursor),
        }
        url
    }

    fn read(&self, message: &Message) -> Seen {
        match (self.kind, message) {
            (Kind::Firehose, Message::Binary(octets)) => match firehose::read(octets, ATTESTATION) {
                Ok(Frame::Event { seq, did, change }) => {
                    let touched = match change {
                        Change::Records(rkeys) => rkeys.into_iter().map(|rkey| Touch::Record(did.clone(), rkey)).collect(),
                        Change::Account => vec![Touch::Account(did)],
                        Change::Repo => vec![Touch::Repo(did)],
                    };
                    Seen::Event { cursor: seq, touched }
                }
                Ok(Frame::Info(name)) => Seen::Info(name),
                Ok(Frame::Error(name)) => Seen::Error(name),
                Ok(Frame::Unknown) => Seen::Nothing,
                Err(error) => self.skip(error),
            },
            (Kind::Jetstream, Message::Text(text)) => jetstream::read_v1(text).unwrap_or_else(|error| self.skip(error)),
            (Kind::JetstreamV2, Message::Text(text)) => jetstream::read_v2(text).unwrap_or_else(|error| self.skip(error)),
            _ => Seen::Nothing,
        }
    }

    /// One that cannot be read is passed over. To drop the connection, as the specification would have it, would bring the same message again for ever.
    fn skip(&self, error: impl std::fmt::Display) -> Seen {
        tracing::warn!(url = %self.url, %error, "a message of the stream cannot be read");
        Seen::Nothing
    }
}

fn is_too_old(answer: &Response<Option<Vec<u8>>>) -> bool {
    let body = answer.body().as_deref().unwrap_or_default();
    answer.status() == 400 && String::from_utf8_lossy(body).contains("CursorTooOld")
}

fn broken(error: impl std::fmt::Display) -> Broken {
    Broken::Stream(error.to_string())
}
