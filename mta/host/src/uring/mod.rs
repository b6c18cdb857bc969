//! Sockets over io_uring by tokio-uring.
//!
//! tokio-uring's own `TcpStream` cannot bind before it connects and reads with Read instead of Recv; so the operations
//! are built here (`ops.rs`) and handed to its runtime. Sockets are blocking ones: on O_NONBLOCK io_uring would answer EAGAIN.

mod ops;

use std::future::Future;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::time::Instant;

use crate::socket;
use crate::wire::{Buffer, Timer, bounded};

/// Submission queue entries of a ring: operations that a thread may begin between two looks at the kernel. More is no
/// error: the queue is then submitted at once.
const ENTRIES: u32 = 4096;

/// Whether the kernel grants a ring with what we use.
pub(crate) fn probe() -> io::Result<()> {
    use io_uring06::{IoUring, Probe, opcode};
    let ring: IoUring = IoUring::builder().setup_coop_taskrun().build(8)?;
    let mut probe = Probe::new();
    ring.submitter().register_probe(&mut probe)?;
    for code in [opcode::Connect::CODE, opcode::Recv::CODE, opcode::Send::CODE] {
        if !probe.is_supported(code) {
            return Err(io::Error::new(io::ErrorKind::Unsupported, format!("the kernel lacks io_uring operation {code}")));
        }
    }
    Ok(())
}

/// Runs `main` in a tokio-uring runtime. COOP_TASKRUN always: without it completions interrupt the thread (18 % measured).
pub(crate) fn run<F: Future>(main: F) -> io::Result<F::Output> {
    let mut ring = tokio_uring::uring_builder();
    ring.setup_coop_taskrun();
    let mut builder = tokio_uring::builder();
    builder.entries(ENTRIES).uring_builder(&ring);
    Ok(tokio_uring::Runtime::new(&builder)?.block_on(main))
}

pub(crate) struct Socket(Arc<socket2::Socket>);

impl Socket {
    /// One that was accepted, and blocks.
    pub(crate) fn of(descriptor: OwnedFd) -> Self {
        Self(Arc::new(descriptor.into()))
    }

    pub(crate) fn local_addr(&self) -> io::Result<SocketAddr> {
        socket::local_addr(&self.0)
    }

    pub(crate) async fn connect(source: Option<IpAddr>, peer: SocketAddr, deadline: Instant) -> io::Result<(Self, SocketAddr)> {
        let mut attempt = Attempt { socket: Arc::new(socket::outgoing(source, peer)?), pending: true };
        let socket = &attempt.socket;
        let connected =
            bounded(&mut Timer::default(), deadline, || socket::shutdown(&**socket), ops::connect(socket, peer)).await;
        attempt.pending = false;
        connected?;
        let local = socket::local_addr(&attempt.socket)?;
        Ok((Self(attempt.socket.clone()), local))
    }

    pub(crate) async fn recv(&self, buffer: &mut Buffer) -> io::Result<Bytes> {
        let (result, octets) = ops::recv(&self.0, buffer.take()).await;
        result?;
        Ok(buffer.finish(octets))
    }

    pub(crate) async fn send(&self, mut octets: Bytes) -> io::Result<()> {
        while !octets.is_empty() {
            let sent = ops::send(&self.0, octets.clone()).await?;
            drop(octets.split_to(sent));
        }
        Ok(())
    }

    /// Looks now and then, at growing intervals: a read that waits in the ring could only be taken back by shutting the socket down.
    pub(crate) async fn peek(&self, wait: Duration) -> io::Result<Option<u8>> {
        let end = Instant::now() + wait;
        let mut pause = Duration::from_millis(1);
        loop {
            match socket::peek(&*self.0) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                seen => return seen,
            }
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(None);
            }
            tokio::time::sleep(pause.min(left)).await;
            pause = (pause * 2).min(Duration::from_millis(16));
        }
    }

    pub(crate) fn shutdown(&self) {
        socket::shutdown(&*self.0);
    }

    pub(crate) fn end_reading(&self) {
        socket::end_reading(&*self.0);
    }

    pub(crate) fn close(&self, farewell: &[u8]) {
        socket::farewell(&*self.0, farewell);
    }

    pub(crate) fn reset_on_close(&self) {
        socket::reset_on_close(&*self.0);
    }
}

/// A connect whose future is dropped would go on for minutes; this ends it.
struct Attempt {
    socket: Arc<socket2::Socket>,
    pending: bool,
}

impl Drop for Attempt {
    fn drop(&mut self) {
        if self.pending {
            socket::shutdown(&*self.socket);
        }
    }
}
