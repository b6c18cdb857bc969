//! Listening sockets: bound by one, accepted from by another, handed on to a third.
//!
//! A [`Bound`] socket queues connections in the kernel from the moment that it is made, whoever is going to accept them: a
//! thread of this process, or the process that takes its place (`handover.rs`). A [`Listener`] is one in use by a thread.
//!
//! Accepting does not go through io_uring. An accept that waits in a ring can be taken back only by shutting the socket
//! down, for everybody who holds it, and what waits in its queue is reset. So its readiness comes from epoll, which the
//! runtime of every back end has underneath, and the accept itself never waits.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};

use rustix::net::{SocketFlags, acceptfrom_with};
use tokio::io::unix::AsyncFd;
use tokio::sync::Notify;

use crate::inflight::InFlight;
use crate::net::Connection;
use crate::wire::Socket;
use crate::{Io, epoll, sim, socket, uring};

/// Connections that a stopped listener still accepts because they waited already: as many as most queues hold. Past it
/// they are left to whoever holds the socket next, so that a flood of them cannot keep a daemon from ending.
const LEFT_MAX: u32 = 1024;

/// A bound socket that listens. Connections wait in its queue until somebody accepts them.
pub struct Bound {
    held: Held,
    local: SocketAddr,
    name: Option<String>,
}

enum Held {
    Machine(socket2::Socket),
    Sim(sim::Listener),
}

impl Bound {
    pub(crate) fn bind(io: &Io, address: SocketAddr, backlog: u32) -> io::Result<Self> {
        let (held, local) = match io {
            Io::Uring | Io::Epoll => {
                let socket = socket::listening(address, backlog)?;
                let local = socket::local_addr(&socket)?;
                (Held::Machine(socket), local)
            }
            Io::Sim(net) => {
                let (listener, local) = net.listen(address, backlog)?;
                (Held::Sim(listener), local)
            }
        };
        Ok(Self { held, local, name: None })
    }

    /// A socket that another process made, by the `name` that it was given there, if any.
    pub(crate) fn received(descriptor: OwnedFd, name: Option<String>) -> io::Result<Self> {
        let socket = socket2::Socket::from(descriptor);
        if !socket.is_listener()? {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "a descriptor that was passed to us is no listening socket"));
        }
        // A flag of the socket, not of our descriptor: all who accept from it have to be of one mind.
        socket.set_nonblocking(true)?;
        // Accepted sockets inherit it.
        socket.set_tcp_nodelay(true)?;
        let local = socket::local_addr(&socket)?;
        Ok(Self { held: Held::Machine(socket), local, name })
    }

    /// The address in use; tells the port when 0 was asked for.
    pub fn local_addr(&self) -> SocketAddr {
        self.local
    }

    /// What the service manager calls it, if it was passed by one.
    pub fn name(&self) -> Option<&str> {
        self.name.as_deref()
    }

    /// The same socket once more: its queue ends when the last of them is dropped.
    pub fn try_clone(&self) -> io::Result<Self> {
        let held = match &self.held {
            Held::Machine(socket) => Held::Machine(socket.try_clone()?),
            Held::Sim(listener) => Held::Sim(listener.clone()),
        };
        Ok(Self { held, local: self.local, name: self.name.clone() })
    }

    /// None in the simulation.
    pub(crate) fn descriptor(&self) -> Option<BorrowedFd<'_>> {
        match &self.held {
            Held::Machine(socket) => Some(socket.as_fd()),
            Held::Sim(_) => None,
        }
    }
}

impl fmt::Debug for Bound {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Bound").field("local", &self.local).field("name", &self.name).finish()
    }
}

enum Acceptor {
    Uring(AsyncFd<OwnedFd>),
    Epoll(AsyncFd<OwnedFd>),
    Sim(sim::Listener),
}

/// A listening socket that a thread accepts from. End that with a [`Stopper`].
pub struct Listener {
    acceptor: Acceptor,
    local: SocketAddr,
    stopper: Stopper,
    left: u32,
}

impl Listener {
    pub(crate) fn new(io: &Io, bound: Bound) -> io::Result<Self> {
        let acceptor = match (io, bound.held) {
            (Io::Uring, Held::Machine(socket)) => Acceptor::Uring(socket::watched(socket)?),
            (Io::Epoll, Held::Machine(socket)) => Acceptor::Epoll(socket::watched(socket)?),
            (Io::Sim(_), Held::Sim(listener)) => Acceptor::Sim(listener),
            _ => return Err(io::Error::new(io::ErrorKind::InvalidInput, "a listening socket of another back end")),
        };
        Ok(Self { acceptor, local: bound.local, stopper: Stopper::default(), left: LEFT_MAX })
    }

