//! A trial: which plan, how much mail, which receivers, for how long; and how its days pass.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use scheduler::warmup::{Assignment, Climb, ClimbRow, ClimbState, ClimbView, Figures, Plan, Remembered, Rule, Step, Zone};
use scheduler::{Config, Source, WindowLimits};

use crate::luck::Luck;
use crate::outlook::outlook;
use crate::receiver::Model;
use crate::report::{Day, Report};
use crate::tally::Tally;
use crate::volume::{Volume, minutes};
use crate::world::{World, first_day};

/// Sources that a trial may have.
pub const SOURCES_MAX: u16 = 250;

/// Providers that a trial may have.
pub const PROVIDERS_MAX: usize = 12;

/// What `Trial::deliveries` is if nobody says. With so many, two months pass in seconds.
pub const DELIVERIES_A_DAY: u64 = 20_000;

/// Of which each pair of source and provider has at least so many, that shares of them are meaningful.
const DELIVERIES_A_CLIMB: f64 = 50.0;

/// Mailbox providers, and what of a mail system's addresses lies with them, in thousandths. The order of magnitude is that of
/// lists of consumers' addresses in Europe and North America; yours will differ.
const PROVIDERS: [(&str, u32); 12] = [
    ("google", 480),
    ("microsoft", 190),
    ("yahoo", 90),
    ("apple", 60),
    ("proton", 40),
    ("gmx", 30),
    ("comcast", 25),
    ("orange", 20),
    ("fastmail", 20),
    ("zoho", 15),
    ("yandex", 15),
    ("other", 15),
];

/// What is tried out.
#[derive(Clone, Debug)]
pub struct Trial {
    /// The plan that every source follows at every provider, from the first day. Its days are taken as days of UTC.
    pub plan: Plan,
    /// How much mail there is.
    pub volume: Volume,
    /// For how long.
    pub days: u32,
    /// How each provider treats each source.
    pub model: Model,
    /// How many young sources share the mail. At most `SOURCES_MAX`.
    pub sources: u16,
    /// At how many providers: the largest ones.
    pub providers: usize,
    /// What the sources are called; those beyond are `source-4` and so on.
    pub names: Vec<Arc<str>>,
    /// The providers, the largest first, and what of the mail goes to each, in the place of a list of our own. Empty: that list.
    pub mix: Vec<(Arc<str>, u64)>,
    /// Climbs that go on from where they stand, on the first day as if it were theirs. Those of others begin anew.
    pub standing: Vec<(Arc<str>, Arc<str>, Climb)>,
    /// What the scheduler is told otherwise: retries, windows, rules. Its sources and climbs are the trial's.
    pub config: Config,
    /// Deliveries that a day of the simulation has at most, more or less. A day with more mail has deliveries with more recipients.
    pub deliveries: u64,
    /// The same seed gives the same report.
    pub seed: u64,
}

impl Trial {
    /// A trial of a plan with one source and one provider, for 60 days.
    pub fn of(plan: Plan, volume: Volume, model: Model) -> Trial {
        Trial {
            plan,
            volume,
            days: 60,
            model,
            sources: 1,
            providers: 1,
            names: Vec::new(),
            mix: Vec::new(),
            standing: Vec::new(),
            config: Config::default(),
            deliveries: DELIVERIES_A_DAY,
            seed: 1,
        }
    }

    /// Names and shares of the providers.
    pub(crate) fn shares(&self) -> Vec<(Arc<str>, f64)> {
        let listed = || PROVIDERS.iter().map(|(name, share)| (Arc::from(*name), u64::from(*share))).collect();
        let mut some: Vec<(Arc<str>, u64)> = if self.mix.is_empty() { listed() } else { self.mix.clone() };
        some.truncate(self.providers.clamp(1, PROVIDERS_MAX));
        let all: u64 = some.iter().map(|(_, share)| share).sum();
        some.into_iter().map(|(name, share)| (name, share as f64 / all.max(1) as f64)).collect()
    }

    /// What the scheduler is told of climbs that go on.
    fn remembered(&self, day: u32) -> Vec<Remembered> {
        let row = |(source, provider, climb): &(Arc<str>, Arc<str>, Climb)| {
            let (source, provider) = (source.clone(), provider.clone());
            let climb = Climb { day, start: day, struck: false, ..*climb };
            let row = ClimbRow { source: source.clone(), provider: provider.clone(), climb, figures: Figures::default() };
            Remembered { source, provider, row: Some(row), ledger: Vec::new() }
        };
        // What begins later begins with the trial.
        self.standing.iter().filter(|(.., climb)| climb.state != ClimbState::Planned).map(row).collect()
    }

    /// Lets the days pass.
    pub fn run(&self) -> Report {
        let shares = self.shares();
        let names: Vec<Arc<str>> = shares.iter().map(|(name, _)| name.clone()).collect();
        let mut world = World::new(self.world_config(&names), self.model.clone(), &names, first_day(), self.seed);
        if !self.standing.is_empty() {
            world.scheduler.handle_climbs(first_day(), self.remembered(Zone::utc().day(first_day()).number));
        }
        let mut luck = Luck::seeded(self.seed.rotate_left(17));
        let (mut days, mut finished, mut coarsest) = (Vec::new(), None, 1);
        world.begin_day(0);
        for nth in 0..self.days {
            let messages = self.volume.on(nth);
            let climbs: Vec<ClimbView> = world.scheduler.climbs(world.now).collect();
            let volume: Vec<(f64, u16)> = shares.iter().map(|it| self.portion(it, messages, &climbs)).collect();
            coarsest = volume.iter().fold(coarsest, |most, (_, grain)| most.max(u64::from(*grain)));
            world.run_day(&volume, &minutes(&mut luck));
            let tally = std::mem::take(&mut world.tally);
            let waiting = world.waiting();
            world.begin_day(nth + 1);
            let steps = std::mem::take(&mut world.steps);
            days.push(row(nth + 1, &climbs, &tally, &steps, waiting));
            if finished.is_none() && world.scheduler.climbs(world.now).all(|view| view.climb.state == ClimbState::Warm) {
                finished = Some(nth + 1);
            }
        }
        let outlook = outlook(self, finished, &world.scheduler.climbs(world.now).collect::<Vec<_>>());
        Report { plan: self.plan.name.to_string(), days, finished, grain: coarsest, outlook }
    }

