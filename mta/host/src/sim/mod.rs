//! The network in memory, for running the whole daemon in virtual time: one thread, paused clock, everything by seed.
//!
//! Octets take a link's latency to arrive and at most [`WINDOW`] of them are under way in one direction; then writers wait,
//! as they do for TCP. What goes wrong is said by address: [`Net::refuse`], [`Net::cut`], [`Net::restore`]; an address with port 0
//! means every port of its IP, so that a whole host, or one of our sources, can be hit. Call them inside [`crate::run`].
//!
//! [`disk`] is the disk beside it.
//!
//! Not simulated: loss and reordering below TCP, which peers only see as latency.

pub mod disk;
mod link;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fmt;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::{Instant, sleep, timeout_at};

use crate::dice::Dice;
use crate::inflight::InFlight;
use crate::socket::same_family;
use crate::wire::timed_out;
pub use disk::Disk;
use link::Link;
pub(crate) use link::Socket;

/// Octets under way, or arrived and unread, in one direction of one connection.
pub const WINDOW: usize = 64 << 10;

/// How long at most a cut link is silent before both ends see a reset; shorter by seed.
const SILENCE_MAX: Duration = Duration::from_secs(10);

/// A simulated network. Clones are the same network.
#[derive(Clone)]
pub struct Net(Arc<Mutex<World>>);

struct World {
    dice: Dice,
    latency: (Duration, Duration),
    /// Ordered, like all here: iteration must not depend on a hash seed.
    slow: BTreeMap<SocketAddr, Duration>,
    listeners: BTreeMap<SocketAddr, Vec<Weak<Backlog>>>,
    refused: BTreeSet<SocketAddr>,
    severed: BTreeSet<SocketAddr>,
    links: Vec<Weak<Link>>,
    next_port: u16,
}

impl Net {
    /// A network whose links take 1 to 20 ms, by `seed`.
    pub fn new(seed: u64) -> Self {
        Self(Arc::new(Mutex::new(World {
            dice: Dice::seeded(seed),
            latency: (Duration::from_millis(1), Duration::from_millis(20)),
            slow: BTreeMap::new(),
            listeners: BTreeMap::new(),
            refused: BTreeSet::new(),
            severed: BTreeSet::new(),
            links: Vec::new(),
            next_port: 32_768,
        })))
    }

    /// Links made from now on take `least` to `most` one way, each its own time.
    pub fn set_latency(&self, least: Duration, most: Duration) {
        self.world().latency = (least, most.max(least));
    }

    /// Links with `address` made from now on take `latency` one way.
    pub fn set_latency_of(&self, address: SocketAddr, latency: Duration) {
        self.world().slow.insert(address, latency);
    }

    /// New connections to `address` are refused. Those that exist live on.
    pub fn refuse(&self, address: SocketAddr) {
        self.world().refused.insert(address);
    }

    /// The links with `address` die: what is under way is lost, writes vanish, reads are silent for a while and then see a
    /// reset. New connections are not answered.
    pub fn cut(&self, address: SocketAddr) {
        let mut world = self.world();
        world.severed.insert(address);
        world.links.retain(|link| link.strong_count() > 0);
        for link in world.links.iter().filter_map(Weak::upgrade) {
            if link.ends.iter().any(|&end| covers(address, end)) {
                let silence = Duration::from_millis(world.dice.below(SILENCE_MAX.as_millis() as u64));
                link.cut(Instant::now() + silence);
            }
        }
    }

    /// Undoes `refuse` and `cut` of `address` for connections to come; links that died stay dead.
    pub fn restore(&self, address: SocketAddr) {
        let mut world = self.world();
        world.refused.remove(&address);
        world.severed.remove(&address);
    }

    /// Ends of connections that somebody still holds, each for itself: two of one that nobody has closed.
    pub fn open_sockets(&self) -> usize {
        self.world().links.iter().map(Weak::strong_count).sum()
    }

    pub(crate) fn listen(&self, address: SocketAddr, backlog: u32) -> io::Result<(Listener, SocketAddr)> {
        let mut world = self.world();
        let local = if address.port() == 0 { SocketAddr::new(address.ip(), world.port()) } else { address };
        let backlog = Arc::new(Backlog { most: backlog.max(1) as usize, waiting: Mutex::default(), changed: Notify::new() });
        world.listeners.entry(local).or_default().push(Arc::downgrade(&backlog));
        Ok((Listener(backlog), local))
    }

    pub(crate) async fn connect(
        &self,
        source: Option<IpAddr>,
        peer: SocketAddr,
        deadline: Instant,
    ) -> io::Result<(Socket, SocketAddr)> {
        let _counted = InFlight::begin();
        timeout_at(deadline, self.connected(source, peer)).await.unwrap_or_else(|_| Err(timed_out()))
    }

