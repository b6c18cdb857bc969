//! What a volume means for a plan: how many sources it can bring through, and what becomes of the others.

use scheduler::warmup::{ClimbState, ClimbView, asked, sustains};

use crate::table::grouped;
use crate::trial::Trial;

/// In plain words, a line each: when it ends, and warnings. Nothing is said that the figures do not show.
pub(crate) fn outlook(trial: &Trial, finished: Option<u32>, climbs: &[ClimbView]) -> Vec<String> {
    let mut lines = Vec::new();
    if finished.is_none() {
        let warm = climbs.iter().filter(|view| view.climb.state == ClimbState::Warm).count();
        let stage = climbs.iter().map(|view| view.climb.stage + 1).min().unwrap_or(1);
        let stages = climbs.first().map_or(0, |view| view.stages.len());
        lines.push(format!(
            "after {} days {warm} of {} climbs are through; the last of the others is on stage {stage} of {stages}",
            trial.days,
            climbs.len(),
        ));
    }
    lines.extend(sustained(trial));
    lines
}

/// A stage is passed only by using it: so each source needs that much mail for each provider, on the last stage most.
fn sustained(trial: &Trial) -> Vec<String> {
    let Some(asked) = asked(&trial.plan) else { return Vec::new() };
    let mean = trial.volume.last_week(trial.days);
    let many = |share: f64| sustains(&trial.plan, (mean * share) as u64).unwrap_or(u32::MAX);
    let short = |(_, share): &(std::sync::Arc<str>, f64)| many(*share) < u32::from(trial.sources);
    let shares = trial.shares();
    let starved: Vec<_> = shares.iter().filter(|it| short(it)).collect();
    let Some((provider, share)) = starved.first().map(|(name, share)| (name, *share)) else { return Vec::new() };
    let mut lines = vec![format!(
        "warning: this volume cannot sustain {} {}: the last stage asks each to have {} messages a day accepted, and at {} of {} \
         providers there is less for each ({provider}: {})",
        trial.sources,
        if trial.sources == 1 { "source" } else { "sources" },
        grouped(asked),
        starved.len(),
        shares.len(),
        grouped((mean * share / f64::from(trial.sources)) as u64),
    )];
    let counts: Vec<String> = shares.iter().map(|(name, share)| format!("{name} {}", many(*share))).collect();
    lines.push(format!("sources that it can sustain, by provider: {}", counts.join(", ")));
    if shares.iter().any(|(_, share)| many(*share) == 0) {
        lines.push("where that is none, a plan that ends lower fits, or all mail through one source".to_owned());
    }
    lines
}
