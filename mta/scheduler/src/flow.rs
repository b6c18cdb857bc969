//! A flow: one member's mail to one recipient domain, as far as something is going on with it. It is what takes turns at
//! a site, and what is loaded from disk: a window of what is due, so that memory follows activity and not the backlog.
//!
//! Members do not share a window: however much one has for a domain, another one's mail is not behind it. What lies
//! only on disk is a due time in its domain (`domain.rs`).

use std::collections::VecDeque;

use crate::ring::{Link, Linked};
use crate::time::Time;
use crate::types::{Delivery, Lane, QueueId};

/// Deliveries of one flow that wait in memory. Past it they stay on disk, where they are safe, and are loaded when
/// the window runs low.
pub const WINDOW_MAX: usize = 256;

/// The window runs low below this: more is loaded, if more is due.
pub const WINDOW_LOW: usize = 64;

pub(crate) struct Flow {
    pub(crate) domain: u32,
    pub(crate) member: u32,
    /// What waits in memory, each lane in the order (due, id). Everything here is due.
    pub(crate) lanes: [VecDeque<Queued>; 3],
    /// Earliest due time of what lies only on disk, as far as we know. What is noted while a `Load` is unanswered
    /// is kept, because the answer may be older than the note.
    pub(crate) next_due: Time,
    /// Earliest due time in a lane among what we saw go to disk since the last load: a better lane must not wait
    /// until the window of a lesser one runs low.
    pub(crate) left: [Time; 3],
    /// Nothing that waits in memory has an earlier deadline, or is late earlier.
    pub(crate) watch: Time,
    /// When the timers will bring us back here; may be sooner than necessary, never later.
    pub(crate) wake: Time,
    pub(crate) in_flight: u32,
    pub(crate) settling: u32,
    pub(crate) load: Load,
    /// It stands in the line for `Load`.
    pub(crate) wants: Wants,
    /// Neighbours in its member's turns at the site, for each lane that has mail.
    links: [Option<Link>; 3],
    /// The largest id that a load brought: anything larger cannot be known already.
    pub(crate) loaded_up_to: QueueId,
}

/// A delivery that waits in memory: what is not the same for the whole lane.
pub(crate) struct Queued {
    pub(crate) id: QueueId,
    pub(crate) due: Time,
    pub(crate) deadline: Time,
    pub(crate) late: Time,
    pub(crate) attempts: u16,
    pub(crate) recipients: u16,
}

impl Queued {
    /// When something is to be done about it although it cannot be sent.
    fn watch(&self) -> Time {
        self.deadline.min(self.late)
    }
}

pub(crate) enum Load {
    Idle,
    /// Unanswered. What was settled since: the answer may be older and still contain it.
    Asked {
        settled: Vec<QueueId>,
    },
}

/// In which line for `Load` a flow stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Wants {
    Nothing,
    /// Among all others.
    Any,
    /// Among those that have one-time codes on disk.
    Otp,
}

/// What became of a delivery that was to be kept in memory.
pub(crate) enum Kept {
    Added,
    /// It took the place of one that is less urgent and goes back to the disk.
    Displaced,
    /// Everything in the window is more urgent.
    Full,
}

impl Linked for Flow {
    fn link(&mut self, lane: Lane) -> &mut Option<Link> {
        &mut self.links[lane.index()]
    }
}

impl Flow {
    pub(crate) fn new(domain: u32, member: u32) -> Flow {
        Flow {
            domain,
            member,
            lanes: Default::default(),
            next_due: Time::NEVER,
            left: [Time::NEVER; 3],
            watch: Time::NEVER,
            wake: Time::NEVER,
            in_flight: 0,
            settling: 0,
            load: Load::Idle,
            wants: Wants::Nothing,
            links: [None; 3],
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

    /// For each lane, whether it takes turns in it.
    pub(crate) fn takes_turns(&self) -> [bool; 3] {
        self.links.map(|link| link.is_some())
    }

    pub(crate) fn is_loading(&self) -> bool {
        matches!(self.load, Load::Asked { .. })
    }

    /// Nothing of it is in memory or on its way there.
    pub(crate) fn rests(&self) -> bool {
        self.queued() == 0 && self.in_flight == 0 && self.settling == 0 && !self.is_loading()
    }

    /// When more should be loaded. None: there is no need, or not now.
    pub(crate) fn load_at(&self) -> Option<Time> {
        // While that much waits to be written down, reading more would only add to it.
        if self.is_loading() || self.settling as usize >= WINDOW_MAX {
            return None;
        }
        let low = (self.queued() < WINDOW_LOW).then_some(self.next_due);
        let better =
            Lane::ALL.into_iter().filter(|lane| self.queued_ahead(*lane) < WINDOW_LOW).map(|lane| self.left[lane.index()]);
        low.into_iter().chain(better).min().filter(|at| *at < Time::NEVER)
    }

    pub(crate) fn note_on_disk(&mut self, lane: Option<Lane>, due: Time) {
        self.next_due = self.next_due.min(due);
        if let Some(lane) = lane {
            let left = &mut self.left[lane.index()];
            *left = (*left).min(due);
        }
    }

    /// Puts a delivery into its place.
    pub(crate) fn keep(&mut self, now: Time, delivery: &Delivery) -> Kept {
        let entry = Queued {
            id: delivery.id,
            due: delivery.due.into(),
            deadline: delivery.deadline.into(),
            late: delivery.late_at.into(),
            attempts: delivery.attempts,
            recipients: delivery.recipients,
        };
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
            self.note_on_disk(Some(worst), now);
            kept = Kept::Displaced;
        }
        self.watch = self.watch.min(entry.watch());
        let queue = &mut self.lanes[lane.index()];
        // Nearly always the end, so look from there.
        let after = queue.iter().rev().position(|other| (other.due, other.id) < (entry.due, entry.id)).unwrap_or(queue.len());
        queue.insert(queue.len() - after, entry);
        kept
    }

    /// Takes out what has passed its deadline, and what has become late.
    pub(crate) fn take_overdue(&mut self, now: Time) -> Vec<(Lane, Queued)> {
        let mut overdue = Vec::new();
        self.watch = Time::NEVER;
        for lane in Lane::ALL {
            let queue = &mut self.lanes[lane.index()];
            let mut nth = 0;
            while let Some(entry) = queue.get(nth) {
                if entry.watch() > now {
                    self.watch = self.watch.min(entry.watch());
                    nth += 1;
                } else if let Some(entry) = queue.remove(nth) {
                    overdue.push((lane, entry));
                }
            }
        }
        overdue
    }

    /// Takes out everything that waits.
    pub(crate) fn take_all(&mut self) -> Vec<(Lane, Queued)> {
        self.watch = Time::NEVER;
        let lanes = Lane::ALL.into_iter().zip(std::mem::take(&mut self.lanes));
        lanes.flat_map(|(lane, queue)| queue.into_iter().map(move |entry| (lane, entry))).collect()
    }
}
