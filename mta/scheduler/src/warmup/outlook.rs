//! What the mail that there is means for the climbs at a provider: when they are through, and how many of them it sustains.
//!
//! The days to come are gone through by the rules that decide real ones (`decide.rs`), each with as much mail as the last days
//! had and none that goes wrong: nothing comes sooner than this says. A day that used its whole allowance says only that
//! there was at least so much mail; then the plan alone is counted on, and that is said.

use super::climb::{Climb, ClimbState, Figures};
use super::decide::decide;
use super::plan::{Days, Plan};

/// So many past days are looked at: a week has its quiet days.
pub const OUTLOOK_DAYS: usize = 7;

/// Nobody looks further ahead.
const AHEAD_MAX: u32 = 1000;

/// When no climb gained a stage for so long, none will.
const STANDSTILL: u32 = 60;

/// A day that is over, all climbs at a provider together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct UsedDay {
    /// What could be accepted. None: one of them had no limit.
    pub allowance: Option<u64>,
    /// What was.
    pub accepted: u64,
}

/// Mail for a provider, in recipients a day.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Volume {
    /// Allowances were used up: there may be more.
    AtLeast(u64),
    /// So much there is.
    About(u64),
}

/// When all climbs are warm. Those that an operator paused or pinned are not waited for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Finish {
    /// They are.
    Now,
    /// At the end of so many more days, today being the first.
    Days(u32),
    /// The volume does not lead there: the one that is furthest back stays on this stage, from 0.
    Never(u32),
}

/// What the volume means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Outlook {
    /// What there is.
    pub volume: Volume,
    /// When climbs are through.
    pub finish: Finish,
    /// Sources that climb or have climbed there.
    pub sources: u32,
    /// How many of them the volume sustains, where that is known. None: any number, or it is not known.
    pub sustains: Option<u32>,
}

impl Volume {
    /// Of the last days, in any order; those past `OUTLOOK_DAYS` are left out. None: there are no days.
    pub fn of(days: &[UsedDay]) -> Option<Volume> {
        let days = &days[..days.len().min(OUTLOOK_DAYS)];
        // A recipient in fifty is refused for reasons of its own.
        let used_up =
            |day: &&UsedDay| day.allowance.is_some_and(|most| day.accepted.saturating_mul(50) >= most.saturating_mul(49));
        let certain: Vec<u64> = days.iter().filter(|day| !used_up(day)).map(|day| day.accepted).collect();
        let known = mean(&certain).unwrap_or(0);
        let all: Vec<u64> = days.iter().map(|day| if used_up(&day) { day.accepted.max(known) } else { day.accepted }).collect();
        let volume = mean(&all)?;
        Some(if certain.len() * 2 >= days.len() { Volume::About(volume) } else { Volume::AtLeast(volume) })
    }
}

/// What each source must have accepted on a day of the last stage. None: the plan does not ask.
pub fn asked(plan: &Plan) -> Option<u64> {
    let last = plan.stages.list().last().copied()?;
    let asked = last.saturating_mul(u64::from(plan.utilisation)).div_ceil(1000);
    (plan.days == Days::Sending && asked > 0).then_some(asked)
}

/// How many sources a volume at one provider brings through such a plan. None: any number.
pub fn sustains(plan: &Plan, volume: u64) -> Option<u32> {
    Some(u32::try_from(volume / asked(plan)?).unwrap_or(u32::MAX))
}

/// What a volume means for climbs at one provider, which all follow one plan.
pub fn outlook(plan: &Plan, climbs: &[Climb], volume: Volume) -> Outlook {
    let sources = u32::try_from(climbs.len()).unwrap_or(u32::MAX);
    let sustains = match volume {
        Volume::About(volume) => sustains(plan, volume),
        Volume::AtLeast(volume) => sustains(plan, volume).filter(|many| *many >= sources),
    };
    Outlook { volume, finish: finish(plan, climbs, volume), sources, sustains }
}

