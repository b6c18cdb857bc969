//! What the daemon did by itself, and how an operator ends or extends it.

use maud::{Markup, html};

use super::{
    super::api::{ActionPage, ActionRow, ActionShown},
    frame::Viewer,
    parts::{self, Act, act, time},
};

/// Those that run.
pub(super) fn page(viewer: &Viewer, page: &ActionPage) -> Markup {
    html! {
        h1 { "Automatic actions" }
        p.lead { "What replies and news from outside led to. Each ends by itself." }
        div.table tabindex="0" role="region" aria-label="Actions" {
            table {
                thead { tr { th.n scope="col" { "No." } th scope="col" { "What" } th scope="col" { "Cause" } th scope="col" { "Rule" } th scope="col" { "Since" } th scope="col" { "Until" } th.n scope="col" { "Again" } @if viewer.may_operate() { th scope="col" { "Do" } } } }
                tbody {
                    @for row in &page.actions {
                        tr {
                            td.n { a href=(path(row)) { (row.id) } }
                            td.wide { (row.says) }
                            td.wide { @if let Some(class) = &row.class { b { (class) } ": " } (row.cause) }
                            td { (row.rule) }
                            td { (time(&row.started_at)) }
                            td { (time(&row.expires_at)) }
                            td.n { (row.again) }
                            @if viewer.may_operate() { td { a href=(format!("{}#do", path(row))) { "cancel or extend" span.quiet { " " (row.id) } } } }
                        }
                    }
                    @if page.actions.is_empty() { (parts::empty(8, "None runs.")) }
                }
            }
        }
        @if page.more && let Some(last) = page.actions.last() { p { a.button rel="next" href=(format!("/actions?after={}", last.id)) { "Next" } } }
    }
}

fn path(row: &ActionRow) -> String {
    format!("/actions/{}", row.id)
}

/// One of them.
pub(super) fn one(viewer: &Viewer, id: u64, shown: &ActionShown, version: Option<&str>) -> Markup {
    html! {
        p.crumbs { a href="/actions" { "Automatic actions" } }
        h1 { "Action " (id) }
        @match &shown.action {
            None => p.lead { "It does not run any more." },
            Some(row) => {
                p.lead { (row.says) }
                dl.facts {
                    dt { "Cause" } dd { (row.cause) }
                    @if let Some(class) = &row.class { dt { "Class of the reply" } dd { a href=(format!("/replies#{}", parts::segment(class))) { (class) } } }
                    dt { "Rule" } dd { (row.rule) }
                    dt { "Since" } dd { (time(&row.started_at)) }
                    dt { "Until" } dd { (time(&row.expires_at)) }
                    @if let Some(window) = row.window { dt { "Window" } dd { (window) " at most" } }
                    @if let Some(id) = &row.message { dt { "Message" } dd { a.code href=(format!("/queue/{}", parts::segment(id))) { (id) } } }
                    dt { "By command" } dd { code { (row.cancel) } }
                }
                section #do aria-label="Do something" {
                    (act(viewer, &Act { name: "Cancel it", action: &format!("{}/cancel", path(row)), says: "It ends now; mail flows as before it.", danger: true, version, fields: html! {} }))
                    (act(viewer, &Act { name: "Extend it", action: &format!("{}/extend", path(row)), says: "It lasts longer, from its end or from now, whichever is later.", danger: false,
                        version,
                        fields: html! { label { "For how long: 30m, 2h, 1d" br; input name="for" required pattern="[0-9]+ *(s|m|h|d)" size="8" value="1h"; } } }))
                }
            }
        }
        h2 { "Its story" }
        div.table tabindex="0" role="region" aria-label="Story" {
            table {
                thead { tr { th scope="col" { "When" } th scope="col" { "What" } th scope="col" { "About" } th scope="col" { "Cause, or who and why" } } }
                tbody { @for event in &shown.events { tr { td { (time(&event.at)) } td { (event.what) } td { (event.host.as_deref().unwrap_or("")) } td.wide { (event.reply.as_deref().unwrap_or("")) } } } }
            }
        }
    }
}
