//! What follows from replies, and what an operator does about it: rules act on classes, measures start, end and are
//! undone, sources are well or not.
//!
//! What a suspension is told by (`learn` in `send.rs`) becomes a measure here too, so that everything that stops mail by
//! itself has an id, a cause and an end.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use crate::machine::{Scheduler, Subject};
use crate::measure::{Change, Measure, MeasureKind, MeasureNews, Object, Reaction, ReplyClass, SourceHealth};
use crate::measures::{MEASURES_MAX, OTHER_SOURCE_MAX, Wanted};
use crate::pin::{GREYLIST_MEMORY, Pin};
use crate::send::Attempt;
use crate::source;
use crate::tally::About;
use crate::time::Time;
use crate::types::{Lane, Outcome, QueueId, SourceId, Verdict};

/// How one of our sources stands, as shown.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SourceHealthView {
    /// Which.
    pub source: Arc<str>,
    /// With whom. None: as a whole.
    pub provider: Option<Arc<str>>,
    /// How.
    pub health: SourceHealth,
    /// The measures that make it so.
    pub measures: Vec<u64>,
}

impl Scheduler {
    /// News of measures, to be written down. Ask until there is none, after every input and poll.
    pub fn poll_measures(&mut self) -> Option<MeasureNews> {
        self.measures.pop_news()
    }

    /// Measures that ran before a restart, and the last id that was ever given. Before any other input.
    pub fn handle_measures(&mut self, now: SystemTime, measures: Vec<Measure>, last_id: u64) {
        for measure in &measures {
            // What a delivery remembers is told by its measure, as far as it has one.
            if let Object::Delivery { id, domain, source } = &measure.object {
                let pin = Pin { avoids: self.sources.find(source), ..Pin::default() };
                self.pins.put(now.into(), *id, domain, pin, measure.expires.into());
            }
        }
        self.measures.restore(measures, last_id, &self.sources);
        self.wake_measures();
        self.end_measures(now.into());
    }

    /// The measures that run, by id.
    pub fn measures(&self) -> impl Iterator<Item = &Measure> {
        self.measures.iter()
    }

    /// One of them.
    pub fn measure(&self, id: u64) -> Option<&Measure> {
        self.measures.get(id)
    }

    /// Ends a measure before its time. What it counted is forgotten, so that the next reply does not start it again. None:
    /// it does not run.
    pub fn cancel_measure(&mut self, now: SystemTime, id: u64, by: &str) -> Option<Measure> {
        let now = Time::from(now);
        let measure = self.measures.end(id, Change::Cancelled(by.into()), &self.sources)?;
        self.forget_tallies(&measure.object);
        self.undo(now, &measure);
        self.wake_measures();
        Some(measure)
    }

    /// Moves the end of a measure by so much, from now if it is over. None: it does not run.
    pub fn extend_measure(&mut self, now: SystemTime, id: u64, by: Duration, who: &str) -> Option<Measure> {
        let now = Time::from(now);
        let measure = self.measures.extend(now, id, by, who, &self.sources)?;
        let until = Time::from(measure.expires);
        let latest = self.begun;
        match &measure.object {
            Object::Site(site) => {
                if let Some(site) = self.site_by_name.get(site).and_then(|key| self.sites.get_mut(*key)) {
                    site.health.prolong(until, latest);
                }
            }
            Object::AtSite { source, site } if measure.kind == MeasureKind::PauseSite => {
                let source = self.sources.find(source);
                let site = self.site_by_name.get(site).and_then(|key| self.sites.get_mut(*key));
                if let Some(path) = site.zip(source).and_then(|(site, source)| site.known_path_mut(source)) {
                    path.health.prolong(until, latest);
                }
            }
            _ => {}
        }
        self.wake_measures();
        Some(measure)
    }

