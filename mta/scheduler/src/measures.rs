//! The measures that run: found by id, by what they are about, and by when they end.
//!
//! The same kind of measure about the same object exists once: what would start it again moves its end. The table is bounded
//! (`MEASURES_MAX`); at the bound the one that ends first makes way, before its time. What a measure does stands where it
//! is looked for: at the site and its paths (`health.rs`, `window.rs`), and in `stops` and `held_members` here.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use crate::dice::Hashing;
use crate::measure::{Change, Measure, MeasureKind, MeasureNews, Object, SourceHealth};
use crate::source::Sources;
use crate::time::Time;
use crate::types::SourceId;

/// Measures that run at the same time. Some 500 octets each, of which half is the reply.
pub(crate) const MEASURES_MAX: usize = 16_384;

/// Of these, deliveries that are tried from another source; past it a delivery is retried as any other.
pub(crate) const OTHER_SOURCE_MAX: usize = 1_024;

/// Octets of a cause that are kept.
const CAUSE_BYTES_MAX: usize = 512;

/// A site or path that was left alone waits for its probe after the time is over; without mail none goes, and then the
/// measure ends by itself.
const PROBE_WAIT: Duration = Duration::from_secs(15 * 60);

/// Nothing lasts longer than this, whoever asks for it.
pub(crate) const LASTS_MAX: Duration = Duration::from_secs(30 * 24 * 3600);

/// What is wanted of the table.
pub(crate) struct Wanted {
    pub(crate) kind: MeasureKind,
    pub(crate) object: Object,
    pub(crate) class: Option<crate::measure::ReplyClass>,
    pub(crate) rule: Arc<str>,
    pub(crate) cause: Arc<str>,
    pub(crate) expires: Time,
    pub(crate) window: Option<u16>,
}

/// A source that is stopped or degraded, at a provider or everywhere.
pub(crate) struct Stop {
    source: SourceId,
    provider: Option<Arc<str>>,
    pub(crate) health: SourceHealth,
    pub(crate) until: Time,
    pub(crate) id: u64,
}

pub(crate) struct Measures {
    running: BTreeMap<u64, Measure>,
    by_object: HashMap<(MeasureKind, Object), u64, Hashing>,
    ends: BTreeSet<(Time, u64)>,
    last_id: u64,
    /// Derived from `running`; few.
    stops: Vec<Stop>,
    /// Derived from `running`.
    held_members: HashMap<u32, (u64, Time), Hashing>,
    pub(crate) other_source: usize,
    news: VecDeque<MeasureNews>,
    /// When the timers will bring us back here.
    pub(crate) wake: Time,
}

