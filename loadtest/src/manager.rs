//! A service manager in small: makes and holds listening sockets, keeps what a daemon gives it (FDSTORE), and passes all
//! of it to what it starts next, as systemd does (sd_listen_fds(3), sd_notify(3)).

use std::fs;
use std::io::{self, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context, Result};
use rustix::io::{FdFlags, fcntl_dupfd_cloexec, fcntl_setfd};
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};

/// Where descriptors wait that a child is to find from 3 on; above any that it is given.
const ABOVE: RawFd = 300;

type Kept = Arc<Mutex<Vec<(String, OwnedFd)>>>;

/// The manager; what it holds is closed when it is dropped.
pub struct Manager {
    notify: PathBuf,
    kept: Kept,
    stop: Arc<AtomicBool>,
    receiver: Option<JoinHandle<()>>,
}

impl Manager {
    /// Listens for what daemons say, on a socket in `directory`.
    pub fn start(directory: &Path) -> Result<Self> {
        let notify = directory.join("notify.sock");
        let socket = UnixDatagram::bind(&notify).with_context(|| format!("bind {}", notify.display()))?;
        socket.set_read_timeout(Some(Duration::from_millis(50)))?;
        let (kept, stop) = (Kept::default(), Arc::new(AtomicBool::new(false)));
        let receiver = std::thread::spawn({
            let (kept, stop) = (kept.clone(), stop.clone());
            move || {
                while !stop.load(Relaxed) {
                    // A timeout, at worst.
                    let _ = receive(&socket, &kept);
                }
            }
        });
        Ok(Self { notify, kept, stop, receiver: Some(receiver) })
    }

    /// Holds a socket of a socket unit.
    pub fn hold(&self, name: &str, socket: OwnedFd) -> io::Result<()> {
        keep(&self.kept, name, socket)
    }

    /// How many descriptors it holds.
    pub fn held(&self) -> usize {
        locked(&self.kept).len()
    }

    /// A command whose child gets everything that is held; the descriptors must stay open until it is started. A shell puts
    /// them in place, because only the child knows its own process id (LISTEN_PID).
    pub fn command(&self, program: &Path) -> Result<(Command, Vec<OwnedFd>)> {
        let kept = locked(&self.kept);
        let (mut open, mut redirections) = (Vec::new(), String::new());
        for (nth, (_, descriptor)) in kept.iter().enumerate() {
            let copy = fcntl_dupfd_cloexec(descriptor, ABOVE)?;
            fcntl_setfd(&copy, FdFlags::empty())?;
            redirections += &format!(" {}<&{copy} {copy}<&-", 3 + nth, copy = copy.as_raw_fd());
            open.push(copy);
        }
        let names: Vec<&str> = kept.iter().map(|(name, _)| name.as_str()).collect();
        let mut command = Command::new("bash");
        command
            .arg("-c")
            .arg(format!("LISTEN_PID=$$ exec \"$0\" \"$@\"{redirections}"))
            .arg(program)
            .env("LISTEN_FDS", kept.len().to_string())
            .env("LISTEN_FDNAMES", names.join(":"))
            .env("NOTIFY_SOCKET", &self.notify);
        Ok((command, open))
    }
}

impl Drop for Manager {
    fn drop(&mut self) {
        self.stop.store(true, Relaxed);
        if let Some(receiver) = self.receiver.take() {
            let _ = receiver.join();
        }
    }
}

fn receive(socket: &UnixDatagram, kept: &Kept) -> io::Result<()> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(253))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let mut octets = [0; 4096];
    let received = recvmsg(socket, &mut [IoSliceMut::new(&mut octets)], &mut control, RecvFlags::CMSG_CLOEXEC)?;
    let state = String::from_utf8_lossy(&octets[..received.bytes]).into_owned();
    let name = state.lines().find_map(|line| line.strip_prefix("FDNAME=")).unwrap_or("stored");
    if state.lines().any(|line| line == "FDSTOREREMOVE=1") {
        locked(kept).retain(|(kept, _)| kept != name);
    }
    for message in control.drain() {
        if let RecvAncillaryMessage::ScmRights(descriptors) = message {
            for descriptor in descriptors {
                keep(kept, name, descriptor)?;
            }
        }
    }
    Ok(())
}

/// The same socket is kept once.
fn keep(kept: &Kept, name: &str, descriptor: OwnedFd) -> io::Result<()> {
    let inode = |descriptor: &OwnedFd| fs::read_link(format!("/proc/self/fd/{}", descriptor.as_raw_fd()));
    let new = inode(&descriptor)?;
    let mut kept = locked(kept);
    if !kept.iter().any(|(_, known)| inode(known).is_ok_and(|known| known == new)) {
        kept.push((name.to_owned(), descriptor));
    }
    Ok(())
}

fn locked(kept: &Kept) -> MutexGuard<'_, Vec<(String, OwnedFd)>> {
    kept.lock().unwrap_or_else(PoisonError::into_inner)
}
