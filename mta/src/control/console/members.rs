//! Members: what labels say of them, what they may send and have sent.

use maud::{Markup, html};

use super::{
    frame::Viewer,
    parts::{self, Act, Tone, act, bar, count, limit, segment, time},
};
use crate::control::{
    admin::Role,
    api::{CredentialRow, Key, Member, NewSecret},
};

/// All of them.
pub(super) fn page(members: &[Member]) -> Markup {
    html! {
        h1 { "Members" }
        p.lead { (members.len()) " enrolled, of whom " (members.iter().filter(|member| member.admitted).count()) " may send now." }
        div.table tabindex="0" role="region" aria-label="Members" {
            table {
                thead { tr { th scope="col" { "Member" } th scope="col" { "State" } th scope="col" { "Domains" } th scope="col" { "Labels" } th scope="col" { "Doubts" } th scope="col" { "Tier" } th.n scope="col" { "Sent today" } th.n scope="col" { "In the queue" } } }
                tbody {
                    @for member in members {
                        tr {
                            th scope="row" { a href=(path(member)) { (member.did) } }
                            td { (admitted(member)) }
                            td { (member.domains.join(", ")) }
                            td { (member.labels.join(", ")) }
                            td { (doubted(member)) }
                            td { (member.tier) }
                            td.n { (count(member.spending.sent_today)) " of " (limit(member.spending.messages_per_day)) }
                            td.n { (count(member.spending.queue_messages)) }
                        }
                    }
                    @if members.is_empty() { (parts::empty(8, "None yet: tradewind member add --did DID --domain DOMAIN")) }
                }
            }
        }
    }
}

/// Where its own page is.
pub(super) fn path(member: &Member) -> String {
    format!("/members/{}", segment(&member.did))
}

fn admitted(member: &Member) -> Markup {
    match (member.suspended, member.admitted) {
        (true, _) => parts::state(Tone::Bad, "suspended"),
        (false, true) => parts::state(Tone::Good, "may send"),
        (false, false) => parts::state(Tone::Warn, "may not send"),
    }
}

/// In a word, for the list.
fn doubted(member: &Member) -> Markup {
    html! {
        @if member.waits_for.is_some() { (parts::state(Tone::Bad, "new mail waits")) }
        @else if !member.doubts.is_empty() { (parts::state(Tone::Warn, "doubted")) }
    }
}

/// What the labeler doubts, on what that rests, and what follows.
fn standing(member: &Member) -> Markup {
    html! {
        h2 { "What the labeler doubts" }
        @if member.doubts.is_empty() {
            p { "Nothing that counts now." }
        } @else {
            div.table tabindex="0" role="region" aria-label="Doubts" {
                table {
                    thead { tr { th scope="col" { "Doubt, with what it rests on and since when" } th scope="col" { "What follows" } } }
                    tbody {
                        @for doubt in &member.doubts {
                            tr {
                                td.wide { (doubt) }
                                td { @if member.waits_for.as_ref() == Some(doubt) { (parts::state(Tone::Bad, "new mail waits")) " (451) until the doubt ends by itself" } @else { "look at it" } }
                            }
                        }
                    }
                }
            }
            @if let Some(at) = &member.doubted_at { p.quiet { "The labeler last answered " (time(at)) "." } }
        }
    }
}

/// What the page shows, so that whoever changes it says what they saw.
#[derive(Clone, Copy)]
pub(super) struct Versions<'a> {
    pub(super) member: Option<&'a str>,
    pub(super) credentials: Option<&'a str>,
}

