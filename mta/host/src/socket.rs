//! Making sockets: what has to be set before they are bound, and the few calls that std does not have.
#![allow(unsafe_code)]

use std::io;
use std::mem::MaybeUninit;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::time::Duration;

use socket2::{Domain, Protocol, SockRef, Socket, Type};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// A listening socket that others of this process may share the address with (one listener for every ring thread).
pub(crate) fn listening(address: SocketAddr, backlog: u32) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    if address.is_ipv6() {
        // `[::]` and `0.0.0.0` are configured apart; one must not take the other's port.
        socket.set_only_v6(true)?;
    }
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(true)?;
    // Accepted sockets inherit it: one call here instead of one a connection.
    socket.set_tcp_nodelay(true)?;
    socket.bind(&address.into())?;
    socket.set_nonblocking(true)?;
    socket.listen(i32::try_from(backlog).unwrap_or(i32::MAX))?;
    Ok(socket)
}

/// A descriptor whose readiness to be read from, or accepted from, is waited for.
pub(crate) fn watched(owner: impl Into<OwnedFd>) -> io::Result<AsyncFd<OwnedFd>> {
    // SAFETY: an OwnedFd is the same open descriptor as long as it lives, and it lives as long as what it is moved into.
    Ok(unsafe { AsyncFd::register_with_interest(owner.into(), Interest::READABLE) }?)
}

/// The address that a socket is bound to.
pub(crate) fn local_addr(socket: &Socket) -> io::Result<SocketAddr> {
    let bound = socket.local_addr()?;
    bound.as_socket().ok_or_else(|| io::Error::new(io::ErrorKind::Unsupported, "not an internet address"))
}

/// A socket about to connect to `peer`, from `source` if one is named.
pub(crate) fn outgoing(source: Option<IpAddr>, peer: SocketAddr) -> io::Result<Socket> {
    same_family(source, peer)?;
    let socket = Socket::new(Domain::for_address(peer), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_tcp_nodelay(true)?;
    if let Some(source) = source {
        bind_address_no_port(&socket)?;
        socket.bind(&SocketAddr::new(source, 0).into()).map_err(|error| {
            io::Error::new(error.kind(), format!("cannot send from {source}: {error} (is it an address of this machine?)"))
        })?;
    }
    Ok(socket)
}

/// IPv4 speaks to IPv4 only, and IPv6 to IPv6.
pub(crate) fn same_family(source: Option<IpAddr>, peer: SocketAddr) -> io::Result<()> {
    match source {
        Some(source) if source.is_ipv4() != peer.is_ipv4() => {
            let text = format!("cannot connect from {source} to {peer}: not of one address family");
            Err(io::Error::new(io::ErrorKind::InvalidInput, text))
        }
        _ => Ok(()),
    }
}

/// The port is chosen at connect, by the pair of both ends: otherwise one source has no more than some 28,000 ports for the whole world.
fn bind_address_no_port(socket: &Socket) -> io::Result<()> {
    let one: libc::c_int = 1;
    // SAFETY: the pointer and the length describe `one`, which outlives the call.
    let result = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::IPPROTO_IP,
            libc::IP_BIND_ADDRESS_NO_PORT,
            (&raw const one).cast(),
            size_of::<libc::c_int>() as libc::socklen_t,
        )
    };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// The first octet waiting in the socket, left there. `Ok(None)` at the end of the stream, `WouldBlock` when nothing came yet.
pub(crate) fn peek(socket: &impl AsFd) -> io::Result<Option<u8>> {
    let mut octet = [MaybeUninit::uninit()];
    match SockRef::from(socket).recv_with_flags(&mut octet, libc::MSG_PEEK | libc::MSG_DONTWAIT)? {
        0 => Ok(None),
        // SAFETY: the kernel has written one octet.
        _ => Ok(Some(unsafe { octet[0].assume_init() })),
    }
}

/// What is done before a friendly close: `last_words` are sent if the socket takes them at once, and what the peer has sent
/// is thrown away, because closing a socket with unread octets resets it, and the reset may overtake our last reply.
pub(crate) fn farewell(socket: &impl AsFd, last_words: &[u8]) {
    let socket = SockRef::from(socket);
    if !last_words.is_empty() {
        let _ = socket.send_with_flags(last_words, libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL);
    }
    let mut octets = [MaybeUninit::uninit(); 4096];
    // At most 64 KiB: whoever goes on talking is reset.
    for _ in 0..16 {
        match socket.recv_with_flags(&mut octets, libc::MSG_DONTWAIT) {
            Ok(n) if n == octets.len() => {}
            _ => return,
        }
    }
}

/// Makes the close that follows a reset.
pub(crate) fn reset_on_close(socket: &impl AsFd) {
    let _ = SockRef::from(socket).set_linger(Some(Duration::ZERO));
}

/// Ends reading alone: a read that waits completes, with what has arrived or with nothing. The peer is not told.
pub(crate) fn end_reading(socket: &impl AsFd) {
    let _ = SockRef::from(socket).shutdown(std::net::Shutdown::Read);
}

/// Ends both directions: what is pending on the socket completes.
pub(crate) fn shutdown(socket: &impl AsFd) {
    // The peer may be gone already; then there is nothing to end.
    let _ = SockRef::from(socket).shutdown(std::net::Shutdown::Both);
}