fn finish(plan: &Plan, climbs: &[Climb], volume: Volume) -> Finish {
    let free = |climb: &&Climb| climb.state != ClimbState::Paused && climb.pinned.is_none();
    let mut climbs: Vec<Climb> = climbs.iter().filter(free).copied().collect();
    let stages = plan.stages.list();
    let through = |climbs: &[Climb]| climbs.iter().all(|climb| climb.state == ClimbState::Warm);
    let (mut best, mut since) = (0, 0);
    for day in 0..AHEAD_MAX {
        if through(&climbs) {
            return if day == 0 { Finish::Now } else { Finish::Days(day) };
        }
        let spent = shares(&climbs, &stages, volume);
        for (climb, spent) in climbs.iter_mut().zip(spent) {
            *climb = decide(plan, climb, &Figures { spent, tried: spent, ..Figures::default() }).next;
        }
        let height = climbs.iter().map(|climb| u64::from(climb.stage) + u64::from(climb.state == ClimbState::Warm)).sum::<u64>();
        let waits = climbs.iter().any(|climb| climb.state == ClimbState::Planned);
        since = if height > best || waits { 0 } else { since + 1 };
        best = best.max(height);
        if since >= STANDSTILL {
            break;
        }
    }
    let cold = climbs.iter().filter(|climb| climb.state != ClimbState::Warm);
    Finish::Never(cold.map(|climb| climb.stage).min().unwrap_or(0))
}

/// What each climb has accepted on such a day: those with an allowance come first and share evenly, the rest goes to the warm ones.
fn shares(climbs: &[Climb], stages: &[u64], volume: Volume) -> Vec<u64> {
    let allowances: Vec<Option<u64>> = climbs.iter().map(|climb| climb.allowance(stages)).collect();
    let mut left = match volume {
        Volume::About(volume) => volume,
        Volume::AtLeast(_) => u64::MAX,
    };
    let mut spent = vec![0; climbs.len()];
    let mut order: Vec<usize> = (0..climbs.len()).collect();
    order.sort_by_key(|nth| allowances[*nth].unwrap_or(u64::MAX));
    for (before, nth) in order.iter().enumerate() {
        let even = left / (order.len() - before) as u64;
        let fits = |most: u64| {
            let cold = order[before..].iter().filter(|nth| allowances[**nth].is_some()).count().max(1) as u64;
            most.min(left.div_ceil(cold))
        };
        spent[*nth] = allowances[*nth].map_or(even, fits);
        left -= spent[*nth];
    }
    spent
}

fn mean(list: &[u64]) -> Option<u64> {
    let sum: u128 = list.iter().map(|item| u128::from(*item)).sum();
    let count = u128::try_from(list.len()).ok().filter(|count| *count > 0)?;
    u64::try_from(sum / count).ok()
}

impl Outlook {
    /// The volume cannot sustain as many sources as there are.
    pub fn is_short(&self) -> bool {
        self.sustains.is_some_and(|many| many < self.sources)
    }

    /// In words, a sentence each: when climbs are through, and a warning where the volume does not sustain them.
    pub fn words(&self, provider: &str, plan: &Plan) -> Vec<String> {
        let stages = plan.stages.list().len();
        let mut lines = Vec::new();
        match (self.finish, self.volume) {
            (Finish::Now, _) => {}
            (Finish::Days(days), Volume::About(volume)) => {
                lines.push(format!("{provider}: with {volume} a day as lately, all sources are warm after {}", in_days(days)));
            }
            (Finish::Days(days), Volume::AtLeast(_)) => {
                let days = in_days(days);
                lines.push(format!(
                    "{provider}: allowances are used up; if there is enough mail, all sources are warm after {days}"
                ));
            }
            (Finish::Never(stage), Volume::About(volume) | Volume::AtLeast(volume)) => lines.push(format!(
                "{provider}: {volume} a day as lately do not lead through plan {}: it ends on stage {} of {stages}",
                plan.name,
                stage + 1
            )),
        }
        if let (Some(many), Some(asked)) = (self.sustains.filter(|_| self.is_short()), asked(plan)) {
            let what = if many == 0 { "not even one; a plan that ends lower fits".to_owned() } else { many.to_string() };
            lines.push(format!(
                "{provider}: this volume cannot sustain {} {}: the last stage asks each to have {asked} a day accepted; it can \
                 sustain {what}",
                self.sources,
                if self.sources == 1 { "source" } else { "sources" }
            ));
        }
        lines
    }
}

