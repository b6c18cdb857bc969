//! Warmup at work: which source carries what while some of them are young, and what an operator does about it.
//!
//! A young source gets its allowance first, with mail of the lanes that its plan names; one-time codes near their deadline and
//! what was deferred for a young source's reputation go from a source that is through, if there is one. What a young source may not
//! carry goes to the others of its pool, then to the pool that its plan names, and then waits; a one-time code that would have to
//! wait too long may go beyond the allowance, which is counted apart.
//!
//! Not here: counting and days (`warmup/`), the check itself (`evaluate.rs`).

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use crate::dice::Dice;
use crate::evaluate::{Evaluation, evaluate};
use crate::machine::Scheduler;
use crate::measure::{MeasureKind, Reaction, ReplyClass, Threshold};
use crate::pin::{GREYLIST_MEMORY, Pin};
use crate::send::Attempt;
use crate::site::Site;
use crate::source;
use crate::time::Time;
use crate::types::{Lane, Outcome, QueueId, Route, Scope, SourceId, Verdict};
use crate::warmup::{Climb, ClimbNews, ClimbState, ClimbView, Entry, Figures, Remembered, Spent};

/// A one-time code with less time than this, or one that was deferred before, is no occasion to try a young source.
const OTP_HURRY: Duration = Duration::from_secs(180);

/// So long a one-time code waits for an allowance, before it goes beyond one.
const OTP_PATIENCE: Duration = Duration::from_secs(30);

/// What an operator wants of a climb.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClimbWish {
    /// This stage, counted from 0, from now on.
    Set(u32),
    /// So many a day until further notice; None: as the plan says again.
    Pin(Option<u64>),
    /// Nothing more is sent.
    Pause,
    /// It goes on where it was.
    Resume,
    /// The next stage; after the last it is warm.
    Skip,
    /// So many stages back.
    Rewind(u32),
    /// So many complaints were heard of today, from a provider that tells its senders of them by other ways than ours.
    Complaints(u64),
}

/// A source for a delivery, or why there is none.
pub(crate) struct Choice {
    pub(crate) found: Evaluation,
    pub(crate) source: Option<SourceId>,
    /// The pool that it is of.
    pub(crate) pool: u16,
    /// It goes beyond an allowance.
    pub(crate) over: bool,
}

/// What matters of the delivery that would go.
#[derive(Clone, Copy)]
pub(crate) struct Candidate {
    pub(crate) lane: Lane,
    /// (deadline, tried before), if it is a certain one.
    pub(crate) hurry: Option<(Time, bool)>,
    pub(crate) pin: Option<Pin>,
}

impl Scheduler {
    /// From where a delivery of a pool goes now.
    pub(crate) fn choose(&self, now: Time, site: &Site, route: &Route, pool: u16, next: Candidate, dice: &mut Dice) -> Choice {
        let mut found = evaluate(&self.at(now, site, next.lane, pool), route, &self.sources);
        if let Some(pin) = next.pin {
            pin.narrow(&mut found.free);
        }
        if self.warmup.is_empty() {
            let source = source::choose(&found.free, dice);
            return Choice { found, source, pool, over: false };
        }
        self.prefer(now, site, next, &mut found);
        let source = source::choose(&found.free, dice);
        if source.is_some() || found.rationed.is_empty() {
            return Choice { found, source, pool, over: false };
        }
        // The sources of its pool may not: those of the pool that the plan names.
        let named = found.rationed.iter().find_map(|(id, _)| self.climb_at(site, *id)?.plan.overflow_pool.clone());
        if let Some(other) = named.and_then(|name| self.pools.find(&name)).filter(|other| *other != pool) {
            let elsewhere = evaluate(&self.at(now, site, next.lane, other), route, &self.sources);
            if let Some(source) = source::choose(&elsewhere.free, dice) {
                return Choice { found, source: Some(source), pool: other, over: false };
            }
            found.wake = found.wake.min(elsewhere.wake);
            found.held = found.held.and(elsewhere.held);
            let until = elsewhere.provider.unwrap_or(Time::NEVER);
            found.provider = Some(found.provider.unwrap_or(Time::NEVER).min(until));
        }
        // Otherwise it waits, unless it is a code that is worthless before its turn comes.
        if next.lane == Lane::Otp && found.provider.is_none_or(|until| until > now.plus(OTP_PATIENCE)) {
            let may = |(id, _): &(SourceId, u32)| {
                let entry = self.climb_at(site, *id);
                entry.is_some_and(|entry| entry.stop(now).is_some_and(|(stop, _)| entry.lets_otp_over(&stop)))
            };
            let beyond: Vec<(SourceId, u32)> = found.rationed.iter().filter(|held| may(held)).copied().collect();
            let source = source::choose(&beyond, dice);
            return Choice { found, source, pool, over: source.is_some() };
        }
        Choice { found, source: None, pool, over: false }
    }

