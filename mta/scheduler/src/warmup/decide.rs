//! What follows from a day: pure, so that every step can be tried out and explained.
//!
//! The order is: what an operator said, what has gone wrong, what was not used, and only then the next stage.

use std::fmt::Write;

use super::climb::{Climb, ClimbState, Figures};
use super::plan::{Days, Plan, Troubles};

/// The rule by which a step was made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Rule {
    /// Its first day has come.
    Start,
    /// The day was used and went well.
    Advance,
    /// The last stage is done.
    Finish,
    /// Too little was used.
    Utilisation,
    /// Deferrals because of reputation.
    Deferred,
    /// Refusals by policy.
    Refused,
    /// Unknown mailboxes.
    Unknown,
    /// A reply that the plan names.
    Code,
    /// The days on the lower stage are not over.
    Cool,
    /// Nothing was sent.
    Idle,
    /// An operator wants it so.
    Operator,
    /// One-time codes went beyond the allowance: nothing changes, but a person should look.
    Over,
    /// Complaints of recipients.
    Complained,
}

impl Rule {
    /// All of them, in the order of their numbers.
    pub const ALL: [Rule; 13] = [
        Rule::Start,
        Rule::Advance,
        Rule::Finish,
        Rule::Utilisation,
        Rule::Deferred,
        Rule::Refused,
        Rule::Unknown,
        Rule::Code,
        Rule::Cool,
        Rule::Idle,
        Rule::Operator,
        Rule::Over,
        Rule::Complained,
    ];

    /// The word for it.
    pub fn as_str(self) -> &'static str {
        match self {
            Rule::Start => "start",
            Rule::Advance => "advance",
            Rule::Finish => "finish",
            Rule::Utilisation => "utilisation",
            Rule::Deferred => "deferred",
            Rule::Refused => "refused",
            Rule::Unknown => "unknown",
            Rule::Code => "code",
            Rule::Cool => "cool",
            Rule::Idle => "idle",
            Rule::Operator => "operator",
            Rule::Over => "over",
            Rule::Complained => "complained",
        }
    }
}

/// What was decided, with the figures and the rule that led to it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Decision {
    /// The climb from now on.
    pub next: Climb,
    /// Why.
    pub rule: Rule,
    /// The same in words: figures, what was asked, what follows.
    pub reason: String,
}

/// What follows from the day that `climb` lives in, now that it is over; `next.day` is the day after. Its figures are all that counts.
pub fn decide(plan: &Plan, climb: &Climb, figures: &Figures) -> Decision {
    let stages = plan.stages.list();
    let idle = if figures.accepted() == 0 { climb.idle.saturating_add(1) } else { 0 };
    let mut next = Climb { day: climb.day.saturating_add(1), struck: false, idle, ..*climb };
    let allowance = climb.allowance(&stages);
    let (rule, mut reason) = match climb.state {
        ClimbState::Planned if next.day >= climb.start => {
            next.state = ClimbState::Warming;
            next.idle = 0;
            (Rule::Start, "its first day has come".to_owned())
        }
        ClimbState::Planned => (Rule::Start, format!("{} days until its first", climb.start - next.day)),
        ClimbState::Paused => (Rule::Operator, "paused".to_owned()),
        _ if let Some(pinned) = climb.pinned => (Rule::Operator, format!("pinned to {pinned} a day")),
        _ if let Some(idle) = plan.idle.filter(|limits| idle >= limits.after_days) => {
            next.stage = if next.idle >= idle.cold_days { 0 } else { climb.stage.saturating_sub(1) };
            next.state = ClimbState::Cooling;
            (Rule::Idle, format!("nothing sent for {} days, {} are borne", next.idle, idle.after_days.saturating_sub(1)))
        }
        ClimbState::Warm => (Rule::Finish, "warm".to_owned()),
        _ if let Some((rule, why)) = trouble(plan, &plan.regress, figures) => {
            step_back(plan, climb, &mut next);
            (rule, why)
        }
        _ if let Some((rule, why)) = trouble(plan, &plan.hold, figures) => {
            next.state = ClimbState::Holding;
            (rule, why)
        }
        ClimbState::Regressed if climb.cooled + 1 < plan.cool_days => {
            next.cooled = climb.cooled + 1;
            (Rule::Cool, format!("day {} of {} on the lower stage", next.cooled + 1, plan.cool_days))
        }
        ClimbState::Regressed if climb.struck => {
            next.state = ClimbState::Holding;
            (Rule::Cool, "it went back today".to_owned())
        }
        ClimbState::Warming | ClimbState::Holding | ClimbState::Regressed | ClimbState::Cooling => {
            let asked = allowance.unwrap_or(0);
            let used = parts_of(figures.spent, asked, 1000);
            let why = format!("{} of {asked} used ({})", figures.spent, percent(used, 1000));
            if plan.days == Days::Sending && used < plan.utilisation {
                next.state = if climb.state == ClimbState::Cooling { ClimbState::Warming } else { ClimbState::Holding };
                (Rule::Utilisation, format!("{why}, less than {}", percent(plan.utilisation, 1000)))
            } else if climb.stage as usize + 1 >= stages.len() {
                next.state = ClimbState::Warm;
                (Rule::Finish, format!("{why} on the last stage"))
            } else {
                next.state = ClimbState::Warming;
                next.stage = climb.stage + 1;
                (Rule::Advance, why)
            }
        }
    };
    describe(&mut reason, climb, &next, &stages);
    Decision { next, rule, reason }
}

