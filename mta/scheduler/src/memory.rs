//! Room in memory, and who may have it.
//!
//! Everything is on disk, so memory is never needed, only faster. Two rules divide it. The better the lane, the more of
//! it may be used. And a member may keep in memory as much as is still free: one alone takes up to half of the room, two
//! a third each, so that there is always some for whoever comes next, without a share for those who need none.

use crate::flow::{WINDOW_LOW, WINDOW_MAX};
use crate::machine::Scheduler;
use crate::types::Lane;

/// A load that brings less than this is not worth the read, unless memory is that small.
const PORTION_MIN: usize = 8;

impl Scheduler {
    pub(crate) fn in_memory(&self) -> usize {
        self.queued + self.flights.len()
    }

    /// How many more deliveries of a member may wait in memory; one-time codes find room whoever sends them.
    pub(crate) fn room(&self, lane: Lane, member: u32) -> usize {
        let max = self.config.in_memory_max;
        let (most, own) = match lane {
            Lane::Otp => (max, 0),
            Lane::Transactional => (max - max / 8, self.queued_of(member)),
            Lane::Notice => (max - max / 4, self.queued_of(member)),
        };
        most.saturating_sub(self.in_memory()).saturating_sub(own)
    }

    /// Of a member, in memory.
    fn queued_of(&self, member: u32) -> usize {
        self.queued_by_member.get(&member).copied().unwrap_or(0)
    }

    /// How many deliveries a load may bring a member now. The less room, the smaller the portions, so that many slow
    /// domains do not keep the rest waiting; 0: none.
    pub(crate) fn portion(&self, lane: Lane, member: u32) -> usize {
        let (max, room) = (self.config.in_memory_max, self.room(lane, member));
        match () {
            () if room > max / 4 => WINDOW_MAX,
            () if room > max / 8 => WINDOW_LOW / 2,
            () if room >= self.portion_min() => PORTION_MIN,
            () => 0,
        }
    }

    /// With less room nothing is loaded.
    pub(crate) fn portion_min(&self) -> usize {
        (self.config.in_memory_max / 16).clamp(1, PORTION_MIN)
    }

    /// Lets a flow stand in the line for `Load`.
    pub(crate) fn line_up_to_load(&mut self, lane: Lane, member: u32, domain: u32) {
        self.pushed += 1;
        self.loads[usize::from(lane != Lane::Otp)].push(member, domain);
        self.look_for_room(member);
    }

    /// A member may have room that it did not have when the lines were last looked at.
    fn look_for_room(&mut self, member: u32) {
        for (nth, lane) in [Lane::Otp, Lane::Notice].into_iter().enumerate() {
            if self.in_memory() > self.no_room_above[nth] && self.portion(lane, member) > 0 {
                self.no_room_above[nth] = usize::MAX;
            }
        }
    }

    /// Nobody's room is scarce while this is so.
    pub(crate) fn has_plenty(&self) -> bool {
        self.in_memory() < self.config.in_memory_max / 4
    }

    /// What the member cannot use now should make room for what it can.
    pub(crate) fn is_scarce(&self, member: u32) -> bool {
        !self.has_plenty() && self.room(Lane::Notice, member) < self.config.in_memory_max / 8
    }

    /// So many more deliveries of a member wait in memory.
    pub(crate) fn count_in(&mut self, member: u32, many: usize) {
        self.queued += many;
        *self.queued_by_member.entry(member).or_default() += many;
    }

    /// So many fewer.
    pub(crate) fn count_out(&mut self, member: u32, many: usize) {
        self.queued -= many;
        if let Some(queued) = self.queued_by_member.get_mut(&member) {
            *queued -= many;
            if *queued == 0 {
                self.queued_by_member.remove(&member);
            }
        }
        self.look_for_room(member);
    }
}
