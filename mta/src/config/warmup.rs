//! Plans of warmup, in files, and which source follows which with whom. Shipped plans come first; a later plan of the same name takes
//! the place of an earlier one. A file is refused as a whole, with line and key, as `mta.toml` is.
//!
//! Not here: what a plan does (`scheduler::warmup`).

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use jiff::{Timestamp, civil::Date, tz::TimeZone};
use scheduler::Lane;
use scheduler::warmup::{Assignment, Days, Idle, Pace, Plan, STAGES_MAX, Stages, Troubles, Zone};
use serde::Deserialize;

use super::settings::{Table, settings};
use super::{Config, ConfigError, Problem, check, error::Source, plans::Texts};
use crate::egress::provider::{OTHER, Providers};

/// What the program brings along, as `tradewind config warmup` prints it.
pub const SHIPPED: (&str, &str) = ("warmup.toml", include_str!("warmup.toml"));

/// The tables of such a file.
pub const TABLES: [Table; 1] = [PlanTable::TABLE];

/// A day has no more than this.
const A_DAY_MAX: u64 = 1_000_000_000;

/// Offsets of zones are looked up so far ahead; whoever runs this daemon longer than that without a restart is on winter time.
const ZONE_UNTIL: i64 = 4_102_444_800;

settings! {
    /// Plans of warmup: how much a young source sends to a provider a day, until the provider knows it. The program brings some along;
    /// `tradewind config warmup` prints them, with every setting that a plan may have.
    /// Read again on SIGHUP, all files or none; what was spent today stays spent.
    pub struct Warmup as "[warmup]" {
        /// Files with [[plan]] tables. A plan takes the place of one of the same name before it. Default: [].
        #[serde(default)]
        pub files: Vec<PathBuf> = "[]", Default;
    }
}

settings! {
    /// A source that warms up. Write the table once for each source and provider, or once for a source and all providers.
    /// `tradewind why` says when it is what a message waits for, and the log has each step with its reason.
    pub struct ClimbTable as "[[climb]]" {
        /// The source.
        pub source: String = r#""ip-a""#, Required;
        /// With whom: a provider of `tradewind config shaping`, or `other` for whoever is in no list, together. Without it: with
        /// each of them, by itself.
        #[serde(default)]
        pub provider: Option<String> = r#""google""#, Optional;
        /// The plan.
        pub plan: String = r#""gentle""#, Required;
        /// The first day, in the plan's zone; before it nothing is sent from this source there. Without it: at once.
        #[serde(default)]
        pub start: Option<toml::value::Datetime> = "2026-01-31", Optional;
    }
}