/// What follows at once from a reply that is no acceptance. None: nothing, or it has gone back today already.
pub fn strike(plan: &Plan, climb: &Climb, reply: &str) -> Option<Decision> {
    let climbing = matches!(
        climb.state,
        ClimbState::Warming | ClimbState::Holding | ClimbState::Regressed | ClimbState::Cooling | ClimbState::Warm
    );
    let code = plan.codes.iter().find(|code| reply.contains(&***code))?;
    if !climbing || climb.struck || climb.pinned.is_some() {
        return None;
    }
    let mut next = Climb { struck: true, ..*climb };
    step_back(plan, climb, &mut next);
    let mut reason = format!("a reply with {code}: {}", reply.chars().take(200).collect::<String>());
    describe(&mut reason, climb, &next, &plan.stages.list());
    Some(Decision { next, rule: Rule::Code, reason })
}

/// What an edited configuration made of a climb.
pub(crate) fn reassigned(climb: &Climb, next: &Climb, (old, plan): (&str, &Plan)) -> Decision {
    let stages = plan.stages.list();
    let mut reason = match *old == *plan.name {
        false => format!("plan {} instead of {old}", plan.name),
        true if climb.start != next.start => "another first day".to_owned(),
        true => format!("plan {} was edited and has {} stages", plan.name, stages.len()),
    };
    describe(&mut reason, climb, next, &stages);
    Decision { next: *next, rule: Rule::Operator, reason }
}

fn step_back(plan: &Plan, climb: &Climb, next: &mut Climb) {
    let last = u32::try_from(plan.stages.list().len().saturating_sub(1)).unwrap_or(0);
    next.stage = climb.stage.min(last).saturating_sub(plan.regress_stages);
    next.state = ClimbState::Regressed;
    next.cooled = 0;
}

/// The first of the shares that is reached, in words.
fn trouble(plan: &Plan, limits: &Troubles, figures: &Figures) -> Option<(Rule, String)> {
    let Figures { tried, deferred, refused, unknown, complained, .. } = *figures;
    let (sample, accepted) = ((plan.sample.max(1), 1), figures.accepted());
    // One person who complains is not a share, whatever it comes to.
    let complaints = (plan.complaint_sample.max(1), 2);
    let shares = [
        (Rule::Complained, limits.complained, complained, (accepted, "accepted complained about"), 100_000, complaints),
        (Rule::Deferred, limits.deferred, deferred, (tried, "deferred for reputation"), 1000, sample),
        (Rule::Refused, limits.refused, refused, (tried, "refused by policy"), 1000, sample),
        (Rule::Unknown, limits.unknown, unknown, (tried, "unknown mailboxes"), 1000, sample),
    ];
    shares.into_iter().find_map(|(rule, limit, count, (of, what), parts, (sample, least))| {
        let limit = limit?;
        let share = parts_of(count, of, parts);
        let words = || format!("{count} of {of} {what} ({}), {} is the limit", percent(share, parts), percent(limit, parts));
        (of >= sample && count >= least && share >= limit).then(|| (rule, words()))
    })
}

/// In so many parts, rounded down.
fn parts_of(part: u64, of: u64, parts: u32) -> u32 {
    let share = u128::from(part) * u128::from(parts) / u128::from(of.max(1));
    u32::try_from(share).unwrap_or(u32::MAX)
}

/// Of so many parts: `2 %`, `89.5 %`, `0.012 %`.
fn percent(share: u32, parts: u32) -> String {
    let one = parts / 100;
    let (whole, rest) = (share / one, share % one);
    let width = one.ilog10() as usize;
    let digits = format!("{rest:0width$}");
    match digits.trim_end_matches('0') {
        "" => format!("{whole} %"),
        digits => format!("{whole}.{digits} %"),
    }
}

/// What follows, in words.
fn describe(reason: &mut String, climb: &Climb, next: &Climb, stages: &[u64]) {
    let allowance = match next.allowance(stages) {
        Some(allowance) => format!("{allowance} a day"),
        None => "no limit".to_owned(),
    };
    // Writing to a string does not fail.
    let _ = if next.stage == climb.stage || next.state == ClimbState::Warm {
        write!(reason, "; {}, {allowance}", next.state)
    } else {
        write!(reason, "; {}, stage {} to {}, {allowance}", next.state, climb.stage + 1, next.stage + 1)
    };
}
