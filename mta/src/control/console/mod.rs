//! The console: pages that operators look at and work with, made here and embedded in the program.
//!
//! A page is a function from what the admin API answers to HTML; it asks nothing itself, so what a page shows the operator's
//! command shows as well. Links are links and forms are forms: everything works without a script. One library is used on top,
//! htmx: it replaces parts of a page by what the server made, needs no build and no `eval`, is 17 KB compressed, and is under
//! the Zero-Clause BSD licence, so it is embedded beside its extension for server-sent events.
//!
//! | module | page |
//! |---|---|
//! | [`overview`] | `/`: what happens, and what needs a person now |
//! | [`warmup`], [`climb`] | `/warmup`: sources and providers; one of them over its days |
//! | [`plans`] | `/plans`: as form or text, simulated beside what holds, applied, undone |
//! | [`sources`] | `/sources`: what DNS and block lists say of our addresses |
//! | [`queue`] | `/queue`: what waits, and one message's life |
//! | [`sites`] | `/sites`: those that are known, and how a domain's mail travels |
//! | [`shaping`] | `/shaping`: what operators keep of it, edited, applied, undone |
//! | [`actions`] | `/actions`: what the daemon did by itself |
//! | [`members`] | `/members`: who may send |
//! | [`replies`] | `/replies`: what hosts said, by class |
//! | [`audit`] | `/audit`: who changed what |
//! | [`login`] | `/login`: to sign in |
//! | [`ask`], [`handlers`], [`plan_handlers`] | the way to the API |
//! | [`frame`], [`done`], [`parts`], [`chart`], [`assets`] | what pages have in common |
//!
//! Not here: who may look ([`admin`](super::admin)), what can be asked ([`api`](super::api)).

// Refusals are pages: axum's own `Response`, and made once for each request.
#![allow(clippy::result_large_err)]

mod actions;
mod ask;
mod assets;
mod audit;
mod chart;
mod climb;
mod done;
mod frame;
mod handlers;
mod login;
mod members;
mod overview;
mod parts;
mod plan_handlers;
mod plans;
mod queue;
mod replies;
mod shaping;
mod sites;
mod sources;
mod warmup;

use std::{collections::BTreeMap, sync::Arc};

use axum::{
    Router,
    extract::{FromRequestParts, Query},
    http::{Method, Uri, request::Parts},
    response::{IntoResponse, Redirect, Response},
    routing::{get, post},
};
use tokio::sync::watch;

use self::{
    ask::{Api, Refused},
    frame::Viewer,
    handlers as h, plan_handlers as ph,
};
use super::{
    admin::{Csrf, MaybeOperator, Stage},
    http::Peer,
};

pub(in crate::control) use login::page as sign_in_page;

/// What pages are made from.
#[derive(Clone)]
pub(super) struct Console {
    /// The admin API, behind roles but not behind proofs: whoever asks is known already.
    pub(super) api: Router,
    /// How far the daemon is.
    pub(super) stage: watch::Receiver<Stage>,
    /// The name in the greeting.
    pub(super) hostname: Arc<dyn Fn() -> String + Send + Sync>,
}

/// Fields of a form or of a query. What is empty was not given.
type Fields = BTreeMap<String, String>;

/// The pages. Who asks must be in the request already, if it is known; whoever is not is led to sign in.
pub(super) fn routes(console: Console) -> Router {
    Router::new()
        .route("/", get(h::overview))
        .route("/warmup", get(h::warmup_grid))
        .route("/warmup/{source}/{provider}", get(h::climb))
        .route("/warmup/{source}/{provider}/{verb}", post(h::steer))
        .route("/part/overview", get(h::overview_part))
        .route("/plans", get(ph::plans))
        .route("/plans/{name}", get(ph::plan).post(ph::apply_plan))
        .route("/plans/{name}/check", post(ph::check_plan))
        .route("/plans/{name}/try", post(ph::try_plan))
        .route("/plans/{name}/undo", post(ph::undo_plan))
        .route("/queue", get(h::queue))
        .route("/queue/{id}", get(h::message).post(h::operate))
        .route("/sites", get(h::sites))
        .route("/sites/{domain}", get(h::site))
        .route("/shaping", get(shaping::show).post(shaping::apply))
        .route("/shaping/check", post(shaping::check))
        .route("/shaping/try", post(shaping::look))
        .route("/shaping/undo", post(shaping::undo))
        .route("/actions", get(h::actions))
        .route("/actions/{id}", get(h::action))
        .route("/actions/{id}/{verb}", post(h::end_or_extend))
        .route("/members", get(h::members))
        .route("/members/{member}", get(h::member))
        .route("/members/{member}/{verb}", post(h::suspend_or_resume))
        .route("/members/{member}/credentials/{id}/{verb}", post(h::renew_or_revoke))
        .route("/sources", get(h::sources))
        .route("/replies", get(h::replies))
        .route("/audit", get(h::audit))
        .route("/assets/{name}", get(assets::serve))
        .with_state(console)
}

/// An operator with a page in front of them: who they are, and the way to ask for them.
struct Desk {
    viewer: Viewer,
    api: Api,
    stage: Stage,
}

impl FromRequestParts<Console> for Desk {
    type Rejection = Response;

    async fn from_request_parts(parts: &mut Parts, console: &Console) -> Result<Desk, Response> {
        let Ok(MaybeOperator(operator)) = MaybeOperator::from_request_parts(parts, console).await;
        let Some(operator) = operator else { return Err(sign_in(&parts.method, &parts.uri)) };
        let csrf = parts.extensions.get::<Csrf>().map(|csrf| csrf.0.clone()).unwrap_or_default();
        let fields = Query::<Fields>::try_from_uri(&parts.uri).map(|Query(fields)| fields).unwrap_or_default();
        let viewer = Viewer {
            name: operator.to_string(),
            role: operator.role,
            csrf,
            hostname: (console.hostname)(),
            done: given(&fields, done::NAME),
        };
        let stage = *console.stage.borrow();
        Ok(Desk {
            viewer,
            api: Api { router: console.api.clone(), operator, peer: parts.extensions.get::<Peer>().copied() },
            stage,
        })
    }
}

/// To the page to sign in, and back from there; not back to a form that was sent.
fn sign_in(method: &Method, uri: &Uri) -> Response {
    let to = uri.path_and_query().filter(|_| *method == Method::GET).map(|path| path.as_str());
    Redirect::to(&ask::with_query("/login", &[("to", to.filter(|path| *path != "/"))])).into_response()
}

fn given(fields: &Fields, name: &str) -> Option<String> {
    fields.get(name).map(|value| value.trim().to_owned()).filter(|value| !value.is_empty())
}

fn number<T: std::str::FromStr>(fields: &Fields, name: &str) -> Result<Option<T>, Refused> {
    let wrong = |value: &String| Refused::wrong(format!("{name} is {value:?}, which is not a whole number in its range"));
    given(fields, name).map(|value| value.parse().map_err(|_| wrong(&value))).transpose()
}

fn why(fields: &Fields) -> Result<String, Refused> {
    given(fields, "why").ok_or_else(|| Refused::wrong("a reason is needed, for the record"))
}

#[cfg(test)]
mod tests;
