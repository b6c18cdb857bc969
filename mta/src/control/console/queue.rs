//! The queue a page at a time, by index, and one message's life. Neither subject nor body is here: a one-time code often stands there.

use maud::{Markup, html};

use super::{
    super::api::{DialogueRow, QueueDone, QueueFilter, QueuePage, QueueWish, QueuedMessage, Why, Would},
    frame::{Viewer, token},
    parts::{self, Act, Tone, act, count, segment, time},
};

/// Rows on a page.
pub(super) const ROWS: usize = 100;

/// The list.
pub(super) fn page(viewer: &Viewer, filter: &QueueFilter, page: &QueuePage) -> Markup {
    let domain = filter.domain.as_deref().or(filter.site.as_deref()).unwrap_or("");
    let member = filter.member.as_deref().unwrap_or("");
    html! {
        h1 { "Queue" }
        p.lead { "One row for each message and recipient domain." }
        form.row method="get" action="/queue" role="search" {
            label { "Recipient domain" br; input name="domain" value=(domain) autocomplete="off"; }
            label { "Member: DID or sending domain" br; input name="member" value=(member) autocomplete="off"; }
            label { input type="checkbox" name="held" value="true" checked[filter.held]; " Only what is held" }
            button { "Show" }
        }
        div.table tabindex="0" role="region" aria-label="Deliveries" {
            table {
                thead { tr {
                    th scope="col" { "Id" } th scope="col" { "To" } th scope="col" { "Member" } th scope="col" { "Class" } th.n scope="col" { "Recipients" }
                    th.n scope="col" { "Attempts" } th scope="col" { "Due" } th scope="col" { "Last reply or trouble" }
                } }
                tbody {
                    @for row in &page.deliveries {
                        tr {
                            th scope="row" { a.code href=(format!("/queue/{}", segment(&row.id))) { (row.id) } }
                            td { a href=(format!("/sites/{}", segment(&row.domain))) { (row.domain) } }
                            td { @match &row.member { Some(did) => { a href=(format!("/members/{}", segment(did))) { (did) } } None => { span.quiet { "our own" } } } }
                            td { (row.class) }
                            td.n { (row.recipients) }
                            td.n { (row.attempts) }
                            td { (time(&row.due_at)) @if let Some(by) = &row.held_by { br; (parts::state(Tone::Warn, "held")) " by " (by) } }
                            td.wide { (row.last.as_deref().unwrap_or("")) }
                        }
                    }
                    @if page.deliveries.is_empty() { (parts::empty(8, if page.more { "None on this page: go on." } else { "Nothing waits." })) }
                }
            }
        }
        @if page.more && let Some(next) = &page.next {
            p { a.button rel="next" href=(onward(filter, next)) { "Next " (ROWS) } }
        }
        @if (!domain.is_empty() || !member.is_empty()) && viewer.may_operate() { (all(viewer, domain, member)) }
    }
}

fn onward(filter: &QueueFilter, next: &str) -> String {
    let mut out = format!("/queue?after={}", segment(next));
    for (key, value) in [("domain", filter.domain.as_ref().or(filter.site.as_ref())), ("member", filter.member.as_ref())] {
        if let Some(value) = value.filter(|value| !value.is_empty()) {
            out.push_str(&format!("&{key}={}", segment(value)));
        }
    }
    if filter.held {
        out.push_str("&held=true");
    }
    out
}

/// What may be done with all that a filter names.
fn all(viewer: &Viewer, domain: &str, member: &str) -> Markup {
    let fields = html! {
        @if domain.is_empty() { input type="hidden" name="member" value=(member); }
        @else { input type="hidden" name="domain" value=(domain); }
    };
    let one =
        |name, action, says, danger| act(viewer, &Act { name, action, says, danger, version: None, fields: fields.clone() });
    let whose = if domain.is_empty() { member } else { domain };
    html! {
        h2 { "All mail of " (whose) }
        (one("Hold", "/queue/hold", "It stays in the queue and is not tried until it is released. Its time runs on.", true))
        (one("Release", "/queue/release", "What is held goes on.", false))
        (one("Cancel", "/queue/cancel", "It is taken out of the queue for good.", true))
        @if !domain.is_empty() { (one("Flush", "/queue/flush", "What waits for its time is due now.", false)) }
    }
}

/// One message.
pub(super) fn message(viewer: &Viewer, id: &str, message: Option<&QueuedMessage>, why: &Why) -> Markup {
    html! {
        p.crumbs { a href="/queue" { "Queue" } }
        h1 { "Message " span.code { (id) } }
        @match message {
            Some(it) => (envelope(it)),
            None => p.lead { "It is not in the queue any more: what became of it stands below." },
        }
        @if !why.deliveries.is_empty() { h2 { "Why it waits" } (waits(why)) }
        h2 { "What happened" }
        div.table tabindex="0" role="region" aria-label="What happened" {
            table {
                thead { tr { th scope="col" { "When" } th scope="col" { "What" } th scope="col" { "Who" } th scope="col" { "From" } th scope="col" { "Host" } th scope="col" { "Reply or reason" } } }
                tbody {
                    @for event in &why.events {
                        tr {
                            td { (time(&event.at)) }
                            td { (parts::state(tone(&event.what), &event.what)) }
                            td { (event.recipient.as_deref().or(event.domain.as_deref()).unwrap_or("")) @if event.recipients > 1 { " (" (event.recipients) ")" } }
                            td { (event.source.as_deref().unwrap_or("")) }
                            td { (event.host.as_deref().unwrap_or("")) }
                            td.wide { (event.reply.as_deref().unwrap_or("")) }
                        }
                    }
                    @if why.events.is_empty() { (parts::empty(6, "No event is kept of it.")) }
                }
            }
        }
        (dialogues(&why.dialogues))
        @if message.is_some() { (one(viewer, id)) }
    }
}