    /// Somebody outside (a watch of block lists) has found out how a source stands: it is to send less than its share, or
    /// nothing, for so long, or is well again. The last source of its family that still sends is never paused: it is degraded,
    /// because mail that is refused from a listed address comes back with a reason, and mail that is not sent does not.
    pub fn set_source_health(&mut self, now: SystemTime, source: &str, health: SourceHealth, cause: &str, lasts: Duration) {
        let now = Time::from(now);
        let Some(id) = self.sources.find(source) else { return };
        let object = Object::Source(source.into());
        let kind = match health {
            SourceHealth::Healthy => None,
            SourceHealth::Paused if self.can_do_without(now, id) => Some(MeasureKind::PauseSource),
            SourceHealth::Paused | SourceHealth::Degraded => Some(MeasureKind::DegradeSource),
        };
        for other in [MeasureKind::PauseSource, MeasureKind::DegradeSource] {
            if Some(other) != kind
                && let Some(running) = self.measures.find(other, &object).map(|measure| measure.id)
                && let Some(ended) = self.measures.end(running, Change::Cancelled(cause.into()), &self.sources)
            {
                self.undo(now, &ended);
            }
        }
        if let Some(kind) = kind {
            let (rule, cause, expires) = ("watch".into(), cause.into(), now.plus(lasts));
            self.want(now, Wanted { kind, object, class: None, rule, cause, expires, window: None });
        }
        self.wake_measures();
    }

    /// How each source stands as a whole and with each provider that something is known about.
    pub fn source_health(&self, now: SystemTime) -> Vec<SourceHealthView> {
        let now = Time::from(now);
        let mut views: Vec<SourceHealthView> = Vec::new();
        for (_, pooled) in self.sources.iter().filter(|(_, pooled)| !pooled.removed) {
            views.push(SourceHealthView {
                source: pooled.source.name.clone(),
                provider: None,
                health: SourceHealth::Healthy,
                measures: Vec::new(),
            });
        }
        for measure in self.measures.iter().filter(|measure| Time::from(measure.expires) > now) {
            let (source, provider, health) = match (&measure.object, measure.kind) {
                (Object::Source(source), MeasureKind::PauseSource) => (source, None, SourceHealth::Paused),
                (Object::Source(source), _) => (source, None, SourceHealth::Degraded),
                (Object::AtProvider { source, provider }, _) => (source, Some(provider), SourceHealth::Paused),
                (Object::AtSite { source, site }, _) => {
                    let site = self.site_by_name.get(site).and_then(|key| self.sites.get(*key));
                    let Some(site) = site else { continue };
                    (source, Some(&site.provider), SourceHealth::Degraded)
                }
                (Object::Site(_) | Object::Member(_) | Object::Delivery { .. }, _) => continue,
            };
            // As a whole a source is no better than degraded where one provider has paused it.
            let overall = provider.map(|_| (None, SourceHealth::Degraded));
            for (provider, health) in [(provider, health)].into_iter().chain(overall) {
                let found = views.iter_mut().find(|view| view.source == *source && view.provider.as_ref() == provider);
                match found {
                    Some(view) => {
                        view.health = view.health.max(health);
                        view.measures.push(measure.id);
                    }
                    None => views.push(SourceHealthView {
                        source: source.clone(),
                        provider: provider.cloned(),
                        health,
                        measures: vec![measure.id],
                    }),
                }
            }
        }
        views
    }

    /// Starts a measure or moves its end. At the bound the one that ends first makes way.
    pub(crate) fn want(&mut self, now: Time, wanted: Wanted) -> u64 {
        if self.measures.len() >= MEASURES_MAX
            && self.measures.find(wanted.kind, &wanted.object).is_none()
            && let Some((_, first)) = self.measures.first_end()
            && let Some(ended) = self.measures.end(first, Change::Expired, &self.sources)
        {
            self.undo(now, &ended);
        }
        let id = self.measures.want(now, wanted, &self.sources);
        self.wake_measures();
        id
    }

    /// The time of some measures is over.
    pub(crate) fn end_measures(&mut self, now: Time) {
        while let Some((_, id)) = self.measures.first_end().filter(|(end, _)| *end <= now) {
            if let Some(ended) = self.measures.end(id, Change::Expired, &self.sources) {
                self.undo(now, &ended);
            }
        }
        self.wake_measures();
    }

    fn wake_measures(&mut self) {
        let at = self.measures.first_end().map_or(Time::NEVER, |(end, _)| end);
        if at != self.measures.wake {
            self.timers.remove(&(self.measures.wake, Subject::Measures));
            if at < Time::NEVER {
                self.timers.insert((at, Subject::Measures));
            }
            self.measures.wake = at;
        }
    }

