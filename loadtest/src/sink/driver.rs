//! Runs scripted sessions on sockets: tokio's for load and real processes, `host`'s for the seeded world.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use host::Stream as _;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::Instant;
use tokio_rustls::TlsAcceptor;

use super::provider::Provider;
use super::session::{Session, Step};
use crate::background::Background;
use crate::tls::Certificate;

/// A provider listening on one address, on a thread of its own; it stops when dropped.
pub struct Sink {
    address: SocketAddr,
    provider: Arc<Provider>,
    _running: Background,
}

impl Sink {
    /// Listens on `address` (port 0: any free one). A certificate is needed for scripts that offer STARTTLS.
    pub fn start(address: SocketAddr, provider: Arc<Provider>, certificate: Option<&Certificate>) -> io::Result<Self> {
        Self::listen(address, provider, certificate.map(Certificate::server_config), false)
    }

    /// The same with TLS settings of the caller's.
    pub(crate) fn start_with(
        address: SocketAddr,
        provider: Arc<Provider>,
        config: Option<Arc<rustls::ServerConfig>>,
    ) -> io::Result<Self> {
        Self::listen(address, provider, config, false)
    }

    /// The same with TLS from the first octet.
    pub fn start_implicit_tls(address: SocketAddr, provider: Arc<Provider>, certificate: &Certificate) -> io::Result<Self> {
        Self::listen(address, provider, Some(certificate.server_config()), true)
    }

    fn listen(
        address: SocketAddr,
        provider: Arc<Provider>,
        config: Option<Arc<rustls::ServerConfig>>,
        implicit_tls: bool,
    ) -> io::Result<Self> {
        let acceptor = config.map(TlsAcceptor::from);
        let listener = std::net::TcpListener::bind(address)?;
        listener.set_nonblocking(true)?;
        let address = listener.local_addr()?;
        let shared = provider.clone();
        let running = Background::start("sink", move || async move {
            let listener = TcpListener::from_std(listener)?;
            let began = Instant::now();
            loop {
                // Out of file descriptors: wait for sessions to end instead of spinning.
                let Ok((stream, peer)) = listener.accept().await else {
                    tokio::time::sleep(std::time::Duration::from_millis(10)).await;
                    continue;
                };
                stream.set_nodelay(true)?;
                let (provider, acceptor) = (shared.clone(), acceptor.clone());
                tokio::task::spawn_local(async move {
                    let _ = serve_socket(stream, peer, provider, acceptor, implicit_tls, began).await;
                });
            }
        })?;
        Ok(Self { address, provider, _running: running })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Whose listener it is.
    pub fn provider(&self) -> &Arc<Provider> {
        &self.provider
    }
}

async fn serve_socket(
    stream: TcpStream,
    peer: SocketAddr,
    provider: Arc<Provider>,
    acceptor: Option<TlsAcceptor>,
    implicit_tls: bool,
    began: Instant,
) -> io::Result<()> {
    if let (true, Some(acceptor)) = (implicit_tls, &acceptor) {
        let mut session = Session::new(provider, peer, true);
        let mut stream = acceptor.accept(stream).await?;
        return serve(&mut session, &mut stream, began).await.map(drop);
    }
    let mut session = Session::new(provider, peer, false);
    let mut stream = stream;
    if !serve(&mut session, &mut stream, began).await? {
        return Ok(());
    }
    let Some(acceptor) = acceptor else {
        return Err(io::Error::other("the script offers STARTTLS but the sink has no certificate"));
    };
    let mut stream = acceptor.accept(stream).await?;
    session.handle_tls();
    serve(&mut session, &mut stream, began).await.map(drop)
}

/// The loop of one session over any byte stream. True: the peer wants TLS now; do the handshake, call
/// [`Session::handle_tls`] and serve on over the secured stream.
pub async fn serve<S: AsyncRead + AsyncWrite + Unpin>(session: &mut Session, stream: &mut S, began: Instant) -> io::Result<bool> {
    let mut buffer = vec![0; 16 * 1024];
    loop {
        match session.poll(began.elapsed()) {
            Step::Read => match stream.read(&mut buffer).await {
                Ok(octets) if octets > 0 => session.handle_octets(&buffer[..octets]),
                _ => session.handle_end(),
            },
            Step::Write(octets) => {
                if stream.write_all(&octets).await.is_err() || stream.flush().await.is_err() {
                    session.handle_end();
                }
            }
            Step::Wait(delay) => tokio::time::sleep(delay).await,
            Step::StartTls => return Ok(true),
            Step::Hang => {
                while stream.read(&mut buffer).await.is_ok_and(|octets| octets > 0) {}
                return Ok(false);
            }
            Step::Close => {
                let _ = stream.shutdown().await;
                return Ok(false);
            }
        }
    }
}

/// Longer than any session: what ends one is its script or its peer.
const FOREVER: std::time::Duration = std::time::Duration::from_secs(7 * 24 * 3600);

/// A provider on `host`'s network, such as a simulated one: listens, and serves each session in a local task until the
/// returned stopper is used. Call it inside `host::run`. `tls` is needed for scripts that offer STARTTLS.
pub fn listen_on(
    net: &host::Net,
    address: SocketAddr,
    provider: Arc<Provider>,
    tls: Option<host::tls::Server>,
) -> io::Result<host::Stopper> {
    let mut listener = net.listen(address, 1024)?;
    let stopper = listener.stopper();
    let began = Instant::now();
    host::spawn_local(async move {
        while let Ok((connection, peer)) = listener.accept().await {
            let session = Session::new(provider.clone(), peer, false);
            host::spawn_local(serve_on(session, connection, tls.clone(), began));
        }
    });
    Ok(stopper)
}

async fn serve_on(mut session: Session, mut connection: host::Connection, tls: Option<host::tls::Server>, began: Instant) {
    loop {
        let deadline = host::deadline_in(FOREVER);
        match session.poll(began.elapsed()) {
            Step::Read => match connection.read(deadline).await {
                Ok(octets) if !octets.is_empty() => session.handle_octets(&octets),
                _ => session.handle_end(),
            },
            Step::Write(octets) => {
                if connection.write(octets, deadline).await.is_err() {
                    session.handle_end();
                }
            }
            Step::Wait(delay) => tokio::time::sleep(delay).await,
            Step::StartTls => match &tls {
                Some(server) if connection.start_tls_server(server, deadline).await.is_ok() => session.handle_tls(),
                _ => session.handle_end(),
            },
            Step::Hang => {
                while connection.read(host::deadline_in(FOREVER)).await.is_ok_and(|octets| !octets.is_empty()) {}
                break;
            }
            Step::Close => break,
        }
    }
    connection.close().await;
}
