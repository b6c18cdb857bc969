//! All climbs, with what today has brought: reserves, spends, gives back, and turns days.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use super::climb::{Climb, ClimbState, Figures, HOURS};
use super::decide::{Decision, Rule, decide, reassigned, strike};
use super::plan::Plan;
use super::zone::Day;
use crate::time::Time;

/// What a climb's figures are, apart from what the ledger counts, is written down no more often than this.
const SAVE_EVERY: Duration = Duration::from_secs(60);

/// A source that climbs at a provider, as the operator wants it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Assignment {
    /// The source's name.
    pub source: Arc<str>,
    /// The provider's name.
    pub provider: Arc<str>,
    /// How.
    pub plan: Arc<Plan>,
    /// The first day, since 1970 in the plan's zone.
    pub start: u32,
}

/// A climb as it is written down.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClimbRow {
    /// The source's name.
    pub source: Arc<str>,
    /// The provider's name.
    pub provider: Arc<str>,
    /// Where it stands.
    pub climb: Climb,
    /// What its day has brought; of `spent` the ledger knows better.
    pub figures: Figures,
}

/// Something was decided.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    /// When.
    pub at: SystemTime,
    /// By which rule.
    pub rule: Rule,
    /// The figures and what follows, in words.
    pub reason: Arc<str>,
    /// The day that it was decided about, since 1970 in the plan's zone.
    pub day: u32,
    /// State and stage, from 0, until then.
    pub from: (ClimbState, u32),
    /// The same from then on.
    pub to: (ClimbState, u32),
    /// What could be accepted on that day. None: as much as shaping lets through.
    pub allowance: Option<u64>,
    /// What that day had brought.
    pub figures: Figures,
    /// Who wanted it, and why. None: the engine itself.
    pub by: Option<Arc<str>>,
}

/// To be written down by the driver.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClimbNews {
    /// As it is now.
    pub row: ClimbRow,
    /// What was decided, if that is why.
    pub step: Option<Step>,
    /// One-time codes that were accepted beyond the allowance just now.
    pub over: u64,
}

/// What was known of a climb before a restart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Remembered {
    /// The source's name.
    pub source: Arc<str>,
    /// The provider's name.
    pub provider: Arc<str>,
    /// As it was written down last, if it ever was.
    pub row: Option<ClimbRow>,
    /// The ledger from the row's day on, or of all days: (day, hour, recipients).
    pub ledger: Vec<(u32, u8, u64)>,
}

/// What an attempt spent: to be written down with its settlement.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Spent {
    /// The source's name.
    pub source: Arc<str>,
    /// The provider's name.
    pub provider: Arc<str>,
    /// The day that it was reserved on, since 1970 in the plan's zone.
    pub day: u32,
    /// The hour of that day.
    pub hour: u8,
    /// Recipients accepted.
    pub count: u64,
}

/// Why warmup lets nothing go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Stop {
    /// It begins later.
    Planned,
    /// An operator stopped it.
    Paused,
    /// The day's allowance is spent, or reserved for what is under way.
    Day {
        /// Of the day.
        allowance: u64,
        /// Accepted.
        spent: u64,
        /// Under way.
        reserved: u64,
    },
    /// What the hour has of it is.
    Hour {
        /// Of the hour.
        allowance: u64,
        /// Accepted or under way.
        used: u64,
    },
}

/// A climb, as shown.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClimbView {
    /// The source's name.
    pub source: Arc<str>,
    /// The provider's name.
    pub provider: Arc<str>,
    /// The plan's name.
    pub plan: Arc<str>,
    /// Where it stands.
    pub climb: Climb,
    /// The allowances of its stages.
    pub stages: Arc<[u64]>,
    /// Of the day; None: as much as shaping lets through.
    pub allowance: Option<u64>,
    /// Under way.
    pub reserved: u64,
    /// What the day has brought.
    pub figures: Figures,
    /// When the day ends.
    pub day_ends: SystemTime,
    /// How its hours go. None: there is no allowance, or all of it may go at once.
    pub pacing: Option<Pacing>,
}