    /// A site or a source there is well again, before anybody said so.
    pub(crate) fn end_measure_of(&mut self, kind: MeasureKind, object: &Object) {
        if let Some(id) = self.measures.find(kind, object).map(|measure| measure.id) {
            self.measures.end(id, Change::Expired, &self.sources);
            self.wake_measures();
        }
    }

    /// Takes back what a measure did.
    fn undo(&mut self, now: Time, measure: &Measure) {
        match &measure.object {
            Object::Site(name) | Object::AtSite { site: name, .. } => {
                let Some(&key) = self.site_by_name.get(name) else { return };
                let Some(site) = self.sites.get_mut(key) else { return };
                let source = match &measure.object {
                    Object::AtSite { source, .. } => self.sources.find(source),
                    _ => None,
                };
                if measure.kind == MeasureKind::LeaveSite {
                    site.health.lift(now);
                }
                if let Some(path) = source.and_then(|source| site.known_path_mut(source)) {
                    match measure.kind {
                        MeasureKind::PauseSite => {
                            path.health.lift(now);
                        }
                        MeasureKind::Narrow => path.window.uncap(),
                        _ => {}
                    }
                }
                self.rouse(key);
                self.attend_site(now, key);
            }
            Object::AtProvider { .. } | Object::Source(_) => {
                let sites: Vec<u32> = self.sites.iter().map(|(key, _)| key).collect();
                sites.into_iter().for_each(|key| self.rouse(key));
            }
            Object::Member(member) => {
                // Rare, and bounded by what is in memory.
                let flows = self.flows.iter().filter(|(_, flow)| flow.member == *member);
                let flows: Vec<u32> = flows.map(|(key, _)| key).collect();
                flows.into_iter().for_each(|key| self.attend(now, key));
            }
            Object::Delivery { id, domain, .. } => {
                if let Some(pin) = self.pins.get(now, *id, domain) {
                    let pin = Pin { tried: true, ..pin };
                    self.pins.put(now, *id, domain, pin, now.plus(GREYLIST_MEMORY));
                }
            }
        }
    }

    /// A site that has just become known may have measures from before a restart, or from before it was forgotten.
    pub(crate) fn impose(&mut self, key: u32) {
        if self.measures.is_empty() {
            return;
        }
        let (pool, latest) = (self.pools.of_lane(Lane::Transactional), self.begun);
        let Some(site) = self.sites.get_mut(key) else { return };
        if let Some(measure) = self.measures.find(MeasureKind::LeaveSite, &Object::Site(site.name.clone())) {
            site.health.restore(measure.expires.into(), measure.again + 1, latest);
        }
        for (id, pooled) in self.sources.iter() {
            let object = Object::AtSite { source: pooled.source.name.clone(), site: site.name.clone() };
            let limits = site.shape.of(id, pool).window;
            if let Some(measure) = self.measures.find(MeasureKind::PauseSite, &object) {
                site.path_mut(id, limits).health.restore(measure.expires.into(), measure.again + 1, latest);
            }
            if let Some(measure) = self.measures.find(MeasureKind::Narrow, &object) {
                site.path_mut(id, limits).window.cap(measure.window.unwrap_or(1));
            }
        }
    }

