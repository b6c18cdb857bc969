//! The table of the API: every path, what it does, and the role that it needs. Routes, the OpenAPI document and tests are made
//! from it, so that none of them can know a path that another does not.

use axum::{
    Router,
    handler::Handler,
    http::Method,
    middleware::from_fn_with_state,
    routing::{MethodFilter, MethodRouter, on},
};

use schemars::SchemaGenerator;

use super::changes::{Guard, guard};
use super::operator::Role;
use super::shapes::{Shape, Shaped};
use super::{Admin, Operations, handlers as h, live, login, openapi};
use crate::control::wishes::Verb;

/// One line of the table.
pub(super) struct Route<O> {
    pub(super) rule: Rule,
    /// What goes in and comes out.
    pub(super) shape: fn(&mut SchemaGenerator) -> Shape,
    run: MethodRouter<Admin<O>>,
}

/// What of a line is not its handler.
#[derive(Debug, Clone)]
pub(super) struct Rule {
    pub(super) method: Method,
    /// From `/v1` on, with arguments in braces.
    pub(super) path: &'static str,
    /// The least that may ask.
    pub(super) role: Role,
    /// What it does, in a line.
    pub(super) says: &'static str,
    /// What changes: the path, without its last parts, whose answer to GET is other afterwards.
    pub(super) about: Option<&'static str>,
    /// Of an answer: what an operator edits, as pointers into it (RFC 6901). They are its version.
    pub(super) edited: &'static [&'static str],
    /// Nothing changes, although a body is sent: neither audited nor compared.
    pub(super) harmless: bool,
    /// Of a body: what the audit must not keep.
    pub(super) secret: &'static [&'static str],
}

/// Of a member, what an operator edits; what it has sent is not.
pub(super) const MEMBER: &[&str] = &["/did", "/domains", "/suspended", "/tier", "/pool"];

/// Of a climb.
pub(super) const CLIMB: &[&str] = &["/climb/plan", "/climb/state", "/climb/stage", "/climb/pinned"];

/// Of an automatic action.
pub(super) const ACTION: &[&str] = &["/action/id", "/action/kind", "/action/expires_at", "/action/window"];

