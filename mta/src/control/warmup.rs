//! Warmup, as the operator sees and steers it: where each source stands with each provider, day by day against its plan, every step
//! with its figures and its reason.
//!
//! The scheduler does at once what is wanted, and the step is written down a moment later; the answer waits for that, so that what
//! was said to be done is still done after a crash.
//!
//! Not here: what a plan would do (`tradewind warmup simulate`), the rows (`queue/climbs.rs`).

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use ::metrics::{counter, gauge};
use scheduler::ClimbWish;
use scheduler::warmup::{Climb, ClimbState, ClimbView, Figures, Rule, Step};

use super::{
    api::{
        ClimbDay, ClimbFilter, ClimbRow, ClimbShown, ClimbVerb, DAYS_MAX, FiguresRow, PAGE_MAX, PacingRow, Refusal, StepFilter,
        StepRow, WarmupPage, WarmupWish,
    },
    daemon::Daemon,
    metrics as names,
    views::{blocking, time, unable},
    warmup_outlook::outlooks,
};
use crate::queue::{QueueError, Reader};

/// How long an answer waits for a step to be written down, and between two looks at that.
const WRITTEN_WAIT: Duration = Duration::from_secs(5);
const LOOK_AGAIN: Duration = Duration::from_millis(2);

/// Steps of each climb that are looked at to find out what needs a person.
const STEPS_AT_A_GLANCE: usize = 30;

/// A climb that has gained no stage for so long needs a person: either mail or patience is missing.
const STUCK_DAYS: u32 = 10;

/// So long one-time codes beyond an allowance are told.
const OVER_DAYS: u32 = 7;

/// Days that one climb is shown with when nobody says how many.
const DAYS_SHOWN: usize = 30;

/// More than this may not be pinned.
const A_DAY_MAX: u64 = 1_000_000_000;

/// Climbs with gauges of their own; those beyond have none.
const GAUGES_MAX: usize = 1000;

impl Daemon {
    /// Where all climbs stand.
    pub(super) async fn list_climbs(&self) -> Result<WarmupPage, Refusal> {
        let views = self.sorted_climbs().await?;
        blocking(self, move |daemon| {
            let reader = &daemon.parts.reader;
            let mut page = WarmupPage { asked_at: time(daemon.now()), ..WarmupPage::default() };
            let mut stories = Vec::new();
            for view in views {
                let steps = reader.climb_steps(&view.source, &view.provider, STEPS_AT_A_GLANCE)?;
                let began = began(reader, &view, &steps)?;
                page.attention.extend(attention(&view, began, &steps));
                page.climbs.push(row(&view, began));
                stories.push((view, steps));
            }
            page.outlook = outlooks(&stories, &daemon.config.load().climbs);
            Ok(page)
        })
        .await?
        .map_err(|error: QueueError| unable(error))
    }

    /// One of them, with its days and its story.
    pub(super) async fn show_climb(&self, source: &str, provider: &str, filter: ClimbFilter) -> Result<ClimbShown, Refusal> {
        let views = self.sorted_climbs().await?;
        let view = views.iter().find(|view| *view.source == *source && *view.provider == *provider).cloned();
        let view = view.ok_or_else(|| unknown(source, provider, &views))?;
        let days = filter.days.unwrap_or(DAYS_SHOWN).clamp(1, DAYS_MAX);
        blocking(self, move |daemon| {
            let reader = &daemon.parts.reader;
            let steps = reader.climb_steps(&view.source, &view.provider, STEPS_AT_A_GLANCE.max(2 * days))?;
            let began = began(reader, &view, &steps)?;
            let first = began.max(view.climb.day.saturating_sub(days as u32 - 1)).min(view.climb.day);
            let ledger = reader.ledger(&view.source, &view.provider, first)?;
            let steps_shown = steps.iter().take(STEPS_AT_A_GLANCE);
            Ok(ClimbShown {
                climb: row(&view, began),
                stages: view.stages.to_vec(),
                days: day_rows(&view, (began, first), &ledger, &steps),
                steps: steps_shown.map(|step| step_row(&view.source, &view.provider, step)).collect(),
                attention: attention(&view, began, &steps),
            })
        })
        .await?
        .map_err(|error: QueueError| unable(error))
    }

