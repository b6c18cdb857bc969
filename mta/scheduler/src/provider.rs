//! A provider: what our sources do at all of its sites together, and who waits for room there.
//!
//! Who is held by a limit of the whole provider stands in a line in which members take turns, one-time codes apart and
//! first, because one member's thousand sites of that provider must not stand before another one's first. Each pool has
//! lines of its own, because its sources may be free when those of another are not.

use smallvec::SmallVec;

use crate::bucket::Bucket;
use crate::dice::Hashing;
use crate::line::Line;
use crate::time::Time;
use crate::types::SourceId;

pub(crate) struct Provider {
    /// By source.
    sources: SmallVec<[AtProvider; 4]>,
    /// By pool: members that wait and at which berths, with one-time codes, and all others.
    lines: Vec<(u16, [Queue; 2])>,
    /// When the timers will bring us back here.
    pub(crate) wake: Time,
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

    fn queue(&mut self, pool: u16, otp: bool) -> Option<&mut Queue> {
        let (_, queues) = self.lines.iter_mut().find(|(of, _)| *of == pool)?;
        Some(&mut queues[usize::from(!otp)])
    }

    /// The line of a pool, if anybody ever waited in it.
    pub(crate) fn line(&mut self, pool: u16, otp: bool) -> Option<&mut Line> {
        self.queue(pool, otp).map(|queue| &mut queue.line)
    }

    /// Lets a member stand in line.
    pub(crate) fn push(&mut self, pool: u16, otp: bool, member: u32, berth: u32, hashing: &Hashing) {
        if self.line(pool, otp).is_none() {
            let queues = [(); 2].map(|()| Queue { line: Line::new(hashing.clone()), open: false });
            self.lines.push((pool, queues));
        }
        if let Some(line) = self.line(pool, otp) {
            line.push(member, berth);
        }
    }

    /// Lines in which somebody waits.
    pub(crate) fn waiting(&self) -> SmallVec<[(u16, bool); 4]> {
        let lines = self.lines.iter().flat_map(|(pool, queues)| [(*pool, true, &queues[0]), (*pool, false, &queues[1])]);
        lines.filter(|(.., queue)| !queue.line.is_empty()).map(|(pool, otp, _)| (pool, otp)).collect()
    }

    /// True: that is a change.
    pub(crate) fn set_open(&mut self, pool: u16, otp: bool, open: bool) -> bool {
        self.queue(pool, otp).is_some_and(|queue| std::mem::replace(&mut queue.open, open) != open)
    }
}