/// How the hours of a climb's day go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pacing {
    /// What may go in the hour that runs.
    pub hourly: u64,
    /// Accepted in it, or under way.
    pub used: u64,
    /// When it ends.
    pub hour_ends: SystemTime,
    /// What may have gone at most by then, of the whole day.
    pub by_now: u64,
}

/// What was taken for an attempt that is under way.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Reservation {
    climb: u32,
    day: u32,
    hour: u8,
    recipients: u16,
    /// Beyond the allowance.
    over: bool,
    /// There was none.
    free: bool,
}

impl Reservation {
    /// As many recipients may be tried.
    pub(crate) fn recipients(self) -> u16 {
        self.recipients
    }

    /// It went under an allowance, or beyond it.
    pub(crate) fn is_cold(self) -> bool {
        !self.free
    }
}

#[derive(Default)]
pub(crate) struct Warmup {
    entries: Vec<Entry>,
    /// The first assignments have been taken.
    pub(crate) begun: bool,
    /// The time of the last look.
    pub(crate) seen: Time,
    /// The first moment at which a day ends.
    pub(crate) turns: Option<Time>,
    news: VecDeque<ClimbNews>,
    /// Of climbs that are not configured now, and may be again.
    shelf: Vec<Remembered>,
}

pub(crate) struct Entry {
    pub(crate) source: Arc<str>,
    pub(crate) provider: Arc<str>,
    pub(crate) plan: Arc<Plan>,
    stages: Arc<[u64]>,
    pub(crate) climb: Climb,
    figures: Figures,
    day: Day,
    /// Accepted and under way, by hour.
    used: [u64; HOURS],
    reserved: u64,
    /// Its configuration is gone; kept, because it may come back before the day is over.
    removed: bool,
    save_at: Time,
}

impl Warmup {
    /// Takes new assignments. Days, figures and stages stay; so do those of climbs that are gone.
    pub(crate) fn configure(&mut self, now: SystemTime, assignments: &[Assignment]) {
        self.begun = true;
        self.entries.iter_mut().for_each(|entry| entry.removed = true);
        for assignment in assignments {
            match self.find(&assignment.source, &assignment.provider) {
                Some(nth) => self.entries[nth].follow(now, assignment, &mut self.news),
                None => {
                    let mut entry = Entry::new(now, assignment);
                    let known = |old: &Remembered| old.source == entry.source && old.provider == entry.provider;
                    if let Some(nth) = self.shelf.iter().position(known) {
                        let Remembered { row, ledger, .. } = self.shelf.swap_remove(nth);
                        entry.restore(row, &ledger, &mut self.news);
                    }
                    self.entries.push(entry);
                }
            }
        }
        self.set_turns();
    }

    /// What was known before a restart. In flight is nothing.
    pub(crate) fn restore(&mut self, remembered: Vec<Remembered>) {
        for old in remembered {
            match self.find(&old.source, &old.provider) {
                Some(nth) => self.entries[nth].restore(old.row, &old.ledger, &mut self.news),
                None => self.shelf.push(old),
            }
        }
        self.set_turns();
    }