    /// What was decided, the newest first; also about climbs that are not configured any more.
    pub(super) async fn list_climb_steps(&self, filter: StepFilter) -> Result<Vec<StepRow>, Refusal> {
        let limit = filter.limit.unwrap_or(PAGE_MAX).clamp(1, PAGE_MAX);
        let rows = blocking(self, move |daemon| {
            let is = |wanted: &Option<String>, name: &str| wanted.as_deref().is_none_or(|wanted| wanted == name);
            let mut rows: Vec<(SystemTime, StepRow)> = Vec::new();
            for (source, provider) in daemon.parts.reader.climb_names()? {
                if is(&filter.source, &source) && is(&filter.provider, &provider) {
                    let steps = daemon.parts.reader.climb_steps(&source, &provider, limit)?;
                    rows.extend(steps.iter().map(|step| (step.at, step_row(&source, &provider, step))));
                    // However many climbs there are, no more than two pages are held.
                    rows.sort_by(|(one, _), (other, _)| other.cmp(one));
                    rows.truncate(limit);
                }
            }
            Ok(rows.into_iter().map(|(_, row)| row).collect())
        });
        rows.await?.map_err(|error: QueueError| unable(error))
    }

    /// Does what is wanted. Answers the climb as it is then.
    pub(super) async fn steer(
        &self,
        (source, provider): (&str, &str),
        verb: ClimbVerb,
        wish: WarmupWish,
        by: &str,
    ) -> Result<ClimbRow, Refusal> {
        let why = match wish.why.trim() {
            "" => return Err(Refusal::Wrong("say why, for whoever reads the history next year".to_owned())),
            why => why.replace(char::is_control, " "),
        };
        let by = format!("{by}: {why}");
        let asked = { wish };
        let wished = self
            .parts
            .scheduler
            .wish_climb(source, provider, &by, move |view| wanted(view, verb, &asked))
            .await
            .map_err(unable)?;
        let (at, view) = match wished {
            Some(done) => done?,
            None => return Err(unknown(source, provider, &self.sorted_climbs().await?)),
        };
        self.wait_until_step_is_written(&view, at, &by).await?;
        let row = blocking(self, move |daemon| Ok(row(&view, began(&daemon.parts.reader, &view, &[])?))).await?;
        row.map_err(|error: QueueError| unable(error))
    }

    /// Shows how climbs stand to whoever scrapes the metrics; `known` are those that were shown before.
    pub(super) async fn gauge_climbs(&self, known: &mut BTreeSet<(Arc<str>, Arc<str>)>) {
        if known.is_empty() && self.config.load().climbs.is_empty() {
            return;
        }
        // Without the scheduler nothing is told; those who need it say so.
        let Ok(views) = self.parts.scheduler.climbs().await else { return };
        let dated = blocking(self, move |daemon| {
            let reader = &daemon.parts.reader;
            views.into_iter().take(GAUGES_MAX).map(|view| Ok((began(reader, &view, &[])?, view))).collect()
        });
        // The same for a database that cannot be read.
        let Ok(Ok(views)): Result<Result<Vec<(u32, ClimbView)>, QueueError>, _> = dated.await else { return };
        let mut gone = std::mem::take(known);
        for (began, view) in &views {
            let key = (view.source.clone(), view.provider.clone());
            gone.remove(&key);
            // Of a source that is through only shaping says how much.
            let allowance = view.allowance.map_or(f64::INFINITY, |most| most as f64);
            let (spent, reserved) = (view.figures.spent as f64, view.reserved as f64);
            let stages = [view.climb.stage + 1, planned_stage(view, *began)].map(f64::from);
            set_gauges(&key, [allowance, spent, reserved, stages[0], stages[1]]);
            // Shown before there is any: what begins at 1 has not grown for those who scrape.
            counter!(names::WARMUP_OVER, "source" => key.0.to_string(), "provider" => key.1.to_string()).increment(0);
            known.insert(key);
        }
        gone.iter().for_each(|key| set_gauges(key, [0.0; 5]));
    }

