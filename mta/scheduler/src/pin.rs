//! What a single delivery remembers about sources: which one a greylisting host knows it by, and which one to avoid once.
//!
//! Kept in memory only: after a restart a greylisted delivery may come from another source and waits once more.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use crate::dice::Hashing;
use crate::time::Time;
use crate::types::{QueueId, SourceId};

/// Deliveries with something to remember; at the bound the memory that would end first is given up.
const PINS_MAX: usize = 16_384;

/// A greylisting host that has not let a delivery in by then will not because of the source.
pub(crate) const GREYLIST_MEMORY: Duration = Duration::from_secs(6 * 3600);

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Pin {
    /// Tried from here again, if it is free.
    pub(crate) stays: Option<SourceId>,
    /// Not tried from here, if another one is free.
    pub(crate) avoids: Option<SourceId>,
    /// The other source has been tried: once is enough.
    pub(crate) tried: bool,
    /// It was given to the other address family once, because its source's does not lead there.
    pub(crate) turned: bool,
}

type Key = (QueueId, Arc<str>);

pub(crate) struct Pins {
    pins: HashMap<Key, (Pin, Time), Hashing>,
    ends: BTreeSet<(Time, Key)>,
}

impl Pins {
    pub(crate) fn new(hashing: Hashing) -> Pins {
        Pins { pins: HashMap::with_hasher(hashing), ends: BTreeSet::new() }
    }

    pub(crate) fn get(&self, now: Time, id: QueueId, domain: &Arc<str>) -> Option<Pin> {
        if self.pins.is_empty() {
            return None;
        }
        self.pins.get(&(id, domain.clone())).filter(|(_, until)| *until > now).map(|(pin, _)| *pin)
    }

    pub(crate) fn put(&mut self, now: Time, id: QueueId, domain: &Arc<str>, pin: Pin, until: Time) {
        while let Some((end, key)) = self.ends.first().cloned()
            && (end <= now || self.pins.len() >= PINS_MAX)
        {
            self.ends.remove(&(end, key.clone()));
            self.pins.remove(&key);
        }
        self.forget(id, domain);
        let key = (id, domain.clone());
        self.ends.insert((until, key.clone()));
        self.pins.insert(key, (pin, until));
    }

    /// The delivery is gone, or its memory of no use any more.
    pub(crate) fn forget(&mut self, id: QueueId, domain: &Arc<str>) {
        if self.pins.is_empty() {
            return;
        }
        let key = (id, domain.clone());
        if let Some((_, until)) = self.pins.remove(&key) {
            self.ends.remove(&(until, key));
        }
    }

    #[cfg(test)]
    fn len(&self) -> usize {
        self.pins.len()
    }
}

impl Pin {
    /// Of the sources that are free, those that the delivery should go from; all of them where it has no wish that can be met.
    pub(crate) fn narrow(self, free: &mut smallvec::SmallVec<[(SourceId, u32); 16]>) {
        if let Some(stays) = self.stays
            && free.iter().any(|(source, _)| *source == stays)
        {
            free.retain(|(source, _)| *source == stays);
        } else if let Some(avoids) = self.avoids.filter(|_| !self.tried)
            && free.iter().any(|(source, weight)| *source != avoids && *weight > 0)
        {
            free.retain(|(source, _)| *source != avoids);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use smallvec::smallvec;

    #[test]
    fn a_delivery_stays_with_its_source_or_avoids_it_once_where_that_is_possible() {
        let all: smallvec::SmallVec<[(SourceId, u32); 16]> = smallvec![(SourceId(0), 1), (SourceId(1), 1)];
        let narrowed = |pin: Pin, free: &[(SourceId, u32)]| {
            let mut free = free.into();
            pin.narrow(&mut free);
            free.iter().map(|(source, _)| source.0).collect::<Vec<_>>()
        };
        let stays = Pin { stays: Some(SourceId(1)), ..Pin::default() };
        assert_eq!(narrowed(stays, &all), [1]);
        assert_eq!(narrowed(stays, &all[..1]), [0], "it is not free: the other one is better than waiting");
        let avoids = Pin { avoids: Some(SourceId(0)), ..Pin::default() };
        assert_eq!(narrowed(avoids, &all), [1]);
        assert_eq!(narrowed(avoids, &all[..1]), [0]);
        assert_eq!(narrowed(Pin { tried: true, ..avoids }, &all), [0, 1]);
    }

    #[test]
    fn memories_end_by_time_and_by_number() {
        let (mut pins, domain) = (Pins::new(Hashing::seeded(1)), Arc::<str>::from("a.test"));
        let hour = |hours: u32| Time::ALWAYS.plus(Duration::from_secs(3600) * hours);
        let pin = Pin { stays: Some(SourceId(1)), ..Pin::default() };
        pins.put(hour(0), QueueId(1), &domain, pin, hour(6));
        assert_eq!(pins.get(hour(5), QueueId(1), &domain), Some(pin));
        assert_eq!(pins.get(hour(6), QueueId(1), &domain), None);
        (2..20_000).for_each(|id| pins.put(hour(1), QueueId(id), &domain, pin, hour(8)));
        assert_eq!(pins.len(), PINS_MAX);
        pins.put(hour(9), QueueId(3), &domain, pin, hour(10));
        assert_eq!((pins.len(), pins.ends.len()), (1, 1));
    }
}
