//! A site: the MX hosts that several recipient domains share, with a window for each of our sources and the turns
//! that the domains take.
//!
//! The turns of a lane are a ring of domains, linked through `Active::links`, so that a domain joins, leaves and
//! moves to another site at the same small cost, however many share the site.

use std::sync::Arc;

use crate::config::WindowLimits;
use crate::domain::{Domain, Link};
use crate::health::Health;
use crate::slab::Slab;
use crate::time::Time;
use crate::types::{Lane, SourceId};
use crate::window::Window;

pub(crate) struct Site {
    pub(crate) name: Arc<str>,
    pub(crate) provider: Arc<str>,
    pub(crate) health: Health,
    /// By source; made when the source first sends there.
    paths: Vec<Option<Box<Path>>>,
    /// For each lane the domain whose turn it is.
    pub(crate) turns: [Option<u32>; 3],
    /// Stands in the ready list for `otp`, and in the one for the rest.
    pub(crate) listed: [bool; 2],
    /// Domains whose route leads here.
    pub(crate) domains: u32,
    pub(crate) in_flight: u32,
    /// Troubles of single hosts since anything went well.
    pub(crate) host_troubles: u8,
    /// When the timers will bring us back here; may be sooner than necessary, never later.
    pub(crate) wake: Time,
    /// Nobody has needed it since.
    pub(crate) unused_since: Option<Time>,
}

/// One of our sources at one site.
pub(crate) struct Path {
    pub(crate) window: Window,
    pub(crate) health: Health,
}

impl Site {
    pub(crate) fn new(name: Arc<str>, provider: Arc<str>) -> Site {
        Site {
            name,
            provider,
            health: Health::open(),
            paths: Vec::new(),
            turns: [None; 3],
            listed: [false; 2],
            domains: 0,
            in_flight: 0,
            host_troubles: 0,
            wake: Time::NEVER,
            unused_since: None,
        }
    }

    /// None: the source has never sent there.
    pub(crate) fn path(&self, source: SourceId) -> Option<&Path> {
        self.paths.get(usize::from(source.0))?.as_deref()
    }

    pub(crate) fn path_mut(&mut self, source: SourceId, limits: WindowLimits) -> &mut Path {
        let nth = usize::from(source.0);
        if self.paths.len() <= nth {
            self.paths.resize_with(nth + 1, || None);
        }
        self.paths[nth].get_or_insert_with(|| Box::new(Path { window: Window::new(limits), health: Health::open() }))
    }

    pub(crate) fn paths(&self) -> impl Iterator<Item = (SourceId, &Path)> {
        self.paths.iter().enumerate().filter_map(|(nth, path)| Some((SourceId(nth as u16), path.as_deref()?)))
    }

    /// Site and sources need not be left alone any longer; true: one of them was.
    pub(crate) fn lift(&mut self, now: Time) -> bool {
        let mut lifted = self.health.lift(now);
        for path in self.paths.iter_mut().flatten() {
            lifted |= path.health.lift(now);
        }
        lifted
    }

    /// After a suspension little is risked from any source.
    pub(crate) fn start_again(&mut self, limits: WindowLimits) {
        for path in self.paths.iter_mut().flatten() {
            path.window.start_again(limits);
        }
    }

    /// The lane and the domain that come next; `otp` and the rest are asked for apart.
    pub(crate) fn next_turn(&self, otp: bool) -> Option<(Lane, u32)> {
        let lanes = if otp { &Lane::ALL[..1] } else { &Lane::ALL[1..] };
        lanes.iter().find_map(|lane| Some((*lane, self.turns[lane.index()]?)))
    }
}

/// Lets a domain take turns in a lane, behind all others.
pub(crate) fn join_turns(domains: &mut Slab<Domain>, head: &mut Option<u32>, lane: Lane, key: u32) {
    let link = match *head {
        None => {
            *head = Some(key);
            Link { previous: key, next: key }
        }
        Some(first) => {
            let last = link_of(domains, first, lane).map_or(first, |link| link.previous);
            set_link(domains, last, lane, |link| link.next = key);
            set_link(domains, first, lane, |link| link.previous = key);
            Link { previous: last, next: first }
        }
    };
    if let Some(active) = domains.get_mut(key).and_then(|domain| domain.active.as_mut()) {
        active.links[lane.index()] = Some(link);
    }
}

/// Takes a domain out of the turns of a lane.
pub(crate) fn leave_turns(domains: &mut Slab<Domain>, head: &mut Option<u32>, lane: Lane, key: u32) {
    let active = domains.get_mut(key).and_then(|domain| domain.active.as_mut());
    let Some(link) = active.and_then(|active| active.links[lane.index()].take()) else { return };
    if link.next == key {
        *head = None;
        return;
    }
    set_link(domains, link.previous, lane, |other| other.next = link.next);
    set_link(domains, link.next, lane, |other| other.previous = link.previous);
    if *head == Some(key) {
        *head = Some(link.next);
    }
}

/// The turn passes on.
pub(crate) fn pass_turn(domains: &Slab<Domain>, head: &mut Option<u32>, lane: Lane) {
    if let Some(link) = head.and_then(|key| link_of(domains, key, lane)) {
        *head = Some(link.next);
    }
}

fn link_of(domains: &Slab<Domain>, key: u32, lane: Lane) -> Option<Link> {
    domains.get(key)?.active.as_ref()?.links[lane.index()]
}

fn set_link(domains: &mut Slab<Domain>, key: u32, lane: Lane, change: impl FnOnce(&mut Link)) {
    let active = domains.get_mut(key).and_then(|domain| domain.active.as_mut());
    if let Some(link) = active.and_then(|active| active.links[lane.index()].as_mut()) {
        change(link);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(names: &[&str]) -> Slab<Domain> {
        let mut domains = Slab::new();
        for name in names {
            let mut domain = Domain::new(Arc::from(*name));
            domain.activate();
            domains.insert(domain);
        }
        domains
    }

    /// The order in which turns would be taken.
    fn round(domains: &Slab<Domain>, mut head: Option<u32>) -> Vec<u32> {
        let first = head;
        let mut seen = Vec::new();
        while let Some(key) = head {
            seen.push(key);
            pass_turn(domains, &mut head, Lane::Notice);
            if head == first {
                break;
            }
        }
        seen
    }

    #[test]
    fn domains_take_turns_join_at_the_end_and_leave_from_anywhere() {
        let (mut domains, mut head) = (table(&["a", "b", "c", "d"]), None);
        for key in 0..4 {
            join_turns(&mut domains, &mut head, Lane::Notice, key);
        }
        assert_eq!(round(&domains, head), [0, 1, 2, 3]);
        pass_turn(&domains, &mut head, Lane::Notice);
        assert_eq!(round(&domains, head), [1, 2, 3, 0]);
        leave_turns(&mut domains, &mut head, Lane::Notice, 1);
        leave_turns(&mut domains, &mut head, Lane::Notice, 3);
        leave_turns(&mut domains, &mut head, Lane::Notice, 3);
        assert_eq!(round(&domains, head), [2, 0]);
        join_turns(&mut domains, &mut head, Lane::Notice, 1);
        assert_eq!(round(&domains, head), [2, 0, 1]);
        for key in [0, 1, 2] {
            leave_turns(&mut domains, &mut head, Lane::Notice, key);
        }
        assert_eq!(head, None);
    }
}