    fn climb_at(&self, site: &Site, source: SourceId) -> Option<&Entry> {
        self.warmup.get(self.providers.get(site.provider_key as usize)?.source(source).climb())
    }

    /// Leaves of the free sources those that the delivery is for.
    fn prefer(&self, now: Time, site: &Site, next: Candidate, found: &mut Evaluation) {
        let hurried =
            next.lane == Lane::Otp && next.hurry.is_some_and(|(deadline, again)| again || deadline < now.plus(OTP_HURRY));
        let burnt = next.pin.is_some_and(|pin| pin.avoids.is_some() && !pin.tried);
        let cold = |id: SourceId| self.climb_at(site, id).is_some_and(|entry| entry.climb.is_cold());
        let first = |id: SourceId| self.climb_at(site, id).is_some_and(|entry| entry.climb.comes_first(&entry.plan, next.lane));
        if hurried || burnt {
            if found.free.iter().any(|(id, weight)| *weight > 0 && !cold(*id)) {
                found.free.retain(|(id, _)| !cold(*id));
            }
        } else if found.free.iter().any(|(id, weight)| *weight > 0 && first(*id)) {
            found.free.retain(|(id, _)| first(*id));
        }
    }

    /// Answers `Action::Deliver` where it is known how many recipients were accepted; the host had heard of all of them.
    pub fn handle_outcome_of(
        &mut self,
        now: SystemTime,
        id: QueueId,
        domain: &str,
        (outcome, accepted): (Outcome, u16),
        reply: &str,
    ) -> Option<Spent> {
        self.handle_outcome_heard(now, id, domain, (outcome, accepted, u16::MAX), reply)
    }

    /// Counts an attempt, and what it says about a young source. True: it should go from another source, soon.
    pub(crate) fn account(
        &mut self,
        now: Time,
        attempt: &Attempt,
        (id, domain): (QueueId, &Arc<str>),
        (outcome, accepted, heard): (Outcome, u16, u16),
        reply: &str,
    ) -> (Option<Spent>, bool) {
        let (Some(reservation), Some(climb)) = (attempt.reserved, attempt.climb) else { return (None, false) };
        let silent = outcome.unconnected || matches!(outcome.scope, Scope::Host | Scope::Site);
        let spoke = outcome.verdict != Verdict::Deferred || !silent;
        let spent = self.warmup.close(now, reservation, accepted, |figures: &mut Figures, rest| {
            // Those that the host never heard of were not tried.
            let rest = rest.min(u64::from(heard.saturating_sub(accepted)));
            match outcome.class {
                _ if !spoke || rest == 0 => {}
                Some(ReplyClass::Reputation | ReplyClass::Rate) if outcome.open => {
                    figures.tried += rest;
                    figures.deferred += rest;
                }
                Some(ReplyClass::Policy | ReplyClass::Reputation) if !outcome.open => {
                    figures.tried += rest;
                    figures.refused += rest;
                }
                Some(ReplyClass::Mailbox) if !outcome.open => {
                    figures.tried += rest;
                    figures.unknown += rest;
                }
                _ => figures.tried += rest,
            }
        });
        if outcome.verdict != Verdict::Delivered || outcome.open {
            self.warmup.strike(now, climb, reply);
        }
        let burnt = reservation.is_cold() && outcome.open && outcome.class == Some(ReplyClass::Reputation);
        let other = burnt.then(|| self.sites.get(attempt.site).map(|site| site.provider.clone())).flatten();
        let again = other.is_some_and(|provider| {
            let rule = Reaction {
                name: "warmup".into(),
                class: ReplyClass::Reputation,
                provider: None,
                threshold: Threshold::Count(1),
                within: GREYLIST_MEMORY,
                act: MeasureKind::OtherSource,
                lasts: GREYLIST_MEMORY,
                alone: None,
            };
            self.has_warm(attempt) && self.try_elsewhere(now, attempt, (id, domain), &rule, &provider, reply)
        });
        (spent, again)
    }

    /// Whether the pool has a source that is through, at the provider of an attempt.
    fn has_warm(&self, attempt: &Attempt) -> bool {
        let Some(site) = self.sites.get(attempt.site) else { return false };
        self.sources.iter().any(|(id, _)| {
            let weight = self.pools.weight(attempt.pool, id).unwrap_or(0);
            id != attempt.source && weight > 0 && self.climb_at(site, id).is_none_or(|entry| !entry.climb.is_cold())
        })
    }

