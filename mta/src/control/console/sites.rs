//! How mail for a domain travels: its hosts, what is demanded of TLS, limits with the layer that each comes from, the windows.

use maud::{Markup, html};

use super::{
    super::api::{Layer, ShapingRow, SiteRow, SitesPage, Where, WhereLimit, Would},
    ask::with_query,
    parts::{self, Tone, count, segment, time},
};

/// The way in: sites that are known now, a domain to look at, and what shaping says.
pub(super) fn index(find: &str, page: &SitesPage, shaping: &[ShapingRow]) -> Markup {
    html! {
        h1 { "Sites" }
        p.lead { "A site is the set of hosts that several recipient domains share. One without mail is forgotten after a while." }
        form.row method="get" action="/sites" role="search" aria-label="A domain" {
            label { "Recipient domain" br; input name="domain" required autocomplete="off" autofocus; }
            button { "Show" }
        }
        form.row method="get" action="/sites" role="search" aria-label="Sites" {
            label { "Part of a host's name, or a provider" br; input name="find" value=(find) autocomplete="off"; }
            button { "Find" }
        }
        div.table tabindex="0" role="region" aria-label="Sites" {
            table {
                thead { tr {
                    th scope="col" { "Site" } th scope="col" { "Provider" } th.n scope="col" { "Domains" } th.n scope="col" { "In the queue" } th.n scope="col" { "In flight" }
                    th.n scope="col" { "Delivered" } th.n scope="col" { "Deferred" } th scope="col" { "Window by source" } th scope="col" { "State" }
                } }
                tbody {
                    @for it in &page.sites {
                        tr {
                            th.wide scope="row" { @match &it.domain { Some(domain) => { a href=(format!("/sites/{}", segment(domain))) { (it.site) } } None => (it.site) } }
                            td { (it.provider) }
                            td.n { (count(it.domains)) }
                            td.n { (count(it.queued)) @if !it.counted_all { "+" } }
                            td.n { (count(it.in_flight)) }
                            td.n { (count(it.delivered)) }
                            td.n { (count(it.deferred)) }
                            td { @for of in &it.sources { (of.source) " " (of.in_flight) "/" (of.window) @if let Some(until) = &of.suspended_until { ", left alone until " (time(until)) } br; } }
                            td { (site_state(it)) }
                        }
                    }
                    @if page.sites.is_empty() { (parts::empty(9, if find.is_empty() { "None: no mail has gone anywhere lately." } else { "None of those that are known now." })) }
                }
            }
        }
        p.quiet { "Delivered and deferred are attempts of this hour and the one before, by the clock." }
        @if let Some(next) = page.next { p { a.button rel="next" href=(with_query("/sites", &[("after", Some(&next.to_string())), ("find", Some(find).filter(|find| !find.is_empty()))])) { "Next" } } }
        h2 { "What shaping, pools and providers say now" }
        p { a href="/shaping" { "Shaping that operators keep" } ", before all files." }
        div.table tabindex="0" role="region" aria-label="Shaping" {
            table {
                thead { tr { th scope="col" { "Of" } th scope="col" { "Setting" } th scope="col" { "Value" } th scope="col" { "Layer" } } }
                tbody {
                    @for row in shaping { tr { th scope="row" { (row.of) } td.code.key { (row.key) } td { (row.value) } td { (row.by) } } }
                    @if shaping.is_empty() { (parts::empty(4, "Nothing beyond what is built in.")) }
                }
            }
        }
    }
}

fn site_state(it: &SiteRow) -> Markup {
    html! {
        @match (&it.suspended_until, it.failures) {
            (Some(until), _) => { (parts::state(Tone::Bad, "left alone")) " until " (time(until)) }
            (None, 0) => { @if it.domains > 0 || it.queued > 0 { (parts::state(Tone::Good, "open")) } @else { (parts::state(Tone::None, "at rest")) } }
            (None, failures) => { (parts::state(Tone::Warn, "looked at")) " after " (failures) " failures in a row" }
        }
    }
}

