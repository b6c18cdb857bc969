//! One simulated connection: two ends, and what is under way between them.

use std::collections::VecDeque;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::Notify;
use tokio::time::{Instant, timeout, timeout_at};

use super::WINDOW;
use crate::inflight::InFlight;
use crate::wire::Buffer;

pub(crate) struct Link {
    pub(super) ends: [SocketAddr; 2],
    latency: Duration,
    state: Mutex<State>,
    /// One for each end, which has one operation at a time. A permit that nobody took costs one more look.
    changed: [Notify; 2],
}

struct State {
    /// What each end has yet to read.
    ways: [Way; 2],
    /// From then on both ends fail.
    reset: Option<Instant>,
    cut: bool,
}

#[derive(Default)]
struct Way {
    octets: VecDeque<(Instant, Bytes)>,
    queued: usize,
    /// When the end of the stream arrives.
    end: Option<Instant>,
    /// Its reader has closed, or shut down.
    closed: bool,
    /// Its reader wants no more than what has arrived.
    interrupted: bool,
}

enum Look {
    Octets,
    End,
    Failed,
    Wait(Option<Instant>),
}

impl Link {
    pub(super) fn pair(near: SocketAddr, far: SocketAddr, latency: Duration) -> (Socket, Socket) {
        let state = Mutex::new(State { ways: Default::default(), reset: None, cut: false });
        let link = Arc::new(Self { ends: [near, far], latency, state, changed: Default::default() });
        (Socket { link: link.clone(), end: 0 }, Socket { link, end: 1 })
    }

    pub(super) fn cut(&self, reset: Instant) {
        let mut state = self.state();
        state.cut = true;
        state.reset = Some(reset);
        for way in &mut state.ways {
            way.octets.clear();
            way.queued = 0;
            way.end = None;
        }
        self.changed.iter().for_each(Notify::notify_one);
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// In the order in which Linux tells them: what has arrived, the end, a reset.
    fn look(&self, end: usize, now: Instant) -> Look {
        let way = &self.ways[end];
        if way.closed {
            return Look::End;
        }
        let next = match way.octets.front() {
            Some(&(at, _)) if at <= now => return Look::Octets,
            _ if way.interrupted => return Look::End,
            Some(&(at, _)) => Some(at),
            None if way.end.is_some_and(|at| at <= now) => return Look::End,
            None => way.end,
        };
        if self.reset.is_some_and(|at| at <= now) {
            return Look::Failed;
        }
        Look::Wait([next, self.reset].into_iter().flatten().min())
    }
}

pub(crate) struct Socket {
    link: Arc<Link>,
    end: usize,
}

impl Socket {
    pub(super) fn link(&self) -> Weak<Link> {
        Arc::downgrade(&self.link)
    }

    pub(crate) async fn recv(&self, buffer: &mut Buffer) -> io::Result<Bytes> {
        let _counted = InFlight::begin();
        if !self.readable().await? {
            return Ok(Bytes::new());
        }
        let mut room = buffer.take();
        let most = room.capacity();
        let now = Instant::now();
        let mut state = self.link.state();
        let way = &mut state.ways[self.end];
        while let Some((at, octets)) = way.octets.front_mut() {
            if *at > now || room.len() == most {
                break;
            }
            let piece = octets.split_to(octets.len().min(most - room.len()));
            way.queued -= piece.len();
            room.extend_from_slice(&piece);
            if octets.is_empty() {
                way.octets.pop_front();
            }
        }
        self.link.changed[1 - self.end].notify_one();
        Ok(buffer.finish(room))
    }

    pub(crate) async fn peek(&self, wait: Duration) -> io::Result<Option<u8>> {
        let _counted = InFlight::begin();
        if !timeout(wait, self.readable()).await.unwrap_or(Ok(false))? {
            return Ok(None);
        }
        let state = self.link.state();
        Ok(state.ways[self.end].octets.front().and_then(|(_, octets)| octets.first().copied()))
    }

    /// Waits until there is something to read; false at the end of the stream.
    async fn readable(&self) -> io::Result<bool> {
        loop {
            let look = self.link.state().look(self.end, Instant::now());
            let changed = self.link.changed[self.end].notified();
            match look {
                Look::Octets => return Ok(true),
                Look::End => return Ok(false),
                Look::Failed => return Err(io::ErrorKind::ConnectionReset.into()),
                // Either is a reason to look again.
                Look::Wait(Some(at)) => drop(timeout_at(at, changed).await),
                Look::Wait(None) => changed.await,
            }
        }
    }

    pub(crate) async fn send(&self, mut octets: Bytes) -> io::Result<()> {
        let _counted = InFlight::begin();
        while !octets.is_empty() {
            let full = {
                let mut state = self.link.state();
                if state.ways[self.end].closed {
                    return Err(io::ErrorKind::BrokenPipe.into());
                }
                let now = Instant::now();
                if state.reset.is_some_and(|at| at <= now) {
                    return Err(io::ErrorKind::ConnectionReset.into());
                }
                if state.cut {
                    return Ok(());
                }
                let way = &mut state.ways[1 - self.end];
                if way.closed {
                    // Nobody is there to read it; the answer is a reset.
                    state.reset.get_or_insert(now + self.link.latency * 2);
                    return Ok(());
                }
                let piece = octets.split_to(octets.len().min(WINDOW - way.queued));
                let full = piece.is_empty();
                if !full {
                    way.push(now + self.link.latency, piece);
                    self.link.changed[1 - self.end].notify_one();
                }
                full
            };
            if full {
                self.link.changed[self.end].notified().await;
            }
        }
        Ok(())
    }

    pub(crate) fn local_addr(&self) -> SocketAddr {
        self.link.ends[self.end]
    }

    pub(crate) fn shutdown(&self) {
        self.end_both_ways(&[]);
    }

    pub(crate) fn end_reading(&self) {
        self.link.state().ways[self.end].interrupted = true;
        self.link.changed[self.end].notify_one();
    }

    pub(crate) fn close(&self, farewell: &[u8]) {
        self.end_both_ways(farewell);
    }

    pub(crate) fn reset_on_close(&self) {
        self.link.state().reset.get_or_insert(Instant::now() + self.link.latency);
        self.link.changed.iter().for_each(Notify::notify_one);
        self.link.state().ways[self.end].closed = true;
    }

    fn end_both_ways(&self, farewell: &[u8]) {
        let mut state = self.link.state();
        if std::mem::replace(&mut state.ways[self.end].closed, true) {
            return;
        }
        if !state.cut {
            let arrival = Instant::now() + self.link.latency;
            let way = &mut state.ways[1 - self.end];
            if !farewell.is_empty() && way.queued < WINDOW {
                way.push(arrival, Bytes::copy_from_slice(farewell));
            }
            way.end = Some(arrival);
        }
        self.link.changed.iter().for_each(Notify::notify_one);
    }
}

impl Way {
    fn push(&mut self, arrival: Instant, octets: Bytes) {
        self.queued += octets.len();
        self.octets.push_back((arrival, octets));
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        self.shutdown();
    }
}
