//! What the labeler answers over HTTP: `com.atproto.label.queryLabels` and `subscribeLabels`, `/.well-known/did.json`, `/xrpc/_health`.
//!
//! Everything is public and may be read from web pages of any origin, but for what MTAs report and ask (`standing`). A proxy with TLS (and HTTP/2) stands before it: README.md shows how Caddy and
//! nginx are told. [`front`] is what every request passes; a stream leaves HTTP behind and is [`subscribe`]'s.

mod front;
pub(crate) mod query;
mod subscribe;

use std::convert::Infallible;
use std::future::Future;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use axum::extract::State;
use axum::http::{HeaderValue, Request, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use serde_json::{Value, json};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::task::JoinSet;

use crate::admin::Counts;
use crate::config::Serve;
use crate::explain::{self, Explainer};
use crate::standing;
use crate::store::Store;
use crate::vouching::{self, Vouching};
pub(crate) use front::Asker;
use front::Front;

/// Further ones wait in the kernel's queue. Streams do not count: they have a bound of their own.
const CONNECTIONS_MAX: usize = 1024;
/// For the head of a request, and between requests.
const HEAD_MAX: Duration = Duration::from_secs(15);
/// Of one connection. Who wants more connects again.
const CONNECTION_MAX: Duration = Duration::from_secs(600);
/// For requests in progress, when stopping.
const DRAIN_MAX: Duration = Duration::from_secs(5);
/// Octets that the kernel holds of a connection beyond what is on its way. Otherwise it takes megabytes for each of a
/// thousand subscribers who read slowly, until there is no memory left for the connections of anybody.
const UNSENT_BYTES_MAX: u32 = 64 << 10;

/// What is served beside the labels.
pub(crate) struct Methods {
    /// Methods and pages for members.
    pub(crate) explainer: Arc<Explainer>,
    /// Who vouches for a message.
    pub(crate) vouching: Arc<Vouching>,
    /// Methods for MTAs.
    pub(crate) desk: standing::Desk,
}

/// What the answers are made of.
pub(crate) struct Answers {
    pub(crate) store: Arc<Store>,
    pub(crate) did: String,
    /// Of a did:web; the document of a did:plc is in the directory.
    pub(crate) document: Option<Value>,
    pub(crate) methods: Methods,
    pub(crate) subscribers: subscribe::Subscribers,
}

impl Answers {
    pub(crate) fn new(
        store: Arc<Store>,
        did: &str,
        document: Option<Value>,
        methods: Methods,
        settings: &Serve,
        stop: watch::Receiver<bool>,
    ) -> Self {
        let subscribers = subscribe::Subscribers::new(settings, stop);
        Self { store, did: did.into(), document, methods, subscribers }
    }
}

/// Serves until told to stop, then lets requests in progress finish.
pub(crate) async fn run(
    listener: TcpListener,
    answers: Answers,
    settings: Serve,
    counts: Arc<Counts>,
    stop: watch::Receiver<bool>,
) {
    let answers = Arc::new(answers);
    let front = Arc::new(Front::new(router(answers.clone()), &settings, counts));
    accept_all(listener, CONNECTIONS_MAX, stop, move |peer, request| front.clone().answer(peer, request)).await;
    let _ = tokio::time::timeout(DRAIN_MAX, answers.subscribers.gone()).await;
}

/// Serves so many connections at a time until told to stop, then lets requests in progress finish.
pub(crate) async fn accept_all<A, F>(listener: TcpListener, connections_max: usize, mut stop: watch::Receiver<bool>, answer: A)
where
    A: Fn(IpAddr, Request<Incoming>) -> F + Clone + Send + 'static,
    F: Future<Output = Result<Response, Infallible>> + Send + 'static,
{
    let room = Arc::new(Semaphore::new(connections_max));
    let mut connections = JoinSet::new();
    loop {
        let accepted = tokio::select! {
            _ = stop.changed() => break,
            Some(_) = connections.join_next() => continue,
            accepted = accept(&listener, &room) => accepted,
        };
        match accepted {
            Ok((stream, peer, permit)) => {
                let answer = answer.clone();
                let service = service_fn(move |request| answer(peer.ip(), request));
                connections.spawn(connection(stream, service, stop.clone(), permit));
            }
            Err(error) => {
                // Out of descriptors, mostly: those that are open finish first.
                tracing::warn!(%error, "cannot accept");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
    drop(listener);
    while connections.join_next().await.is_some() {}
}

async fn accept(listener: &TcpListener, room: &Arc<Semaphore>) -> std::io::Result<(TcpStream, SocketAddr, OwnedSemaphorePermit)> {
    let permit = room.clone().acquire_owned().await.map_err(std::io::Error::other)?;
    let (stream, peer) = listener.accept().await?;
    // Answers are small and whole; waiting for more to send would only delay them.
    stream.set_nodelay(true)?;
    socket2::SockRef::from(&stream).set_tcp_notsent_lowat(UNSENT_BYTES_MAX)?;
    Ok((stream, peer, permit))
}

async fn connection<S>(stream: TcpStream, service: S, mut stop: watch::Receiver<bool>, permit: OwnedSemaphorePermit)
where
    S: hyper::service::Service<Request<Incoming>, Response = Response, Error = Infallible, Future: Send> + Send,
{
    let mut server = http1::Builder::new();
    server.timer(TokioTimer::new()).header_read_timeout(HEAD_MAX).max_buf_size(front::HEAD_BYTES_MAX);
    let mut connection = std::pin::pin!(server.serve_connection(TokioIo::new(stream), service).with_upgrades());
    tokio::select! {
        _ = connection.as_mut() => {}
        _ = async { tokio::select! { _ = stop.changed() => {}, () = tokio::time::sleep(CONNECTION_MAX) => {} } } => {
            connection.as_mut().graceful_shutdown();
            let _ = tokio::time::timeout(DRAIN_MAX, connection).await;
        }
    }
    drop(permit);
}

fn router(answers: Arc<Answers>) -> Router {
    let explaining = explain::router(answers.methods.explainer.clone());
    let vouching = vouching::router(answers.methods.vouching.clone());
    let reporting = standing::router(answers.methods.desk.clone());
    Router::new()
        .route("/xrpc/com.atproto.label.queryLabels", get(query::query_labels))
        .route("/xrpc/com.atproto.label.subscribeLabels", get(subscribe::subscribe_labels))
        .route("/.well-known/did.json", get(document))
        .route("/xrpc/_health", get(health))
        .method_not_allowed_fallback(wrong_method)
        .fallback(unknown)
        .with_state(answers)
        .merge(explaining)
        .merge(vouching)
        .merge(reporting)
}

async fn document(State(answers): State<Arc<Answers>>) -> Response {
    match &answers.document {
        Some(document) => Json(document.clone()).into_response(),
        None => StatusCode::NOT_FOUND.into_response(),
    }
}

async fn health() -> Response {
    Json(json!({ "version": env!("CARGO_PKG_VERSION") })).into_response()
}

async fn unknown(uri: Uri) -> Response {
    match uri.path().strip_prefix("/xrpc/") {
        Some(_) => error(StatusCode::NOT_IMPLEMENTED, "MethodNotImplemented", "this labeler does not have the method"),
        None => StatusCode::NOT_FOUND.into_response(),
    }
}

async fn wrong_method() -> Response {
    let mut response = error(StatusCode::METHOD_NOT_ALLOWED, "InvalidRequest", "this is asked with GET");
    response.headers_mut().insert(header::ALLOW, HeaderValue::from_static("GET, HEAD, OPTIONS"));
    response
}

/// An error of XRPC.
fn error(status: StatusCode, name: &str, message: &str) -> Response {
    (status, Json(json!({ "error": name, "message": message }))).into_response()
}
