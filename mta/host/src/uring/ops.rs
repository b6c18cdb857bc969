//! One-shot operations in tokio-uring's ring.
//!
//! What the kernel reads or writes travels with the operation ([`UnsubmittedOneshot`]'s stable data): if its future is
//! dropped, tokio-uring keeps the data until the kernel is done. The same holds for the descriptor and the [`InFlight`] count.
#![allow(unsafe_code)]

use std::future::Future;
use std::io;
use std::marker::PhantomData;
use std::net::SocketAddr;
use std::os::fd::AsRawFd;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use io_uring06::types::Fd;
use io_uring06::{cqueue, opcode, squeue};
use socket2::{SockAddr, Socket};
use tokio_uring::{OneshotOutputTransform, UnsubmittedOneshot};

use crate::inflight::InFlight;

/// What an operation keeps alive until the kernel is done with it.
struct Held<D> {
    data: D,
    _socket: Arc<Socket>,
    _counted: InFlight,
}

/// Hands back the result and the data.
struct Whole<D>(PhantomData<D>);

impl<D> OneshotOutputTransform for Whole<D> {
    type Output = (io::Result<usize>, D);
    type StoredData = Held<D>;

    fn transform_oneshot_output(self, held: Held<D>, completed: cqueue::Entry) -> Self::Output {
        let code = completed.result();
        let result = usize::try_from(code).map_err(|_| io::Error::from_raw_os_error(-code));
        (result, held.data)
    }
}

/// Submits `entry`. All that it points to must be owned by `data` and stay where it is when `data` is moved.
fn submit<D: Unpin + 'static>(
    socket: &Arc<Socket>,
    data: D,
    entry: squeue::Entry,
) -> impl Future<Output = (io::Result<usize>, D)> {
    let held = Held { data, _socket: socket.clone(), _counted: InFlight::begin() };
    UnsubmittedOneshot::new(held, Whole(PhantomData), entry).submit()
}

/// Receives into the room that `octets` has.
pub(super) async fn recv(socket: &Arc<Socket>, mut octets: BytesMut) -> (io::Result<()>, BytesMut) {
    let room = octets.spare_capacity_mut();
    let length = u32::try_from(room.len()).unwrap_or(u32::MAX);
    // The room is on the heap: it does not move with `octets`.
    let entry = opcode::Recv::new(Fd(socket.as_raw_fd()), room.as_mut_ptr().cast(), length).build();
    let (result, mut octets) = submit(socket, octets, entry).await;
    let result = result.map(|received| {
        // SAFETY: the kernel has written `received` octets behind what was there, within the room given.
        unsafe { octets.set_len(octets.len() + received) }
    });
    (result, octets)
}

/// Sends from the front of `octets`; says how many.
pub(super) async fn send(socket: &Arc<Socket>, octets: Bytes) -> io::Result<usize> {
    let length = u32::try_from(octets.len()).unwrap_or(u32::MAX);
    // What Bytes points to does not move with it. WAITALL: the kernel goes on after a short send without coming back to us.
    let entry =
        opcode::Send::new(Fd(socket.as_raw_fd()), octets.as_ptr(), length).flags(libc::MSG_NOSIGNAL | libc::MSG_WAITALL).build();
    submit(socket, octets, entry).await.0
}

/// Connects to `peer`.
pub(super) async fn connect(socket: &Arc<Socket>, peer: SocketAddr) -> io::Result<()> {
    let peer = Box::new(SockAddr::from(peer));
    let entry = opcode::Connect::new(Fd(socket.as_raw_fd()), peer.as_ptr().cast(), peer.len()).build();
    submit(socket, peer, entry).await.0.map(drop)
}
