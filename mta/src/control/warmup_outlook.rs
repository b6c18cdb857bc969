//! What the mail of the last days leads to, at each provider: as `tradewind warmup show` says it.
//!
//! Not here: the reckoning (`scheduler::warmup::outlook`).

use std::collections::BTreeMap;
use std::sync::Arc;

use scheduler::warmup::{Assignment, Climb, ClimbState, ClimbView, OUTLOOK_DAYS, Plan, Rule, Step, UsedDay, Volume, outlook};

/// Sentences by provider. Climbs that are warm are left out: they get what the others leave. `stories` are climbs with their newest
/// steps, the newest first.
pub(super) fn outlooks(stories: &[(ClimbView, Vec<Step>)], assignments: &[Assignment]) -> Vec<String> {
    let plan = |view: &ClimbView| {
        let is_it = |it: &&Assignment| it.source == view.source && it.provider == view.provider;
        assignments.iter().find(is_it).map(|assignment| assignment.plan.clone())
    };
    let mut groups: BTreeMap<(Arc<str>, Arc<str>), Group> = BTreeMap::new();
    for (view, steps) in stories.iter().filter(|(view, _)| view.climb.state != ClimbState::Warm) {
        let Some(plan) = plan(view) else { continue };
        let group = groups.entry((view.provider.clone(), plan.name.clone()));
        let group = group.or_insert_with(|| Group { plan, climbs: Vec::new(), days: BTreeMap::new() });
        group.climbs.push(view.climb);
        // Of each day that is over the decision at its end.
        let ends = steps.iter().filter(|step| {
            step.day < view.climb.day && step.by.is_none() && !matches!(step.rule, Rule::Over | Rule::Code | Rule::Start)
        });
        for step in ends.take(OUTLOOK_DAYS) {
            let day = group.days.entry(step.day).or_insert(UsedDay { allowance: Some(0), accepted: 0 });
            day.accepted += step.figures.accepted();
            day.allowance = day.allowance.zip(step.allowance).map(|(sum, more)| sum + more);
        }
    }
    let mut lines = Vec::new();
    for ((provider, _), Group { plan, climbs, days }) in groups {
        let days: Vec<UsedDay> = days.into_values().rev().collect();
        if let Some(volume) = Volume::of(&days) {
            lines.extend(outlook(&plan, &climbs, volume).words(&provider, &plan));
        }
    }
    lines
}

/// Climbs of one plan at one provider.
struct Group {
    plan: Arc<Plan>,
    climbs: Vec<Climb>,
    days: BTreeMap<u32, UsedDay>,
}

#[cfg(test)]
mod tests {
    use std::time::UNIX_EPOCH;

    use scheduler::warmup::{Figures, Stages};

    use super::*;

    #[test]
    fn days_of_all_climbs_at_a_provider_are_put_together() {
        let plan = Arc::new(Plan::of("p", Stages::Daily(vec![100, 200, 400])));
        let climb = |source: &str| Assignment { source: source.into(), provider: "google".into(), plan: plan.clone(), start: 0 };
        let assignments = [climb("a"), climb("b"), climb("c")];
        let view = |source: &str, state, stage| ClimbView {
            source: source.into(),
            provider: "google".into(),
            plan: "p".into(),
            climb: Climb { state, stage, ..Climb::new(0, 10) },
            stages: plan.stages.list().into(),
            allowance: Some(200),
            reserved: 0,
            figures: Figures::default(),
            day_ends: UNIX_EPOCH,
            pacing: None,
        };
        let step = |day, spent, rule| Step {
            at: UNIX_EPOCH,
            rule,
            reason: "".into(),
            day,
            from: (ClimbState::Warming, 1),
            to: (ClimbState::Holding, 1),
            allowance: Some(200),
            figures: Figures { spent, tried: spent, ..Figures::default() },
            by: None,
        };
        let held = |source| {
            let steps = vec![step(10, 9, Rule::Over), step(9, 90, Rule::Utilisation), step(8, 110, Rule::Utilisation)];
            (view(source, ClimbState::Holding, 1), steps)
        };
        let warm = (view("c", ClimbState::Warm, 2), vec![]);
        let said = outlooks(&[held("a"), held("b"), warm], &assignments);
        assert_eq!(
            said,
            [
                "google: 200 a day as lately do not lead through plan p: it ends on stage 2 of 3",
                "google: this volume cannot sustain 2 sources: the last stage asks each to have 360 a day accepted; it can sustain not \
                 even one; a plan that ends lower fits",
            ]
        );
        assert!(outlooks(&[(view("a", ClimbState::Warming, 0), vec![])], &assignments).is_empty(), "nothing is known yet");
    }
}