    async fn sorted_climbs(&self) -> Result<Vec<ClimbView>, Refusal> {
        let mut views = self.parts.scheduler.climbs().await.map_err(unable)?;
        views.sort_by(|one, other| (&one.source, &one.provider).cmp(&(&other.source, &other.provider)));
        Ok(views)
    }

    async fn wait_until_step_is_written(&self, view: &ClimbView, at: SystemTime, by: &str) -> Result<(), Refusal> {
        let began = self.now();
        loop {
            let (source, provider) = (view.source.clone(), view.provider.clone());
            let steps = blocking(self, move |daemon| daemon.parts.reader.climb_steps(&source, &provider, STEPS_AT_A_GLANCE));
            let is_it = |step: &Step| step.by.as_deref() == Some(by) && millis(step.at) >= millis(at);
            if steps.await?.map_err(unable)?.iter().any(is_it) {
                return Ok(());
            }
            if self.now().duration_since(began).is_ok_and(|waited| waited > WRITTEN_WAIT) {
                return Err(Refusal::Unable("it is done, but not written down yet: the disk does not answer".to_owned()));
            }
            tokio::time::sleep(LOOK_AGAIN).await;
        }
    }
}

fn set_gauges((source, provider): &(Arc<str>, Arc<str>), values: [f64; 5]) {
    let [allowance, spent, reserved, stage, planned] = values;
    let (source, provider) = (|| source.clone(), || provider.clone());
    gauge!(names::WARMUP_ALLOWANCE, "source" => source(), "provider" => provider()).set(allowance);
    gauge!(names::WARMUP_SPENT, "source" => source(), "provider" => provider()).set(spent);
    gauge!(names::WARMUP_RESERVED, "source" => source(), "provider" => provider()).set(reserved);
    gauge!(names::WARMUP_STAGE, "source" => source(), "provider" => provider()).set(stage);
    gauge!(names::WARMUP_PLANNED_STAGE, "source" => source(), "provider" => provider()).set(planned);
}

fn unknown(source: &str, provider: &str, views: &[ClimbView]) -> Refusal {
    let names = |name: fn(&ClimbView) -> &str| -> String {
        let names: BTreeSet<&str> = views.iter().map(name).collect();
        names.into_iter().collect::<Vec<_>>().join(", ")
    };
    if views.is_empty() {
        return Refusal::Unknown("no source warms up; see [[climb]] in `tradewind config describe`".to_owned());
    }
    let (sources, providers) = (names(|view| &view.source), names(|view| &view.provider));
    Refusal::Unknown(format!(
        "{source} does not warm up at {provider}; sources that warm up: {sources}; providers where some do: {providers}"
    ))
}

