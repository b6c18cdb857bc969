//! Connections and listeners as the rest of the daemon sees them: one type each, whatever back end is below.

use std::fmt;
use std::future::Future;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::time::Duration;

use bytes::Bytes;
use tokio::time::Instant;

use crate::wire::{Socket, Wire};
use crate::{Io, epoll, sim, tls, uring};

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

    /// Listens on `address`, which other threads of this process may listen on too: the kernel spreads connections over them.
    /// `backlog` connections wait to be accepted; past it the kernel lets clients try again.
    pub fn listen(&self, address: SocketAddr, backlog: u32) -> io::Result<Listener> {
        let (acceptor, local, stop): (_, _, Box<dyn Fn() + Send + Sync>) = match &self.io {
            Io::Uring => {
                let (listener, local) = uring::Listener::listen(address, backlog)?;
                let stop = Box::new(listener.shutter());
                (Acceptor::Uring(listener), local, stop)
            }
            Io::Epoll => {
                let (listener, local) = epoll::Listener::listen(address, backlog)?;
                let stop = Box::new(listener.shutter());
                (Acceptor::Epoll(listener), local, stop)
            }
            Io::Sim(net) => {
                let (listener, local) = net.listen(address, backlog)?;
                let stop = Box::new(listener.shutter());
                (Acceptor::Sim(listener), local, stop)
            }
        };
        let stopper = Stopper(Arc::new(Stop { stopped: AtomicBool::new(false), stop }));
        Ok(Listener { acceptor, local, stopper, accepting: false })
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

enum Acceptor {
    Uring(uring::Listener),
    Epoll(epoll::Listener),
    Sim(sim::Listener),
}

/// A listening socket. Give it a task of its own that does nothing but accept; end that task with a [`Stopper`].
pub struct Listener {
    acceptor: Acceptor,
    local: SocketAddr,
    stopper: Stopper,
    accepting: bool,
}

impl Listener {
    /// The next connection. [`io::ErrorKind::ConnectionAborted`] once stopped; other errors (no more descriptors, say) may
    /// pass: wait a little and go on. Await it to its end: dropping it may lose a connection.
    pub async fn accept(&mut self) -> io::Result<(Connection, SocketAddr)> {
        if self.stopper.0.stopped.load(SeqCst) {
            return Err(stopped());
        }
        self.accepting = true;
        let accepted = match &self.acceptor {
            Acceptor::Uring(l) => l.accept(self.local).await.map(|(s, peer, local)| (Socket::Uring(s), peer, local)),
            Acceptor::Epoll(l) => l.accept(self.local).await.map(|(s, peer, local)| (Socket::Epoll(s), peer, local)),
            Acceptor::Sim(l) => l.accept().await.map(|(s, peer, local)| (Socket::Sim(s), peer, local)),
        };
        self.accepting = false;
        match accepted {
            Ok((socket, peer, local)) => Ok((Connection::new(socket, peer, local), peer)),
            Err(_) if self.stopper.0.stopped.load(SeqCst) => Err(stopped()),
            Err(error) => Err(error),
        }
    }

    /// The address in use; tells the port when 0 was asked for.
    pub fn local_addr(&self) -> SocketAddr {
        self.local
    }

    /// Something to stop this listener with, from any thread.
    pub fn stopper(&self) -> Stopper {
        self.stopper.clone()
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        // An abandoned accept would hold the descriptor, and the port, and take one more connection from others.
        if self.accepting {
            self.stopper.stop();
        }
    }
}

fn stopped() -> io::Error {
    io::Error::new(io::ErrorKind::ConnectionAborted, "the listener was stopped")
}

/// Stops a [`Listener`]: a pending accept, and every later one, is an error of kind [`io::ErrorKind::ConnectionAborted`].
/// Connections that were not accepted yet are reset.
#[derive(Clone)]
pub struct Stopper(Arc<Stop>);

struct Stop {
    stopped: AtomicBool,
    stop: Box<dyn Fn() + Send + Sync>,
}

impl Stopper {
    /// Stops the listener. A second time does nothing.
    pub fn stop(&self) {
        if !self.0.stopped.swap(true, SeqCst) {
            (self.0.stop)();
        }
    }
}

impl fmt::Debug for Stopper {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Stopper(stopped: {})", self.0.stopped.load(SeqCst))
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
    fn new(socket: Socket, peer: SocketAddr, local: SocketAddr) -> Self {
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
