//! One source at one provider: plan against fact, each decision with its figures and its reason, and what an operator may do.

use maud::{Markup, html};

use super::{
    super::api::{ClimbShown, StepRow},
    chart,
    frame::Viewer,
    parts::{self, Act, act, count, limit, needs, tiles, time},
    warmup,
};

/// The whole page.
pub(super) fn page(viewer: &Viewer, shown: &ClimbShown, version: Option<&str>) -> Markup {
    let climb = &shown.climb;
    let figures = &climb.figures;
    let today = [
        ("Allowed today", limit(climb.allowance), Some(format!("until {}", climb.day_ends))),
        ("Accepted", count(figures.spent + figures.free), Some(format!("{} under way", count(climb.reserved)))),
        (
            "This hour",
            climb.pacing.as_ref().map_or("no pacing".to_owned(), |it| format!("{} of {}", count(it.used), count(it.hourly))),
            climb.pacing.as_ref().map(|it| format!("at most {} of the day by now", count(it.by_now))),
        ),
        ("Deferred", count(figures.deferred), Some(format!("of {} tried", count(figures.tried)))),
        ("Refused", count(figures.refused), Some(format!("{} unknown mailboxes", count(figures.unknown)))),
        ("Complaints", count(figures.complained), None),
        ("Codes over the limit", count(figures.over), None),
    ];
    html! {
        p.crumbs { a href="/warmup" { "Warmup" } " / " (climb.source) }
        h1 { (climb.source) " at " (climb.provider) }
        p.lead {
            (parts::state(warmup::tone(&climb.state), &climb.state))
            ", stage " (climb.stage) " of " (climb.stages) " of the plan " a href=(format!("/plans/{}", parts::segment(&climb.plan))) { (climb.plan) }
            "; began " (climb.began) ", today is " (climb.day) "."
            @if climb.idle_days > 0 { " Idle for " (climb.idle_days) " days." }
            @if let Some(pinned) = climb.pinned { " Pinned to " (count(pinned)) " a day by an operator." }
        }
        (needs(&shown.attention))
        (tiles(&today))
        h2 { "Plan against fact" }
        (chart::days(&shown.days))
        (work(viewer, shown, version))
        h2 { "Decisions" }
        (decisions(&shown.steps))
        h2 { "Days" }
        div.table tabindex="0" role="region" aria-label="Days" {
            table {
                thead { tr { th scope="col" { "Day" } th.n scope="col" { "Planned" } th.n scope="col" { "Allowed" } th.n scope="col" { "Accepted" } th scope="col" { "Decision at its end" } } }
                tbody {
                    @for day in shown.days.iter().rev() {
                        tr { th scope="row" { (day.day) } td.n { (day.planned.map_or("–".to_owned(), count)) } td.n { (day.allowed.map_or("–".to_owned(), count)) } td.n { (count(day.spent)) } td { (day.rule.as_deref().unwrap_or("")) } }
                    }
                    @if shown.days.is_empty() { (parts::empty(5, "No day yet.")) }
                }
            }
        }
    }
}

/// Decisions, the newest first.
pub(super) fn decisions(steps: &[StepRow]) -> Markup {
    html! {
        div.table tabindex="0" role="region" aria-label="Decisions" {
            table {
                thead { tr { th scope="col" { "When" } th scope="col" { "Rule" } th scope="col" { "Stage" } th.n scope="col" { "Allowed" } th.n scope="col" { "Accepted" } th scope="col" { "Figures and reason" } th scope="col" { "Who" } } }
                tbody {
                    @for step in steps {
                        tr {
                            td { (time(&step.at)) }
                            td { (step.rule) }
                            td { (step.stage_before) " → " (step.stage) " " (parts::state(warmup::tone(&step.state), &step.state)) }
                            td.n { (limit(step.allowance)) }
                            td.n { (count(step.figures.spent + step.figures.free)) }
                            td.wide { (step.reason) }
                            td { (step.by.as_deref().unwrap_or("by itself")) }
                        }
                    }
                    @if steps.is_empty() { (parts::empty(7, "Nothing has been decided yet.")) }
                }
            }
        }
    }
}

fn work(viewer: &Viewer, shown: &ClimbShown, version: Option<&str>) -> Markup {
    let climb = &shown.climb;
    let at = |verb: &str| format!("{}/{verb}", warmup::path(climb));
    let number = |name: &str, says: &str, value: u64| html! { label { (says) br; input type="number" name=(name) min="0" value=(value) required; } };
    let paused = climb.state == "paused";
    let plain =
        |name, verb: &str, says, danger| act(viewer, &Act { name, action: &at(verb), says, danger, version, fields: html! {} });
    html! {
        @if viewer.may_operate() {
            h2 { "Steer" }
            @if paused { (plain("Resume", "resume", "Mail goes from this source to this provider again.", false)) }
            @else { (plain("Pause", "pause", "No mail goes from this source to this provider until it is resumed; others take it.", true)) }
            (plain("Skip a stage", "skip", "Goes on to the next stage now.", true))
            (act(viewer, &Act { name: "Rewind", action: &at("rewind"), says: "Goes back by stages.", danger: true, version, fields: number("stages", "Stages", 1) }))
            (act(viewer, &Act { name: "Set the stage", action: &at("set"), says: "Goes to a stage of the plan.", danger: true, version, fields: number("stage", "Stage", climb.stage.into()) }))
            @if climb.pinned.is_some() { (plain("Unpin", "unpin", "The plan's allowance holds again.", false)) }
            (act(viewer, &Act { name: "Pin the allowance", action: &at("pin"), says: "So many recipients a day, whatever the plan says, until it is unpinned.", danger: true, version, fields: number("recipients", "Recipients a day", climb.allowance.unwrap_or(0)) }))
            (act(viewer, &Act { name: "Report complaints", action: &at("complaints"), says: "Complaints that came by another way; they count for today's decision.", danger: false, version, fields: number("recipients", "Recipients who complained", 1) }))
        }
    }
}