/// Whether it can be done to a climb as it stands, and as what.
fn wanted(view: &ClimbView, verb: ClimbVerb, wish: &WarmupWish) -> Result<ClimbWish, Refusal> {
    let WarmupWish { why: _, stage, recipients, stages } = wish;
    let (state, last) = (view.climb.state, view.stages.len().max(1) as u32);
    let counted = if verb == ClimbVerb::Complaints { verb } else { ClimbVerb::Pin };
    let taken = [("stage", stage.is_some(), ClimbVerb::Set), ("recipients", recipients.is_some(), counted)];
    let taken = taken.into_iter().chain([("stages", stages.is_some(), ClimbVerb::Rewind)]);
    if let Some((name, ..)) = taken.into_iter().find(|(_, given, of)| *given && *of != verb) {
        return Err(Refusal::Wrong(format!("`{name}` does not go with this; leave it out")));
    }
    let stands = |says: &str| Err(Refusal::Conflict(format!("{} at {} {says}", view.source, view.provider)));
    match verb {
        ClimbVerb::Set => match stage {
            Some(stage) if (1..=last).contains(stage) => Ok(ClimbWish::Set(stage - 1)),
            Some(stage) => Err(Refusal::Wrong(format!("there is no stage {stage}; plan {} has stages 1 to {last}", view.plan))),
            None => Err(Refusal::Wrong(format!("say which stage with `stage`, 1 to {last}"))),
        },
        ClimbVerb::Pin => match recipients {
            Some(most) if *most <= A_DAY_MAX => Ok(ClimbWish::Pin(Some(*most))),
            _ => Err(Refusal::Wrong(format!("say how many a day with `recipients`, 0 to {A_DAY_MAX}"))),
        },
        ClimbVerb::Complaints => match recipients {
            Some(count) if (1..=A_DAY_MAX).contains(count) => Ok(ClimbWish::Complaints(*count)),
            _ => Err(Refusal::Wrong(format!("say how many with `recipients`, 1 to {A_DAY_MAX}"))),
        },
        ClimbVerb::Unpin if view.climb.pinned.is_none() => stands("is not pinned"),
        ClimbVerb::Unpin => Ok(ClimbWish::Pin(None)),
        ClimbVerb::Pause if state == ClimbState::Paused => stands("is paused already"),
        ClimbVerb::Pause => Ok(ClimbWish::Pause),
        ClimbVerb::Resume if state != ClimbState::Paused => stands(&format!("is not paused: it is {state}")),
        ClimbVerb::Resume => Ok(ClimbWish::Resume),
        ClimbVerb::Skip if state == ClimbState::Warm => stands("is warm already"),
        ClimbVerb::Skip => Ok(ClimbWish::Skip),
        ClimbVerb::Rewind if view.climb.stage == 0 => stands("is on its first stage"),
        ClimbVerb::Rewind => match stages.unwrap_or(1) {
            0 => Err(Refusal::Wrong("`stages` is 0; say at least 1, or leave it out".to_owned())),
            stages => Ok(ClimbWish::Rewind(stages)),
        },
    }
}

/// The first day of a climb: the configured one, or the first that anything is known of.
fn began(reader: &Reader, view: &ClimbView, steps: &[Step]) -> Result<u32, QueueError> {
    if view.climb.start > 0 {
        return Ok(view.climb.start);
    }
    let spent = reader.climb_first_day(&view.source, &view.provider)?;
    let decided = steps.iter().map(|step| step.day).min();
    Ok(spent.into_iter().chain(decided).fold(view.climb.day, u32::min))
}

/// Where it would be had every day gone well, from 1; one beyond the last stage: it would be through.
fn planned_stage(view: &ClimbView, began: u32) -> u32 {
    view.climb.day.saturating_sub(began).min(view.stages.len() as u32) + 1
}

fn row(view: &ClimbView, began: u32) -> ClimbRow {
    let Climb { state, stage, day, pinned, idle, .. } = view.climb;
    let stages = view.stages.len() as u32;
    ClimbRow {
        source: view.source.to_string(),
        provider: view.provider.to_string(),
        plan: view.plan.to_string(),
        state: state.to_string(),
        stage: stage + 1,
        stages,
        planned_stage: planned_stage(view, began),
        began: date(began),
        day: date(day),
        day_ends: time(view.day_ends),
        allowance: view.allowance,
        reserved: view.reserved,
        pacing: view.pacing.map(|it| PacingRow {
            hourly: it.hourly,
            used: it.used,
            hour_ends: time(it.hour_ends),
            by_now: it.by_now,
        }),
        figures: view.figures.into(),
        pinned,
        idle_days: idle,
    }
}

