//! Plans of warmup: as a form or as text, with what is wrong by line, a simulation beside the plan that holds, and undo.

use maud::{Markup, PreEscaped, html};

use super::{
    frame::{Viewer, token},
    parts::{self, Act, act, count, segment},
};
use crate::control::{
    admin::Role,
    api::{PlanChecked, PlanRow, PlanShown, Simulated},
};

/// All of them.
pub(super) fn index(viewer: &Viewer, plans: &[PlanRow]) -> Markup {
    html! {
        h1 { "Plans" }
        p.lead { "How much may be accepted from a young source in a day, stage by stage." }
        div.table tabindex="0" role="region" aria-label="Plans" {
            table {
                thead { tr { th scope="col" { "Plan" } th scope="col" { "From" } th.n scope="col" { "Stages" } th scope="col" { "A day" } th scope="col" { "Who follows it" } } }
                tbody {
                    @for plan in plans {
                        tr {
                            th scope="row" { a href=(path(&plan.name)) { (plan.name) } }
                            td { (plan.from) }
                            td.n { (plan.stages.len()) }
                            td { (range(&plan.stages)) }
                            td { @for it in &plan.followers { div { a href=(format!("/warmup/{}/{}", segment(&it.source), segment(&it.provider))) { (it.source) " at " (it.provider) } } } }
                        }
                    }
                }
            }
        }
        @if viewer.role >= Role::Admin {
            h2 { "A new one" }
            form.row method="get" action="/plans" { label { "Its name" br; input name="new" required pattern="[a-z0-9][a-z0-9-]*" autocomplete="off"; } button { "Write it" } }
        }
    }
}

/// Where its own page is.
pub(super) fn path(name: &str) -> String {
    format!("/plans/{}", segment(name))
}

fn range(stages: &[u64]) -> String {
    match (stages.first(), stages.last()) {
        (Some(first), Some(last)) => format!("{} to {}", count(*first), count(*last)),
        _ => "by its own rule".to_owned(),
    }
}

/// A text that is being written, and what is known of it.
pub(super) struct Draft<'a> {
    pub(super) text: &'a str,
    /// None: it was not looked at yet.
    pub(super) checked: Option<&'a PlanChecked>,
    /// What would come of it beside what holds.
    pub(super) simulated: Option<&'a Simulated>,
    /// The version of the plan that the writing began with.
    pub(super) version: Option<&'a str>,
}

/// One plan. `shown` is None for one that is not there yet.
pub(super) fn page(viewer: &Viewer, name: &str, shown: Option<&PlanShown>, draft: &Draft<'_>) -> Markup {
    html! {
        p.crumbs { a href="/plans" { "Plans" } }
        h1 { (name) }
        @match shown {
            None => p.lead { "There is no such plan yet." },
            Some(shown) => {
                p.lead {
                    "From " (shown.row.from) ". " (shown.row.stages.len()) " stages: " (range(&shown.row.stages)) " a day."
                    @if !shown.row.followers.is_empty() {
                        " Followed by "
                        @for (at, it) in shown.row.followers.iter().enumerate() {
                            @if at > 0 { ", " }
                            a href=(format!("/warmup/{}/{}", segment(&it.source), segment(&it.provider))) { (it.source) " at " (it.provider) }
                        }
                        "."
                    }
                }
                @if let Some(before) = &shown.before && viewer.role >= Role::Admin {
                    (act(viewer, &Act {
                        name: "Undo the last change",
                        action: &format!("{}/undo", path(name)),
                        says: if before.is_empty() { "What the settings say holds again." } else { "The text that was there before holds again." },
                        danger: true,
                        version: draft.version,
                        fields: html! {},
                    }))
                }
            }
        }
        h2 { "Edit" }
        form #edit method="post" action=(format!("{}/try", path(name))) {
            (token(viewer))
            @if let Some(version) = draft.version { input type="hidden" name="version" value=(version); }
            label for="text" { "As TOML: one table [[plan]]. Nothing changes before it is applied." }
            textarea #text name="text" spellcheck="false" aria-describedby="problems"
                hx-post=(format!("{}/check", path(name))) hx-trigger="input changed delay:500ms" hx-target="#problems" hx-swap="outerHTML" { (draft.text) }
            (problems(draft.checked))
            p {
                button { "Check and simulate" }
                " " span.quiet { "on the volume of the last 30 days, beside the plan that holds" }
            }
            @if viewer.role >= Role::Admin {
                div.row {
                    label for="why" { "Why, for the record" }
                    input #why name="why" maxlength="500" size="40" autocomplete="off";
                    " " button.primary formaction=(path(name)) { "Apply" }
                }
            }
        }
        (form(viewer, name, draft))
        @if let Some(simulated) = draft.simulated { (simulation(simulated)) }
    }
}

/// What is wrong with a text, line by line.
pub(super) fn problems(checked: Option<&PlanChecked>) -> Markup {
    html! {
        div #problems role="status" aria-live="polite" {
            @match checked {
                None => {}
                Some(PlanChecked { ok: true, stages, .. }) => p.notice { "It is a plan of " (stages.len()) " stages: " (range(stages)) " a day." },
                Some(PlanChecked { problems, .. }) => (parts::mistakes(problems)),
            }
        }
    }
}

