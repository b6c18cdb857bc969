//! The audit log: who changed what, from what to what, and why.

use maud::{Markup, html};
use serde_json::Value;

use super::{
    ask::with_query,
    parts::{self, Tone, time},
};
use crate::control::api::{AuditFilter, AuditPage, AuditRow};

/// A page of it, the newest first.
pub(super) fn page(filter: &AuditFilter, page: &AuditPage) -> Markup {
    let (who, about) = (filter.who.as_deref(), filter.about.as_deref());
    html! {
        h1 { "Audit log" }
        p.lead { "Every change that an operator asked for, by console or command, the newest first." }
        form.row method="get" action="/audit" role="search" {
            label { "Who" br; input name="who" value=[who] autocomplete="off"; }
            label { "About what begins with" br; input name="about" value=[about] placeholder="/v1/members" autocomplete="off"; }
            button { "Show" }
        }
        (table(&page.rows))
        @if let Some(next) = page.next {
            p { a.button rel="next" href=(with_query("/audit", &[("before", Some(&next.to_string())), ("who", who), ("about", about)])) { "Older" } }
        }
    }
}

/// Changes, as they are shown here and to whoever was too late.
pub(super) fn table(rows: &[AuditRow]) -> Markup {
    html! {
        div.table tabindex="0" role="region" aria-label="Changes" {
            table {
                thead { tr { th scope="col" { "When" } th scope="col" { "Who" } th scope="col" { "What" } th scope="col" { "Why" } th scope="col" { "Before and after" } th scope="col" { "Outcome" } } }
                tbody {
                    @for row in rows {
                        tr {
                            td { (time(&row.at)) }
                            td { (row.who) br; small.quiet { (row.by) } }
                            td { span.code { (row.what) } @if row.about != row.what { br; small.quiet { (row.about) } } }
                            td.wide { (row.why.as_deref().unwrap_or("")) }
                            td.wide { (differences(row)) }
                            td { (outcome(row)) }
                        }
                    }
                    @if rows.is_empty() { (parts::empty(6, "No change.")) }
                }
            }
        }
    }
}

fn outcome(row: &AuditRow) -> Markup {
    match row.outcome.as_str() {
        "done" => parts::state(Tone::Good, "done"),
        "refused" => html! { (parts::state(Tone::Warn, "refused")) @if let Some(status) = row.status { " " (status) } },
        other => parts::state(Tone::Bad, other),
    }
}

/// Only what is not the same before and after.
fn differences(row: &AuditRow) -> Markup {
    let changed = changed(row.before.as_ref(), row.after.as_ref());
    html! {
        @if changed.is_empty() {
            @if let Some(asked) = row.asked.as_ref().filter(|_| row.before.is_none() && row.after.is_none()) { span.code { (words(asked)) } }
        } @else {
            @for (name, before, after) in changed { div { b { (name) } " " span.code { (before) } " → " span.code { (after) } } }
        }
    }
}

fn changed(before: Option<&Value>, after: Option<&Value>) -> Vec<(String, String, String)> {
    let (Some(before), Some(after)) = (before, after) else {
        let gone = |value: Option<&Value>| value.map_or_else(|| "nothing".to_owned(), words);
        return match (before, after) {
            (None, None) => Vec::new(),
            _ => vec![("all of it".to_owned(), gone(before), gone(after))],
        };
    };
    let (Value::Object(old), Value::Object(new)) = (before, after) else {
        return if before == after { Vec::new() } else { vec![(String::new(), words(before), words(after))] };
    };
    let names = old.keys().chain(new.keys().filter(|name| !old.contains_key(*name)));
    let both = names.map(|name| (name, old.get(name).unwrap_or(&Value::Null), new.get(name).unwrap_or(&Value::Null)));
    let differ = both.filter(|(_, old, new)| old != new);
    differ
        .map(|(name, old, new)| match (old, new) {
            (Value::String(old), Value::String(new)) => (name.clone(), lines_beside(old, new), lines_beside(new, old)),
            _ => (name.clone(), words(old), words(new)),
        })
        .collect()
}

/// Of a text of many lines those that the other one does not have.
fn lines_beside(text: &str, other: &str) -> String {
    if !text.contains('\n') && !other.contains('\n') {
        return text.to_owned();
    }
    let others: std::collections::HashSet<&str> = other.lines().collect();
    text.lines().filter(|line| !others.contains(line)).collect::<Vec<_>>().join("\n")
}

fn words(value: &Value) -> String {
    match value {
        Value::Null => "nothing".to_owned(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn only_what_differs_is_shown() {
        let (before, after) = (json!({"tier": "a", "suspended": false}), json!({"tier": "a", "suspended": true, "pool": "p"}));
        let found = changed(Some(&before), Some(&after));
        let row = |name: &str, old: &str, new: &str| (name.to_owned(), old.to_owned(), new.to_owned());
        assert_eq!(found, [row("suspended", "false", "true"), row("pool", "nothing", "p")]);
        assert_eq!(changed(Some(&before), Some(&before)), []);
        let (old, new) = (json!({"text": "a = 1\nb = 2\n"}), json!({"text": "a = 1\nb = 3\nc = 4\n"}));
        assert_eq!(changed(Some(&old), Some(&new)), [row("text", "b = 2", "b = 3\nc = 4")]);
        assert_eq!(changed(None, None), []);
        assert_eq!(changed(Some(&json!(1)), None), [row("all of it", "1", "nothing")]);
    }
}