fn day_rows(view: &ClimbView, (began, first): (u32, u32), ledger: &[(u32, u8, u64)], steps: &[Step]) -> Vec<ClimbDay> {
    let mut spent: BTreeMap<u32, u64> = BTreeMap::new();
    ledger.iter().for_each(|(day, _, count)| *spent.entry(*day).or_default() += count);
    let day = |day: u32| {
        // The newest of the daemon's own is the one at the day's end.
        let own = |step: &&Step| step.day == day && step.by.is_none() && !matches!(step.rule, Rule::Over | Rule::Code);
        let end = steps.iter().find(own).filter(|_| day < view.climb.day);
        ClimbDay {
            day: date(day),
            planned: day.checked_sub(began).and_then(|nth| view.stages.get(nth as usize).copied()),
            allowed: if day == view.climb.day { view.allowance } else { end.and_then(|step| step.allowance) },
            spent: spent.get(&day).copied().unwrap_or(0),
            rule: end.map(|step| step.rule.as_str().to_owned()),
        }
    };
    (first..=view.climb.day).map(day).collect()
}

/// What needs a person, of one climb. `steps` are its newest, the newest first.
fn attention(view: &ClimbView, began: u32, steps: &[Step]) -> Vec<String> {
    let (mut all, today) = (Vec::new(), view.climb.day);
    let of = format!("{} at {}", view.source, view.provider);
    let over = steps.iter().filter(|step| step.rule == Rule::Over && step.day + OVER_DAYS > today).map(|step| date(step.day));
    let over: BTreeSet<String> = over.collect();
    if !over.is_empty() {
        let days = over.into_iter().collect::<Vec<_>>().join(", ");
        all.push(format!(
            "{of}: one-time codes went beyond the allowance, because no other source could carry them ({days}); give their pool a \
             source that is warm"
        ));
    }
    match view.climb.state {
        ClimbState::Paused => {
            let paused = steps.iter().find(|step| step.to.0 == ClimbState::Paused && step.from.0 != ClimbState::Paused);
            let since = paused.map(|step| format!(" since {}, by {}", time(step.at), step.by.as_deref().unwrap_or("nobody")));
            all.push(format!("{of}: paused{}; nothing is sent until it is resumed", since.unwrap_or_default()));
        }
        ClimbState::Warming | ClimbState::Holding | ClimbState::Regressed | ClimbState::Cooling => {
            let gained = steps.iter().find(|step| step.to.1 > step.from.1).map_or(began, |step| step.day);
            let days = today.saturating_sub(gained);
            let last = steps.iter().find(|step| step.by.is_none() && step.rule != Rule::Over);
            if days >= STUCK_DAYS && view.climb.pinned.is_none() {
                let last = last.map(|step| format!("; the last decision: {}", step.reason)).unwrap_or_default();
                all.push(format!("{of}: no stage gained for {days} days{last}"));
            }
        }
        ClimbState::Planned | ClimbState::Warm => {}
    }
    if let Some(most) = view.climb.pinned {
        all.push(format!("{of}: pinned to {most} a day, and makes no progress until that is taken back"));
    }
    all
}

fn step_row(source: &str, provider: &str, step: &Step) -> StepRow {
    StepRow {
        at: time(step.at),
        source: source.to_owned(),
        provider: provider.to_owned(),
        rule: step.rule.as_str().to_owned(),
        reason: step.reason.to_string(),
        by: step.by.as_deref().map(str::to_owned),
        day: date(step.day),
        state_before: step.from.0.to_string(),
        stage_before: step.from.1 + 1,
        state: step.to.0.to_string(),
        stage: step.to.1 + 1,
        allowance: step.allowance,
        figures: step.figures.into(),
    }
}

impl From<Figures> for FiguresRow {
    fn from(Figures { spent, over, free, tried, deferred, refused, unknown, complained }: Figures) -> Self {
        FiguresRow { spent, over, free, tried, deferred, refused, unknown, complained }
    }
}

/// Of a day since 1970.
fn date(day: u32) -> String {
    let day = jiff::civil::date(1970, 1, 1).checked_add(jiff::Span::new().days(day));
    day.map_or_else(|_| "9999-12-31".to_owned(), |day| day.to_string())
}

fn millis(at: SystemTime) -> u128 {
    at.duration_since(UNIX_EPOCH).unwrap_or_default().as_millis()
}

#[cfg(test)]
#[path = "warmup_tests.rs"]
mod tests;
