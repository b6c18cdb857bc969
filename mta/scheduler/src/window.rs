//! The window of one source at one site: how many deliveries at once, and which slots they hold.
//!
//! As TCP does it: quickly up until the first trouble, slowly from then on, down to a half at once. A slot is a small
//! number that names the ring thread and its cached connection, so the lowest free one is taken: the fewer slots in
//! use, the fewer connections. One-time codes find a place in a window that is full of other mail (`room`).

use smallvec::SmallVec;

use crate::config::WindowLimits;
use crate::types::Lane;

/// Windows are counted in these parts, so that "one more for each windowful" needs no fractions.
const UNIT: u32 = 1024;

/// Windowfuls that go well just below where trouble came, before that much is tried again; twice as many each time trouble
/// comes back there, up to the second. Without it a site with a hard limit is annoyed at every rise.
const PATIENCE: u16 = 4;
const PATIENCE_MAX: u16 = 64;

/// Of a maximum smaller than this no place is kept for one-time codes.
const SHARED_BELOW: u16 = 4;

#[derive(Debug)]
pub(crate) struct Window {
    /// In parts of `UNIT`.
    size: u32,
    /// Up to here each delivery widens by one, beyond it each windowful does.
    threshold: u32,
    in_flight: u16,
    /// Deliveries numbered up to this one began before the last narrowing: what they report is old news.
    narrowed_at: u64,
    /// The size at which trouble came last, and how long to stay below it.
    ceiling: u32,
    patience: u16,
    /// Deliveries that went well just below it.
    earned: u16,
    /// A measure lets it be no wider.
    cap: u16,
    slots: Slots,
}

impl Window {
    pub(crate) fn new(limits: WindowLimits) -> Window {
        let size = u32::from(limits.initial.clamp(limits.min.max(1), limits.max.max(1))) * UNIT;
        Window {
            size,
            threshold: u32::MAX,
            in_flight: 0,
            narrowed_at: 0,
            ceiling: u32::MAX,
            patience: PATIENCE,
            earned: 0,
            cap: u16::MAX,
            slots: Slots::default(),
        }
    }

    pub(crate) fn size(&self, limits: WindowLimits) -> u16 {
        ((self.size / UNIT) as u16).min(limits.max).min(self.cap).max(1)
    }

    pub(crate) fn in_flight(&self) -> u16 {
        self.in_flight
    }

    /// How many deliveries at once a lane may bring it to. A one-time code that meets a window full of other mail has one
    /// place more, so that it waits for nobody's end: beyond what feedback allows now, but never beyond the configured
    /// maximum, so there the last place is kept free of other mail. Of less than `SHARED_BELOW` places that would be too
    /// much: such a code is next when one of them ends.
    pub(crate) fn room(&self, limits: WindowLimits, lane: Lane) -> u16 {
        let (size, max) = (self.size(limits), limits.max.min(self.cap).max(1));
        match lane {
            Lane::Otp => size.saturating_add(1).min(max),
            Lane::Transactional | Lane::Notice if max < SHARED_BELOW => size,
            Lane::Transactional | Lane::Notice => size.min(max - 1),
        }
    }

    /// The slot that `begin` would give.
    pub(crate) fn next_slot(&self) -> u16 {
        self.slots.lowest_free()
    }

    pub(crate) fn begin(&mut self) -> u16 {
        self.in_flight += 1;
        self.slots.take()
    }

    pub(crate) fn end(&mut self, slot: u16) {
        self.in_flight = self.in_flight.saturating_sub(1);
        self.slots.give_back(slot);
    }

    /// The `number`th delivery succeeded; call it before `end`. A window that is not used does not grow: it would
    /// say nothing about what the site bears.
    pub(crate) fn widen(&mut self, limits: WindowLimits, number: u64) {
        let used = u32::from(self.in_flight) * UNIT * 2 >= self.size;
        if number <= self.narrowed_at || !used {
            return;
        }
        let step = if self.size < self.threshold { UNIT } else { (UNIT * UNIT / self.size).max(1) };
        let wider = (self.size + step).min(u32::from(limits.max.max(1)) * UNIT);
        if self.ceiling != u32::MAX {
            if wider >= self.ceiling {
                self.earned = self.earned.saturating_add(1);
                if u32::from(self.earned) < u32::from(self.patience) * (self.size / UNIT).max(1) {
                    return;
                }
            }
            // It bears a quarter more than it once did: that is another site now.
            if wider > self.ceiling.saturating_add(self.ceiling / 4) {
                (self.ceiling, self.patience) = (u32::MAX, PATIENCE);
            }
        }
        self.size = wider;
    }

    /// The `number`th delivery met trouble; `latest` is the newest one that has begun. A windowful of troubles from
    /// one cause narrows once; true: this trouble is news.
    pub(crate) fn narrow(&mut self, limits: WindowLimits, number: u64, latest: u64) -> bool {
        if number <= self.narrowed_at {
            return false;
        }
        let again = self.ceiling != u32::MAX && self.size.abs_diff(self.ceiling) <= self.ceiling / 4;
        self.patience = if again { (self.patience * 2).min(PATIENCE_MAX) } else { PATIENCE };
        self.earned = 0;
        // Trouble of the narrowest window has another reason.
        self.ceiling = if self.is_least(limits) { u32::MAX } else { self.size };
        self.size = (self.size / 2).max(u32::from(limits.min.max(1)) * UNIT);
        self.threshold = self.size;
        self.narrowed_at = latest;
        true
    }

