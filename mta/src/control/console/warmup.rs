//! Sources and providers: where each source stands with each provider, and what is left of today.

use std::collections::{BTreeMap, BTreeSet};

use maud::{Markup, html};

use super::{
    super::api::{ClimbRow, PacingRow, WarmupPage},
    parts::{self, Tone, count, limit, marked_bar, needs, segment, time},
};

/// How good a state of warmup is.
pub(super) fn tone(state: &str) -> Tone {
    match state {
        "warm" | "warming" => Tone::Good,
        "holding" | "cooling" => Tone::Warn,
        "regressed" | "paused" => Tone::Bad,
        _ => Tone::None,
    }
}

/// The whole page.
pub(super) fn page(page: &WarmupPage) -> Markup {
    html! {
        h1 { "Warmup" }
        p.lead { "Each source at each provider, as of " (time(&page.asked_at)) ". Everything counts recipients." }
        (needs(&page.attention))
        (grid(&page.climbs))
        @if !page.outlook.is_empty() {
            h2 { "What the mail of the last days leads to" }
            ul { @for each in &page.outlook { li { (each) } } }
        }
    }
}

/// Rows are sources, columns are providers.
pub(super) fn grid(climbs: &[ClimbRow]) -> Markup {
    let providers: BTreeSet<&str> = climbs.iter().map(|climb| climb.provider.as_str()).collect();
    let mut sources: BTreeMap<&str, BTreeMap<&str, &ClimbRow>> = BTreeMap::new();
    for climb in climbs {
        sources.entry(&climb.source).or_default().insert(&climb.provider, climb);
    }
    html! {
        div.table tabindex="0" role="region" aria-label="Sources and providers" {
            table {
                thead { tr { th scope="col" { "Source" } @for provider in &providers { th scope="col" { (provider) } } } }
                tbody {
                    @for (source, of) in &sources {
                        tr {
                            th scope="row" { (source) }
                            @for provider in &providers { td { @if let Some(climb) = of.get(provider) { (cell(climb)) } } }
                        }
                    }
                    @if climbs.is_empty() {
                        (parts::empty(1, "No source warms up. A [[warmup.assign]] table or a plan in a pool begins one."))
                    }
                }
            }
        }
    }
}

fn cell(climb: &ClimbRow) -> Markup {
    let accepted = climb.figures.spent + climb.figures.free;
    html! {
        a.grid-cell href=(path(climb)) {
            (parts::state(tone(&climb.state), &climb.state))
            " " small { "stage " (climb.stage) "/" (climb.stages) (apart(climb)) }
            (marked_bar(accepted, climb.reserved, climb.allowance.unwrap_or(accepted), climb.pacing.as_ref().map(|it| it.by_now)))
            small {
                (count(accepted)) " of " (limit(climb.allowance)) " today"
                @if climb.reserved > 0 { ", " (count(climb.reserved)) " under way" }
                @if let Some(it) = &climb.pacing { "; " (pacing(it)) }
                @if let Some(pinned) = climb.pinned { ", pinned to " (count(pinned)) }
            }
        }
    }
}

/// How the hours stand.
pub(super) fn pacing(it: &PacingRow) -> String {
    format!("at most {} by now, this hour {} of {}", count(it.by_now), count(it.used), count(it.hourly))
}

/// How far it is from where the plan would be.
fn apart(climb: &ClimbRow) -> String {
    match (climb.stage, climb.planned_stage) {
        (at, planned) if at < planned => format!(", {} behind the plan", planned - at),
        (at, planned) if at > planned => format!(", {} ahead of the plan", at - planned),
        _ => String::new(),
    }
}

/// Where its own page is.
pub(super) fn path(climb: &ClimbRow) -> String {
    format!("/warmup/{}/{}", segment(&climb.source), segment(&climb.provider))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_grid_has_a_cell_for_each_pair_and_says_how_far_it_is_from_its_plan() {
        let climb = |source: &str, provider: &str, stage| ClimbRow {
            source: source.to_owned(),
            provider: provider.to_owned(),
            state: "warming".to_owned(),
            stage,
            stages: 20,
            planned_stage: 5,
            allowance: Some(2000),
            pacing: Some(PacingRow { hourly: 90, used: 40, hour_ends: String::new(), by_now: 1000 }),
            ..ClimbRow::default()
        };
        let drawn = grid(&[climb("ip-a", "google", 3), climb("ip-b", "microsoft", 5)]).into_string();
        assert!(drawn.contains("/warmup/ip-a/google") && drawn.contains("2 behind the plan"), "{drawn}");
        assert!(!drawn.contains("/warmup/ip-a/microsoft"));
        assert!(drawn.contains("0 of 2,000 today; at most 1,000 by now, this hour 40 of 90"), "{drawn}");
        assert!(drawn.contains(r#"<rect class="mark" x="500""#), "{drawn}");
    }

    #[test]
    fn names_are_never_markup() {
        let evil = ClimbRow { source: "<script>".to_owned(), provider: "\"><b>".to_owned(), ..ClimbRow::default() };
        let drawn = grid(&[evil]).into_string();
        assert!(!drawn.contains("<script>") && !drawn.contains("<b>"), "{drawn}");
    }
}