/// The stages alone, for whoever would rather not write TOML: the text is made of them.
fn form(viewer: &Viewer, name: &str, draft: &Draft<'_>) -> Markup {
    let stages =
        draft.checked.map(|checked| checked.stages.iter().map(u64::to_string).collect::<Vec<_>>().join(", ")).unwrap_or_default();
    html! {
        details.act {
            summary { "Edit the stages as a form" }
            form.row method="post" action=(format!("{}/try", path(name))) {
                (token(viewer))
                @if let Some(version) = draft.version { input type="hidden" name="version" value=(version); }
                input type="hidden" name="text" value=(draft.text);
                label { "First day" br; input type="number" name="first" min="1" required; }
                label { "Last day" br; input type="number" name="last" min="1" required; }
                label { "Days" br; input type="number" name="days" min="2" max="365" required; }
                button { "Make stages that grow evenly" }
            }
            form.row method="post" action=(format!("{}/try", path(name))) {
                (token(viewer))
                @if let Some(version) = draft.version { input type="hidden" name="version" value=(version); }
                input type="hidden" name="text" value=(draft.text);
                label { "Recipients a day, stage by stage" br; textarea.short name="stages" cols="60" required { (stages) } }
                button { "Take these stages" }
            }
        }
    }
}

fn simulation(it: &Simulated) -> Markup {
    html! {
        section #simulation aria-labelledby="simulated" {
            h2 #simulated { "What would come of it" }
            p { (it.says) }
            // The drawing is the simulation's own, made of numbers and of names that were escaped there.
            figure { (PreEscaped(&it.drawing)) }
            div.table tabindex="0" role="region" aria-label="Simulation" {
                table {
                    thead { tr { th scope="col" { "Plan" } th.n scope="col" { "Sent" } th.n scope="col" { "Deferred" } th.n scope="col" { "Refused" } th.n scope="col" { "Waiting at the end" } th scope="col" { "Warm on" } } }
                    tbody {
                        @for side in &it.sides {
                            tr {
                                th scope="row" { (side.plan) }
                                td.n { (count(side.accepted)) } td.n { (count(side.deferred)) } td.n { (count(side.refused)) } td.n { (count(side.waiting)) }
                                td { @match side.finished { Some(day) => { "day " (day) } None => "not within these days" } }
                            }
                        }
                    }
                }
            }
            @for side in &it.sides { @for line in &side.outlook { p.quiet { b { (side.plan) } ": " (line) } } }
        }
    }
}

/// The text with other stages; everything else stays as it was written. None: it is no plan's text.
pub(super) fn with_stages(text: &str, stages: &[u64]) -> Option<String> {
    let mut document: toml_edit::DocumentMut = text.parse().ok()?;
    let plan = document.get_mut("plan")?.as_array_of_tables_mut()?.get_mut(0)?;
    for instead in ["start", "factor", "cap"] {
        plan.remove(instead);
    }
    let list: toml_edit::Array = stages.iter().map(|stage| i64::try_from(*stage).unwrap_or(i64::MAX)).collect();
    plan.insert("stages", toml_edit::value(list));
    Some(document.to_string())
}

/// Stages from one to another, each as many times the one before.
pub(super) fn evenly(first: u64, last: u64, days: usize) -> Vec<u64> {
    let (from, to) = (first.max(1) as f64, last.max(1) as f64);
    let steps = days.saturating_sub(1).max(1) as f64;
    let stage = |at: usize| (from * (to / from).powf(at as f64 / steps)).round() as u64;
    let mut stages: Vec<u64> = (0..days).map(stage).collect();
    // What rounding makes of the last one is nobody's wish.
    if let Some(end) = stages.last_mut() {
        *end = last.max(1);
    }
    stages
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stages_are_replaced_and_the_rest_of_the_text_stays() {
        let text = "# mine\n[[plan]]\nname = \"p\" # keep\nstages = [\n  1, # ]\n  2,\n]\nzone = \"UTC\"\n";
        let edited = with_stages(text, &[5, 7]).unwrap();
        assert!(
            edited.starts_with("# mine\n[[plan]]\nname = \"p\" # keep\n") && edited.ends_with("zone = \"UTC\"\n"),
            "{edited}"
        );
        assert_eq!(edited.matches("stages").count(), 1);
        assert!(edited.contains("[5, 7]"), "{edited}");
        let grown = with_stages("[[plan]]\nname = \"p\"\nstart = 1\nfactor = 2.0\ncap = 9\n", &[2]).unwrap();
        assert_eq!(grown, "[[plan]]\nname = \"p\"\nstages = [2]\n");
        assert_eq!(with_stages("plan = 1", &[2]), None);
        assert_eq!(with_stages("[[plan", &[2]), None);
    }

    #[test]
    fn growing_evenly_begins_and_ends_where_it_should() {
        assert_eq!(evenly(100, 1600, 5), [100, 200, 400, 800, 1600]);
        assert_eq!(evenly(7, 7, 3), [7, 7, 7]);
        assert_eq!(evenly(1, 1_000_000, 2), [1, 1_000_000]);
    }
}