/// One of them.
pub(super) fn one(
    viewer: &Viewer,
    member: &Member,
    keys: &[&Key],
    credentials: &[CredentialRow],
    versions: Versions<'_>,
) -> Markup {
    let spending = &member.spending;
    let rows = [
        ("Sent today", spending.sent_today, spending.messages_per_day),
        ("Messages in the queue", spending.queue_messages, spending.queue_messages_max),
        ("Octets in the queue", spending.queue_bytes, spending.queue_bytes_max),
    ];
    let at = |verb: &str| format!("{}/{verb}", path(member));
    html! {
        p.crumbs { a href="/members" { "Members" } }
        h1 { (member.did) }
        p.lead { (admitted(member)) @if let Some(reason) = &member.reason { ": " (reason) } }
        dl.facts {
            dt { "Domains" } dd { (member.domains.join(", ")) }
            dt { "Labels in force" } dd { @if member.labels.is_empty() { "none" } @else { (member.labels.join(", ")) } }
            dt { "Tier" } dd { (member.tier) }
            @if let Some(pool) = &member.pool { dt { "Pool" } dd { (pool) } }
            dt { "Rate" } dd { (limit(spending.messages_per_hour)) " recipients an hour, " (limit(spending.burst)) " at once"
                @if let Some(available) = spending.available { "; " (count(available)) " now" } }
            dt { "Mail" } dd { a href=(format!("/queue?member={}", segment(&member.did))) { "what waits" } }
        }
        h2 { "What it has used" }
        div.table tabindex="0" role="region" aria-label="What it has used" {
            table {
                thead { tr { th scope="col" { "Of" } th.n scope="col" { "Used" } th.n scope="col" { "Limit" } th scope="col" { "Share" } } }
                tbody { @for (name, used, most) in rows { tr { th scope="row" { (name) } td.n { (count(used)) } td.n { (limit(most)) } td { @if let Some(most) = most { (bar(used, 0, most)) } } } } }
            }
        }
        (standing(member))
        h2 { "Credentials" }
        (secrets(viewer, member, credentials, versions))
        h2 { "DKIM keys" }
        div.table tabindex="0" role="region" aria-label="DKIM keys" {
            table {
                thead { tr { th scope="col" { "Domain" } th scope="col" { "Selector" } th scope="col" { "Algorithm" } th scope="col" { "Record to publish" } } }
                tbody {
                    @for key in keys { tr { td { (key.domain) } td { (key.selector) } td { (key.algorithm) ", " (key.bits) " bits" } td.wide { code { (key.dns_record.name) } br; code { (key.dns_record.value) } } } }
                    @if keys.is_empty() { (parts::empty(4, "None: its mail cannot be signed by it.")) }
                }
            }
        }
        @if viewer.may_operate() {
            h2 { "Do something" }
            @if member.suspended {
                (act(viewer, &Act { name: "Resume", action: &at("resume"), says: "Its mail is accepted again.", danger: false, version: versions.member, fields: html! {} }))
            } @else {
                (act(viewer, &Act { name: "Suspend", action: &at("suspend"), says: "Its mail is refused from now on. What is in the queue goes on, unless it is held.", danger: true, version: versions.member, fields: html! {} }))
            }
        }
    }
}

fn secrets(viewer: &Viewer, member: &Member, credentials: &[CredentialRow], versions: Versions<'_>) -> Markup {
    html! {
        div.table tabindex="0" role="region" aria-label="Credentials" {
            table {
                thead { tr { th.n scope="col" { "No." } th scope="col" { "User name" } th scope="col" { "Class of its mail" } th scope="col" { "May send" } } }
                tbody {
                    @for row in credentials { tr { td.n { (row.id) } td { (row.domain) } td { (row.class) } td { @if row.classes.is_empty() { "any class" } @else { (row.classes.join(", ")) } } } }
                    @if credentials.is_empty() { (parts::empty(4, "None: it cannot sign in.")) }
                }
            }
        }
        @if viewer.role >= Role::Admin {
            @for row in credentials {
                @let at = format!("{}/credentials/{}", path(member), row.id);
                (act(viewer, &Act { name: &format!("New password for {} ({})", row.domain, row.id), action: &format!("{at}/rotate"),
                    says: "The old one is worthless from then on. The new one is shown once.", danger: true, version: versions.credentials, fields: html! {} }))
                (act(viewer, &Act { name: &format!("Revoke {} ({})", row.domain, row.id), action: &format!("{at}/revoke"),
                    says: "Nobody can sign in with it any more.", danger: true, version: versions.credentials, fields: html! {} }))
            }
        }
    }
}

/// A secret that is shown this once.
pub(super) fn renewed(page: &str, secret: &NewSecret) -> Markup {
    html! {
        h1 { "A new password for " (secret.username) }
        div.notice role="status" { "It is shown this once. Whoever uses the old one is refused from now on." }
        dl.facts {
            dt { "User name" } dd.code { (secret.username) }
            dt { "Password" } dd.code { (secret.password) }
            dt { "PDS_EMAIL_SMTP_URL" } dd.code { (secret.smtp_url) }
        }
        p { a href=(page) { "Back to the member" } }
    }
}