    /// Applies the rules to the outcome of an attempt. True: the delivery is to be tried from another source, soon.
    pub(crate) fn react(
        &mut self,
        now: Time,
        attempt: &Attempt,
        (id, domain, member): (QueueId, &Arc<str>, u32),
        outcome: Outcome,
        reply: &str,
    ) -> bool {
        let class = outcome.class.filter(|_| outcome.verdict != Verdict::Delivered || outcome.open);
        if class == Some(ReplyClass::Greylist) && outcome.open {
            let pin = self.pins.get(now, id, domain).unwrap_or_default();
            let pin = Pin { stays: Some(attempt.source), ..pin };
            self.pins.put(now, id, domain, pin, now.plus(GREYLIST_MEMORY));
        }
        if self.config.rules.is_empty() || class.is_none() && self.tallies.is_empty() {
            return false;
        }
        let Some(provider) = self.sites.get(attempt.site).map(|site| site.provider.clone()) else { return false };
        let rules = self.config.rules.clone();
        let mut elsewhere = false;
        for (nth, rule) in rules.iter().enumerate() {
            if rule.provider.as_ref().is_some_and(|only| *only != provider) {
                continue;
            }
            let hit = class == Some(rule.class);
            let about = match rule.act {
                MeasureKind::OtherSource => {
                    elsewhere |= hit && outcome.open && self.try_elsewhere(now, attempt, (id, domain), rule, &provider, reply);
                    continue;
                }
                MeasureKind::Narrow | MeasureKind::PauseSite => About::AtSite(attempt.site, attempt.source),
                MeasureKind::PauseProvider => About::AtProvider(provider.clone(), attempt.source),
                MeasureKind::HoldMember => About::Member(member),
                MeasureKind::LeaveSite | MeasureKind::PauseSource | MeasureKind::DegradeSource => continue,
            };
            if self.tallies.count(now, nth as u16, rule, about, hit) {
                self.act_on(now, attempt, member, rule, &provider, reply);
            }
        }
        elsewhere
    }

    fn act_on(&mut self, now: Time, attempt: &Attempt, member: u32, rule: &Reaction, provider: &Arc<str>, reply: &str) {
        let alone = rule.alone.filter(|_| !self.has_another(now, attempt.source, provider, attempt.pool));
        let until = now.plus(alone.unwrap_or(rule.lasts));
        let (limits, latest) = (attempt.limits.window, self.begun);
        let Some(source) = self.sources.get(attempt.source).map(|pooled| pooled.source.name.clone()) else { return };
        let Some(site) = self.sites.get_mut(attempt.site) else { return };
        let at_site = Object::AtSite { source: source.clone(), site: site.name.clone() };
        let mut window = None;
        let object = match rule.act {
            MeasureKind::Narrow => {
                let path = site.path_mut(attempt.source, limits);
                window = Some(path.window.cap_to_half(limits));
                at_site
            }
            MeasureKind::PauseSite => {
                let path = site.path_mut(attempt.source, limits);
                if path.health.suspended_until().is_none_or(|other| other < until) {
                    path.health.suspend(until, latest);
                    path.window.start_again(limits);
                }
                at_site
            }
            MeasureKind::PauseProvider => Object::AtProvider { source, provider: provider.clone() },
            MeasureKind::HoldMember => Object::Member(member),
            MeasureKind::LeaveSite | MeasureKind::PauseSource | MeasureKind::DegradeSource | MeasureKind::OtherSource => return,
        };
        let (kind, class, rule, cause) = (rule.act, Some(rule.class), rule.name.clone(), reply.into());
        self.want(now, Wanted { kind, object, class, rule, cause, expires: until, window });
        self.wake_site(attempt.site, until);
    }

    /// Once for each delivery, and only where there is another source.
    pub(crate) fn try_elsewhere(
        &mut self,
        now: Time,
        attempt: &Attempt,
        (id, domain): (QueueId, &Arc<str>),
        rule: &Reaction,
        provider: &Arc<str>,
        reply: &str,
    ) -> bool {
        let pin = self.pins.get(now, id, domain).unwrap_or_default();
        let full = self.measures.other_source >= OTHER_SOURCE_MAX;
        if pin.avoids.is_some() || full || !self.has_another(now, attempt.source, provider, attempt.pool) {
            return false;
        }
        let Some(source) = self.sources.get(attempt.source).map(|pooled| pooled.source.name.clone()) else { return false };
        let until = now.plus(rule.lasts);
        self.pins.put(now, id, domain, Pin { stays: None, avoids: Some(attempt.source), tried: false, ..pin }, until);
        let object = Object::Delivery { id, domain: domain.clone(), source };
        let (class, rule, cause) = (Some(rule.class), rule.name.clone(), reply.into());
        self.want(now, Wanted { kind: MeasureKind::OtherSource, object, class, rule, cause, expires: until, window: None });
        true
    }