/// What was said, where mail was not taken.
fn dialogues(all: &[DialogueRow]) -> Markup {
    html! {
        @if !all.is_empty() { h2 { "Last dialogue" } }
        @for it in all.iter().rev() {
            section aria-label=(format!("Dialogue about {}", it.domain)) {
                p {
                    "With " (it.host) " [" (it.address) "] from " (it.source) ", about " (it.domain) ", " (it.tls.as_deref().unwrap_or("in clear text")) ", "
                    (time(&it.at)) "."
                }
                pre.dialogue tabindex="0" role="region" aria-label=(format!("Lines of the dialogue about {}", it.domain)) {
                    @for line in &it.lines { (line) "\n" }
                }
            }
        }
    }
}

fn envelope(it: &QueuedMessage) -> Markup {
    let from = if it.reverse_path.is_empty() { "<> (a notice)" } else { &it.reverse_path };
    html! {
        dl.facts {
            dt { "From" } dd { (from) }
            dt { "Member" } dd { @match &it.member { Some(did) => { a href=(format!("/members/{}", segment(did))) { (did) } } None => "our own" } }
            dt { "Class" } dd { (it.class) ", " (count(it.bytes)) " octets" }
            dt { "Accepted" } dd { (time(&it.accepted_at)) ", given up at " (time(&it.expires_at)) }
            @if let Some(aside) = &it.set_aside { dt { "Set aside" } dd { (parts::state(Tone::Bad, "damaged")) " " (aside) } }
        }
        h2 { "Recipients" }
        div.table tabindex="0" role="region" aria-label="Recipients" {
            table {
                thead { tr { th scope="col" { "Address" } th scope="col" { "Fate" } th scope="col" { "Last reply or trouble" } } }
                tbody { @for one in &it.recipients { tr { th scope="row" { (one.address) } td { (parts::state(tone(&one.fate), &one.fate)) } td.wide { (one.last.as_deref().unwrap_or("")) } } } }
            }
        }
    }
}

fn waits(why: &Why) -> Markup {
    html! {
        div.table tabindex="0" role="region" aria-label="Why it waits" {
            table {
                thead { tr { th scope="col" { "To" } th scope="col" { "State" } th scope="col" { "Because" } th scope="col" { "Clears" } th scope="col" { "Set by" } th.n scope="col" { "Attempts" } } }
                tbody {
                    @for it in &why.deliveries {
                        tr {
                            th scope="row" { (it.domain) }
                            td { (it.state) @if let Some(ahead) = it.ahead { br; small.quiet { (count(ahead)) " go before it" } } }
                            @match &it.next {
                                Would::Send { source, slot } => { td.wide { "goes from " (source) ", connection " (slot) } td {} td {} }
                                Would::Hold(held) => {
                                    td.wide { (held.says) }
                                    td { @match &held.clears_at { Some(at) => (time(at)), None => (held.clears) } }
                                    td { (held.set_by.layer) @if let Some(name) = &held.set_by.name { " " span.code { (name) } } }
                                }
                            }
                            td.n { (it.attempts) }
                        }
                    }
                }
            }
        }
        @if why.more { p.quiet { "There are more deliveries than are explained here." } }
    }
}

fn one(viewer: &Viewer, id: &str) -> Markup {
    let fields = html! { input type="hidden" name="id" value=(id); };
    let form =
        |name, action, says, danger| act(viewer, &Act { name, action, says, danger, version: None, fields: fields.clone() });
    html! {
        @if viewer.may_operate() {
            h2 { "Do something with it" }
            (form("Hold", "/queue/hold", "It is not tried until it is released. Its time runs on.", true))
            (form("Release", "/queue/release", "It goes on.", false))
            (form("Cancel", "/queue/cancel", "It is taken out of the queue for good.", true))
        }
    }
}

/// What was done to much mail. It is done in parts; the form goes on where the last part ended.
pub(super) fn done(viewer: &Viewer, verb: &str, wish: &QueueWish, done: &QueueDone, back: &str) -> Markup {
    html! {
        h1 { "Queue, " (verb) ": done" @if done.next.is_some() { " in part" } }
        div.notice role="status" {
            (count(done.changed)) " deliveries changed, " (count(done.unchanged)) " needed no change, " (count(done.in_flight)) " are in flight."
        }
        @if let Some(next) = &done.next {
            p { "There is more mail than one request goes through." }
            form.row method="post" action=(format!("/queue/{}", segment(verb))) {
                (token(viewer))
                @for (name, value) in [("member", &wish.member), ("domain", &wish.domain), ("why", &wish.reason)] {
                    @if let Some(value) = value { input type="hidden" name=(name) value=(value); }
                }
                input type="hidden" name="after" value=(next);
                button.primary { "Go on" }
            }
        }
        p { a href=(back) { "Back to the queue" } }
    }
}

/// How good a fate or an event is.
pub(super) fn tone(what: &str) -> Tone {
    match what {
        "delivered" => Tone::Good,
        "deferred" | "held" | "cancelled" => Tone::Warn,
        "failed" | "expired" | "set_aside" => Tone::Bad,
        _ => Tone::None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_way_on_keeps_the_filter() {
        let filter = QueueFilter { domain: Some("a b.test".to_owned()), held: true, ..QueueFilter::default() };
        assert_eq!(onward(&filter, "17/x"), "/queue?after=17%2Fx&domain=a%20b.test&held=true");
    }
}
