//! Who speaks first: telling a TLS client on port 587 from one that waits for our greeting.
//!
//! Published instructions tell PDS operators to write `smtps://…:587`. Such a client sends a ClientHello at
//! once and fails if it reads a greeting first; every other client sends nothing until it is greeted. So an
//! unknown address is given a moment to speak before we do, and what it did is remembered: a client that
//! waits is greeted at once from then on, and does not pay for the others' instructions.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// How long an address that we know nothing of may take to send a ClientHello, once a day. Measured from accept to first
/// octet on loopback, 20 tries each, with twice as many busy loops as cores: msmtp (with all of the system's trust anchors),
/// smtplib and Node took 14 ms at most, swaks 57 to 257 ms. A PDS on a machine with ten busy programs on two cores was
/// later than 30 ms, and its user was told of an internal error; the others pay for it with a quarter of a second a day.
const UNKNOWN_WAIT: Duration = Duration::from_millis(250);
/// How long one may take that has spoken first before: longer, for it is nearly sure to, but no user should feel it when
/// another client behind the same address waits to be greeted.
const TLS_WAIT: Duration = Duration::from_millis(500);
/// How long it is remembered. Whoever changes from waiting to speaking first fails once, and that is remembered too:
/// behind an address that has done both (a NAT, a host with two programs) nobody is known well enough to be greeted at once.
const MEMORY: Duration = Duration::from_secs(24 * 3600);
/// Addresses remembered; past it everything is forgotten and learned again.
const ADDRESSES_MAX: usize = 16 * 1024;

/// What addresses have done before. All threads share it: the kernel gives a client's next connection to any of them.
#[derive(Default)]
pub struct Manners {
    known: Mutex<HashMap<IpAddr, Seen>>,
}

/// When an address was last seen to do the one and the other.
#[derive(Clone, Copy, Default)]
struct Seen {
    spoke_first: Option<Instant>,
    waited: Option<Instant>,
}

impl Manners {
    /// How long `peer` may take to speak before it is greeted.
    pub fn wait(&self, peer: IpAddr, now: Instant) -> Duration {
        let seen = self.locked().get(&peer).copied().unwrap_or_default();
        let lately = |at: Option<Instant>| at.is_some_and(|at| now.duration_since(at) < MEMORY);
        match (lately(seen.spoke_first), lately(seen.waited)) {
            (false, true) => Duration::ZERO,
            (true, _) => TLS_WAIT,
            (false, false) => UNKNOWN_WAIT,
        }
    }

    /// Remembers whether `peer` spoke first.
    pub fn note(&self, peer: IpAddr, speaks_first: bool, now: Instant) {
        let mut known = self.locked();
        if known.len() >= ADDRESSES_MAX && !known.contains_key(&peer) {
            known.clear();
        }
        let seen = known.entry(peer).or_default();
        *(if speaks_first { &mut seen.spoke_first } else { &mut seen.waited }) = Some(now);
    }

    fn locked(&self) -> MutexGuard<'_, HashMap<IpAddr, Seen>> {
        // A map of instants is usable whatever happened while it was held.
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_client_that_waits_is_greeted_at_once_the_next_time() {
        let manners = Manners::default();
        let peer: IpAddr = "192.0.2.1".parse().unwrap();
        assert_eq!(manners.wait(peer, Instant::now()), UNKNOWN_WAIT);
        manners.note(peer, false, Instant::now());
        assert_eq!(manners.wait(peer, Instant::now()), Duration::ZERO);
        tokio::time::sleep(MEMORY).await;
        assert_eq!(manners.wait(peer, Instant::now()), UNKNOWN_WAIT);
    }

    #[tokio::test(start_paused = true)]
    async fn behind_one_address_may_be_clients_of_both_kinds() {
        let manners = Manners::default();
        let peer: IpAddr = "192.0.2.1".parse().unwrap();
        manners.note(peer, true, Instant::now());
        assert_eq!(manners.wait(peer, Instant::now()), TLS_WAIT);
        manners.note(peer, false, Instant::now());
        assert_eq!(manners.wait(peer, Instant::now()), TLS_WAIT, "the first one may come back");
        tokio::time::sleep(MEMORY / 2).await;
        manners.note(peer, true, Instant::now());
        tokio::time::sleep(MEMORY / 2).await;
        assert_eq!(manners.wait(peer, Instant::now()), TLS_WAIT, "who waited has left");
    }
}
