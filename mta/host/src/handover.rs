//! Listening sockets handed from one process to the next, so that their queues never close: a client that connects in
//! between waits for its greeting, and is not refused.
//!
//! Two ways. Without a service manager a new process asks the running one over a Unix socket: [`Offer`] answers,
//! [`Predecessor`] asks. With systemd the manager holds a copy of each socket ([`store`]), or has made them itself, and
//! passes them to whatever it starts next ([`inherited`]).
//!
//! The talk between the two processes: the old one says `sockets N`, a line, and sends N descriptors (SCM_RIGHTS); the new
//! one says `take`, a line, when it has them and wants them. Only then the old one begins to stop; until then either may
//! hang up, and nothing has happened. The connection stays open until the old process is gone.
#![allow(unsafe_code)]

use std::fmt;
use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, FromRawFd, OwnedFd};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{SocketAddr as UnixAddress, UnixDatagram};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::time::Duration;

use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage, SendFlags, recvmsg, sendmsg,
};
use rustix::process::{Pid, PidfdFlags, pidfd_open};
use tokio::io::{AsyncReadExt, AsyncWriteExt, Interest};
use tokio::net::{UnixListener, UnixStream};
use tokio::time::timeout;

use crate::{Bound, socket};

/// Descriptors in one message; Linux takes 253 at most (SCM_MAX_FD).
const AT_ONCE: usize = 64;
/// Sockets that a predecessor may hand over. A larger number is no daemon of ours.
const SOCKETS_MAX: usize = 4096;
/// For each line and each descriptor of the talk. The other side hangs up after it, and both go on as before.
const WAIT: Duration = Duration::from_secs(10);
const TAKE: &[u8] = b"take\n";

/// The sockets that the service manager passed to this process (sd_listen_fds(3)), with their names. Empty the second time.
pub fn inherited() -> io::Result<Vec<Bound>> {
    static TAKEN: AtomicBool = AtomicBool::new(false);
    if TAKEN.swap(true, SeqCst) {
        return Ok(Vec::new());
    }
    let mut sockets = Vec::new();
    for (descriptor, name) in sd_notify::listen_fds_with_names()? {
        // SAFETY: whoever started us says that it opened this descriptor for us, and nobody has taken it before.
        let descriptor = unsafe { OwnedFd::from_raw_fd(descriptor) };
        sockets.push(Bound::received(descriptor, Some(name))?);
    }
    Ok(sockets)
}

/// Gives the service manager a copy of each socket, to be passed to the next process under this name (FDSTORE). A copy that
/// it has already is not kept twice. Without a service manager, or when it keeps no descriptors, nothing happens.
pub fn store(name: &str, sockets: &[&Bound]) -> io::Result<()> {
    let descriptors: Vec<_> = sockets.iter().filter_map(|bound| bound.descriptor()).collect();
    for descriptors in descriptors.chunks(AT_ONCE) {
        notify(&format!("FDSTORE=1\nFDNAME={name}\n"), descriptors)?;
    }
    Ok(())
}

/// Tells the service manager to close what it keeps under this name (FDSTOREREMOVE).
pub fn discard(name: &str) -> io::Result<()> {
    notify(&format!("FDSTOREREMOVE=1\nFDNAME={name}\n"), &[])
}

fn notify(state: &str, descriptors: &[BorrowedFd<'_>]) -> io::Result<()> {
    let Some(path) = std::env::var_os("NOTIFY_SOCKET") else { return Ok(()) };
    let socket = UnixDatagram::unbound()?;
    match path.as_bytes().strip_prefix(b"@") {
        Some(name) => socket.connect_addr(&UnixAddress::from_abstract_name(name)?)?,
        None => socket.connect(path)?,
    }
    send(&socket, state.as_bytes(), descriptors)
}

/// Where a running daemon can be asked for its sockets: a Unix socket, mode 0600.
#[derive(Debug)]
pub struct Offer(UnixListener);

impl Offer {
    /// Binds `path`; call it as the one who owns the folder (a socket that is there is replaced).
    pub fn bind(path: &Path) -> io::Result<Self> {
        match std::fs::remove_file(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let listener = UnixListener::bind(path)?;
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600))?;
        Ok(Self(listener))
    }

    /// Waits until a process of the same user has taken copies of all `sockets`. Keep the [`Successor`] until the end: it
    /// waits for that. The text of an attempt that came to nothing goes to `failed`.
    pub async fn taken(&self, sockets: &[Bound], failed: impl Fn(io::Error)) -> Successor {
        loop {
            let attempt = async {
                let (stream, _) = self.0.accept().await?;
                hand_over(stream, sockets).await
            };
            match attempt.await {
                Ok(successor) => return successor,
                Err(error) => {
                    failed(error);
                    // Out of descriptors, at worst: not to be asked again at once.
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            }
        }
    }
}

async fn hand_over(mut stream: UnixStream, sockets: &[Bound]) -> io::Result<Successor> {
    let peer = stream.peer_cred()?;
    if peer.uid() != rustix::process::geteuid().as_raw() {
        let text = format!("user {} asked for the listening sockets, who is not us", peer.uid());
        return Err(io::Error::new(io::ErrorKind::PermissionDenied, text));
    }
    let descriptors: Vec<_> = sockets.iter().filter_map(Bound::descriptor).collect();
    within(stream.write_all(format!("sockets {}\n", descriptors.len()).as_bytes())).await?;
    for descriptors in descriptors.chunks(AT_ONCE) {
        within(stream.async_io(Interest::WRITABLE, || send(&stream, b".", descriptors))).await?;
    }
    let mut answer = [0; TAKE.len()];
    within(stream.read_exact(&mut answer)).await?;
    if answer != TAKE {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "the answer to the handed sockets was not understood"));
    }
    Ok(Successor { pid: peer.pid(), _stream: stream })
}

