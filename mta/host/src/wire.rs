//! A connected socket of any back end under a deadline: the plain octets below TLS.
//!
//! One operation at a time. When its deadline comes, the socket is shut down, the operation awaited to its end and
//! [`io::ErrorKind::TimedOut`] returned; after that the wire is dead. The same code does this on all back ends.

use std::fmt;
use std::future::{Future, poll_fn};
use std::io;
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::sync::{Arc, Weak};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use tokio::time::{Instant, Sleep};

use crate::{epoll, sim, uring};

pub(crate) enum Socket {
    Uring(uring::Socket),
    Epoll(epoll::Socket),
    Sim(sim::Socket),
}

impl Socket {
    /// This end's address.
    pub(crate) fn local_addr(&self) -> io::Result<SocketAddr> {
        match self {
            Socket::Uring(s) => s.local_addr(),
            Socket::Epoll(s) => s.local_addr(),
            Socket::Sim(s) => Ok(s.local_addr()),
        }
    }
}

/// What a wire shares with its [`Interrupter`].
struct Shared {
    socket: Socket,
    interrupted: AtomicBool,
}

/// Ends the reading of a connection whose owner waits for its peer, so that it can say a last word and close.
///
/// The read that waits, or the next one, hands out what has arrived; when nothing has, it is an error of kind
/// [`io::ErrorKind::Interrupted`], and every later one is too. The connection can still be written to. It does this by
/// shutting down the socket's reading half, so no operation is dropped.
#[derive(Clone)]
pub struct Interrupter(Weak<Shared>);

impl Interrupter {
    /// Ends the reading. A second time, or when the connection is gone, does nothing.
    pub fn interrupt(&self) {
        let Some(shared) = self.0.upgrade() else { return };
        if !shared.interrupted.swap(true, SeqCst) {
            match &shared.socket {
                Socket::Uring(s) => s.end_reading(),
                Socket::Epoll(s) => s.end_reading(),
                Socket::Sim(s) => s.end_reading(),
            }
        }
    }
}

impl fmt::Debug for Interrupter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Interrupter(..)")
    }
}

pub(crate) struct Wire {
    shared: Arc<Shared>,
    buffer: Buffer,
    timer: Timer,
    state: State,
}

#[derive(PartialEq)]
enum State {
    Open,
    /// An operation is pending, or its future was dropped before it ended.
    Busy,
    /// A write failed: the peer's last words may still be read.
    Unwritable,
    Dead,
}

impl Wire {
    pub(crate) fn new(socket: Socket) -> Self {
        let shared = Arc::new(Shared { socket, interrupted: AtomicBool::new(false) });
        Self { shared, buffer: Buffer::new(), timer: Timer::default(), state: State::Open }
    }

    pub(crate) fn interrupter(&self) -> Interrupter {
        Interrupter(Arc::downgrade(&self.shared))
    }

    /// What the peer sent; empty at the end of the stream. Interrupted, the wire lives on.
    pub(crate) async fn recv(&mut self, deadline: Instant) -> io::Result<Bytes> {
        self.begin()?;
        let Self { shared, buffer, timer, .. } = self;
        let result = match &shared.socket {
            Socket::Uring(s) => bounded(timer, deadline, || s.shutdown(), s.recv(buffer)).await,
            Socket::Epoll(s) => bounded(timer, deadline, || s.shutdown(), s.recv(buffer)).await,
            Socket::Sim(s) => bounded(timer, deadline, || s.shutdown(), s.recv(buffer)).await,
        };
        match self.end(result)? {
            nothing if nothing.is_empty() && self.shared.interrupted.load(SeqCst) => {
                Err(io::Error::new(io::ErrorKind::Interrupted, "the reading of this connection was ended"))
            }
            octets => Ok(octets),
        }
    }

    /// Sends all of `octets`: on return the kernel has them.
    pub(crate) async fn send(&mut self, octets: Bytes, deadline: Instant) -> io::Result<()> {
        if octets.is_empty() {
            return Ok(());
        }
        self.begin()?;
        let Self { shared, timer, .. } = self;
        let result = match &shared.socket {
            Socket::Uring(s) => bounded(timer, deadline, || s.shutdown(), s.send(octets)).await,
            Socket::Epoll(s) => bounded(timer, deadline, || s.shutdown(), s.send(octets)).await,
            Socket::Sim(s) => bounded(timer, deadline, || s.shutdown(), s.send(octets)).await,
        };
        let failed = result.is_err();
        let result = self.end(result);
        if failed {
            self.state = State::Unwritable;
        }
        result
    }

    /// After a write that failed: what the peer had said by then can be read.
    pub(crate) fn listen_to_the_end(&mut self) {
        if self.state == State::Unwritable {
            self.state = State::Open;
        }
    }

    /// The first octet that waits to be read, without reading it; `None` if none came within `wait`, or the stream ended.
    pub(crate) async fn peek(&mut self, wait: Duration) -> io::Result<Option<u8>> {
        self.begin()?;
        let result = match &self.shared.socket {
            Socket::Uring(s) => s.peek(wait).await,
            Socket::Epoll(s) => s.peek(wait).await,
            Socket::Sim(s) => s.peek(wait).await,
        };
        self.end(result)
    }