settings! {
    /// A plan of warmup. Its stages are either a list or grow from start by factor up to cap.
    pub struct PlanTable as "[[plan]]" {
        /// Its name.
        pub name: String = r#""mine""#, Required;
        /// Recipients that may be accepted in a day, stage by stage, rising.
        #[serde(default)]
        pub stages: Option<Vec<u64>> = "[50, 100, 200, 400]", Optional;
        /// Instead of stages: the first one.
        #[serde(default)]
        pub start: Option<u64> = "50", Optional;
        /// Each stage is so many times the one before. 1.01 to 10.
        #[serde(default)]
        pub factor: Option<f64> = "1.4", Optional;
        /// The last stage.
        #[serde(default)]
        pub cap: Option<u64> = "100000", Optional;
        /// What stages count: day or hour. Those of an hour are spread evenly over the day. Default: day.
        #[serde(default)]
        pub per: Per = r#""day""#, Default;
        /// A day's allowance takes at least so many hours: an hour has the so-manieth part of it. 1 to 24. Default: 1.
        #[serde(default)]
        pub hours: Option<u32> = "1", Optional;
        /// At least so many may go in any hour. Default: 0.
        #[serde(default)]
        pub burst: Option<u64> = "0", Optional;
        /// Whose midnight begins a day: an IANA name. Default: UTC.
        #[serde(default)]
        pub zone: Option<String> = r#""UTC""#, Optional;
        /// Which days lead to the next stage: sending (those that used the allowance) or calendar (all). Default: sending.
        #[serde(default)]
        pub days: When = r#""sending""#, Default;
        /// The share of the allowance that must have been accepted on a sending day. Default: 0.9.
        #[serde(default)]
        pub utilisation: Option<f64> = "0.9", Optional;
        /// The share of recipients tried that may be deferred for reputation or rate; from there on the stage is held. Without
        /// it: any.
        #[serde(default)]
        pub hold_deferred: Option<f64> = "0.05", Optional;
        /// The same of refusals by policy or for reputation.
        #[serde(default)]
        pub hold_refused: Option<f64> = "0.02", Optional;
        /// The same of unknown mailboxes.
        #[serde(default)]
        pub hold_unknown: Option<f64> = "0.02", Optional;
        /// The same of complaints, as a share of recipients accepted: what the daemon is told of on a day. 0.0001 to 1.
        #[serde(default)]
        pub hold_complaints: Option<f64> = "0.001", Optional;
        /// From this share of deferrals on stages are taken back.
        #[serde(default)]
        pub regress_deferred: Option<f64> = "0.15", Optional;
        /// The same of refusals.
        #[serde(default)]
        pub regress_refused: Option<f64> = "0.05", Optional;
        /// The same of unknown mailboxes.
        #[serde(default)]
        pub regress_unknown: Option<f64> = "0.06", Optional;
        /// The same of complaints.
        #[serde(default)]
        pub regress_complaints: Option<f64> = "0.003", Optional;
        /// Recipients tried in a day below which shares say nothing. Default: 100.
        #[serde(default)]
        pub sample: Option<u64> = "100", Optional;
        /// Recipients accepted in a day below which complaints say nothing; a single one never does. Default: 1000.
        #[serde(default)]
        pub complaint_sample: Option<u64> = "1000", Optional;
        /// Stages that are taken back at once. Default: 1.
        #[serde(default)]
        pub regress_stages: Option<u32> = "1", Optional;
        /// Days on the lower stage before it may rise again. Default: 1.
        #[serde(default)]
        pub cool_days: Option<u32> = "1", Optional;
        /// A reply that is no acceptance and has one of these in it takes stages back at once, once a day.
        #[serde(default)]
        pub codes: Vec<String> = r#"["TSS04"]"#, Optional;
        /// The pool whose sources carry what the source may not, when no other source of its own pool can. Without it: it waits.
        #[serde(default)]
        pub overflow_pool: Option<String> = r#""default""#, Optional;
        /// A one-time code that nobody else can carry goes beyond the allowance; it is counted apart. Default: false.
        #[serde(default)]
        pub oversend_otp: bool = "false", Default;
        /// Classes whose mail goes to the source first while it has allowance; others go by weight. Default: transactional, notice.
        #[serde(default)]
        pub first: Option<Vec<String>> = r#"["transactional", "notice"]"#, Optional;
        /// After so many days without an accepted message a stage is taken back each day. Without it: never.
        #[serde(default)]
        pub idle_days: Option<u32> = "7", Optional;
        /// After so many it begins anew. Needs idle_days. Default: four times as many.
        #[serde(default)]
        pub cold_days: Option<u32> = "30", Optional;
    }
}

/// What the stages of a plan count.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Per {
    /// A day.
    #[default]
    Day,
    /// An hour.
    Hour,
}

/// Which days lead on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum When {
    /// Those that were used.
    #[default]
    Sending,
    /// All.
    Calendar,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    #[serde(default)]
    plan: Vec<PlanTable>,
}

#[allow(clippy::derivable_impls, reason = "the macro that makes the struct derives no Default")]
impl Default for Warmup {
    fn default() -> Warmup {
        Warmup { files: Vec::new() }
    }
}

/// Plans by name.
pub type Plans = BTreeMap<String, Arc<Plan>>;

/// The shipped plans, and those of some files: path and text.
pub fn plans(files: &[(PathBuf, String)], pools: &[String]) -> Result<Plans, ConfigError> {
    let mut plans = Plans::new();
    let shipped = (Path::new(SHIPPED.0).to_owned(), SHIPPED.1.to_owned());
    for (path, text) in [&shipped].into_iter().chain(files) {
        let fail = |problems| ConfigError { file: path.clone(), problems };
        let source = Source::parse(text).map_err(|problem| fail(vec![problem]))?;
        let file: File = toml::from_str(text).map_err(|error| fail(vec![source.refusal(&error)]))?;
        let mut it = check::Problems::new(&source);
        let mut here: Vec<&str> = Vec::new();
        for (nth, table) in file.plan.iter().enumerate() {
            if here.contains(&table.name.as_str()) {
                it.add(
                    &format!("plan.{nth}.name"),
                    format!("\"{}\" is in this file twice; rename one", table.name.escape_debug()),
                );
            }
            here.push(&table.name);
            let plan = plan(&mut it, nth, table, pools);
            plans.insert(table.name.clone(), Arc::new(plan));
        }
        let problems = it.take();
        if !problems.is_empty() {
            return Err(fail(problems));
        }
    }
    Ok(plans)
}

