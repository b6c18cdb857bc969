//! A recipient domain: what of its mail is in memory, what is known of the rest on disk, and the way it travels.
//!
//! Memory follows activity. A domain that has mail only on disk is a name and a due time; the window of deliveries,
//! the route and the place in a site's turns (`Active`) exist while something is going on.

use std::collections::VecDeque;
use std::sync::Arc;

use crate::time::Time;
use crate::types::{Delivery, Lane, QueueId, Route, RouteTrouble};

/// Deliveries of one domain that wait in memory. Past it they stay on disk, where they are safe, and are loaded when
/// the window runs low.
pub const WINDOW_MAX: usize = 256;

/// The window runs low below this: more is loaded, if more is due.
pub const WINDOW_LOW: usize = 64;

pub(crate) struct Domain {
    pub(crate) name: Arc<str>,
    /// Earliest due time of what lies only on disk, as far as we know. What is noted while a `Load` is unanswered
    /// is kept, because the answer may be older than the note.
    pub(crate) next_due: Time,
    /// When the timers will bring us back here; may be sooner than necessary, never later.
    pub(crate) wake: Time,
    pub(crate) active: Option<Box<Active>>,
    /// It stands in the line for `Load`.
    pub(crate) wants_load: bool,
    /// Times in a row that DNS did not answer.
    pub(crate) route_failures: u8,
}

impl Domain {
    pub(crate) fn new(name: Arc<str>) -> Domain {
        Domain { name, next_due: Time::NEVER, wake: Time::NEVER, active: None, wants_load: false, route_failures: 0 }
    }

    pub(crate) fn activate(&mut self) -> &mut Active {
        self.active.get_or_insert_with(|| Box::new(Active::new()))
    }
}

pub(crate) struct Active {
    /// What waits in memory, each lane in the order (due, id). Everything here is due.
    pub(crate) lanes: [VecDeque<Queued>; 3],
    /// Earliest due time in a lane among what we saw go to disk since the last load: a better lane must not wait
    /// until the window of a lesser one runs low.
    pub(crate) left: [Time; 3],
    /// Nothing that waits in memory has an earlier deadline.
    pub(crate) watch: Time,
    /// In flight.
    pub(crate) in_flight: u32,
    /// Being settled.
    pub(crate) settling: u32,
    pub(crate) way: Way,
    pub(crate) load: Load,
    /// The site of the route, while there is one.
    pub(crate) site: Option<u32>,
    /// Neighbours in the site's turns, for each lane that has mail.
    pub(crate) links: [Option<Link>; 3],
    /// A check that concerns only this domain holds it: it takes no turns until then.
    pub(crate) parked: Option<Time>,
    /// With nothing to do the route is still remembered until then.
    pub(crate) idle_until: Option<Time>,
    /// The largest id that a load brought: anything larger cannot be known already.
    pub(crate) loaded_up_to: QueueId,
}

/// A delivery that waits in memory: what is not the same for the whole lane.
pub(crate) struct Queued {
    pub(crate) id: QueueId,
    pub(crate) due: Time,
    pub(crate) deadline: Time,
    pub(crate) attempts: u16,
}

/// Where a domain's mail goes, as far as it is known.
pub(crate) enum Way {
    Unknown,
    /// In the line for `Resolve`, or asked already; meanwhile the route that ran out still serves.
    Sought {
        old: Option<Arc<Route>>,
        asked: bool,
    },
    Known(Arc<Route>),
    /// Believed until then.
    Trouble {
        trouble: RouteTrouble,
        until: Time,
    },
}

pub(crate) enum Load {
    Idle,
    /// Unanswered. What was settled since: the answer may be older and still contain it.
    Asked {
        settled: Vec<QueueId>,
    },
}

#[derive(Clone, Copy)]
pub(crate) struct Link {
    pub(crate) previous: u32,
    pub(crate) next: u32,
}