    /// Says `farewell` if the socket takes it at once, then closes.
    pub(crate) fn close(mut self, farewell: &[u8]) {
        if self.state == State::Open {
            self.state = State::Dead;
            match &self.shared.socket {
                Socket::Uring(s) => s.close(farewell),
                Socket::Epoll(s) => s.close(farewell),
                Socket::Sim(s) => s.close(farewell),
            }
        }
    }

    /// Nothing more is to go over this wire: what it says is not understood.
    pub(crate) fn fail(&mut self) {
        self.state = State::Dead;
    }

    /// Closes with a reset.
    pub(crate) fn abort(self) {
        match &self.shared.socket {
            Socket::Uring(s) => s.reset_on_close(),
            Socket::Epoll(s) => s.reset_on_close(),
            Socket::Sim(s) => s.reset_on_close(),
        }
    }

    fn begin(&mut self) -> io::Result<()> {
        match self.state {
            State::Open => {
                self.state = State::Busy;
                Ok(())
            }
            State::Busy => {
                // What the abandoned operation read or wrote is unknown: the stream has a hole.
                self.shutdown();
                self.state = State::Dead;
                Err(io::Error::new(io::ErrorKind::NotConnected, "an operation on this connection was abandoned"))
            }
            State::Unwritable | State::Dead => Err(io::Error::new(io::ErrorKind::NotConnected, "this connection failed before")),
        }
    }

    fn end<T>(&mut self, result: io::Result<T>) -> io::Result<T> {
        self.state = if result.is_ok() { State::Open } else { State::Dead };
        result
    }

    fn shutdown(&self) {
        match &self.shared.socket {
            Socket::Uring(s) => s.shutdown(),
            Socket::Epoll(s) => s.shutdown(),
            Socket::Sim(s) => s.shutdown(),
        }
    }
}

impl Drop for Wire {
    fn drop(&mut self) {
        // An abandoned operation keeps the descriptor and a buffer until it ends; this ends it.
        if self.state == State::Busy {
            self.shutdown();
        }
    }
}

/// Awaits `operation` to its end, come what may. If the deadline comes first, `shutdown` makes it end.
pub(crate) async fn bounded<T>(
    timer: &mut Timer,
    deadline: Instant,
    shutdown: impl FnOnce(),
    operation: impl Future<Output = io::Result<T>>,
) -> io::Result<T> {
    let mut operation = pin!(operation);
    let mut shutdown = Some(shutdown);
    poll_fn(|cx| {
        if shutdown.is_some() {
            if let Poll::Ready(result) = operation.as_mut().poll(cx) {
                return Poll::Ready(result);
            }
            std::task::ready!(timer.poll(cx, deadline));
            if let Some(shutdown) = shutdown.take() {
                shutdown();
            }
        }
        // Whatever it says now, the stream is over.
        operation.as_mut().poll(cx).map(|_| Err(timed_out()))
    })
    .await
}

pub(crate) fn timed_out() -> io::Error {
    io::Error::new(io::ErrorKind::TimedOut, "the deadline passed")
}

/// One timer for all the waits of a connection. It is armed at the first wait and left as it is while later deadlines
/// lie further off: a session moves its deadline with every line, and the timer wheel should not hear of each.
#[derive(Default)]
pub(crate) struct Timer(Option<Pin<Box<Sleep>>>);

impl Timer {
    fn poll(&mut self, cx: &mut Context<'_>, deadline: Instant) -> Poll<()> {
        let sleep = self.0.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(deadline)));
        if deadline < sleep.deadline() {
            sleep.as_mut().reset(deadline);
        }
        loop {
            std::task::ready!(sleep.as_mut().poll(cx));
            if sleep.deadline() >= deadline {
                return Poll::Ready(());
            }
            // It went off for an earlier wait that has ended well.
            sleep.as_mut().reset(deadline);
        }
    }
}

/// The read buffer. It grows while reads fill it and shrinks when they do not, so that a session waiting for its next
/// command holds 4 KiB, and a body arrives in pieces of 64.
pub(crate) struct Buffer {
    octets: BytesMut,
    wanted: usize,
}

impl Buffer {
    const LEAST: usize = 4 << 10;
    const MOST: usize = 64 << 10;

    fn new() -> Self {
        Self { octets: BytesMut::new(), wanted: Self::LEAST }
    }

    /// Room for one read. What `finish` handed out and was dropped since is used again.
    pub(crate) fn take(&mut self) -> BytesMut {
        let mut octets = std::mem::take(&mut self.octets);
        if octets.capacity() > self.wanted {
            octets = BytesMut::new();
        }
        octets.reserve(self.wanted);
        octets
    }

    /// Gives back what `take` gave, after a read that brought nothing yet.
    pub(crate) fn put_back(&mut self, octets: BytesMut) {
        self.octets = octets;
    }

    /// Hands out what was read.
    pub(crate) fn finish(&mut self, mut octets: BytesMut) -> Bytes {
        let read = octets.len();
        if read >= self.wanted {
            self.wanted = (self.wanted * 4).min(Self::MOST);
        } else if read < self.wanted / 4 {
            self.wanted = Self::LEAST;
        } else {
            // The socket is empty for now: the next read may wait for long, with the buffer in the kernel's hands.
            self.wanted = (self.wanted / 4).max(Self::LEAST);
        }
        let handed_out = octets.split().freeze();
        self.octets = octets;
        handed_out
    }
}
