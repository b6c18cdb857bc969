//! The connection cache: idle sessions to a site, kept for the next message from the same source.
//!
//! One cache a ring thread, so no lock; the scheduler hands out the lowest free slot and slots are
//! bound to threads, which brings a site's mail back to the thread that holds its connections.
//! A connection is kept for site and source, and knows the host that it leads to and the demand under which it was
//! made. What one domain demands of TLS is never answered by a connection that was made for another's lesser demand.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::link::Link;

/// An idle connection is closed after this: peers give up between one and five minutes
/// (RFC 5321 §4.5.3.2.7), and one that we close ourselves costs the next message nothing.
pub const IDLE_SECS_MAX: Duration = Duration::from_secs(10);
/// Messages over one connection before a new one is made, so that a peer can spread its load; where shaping says nothing.
pub const MESSAGES_MAX: u32 = 500;
/// Idle connections of one thread. At the bound the one that was put back is closed instead.
pub const IDLE_MAX: usize = 1024;

/// What a connection may be used for.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Key {
    /// The MX set.
    pub site: Arc<str>,
    /// Index of the source that it is bound to.
    pub source: usize,
}

/// Idle connections of one ring thread.
#[derive(Default)]
pub struct ConnectionCache {
    idle: HashMap<Key, Vec<(Instant, Link)>>,
    count: usize,
}

impl ConnectionCache {
    /// The most recently used idle connection that `serves`: the least likely to have been closed by the peer.
    pub fn take(&mut self, key: &Key, serves: impl Fn(&Link) -> bool) -> Option<Link> {
        let links = self.idle.get_mut(key)?;
        let nth = links.iter().rposition(|(_, link)| serves(link))?;
        // What is left stays in the order in which it was put here.
        let (_, link) = links.remove(nth);
        if links.is_empty() {
            self.idle.remove(key);
        }
        self.count -= 1;
        Some(link)
    }

    /// Keeps `link`; hands it back when it has to be closed instead.
    pub fn put(&mut self, key: Key, link: Link, now: Instant) -> Option<Link> {
        if self.count >= IDLE_MAX {
            return Some(link);
        }
        self.count += 1;
        self.idle.entry(key).or_default().push((now, link));
        None
    }

    /// Takes out what has been idle for too long, to be closed.
    pub fn expire(&mut self, now: Instant) -> Vec<Link> {
        let mut expired = Vec::new();
        self.idle.retain(|_, links| {
            let keep = links.iter().position(|(since, _)| now.duration_since(*since) < IDLE_SECS_MAX).unwrap_or(links.len());
            expired.extend(links.drain(..keep).map(|(_, link)| link));
            !links.is_empty()
        });
        self.count -= expired.len();
        expired
    }

    /// Everything, to be closed at the end.
    pub fn drain(&mut self) -> Vec<Link> {
        self.count = 0;
        self.idle.drain().flat_map(|(_, links)| links).map(|(_, link)| link).collect()
    }

    /// Idle connections held.
    pub fn len(&self) -> usize {
        self.count
    }

    /// Whether none is held.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }
}
