//! What every page has: head, navigation, who looks, and the headers that a browser is held to.

use axum::{
    http::{HeaderValue, StatusCode, header},
    response::{Html, IntoResponse, Response},
};
use maud::{DOCTYPE, Markup, html};

use super::{ask::Refused, assets, done};
use crate::control::admin::Role;

/// Scripts, styles and pictures come from here only; nothing is framed, nothing is sent elsewhere.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; \
                      form-action 'self'; base-uri 'none'; frame-ancestors 'none'";

/// htmx without what a strict policy forbids, and without memory of pages: what they show is private.
const HTMX: &str =
    r#"{"allowEval":false,"includeIndicatorStyles":false,"historyCacheSize":0,"selfRequestsOnly":true,"allowScriptTags":false}"#;

/// Where a page belongs in the navigation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    Overview,
    Warmup,
    Plans,
    Sources,
    Queue,
    Sites,
    Actions,
    Members,
    Replies,
    Audit,
}

impl Place {
    const ALL: [Place; 10] = [
        Place::Overview,
        Place::Warmup,
        Place::Plans,
        Place::Sources,
        Place::Queue,
        Place::Sites,
        Place::Actions,
        Place::Members,
        Place::Replies,
        Place::Audit,
    ];

    fn link(self) -> (&'static str, &'static str) {
        match self {
            Place::Overview => ("/", "Overview"),
            Place::Warmup => ("/warmup", "Warmup"),
            Place::Plans => ("/plans", "Plans"),
            Place::Sources => ("/sources", "Sources"),
            Place::Queue => ("/queue", "Queue"),
            Place::Sites => ("/sites", "Sites"),
            Place::Actions => ("/actions", "Automatic actions"),
            Place::Members => ("/members", "Members"),
            Place::Replies => ("/replies", "Replies"),
            Place::Audit => ("/audit", "Audit log"),
        }
    }
}

/// Who looks at a page.
#[derive(Debug, Clone)]
pub(super) struct Viewer {
    /// The operator's name.
    pub(super) name: String,
    /// What it may.
    pub(super) role: Role,
    /// What forms must carry; empty where none is needed.
    pub(super) csrf: String,
    /// The host name of the daemon, so that nobody works on the wrong one.
    pub(super) hostname: String,
    /// What the form led to that they come from, if the address says so.
    pub(super) done: Option<String>,
}

impl Viewer {
    /// Whether buttons are shown that change something. What is not shown is refused as well, elsewhere.
    pub(super) fn may_operate(&self) -> bool {
        self.role >= Role::Operate
    }
}

/// A whole page.
pub(super) fn page(place: Place, viewer: &Viewer, title: &str, body: &Markup) -> Response {
    let says = viewer.done.as_deref().and_then(|word| done::says(place, word));
    let body = html! {
        a.skip href="#main" { "Skip to content" }
        header.side {
            a.brand href="/" { "tradewind" }
            div.host { (viewer.hostname) }
            nav aria-label="Pages" {
                ul {
                    @for (each, (path, name)) in Place::ALL.map(|each| (each, each.link())) {
                        li { a href=(path) aria-current=[(each == place).then_some("page")] { (name) } }
                    }
                }
            }
            div.who {
                (viewer.name) " · may " (viewer.role)
                @if !viewer.csrf.is_empty() {
                    form method="post" action="/logout" { (token(viewer)) button { "Sign out" } }
                }
            }
        }
        main #main tabindex="-1" {
            @if let Some(says) = says { div.notice role="status" { (says) } }
            (body)
        }
    };
    answer(StatusCode::OK, document(title, Some(&viewer.hostname), &body))
}

/// A page without navigation, for whoever is not known yet.
pub(super) fn alone(status: StatusCode, title: &str, body: &Markup) -> Response {
    answer(status, document(title, None, &html! { main #main { (body) } }))
}

/// Says within the frame why something was not done.
pub(super) fn refused(place: Place, viewer: &Viewer, refused: &Refused) -> Response {
    let title = match refused.status {
        StatusCode::NOT_FOUND => "There is no such thing",
        StatusCode::FORBIDDEN => "That is not yours to do",
        StatusCode::PRECONDITION_FAILED => "Somebody else was faster",
        status if status.is_server_error() => "That cannot be done now",
        _ => "That was not done",
    };
    let body = html! {
        h1 { (title) }
        div.notice.bad role="alert" { (refused.says) }
        @if !refused.since.is_empty() {
            h2 { "What was changed meanwhile" }
            (super::audit::table(&refused.since))
        }
        p { a href=(place.link().0) { "Back to " (place.link().1) } }
    };
    let mut response = page(place, viewer, title, &body);
    *response.status_mut() = refused.status;
    response
}

/// Part of a page, for a script to put in.
pub(super) fn part(body: Markup) -> Response {
    answer(StatusCode::OK, body)
}

/// The hidden field that a form must carry.
pub(super) fn token(viewer: &Viewer) -> Markup {
    html! { @if !viewer.csrf.is_empty() { input type="hidden" name="csrf" value=(viewer.csrf); } }
}

fn document(title: &str, hostname: Option<&str>, body: &Markup) -> Markup {
    html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta name="color-scheme" content="light dark";
                meta name="htmx-config" content=(HTMX);
                title { (title) @if let Some(hostname) = hostname { " · " (hostname) } }
                link rel="stylesheet" href=(assets::style());
                link rel="icon" href=(assets::icon()) type="image/svg+xml";
                @for script in assets::scripts() { script src=(script) defer {} }
            }
            body.alone[hostname.is_none()] { (body) }
        }
    }
}

fn answer(status: StatusCode, body: Markup) -> Response {
    let mut response = (status, Html(body.into_string())).into_response();
    let headers = response.headers_mut();
    for (name, value) in [
        (header::CONTENT_SECURITY_POLICY, POLICY),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        // With "no-referrer" a browser sends `Origin: null` with forms, which says nothing (Fetch §3.2).
        (header::REFERRER_POLICY, "same-origin"),
        (header::CACHE_CONTROL, "no-store"),
        (header::X_FRAME_OPTIONS, "DENY"),
    ] {
        headers.insert(name, HeaderValue::from_static(value));
    }
    response
}
