//! Sockets over tokio: for machines and containers that refuse io_uring.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::OwnedFd;
use std::time::Duration;

use bytes::Bytes;
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::Instant;

use crate::inflight::InFlight;
use crate::socket;
use crate::wire::{Buffer, timed_out};

pub(crate) struct Socket(TcpStream);

impl Socket {
    /// One that was accepted, and does not block.
    pub(crate) fn of(descriptor: OwnedFd) -> io::Result<Self> {
        TcpStream::from_std(descriptor.into()).map(Self)
    }

    pub(crate) fn local_addr(&self) -> io::Result<SocketAddr> {
        self.0.local_addr()
    }

    pub(crate) async fn connect(source: Option<IpAddr>, peer: SocketAddr, deadline: Instant) -> io::Result<(Self, SocketAddr)> {
        let _counted = InFlight::begin();
        let socket = socket::outgoing(source, peer)?;
        socket.set_nonblocking(true)?;
        let socket = TcpSocket::from_std_stream(socket.into());
        // Dropping a connect that waits for readiness closes the socket, and that ends it.
        let stream = tokio::time::timeout_at(deadline, socket.connect(peer)).await.map_err(|_| timed_out())??;
        let local = stream.local_addr()?;
        Ok((Self(stream), local))
    }

    /// The buffer is taken when there is something to put into it: an idle connection holds none.
    pub(crate) async fn recv(&self, buffer: &mut Buffer) -> io::Result<Bytes> {
        let _counted = InFlight::begin();
        loop {
            self.0.readable().await?;
            let mut octets = buffer.take();
            match self.0.try_read_buf(&mut octets) {
                Ok(_) => return Ok(buffer.finish(octets)),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => buffer.put_back(octets),
                Err(error) => return Err(error),
            }
        }
    }

    pub(crate) async fn send(&self, mut octets: Bytes) -> io::Result<()> {
        let _counted = InFlight::begin();
        while !octets.is_empty() {
            match self.0.try_write(&octets) {
                Ok(sent) => drop(octets.split_to(sent)),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => self.0.writable().await?,
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    pub(crate) async fn peek(&self, wait: Duration) -> io::Result<Option<u8>> {
        let _counted = InFlight::begin();
        let mut octet = [0];
        match tokio::time::timeout(wait, self.0.peek(&mut octet)).await {
            Ok(Ok(0)) | Err(_) => Ok(None),
            Ok(Ok(_)) => Ok(Some(octet[0])),
            Ok(Err(error)) => Err(error),
        }
    }

    pub(crate) fn shutdown(&self) {
        socket::shutdown(&self.0);
    }

    pub(crate) fn end_reading(&self) {
        socket::end_reading(&self.0);
    }

    pub(crate) fn close(&self, farewell: &[u8]) {
        socket::farewell(&self.0, farewell);
    }

    pub(crate) fn reset_on_close(&self) {
        socket::reset_on_close(&self.0);
    }
}