    fn find(&self, source: &str, provider: &str) -> Option<usize> {
        self.entries.iter().position(|entry| *entry.source == *source && *entry.provider == *provider)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    pub(crate) fn entries(&self) -> impl Iterator<Item = (u32, &Entry)> {
        self.entries.iter().enumerate().filter(|(_, entry)| !entry.removed).map(|(nth, entry)| (nth as u32, entry))
    }

    /// One that is configured.
    pub(crate) fn get(&self, climb: Option<u32>) -> Option<&Entry> {
        self.entries.get(climb? as usize).filter(|entry| !entry.removed)
    }

    pub(crate) fn pop_news(&mut self) -> Option<ClimbNews> {
        self.news.pop_front()
    }

    /// Ends the days that are over. True: there was one.
    pub(crate) fn turn(&mut self, now: Time) -> bool {
        if self.turns.is_none_or(|turns| turns > now) {
            return false;
        }
        let Some(at) = now.system() else { return false };
        // One that has no plan now has no days either, until it has one again.
        for entry in self.entries.iter_mut().filter(|entry| !entry.removed) {
            entry.turn(at, &[], &mut self.news);
        }
        self.set_turns();
        true
    }

    fn set_turns(&mut self) {
        self.turns = self.entries().map(|(_, entry)| Time::from(entry.day.ends)).min();
    }

    /// Reserves for as many of `recipients` as may go: at least one, where nothing stopped it.
    pub(crate) fn reserve(&mut self, now: Time, climb: u32, recipients: u16, over: bool) -> Option<Reservation> {
        let entry = self.entries.get_mut(climb as usize)?;
        let (day, hour) = (entry.climb.day, entry.hour(now));
        let Some(allowance) = entry.allowance() else {
            // It counts all the same: whoever sends is not idle, and may be struck.
            return Some(Reservation { climb, day, hour, recipients, over: false, free: true });
        };
        let left = entry.left(allowance);
        let over = over && left == 0;
        let most = if over { u64::from(recipients) } else { left.min(entry.left_in_hour(allowance, hour).max(1)) };
        let recipients = recipients.min(u16::try_from(most).unwrap_or(u16::MAX));
        if !over {
            entry.reserved += u64::from(recipients);
            entry.used[usize::from(hour)] += u64::from(recipients);
        }
        Some(Reservation { climb, day, hour, recipients, over, free: false })
    }

    /// An attempt ended: spends what was accepted, gives back the rest, counts the rest under what it was refused for.
    pub(crate) fn close(
        &mut self,
        now: Time,
        reservation: Reservation,
        accepted: u16,
        refused: impl FnOnce(&mut Figures, u64),
    ) -> Option<Spent> {
        let Reservation { climb, day, hour, recipients, over, free } = reservation;
        let entry = self.entries.get_mut(climb as usize)?;
        let (accepted, all) = (u64::from(accepted.min(recipients)), u64::from(recipients));
        if entry.climb.day == day {
            if free {
                entry.figures.free += accepted;
            } else if over {
                let first = entry.figures.over == 0;
                entry.figures.over += accepted;
                if accepted > 0 {
                    let step = first.then(|| now.system()).flatten().map(|at| entry.went_over(at));
                    self.news.push_back(ClimbNews { row: entry.row(), step, over: accepted });
                }
            } else {
                entry.reserved -= all;
                entry.used[usize::from(hour)] -= all - accepted;
                entry.figures.spent += accepted;
            }
            entry.figures.tried += accepted;
            refused(&mut entry.figures, all - accepted);
            if now >= entry.save_at {
                entry.save_at = now.plus(SAVE_EVERY);
                self.news.push_back(ClimbNews { row: entry.row(), step: None, over: 0 });
            }
        } else if over && accepted > 0 {
            self.news.push_back(ClimbNews { row: entry.row(), step: None, over: accepted });
        }
        let (source, provider) = (entry.source.clone(), entry.provider.clone());
        (accepted > 0 && !over && !free).then_some(Spent { source, provider, day, hour, count: accepted })
    }

    /// Recipients complained about what a source sent to a provider: counted on the day on which it is heard of, and judged at its end.
    pub(crate) fn complain(&mut self, source: &str, provider: &str, count: u64) -> bool {
        let Some(nth) = self.find(source, provider) else { return false };
        let entry = &mut self.entries[nth];
        entry.figures.complained = entry.figures.complained.saturating_add(count);
        self.news.push_back(ClimbNews { row: entry.row(), step: None, over: 0 });
        true
    }

    /// A reply that is no acceptance may take stages back at once.
    pub(crate) fn strike(&mut self, now: Time, climb: u32, reply: &str) {
        let Some(entry) = self.entries.get_mut(climb as usize) else { return };
        if let (Some(decision), Some(at)) = (strike(&entry.plan, &entry.climb, reply), now.system()) {
            let figures = entry.figures;
            entry.take(at, decision, (figures, None), &mut self.news);
        }
    }

    /// What an operator wants: `change` gives the climb as it is to be, and in words.
    pub(crate) fn operate(&mut self, now: SystemTime, nth: u32, by: &str, change: impl FnOnce(&Climb, usize) -> (Climb, String)) {
        let Some(entry) = self.entries.get_mut(nth as usize) else { return };
        let (next, what) = change(&entry.climb, entry.stages.len());
        let decision = Decision { next, rule: Rule::Operator, reason: what };
        let figures = entry.figures;
        entry.take(now, decision, (figures, Some(by.into())), &mut self.news);
    }
}

impl Entry {
    fn new(now: SystemTime, assignment: &Assignment) -> Entry {
        let day = assignment.plan.zone.day(now);
        Entry {
            source: assignment.source.clone(),
            provider: assignment.provider.clone(),
            plan: assignment.plan.clone(),
            stages: assignment.plan.stages.list().into(),
            climb: Climb::new(assignment.start, day.number),
            figures: Figures::default(),
            day,
            used: [0; HOURS],
            reserved: 0,
            removed: false,
            save_at: Time::ALWAYS,
        }
    }