    /// Days that are over end.
    pub(crate) fn turn_days(&mut self, now: Time) {
        self.begin_climbs(now);
        // A clock that was set back may stand in an hour that has something left.
        let back = now.plus(Duration::from_secs(1)) < self.warmup.seen;
        self.warmup.seen = now;
        if self.warmup.turn(now) || back {
            (0..self.providers.len() as u32).for_each(|key| self.open_provider(key));
            // Once a day everybody who waits is looked at.
            let sites: Vec<u32> = self.sites.iter().map(|(key, _)| key).collect();
            sites.into_iter().for_each(|key| self.rouse(key));
        }
    }

    /// The first assignments came without a time.
    fn begin_climbs(&mut self, now: Time) {
        if let Some(now) = now.system().filter(|_| !self.warmup.begun && !self.config.warmup.is_empty()) {
            self.warmup.configure(now, &self.config.warmup);
            self.bind_climbs();
        }
    }

    /// Tells each provider which of its sources climb.
    pub(crate) fn bind_climbs(&mut self) {
        for provider in &mut self.providers {
            provider.forget_climbs();
        }
        let climbs: Vec<_> =
            self.warmup.entries().map(|(nth, entry)| (nth, entry.source.clone(), entry.provider.clone())).collect();
        for (nth, source, provider) in climbs {
            let Some(source) = self.sources.find(&source) else { continue };
            let key = self.provider(&provider);
            if let Some(provider) = self.providers.get_mut(key as usize) {
                provider.source_mut(source).set_climb(nth);
            }
        }
    }

    /// So many recipients complained about mail from a source, as a provider's feedback loop tells. False: there is no such climb.
    pub fn handle_complaints(&mut self, now: SystemTime, source: &str, provider: &str, count: u64) -> bool {
        self.turn_days(now.into());
        self.warmup.complain(source, provider, count)
    }

    /// News of climbs, to be written down. Ask until there is none, after every input and poll.
    pub fn poll_warmup(&mut self) -> Option<ClimbNews> {
        self.warmup.pop_news()
    }

    /// What was known of climbs before a restart. Before any mail.
    pub fn handle_climbs(&mut self, now: SystemTime, remembered: Vec<Remembered>) {
        self.begin_climbs(now.into());
        self.warmup.restore(remembered);
        self.turn_days(now.into());
    }

    /// All climbs, as they stand.
    pub fn climbs(&self, now: SystemTime) -> impl Iterator<Item = ClimbView> {
        self.warmup.entries().map(move |(_, entry)| entry.view(now.into()))
    }

    /// Does what an operator wants of a climb; `by` says who and why. None: there is no such climb, or it cannot be done; else
    /// the climb as it is then.
    pub fn wish_climb(&mut self, now: SystemTime, source: &str, provider: &str, wish: ClimbWish, by: &str) -> Option<ClimbView> {
        self.turn_days(now.into());
        let found = self.warmup.entries().find(|(_, entry)| *entry.source == *source && *entry.provider == *provider);
        let (nth, entry) = found?;
        // Only what was paused goes on.
        if wish == ClimbWish::Resume && entry.climb.state != ClimbState::Paused {
            return None;
        }
        if let ClimbWish::Complaints(count) = wish {
            self.warmup.complain(source, provider, count);
        }
        self.warmup.operate(now, nth, by, |climb, stages| {
            let last = u32::try_from(stages.saturating_sub(1)).unwrap_or(0);
            let at = |stage: u32| Climb { stage: stage.min(last), state: ClimbState::Warming, idle: 0, ..*climb };
            match wish {
                ClimbWish::Set(stage) => (at(stage), format!("set to stage {}", stage.min(last) + 1)),
                ClimbWish::Pin(Some(most)) => (Climb { pinned: Some(most), ..*climb }, format!("pinned to {most} a day")),
                ClimbWish::Pin(None) => (Climb { pinned: None, ..*climb }, "no longer pinned".to_owned()),
                ClimbWish::Pause => (Climb { state: ClimbState::Paused, ..*climb }, "paused".to_owned()),
                ClimbWish::Resume if climb.day < climb.start => {
                    (Climb { state: ClimbState::Planned, ..*climb }, "resumed".to_owned())
                }
                ClimbWish::Resume => (at(climb.stage), "resumed".to_owned()),
                ClimbWish::Skip if climb.stage >= last => {
                    (Climb { state: ClimbState::Warm, idle: 0, ..*climb }, "skipped the last stage".to_owned())
                }
                ClimbWish::Skip => (at(climb.stage + 1), format!("skipped to stage {}", climb.stage + 2)),
                ClimbWish::Rewind(stages) => {
                    let stage = climb.stage.saturating_sub(stages);
                    (at(stage), format!("rewound to stage {}", stage + 1))
                }
                ClimbWish::Complaints(count) => (*climb, format!("{count} complaints")),
            }
        });
        if let Some(&key) = self.provider_by_name.get(provider) {
            self.open_provider(key);
        }
        self.warmup.get(Some(nth)).map(|entry| entry.view(now.into()))
    }
}
