//! What a single delivery remembers about sources: which one a greylisting host knows it by, and which one to avoid once.
//!
//! What a greylisting host knows a delivery by is told to the driver ([`Pinned`]), so that it outlasts a restart: from another source
//! the delivery would wait once more.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use crate::dice::Hashing;
use crate::machine::Scheduler;
use crate::time::Time;
use crate::types::{QueueId, SourceId};

/// Deliveries with something to remember; at the bound the memory that would end first is given up.
const PINS_MAX: usize = 16_384;

/// A greylisting host that has not let a delivery in by then will not because of the source.
pub(crate) const GREYLIST_MEMORY: Duration = Duration::from_secs(6 * 3600);

/// The source that a delivery stays with, as it is written down.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pinned {
    /// The message.
    pub id: QueueId,
    /// Recipient domain.
    pub domain: Arc<str>,
    /// The source's name. None: from now on it may come from any.
    pub source: Option<Arc<str>>,
    /// From then on it counts no more.
    pub until: SystemTime,
}

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
    /// The last word about each that is not told yet. The driver takes all after every input, so there are few.
    news: HashMap<Key, Option<(SourceId, Time)>, Hashing>,
}

impl Pins {
    pub(crate) fn new(hashing: Hashing) -> Pins {
        let news = HashMap::with_hasher(hashing.clone());
        Pins { pins: HashMap::with_hasher(hashing), ends: BTreeSet::new(), news }
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
            self.forget(key.0, &key.1);
        }
        self.forget(id, domain);
        let key = (id, domain.clone());
        if let Some(stays) = pin.stays {
            self.news.insert(key.clone(), Some((stays, until)));
        }
        self.ends.insert((until, key.clone()));
        self.pins.insert(key, (pin, until));
    }

    /// The delivery is gone, or its memory of no use any more.
    pub(crate) fn forget(&mut self, id: QueueId, domain: &Arc<str>) {
        if self.pins.is_empty() {
            return;
        }
        let key = (id, domain.clone());
        if let Some((pin, until)) = self.pins.remove(&key) {
            self.ends.remove(&(until, key.clone()));
            if pin.stays.is_some() {
                self.news.insert(key, None);
            }
        }
    }

    #[cfg(test)]
    fn len(&self) -> usize {
        self.pins.len()
    }
}

impl Scheduler {
    /// Which source a delivery stays with from now on, to be written down. Ask until there is none, after every input and poll.
    pub fn poll_pins(&mut self) -> Option<Pinned> {
        let key = self.pins.news.keys().next()?.clone();
        let stays = self.pins.news.remove(&key)?;
        let source = stays.and_then(|(source, _)| Some(self.sources.get(source)?.source.name.clone()));
        let until = stays.and_then(|(_, until)| until.system()).unwrap_or(SystemTime::UNIX_EPOCH);
        let (id, domain) = key;
        Some(Pinned { id, domain, source, until })
    }

    /// What was written down before a restart. Before any mail.
    pub fn handle_pins(&mut self, now: SystemTime, pinned: Vec<Pinned>) {
        for Pinned { id, domain, source, until } in pinned {
            let stays = source.and_then(|name| self.sources.find(&name)).filter(|_| until > now);
            if stays.is_some() {
                let pin = self.pins.get(now.into(), id, &domain).unwrap_or_default();
                self.pins.put(now.into(), id, &domain, Pin { stays, ..pin }, until.into());
            }
            // It is on disk already; what is over, or of a source that is not ours any more, goes.
            match stays {
                Some(_) => drop(self.pins.news.remove(&(id, domain))),
                None => drop(self.pins.news.insert((id, domain), None)),
            }
        }
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
    fn what_is_told_is_the_last_word_about_each_delivery_that_stays() {
        let (mut pins, domain) = (Pins::new(Hashing::seeded(1)), Arc::<str>::from("a.test"));
        let hour = |hours: u32| Time::ALWAYS.plus(Duration::from_secs(3600) * hours);
        let stays = |nth| Pin { stays: Some(SourceId(nth)), ..Pin::default() };
        pins.put(hour(0), QueueId(1), &domain, stays(1), hour(6));
        pins.put(hour(1), QueueId(1), &domain, stays(2), hour(7));
        pins.put(hour(1), QueueId(2), &domain, stays(1), hour(7));
        pins.forget(QueueId(2), &domain);
        pins.put(hour(1), QueueId(3), &domain, Pin { avoids: Some(SourceId(1)), ..Pin::default() }, hour(7));
        pins.forget(QueueId(3), &domain);
        let mut news: Vec<_> = pins.news.drain().map(|((id, _), stays)| (id.0, stays)).collect();
        news.sort_unstable_by_key(|(id, _)| *id);
        assert_eq!(news, [(1, Some((SourceId(2), hour(7)))), (2, None)]);
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