fn in_days(days: u32) -> String {
    if days == 1 { "today".to_owned() } else { format!("{days} days") }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::warmup::Stages;

    fn plan() -> Plan {
        Plan::of("p", Stages::Daily(vec![100, 200, 400, 800]))
    }

    fn day(allowance: u64, accepted: u64) -> UsedDay {
        UsedDay { allowance: Some(allowance), accepted }
    }

    fn new(count: usize) -> Vec<Climb> {
        vec![Climb::new(0, 5); count]
    }

    #[test]
    fn the_volume_is_what_days_had_that_were_not_used_up() {
        assert_eq!(Volume::of(&[]), None);
        assert_eq!(Volume::of(&[day(100, 100), day(200, 199)]), Some(Volume::AtLeast(149)));
        assert_eq!(Volume::of(&[day(800, 300), day(800, 320), day(200, 200)]), Some(Volume::About(310)));
        assert_eq!(Volume::of(&[day(800, 0), day(200, 200), day(400, 400)]), Some(Volume::AtLeast(200)), "a quiet day");
        assert_eq!(Volume::of(&[UsedDay { allowance: None, accepted: 7 }]), Some(Volume::About(7)));
        let week: Vec<UsedDay> = (0..30).map(|nth| day(1000, if nth < 7 { 70 } else { 900 })).collect();
        assert_eq!(Volume::of(&week), Some(Volume::About(70)));
    }

    #[test]
    fn days_to_come_follow_the_plan_as_far_as_the_volume_leads() {
        for (sources, volume, finish, many) in [
            (1, Volume::AtLeast(10), Finish::Days(4), None),
            (1, Volume::About(5000), Finish::Days(4), Some(6)),
            (1, Volume::About(720), Finish::Days(4), Some(1)),
            (1, Volume::About(719), Finish::Never(3), Some(0)),
            (2, Volume::About(1440), Finish::Days(4), Some(2)),
            (2, Volume::About(500), Finish::Never(2), Some(0)),
            (1, Volume::About(0), Finish::Never(0), Some(0)),
        ] {
            let found = outlook(&plan(), &new(sources), volume);
            assert_eq!((found.finish, found.sustains), (finish, many), "{sources} {volume:?}");
        }
        let calendar = Plan { days: Days::Calendar, ..plan() };
        assert_eq!(outlook(&calendar, &new(3), Volume::About(1)).finish, Finish::Days(4));
        assert_eq!(outlook(&calendar, &new(3), Volume::About(1)).sustains, None);
    }

    #[test]
    fn who_is_through_is_not_waited_for_and_neither_is_who_an_operator_holds() {
        let warm = Climb { state: ClimbState::Warm, stage: 3, ..Climb::new(0, 5) };
        assert_eq!(outlook(&plan(), &[warm, warm], Volume::About(3000)).finish, Finish::Now);
        let paused = Climb { state: ClimbState::Paused, ..Climb::new(0, 5) };
        let half = Climb { stage: 2, ..Climb::new(0, 5) };
        assert_eq!(outlook(&plan(), &[warm, paused, half], Volume::About(900)).finish, Finish::Days(2));
        let later = Climb::new(105, 5);
        assert_eq!(outlook(&plan(), &[later], Volume::About(900)).finish, Finish::Days(104));
    }

    #[test]
    fn one_warm_source_does_not_take_what_the_cold_one_needs() {
        let warm = Climb { state: ClimbState::Warm, stage: 3, ..Climb::new(0, 5) };
        assert_eq!(shares(&[warm, Climb::new(0, 5)], &plan().stages.list(), Volume::About(150)), [50, 100]);
        assert_eq!(shares(&new(3), &plan().stages.list(), Volume::About(100)), [34, 33, 33]);
    }

    #[test]
    fn it_is_said_in_words() {
        let words = |sources, volume| outlook(&plan(), &new(sources), volume).words("google", &plan()).join("\n");
        assert_eq!(words(1, Volume::About(900)), "google: with 900 a day as lately, all sources are warm after 4 days");
        assert_eq!(
            words(3, Volume::About(1500)),
            "google: 1500 a day as lately do not lead through plan p: it ends on stage 4 of 4\ngoogle: this volume cannot sustain 3 \
             sources: the last stage asks each to have 720 a day accepted; it can sustain 2"
        );
        assert!(words(1, Volume::AtLeast(100)).contains("if there is enough mail"));
    }
}