    /// The plan may have been edited, another one chosen: what was spent stays spent.
    fn follow(&mut self, now: SystemTime, assignment: &Assignment, news: &mut VecDeque<ClimbNews>) {
        let Assignment { plan, start, .. } = assignment;
        let stages: Arc<[u64]> = plan.stages.list().into();
        let last = u32::try_from(stages.len().saturating_sub(1)).unwrap_or(0);
        let mut next = Climb { stage: self.climb.stage.min(last), start: *start, ..self.climb };
        if next.state == ClimbState::Planned && next.day >= *start && self.climb.start != *start {
            next.state = ClimbState::Warming;
        }
        if next != self.climb || self.plan.name != plan.name {
            let decision = reassigned(&self.climb, &next, (&self.plan.name, plan));
            let figures = self.figures;
            self.take(now, decision, (figures, Some("the configuration".into())), news);
        }
        self.removed = false;
        self.stages = stages;
        self.plan = plan.clone();
        self.day = self.plan.zone.numbered(self.climb.day);
    }

    fn restore(&mut self, row: Option<ClimbRow>, ledger: &[(u32, u8, u64)], news: &mut VecDeque<ClimbNews>) {
        // The day never goes back: neither behind the row's nor behind what was spent already.
        let began = self.day;
        if let Some(row) = row {
            self.climb = Climb { start: self.climb.start, ..row.climb };
            self.climb.stage = self.climb.stage.min(u32::try_from(self.stages.len().saturating_sub(1)).unwrap_or(0));
            self.figures = row.figures;
        }
        let latest = ledger.iter().map(|(day, ..)| *day).max().unwrap_or(0).max(began.number);
        self.load_day(ledger);
        if latest > self.climb.day {
            self.turn(self.plan.zone.numbered(latest).begins, ledger, news);
        }
    }

    /// What the ledger says of the day that it lives in.
    fn load_day(&mut self, ledger: &[(u32, u8, u64)]) {
        self.day = self.plan.zone.numbered(self.climb.day);
        self.used = [0; HOURS];
        self.reserved = 0;
        for (_, hour, count) in ledger.iter().filter(|(day, ..)| *day == self.climb.day) {
            self.used[usize::from(*hour).min(HOURS - 1)] += count;
        }
        self.figures.spent = self.used.iter().sum();
        self.figures.tried = self.figures.tried.max(self.figures.spent);
    }

    /// Ends every day before the one of `now`.
    fn turn(&mut self, now: SystemTime, ledger: &[(u32, u8, u64)], news: &mut VecDeque<ClimbNews>) {
        let today = self.plan.zone.day(now).number;
        while self.climb.day < today {
            let before = self.climb;
            let mut decision = decide(&self.plan, &before, &self.figures);
            // Nothing changes in a climb that is not under way: so many days need not be gone through one by one.
            let still = Climb { day: before.day, idle: before.idle, ..decision.next } == before;
            if still && matches!(before.state, ClimbState::Paused | ClimbState::Planned) && ledger.is_empty() {
                let until = if before.state == ClimbState::Planned { today.min(before.start) } else { today };
                decision.next.day = decision.next.day.max(until.saturating_sub(1)).min(today);
            }
            let figures = std::mem::take(&mut self.figures);
            // What says nothing new is no step: of a day that was used, or asked for something, the decision is told.
            let unmoved = decision.next.state == before.state && decision.next.stage == before.stage;
            let silent = matches!(decision.rule, Rule::Start | Rule::Operator | Rule::Idle | Rule::Finish);
            if unmoved && silent {
                self.climb = decision.next;
            } else {
                let ends = self.day.ends;
                self.take(ends.min(now), decision, (figures, None), news);
            }
            self.load_day(ledger);
        }
        news.push_back(ClimbNews { row: self.row(), step: None, over: 0 });
    }

