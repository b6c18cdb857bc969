//! What the labeler answers over HTTP: `com.atproto.label.queryLabels`, `/.well-known/did.json`, `/xrpc/_health`.
//!
//! Everything is public and may be read from web pages of any origin. A proxy with TLS stands before it.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::{RawQuery, State};
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;

use crate::store::{Cursor, Pattern, Store};

/// Further ones wait in the kernel's queue.
const CONNECTIONS_MAX: usize = 1024;
/// For the head of a request, and between requests.
const HEAD_MAX: Duration = Duration::from_secs(15);
/// Of one connection. Who wants more connects again.
const CONNECTION_MAX: Duration = Duration::from_secs(600);
/// For requests in progress, when stopping.
const DRAIN_MAX: Duration = Duration::from_secs(5);
/// `limit` of queryLabels: least, default and most (its lexicon).
const LIMITS: (usize, usize, usize) = (1, 50, 250);
/// A URL holds no more subjects of the usual length than about this.
const PATTERNS_MAX: usize = 1000;

/// What the answers are made of.
pub(crate) struct Answers {
    pub(crate) store: Arc<Store>,
    pub(crate) did: String,
    /// Of a did:web; the document of a did:plc is in the directory.
    pub(crate) document: Option<Value>,
}

/// Serves until told to stop, then lets requests in progress finish.
pub(crate) async fn run(listener: TcpListener, answers: Answers, mut stop: watch::Receiver<bool>) {
    let router = router(Arc::new(answers));
    let room = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    let mut connections = JoinSet::new();
    loop {
        let accepted = tokio::select! {
            _ = stop.changed() => break,
            Some(_) = connections.join_next() => continue,
            accepted = accept(&listener, &room) => accepted,
        };
        let (stream, permit) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                // Out of descriptors, mostly: those that are open finish first.
                tracing::warn!(%error, "cannot accept");
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        let service = TowerToHyperService::new(router.clone());
        let mut stop = stop.clone();
        connections.spawn(async move {
            let mut server = http1::Builder::new();
            server.timer(TokioTimer::new()).header_read_timeout(HEAD_MAX).max_buf_size(64 << 10);
            let mut connection = std::pin::pin!(server.serve_connection(TokioIo::new(stream), service));
            tokio::select! {
                _ = connection.as_mut() => {}
                _ = async { tokio::select! { _ = stop.changed() => {}, () = tokio::time::sleep(CONNECTION_MAX) => {} } } => {
                    connection.as_mut().graceful_shutdown();
                    let _ = tokio::time::timeout(DRAIN_MAX, connection).await;
                }
            }
            drop(permit);
        });
    }
    drop(listener);
    while connections.join_next().await.is_some() {}
}

async fn accept(
    listener: &TcpListener,
    room: &Arc<Semaphore>,
) -> std::io::Result<(tokio::net::TcpStream, tokio::sync::OwnedSemaphorePermit)> {
    let permit = room.clone().acquire_owned().await.map_err(std::io::Error::other)?;
    let (stream, _): (_, SocketAddr) = listener.accept().await?;
    Ok((stream, permit))
}

fn router(answers: Arc<Answers>) -> Router {
    Router::new()
        .route("/xrpc/com.atproto.label.queryLabels", get(query_labels))
        .route("/.well-known/did.json", get(document))
        .route("/xrpc/_health", get(health))
        .fallback(unknown)
        .with_state(answers)
}

async fn query_labels(State(answers): State<Arc<Answers>>, RawQuery(query): RawQuery) -> Response {
    let query = match Query::read(query.as_deref().unwrap_or_default()) {
        Ok(query) => query,
        Err(why) => return error(StatusCode::BAD_REQUEST, "InvalidRequest", &why),
    };
    if !query.sources.is_empty() && !query.sources.contains(&answers.did) {
        return open(Json(json!({ "labels": [] })));
    }
    match answers.store.query(&query.patterns, query.cursor.as_ref(), query.limit) {
        Ok(json) => open(([(header::CONTENT_TYPE, HeaderValue::from_static("application/json"))], json)),
        Err(why) => {
            tracing::error!(error = %why, "cannot answer queryLabels");
            error(StatusCode::INTERNAL_SERVER_ERROR, "InternalServerError", "the store cannot be read")
        }
    }
}

/// The parameters. Lists repeat their name, which axum's own reader does not know.
#[derive(Debug, PartialEq, Eq)]
struct Query {
    patterns: Vec<Pattern>,
    sources: Vec<String>,
    limit: usize,
    cursor: Option<Cursor>,
}

impl Query {
    fn read(text: &str) -> Result<Self, String> {
        let mut query = Self { patterns: Vec::new(), sources: Vec::new(), limit: LIMITS.1, cursor: None };
        for (name, value) in url::form_urlencoded::parse(text.as_bytes()) {
            match &*name {
                "uriPatterns" | "uriPatterns[]" => query.patterns.push(Pattern::parse(&value)?),
                "sources" | "sources[]" => query.sources.push(value.into_owned()),
                "limit" => {
                    let limit = value.parse().ok().filter(|limit| (LIMITS.0..=LIMITS.2).contains(limit));
                    query.limit = limit.ok_or_else(|| format!("limit is {} to {}", LIMITS.0, LIMITS.2))?;
                }
                "cursor" if !value.is_empty() => query.cursor = Some(Cursor::parse(&value)?),
                _ => {}
            }
        }
        match query.patterns.len() {
            0 => Err("uriPatterns is required".into()),
            1..=PATTERNS_MAX => Ok(query),
            _ => Err(format!("at most {PATTERNS_MAX} uriPatterns")),
        }
    }
}

async fn document(State(answers): State<Arc<Answers>>) -> Response {
    match &answers.document {
        Some(document) => open(Json(document.clone())),
        None => StatusCode::NOT_FOUND.into_response(),
    }
}

async fn health() -> Response {
    open(Json(json!({ "version": env!("CARGO_PKG_VERSION") })))
}

async fn unknown(uri: axum::http::Uri) -> Response {
    match uri.path().strip_prefix("/xrpc/") {
        Some(_) => error(StatusCode::NOT_IMPLEMENTED, "MethodNotImplemented", "this labeler does not have the method"),
        None => StatusCode::NOT_FOUND.into_response(),
    }
}

fn error(status: StatusCode, name: &str, message: &str) -> Response {
    open((status, Json(json!({ "error": name, "message": message }))))
}

fn open(response: impl IntoResponse) -> Response {
    let mut response = response.into_response();
    response.headers_mut().insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, HeaderValue::from_static("*"));
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_are_read_as_the_lexicon_says() {
        let query =
            Query::read("uriPatterns=did%3Aplc%3Aa&uriPatterns=did:plc:b*&sources=did:web:x&limit=250&cursor=did:plc:a+b&odd=1")
                .unwrap();
        assert_eq!(
            (query.patterns.len(), query.sources.len(), query.limit, query.cursor),
            (2, 1, 250, Some(Cursor::parse("did:plc:a b").unwrap()))
        );
        assert_eq!(Query::read("uriPatterns=*").unwrap().limit, 50);
        for wrong in [
            "",
            "limit=5",
            "uriPatterns=a*b",
            "uriPatterns=*&limit=0",
            "uriPatterns=*&limit=251",
            "uriPatterns=*&limit=x",
            "uriPatterns=*&cursor=7",
            &"uriPatterns=a&".repeat(1001),
        ] {
            assert!(Query::read(wrong).is_err(), "{wrong:.40}");
        }
    }
}
