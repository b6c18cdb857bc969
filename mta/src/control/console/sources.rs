//! Our own addresses: what the DNS and block lists say of them, and how they stand with providers.

use maud::{Markup, html};

use super::parts::{self, Tone, time};
use crate::control::api::{SourceRow, ZoneRow};

/// The page.
pub(super) fn page(sources: &[SourceRow]) -> Markup {
    html! {
        h1 { "Sources" }
        p.lead { "The addresses that mail is sent from." }
        div.table tabindex="0" role="region" aria-label="Sources" {
            table {
                thead { tr { th scope="col" { "Source" } th scope="col" { "Name in DNS" } th scope="col" { "Block lists" } th scope="col" { "Health" } th scope="col" { "Pools" } } }
                tbody {
                    @for source in sources {
                        tr {
                            th scope="row" { (source.name) br; small.quiet { (source.address) ", " (source.ehlo) } }
                            td.wide {
                                @match source.ptr.as_str() {
                                    "good" => (parts::state(Tone::Good, "good")),
                                    "unseen" | "loopback" => (parts::state(Tone::None, &source.ptr)),
                                    other => (parts::state(Tone::Warn, other)),
                                }
                                @if let Some(trouble) = &source.trouble { br; (trouble) }
                                @if let Some(at) = &source.seen_at { br; small.quiet { "looked at " (time(at)) } }
                            }
                            td { @for zone in &source.zones { div { (zone.zone) " " (said(zone)) } } @if source.zones.is_empty() { span.quiet { "none is asked" } } }
                            td {
                                @for health in &source.health {
                                    div {
                                        (parts::state(match health.health.as_str() { "healthy" => Tone::Good, "degraded" => Tone::Warn, _ => Tone::Bad }, &health.health))
                                        " " (health.provider.as_deref().unwrap_or("as a whole"))
                                        @for action in &health.actions { " " a href=(format!("/actions/{action}")) { "action " (action) } }
                                    }
                                }
                            }
                            td { @for pool in &source.pools { div { (pool.pool) small.quiet { " share " (pool.weight) } } } }
                        }
                    }
                    @if sources.is_empty() { (parts::empty(5, "None: mail is sent from whichever address the system chooses.")) }
                }
            }
        }
    }
}

fn said(zone: &ZoneRow) -> Markup {
    html! {
        (parts::state(match zone.says.as_str() { "clean" => Tone::Good, "listed" => Tone::Bad, _ => Tone::Warn }, &zone.says))
        @if let Some(answer) = &zone.answer { " " small { (answer) } }
        @if let Some(since) = &zone.since { " since " (time(since)) }
    }
}
