//! What happens, and what needs a person now. The page asks for its inside again when there is news, at most every other second.

use maud::{Markup, html};

use super::{
    chart,
    parts::{self, Tone, count, segment, tiles, time},
    warmup,
};
use crate::control::{
    admin::Stage,
    api::{Attention, CountsOf, CountsRow, LabelerStatus, Overview, ResolverHealth, WarmupPage},
};

/// The page around it.
pub(super) fn page(hostname: &str, stage: Stage, inside: &Markup) -> Markup {
    html! {
        h1 { (hostname) }
        p.lead {
            @match stage {
                Stage::Ready => (parts::state(Tone::Good, "accepts mail")),
                Stage::Starting => (parts::state(Tone::Warn, "starting")),
                Stage::Draining => (parts::state(Tone::Warn, "draining: told to stop, finishes what is in progress")),
            }
        }
        div hx-ext="sse" sse-connect="/v1/stream?news_only=true" {
            div #now hx-get="/part/overview" hx-trigger="sse:news throttle:2s" hx-swap="innerHTML" { (inside) }
        }
        p.quiet { a href="/metrics" { "metrics" } " · " a href="/healthz" { "healthz" } " · " a href="/readyz" { "readyz" } " · " a href="/v1/openapi.json" { "API" } }
    }
}

/// What changes while one looks.
pub(super) fn inside(it: &Overview, climbs: &WarmupPage) -> Markup {
    let today = &it.today;
    html! {
        (attention(&it.attention))
        (tiles(&[
            ("Accepted today", count(today.accepted), Some("recipients, since midnight by UTC".to_owned())),
            ("Delivered", count(today.delivered), None),
            ("Deferred", count(today.deferred), Some("by each attempt".to_owned())),
            ("Failed", count(today.failed), None),
            ("In the queue", count(it.messages), Some(format!("{} deliveries, {} held", count(it.deliveries), count(it.held)))),
        ]))
        h2 { "The last day, hour by hour" }
        (chart::hours(&it.hours))
        div.split {
            section { h2 { "Providers today" } (table("Provider", &it.providers, false)) }
            section { h2 { "Members today" } (table("Member", &it.members, true)) }
        }
        div.split {
            section {
                h2 { "Oldest that waits" }
                dl.facts {
                    @for age in &it.ages {
                        dt { (age.class) }
                        dd {
                            @match (age.age_secs, &age.oldest_at) {
                                (Some(secs), Some(at)) => { (parts::lasting(secs)) ", since " (time(at)) }
                                _ => { "nothing waits" }
                            }
                            @if !age.sure { small.quiet { " or older: so much other mail waits before it" } }
                        }
                    }
                }
            }
            section { h2 { "Labels and DNS" } (health(it)) }
        }
        h2 { "Sources and providers today" }
        (warmup::grid(&climbs.climbs))
        p.quiet { "As of " (time(&it.asked_at)) "." }
    }
}

fn attention(all: &[Attention]) -> Markup {
    html! {
        section.needs[!all.is_empty()] aria-labelledby="needs" {
            h2 #needs { @if all.is_empty() { "Nothing needs a person now" } @else { "Needs a person" } }
            @if !all.is_empty() {
                ul {
                    @for each in all {
                        li { b { (each.kind) } ": " @match each.path.as_deref().and_then(page_of) { Some(path) => { a href=(path) { (each.says) } } None => (each.says) } }
                    }
                }
            }
        }
    }
}

/// The page that shows what a path of the API answers.
fn page_of(path: &str) -> Option<String> {
    let rest = path.strip_prefix("/v1")?;
    match rest.split('/').nth(1)? {
        "queue" | "actions" | "warmup" | "members" => Some(rest.to_owned()),
        "sources" => Some("/sources".to_owned()),
        _ => None,
    }
}

fn table(what: &str, rows: &[CountsOf], members: bool) -> Markup {
    html! {
        div.table tabindex="0" role="region" aria-label=(format!("{what}s today")) {
            table {
                thead { tr { th scope="col" { (what) } @if members { th.n scope="col" { "Accepted" } } th.n scope="col" { "Delivered" } th.n scope="col" { "Deferred" } th.n scope="col" { "Failed" } } }
                tbody {
                    @for CountsOf { name, counts: CountsRow { accepted, delivered, deferred, failed } } in rows {
                        tr {
                            th scope="row" { @if members && name != "own" { a href=(format!("/members/{}", segment(name))) { (name) } } @else { (name) } }
                            @if members { td.n { (count(*accepted)) } }
                            td.n { (count(*delivered)) } td.n { (count(*deferred)) } td.n { (count(*failed)) }
                        }
                    }
                    @if rows.is_empty() { (parts::empty(if members { 5 } else { 4 }, "Nothing yet today.")) }
                }
            }
        }
    }
}

fn resolver(it: &ResolverHealth) -> Markup {
    let (bad, good) = (it.failed + it.silent, it.answered + it.absent);
    html! {
        @match (bad, good) {
            (0, 0) => (parts::state(Tone::None, "not asked")),
            (bad, good) if bad > good => (parts::state(Tone::Bad, "in trouble")),
            _ if bad + it.bogus > 0 => (parts::state(Tone::Warn, "some failed")),
            _ => (parts::state(Tone::Good, "answer")),
        }
        " in " (it.minutes) " minutes: " (count(it.answered)) " answers, " (count(it.absent)) " with nothing there, " (count(it.failed)) " SERVFAIL or alike, "
        (count(it.silent)) " without an answer in time, " (count(it.bogus)) " with bad signatures"
        br; "DNSSEC: " span.code { (it.dnssec) }
        @if let Some(trouble) = &it.trouble { br; small.quiet { "last: " (trouble) } }
    }
}

fn health(it: &Overview) -> Markup {
    let dns = &it.dns;
    html! {
        dl.facts {
            dt { "Labeler" }
            dd {
                @match &it.labeler {
                    None => { "not consulted: there is no [labeler] table" }
                    Some(LabelerStatus { did, polled_at, stale, trouble }) => {
                        @match (stale, trouble) { (true, _) => (parts::state(Tone::Bad, "stale")), (_, Some(_)) => (parts::state(Tone::Warn, "in trouble")), _ => (parts::state(Tone::Good, "answers")) }
                        " " (did) br; "last good poll " @match polled_at { Some(at) => (time(at)), None => "never" }
                        @if let Some(trouble) = trouble { br; (trouble) }
                    }
                }
            }
            @if let Some(it) = &it.resolver { dt { "Name servers" } dd { (resolver(it)) } }
            dt { "Sources" }
            dd {
                a href="/sources" { (count(dns.names_good)) " of " (count(dns.sources_seen)) " have a good name" } ", "
                @if dns.listed > 0 { (parts::state(Tone::Bad, "listed")) " " (count(dns.listed)) " times" } @else { "none is listed" }
                @if dns.unanswered > 0 { ", " (count(dns.unanswered)) " block lists do not answer" }
                @if let Some(at) = &dns.seen_at { br; small.quiet { "looked at " (time(at)) } }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_needs_a_person_leads_to_the_page_about_it() {
        assert_eq!(page_of("/v1/actions/7").as_deref(), Some("/actions/7"));
        assert_eq!(page_of("/v1/sources").as_deref(), Some("/sources"));
        assert_eq!(page_of("/v1/status"), None);
        assert_eq!(page_of("https://elsewhere.example/"), None);
    }
}