    fn take(
        &mut self,
        at: SystemTime,
        decision: Decision,
        (figures, by): (Figures, Option<Arc<str>>),
        news: &mut VecDeque<ClimbNews>,
    ) {
        let Decision { next, rule, reason } = decision;
        let step = Step { rule, to: (next.state, next.stage), figures, by, ..self.told(at, reason) };
        self.climb = next;
        news.push_back(ClimbNews { row: self.row(), step: Some(step), over: 0 });
    }

    /// The first one-time codes of a day that go beyond its allowance: nothing changes, but somebody should look.
    fn went_over(&self, at: SystemTime) -> Step {
        let most = self.allowance().unwrap_or(0);
        self.told(at, format!("a one-time code went beyond the {most} of the day, because no other source could carry it"))
    }

    /// Something is said of its day, and nothing changes.
    fn told(&self, at: SystemTime, reason: String) -> Step {
        let Entry { climb, figures, .. } = self;
        let stands = (climb.state, climb.stage);
        let (rule, allowance) = (Rule::Over, self.allowance());
        Step { at, rule, reason: reason.into(), day: climb.day, from: stands, to: stands, allowance, figures: *figures, by: None }
    }

    fn row(&self) -> ClimbRow {
        let Entry { source, provider, climb, figures, .. } = self;
        ClimbRow { source: source.clone(), provider: provider.clone(), climb: *climb, figures: *figures }
    }

    fn hour(&self, now: Time) -> u8 {
        now.system().map_or(0, |now| self.day.hour(now))
    }

    fn allowance(&self) -> Option<u64> {
        self.climb.allowance(&self.stages)
    }

    fn left(&self, allowance: u64) -> u64 {
        allowance.saturating_sub(self.figures.spent + self.reserved)
    }

    fn left_in_hour(&self, allowance: u64, hour: u8) -> u64 {
        self.plan.pace.hourly(allowance).saturating_sub(self.used[usize::from(hour)])
    }

    /// What stops it now, and until when.
    pub(crate) fn stop(&self, now: Time) -> Option<(Stop, Time)> {
        let allowance = self.allowance()?;
        match self.climb.state {
            ClimbState::Planned => return Some((Stop::Planned, self.plan.zone.numbered(self.climb.start).begins.into())),
            ClimbState::Paused => return Some((Stop::Paused, Time::NEVER)),
            _ => {}
        }
        if self.left(allowance) == 0 {
            let (spent, reserved) = (self.figures.spent, self.reserved);
            return Some((Stop::Day { allowance, spent, reserved }, self.day.ends.into()));
        }
        let Pacing { hourly, used, hour_ends, .. } = self.pacing(now).filter(|it| it.used >= it.hourly)?;
        Some((Stop::Hour { allowance: hourly, used }, hour_ends.into()))
    }

    fn pacing(&self, now: Time) -> Option<Pacing> {
        let (allowance, pace) = (self.allowance()?, self.plan.pace);
        if pace.hours <= 1 {
            return None;
        }
        // The clock may stand behind the day's beginning.
        let hour = self.hour(now);
        Some(Pacing {
            hourly: pace.hourly(allowance),
            used: self.used[usize::from(hour)],
            hour_ends: self.day.hour_ends(hour),
            by_now: pace.until(allowance, hour),
        })
    }

    /// One-time codes may go although this stops everything else.
    pub(crate) fn lets_otp_over(&self, stop: &Stop) -> bool {
        self.plan.oversend_otp && matches!(stop, Stop::Day { .. } | Stop::Hour { .. })
    }

    pub(crate) fn view(&self, now: Time) -> ClimbView {
        ClimbView {
            source: self.source.clone(),
            provider: self.provider.clone(),
            plan: self.plan.name.clone(),
            climb: self.climb,
            stages: self.stages.clone(),
            allowance: self.allowance(),
            reserved: self.reserved,
            figures: self.figures,
            day_ends: self.day.ends,
            pacing: self.pacing(now),
        }
    }
}