    /// It cannot be narrowed any more.
    pub(crate) fn is_least(&self, limits: WindowLimits) -> bool {
        self.size < u32::from(limits.min.max(1)) * UNIT + UNIT
    }

    /// Trouble of the `number`th delivery would narrow it.
    pub(crate) fn is_news(&self, number: u64) -> bool {
        number > self.narrowed_at
    }

    /// No wider than half of what it is, until `uncap`. Gives that bound.
    pub(crate) fn cap_to_half(&mut self, limits: WindowLimits) -> u16 {
        self.cap = (self.size(limits) / 2).max(limits.min.max(1));
        self.cap
    }

    /// No wider than this, until `uncap`.
    pub(crate) fn cap(&mut self, most: u16) {
        self.cap = most.max(1);
    }

    pub(crate) fn uncap(&mut self) {
        self.cap = u16::MAX;
    }

    pub(crate) fn is_capped(&self) -> bool {
        self.cap < u16::MAX
    }

    /// After a suspension only little is risked; what was borne before is soon reached again.
    pub(crate) fn start_again(&mut self, limits: WindowLimits) {
        self.size = u32::from(limits.min.max(1)) * UNIT;
    }
}

/// A set of small numbers that gives out the lowest free one.
#[derive(Debug, Default)]
struct Slots(SmallVec<[u64; 1]>);

impl Slots {
    fn lowest_free(&self) -> u16 {
        let word = self.0.iter().position(|word| *word != u64::MAX).unwrap_or(self.0.len());
        let bit = self.0.get(word).map_or(0, |word| word.trailing_ones());
        (word as u32 * 64 + bit) as u16
    }

    fn take(&mut self) -> u16 {
        let slot = self.lowest_free();
        let (word, bit) = (usize::from(slot / 64), slot % 64);
        if word == self.0.len() {
            self.0.push(0);
        }
        self.0[word] |= 1 << bit;
        slot
    }

    fn give_back(&mut self, slot: u16) {
        if let Some(word) = self.0.get_mut(usize::from(slot / 64)) {
            *word &= !(1 << (slot % 64));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: WindowLimits = WindowLimits { initial: 4, min: 1, max: 32 };

    fn succeed_a_windowful(window: &mut Window, from: u64) {
        let slots: Vec<u16> = (0..window.size(LIMITS)).map(|_| window.begin()).collect();
        for (nth, slot) in slots.into_iter().enumerate() {
            window.widen(LIMITS, from + nth as u64);
            window.end(slot);
        }
    }

    #[test]
    fn the_lowest_free_slot_is_taken_first() {
        let mut slots = Slots::default();
        let taken: Vec<u16> = (0..130).map(|_| slots.take()).collect();
        assert_eq!(taken, (0..130).collect::<Vec<u16>>());
        slots.give_back(64);
        slots.give_back(3);
        assert_eq!((slots.take(), slots.take(), slots.take()), (3, 64, 130));
    }

    #[test]
    fn a_fast_site_reaches_the_maximum_in_a_few_windowfuls() {
        let mut window = Window::new(LIMITS);
        for round in 0..6 {
            succeed_a_windowful(&mut window, 1 + round * 100);
        }
        assert_eq!(window.size(LIMITS), 32);
    }

    #[test]
    fn after_trouble_it_widens_by_about_one_for_each_windowful() {
        let mut window = Window::new(LIMITS);
        (0..6).for_each(|round| succeed_a_windowful(&mut window, 1 + round * 100));
        window.narrow(LIMITS, 700, 700);
        assert_eq!(window.size(LIMITS), 16);
        (0..4).for_each(|round| succeed_a_windowful(&mut window, 1000 + round * 100));
        assert!((17..=20).contains(&window.size(LIMITS)), "{}", window.size(LIMITS));
    }

    #[test]
    fn many_troubles_of_one_windowful_narrow_once_and_never_below_the_minimum() {
        let mut window = Window::new(LIMITS);
        assert!(window.narrow(LIMITS, 1, 4));
        assert!((2..=4).all(|number| !window.narrow(LIMITS, number, 4)));
        assert_eq!(window.size(LIMITS), 2);
        assert!((5..=100).all(|number| window.narrow(LIMITS, number, number)));
        assert_eq!(window.size(LIMITS), 1);
    }

    #[test]
    fn a_one_time_code_has_one_place_more_and_nobody_more_than_the_maximum() {
        let limits = |initial, max| WindowLimits { initial, min: 1, max };
        for (initial, max, otp, others) in
            [(1, 8, 2, 1), (4, 8, 5, 4), (7, 8, 8, 7), (8, 8, 8, 7), (4, 4, 4, 3), (3, 3, 3, 3), (1, 3, 2, 1), (1, 1, 1, 1)]
        {
            let (limits, window) = (limits(initial, max), Window::new(limits(initial, max)));
            assert_eq!((window.room(limits, Lane::Otp), window.room(limits, Lane::Notice)), (otp, others), "{initial} of {max}");
            assert_eq!(window.room(limits, Lane::Transactional), others);
        }
    }

    #[test]
    fn an_unused_window_does_not_grow() {
        let mut window = Window::new(LIMITS);
        for number in 1..100 {
            let slot = window.begin();
            window.widen(LIMITS, number);
            window.end(slot);
        }
        assert_eq!(window.size(LIMITS), 4);
    }
}