    /// The addresses of the source's family cannot be reached, and the route has others: the delivery goes from a source of the
    /// other family next, if its pool has one that may send there (RFC 8305 in spirit: a source is chosen before its connection,
    /// so families cannot race). Once for each delivery: a site that neither family leads to is down.
    pub(crate) fn turn_over(&mut self, now: Time, attempt: &Attempt, id: QueueId, domain: &Arc<str>) -> bool {
        let pin = self.pins.get(now, id, domain).unwrap_or_default();
        let Some(this) = self.sources.get(attempt.source).filter(|_| !pin.turned) else { return false };
        let Some(site) = self.sites.get(attempt.site) else { return false };
        let others = self.sources.iter().filter(|(other, pooled)| {
            let stop = self.measures.stop(now, *other, &site.provider);
            pooled.source.address.is_ipv4() != this.source.address.is_ipv4()
                && stop.is_none_or(|stop| stop.health < SourceHealth::Paused)
                && site.path(*other).is_none_or(|path| path.health.suspended_until().is_none())
        });
        let others = others.filter_map(|(other, _)| Some((other, self.pools.weight(attempt.pool, other)?)));
        let others: Vec<_> = others.filter(|(_, weight)| *weight > 0).collect();
        let Some(next) = source::choose(&others, &mut self.dice) else { return false };
        self.pins.put(now, id, domain, Pin { stays: Some(next), turned: true, ..pin }, now.plus(GREYLIST_MEMORY));
        true
    }

    /// Whether another source of the same family takes mail of a pool at a provider.
    fn has_another(&self, now: Time, id: SourceId, provider: &str, pool: u16) -> bool {
        let Some(this) = self.sources.get(id) else { return false };
        self.sources.iter().any(|(other, pooled)| {
            let stop = self.measures.stop(now, other, provider);
            other != id
                && self.pools.weight(pool, other).is_some_and(|weight| weight > 0)
                && pooled.source.address.is_ipv4() == this.source.address.is_ipv4()
                && stop.is_none_or(|stop| stop.health < SourceHealth::Paused)
        })
    }

    /// Whether each pool that a source is in has another one that sends.
    fn can_do_without(&self, now: Time, id: SourceId) -> bool {
        let pools = 0..self.pools.names().count() as u16;
        // No provider is called so: what counts is what stops a source everywhere.
        pools.filter(|pool| self.pools.weight(*pool, id).is_some()).all(|pool| self.has_another(now, id, "", pool))
    }

    /// A delivery begins: if it was to be tried from another source, it is now.
    pub(crate) fn note_begun(&mut self, now: Time, id: QueueId, domain: &Arc<str>, source: SourceId) {
        let Some(pin) = self.pins.get(now, id, domain) else { return };
        if let Some(avoids) = pin.avoids.filter(|avoids| !pin.tried && *avoids != source) {
            self.pins.put(now, id, domain, Pin { tried: true, ..pin }, now.plus(GREYLIST_MEMORY));
            self.end_other_source(id, domain, avoids);
        }
    }

    /// A delivery is gone.
    pub(crate) fn forget_pin(&mut self, now: Time, id: QueueId, domain: &Arc<str>) {
        let Some(pin) = self.pins.get(now, id, domain) else { return };
        self.pins.forget(id, domain);
        if let Some(avoids) = pin.avoids.filter(|_| !pin.tried) {
            self.end_other_source(id, domain, avoids);
        }
    }

    fn end_other_source(&mut self, id: QueueId, domain: &Arc<str>, avoids: SourceId) {
        let Some(source) = self.sources.get(avoids).map(|pooled| pooled.source.name.clone()) else { return };
        self.end_measure_of(MeasureKind::OtherSource, &Object::Delivery { id, domain: domain.clone(), source });
    }

    fn forget_tallies(&mut self, object: &Object) {
        let find = |name: &Arc<str>| self.sources.find(name);
        let about = match object {
            Object::AtSite { source, site } => {
                find(source).zip(self.site_by_name.get(site)).map(|(source, site)| About::AtSite(*site, source))
            }
            Object::AtProvider { source, provider } => find(source).map(|source| About::AtProvider(provider.clone(), source)),
            Object::Member(member) => Some(About::Member(*member)),
            Object::Site(_) | Object::Source(_) | Object::Delivery { .. } => None,
        };
        if let Some(about) = about {
            self.tallies.forget(|other| *other == about);
        }
    }
}