/// What became of a delivery that was to be kept in memory.
pub(crate) enum Kept {
    Added,
    /// It took the place of one that is less urgent and goes back to the disk.
    Displaced,
    /// Everything in the window is more urgent.
    Full,
}

impl Active {
    fn new() -> Active {
        Active {
            lanes: Default::default(),
            left: [Time::NEVER; 3],
            watch: Time::NEVER,
            in_flight: 0,
            settling: 0,
            way: Way::Unknown,
            load: Load::Idle,
            site: None,
            links: [None; 3],
            parked: None,
            idle_until: None,
            loaded_up_to: QueueId(0),
        }
    }

    pub(crate) fn queued(&self) -> usize {
        self.lanes.iter().map(VecDeque::len).sum()
    }

    /// In this lane or a better one.
    pub(crate) fn queued_ahead(&self, lane: Lane) -> usize {
        self.lanes[..=lane.index()].iter().map(VecDeque::len).sum()
    }

    /// The route to use now.
    pub(crate) fn route(&self) -> Option<&Arc<Route>> {
        match &self.way {
            Way::Known(route) | Way::Sought { old: Some(route), .. } => Some(route),
            Way::Unknown | Way::Sought { old: None, .. } | Way::Trouble { .. } => None,
        }
    }

    pub(crate) fn is_loading(&self) -> bool {
        matches!(self.load, Load::Asked { .. })
    }

    /// When more should be loaded, given the domain's `next_due`. None: there is no need, or not now.
    pub(crate) fn load_at(&self, next_due: Time) -> Option<Time> {
        // While that much waits to be written down, reading more would only add to it.
        if self.is_loading() || self.settling as usize >= WINDOW_MAX {
            return None;
        }
        let low = (self.queued() < WINDOW_LOW).then_some(next_due);
        let better =
            Lane::ALL.into_iter().filter(|lane| self.queued_ahead(*lane) < WINDOW_LOW).map(|lane| self.left[lane.index()]);
        low.into_iter().chain(better).min().filter(|at| *at < Time::NEVER)
    }

    /// Puts a delivery into its place.
    pub(crate) fn keep(&mut self, now: Time, delivery: &Delivery) -> Kept {
        let entry =
            Queued { id: delivery.id, due: delivery.due.into(), deadline: delivery.deadline.into(), attempts: delivery.attempts };
        let lane = delivery.lane;
        let mut kept = Kept::Added;
        if self.queued() >= WINDOW_MAX {
            let Some(worst) = Lane::ALL.into_iter().rev().find(|lane| !self.lanes[lane.index()].is_empty()) else {
                return Kept::Full;
            };
            let last = self.lanes[worst.index()].back();
            if last.is_some_and(|last| (worst, last.due, last.id) < (lane, entry.due, entry.id)) {
                return Kept::Full;
            }
            self.lanes[worst.index()].pop_back();
            // Whatever waits in memory is due.
            self.left[worst.index()] = self.left[worst.index()].min(now);
            kept = Kept::Displaced;
        }
        self.watch = self.watch.min(entry.deadline);
        let queue = &mut self.lanes[lane.index()];
        // Nearly always the end, so look from there.
        let after = queue.iter().rev().position(|other| (other.due, other.id) < (entry.due, entry.id)).unwrap_or(queue.len());
        queue.insert(queue.len() - after, entry);
        kept
    }

    /// Takes out what has passed its deadline.
    pub(crate) fn take_expired(&mut self, now: Time) -> Vec<(Lane, Queued)> {
        let mut expired = Vec::new();
        self.watch = Time::NEVER;
        for lane in Lane::ALL {
            let queue = &mut self.lanes[lane.index()];
            let mut nth = 0;
            while let Some(entry) = queue.get(nth) {
                if entry.deadline > now {
                    self.watch = self.watch.min(entry.deadline);
                    nth += 1;
                } else if let Some(entry) = queue.remove(nth) {
                    expired.push((lane, entry));
                }
            }
        }
        expired
    }
}
