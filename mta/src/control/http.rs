//! HTTP on this side of the wire: an accept loop with limits, for the admin socket and the admin port.
//!
//! Limits: [`CONNECTIONS_MAX`] connections (later ones wait to be accepted), [`HEAD_WAIT`] for a request's head,
//! [`ANSWER_WAIT`] for its answer, [`BODY_BYTES_MAX`] for its body.

use std::{convert::Infallible, future::Future, io, net::SocketAddr, sync::Arc, time::Duration};

use arc_swap::ArcSwap;
use axum::{Router, body::Body, http::StatusCode, response::IntoResponse};
use hyper::{Request, body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    service::TowerToHyperService,
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, UnixListener},
    sync::Semaphore,
    time::timeout,
};
use tokio_rustls::TlsAcceptor;

/// Connections served at the same time by one listener.
const CONNECTIONS_MAX: usize = 64;
/// How long a request's head may take, and a kept connection be idle.
const HEAD_WAIT: Duration = Duration::from_secs(30);
/// How long a request may take to be answered, its body included.
const ANSWER_WAIT: Duration = Duration::from_secs(30);
/// The certificate of a listener, which may be renewed.
pub(super) type Certificate = Arc<ArcSwap<host::tls::Server>>;

/// How long things may take.
#[derive(Debug, Clone, Copy)]
pub(super) struct Limits {
    /// A request's head, and the rest of a kept connection between two.
    pub(super) head: Duration,
    /// A request, its body included, until its answer begins.
    pub(super) answer: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Limits { head: HEAD_WAIT, answer: ANSWER_WAIT }
    }
}

/// The largest request body: a private key as PEM is 2 KiB.
pub(super) const BODY_BYTES_MAX: usize = 64 << 10;

/// What can be accepted from.
pub(super) trait Listen {
    /// An accepted connection.
    type Connection: AsyncRead + AsyncWrite + Unpin + Send + 'static;
    fn next(&mut self) -> impl Future<Output = io::Result<Self::Connection>> + Send;
    /// Who is at the other end, as far as the kernel tells.
    fn peer(connection: &Self::Connection) -> Option<Peer>;
}

/// Who is at the other end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Peer {
    /// On the operator's socket: the user of the process there.
    User { uid: u32 },
    /// On the admin port.
    Remote { address: SocketAddr },
}

impl Listen for TcpListener {
    type Connection = tokio::net::TcpStream;
    async fn next(&mut self) -> io::Result<Self::Connection> {
        self.accept().await.map(|(connection, _)| connection)
    }
    fn peer(connection: &Self::Connection) -> Option<Peer> {
        connection.peer_addr().ok().map(|address| Peer::Remote { address })
    }
}

impl Listen for UnixListener {
    type Connection = tokio::net::UnixStream;
    async fn next(&mut self) -> io::Result<Self::Connection> {
        self.accept().await.map(|(connection, _)| connection)
    }
    fn peer(connection: &Self::Connection) -> Option<Peer> {
        connection.peer_cred().ok().map(|peer| Peer::User { uid: peer.uid() })
    }
}

/// Serves until dropped. Requests in progress then go on to their own limits.
pub(super) async fn serve<L: Listen>(mut listener: L, router: Router, limits: Limits, tls: Option<Certificate>) {
    let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    let router = TowerToHyperService::new(router.layer(axum::extract::DefaultBodyLimit::max(BODY_BYTES_MAX)));
    loop {
        let Ok(place) = places.clone().acquire_owned().await else { return };
        let connection = match listener.next().await {
            Ok(connection) => connection,
            Err(error) => {
                // Mostly EMFILE: descriptors come back when sessions end.
                tracing::warn!(%error, "the admin listener cannot accept");
                tokio::time::sleep(Duration::from_secs(1)).await;
                continue;
            }
        };
        let (router, tls) = (router.clone(), tls.clone());
        tokio::spawn(async move {
            let _place = place;
            let peer = L::peer(&connection);
            let ended = match tls {
                None => talk(connection, peer, router, limits).await,
                Some(tls) => {
                    let acceptor = TlsAcceptor::from(tls.load().shared());
                    match timeout(limits.head, acceptor.accept(connection)).await {
                        Ok(Ok(connection)) => talk(connection, peer, router, limits).await,
                        Ok(Err(error)) => Err(error.to_string()),
                        Err(_) => Err("the TLS handshake took too long".to_owned()),
                    }
                }
            };
            if let Err(error) = ended {
                tracing::debug!(%error, "an admin connection ended early");
            }
        });
    }
}

/// Answers what comes over one connection.
async fn talk<S: AsyncRead + AsyncWrite + Unpin + Send + 'static>(
    connection: S,
    peer: Option<Peer>,
    router: TowerToHyperService<Router>,
    limits: Limits,
) -> Result<(), String> {
    let service = service_fn(move |mut request: Request<Incoming>| {
        if let Some(peer) = peer {
            request.extensions_mut().insert(peer);
        }
        answer(router.clone(), request, limits)
    });
    let mut server = http1::Builder::new();
    server.timer(TokioTimer::new()).header_read_timeout(limits.head).max_buf_size(BODY_BYTES_MAX);
    server.serve_connection(TokioIo::new(connection), service).await.map_err(|error| error.to_string())
}

async fn answer(
    router: TowerToHyperService<Router>,
    request: Request<Incoming>,
    limits: Limits,
) -> Result<axum::response::Response, Infallible> {
    use hyper::service::Service as _;
    match timeout(limits.answer, router.call(request)).await {
        Ok(Ok(response)) => Ok(response.map(Body::new)),
        Ok(Err(never)) => match never {},
        Err(_) => Ok((StatusCode::GATEWAY_TIMEOUT, "took too long\n").into_response()),
    }
}
