//! The listening sockets of the daemon: those that were handed to us first, new ones for what is missing, shared out
//! to the ring threads.
//!
//! Each ring thread has a socket of its own on each address (SO_REUSEPORT), so that the kernel spreads connections
//! over them. Sockets that were handed to us may be fewer or more than threads: then some threads accept from the same
//! socket, or one thread from several, because a socket that nobody accepts from would hold clients for ever. New ones
//! are not added to an address that has some: the kernel would not let a user add to what another one has bound.
//!
//! Not here: how sockets change hands (`host::handover`).

use std::io;
use std::net::SocketAddr;

use host::{Bound, Net, handover};

use crate::ingress::BACKLOG;

/// The service manager keeps our sockets under names that begin so. Others come from its own socket units.
const STORED: &str = "listen-";

/// The sockets of each listener, in the order of the configuration.
#[derive(Debug)]
pub struct Sockets(Vec<Vec<Bound>>);

impl Sockets {
    /// Takes from `inherited` what belongs to `addresses` and binds the rest, a socket for each of `threads`. Inherited ones
    /// that belong to nobody are closed.
    pub fn bind(net: &Net, addresses: &[SocketAddr], mut inherited: Vec<Bound>, threads: usize) -> io::Result<Self> {
        let mut all = Vec::with_capacity(addresses.len());
        for address in addresses {
            let (mut ours, others): (Vec<_>, Vec<_>) = inherited.into_iter().partition(|bound| bound.local_addr() == *address);
            inherited = others;
            let mut address = *address;
            if ours.is_empty() {
                for _ in 0..threads {
                    let bound = net
                        .bind(address, BACKLOG)
                        .map_err(|error| io::Error::new(error.kind(), format!("cannot listen on {address}: {error}")))?;
                    // The others follow to where a port 0 has led.
                    address = bound.local_addr();
                    ours.push(bound);
                }
            }
            all.push(ours);
        }
        for bound in inherited {
            let address = bound.local_addr();
            match bound.name().filter(|name| name.starts_with(STORED)) {
                Some(name) => {
                    tracing::info!(%address, "no [[listen]] names this address any more; its socket is closed");
                    told(handover::discard(name));
                }
                None => tracing::warn!(
                    %address,
                    name = bound.name(),
                    "a socket on this address was handed to us, and no [[listen]] names exactly this address; it is closed"
                ),
            }
        }
        Ok(Self(all))
    }

    /// Where each listener listens.
    pub fn addresses(&self) -> Vec<SocketAddr> {
        self.0.iter().filter_map(|sockets| sockets.first()).map(Bound::local_addr).collect()
    }

    /// What each of `threads` accepts from, with the index of the listener: every thread gets a socket of every listener,
    /// and every socket a thread.
    pub fn shares(&self, threads: usize) -> io::Result<Vec<Vec<(usize, Bound)>>> {
        let mut shares: Vec<Vec<_>> = (0..threads).map(|_| Vec::new()).collect();
        for (listener, sockets) in self.0.iter().enumerate() {
            for (thread, socket) in dealt(sockets.len(), threads) {
                shares[thread].push((listener, sockets[socket].try_clone()?));
            }
        }
        Ok(shares)
    }

    /// All of them, to be handed on.
    pub fn copies(&self) -> io::Result<Vec<Bound>> {
        self.0.iter().flatten().map(Bound::try_clone).collect()
    }

    /// Gives the service manager copies, so that a restart by it leaves the queues of the sockets open. It has its own of
    /// those that its socket units made.
    pub fn store(&self) {
        for sockets in &self.0 {
            let ours = |bound: &&Bound| bound.name().is_none_or(|name| name.starts_with(STORED));
            let ours: Vec<_> = sockets.iter().filter(ours).collect();
            if let Some(bound) = ours.first() {
                told(handover::store(&stored_name(bound.local_addr()), &ours));
            }
        }
    }
}

/// Thread and socket, until none of either is left out.
fn dealt(sockets: usize, threads: usize) -> impl Iterator<Item = (usize, usize)> {
    (0..sockets.max(threads)).map(move |nth| (nth % threads.max(1), nth % sockets.max(1)))
}

/// A colon stands between names in LISTEN_FDNAMES.
fn stored_name(address: SocketAddr) -> String {
    format!("{STORED}{address}").replace(':', "_")
}

/// A service manager that does not answer costs the next restart its open sockets, and this one nothing.
fn told(result: io::Result<()>) {
    if let Err(error) = result {
        tracing::warn!(%error, "the service manager does not keep our sockets; a restart will refuse connections for a moment");
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn no_thread_and_no_socket_is_left_out() {
        for (sockets, threads) in [(1, 1), (1, 4), (4, 1), (2, 3), (3, 2), (4, 4)] {
            let dealt: Vec<_> = dealt(sockets, threads).collect();
            assert_eq!(dealt.len(), sockets.max(threads));
            assert_eq!(dealt.iter().map(|(thread, _)| *thread).collect::<BTreeSet<_>>().len(), threads);
            assert_eq!(dealt.iter().map(|(_, socket)| *socket).collect::<BTreeSet<_>>().len(), sockets);
        }
    }

    #[test]
    fn inherited_sockets_are_used_as_they_are_and_missing_ones_are_made() {
        let net = Net::new(host::Io::Epoll);
        let anywhere = SocketAddr::from(([127, 0, 0, 1], 0));
        let (kept, dropped) = (net.bind(anywhere, 1).unwrap(), net.bind(anywhere, 1).unwrap());
        let (address, closed) = (kept.local_addr(), dropped.local_addr());
        let sockets = Sockets::bind(&net, &[anywhere, address], vec![dropped, kept], 2).unwrap();
        assert_eq!(sockets.addresses()[1], address);
        assert_ne!(sockets.addresses()[0].port(), 0);
        assert_eq!(sockets.0.iter().map(Vec::len).collect::<Vec<_>>(), [2, 1]);
        let shares = sockets.shares(2).unwrap();
        assert!(shares.iter().all(|share| share.iter().map(|(listener, _)| *listener).eq([0, 1])), "{shares:?}");
        // Nobody holds it any more, so its address is free for somebody who does not share it.
        assert!(std::net::TcpListener::bind(closed).is_ok());
    }

    #[test]
    fn a_name_for_the_service_manager_has_no_colon() {
        assert_eq!(stored_name("[::1]:25".parse().unwrap()), "listen-[__1]_25");
    }
}