/// The process that waits for us to end. It sees that by this being closed, at the latest with our process.
pub struct Successor {
    pid: Option<i32>,
    _stream: UnixStream,
}

impl fmt::Debug for Successor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Successor").field("pid", &self.pid).finish()
    }
}

/// A running daemon that has shown us its sockets, and goes on serving until it is told that we take them.
pub struct Predecessor {
    stream: UnixStream,
    process: OwnedFd,
    pid: i32,
    sockets: Vec<Bound>,
}

impl Predecessor {
    /// Asks the daemon behind the [`Offer`] at `path`; none when nobody is there.
    pub async fn ask(path: &Path) -> io::Result<Option<Self>> {
        let mut stream = match UnixStream::connect(path).await {
            Ok(stream) => stream,
            Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused) => return Ok(None),
            Err(error) => return Err(error),
        };
        // Its end is not only seen by the closed connection: what else it held must be closed, too, before we open it.
        let pid = stream.peer_cred()?.pid().unwrap_or(0);
        let process =
            Pid::from_raw(pid).ok_or_else(|| io::Error::other("the running daemon's process cannot be seen from here"))?;
        let process = pidfd_open(process, PidfdFlags::empty())?;
        let sockets = receive(&mut stream).await?;
        Ok(Some(Self { stream, process, pid, sockets }))
    }

    /// Its process id.
    pub fn pid(&self) -> i32 {
        self.pid
    }

    /// What it would hand over.
    pub fn sockets(&self) -> &[Bound] {
        &self.sockets
    }

    /// Takes the sockets: the other daemon finishes what it has begun and ends. Returns when its process is gone.
    pub async fn relieve(mut self) -> io::Result<Vec<Bound>> {
        within(self.stream.write_all(TAKE)).await?;
        // How long that takes is bounded by the other one's own time to stop.
        socket::watched(self.process)?.readable().await?.retain_ready();
        Ok(self.sockets)
    }
}

impl fmt::Debug for Predecessor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Predecessor").field("pid", &self.pid).field("sockets", &self.sockets).finish()
    }
}

async fn receive(stream: &mut UnixStream) -> io::Result<Vec<Bound>> {
    let (mut said, mut sockets, mut expected) = (Vec::new(), Vec::new(), None);
    while expected.is_none_or(|expected| sockets.len() < expected) {
        let (octets, descriptors) = within(stream.async_io(Interest::READABLE, || recv(&stream))).await?;
        if octets.is_empty() {
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the running daemon hung up; is it stopping already?"));
        }
        for descriptor in descriptors {
            sockets.push(Bound::received(descriptor, None)?);
        }
        said.extend(octets);
        if expected.is_none()
            && let Some(end) = said.iter().position(|octet| *octet == b'\n')
        {
            let line = String::from_utf8_lossy(&said[..end]);
            let count = line.strip_prefix("sockets ").and_then(|count| count.parse().ok()).filter(|count| *count <= SOCKETS_MAX);
            let not_ours = || io::Error::new(io::ErrorKind::InvalidData, format!("the running daemon said {line:?}"));
            expected = Some(count.ok_or_else(not_ours)?);
        }
        if said.len() > SOCKETS_MAX {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "the running daemon says too much"));
        }
    }
    Ok(sockets)
}

async fn within<T>(what: impl Future<Output = io::Result<T>>) -> io::Result<T> {
    timeout(WAIT, what).await.unwrap_or_else(|_| Err(io::Error::new(io::ErrorKind::TimedOut, "the other daemon does not answer")))
}

fn send(socket: impl AsFd, octets: &[u8], descriptors: &[BorrowedFd<'_>]) -> io::Result<()> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(AT_ONCE))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !descriptors.is_empty() {
        // There is room for as many as the callers send at once.
        let _ = control.push(SendAncillaryMessage::ScmRights(descriptors));
    }
    sendmsg(socket, &[IoSlice::new(octets)], &mut control, SendFlags::NOSIGNAL)?;
    Ok(())
}

fn recv(socket: impl AsFd) -> io::Result<(Vec<u8>, Vec<OwnedFd>)> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(AT_ONCE))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let mut octets = vec![0; 64];
    let received = recvmsg(socket, &mut [IoSliceMut::new(&mut octets)], &mut control, RecvFlags::CMSG_CLOEXEC)?;
    octets.truncate(received.bytes);
    let mut descriptors = Vec::new();
    for message in control.drain() {
        if let RecvAncillaryMessage::ScmRights(more) = message {
            descriptors.extend(more);
        }
    }
    Ok((octets, descriptors))
}
