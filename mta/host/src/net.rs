//! The network and its connections as the rest of the daemon sees them: one type, whatever back end is below.
//!
//! Not here: listening sockets (`listener.rs`).

use std::fmt;
use std::future::Future;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use bytes::Bytes;
use tokio::time::Instant;

use crate::listener::{Bound, Listener};
use crate::wire::{Interrupter, Socket, Wire};
use crate::{Io, epoll, tls, uring};

/// The contract of IO: buffers are owned, deadlines are arguments.
///
/// On a deadline the socket is shut down, the operation awaited, and [`io::ErrorKind::TimedOut`] returned; after any error
/// the stream is dead. A future of this trait must be awaited to its end: whoever drops one has lost the stream.
pub trait Stream {
    /// What the peer sent next; empty at the end of the stream. A TLS stream that ends without close_notify is
    /// [`io::ErrorKind::UnexpectedEof`].
    fn read(&mut self, deadline: Instant) -> impl Future<Output = io::Result<Bytes>>;
    /// Hands all of `octets` to the kernel; short ones in one call.
    fn write(&mut self, octets: Bytes, deadline: Instant) -> impl Future<Output = io::Result<()>>;
    /// Says goodbye (close_notify under TLS) if that can be done at once, and closes.
    fn close(self) -> impl Future<Output = ()>;
}

/// The network as one thread sees it. Use it inside [`crate::run`] of the same [`Io`].
#[derive(Clone, Debug)]
pub struct Net {
    io: Io,
}

impl Net {
    /// The network through `io`.
    pub fn new(io: Io) -> Self {
        Self { io }
    }

    /// A socket that listens on `address`, which others of this process may share: the kernel spreads connections over them.
    /// `backlog` connections wait to be accepted; past it the kernel lets clients try again.
    pub fn bind(&self, address: SocketAddr, backlog: u32) -> io::Result<Bound> {
        Bound::bind(&self.io, address, backlog)
    }

    /// Accepts from a socket that was made before, here or in another process.
    pub fn listen_on(&self, bound: Bound) -> io::Result<Listener> {
        Listener::new(&self.io, bound)
    }

    /// Binds and listens.
    pub fn listen(&self, address: SocketAddr, backlog: u32) -> io::Result<Listener> {
        self.listen_on(self.bind(address, backlog)?)
    }

    /// Connects to `peer`, from the address `source` if one is named.
    pub async fn connect(&self, source: Option<IpAddr>, peer: SocketAddr, deadline: Instant) -> io::Result<Connection> {
        let (socket, local) = match &self.io {
            Io::Uring => {
                let (socket, local) = uring::Socket::connect(source, peer, deadline).await?;
                (Socket::Uring(socket), local)
            }
            Io::Epoll => {
                let (socket, local) = epoll::Socket::connect(source, peer, deadline).await?;
                (Socket::Epoll(socket), local)
            }
            Io::Sim(net) => {
                let (socket, local) = net.connect(source, peer, deadline).await?;
                (Socket::Sim(socket), local)
            }
        };
        Ok(Connection::new(socket, peer, local))
    }
}

/// A connected stream of any back end, with or without TLS.
pub struct Connection {
    wire: Wire,
    tls: Option<Box<tls::Session>>,
    peer: SocketAddr,
    local: SocketAddr,
}

impl Connection {
    pub(crate) fn new(socket: Socket, peer: SocketAddr, local: SocketAddr) -> Self {
        Self { wire: Wire::new(socket), tls: None, peer, local }
    }

    /// The other end.
    pub fn peer(&self) -> SocketAddr {
        self.peer
    }

    /// This end.
    pub fn local(&self) -> SocketAddr {
        self.local
    }

    /// What was negotiated, once TLS has started.
    pub fn tls(&self) -> Option<&tls::Info> {
        self.tls.as_ref().map(|session| session.info())
    }

    /// The first octet that the peer sent on the wire, left there to be read; waits for it no longer than `wait`, and the
    /// connection lives on. `None`: nothing came (or the stream ended: the next read tells). To see a ClientHello (22) before we greet.
    pub async fn first_octet(&mut self, wait: Duration) -> io::Result<Option<u8>> {
        self.wire.peek(wait).await
    }

    /// Takes the server's part in a TLS handshake. What the peer sent in the clear and was not read yet is taken for TLS, and so
    /// fails the handshake: nothing injected before it survives (CVE-2011-0411).
    pub async fn start_tls_server(&mut self, server: &tls::Server, deadline: Instant) -> io::Result<tls::Info> {
        self.start_tls(server.session()?, deadline).await
    }

    /// Takes the client's part in a TLS handshake with the host called `name`.
    pub async fn start_tls_client(&mut self, client: &tls::Client, name: &str, deadline: Instant) -> io::Result<tls::Info> {
        self.start_tls(client.session(name, self.peer.ip())?, deadline).await
    }

    async fn start_tls(&mut self, session: tls::Session, deadline: Instant) -> io::Result<tls::Info> {
        if self.tls.is_some() {
            return Err(io::Error::new(io::ErrorKind::AlreadyExists, "TLS has already started on this connection"));
        }
        let mut session = Box::new(session);
        session.handshake(&mut self.wire, deadline).await?;
        let info = session.info().clone();
        self.tls = Some(session);
        Ok(info)
    }

    /// After a write that failed: what the peer had said by then, if anything. A host that refuses a message half-way says why
    /// before it hangs up. Whatever comes of it, the connection is over.
    pub async fn last_words(&mut self, deadline: Instant) -> Bytes {
        self.wire.listen_to_the_end();
        let said = self.read(deadline).await.unwrap_or_default();
        self.wire.fail();
        said
    }

    /// Something to end this connection's reading with, while a read waits: see [`Interrupter`].
    pub fn interrupter(&self) -> Interrupter {
        self.wire.interrupter()
    }

    /// Closes with a reset, for peers that deserve no better and for tests of ourselves.
    pub fn abort(self) {
        self.wire.abort();
    }
}

impl Stream for Connection {
    async fn read(&mut self, deadline: Instant) -> io::Result<Bytes> {
        match &mut self.tls {
            None => self.wire.recv(deadline).await,
            Some(session) => session.read(&mut self.wire, deadline).await,
        }
    }

    async fn write(&mut self, octets: Bytes, deadline: Instant) -> io::Result<()> {
        match &mut self.tls {
            None => self.wire.send(octets, deadline).await,
            Some(session) => session.write(&mut self.wire, octets, deadline).await,
        }
    }

    async fn close(self) {
        let farewell = self.tls.map(|session| session.farewell()).unwrap_or_default();
        self.wire.close(&farewell);
    }
}

impl fmt::Debug for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connection").field("peer", &self.peer).field("local", &self.local).field("tls", &self.tls()).finish()
    }
}