    /// The next connection. Once stopped, those that waited already, and then [`io::ErrorKind::ConnectionAborted`]; other
    /// errors (no more descriptors, say) may pass: wait a little and go on. The future may be dropped.
    pub async fn accept(&mut self) -> io::Result<(Connection, SocketAddr)> {
        let _counted = InFlight::begin();
        loop {
            if self.stopper.0.stopped.load(SeqCst) {
                let waited = if self.left > 0 { self.take()? } else { None };
                self.left = if waited.is_some() { self.left - 1 } else { 0 };
                return waited.ok_or_else(stopped);
            }
            if let Some(accepted) = self.next().await? {
                return Ok(accepted);
            }
        }
    }

    /// The next connection; none when it was stopped meanwhile, or somebody else got it.
    async fn next(&self) -> io::Result<Option<(Connection, SocketAddr)>> {
        let stopped = self.stopper.0.rung.notified();
        match &self.acceptor {
            Acceptor::Uring(socket) | Acceptor::Epoll(socket) => {
                tokio::select! {
                    ready = socket.readable() => match ready?.try_io(|_| self.take().and_then(or_would_block)) {
                        Ok(accepted) => accepted.map(Some),
                        Err(_) => Ok(None),
                    },
                    () = stopped => Ok(None),
                }
            }
            Acceptor::Sim(listener) => {
                if let Some(accepted) = self.take()? {
                    return Ok(Some(accepted));
                }
                tokio::select! {
                    () = listener.changed() => Ok(None),
                    () = stopped => Ok(None),
                }
            }
        }
    }

    /// A connection that waits already.
    fn take(&self) -> io::Result<Option<(Connection, SocketAddr)>> {
        let (socket, peer, local) = match &self.acceptor {
            // io_uring wants a socket that blocks: on O_NONBLOCK it answers EAGAIN.
            Acceptor::Uring(listener) => match accept(listener.get_ref(), SocketFlags::empty())? {
                Some((descriptor, peer)) => (Socket::Uring(uring::Socket::of(descriptor)), peer, None),
                None => return Ok(None),
            },
            Acceptor::Epoll(listener) => match accept(listener.get_ref(), SocketFlags::NONBLOCK)? {
                Some((descriptor, peer)) => (Socket::Epoll(epoll::Socket::of(descriptor)?), peer, None),
                None => return Ok(None),
            },
            Acceptor::Sim(listener) => match listener.take() {
                Some((socket, peer, local)) => (Socket::Sim(socket), peer, Some(local)),
                None => return Ok(None),
            },
        };
        let local = match local {
            Some(local) => local,
            None if self.local.ip().is_unspecified() => socket.local_addr()?,
            None => self.local,
        };
        Ok(Some((Connection::new(socket, peer, local), peer)))
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

fn accept(listener: &OwnedFd, flags: SocketFlags) -> io::Result<Option<(OwnedFd, SocketAddr)>> {
    match acceptfrom_with(listener, flags | SocketFlags::CLOEXEC) {
        Ok((descriptor, peer)) => {
            let peer = peer.and_then(|peer| SocketAddr::try_from(peer).ok());
            Ok(Some((descriptor, peer.ok_or_else(|| io::Error::other("a peer without an internet address"))?)))
        }
        // The peer has gone while it waited.
        Err(rustix::io::Errno::WOULDBLOCK | rustix::io::Errno::CONNABORTED) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

fn or_would_block<T>(accepted: Option<T>) -> io::Result<T> {
    accepted.ok_or_else(|| io::ErrorKind::WouldBlock.into())
}

fn stopped() -> io::Error {
    io::Error::new(io::ErrorKind::ConnectionAborted, "the listener was stopped")
}

/// Stops a [`Listener`]: it accepts the connections that wait already, and then answers
/// [`io::ErrorKind::ConnectionAborted`]. What comes later waits for somebody else who holds the socket; when the last of
/// them is dropped, it is refused.
#[derive(Clone, Default)]
pub struct Stopper(Arc<Stop>);

#[derive(Default)]
struct Stop {
    stopped: AtomicBool,
    rung: Notify,
}

impl Stopper {
    /// Stops the listener. A second time does nothing.
    pub fn stop(&self) {
        if !self.0.stopped.swap(true, SeqCst) {
            self.0.rung.notify_one();
        }
    }
}

impl fmt::Debug for Stopper {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Stopper(stopped: {})", self.0.stopped.load(SeqCst))
    }
}