/// All of them.
pub(super) fn table<O: Operations>() -> Vec<Route<O>> {
    use Role::{Admin as Adm, Operate as Op, Read};
    vec![
        get("/v1/status", Read, h::status::<O>, "How the daemon is"),
        get("/v1/overview", Read, h::overview::<O>, "How everything goes, by hour, provider and member, and what needs a person"),
        get("/v1/members", Read, h::members::<O>, "All members"),
        post("/v1/members", Adm, h::add_member::<O>, "Enrol a member, or give one another domain"),
        get("/v1/members/{member}", Read, h::member::<O>, "One member, by DID or sending domain").edited(MEMBER),
        post("/v1/members/{member}", Adm, h::set_member::<O>, "Put it into a tier or a pool").about("/v1/members/{member}"),
        delete("/v1/members/{member}", Adm, h::remove_member::<O>, "Forget it, with credentials and keys; answers it as it was")
            .about("/v1/members/{member}"),
        post("/v1/members/{member}/suspend", Op, h::suspend::<O>, "Accept no mail of it").about("/v1/members/{member}"),
        post("/v1/members/{member}/resume", Op, h::resume::<O>, "Accept its mail again").about("/v1/members/{member}"),
        get("/v1/members/{member}/credentials", Read, h::credentials::<O>, "Its credentials, without secrets").edited(&[""]),
        post(
            "/v1/members/{member}/credentials/{id}/rotate",
            Adm,
            h::rotate_credential::<O>,
            "Another secret for one; it is told here and never again",
        )
        .about("/v1/members/{member}/credentials"),
        delete("/v1/members/{member}/credentials/{id}", Adm, h::revoke_credential::<O>, "Make one worthless")
            .about("/v1/members/{member}/credentials"),
        get("/v1/keys", Read, h::keys::<O>, "DKIM keys, without their private parts"),
        post("/v1/keys", Adm, h::import_key::<O>, "Bring an own key").secret(&["pem"]),
        delete("/v1/keys", Adm, h::remove_keys::<O>, "Remove keys; answers those removed"),
        post("/v1/keys/rotate", Adm, h::rotate_keys::<O>, "Make new keys beside the old; answers the new"),
        get("/v1/queue", Read, h::queue::<O>, "What waits to be delivered"),
        get("/v1/queue/{id}", Read, h::queued::<O>, "One message, with what became of each recipient"),
        post("/v1/queue/hold", Op, |a, b, c| h::operate::<O>(Verb::Hold, a, b, c), "Not tried until released"),
        post("/v1/queue/release", Op, |a, b, c| h::operate::<O>(Verb::Release, a, b, c), "No longer held"),
        post("/v1/queue/cancel", Op, |a, b, c| h::operate::<O>(Verb::Cancel, a, b, c), "Gone"),
        post(
            "/v1/queue/flush",
            Op,
            |a, b, c| h::operate::<O>(Verb::Flush, a, b, c),
            "Due now, and the site no longer left alone",
        ),
        get("/v1/why/{id}", Read, h::why::<O>, "Why a message waits, or what became of it"),
        get("/v1/where/{domain}", Read, h::whereabouts::<O>, "How a domain's mail travels"),
        get(
            "/v1/sites",
            Read,
            h::sites::<O>,
            "The sites that are known now, with windows, what waits and what was deferred lately",
        ),
        get(
            "/v1/sites/{site}",
            Read,
            h::site::<O>,
            "A site: who leads there, limits with the layer of each, TLS policy, windows",
        ),
        get(
            "/v1/replies",
            Read,
            h::replies::<O>,
            "What hosts said lately when they did not take mail, by class, without recipients",
        ),
        get("/v1/sources", Read, h::sources::<O>, "Our own sources"),
        get("/v1/sources/health", Read, h::source_health::<O>, "How they stand"),
        get("/v1/shaping", Read, h::shaping::<O>, "What of shaping, pools and providers holds now"),
        get("/v1/shaping/text", Read, h::shaping_text::<O>, "The shaping that operators keep, as TOML; it goes before all files")
            .edited(&["/text"]),
        post("/v1/shaping/text", Adm, h::set_shaping::<O>, "Keep a text in its place").about("/v1/shaping/text"),
        post(
            "/v1/shaping/text/check",
            Read,
            h::try_shaping::<O>,
            "What is wrong with a text, by line, or what would be other; changes nothing",
        )
        .harmless(),
        post("/v1/shaping/text/undo", Adm, h::unset_shaping::<O>, "Put back what was there before the last change; again: redo")
            .about("/v1/shaping/text"),
        get("/v1/actions", Read, h::actions::<O>, "Automatic actions that run"),
        get("/v1/actions/{id}", Read, h::action::<O>, "One of them, or what became of it").edited(ACTION),
        post("/v1/actions/{id}/cancel", Op, h::end_action::<O>, "End it").about("/v1/actions/{id}"),
        post("/v1/actions/{id}/extend", Op, h::prolong_action::<O>, "Move its end").about("/v1/actions/{id}"),
        get("/v1/warmup", Read, h::warmup::<O>, "Where sources stand that warm up"),
        get("/v1/warmup/steps", Read, h::climb_steps::<O>, "What was decided about warmup, the newest first"),
        get("/v1/warmup/{source}/{provider}", Read, h::climb::<O>, "One source at one provider, day by day").edited(CLIMB),
        post(
            "/v1/warmup/{source}/{provider}/{verb}",
            Op,
            h::steer_climb::<O>,
            "Steer it: set, pin, unpin, pause, resume, skip, rewind, complaints",
        )
        .about("/v1/warmup/{source}/{provider}"),
        get("/v1/plans", Read, h::plans::<O>, "Plans of warmup, and who follows them"),
        get("/v1/plans/{name}", Read, h::plan::<O>, "One plan, with its text as TOML").edited(&["/from", "/text"]),
        post("/v1/plans/{name}", Adm, h::set_plan::<O>, "Apply a text as this plan, before what the settings say")
            .about("/v1/plans/{name}"),
        post("/v1/plans/{name}/check", Read, h::try_plan::<O>, "What is wrong with a text, by line; changes nothing").harmless(),
        post(
            "/v1/plans/{name}/simulate",
            Read,
            h::simulate_plan::<O>,
            "What would come of a text with the mail of the last 30 days, beside the plan that holds; changes nothing",
        )
        .harmless(),
        post("/v1/plans/{name}/undo", Adm, h::unset_plan::<O>, "Put back what was there before the last change; again: redo")
            .about("/v1/plans/{name}"),
        get("/v1/events", Read, h::events::<O>, "What became of mail; waits for news if told to"),
        get("/v1/stream", Read, live::stream::<O>, "The same as they come, as server-sent events; goes on after Last-Event-ID"),
        get("/v1/openapi.json", Read, openapi::document::<O>, "This document"),
        get("/v1/session", Read, login::who_am_i, "Who asks, and of a browser the word that its changes must show"),
        get("/v1/audit", Read, h::audit::<O>, "Who changed what, from what to what, why and when; the newest first"),
        get("/v1/tokens", Adm, h::tokens::<O>, "Operators' tokens, without their secrets"),
        post("/v1/tokens", Adm, h::add_token::<O>, "Make one; its secret is told here and never again"),
        delete("/v1/tokens/{name}", Adm, h::revoke_token::<O>, "Make one worthless, and end its logins"),
    ]
}