/// What is in the files of `[warmup]`, which are relative to `folder`, and what operators keep.
pub(super) fn texts(config: &Config, folder: &Path) -> Result<Texts, ConfigError> {
    let mut files = Vec::new();
    for name in &config.warmup.files {
        let path = folder.join(name);
        let text = std::fs::read_to_string(&path).map_err(|error| {
            let message = format!("cannot be read: {error}; see [warmup] files");
            ConfigError { file: path.clone(), problems: vec![Problem { line: None, key: String::new(), message }] }
        })?;
        files.push((path, text));
    }
    Ok(Texts { files, kept: super::plans::kept(&config.data_dir)? })
}

/// What `[[climb]]` says, with these plans. `source` is the text of the configuration.
pub(super) fn load(config: &Config, (file, source): (&Path, &Source<'_>)) -> Result<Arc<[Assignment]>, ConfigError> {
    let pools: Vec<String> = config.pool_names().map(str::to_owned).collect();
    let plans = plans(&config.plan_texts.all(), &pools)?;
    let mut it = check::Problems::new(source);
    let assignments = assignments(&mut it, config, &plans, &config.shaped.providers);
    let problems = it.take();
    if problems.is_empty() { Ok(assignments.into()) } else { Err(ConfigError { file: file.to_owned(), problems }) }
}

pub(super) fn assignments(
    it: &mut check::Problems<'_>,
    config: &Config,
    plans: &Plans,
    providers: &Providers,
) -> Vec<Assignment> {
    let mut found: BTreeMap<(String, String), (bool, Assignment)> = BTreeMap::new();
    for (nth, table) in config.climb.iter().enumerate() {
        let at = |key: &str| format!("climb.{nth}.{key}");
        if !config.source.iter().any(|source| source.name == table.source) {
            let known: Vec<_> = config.source.iter().map(|source| source.name.as_str()).collect();
            let name = table.source.escape_debug();
            it.add(&at("source"), format!("no [[source]] is named \"{name}\"; there are: {}", known.join(", ")));
        }
        let Some(plan) = plans.get(&table.plan) else {
            let known: Vec<_> = plans.keys().map(String::as_str).collect();
            it.add(&at("plan"), format!("no plan is named \"{}\"; there are: {}", table.plan.escape_debug(), known.join(", ")));
            continue;
        };
        let names: Vec<String> = match &table.provider {
            Some(name) if name != OTHER && !providers.has(name) => {
                let known: Vec<_> = providers.names().collect();
                let text = format!("no provider is named \"{}\"; there are: {}, other", name.escape_debug(), known.join(", "));
                it.add(&at("provider"), text);
                continue;
            }
            Some(name) => vec![name.clone()],
            None => providers.names().map(|name| name.to_string()).chain([OTHER.to_owned()]).collect(),
        };
        let start = match &table.start {
            None => Some(0),
            Some(day) => first_day(day),
        };
        let Some(start) = start else {
            it.add(&at("start"), "is no date after 1970; such as 2026-01-31, without a time");
            continue;
        };
        let certain = table.provider.is_some();
        for provider in names {
            let key = (table.source.clone(), provider.clone());
            let other = found.get(&key).map(|(other, _)| *other);
            if other == Some(certain) {
                it.add(&format!("climb.{nth}"), format!("{} has a plan with {provider} already; write one table", table.source));
            }
            // A table for one provider goes before one for all.
            if other == Some(true) && !certain {
                continue;
            }
            let (source, provider) = (table.source.as_str().into(), provider.as_str().into());
            found.insert(key, (certain, Assignment { source, provider, plan: plan.clone(), start }));
        }
    }
    found.into_values().map(|(_, assignment)| assignment).collect()
}

/// Days since 1970 of a date without a time.
fn first_day(day: &toml::value::Datetime) -> Option<u32> {
    let (Some(date), None, None) = (day.date, day.time, day.offset) else { return None };
    let date = Date::new(date.year.try_into().ok()?, date.month.try_into().ok()?, date.day.try_into().ok()?).ok()?;
    let days = date.since(Date::constant(1970, 1, 1)).ok()?.get_days();
    u32::try_from(days).ok()
}

fn plan(it: &mut check::Problems<'_>, nth: usize, table: &PlanTable, pools: &[String]) -> Plan {
    let at = |key: &str| format!("plan.{nth}.{key}");
    it.word(&at("name"), &table.name, "mine");
    let stages = stages(it, nth, table);
    let mut of = |key: &str, value: Option<f64>, (parts, least): (f64, f64)| {
        let value = value?;
        if !(least..=1.0).contains(&value) {
            it.add(&at(key), format!("is out of range; choose a share of {least} to 1"));
        }
        Some((value * parts).round() as u32)
    };
    let complaints = (100_000.0, 0.0001);
    let hold_complaints = of("hold_complaints", table.hold_complaints, complaints);
    let regress_complaints = of("regress_complaints", table.regress_complaints, complaints);
    let mut share = |key: &str, value: Option<f64>| of(key, value, (1000.0, 0.001));
    let utilisation = share("utilisation", table.utilisation);
    let hold = Troubles {
        deferred: share("hold_deferred", table.hold_deferred),
        refused: share("hold_refused", table.hold_refused),
        unknown: share("hold_unknown", table.hold_unknown),
        complained: hold_complaints,
    };
    let regress = Troubles {
        deferred: share("regress_deferred", table.regress_deferred),
        refused: share("regress_refused", table.regress_refused),
        unknown: share("regress_unknown", table.regress_unknown),
        complained: regress_complaints,
    };
    for (key, hold, regress) in [
        ("hold_deferred", hold.deferred, regress.deferred),
        ("hold_refused", hold.refused, regress.refused),
        ("hold_unknown", hold.unknown, regress.unknown),
        ("hold_complaints", hold.complained, regress.complained),
    ] {
        if let (Some(hold), Some(regress)) = (hold, regress)
            && hold >= regress
        {
            it.add(&at(key), "is not below the share at which stages are taken back, so it would never hold");
        }
    }
    if table.utilisation.is_some() && table.days == When::Calendar {
        it.add(&at("utilisation"), "counts only with days = \"sending\"; remove it");
    }
    if table.per == Per::Hour && table.hours.is_some() {
        it.add(&at("hours"), "does not go with per = \"hour\", which is even; remove it");
    }
    it.between(&at("hours"), table.hours.unwrap_or(1).into(), 1, 24);
    it.between(&at("sample"), table.sample.unwrap_or(100), 1, A_DAY_MAX);
    it.between(&at("complaint_sample"), table.complaint_sample.unwrap_or(1000), 1, A_DAY_MAX);
    it.between(&at("regress_stages"), table.regress_stages.unwrap_or(1).into(), 1, STAGES_MAX as u64);
    it.between(&at("cool_days"), table.cool_days.unwrap_or(1).into(), 1, 365);
    for (item, code) in table.codes.iter().enumerate() {
        if code.is_empty() || code.len() > 100 || table.codes.len() > 100 {
            it.add(&at(&format!("codes.{item}")), "has no octets or more than 100, or is one of more than 100");
        }
    }
    if let Some(pool) = table.overflow_pool.as_ref().filter(|pool| !pools.contains(pool)) {
        it.add(
            &at("overflow_pool"),
            format!("no [[pool]] is named \"{}\"; there are: {}", pool.escape_debug(), pools.join(", ")),
        );
    }
    let first = table.first.as_ref().map_or([false, true, true], |first| {
        first.iter().enumerate().for_each(|(item, class)| {
            if !Lane::ALL.iter().any(|lane| lane.as_str() == class) {
                it.add(&at(&format!("first.{item}")), "is no class; there are: otp, transactional, notice");
            }
        });
        Lane::ALL.map(|lane| first.iter().any(|class| class == lane.as_str()))
    });
    if table.cold_days.is_some() && table.idle_days.is_none() {
        it.add(&at("cold_days"), "counts only after idle_days; set that too");
    }
    let idle = table.idle_days.map(|after_days| {
        it.between(&at("idle_days"), after_days.into(), 1, 365);
        let cold_days = table.cold_days.unwrap_or(after_days.saturating_mul(4));
        if cold_days < after_days {
            it.add(&at("cold_days"), "is less than idle_days; choose at least that");
        }
        Idle { after_days, cold_days }
    });
    let name = table.zone.as_deref().unwrap_or("UTC");
    let zone = zone(name).unwrap_or_else(|| {
        let name = name.escape_debug();
        it.add(&at("zone"), format!("no zone of this machine is named \"{name}\"; such as \"Europe/Berlin\" (package tzdata)"));
        Zone::utc()
    });
    let hours = if table.per == Per::Hour { 24 } else { table.hours.unwrap_or(1) };
    Plan {
        pace: Pace { hours, burst: table.burst.unwrap_or(0) },
        zone: Arc::new(zone),
        days: if table.days == When::Calendar { Days::Calendar } else { Days::Sending },
        utilisation: utilisation.unwrap_or(900),
        hold,
        regress,
        sample: table.sample.unwrap_or(100),
        complaint_sample: table.complaint_sample.unwrap_or(1000),
        regress_stages: table.regress_stages.unwrap_or(1),
        cool_days: table.cool_days.unwrap_or(1),
        codes: table.codes.iter().map(|code| code.as_str().into()).collect(),
        overflow_pool: table.overflow_pool.as_deref().map(Arc::from),
        oversend_otp: table.oversend_otp,
        first,
        idle,
        ..Plan::of(&table.name, stages)
    }
}

fn stages(it: &mut check::Problems<'_>, nth: usize, table: &PlanTable) -> Stages {
    let at = |key: &str| format!("plan.{nth}.{key}");
    let times = if table.per == Per::Hour { 24 } else { 1 };
    match (&table.stages, table.start, table.factor, table.cap) {
        (Some(list), None, None, None) => {
            if list.is_empty() || list.len() > STAGES_MAX {
                it.add(&at("stages"), format!("has {} stages; write 1 to {STAGES_MAX}", list.len()));
            }
            for (item, stage) in list.iter().enumerate() {
                it.between(&at(&format!("stages.{item}")), *stage, 1, A_DAY_MAX);
                if item > 0 && list.get(item - 1).is_some_and(|before| before >= stage) {
                    it.add(&at(&format!("stages.{item}")), "is no more than the stage before; stages rise");
                }
            }
            Stages::Daily(list.iter().map(|stage| stage.saturating_mul(times)).collect())
        }
        (None, Some(start), Some(factor), Some(cap)) => {
            it.between(&at("start"), start, 1, A_DAY_MAX);
            it.between(&at("cap"), cap, start, A_DAY_MAX);
            if !(1.01..=10.0).contains(&factor) {
                it.add(&at("factor"), "is out of range; choose 1.01 to 10");
            }
            let growth = Stages::Growth { start, factor: (factor * 1000.0).round() as u32, cap };
            Stages::Daily(growth.list().iter().map(|stage| stage.saturating_mul(times)).collect())
        }
        _ => {
            it.add(&format!("plan.{nth}"), "has either stages, or start, factor and cap");
            Stages::Daily(vec![1])
        }
    }
}

/// A zone of this machine, as data.
pub fn zone(name: &str) -> Option<Zone> {
    if name == "UTC" {
        return Some(Zone::utc());
    }
    let zone = TimeZone::get(name).ok()?;
    let mut offsets = vec![(0, zone.to_offset(Timestamp::UNIX_EPOCH).seconds())];
    let changes = zone.following(Timestamp::UNIX_EPOCH);
    let changes = changes.map(|change| (change.timestamp().as_second(), change.offset().seconds()));
    offsets.extend(changes.take_while(|(at, _)| *at < ZONE_UNTIL).take(1024));
    Some(Zone::new(name, offsets))
}

/// What `tradewind config warmup` prints: every setting explained, then the shipped plans.
pub fn print_shipped() -> String {
    format!("{}\n# ---- shipped: {}\n\n{}", super::describe::commented(&TABLES), SHIPPED.0, SHIPPED.1)
}

#[cfg(test)]
#[path = "warmup_tests.rs"]
mod tests;