/// One domain.
pub(super) fn page(it: &Where) -> Markup {
    html! {
        p.crumbs { a href="/sites" { "Sites" } }
        h1 { (it.domain) }
        p.lead { "As of " (time(&it.asked_at)) "." }
        dl.facts {
            dt { "Site" } dd { (it.site.as_deref().unwrap_or("no route")) @if let Some(provider) = &it.provider { ", operated by " (provider) } }
            @if let Some(trouble) = &it.trouble { dt { "Trouble" } dd { (parts::state(Tone::Bad, "no route")) " " (trouble) } }
            dt { "TLS policy" } dd { (it.tls_policy) }
            dt { "Pool" } dd { (it.pool) }
            dt { "In flight" } dd { (count(it.site_in_flight)) ", failures in a row: " (it.site_failures)
                @if let Some(until) = &it.site_suspended_until { ", " (parts::state(Tone::Bad, "left alone")) " until " (time(until)) } }
            dt { "Mail here" } dd { a href=(format!("/queue?domain={}", segment(&it.domain))) { (count(it.mail.queued)) " deliveries" } ", " (count(it.mail.held)) " held"
                @if !it.mail.counted_all { " (counting stopped there)" } }
            @if let Some(until) = &it.valid_until { dt { "Looked up again" } dd { (time(until)) } }
        }
        h2 { "Hosts, in the order to try" }
        div.table tabindex="0" role="region" aria-label="Hosts" {
            table {
                thead { tr { th scope="col" { "Host" } th.n scope="col" { "Preference" } th scope="col" { "Addresses" } th scope="col" { "Demanded of TLS" } } }
                tbody {
                    @for host in &it.hosts { tr { th scope="row" { (host.name) } td.n { (host.preference) } td { (host.addresses.join(", ")) } td { (host.demand) } } }
                    @if it.hosts.is_empty() { (parts::empty(4, "None.")) }
                }
            }
        }
        h2 { "Sources" }
        div.table tabindex="0" role="region" aria-label="Sources" {
            table {
                thead { tr { th scope="col" { "Source" } th.n scope="col" { "Share" } th.n scope="col" { "Window" } th.n scope="col" { "In flight" } th scope="col" { "State" } th scope="col" { "Shaping" } } }
                tbody {
                    @for source in &it.sources {
                        tr {
                            th scope="row" { (source.name) " " small.quiet { (source.address) } }
                            td.n { (source.weight) } td.n { (source.window) } td.n { (source.in_flight) }
                            td { @match &source.held { None => (parts::state(Tone::Good, "free")), Some(held) => { (parts::state(Tone::Warn, &held.reason)) " " (held.says) } } }
                            td { @for limit in &source.shaping { (limit.name) " " (limit.value) " " small.quiet { "(" (layer(&limit.set_by)) ")" } br; } }
                        }
                    }
                }
            }
        }
        h2 { "Limits, with the layer of each" }
        p { a href=(with_query("/shaping", &[("domain", Some(&it.domain))])) { "Set a limit for this domain" } }
        (limits(&it.limits))
        h2 { "A message that came now" }
        dl.facts {
            @for would in &it.would {
                dt { (would.class) }
                dd { @match &would.would {
                    Would::Send { source, slot } => { "would go from " (source) ", connection " (slot) }
                    Would::Hold(held) => { "would wait: " (held.says) }
                } }
            }
        }
    }
}

fn limits(all: &[WhereLimit]) -> Markup {
    html! {
        div.table tabindex="0" role="region" aria-label="Limits" {
            table {
                thead { tr { th scope="col" { "Limit" } th scope="col" { "Value" } th scope="col" { "Layer" } } }
                tbody {
                    @for limit in all { tr { th scope="row" { (limit.name) } td { (limit.value) } td { (layer(&limit.set_by)) } } }
                    @if all.is_empty() { (parts::empty(3, "None.")) }
                }
            }
        }
    }
}

fn layer(it: &Layer) -> String {
    match &it.name {
        Some(name) => format!("{}, {name}", it.layer),
        None => it.layer.clone(),
    }
}