impl Measures {
    pub(crate) fn new(hashing: Hashing) -> Measures {
        Measures {
            running: BTreeMap::new(),
            by_object: HashMap::with_hasher(hashing.clone()),
            ends: BTreeSet::new(),
            last_id: 0,
            stops: Vec::new(),
            held_members: HashMap::with_hasher(hashing),
            other_source: 0,
            news: VecDeque::new(),
            wake: Time::NEVER,
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.running.is_empty()
    }

    pub(crate) fn len(&self) -> usize {
        self.running.len()
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &Measure> {
        self.running.values()
    }

    pub(crate) fn get(&self, id: u64) -> Option<&Measure> {
        self.running.get(&id)
    }

    pub(crate) fn find(&self, kind: MeasureKind, object: &Object) -> Option<&Measure> {
        if self.running.is_empty() {
            return None;
        }
        self.running.get(self.by_object.get(&(kind, object.clone()))?)
    }

    pub(crate) fn pop_news(&mut self) -> Option<MeasureNews> {
        self.news.pop_front()
    }

    /// Starts what is wanted, or moves the end of what runs already; the end never comes nearer by that. Gives the id.
    pub(crate) fn want(&mut self, now: Time, wanted: Wanted, pool: &Sources) -> u64 {
        let expires = wanted.expires.min(now.plus(LASTS_MAX));
        let (Some(from), Some(until)) = (now.system(), expires.system()) else { return 0 };
        if let Some(&id) = self.by_object.get(&(wanted.kind, wanted.object.clone())) {
            if let Some(measure) = self.running.get_mut(&id) {
                self.ends.remove(&(end(measure), id));
                measure.expires = measure.expires.max(until);
                measure.again = measure.again.saturating_add(1);
                measure.window = wanted.window.or(measure.window);
                (measure.class, measure.cause, measure.rule) = (wanted.class, wanted.cause, wanted.rule);
                self.ends.insert((end(measure), id));
                self.news.push_back(MeasureNews { measure: measure.clone(), change: Change::Again });
            }
            self.derive(pool);
            return id;
        }
        self.last_id += 1;
        let measure = Measure {
            id: self.last_id,
            kind: wanted.kind,
            object: wanted.object,
            class: wanted.class,
            rule: wanted.rule,
            cause: cut(wanted.cause),
            started: from,
            expires: until,
            again: 0,
            window: wanted.window,
        };
        self.news.push_back(MeasureNews { measure: measure.clone(), change: Change::Started });
        self.insert(measure, pool);
        self.last_id
    }

    /// What ran before a restart.
    pub(crate) fn restore(&mut self, measures: Vec<Measure>, last_id: u64, pool: &Sources) {
        self.last_id = self.last_id.max(last_id);
        for measure in measures.into_iter().take(MEASURES_MAX) {
            self.last_id = self.last_id.max(measure.id);
            self.insert(measure, pool);
        }
    }

    fn insert(&mut self, measure: Measure, pool: &Sources) {
        self.ends.insert((end(&measure), measure.id));
        self.by_object.insert((measure.kind, measure.object.clone()), measure.id);
        self.other_source += usize::from(measure.kind == MeasureKind::OtherSource);
        let derives = derives(measure.kind);
        self.running.insert(measure.id, measure);
        if derives {
            self.derive(pool);
        }
    }

    /// An operator moves the end by so much from now, or from the end if that is later.
    pub(crate) fn extend(&mut self, now: Time, id: u64, by: Duration, who: &str, pool: &Sources) -> Option<Measure> {
        let measure = self.running.get_mut(&id)?;
        self.ends.remove(&(end(measure), id));
        let until = Time::from(measure.expires).max(now).plus(by).min(now.plus(LASTS_MAX));
        measure.expires = until.system().unwrap_or(measure.expires);
        self.ends.insert((end(measure), id));
        let measure = measure.clone();
        self.news.push_back(MeasureNews { measure: measure.clone(), change: Change::Extended(cut(who.into())) });
        self.derive(pool);
        Some(measure)
    }

    /// Takes one out and tells of it; what it did is undone by the caller.
    pub(crate) fn end(&mut self, id: u64, change: Change, pool: &Sources) -> Option<Measure> {
        let measure = self.running.remove(&id)?;
        self.ends.remove(&(end(&measure), id));
        self.by_object.remove(&(measure.kind, measure.object.clone()));
        self.other_source -= usize::from(measure.kind == MeasureKind::OtherSource);
        self.news.push_back(MeasureNews { measure: measure.clone(), change });
        if derives(measure.kind) {
            self.derive(pool);
        }
        Some(measure)
    }

    /// The one that ends first.
    pub(crate) fn first_end(&self) -> Option<(Time, u64)> {
        self.ends.first().copied()
    }

    /// What stands in the way of sources and members, after something changed.
    pub(crate) fn derive(&mut self, pool: &Sources) {
        self.stops.clear();
        self.held_members.clear();
        for measure in self.running.values() {
            let (source, provider, health) = match (&measure.object, measure.kind) {
                (Object::AtProvider { source, provider }, MeasureKind::PauseProvider) => {
                    (source, Some(provider.clone()), SourceHealth::Paused)
                }
                (Object::Source(source), MeasureKind::PauseSource) => (source, None, SourceHealth::Paused),
                (Object::Source(source), MeasureKind::DegradeSource) => (source, None, SourceHealth::Degraded),
                (Object::Member(member), MeasureKind::HoldMember) => {
                    self.held_members.insert(*member, (measure.id, measure.expires.into()));
                    continue;
                }
                _ => continue,
            };
            let Some(source) = pool.find(source) else { continue };
            self.stops.push(Stop { source, provider, health, until: measure.expires.into(), id: measure.id });
        }
    }

    /// What stops or degrades a source at a provider: the worst of it.
    pub(crate) fn stop(&self, now: Time, source: SourceId, provider: &str) -> Option<&Stop> {
        let concerns = |stop: &&Stop| {
            stop.source == source && stop.until > now && stop.provider.as_deref().is_none_or(|other| other == provider)
        };
        self.stops.iter().filter(concerns).max_by_key(|stop| (stop.health, stop.until))
    }

    /// Which measure holds a member, and until when.
    pub(crate) fn holds(&self, now: Time, member: u32) -> Option<(u64, Time)> {
        if self.held_members.is_empty() {
            return None;
        }
        self.held_members.get(&member).copied().filter(|(_, until)| *until > now)
    }
}

/// Some kinds leave their mark in `stops` or `held_members`.
fn derives(kind: MeasureKind) -> bool {
    match kind {
        MeasureKind::PauseProvider | MeasureKind::PauseSource | MeasureKind::DegradeSource | MeasureKind::HoldMember => true,
        MeasureKind::LeaveSite | MeasureKind::PauseSite | MeasureKind::Narrow | MeasureKind::OtherSource => false,
    }
}

/// When nobody needs it any more.
fn end(measure: &Measure) -> Time {
    let until = Time::from(measure.expires);
    match measure.kind {
        MeasureKind::LeaveSite | MeasureKind::PauseSite => until.plus(PROBE_WAIT),
        _ => until,
    }
}

pub(crate) fn cut(text: Arc<str>) -> Arc<str> {
    if text.len() <= CAUSE_BYTES_MAX {
        return text;
    }
    let mut end = CAUSE_BYTES_MAX;
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text[..end].into()
}
