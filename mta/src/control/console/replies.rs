//! What hosts said when they did not take mail, by class, with the words behind each.

use maud::{Markup, html};

use super::{
    ask::with_query,
    parts::{self, count, segment, time},
};
use crate::control::api::{RepliesFilter, RepliesPage};

/// The classes, with what each means.
const CLASSES: [(&str, &str); 10] = [
    ("mailbox", "the recipient is unknown, full or disabled"),
    ("content", "what the message says"),
    ("policy", "the receiver's own rules"),
    ("reputation", "who we are, from here"),
    ("rate", "too much at once"),
    ("greylist", "come again later"),
    ("auth", "SPF, DKIM or DMARC"),
    ("tls", "the connection's security"),
    ("host", "the receiving host itself"),
    ("none", "our own reasons: no reply was given"),
];

/// The page.
pub(super) fn page(filter: &RepliesFilter, page: &RepliesPage) -> Markup {
    let class = filter.class.as_deref().unwrap_or("");
    html! {
        h1 { "Replies" }
        p.lead {
            (count(page.replies)) " replies that did not take mail"
            @if let Some(since) = &page.since { ", since " (time(since)) }
            ". Recipients are left out of the words."
        }
        form.row method="get" action="/replies" role="search" {
            label { "Class" br; select name="class" { option value="" { "every class" } @for (name, says) in CLASSES { option value=(name) selected[name == class] { (name) ": " (says) } } } }
            label { "Provider" br; input name="provider" value=[filter.provider.as_deref()] autocomplete="off"; }
            label { "To our source" br; input name="source" value=[filter.source.as_deref()] autocomplete="off"; }
            button { "Show" }
        }
        div.table tabindex="0" role="region" aria-label="Replies" {
            table {
                thead { tr { th scope="col" { "Class" } th scope="col" { "Provider" } th.n scope="col" { "Times" } th.n scope="col" { "For good" } th scope="col" { "Words, as they came last" } th scope="col" { "Last" } th scope="col" { "To" } } }
                tbody {
                    @for group in &page.groups {
                        tr {
                            td { a href=(with_query("/replies", &[("class", Some(&group.class))])) { (group.class) } @if let Some(entry) = &group.entry { br; small.quiet { "by " (entry) } } }
                            td { (group.provider) @if !group.host.is_empty() { br; small.quiet { (group.host) } } }
                            td.n { (count(group.count)) }
                            td.n { (count(group.failed)) }
                            td.wide { (group.text) br; a.code href=(format!("/queue/{}", segment(&group.id))) { (group.id) } }
                            td { (time(&group.last_at)) }
                            td { (group.sources.join(", ")) }
                        }
                    }
                    @if page.groups.is_empty() { (parts::empty(7, "None that fits.")) }
                }
            }
        }
        @if page.more { p.quiet { "There are more kinds of words than are shown; choose a class or a provider." } }
    }
}