    /// What of a day's messages is for a provider, and how many recipients a delivery of it has: one, unless there is so much that
    /// each source would make too many deliveries of what it may send.
    fn portion(&self, (name, share): &(Arc<str>, f64), messages: u64, climbs: &[ClimbView]) -> (f64, u16) {
        let volume = share * messages as f64;
        if messages <= self.deliveries {
            return (volume, 1);
        }
        let even = volume / f64::from(self.sources.max(1));
        let of_each = (self.deliveries as f64 / climbs.len().max(1) as f64).max(DELIVERIES_A_CLIMB);
        let here = climbs.iter().filter(|view| view.provider == *name);
        let sends: Vec<f64> = here.map(|view| view.allowance.map_or(even, |most| even.min(most as f64))).collect();
        let least = sends.iter().copied().filter(|most| *most > 0.0).fold(even, f64::min);
        // Where one is far behind the others, it does not make theirs too fine.
        let mean = sends.iter().sum::<f64>() / sends.len().max(1) as f64;
        (volume, (least / of_each).max(mean / of_each / 1.5).ceil().clamp(1.0, f64::from(u16::MAX)) as u16)
    }

    fn world_config(&self, providers: &[Arc<str>]) -> Config {
        let address = |nth: u16| IpAddr::V4(Ipv4Addr::new(198, 51, 100, (nth + 1) as u8));
        let name = |nth: u16| self.names.get(usize::from(nth)).cloned().unwrap_or_else(|| format!("source-{}", nth + 1).into());
        let source = |nth: u16| Source { name: name(nth), address: address(nth), weight: 1 };
        let sources: Vec<Source> = (0..self.sources.clamp(1, SOURCES_MAX)).map(source).collect();
        let plan = Arc::new(Plan { zone: Arc::new(Zone::utc()), overflow_pool: None, ..self.plan.clone() });
        let start = plan.zone.day(first_day()).number;
        let climb = |source: &Source, provider: &Arc<str>| Assignment {
            source: source.name.clone(),
            provider: provider.clone(),
            plan: plan.clone(),
            start,
        };
        let warmup = sources.iter().flat_map(|source| providers.iter().map(move |provider| climb(source, provider))).collect();
        // As much in flight with many recipients in a delivery as with one.
        let grain = (0..self.days).map(|day| self.volume.on(day)).max().unwrap_or(0).div_ceil(self.deliveries.max(1)).max(1);
        let fewer = |window: u16| u16::try_from(u64::from(window).div_ceil(grain)).unwrap_or(window).max(1);
        let WindowLimits { initial, min, max } = self.config.window;
        let window = WindowLimits { initial: fewer(initial), min, max: fewer(max).max(min) };
        Config { sources, pools: Vec::new(), lane_pools: Default::default(), warmup, window, ..self.config.clone() }
    }
}

fn row(day: u32, climbs: &[ClimbView], tally: &Tally, steps: &[(ClimbRow, Step)], waiting: u64) -> Day {
    let [sent, deferred, refused] = tally.tried;
    Day {
        day,
        allowance: climbs.iter().map(|view| view.allowance).sum(),
        arrived: tally.arrived,
        sent,
        deferred,
        refused,
        expired: tally.expired,
        waiting,
        most: tally.most(),
        state: states(climbs),
        decision: decisions(steps, climbs.len()),
    }
}

/// `warming`, or `8 warming, 4 holding`.
fn states(climbs: &[ClimbView]) -> String {
    let count = |state: ClimbState| climbs.iter().filter(|view| view.climb.state == state).count();
    let counts: Vec<(ClimbState, usize)> =
        ClimbState::ALL.into_iter().map(|state| (state, count(state))).filter(|(_, count)| *count > 0).collect();
    match counts.as_slice() {
        [(state, _)] => state.to_string(),
        many => many.iter().map(|(state, count)| format!("{count} {state}")).collect::<Vec<_>>().join(", "),
    }
}

/// In the engine's words where there is one climb; where there are many, how often each rule was the reason, and the words of the
/// first decision that was no advance.
fn decisions(steps: &[(ClimbRow, Step)], climbs: usize) -> String {
    if climbs <= 1 {
        let words = |(_, step): &(ClimbRow, Step)| format!("{}: {}", step.rule.as_str(), step.reason);
        return steps.iter().map(words).collect::<Vec<_>>().join(" / ");
    }
    let mut rules: BTreeMap<&str, usize> = BTreeMap::new();
    steps.iter().for_each(|(_, step)| *rules.entry(step.rule.as_str()).or_default() += 1);
    let mut text = rules.iter().map(|(rule, count)| format!("{count} {rule}")).collect::<Vec<_>>().join(", ");
    let telling = |(_, step): &&(ClimbRow, Step)| !matches!(step.rule, Rule::Advance | Rule::Finish);
    if let Some((row, step)) = steps.iter().find(telling) {
        text += &format!(" ({} at {}: {})", row.source, row.provider, step.reason);
    }
    text
}
