//! The shaping that operators keep: edited as text, with what is wrong by line and what would be other, applied, undone.

use axum::{Form, extract::Query, response::Response};
use maud::{Markup, html};
use serde::de::IgnoredAny;

use super::{
    Desk, Fields,
    ask::{Found, Refused},
    frame::{self, Place, Viewer, token},
    given,
    handlers::{OrPage, Shown, back, seen},
    parts::{self, Act, act},
    plan_handlers::text,
    why,
};
use crate::control::{
    admin::Role,
    api::{Reason, ShapingChecked, ShapingText, ShapingWish},
};

const PLACE: Place = Place::Sites;

const PATH: &str = "/shaping";

/// `/shaping`; with `?domain=` and the beginning of a table for it.
pub(super) async fn show(desk: Desk, Query(fields): Query<Fields>) -> Shown {
    let kept: Found<ShapingText> = desk.api.find("/v1/shaping/text").await.or_page(PLACE, &desk)?;
    let begun = given(&fields, "domain").map(|domain| begun(&kept.it.text, &domain));
    let text = begun.as_deref().unwrap_or(&kept.it.text);
    Ok(answer(&desk, &page(&desk.viewer, &kept.it, text, None, kept.etag.as_deref())))
}

/// While somebody writes: what is wrong, as part of the page.
pub(super) async fn check(desk: Desk, Form(fields): Form<Fields>) -> Shown {
    let checked = look_at(&desk, text(&fields)).await.or_page(PLACE, &desk)?;
    Ok(frame::part(told(Some(&checked))))
}

/// The same as a page.
pub(super) async fn look(desk: Desk, Form(fields): Form<Fields>) -> Shown {
    let kept: Found<ShapingText> = desk.api.find("/v1/shaping/text").await.or_page(PLACE, &desk)?;
    let checked = look_at(&desk, text(&fields)).await.or_page(PLACE, &desk)?;
    // The version of when the writing began, not of what is there now.
    let version = fields.get("version").map(String::as_str);
    Ok(answer(&desk, &page(&desk.viewer, &kept.it, &text(&fields), Some(&checked), version)))
}

/// Makes it so.
pub(super) async fn apply(desk: Desk, Form(fields): Form<Fields>) -> Shown {
    let wish = why(&fields).map(|why| ShapingWish { text: text(&fields), why }).or_page(PLACE, &desk)?;
    desk.api.post::<IgnoredAny>("/v1/shaping/text", Some(&wish), seen(&fields)).await.or_page(PLACE, &desk)?;
    Ok(back(PATH, "applied"))
}

/// Puts back what was there before.
pub(super) async fn undo(desk: Desk, Form(fields): Form<Fields>) -> Shown {
    let wish = why(&fields).map(|why| Reason { why }).or_page(PLACE, &desk)?;
    desk.api.post::<IgnoredAny>("/v1/shaping/text/undo", Some(&wish), seen(&fields)).await.or_page(PLACE, &desk)?;
    Ok(back(PATH, "undone"))
}

fn answer(desk: &Desk, body: &Markup) -> Response {
    frame::page(PLACE, &desk.viewer, "Shaping", body)
}

async fn look_at(desk: &Desk, text: String) -> Result<ShapingChecked, Refused> {
    let wish = ShapingWish { text, why: String::new() };
    desk.api.post("/v1/shaping/text/check", Some(&wish), Default::default()).await
}

/// What is kept, and a table to write into for a domain of which nothing is said there yet.
fn begun(text: &str, domain: &str) -> String {
    let domain = toml::Value::from(domain).to_string();
    if text.contains(&format!("domain = {domain}")) {
        return text.to_owned();
    }
    let apart = if text.is_empty() || text.ends_with("\n\n") { "" } else { "\n" };
    format!("{text}{apart}[[shape]]\ndomain = {domain}\nconnections = 5\n")
}

fn page(viewer: &Viewer, kept: &ShapingText, text: &str, checked: Option<&ShapingChecked>, version: Option<&str>) -> Markup {
    html! {
        p.crumbs { a href="/sites" { "Sites" } }
        h1 { "Shaping" }
        p.lead { "What operators keep goes before the files of [shaping] and what is shipped. " code { "tradewind config describe" } " shows every setting of a table [[shape]]." }
        @if let Some(before) = &kept.before && viewer.role >= Role::Admin {
            (act(viewer, &Act {
                name: "Undo the last change",
                action: "/shaping/undo",
                says: if before.is_empty() { "Nothing is kept then: files and what is shipped hold again." } else { "The text that was there before holds again." },
                danger: true,
                version,
                fields: html! {},
            }))
        }
        h2 { "Edit" }
        form #edit method="post" action="/shaping/try" {
            (token(viewer))
            @if let Some(version) = version { input type="hidden" name="version" value=(version); }
            label for="text" { "As TOML: tables [[shape]]. Nothing changes before it is applied." }
            textarea #text name="text" spellcheck="false" aria-describedby="problems"
                hx-post="/shaping/check" hx-trigger="input changed delay:500ms" hx-target="#problems" hx-swap="outerHTML" { (text) }
            (told(checked))
            p { button { "Check" } " " span.quiet { "what is wrong, or what would be other" } }
            @if viewer.role >= Role::Admin {
                div.row {
                    label for="why" { "Why, for the record" }
                    input #why name="why" maxlength="500" size="40" autocomplete="off";
                    " " button.primary formaction=(PATH) { "Apply" }
                }
            }
        }
        p.quiet { "It lies in " code { (kept.file) } "." }
    }
}

/// What is wrong with a text, line by line, or what would be other.
fn told(checked: Option<&ShapingChecked>) -> Markup {
    html! {
        div #problems role="status" aria-live="polite" {
            @match checked {
                None => {}
                Some(ShapingChecked { ok: true, changes, .. }) => {
                    p.notice { @if changes.is_empty() { "It changes nothing." } @else { (changes.len()) " values would be other." } }
                    @if !changes.is_empty() {
                        div.table tabindex="0" role="region" aria-label="Changes" {
                            table {
                                thead { tr { th scope="col" { "Of" } th scope="col" { "Setting" } th scope="col" { "Now" } th scope="col" { "Then" } } }
                                tbody {
                                    @for it in changes { tr { th scope="row" { (it.of) } td.code { (it.key) } td { (it.before.as_deref().unwrap_or("–")) } td { (it.after.as_deref().unwrap_or("–")) } } }
                                }
                            }
                        }
                    }
                }
                Some(ShapingChecked { problems, .. }) => (parts::mistakes(problems)),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_is_begun_for_a_domain_unless_there_is_one() {
        assert_eq!(begun("", "a.example"), "[[shape]]\ndomain = \"a.example\"\nconnections = 5\n");
        let kept = "[[shape]]\ndomain = \"a.example\"\nconnections = 3\n";
        assert_eq!(begun(kept, "a.example"), kept);
        let table: toml::Table = toml::from_str(&begun(kept, "b\"\n[x]")).unwrap();
        assert_eq!(table["shape"][1]["domain"].as_str(), Some("b\"\n[x]"));
    }
}
