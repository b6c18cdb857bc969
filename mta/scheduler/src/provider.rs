//! A provider: what our sources do at all of its sites together, and who waits for room there.
//!
//! Who is held by a limit of the whole provider stands in a line in which members take turns, one-time codes apart and
//! first, because one member's thousand sites of that provider must not stand before another one's first. Each pool has
//! lines of its own, because its sources may be free when those of another are not. So has each set of sources that the provider
//! holds: a site where one of two is held by something else (it has no address for it, or left it alone) waits for the other, and may
//! not stand before a site that either would do for.

use smallvec::SmallVec;

use crate::bucket::Bucket;
use crate::dice::Hashing;
use crate::line::Line;
use crate::time::Time;
use crate::types::SourceId;

pub(crate) struct Provider {
    /// By source.
    sources: SmallVec<[AtProvider; 4]>,
    /// Members that wait and at which berths, with one-time codes, and all others.
    lines: Vec<(LineId, [Queue; 2])>,
    /// When the timers will bring us back here.
    pub(crate) wake: Time,
}

/// A line of a provider: all in it wait for the same sources.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct LineId {
    pub(crate) pool: u16,
    pub(crate) held: Held,
}

/// The sources that a provider holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Held(u64);

impl Held {
    /// Those past the 64th share bits with others: some lines are then longer than they need be.
    pub(crate) fn add(&mut self, source: SourceId) {
        self.0 |= 1 << (source.0 % 64);
    }

    pub(crate) fn and(self, other: Held) -> Held {
        Held(self.0 | other.0)
    }
}

struct Queue {
    line: Line,
    /// It is being looked at.
    open: bool,
}

/// One of our sources at one provider.
#[derive(Clone, Copy, Default)]
pub(crate) struct AtProvider {
    pub(crate) in_flight: u32,
    pub(crate) rate: Bucket,
    /// The number of its climb and one, or 0.
    climb: u32,
}

impl AtProvider {
    /// Its climb, if it has one.
    pub(crate) fn climb(self) -> Option<u32> {
        self.climb.checked_sub(1)
    }

    pub(crate) fn set_climb(&mut self, nth: u32) {
        self.climb = nth + 1;
    }
}

impl Default for Provider {
    fn default() -> Provider {
        Provider { sources: SmallVec::new(), lines: Vec::new(), wake: Time::NEVER }
    }
}

impl Provider {
    pub(crate) fn source(&self, source: SourceId) -> AtProvider {
        self.sources.get(usize::from(source.0)).copied().unwrap_or_default()
    }

    pub(crate) fn source_mut(&mut self, source: SourceId) -> &mut AtProvider {
        let nth = usize::from(source.0);
        if self.sources.len() <= nth {
            self.sources.resize(nth + 1, AtProvider::default());
        }
        &mut self.sources[nth]
    }

    /// Climbs change: none is known.
    pub(crate) fn forget_climbs(&mut self) {
        self.sources.iter_mut().for_each(|source| source.climb = 0);
    }

    /// Pools change: nobody waits any more.
    pub(crate) fn reset_lines(&mut self) {
        self.lines.clear();
        self.wake = Time::NEVER;
    }

    fn queue(&mut self, id: LineId, otp: bool) -> Option<&mut Queue> {
        let (_, queues) = self.lines.iter_mut().find(|(of, _)| *of == id)?;
        Some(&mut queues[usize::from(!otp)])
    }

    /// A line, if anybody waits in it or did a while ago.
    pub(crate) fn line(&mut self, id: LineId, otp: bool) -> Option<&mut Line> {
        self.queue(id, otp).map(|queue| &mut queue.line)
    }

    /// Lets a member stand in line.
    pub(crate) fn push(&mut self, id: LineId, otp: bool, member: u32, berth: u32, hashing: &Hashing) {
        if self.line(id, otp).is_none() {
            // There are no more lines than sets of sources that are waited for.
            self.lines.retain(|(_, queues)| queues.iter().any(|queue| queue.open || !queue.line.is_empty()));
            let queues = [(); 2].map(|()| Queue { line: Line::new(hashing.clone()), open: false });
            self.lines.push((id, queues));
        }
        if let Some(line) = self.line(id, otp) {
            line.push(member, berth);
        }
    }

    /// Lines in which somebody waits.
    pub(crate) fn waiting(&self) -> SmallVec<[(LineId, bool); 4]> {
        let lines = self.lines.iter().flat_map(|(id, queues)| [(*id, true, &queues[0]), (*id, false, &queues[1])]);
        lines.filter(|(.., queue)| !queue.line.is_empty()).map(|(id, otp, _)| (id, otp)).collect()
    }

    /// True: that is a change.
    pub(crate) fn set_open(&mut self, id: LineId, otp: bool, open: bool) -> bool {
        self.queue(id, otp).is_some_and(|queue| std::mem::replace(&mut queue.open, open) != open)
    }
}