    async fn connected(&self, source: Option<IpAddr>, peer: SocketAddr) -> io::Result<(Socket, SocketAddr)> {
        same_family(source, peer)?;
        let (local, latency) = {
            let mut world = self.world();
            let ip = source.unwrap_or(match peer {
                SocketAddr::V4(_) => Ipv4Addr::LOCALHOST.into(),
                SocketAddr::V6(_) => Ipv6Addr::LOCALHOST.into(),
            });
            let local = SocketAddr::new(ip, world.port());
            (local, world.latency_of(local, peer))
        };
        loop {
            sleep(latency).await;
            let answer = self.world().knock(local, peer);
            match answer {
                Knock::Refused => {}
                Knock::Nothing => std::future::pending().await,
                Knock::Full => {
                    // As TCP does when its SYN gets no answer.
                    sleep(Duration::from_secs(1)).await;
                    continue;
                }
                Knock::Open(backlog) => {
                    let (near, far) = Link::pair(local, peer, latency);
                    self.world().links.push(near.link());
                    backlog.push(far, local, peer);
                    sleep(latency).await;
                    return Ok((near, local));
                }
            }
            sleep(latency).await;
            return Err(io::ErrorKind::ConnectionRefused.into());
        }
    }

    fn world(&self) -> MutexGuard<'_, World> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Net {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("sim::Net(..)")
    }
}

enum Knock {
    Open(Arc<Backlog>),
    Full,
    Refused,
    Nothing,
}

impl World {
    fn port(&mut self) -> u16 {
        let port = self.next_port;
        self.next_port = port.checked_add(1).unwrap_or(32_768);
        port
    }

    fn latency_of(&mut self, local: SocketAddr, peer: SocketAddr) -> Duration {
        let slow = self.slow.iter().find(|&(&address, _)| covers(address, local) || covers(address, peer));
        if let Some((_, &latency)) = slow {
            return latency;
        }
        let (least, most) = self.latency;
        let spread = (most - least).as_micros() as u64;
        least + Duration::from_micros(self.dice.below(spread + 1))
    }

    fn knock(&mut self, local: SocketAddr, peer: SocketAddr) -> Knock {
        if self.severed.iter().any(|&address| covers(address, local) || covers(address, peer)) {
            return Knock::Nothing;
        }
        if self.refused.iter().any(|&address| covers(address, peer)) {
            return Knock::Refused;
        }
        let anywhere: IpAddr = if peer.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
        for address in [peer, SocketAddr::new(anywhere, peer.port())] {
            let Some(listeners) = self.listeners.get_mut(&address) else { continue };
            listeners.retain(|listener| listener.strong_count() > 0);
            if listeners.is_empty() {
                continue;
            }
            // As with SO_REUSEPORT: any of those that share the address.
            let any = self.dice.below(listeners.len() as u64) as usize;
            let Some(backlog) = listeners[any].upgrade() else { continue };
            let full = backlog.waiting().len() >= backlog.most;
            return if full { Knock::Full } else { Knock::Open(backlog) };
        }
        Knock::Refused
    }
}

/// Whether `rule` speaks of `address`: port 0 of a rule is every port.
fn covers(rule: SocketAddr, address: SocketAddr) -> bool {
    rule.ip() == address.ip() && (rule.port() == 0 || rule.port() == address.port())
}

struct Backlog {
    most: usize,
    waiting: Mutex<VecDeque<(Socket, SocketAddr, SocketAddr)>>,
    changed: Notify,
}

impl Backlog {
    fn waiting(&self) -> MutexGuard<'_, VecDeque<(Socket, SocketAddr, SocketAddr)>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn push(&self, socket: Socket, peer: SocketAddr, local: SocketAddr) {
        self.waiting().push_back((socket, peer, local));
        self.changed.notify_one();
    }
}

impl Drop for Backlog {
    fn drop(&mut self) {
        // As the kernel does when the last descriptor of a listening socket is closed.
        for (socket, _, _) in self.waiting().drain(..) {
            socket.reset_on_close();
        }
    }
}

/// A listening socket; clones are the same one.
#[derive(Clone)]
pub(crate) struct Listener(Arc<Backlog>);

impl Listener {
    /// A connection that waits already: its socket, its peer, its local address.
    pub(crate) fn take(&self) -> Option<(Socket, SocketAddr, SocketAddr)> {
        self.0.waiting().pop_front()
    }

    /// Waits until one has come; it may be gone again.
    pub(crate) async fn changed(&self) {
        self.0.changed.notified().await;
    }
}