/// The routes of the table, each behind its role, and what changes anything behind version and audit.
pub(super) fn routes<O: Operations>(admin: &Admin<O>) -> Router<Admin<O>> {
    let table = table::<O>();
    let look = |rule: &Rule| {
        let of = table.iter().find(|other| other.rule.method == Method::GET && Some(other.rule.path) == rule.about)?;
        Some((Router::new().route(of.rule.path, of.run.clone()).with_state(admin.clone()), of.rule.edited))
    };
    table.iter().fold(Router::new(), |router, Route { rule, run, .. }| {
        let around = Guard { rule: rule.clone(), admin: admin.clone(), look: look(rule) };
        router.route(rule.path, run.clone().layer(from_fn_with_state(around, guard)))
    })
}

impl<O> Route<O> {
    fn about(mut self, path: &'static str) -> Self {
        self.rule.about = Some(path);
        self
    }

    fn edited(mut self, fields: &'static [&'static str]) -> Self {
        self.rule.edited = fields;
        self
    }

    fn harmless(mut self) -> Self {
        self.rule.harmless = true;
        self
    }

    fn secret(mut self, fields: &'static [&'static str]) -> Self {
        self.rule.secret = fields;
        self
    }
}

fn get<O: Operations, H: Handler<T, Admin<O>> + Shaped<A>, T: 'static, A>(
    path: &'static str,
    role: Role,
    handler: H,
    says: &'static str,
) -> Route<O> {
    route((Method::GET, MethodFilter::GET), path, role, handler, says)
}

fn post<O: Operations, H: Handler<T, Admin<O>> + Shaped<A>, T: 'static, A>(
    path: &'static str,
    role: Role,
    handler: H,
    says: &'static str,
) -> Route<O> {
    route((Method::POST, MethodFilter::POST), path, role, handler, says)
}

fn delete<O: Operations, H: Handler<T, Admin<O>> + Shaped<A>, T: 'static, A>(
    path: &'static str,
    role: Role,
    handler: H,
    says: &'static str,
) -> Route<O> {
    route((Method::DELETE, MethodFilter::DELETE), path, role, handler, says)
}

fn route<O: Operations, H: Handler<T, Admin<O>> + Shaped<A>, T: 'static, A>(
    (method, filter): (Method, MethodFilter),
    path: &'static str,
    role: Role,
    handler: H,
    says: &'static str,
) -> Route<O> {
    Route {
        rule: Rule { method, path, role, says, about: None, edited: &[], harmless: false, secret: &[] },
        shape: H::shape,
        run: on(filter, handler),
    }
}
